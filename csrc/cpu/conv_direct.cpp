#include "conv_naive.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

ConvPlan* plan_direct(const ConvProblem& problem, int threads, int64_t) {
    if (problem.dtype == DType::f64) return new NaiveConv<double>(problem, threads);
    return new NaiveConv<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("conv", "direct", plan_direct);

}  // namespace pycv::cpu::PYCV_ISA
