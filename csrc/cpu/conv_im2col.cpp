#include "conv_naive.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

ConvPlan* plan_im2col(const ConvProblem& problem, int threads, int64_t) {
    if (problem.dtype == DType::f64) return new NaiveConv<double>(problem, threads);
    return new NaiveConv<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("conv", "im2col", plan_im2col);

}  // namespace pycv::cpu::PYCV_ISA
