// The grad_weight pass of Winograd convolution (winograd_grad_weight.cpp).
#pragma once

#include "plan.h"
#include "winograd_tile.h"

namespace pycv::cpu::PYCV_ISA {

template <class T>
ConvPlan* new_winograd_grad_weight(const ConvProblem& problem, const TileTransforms<T>& tile, int threads,
                                   int64_t workspace_limit);

}  // namespace pycv::cpu::PYCV_ISA
