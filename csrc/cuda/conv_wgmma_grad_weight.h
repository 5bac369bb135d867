// The plan of wgmma's grad_weight (conv_wgmma_grad_weight.cu).
#pragma once

#include <string>
#include <vector>

#include "plan.h"

namespace pycv::cuda {

// In one of the tiles offered, of which the first is that of the rule. f16 and bf16, and f32 with operands rounded to
// tf32.
ConvPlan* plan_wgmma_grad_weight(const ConvProblem& problem, int64_t workspace_limit, const std::string& tile);
std::vector<std::string> offered_wgmma_grad_weight(const ConvProblem& problem);

}  // namespace pycv::cuda
