// Depthwise convolution, all passes: sums over taps straight from the source, for convolutions whose groups are too
// thin for a matrix product, and for any other.
//
// 2 * n * k * out * (c / groups) * filter FLOPs, in two schemes: lanes along the channels where a vector of them is
// contiguous (depthwise_channels.h), or along the rows of padded planes (depthwise_planes.h).
#include "depthwise_channels.h"
#include "depthwise_grad_weight.h"
#include "depthwise_planes.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

constexpr int64_t kWideBytes = 64;  // vectors of which have a half that is worth its own code

template <class T, int L>
ConvPlan* plan_channels(const ConvProblem& problem, int threads) {
    if (problem.pass == Pass::grad_weight) return new ChannelGradWeight<T, L>(problem, threads);
    return new ChannelGather<T, L>(problem, threads);
}

template <class T>
ConvPlan* plan(const ConvProblem& problem, int threads) {
    if (has_channel_vectors(problem, lanes<T>)) return plan_channels<T, lanes<T>>(problem, threads);
    if constexpr (lanes<T> * sizeof(T) == kWideBytes) {
        if (has_channel_vectors(problem, lanes<T> / 2)) return plan_channels<T, lanes<T> / 2>(problem, threads);
    }
    if (problem.pass == Pass::grad_weight) return new PlaneGradWeight<T>(problem, threads);
    return new PlaneGather<T>(problem, threads);
}

ConvPlan* plan_depthwise(const ConvProblem& problem, int threads, int64_t) {
    if (problem.dtype == DType::f64) return plan<double>(problem, threads);
    return plan<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("conv", "depthwise", plan_depthwise);

}  // namespace pycv::cpu::PYCV_ISA
