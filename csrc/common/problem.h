// The problems that kernels solve, as plain C++ structs.
//
// A problem is everything that decides which kernel runs and how: sizes, strides, pass, dtype, fused
// epilogue. pycv/problem.py owns the definition and its text form; bindings/ fills these structs in
// one place; nothing here parses or validates. One- and two-dimensional problems are three-dimensional
// ones whose leading spatial sizes are 1 (filter 1, stride 1, padding 0, dilation 1).
#pragma once

#include <cstdint>

namespace pycv {

enum class DType { f32, f64, f16, bf16 };
enum class Pass { forward, grad_input, grad_weight };

// Three spatial values in the order depth, height, width.
struct Spatial {
    int64_t d, h, w;
    int64_t count() const { return d * h * w; }
};

// Where element (n, c, d, h, w) of a tensor lies: strides in elements. For a weight, n is the output
// channel and c the input channel within its group. A stride of 0 repeats the same memory.
// In a blocked layout (nchw8c, nchw16c) `block` channels of a pixel lie side by side and the stride c leads from one
// block to the next: channel c is at (c / block) * Strides::c + c % block. The last block is filled up with zeros:
// whoever reads may rely on them, whoever writes writes them.
struct Strides {
    int64_t n, c, d, h, w;
    int64_t block = 1;

    int64_t channel(int64_t index) const { return index / block * c + index % block; }
};

// output[n, k, o] = sum over c, r of input[n, c, o * stride - padding + r * dilation] * weight[k, c, r]
// The tensors keep these names in every pass: the pass says which of the three is computed from the
// other two. `out` is given, not derived: whatever of the padded input lies beyond the last window is
// implied by it, so a right padding that differs from the left one needs no field of its own.
struct ConvProblem {
    Pass pass;
    DType dtype;
    int64_t n, c, k, groups;    // batch, input channels, output channels
    Spatial size, filter, out;  // input, filter and output extents
    Spatial stride, padding, dilation;
    Strides input, weight, output, residual;
    // Epilogue of the computed tensor (forward: output, grad_input: input; never in grad_weight), in
    // this order: + bias[channel], + residual, relu.
    bool bias, has_residual, relu;
    // Prologue, in forward only: the convolution sees relu(input * scale[c] + shift[c]); its padding stays 0.
    bool scale_input = false, relu_input = false;
};

// Where element (batch, row, column) of a matrix lies: strides in elements, any of them may be 0.
struct MatrixStrides {
    int64_t batch, row, column;
};

// out[b] = relu(alpha * a[b] @ w[b] + beta * residual[b] + bias[column]); a is m x k, b is k x n.
struct GemmProblem {
    DType dtype;
    int64_t batch, m, n, k;
    MatrixStrides a, b, out, residual;
    bool bias, has_residual, relu;
};

enum class PoolKind { max, avg, adaptive_max, adaptive_avg };

// How max pooling names the element that it took: by its position in the d*h*w plane, or in one byte by its number in
// the window, whose elements count whether they lie inside the input or not. Windows with offsets are all alike, have
// at most 256 elements, and at least one of them lies inside.
enum class Indices { none, int64, offset };

struct PoolProblem {
    PoolKind kind;
    Pass pass;  // forward or grad_input
    DType dtype;
    int64_t n, c;
    Spatial size, filter, out;  // filter is unused by the adaptive kinds
    Spatial stride, padding, dilation;
    Strides input, output;   // of grad_input and grad_output in that pass
    Indices indices;         // max: what is written (forward) or read (grad_input), laid out as output
    bool count_include_pad;  // avg
    int64_t divisor;         // avg: 0 = the window's size
};

enum class NormKind { batch_norm, local_response_norm, channel_sum };

struct NormProblem {
    NormKind kind;
    Pass pass;  // forward or grad_input (which also fills grad_weight, grad_bias)
    DType dtype;
    int64_t n, c;
    Spatial size;
    Strides input, output;  // output also describes grad_output; grad_input lies as input
    bool training;          // batch_norm: statistics of this batch, not the running ones
    int64_t window;         // local_response_norm: channels in the sum
    // batch_norm, epilogue of the forward: + residual, then relu. The gradient of the same problem goes through both;
    // residual also describes grad_residual.
    Strides residual{};
    bool has_residual = false, relu = false;
};

enum class PointwiseKind { relu };

struct PointwiseProblem {
    PointwiseKind kind;
    Pass pass;  // forward or grad_input
    DType dtype;
    int64_t count;  // elements, dense
    bool mask;      // the gradient reads bits that forward writes, in place of the forward's output
};

// What a measurement of the machine's peaks runs on; no tensor is involved.
struct PeakProblem {
    DType dtype;
    int64_t bytes;  // read: size of the buffer; fma: unused
};

}  // namespace pycv
