// Depthwise convolution, all passes: sums over taps straight from the source, for convolutions whose groups are too
// thin for a matrix product, and for any other.
//
// 2 * n * k * out * (c / groups) * filter FLOPs, in two schemes: lanes along the channels where a vector of them is
// contiguous (depthwise_channels*.cpp), or along the rows of padded planes (depthwise_planes*.cpp).
#include "depthwise_channels.h"
#include "depthwise_plans.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

ConvPlan* plan_depthwise(const ConvProblem& problem, int threads, int64_t) {
    const bool grad_weight = problem.pass == Pass::grad_weight;
    if (channel_lanes(problem) > 0)
        return grad_weight ? plan_channel_grad_weight(problem, threads) : plan_channel_gather(problem, threads);
    return grad_weight ? plan_plane_grad_weight(problem, threads) : plan_plane_gather(problem, threads);
}

}  // namespace

PYCV_KERNEL("conv", "depthwise", plan_depthwise);

}  // namespace pycv::cpu::PYCV_ISA
