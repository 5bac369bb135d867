// What the schemes of the depthwise convolution share: the axes of its gathers (conv_gather.h), their taps ascending
// in the source, all phases of an axis at hand.
// Only for kernel files (ISA namespace).
#pragma once

#include "conv_gather.h"
#include "cost.h"
#include "integers.h"
#include "parallel.h"
#include "plan.h"
#include "tap_tile.h"

namespace pycv::cpu::PYCV_ISA {

// Computed position first + q * step takes from source q * unit + low + t * tap_step, t < taps, with the weight at
// filter position filter_first + t * filter_step. Steps between taps are positive.
struct TapAxis {
    int64_t first, step, count;
    int64_t unit, size;
    int64_t taps, low, tap_step, filter_first, filter_step;

    explicit TapAxis(const AxisGather& a)
        : first(a.first),
          step(a.step),
          count(a.count),
          unit(a.source_step),
          size(a.source_size),
          taps(a.taps),
          low(a.offset_first),
          tap_step(a.offset_step),
          filter_first(a.filter_first),
          filter_step(a.filter_step) {
        if (tap_step >= 0) return;
        low += (taps - 1) * tap_step;
        filter_first += (taps - 1) * filter_step;
        tap_step = -tap_step;
        filter_step = -filter_step;
    }
    TapAxis() = default;

    int64_t high() const { return low + larger(taps - 1, 0) * tap_step; }

    // The taps that some of `count` outputs from q on read inside the source.
    Range taps_inside(int64_t q, int64_t outputs = 1) const {
        const int64_t nearest = q * unit + low, farthest = nearest + (outputs - 1) * unit;
        const int64_t distance = tap_step > 0 ? tap_step : 1;
        const int64_t begin = farthest < 0 ? divide_up(-farthest, distance) : 0;
        const int64_t end = nearest < size ? smaller(taps, divide_up(size - nearest, distance)) : 0;
        return {smaller(begin, end), end};
    }

    // How neighbouring outputs share inputs: U of tap_tile.h.
    int sharing() const { return tap_step == 1 && unit <= 2 ? static_cast<int>(unit) : 0; }
};

// The phases of one axis: computed position y belongs to phase y % count as its position y / count.
class AxisPhases {
public:
    template <class Make>
    AxisPhases(int64_t count, const Make& make) : count_(count), axes_(new TapAxis[static_cast<size_t>(count)]) {
        for (int64_t i = 0; i < count; ++i) axes_[i] = TapAxis(make(i));
    }
    ~AxisPhases() { delete[] axes_; }
    AxisPhases(const AxisPhases&) = delete;
    AxisPhases& operator=(const AxisPhases&) = delete;

    int64_t count() const { return count_; }
    const TapAxis& operator[](int64_t phase) const { return axes_[phase]; }
    const TapAxis& of(int64_t position) const { return axes_[position % count_]; }

    // What all phases together read: source q * unit + [low, high].
    int64_t low() const {
        int64_t value = axes_[0].low;
        for (int64_t i = 1; i < count_; ++i) value = smaller(value, axes_[i].low);
        return value;
    }
    int64_t high() const {
        int64_t value = axes_[0].high();
        for (int64_t i = 1; i < count_; ++i) value = larger(value, axes_[i].high());
        return value;
    }
    int64_t positions() const { return axes_[0].count; }  // of the longest phase, the first
    int64_t unit() const { return axes_[0].unit; }
    int64_t size() const { return axes_[0].size; }

private:
    int64_t count_;
    TapAxis* axes_;
};

inline AxisPhases depth_phases(const ConvProblem& p) {
    const bool forward = p.pass != Pass::grad_input;
    return AxisPhases(forward ? 1 : phases_of(p.stride.d, p.size.d), [&](int64_t i) {
        return forward ? forward_gather(p).d
                       : grad_input_axis(i, p.size.d, p.filter.d, p.out.d, p.stride.d, p.padding.d, p.dilation.d);
    });
}
inline AxisPhases height_phases(const ConvProblem& p) {
    const bool forward = p.pass != Pass::grad_input;
    return AxisPhases(forward ? 1 : phases_of(p.stride.h, p.size.h), [&](int64_t i) {
        return forward ? forward_gather(p).h
                       : grad_input_axis(i, p.size.h, p.filter.h, p.out.h, p.stride.h, p.padding.h, p.dilation.h);
    });
}
inline AxisPhases width_phases(const ConvProblem& p) {
    const bool forward = p.pass != Pass::grad_input;
    return AxisPhases(forward ? 1 : phases_of(p.stride.w, p.size.w), [&](int64_t i) {
        return forward ? forward_gather(p).w
                       : grad_input_axis(i, p.size.w, p.filter.w, p.out.w, p.stride.w, p.padding.w, p.dilation.w);
    });
}

// The tensors that a gather reads and writes.
template <class T>
struct GatherTensors {
    const T *source, *residual, *bias, *scale, *shift;
    T* computed;

    GatherTensors(const ConvProblem& p, const ConvArguments& a)
        : source(static_cast<const T*>(p.pass == Pass::forward ? a.input : a.output)),
          residual(p.has_residual ? static_cast<const T*>(a.residual) : nullptr),
          bias(p.bias ? static_cast<const T*>(a.bias) : nullptr),
          scale(p.scale_input ? static_cast<const T*>(a.input_scale) : nullptr),
          shift(p.scale_input ? static_cast<const T*>(a.input_shift) : nullptr),
          computed(static_cast<T*>(p.pass == Pass::forward ? a.output : a.input)) {}
};

}  // namespace pycv::cpu::PYCV_ISA
