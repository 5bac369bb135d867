// The schemes of the depthwise convolution: one file each, which compile in parallel.
// Only for kernel files (ISA namespace).
#pragma once

#include "plan.h"

namespace pycv::cpu::PYCV_ISA {

ConvPlan* plan_channel_gather(const ConvProblem& problem, int threads);  // forward and grad_input
ConvPlan* plan_channel_grad_weight(const ConvProblem& problem, int threads);
ConvPlan* plan_transposed_gather(const ConvProblem& problem, int threads);  // forward and grad_input
ConvPlan* plan_plane_gather(const ConvProblem& problem, int threads);       // forward and grad_input
ConvPlan* plan_plane_grad_weight(const ConvProblem& problem, int threads);

}  // namespace pycv::cpu::PYCV_ISA
