// The plans of mma_sync, for kernels that leave some addresses to it: in f32 with operands rounded to tf32. The caller
// owns them.
#pragma once

#include "plan.h"

namespace pycv::cuda {

GemmPlan* plan_gemm_mma(const GemmProblem& problem, int64_t workspace_limit);
ConvPlan* plan_conv_mma(const ConvProblem& problem, int64_t workspace_limit);

}  // namespace pycv::cuda
