// The plan of Winograd's grad_weight (winograd_grad_weight.cu).
#pragma once

#include "plan.h"

namespace pycv::cuda::winograd {

// F(3 x 3, M x M)
template <class T, int M>
ConvPlan* new_grad_weight(const ConvProblem& problem, int64_t workspace_limit);

}  // namespace pycv::cuda::winograd
