// Forward and grad_input of a convolution as one computation, the tap gather:
//
//     computed[n, m, first + q * step] =
//         sum over taps t, channels c of source[n, c, q * source_step + offset_t] * weight[m, c, t]
//
// Forward is one such gather over the input with source_step = stride. grad_input is prod(stride) of them, one per
// phase of the input grid: positions that are equal modulo the stride see the same taps, and see the output gradient
// with unit steps, so that nothing is multiplied with inserted zeros. A phase may have no tap at all: it is 0.
#pragma once

#include "integers.h"
#include "plan.h"

namespace pycv::cpu::PYCV_ISA {

// One axis of one phase. Tap i is filter position filter_first + i * filter_step.
struct AxisGather {
    int64_t first, step, count;  // positions of the computed tensor
    int64_t source_step, source_size;
    int64_t taps, filter_first, filter_step, offset_first, offset_step;

    int64_t source(int64_t position, int64_t tap) const {
        return position * source_step + offset_first + tap * offset_step;
    }
    bool inside(int64_t source) const { return source >= 0 && source < source_size; }
};

// An axis that only counts: `count` positions of both tensors, side by side.
inline AxisGather plain_axis(int64_t count) { return {0, 1, count, 1, count, 1, 0, 1, 0, 0}; }

// Whether every position has exactly its one tap, inside the source.
inline bool is_plain(const AxisGather& axis) {
    return axis.taps == 1 && axis.offset_first >= 0 && axis.count > 0 && axis.inside(axis.source(axis.count - 1, 0));
}

struct Gather {
    AxisGather d, h, w;
    int64_t taps() const { return d.taps * h.taps * w.taps; }
    int64_t positions() const { return d.count * h.count * w.count; }
};

inline AxisGather forward_axis(int64_t size, int64_t filter, int64_t out, int64_t stride, int64_t padding,
                               int64_t dilation) {
    return {0, 1, out, stride, size, filter, 0, 1, -padding, dilation};
}

inline int64_t greatest_common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// Position first + q * stride takes from output o = q + (first + padding - r * dilation) / stride where that divides.
inline AxisGather grad_input_axis(int64_t phase, int64_t size, int64_t filter, int64_t out, int64_t stride,
                                  int64_t padding, int64_t dilation) {
    AxisGather axis{phase, stride, phase < size ? (size - phase + stride - 1) / stride : 0, 1, out, 0, 0, 1, 0, 0};
    axis.filter_step = stride / greatest_common_divisor(stride, dilation);
    for (int64_t r = 0; r < filter && r < axis.filter_step; ++r) {
        if ((phase + padding - r * dilation) % stride != 0) continue;
        axis.filter_first = r;
        axis.taps = (filter - r + axis.filter_step - 1) / axis.filter_step;
        axis.offset_first = (phase + padding - r * dilation) / stride;
        axis.offset_step = -(axis.filter_step * dilation / stride);
        break;
    }
    return axis;
}

// Phases of an axis of grad_input: one beyond the end of the axis has no position.
inline int64_t phases_of(int64_t stride, int64_t size) { return larger(1, smaller(stride, size)); }
inline Spatial grad_input_phases(const ConvProblem& p) {
    return {phases_of(p.stride.d, p.size.d), phases_of(p.stride.h, p.size.h), phases_of(p.stride.w, p.size.w)};
}

// The tensors of a gather: what is computed, what it is gathered from, and the weight as [computed channel (n),
// source channel (c), filter position].
struct GatherProblem {
    int64_t n, groups, channels, source_channels;  // channels per group
    Spatial size;                                  // of the computed tensor
    Spatial phases;
    Strides computed, source, weight, residual;
    int64_t weight_group;  // elements from one group's weight to the next
    bool bias, has_residual, relu;
};

inline GatherProblem gather_problem(const ConvProblem& p) {
    const int64_t groups = p.groups > 0 ? p.groups : 1;
    const int64_t k = p.k / groups, c = p.c / groups;
    if (p.pass == Pass::forward) {
        return {
            p.n,    groups,         k,     c, p.out, {1, 1, 1}, p.output, p.input, p.weight, p.residual, k * p.weight.n,
            p.bias, p.has_residual, p.relu};
    }
    const Strides weight{p.weight.c, p.weight.n, p.weight.d, p.weight.h, p.weight.w};
    return {p.n,
            groups,
            c,
            k,
            p.size,
            grad_input_phases(p),
            p.input,
            p.output,
            weight,
            p.residual,
            k * p.weight.n,
            p.bias,
            p.has_residual,
            p.relu};
}

inline Gather forward_gather(const ConvProblem& p) {
    return {forward_axis(p.size.d, p.filter.d, p.out.d, p.stride.d, p.padding.d, p.dilation.d),
            forward_axis(p.size.h, p.filter.h, p.out.h, p.stride.h, p.padding.h, p.dilation.h),
            forward_axis(p.size.w, p.filter.w, p.out.w, p.stride.w, p.padding.w, p.dilation.w)};
}

// Phase number `index` of prod(phases).
inline Gather gather_phase(const ConvProblem& p, int64_t index) {
    if (p.pass == Pass::forward) return forward_gather(p);
    const Spatial phases = grad_input_phases(p);
    const int64_t w = index % phases.w, h = index / phases.w % phases.h, d = index / phases.w / phases.h;
    return {grad_input_axis(d, p.size.d, p.filter.d, p.out.d, p.stride.d, p.padding.d, p.dilation.d),
            grad_input_axis(h, p.size.h, p.filter.h, p.out.h, p.stride.h, p.padding.h, p.dilation.h),
            grad_input_axis(w, p.size.w, p.filter.w, p.out.w, p.stride.w, p.padding.w, p.dilation.w)};
}

}  // namespace pycv::cpu::PYCV_ISA
