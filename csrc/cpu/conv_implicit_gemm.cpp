// 1x1 convolution as a matrix product that reads the activation where it lies (conv_product.h, conv_grad_weight.h):
// pixels in the lanes or, broadcast, in the rows of a tile. Pixels that do not lie evenly (strides, padding, planes or
// pixels at multiples of 4096 bytes, the last few of a plane that do not fill a vector) are packed as by im2col. Images
// of one pixel are rows of a plain product (conv_one_pixel.h).
//
// 2 * n * k * out * (c / groups) FLOPs; each element of the activation is read once per block of weight panels that
// stays in cache.
#include "conv_grad_weight.h"
#include "conv_one_pixel.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T>
ConvPlan* plan(const ConvProblem& problem, int threads, int64_t workspace_limit) {
    if (problem.pass == Pass::grad_weight)
        return new GradWeightConv<T>(problem, threads, workspace_limit, Access::in_place);
    return new GatherConv<T>(problem, threads, workspace_limit, Access::in_place);
}

ConvPlan* plan_implicit_gemm(const ConvProblem& problem, int threads, int64_t workspace_limit) {
    if (is_one_pixel(problem)) return new OnePixelConv(problem, threads, workspace_limit);
    if (problem.dtype == DType::f64) return plan<double>(problem, threads, workspace_limit);
    return plan<float>(problem, threads, workspace_limit);
}

}  // namespace

PYCV_KERNEL("conv", "implicit_gemm", plan_implicit_gemm);

}  // namespace pycv::cpu::PYCV_ISA
