// The plan of wgmma's grad_weight (conv_wgmma_grad_weight.cu).
#pragma once

#include "plan.h"

namespace pycv::cuda {

// f16 and bf16, and f32 with operands rounded to tf32.
ConvPlan* plan_wgmma_grad_weight(const ConvProblem& problem, int64_t workspace_limit);

}  // namespace pycv::cuda
