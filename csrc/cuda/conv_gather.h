// A convolution as a product with its im2col matrix, of which a kernel makes only the pieces that it needs.
//
//     forward, grad_input:  computed[n, m, first + q * step] =
//                               sum over taps t, channels c of source[n, c, q * source_step + offset_t] * weight[m, c,
//                               t]
//     grad_weight:          computed[k, c, t] = sum over n, q of source[n, c, q * source_step + offset_t] * output[n,
//     k, q]
//
// The im2col matrix has one index per position (n, q) and one per tap (c, t). Forward and grad_weight gather from the
// input with source_step = stride. grad_input gathers from the output, one phase of the input grid at a time: positions
// that are equal modulo the stride see the same taps, and see the output with unit steps, so that nothing is multiplied
// with inserted zeros. A phase may have no tap at all: it is 0.
//
// Element (position, tap) lies at the sum of both their offsets, and inside the source where the sums of their
// coordinates are: no division and no table of the filter is needed to walk along either.
#pragma once

#include "integers.h"
#include "plan.h"

namespace pycv::cuda {

// Depth, height, width in 32 bits: the entries of kernels/cuda.py refuse axes that do not fit.
struct Extent {
    int d, h, w;
};

inline Extent extent(const Spatial& s) { return {static_cast<int>(s.d), static_cast<int>(s.h), static_cast<int>(s.w)}; }

// One axis of one phase. Tap i is filter position filter_first + i * filter_step.
struct AxisGather {
    int first, step, count;  // positions of the computed tensor
    int source_step;
    int taps, filter_first, filter_step, offset_first, offset_step;
};

struct Gather {
    AxisGather d, h, w;
    __host__ __device__ int64_t taps() const { return static_cast<int64_t>(d.taps) * h.taps * w.taps; }
    __host__ __device__ int64_t positions() const { return static_cast<int64_t>(d.count) * h.count * w.count; }
};

__host__ __device__ inline AxisGather forward_axis(int filter, int out, int stride, int padding, int dilation) {
    return {0, 1, out, stride, filter, 0, 1, -padding, dilation};
}

// Position first + q * stride takes from output q + (first + padding - r * dilation) / stride where that divides.
__host__ __device__ inline AxisGather grad_input_axis(int phase, int size, int filter, int stride, int padding,
                                                      int dilation) {
    AxisGather axis{phase, stride, ceil_div(size - phase, stride), 1, 0, 0, 1, 0, 0};
    for (int r = 0; r < filter && r < stride; ++r) {
        const int from = phase + padding - r * dilation;
        if (from % stride != 0) continue;
        // The next tap that these positions meet is where the distance in the output is whole again.
        while (axis.filter_step * dilation % stride != 0) ++axis.filter_step;
        axis.filter_first = r;
        axis.offset_first = from / stride;
        axis.offset_step = -(axis.filter_step * dilation / stride);
        axis.taps = ceil_div(filter - r, axis.filter_step);
        break;
    }
    return axis;
}

// What of a problem decides where its gathers lie.
struct Geometry {
    bool strided_source;  // forward and grad_weight
    Extent size, filter, out, stride, padding, dilation;
    Extent phases;

    __host__ __device__ int phase_count() const { return phases.d * phases.h * phases.w; }
    __host__ __device__ Extent source_size() const { return strided_source ? size : out; }

    __host__ __device__ Gather phase(int index) const {
        if (strided_source)
            return {forward_axis(filter.d, out.d, stride.d, padding.d, dilation.d),
                    forward_axis(filter.h, out.h, stride.h, padding.h, dilation.h),
                    forward_axis(filter.w, out.w, stride.w, padding.w, dilation.w)};
        const int w = index % phases.w, h = index / phases.w % phases.h, d = index / phases.w / phases.h;
        return {grad_input_axis(d, size.d, filter.d, stride.d, padding.d, dilation.d),
                grad_input_axis(h, size.h, filter.h, stride.h, padding.h, dilation.h),
                grad_input_axis(w, size.w, filter.w, stride.w, padding.w, dilation.w)};
    }
};

inline Geometry geometry_of(const ConvProblem& p) {
    Geometry g{p.pass != Pass::grad_input, extent(p.size),    extent(p.filter),   extent(p.out),
               extent(p.stride),           extent(p.padding), extent(p.dilation), {1, 1, 1}};
    // A phase beyond the end of an axis has no position.
    if (!g.strided_source) g.phases = {min(g.stride.d, g.size.d), min(g.stride.h, g.size.h), min(g.stride.w, g.size.w)};
    return g;
}

// A position or a tap: its part of the offset in the source, and of the coordinates there.
struct Point {
    int64_t offset;
    int d, h, w;
};

// Coordinates of a point that is outside together with every other.
constexpr int kOutside = -(1 << 30);

__device__ __forceinline__ bool inside(const Point& a, const Point& b, const Extent& size) {
    return static_cast<unsigned>(a.d + b.d) < static_cast<unsigned>(size.d) &&
           static_cast<unsigned>(a.h + b.h) < static_cast<unsigned>(size.h) &&
           static_cast<unsigned>(a.w + b.w) < static_cast<unsigned>(size.w);
}

__device__ __forceinline__ int64_t offset_of(const Strides& s, int64_t d, int64_t h, int64_t w) {
    return d * s.d + h * s.h + w * s.w;
}

__device__ __forceinline__ Point position_point(const Gather& g, const Strides& s, int n, int d, int h, int w) {
    const int sd = d * g.d.source_step, sh = h * g.h.source_step, sw = w * g.w.source_step;
    return {n * s.n + offset_of(s, sd, sh, sw), sd, sh, sw};
}

__device__ __forceinline__ Point tap_point(const Gather& g, const Strides& s, int c, int d, int h, int w) {
    const int od = g.d.offset_first + d * g.d.offset_step;
    const int oh = g.h.offset_first + h * g.h.offset_step;
    const int ow = g.w.offset_first + w * g.w.offset_step;
    return {c * s.c + offset_of(s, od, oh, ow), od, oh, ow};
}

// An index into four nested axes, one digit per axis, innermost first; the outermost axis has no end.
struct Radices {
    int of[3];
};
struct Digits {
    int at[4] = {};

    static __device__ __forceinline__ Digits of(int64_t index, const Radices& radices) {
        Digits digits;
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) {
            digits.at[axis] = static_cast<int>(index % radices.of[axis]);
            index /= radices.of[axis];
        }
        digits.at[3] = static_cast<int>(index);
        return digits;
    }
    __device__ __forceinline__ void advance(const Digits& by, const Radices& radices) {
        int carry = 0;
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) {
            at[axis] += by.at[axis] + carry;
            carry = at[axis] >= radices.of[axis] ? 1 : 0;
            at[axis] -= carry * radices.of[axis];
        }
        at[3] += by.at[3] + carry;
    }
};

// Taps as digits: the channels are the innermost axis or the outermost.
struct TapAxes {
    bool channels_inside;
    Radices radices;

    __device__ TapAxes(const Gather& g, int channels, bool inside) : channels_inside(inside) {
        radices = inside ? Radices{channels, g.w.taps, g.h.taps} : Radices{g.w.taps, g.h.taps, g.d.taps};
    }
    __device__ int c(const Digits& i) const { return channels_inside ? i.at[0] : i.at[3]; }
    __device__ int w(const Digits& i) const { return channels_inside ? i.at[1] : i.at[0]; }
    __device__ int h(const Digits& i) const { return channels_inside ? i.at[2] : i.at[1]; }
    __device__ int d(const Digits& i) const { return channels_inside ? i.at[3] : i.at[2]; }
};

__device__ inline Radices position_radices(const Gather& g) { return {g.w.count, g.h.count, g.d.count}; }

}  // namespace pycv::cuda
