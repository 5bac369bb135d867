// Convolution as a matrix product with the im2col matrix, all passes: see conv_gather.h for forward and grad_input.
//
// forward, grad_input: computed[channel][position] = weight[channel][tap, c] x im2col[tap, c][position]. The weight is
//   the stationary operand, packed by prepare_weight(). The lanes run along positions where those are contiguous in
//   the computed tensor (nchw), else along channels (nhwc).
// grad_weight: weight[k][tap, c] = output[k][position] x im2col[position][tap, c], the depth being all n * positions.
//
// The im2col matrix is materialised only in the packed panels of one block per thread (at most the workspace limit).
// 2 * n * k * out * (c / groups) * filter FLOPs; the im2col elements are written and read through L2 once per
// block, one copy for every k / groups multiply-adds.
#include "conv_grad_weight.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T>
ConvPlan* plan(const ConvProblem& problem, int threads, int64_t workspace_limit) {
    if (problem.pass == Pass::grad_weight) return new GradWeightConv<T>(problem, threads, workspace_limit, Access::packed);
    return new GatherConv<T>(problem, threads, workspace_limit, Access::packed);
}

ConvPlan* plan_im2col(const ConvProblem& problem, int threads, int64_t workspace_limit) {
    if (problem.dtype == DType::f64) return plan<double>(problem, threads, workspace_limit);
    return plan<float>(problem, threads, workspace_limit);
}

}  // namespace

PYCV_KERNEL("conv", "im2col", plan_im2col);

}  // namespace pycv::cpu::PYCV_ISA
