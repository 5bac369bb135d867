// The matrix product for kernels that are nothing else.
// Only for kernel files (ISA namespace).
#pragma once

#include "plan.h"

namespace pycv::cpu::PYCV_ISA {

GemmPlan* plan_packed_gemm(const GemmProblem& problem, int threads, int64_t workspace_limit);

}  // namespace pycv::cpu::PYCV_ISA
