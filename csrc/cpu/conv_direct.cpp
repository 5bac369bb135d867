// Direct convolution of any geometry: sums over taps and source channels in register tiles, straight from a padded copy
// of the source, with output channels in lanes. forward and grad_input: direct_gather.h; grad_weight:
// direct_grad_weight.h.
//
// 2 * n * k * out * (c / groups) * filter FLOPs.
#include "direct_gather.h"
#include "direct_grad_weight.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T>
ConvPlan* plan(const ConvProblem& problem, int threads) {
    if (problem.pass == Pass::grad_weight) return new DirectGradWeight<T>(problem, threads);
    return new DirectGather<T>(problem, threads);
}

ConvPlan* plan_direct(const ConvProblem& problem, int threads, int64_t) {
    if (problem.dtype == DType::f64) return plan<double>(problem, threads);
    return plan<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("conv", "direct", plan_direct);

}  // namespace pycv::cpu::PYCV_ISA
