// The prologue of a forward convolution. Of an element x of channel c it sees
//
//     relu(x * scale[c] + shift[c])
//
// rounded to the type of the source, as a layer of its own would have left it; multiplied and added with one rounding.
// It is for what lies inside of the source alone: the padding stays 0.
#pragma once

#include "device/half.h"
#include "plan.h"

namespace pycv::cuda {

__device__ __forceinline__ float multiply_add_once(float x, float y, float z) { return __fmaf_rn(x, y, z); }
__device__ __forceinline__ double multiply_add_once(double x, double y, double z) { return fma(x, y, z); }

// Of one channel.
template <class T>
struct ChannelPrologue {
    accumulator_t<T> scale, shift;
    bool relu;

    __device__ __forceinline__ T operator()(T x) const {
        const accumulator_t<T> value = multiply_add_once(to_accumulator(x), scale, shift);
        return from_accumulator<T>(relu && value < 0 ? 0 : value);
    }
};

// Of all channels.
template <class T>
struct Prologue {
    const T* scale;  // null where there is none, as shift
    const T* shift;
    bool relu;

    Prologue() = default;
    Prologue(const ConvProblem& p, const ConvArguments& a)
        : scale(static_cast<const T*>(p.scale_input ? a.input_scale : nullptr)),
          shift(static_cast<const T*>(p.scale_input ? a.input_shift : nullptr)),
          relu(p.relu_input) {}

    __device__ __forceinline__ bool any() const { return scale || relu; }
    __device__ __forceinline__ ChannelPrologue<T> of(int64_t channel) const {
        if (!scale) return {1, 0, relu};
        return {to_accumulator(__ldg(scale + channel)), to_accumulator(__ldg(shift + channel)), relu};
    }
};

}  // namespace pycv::cuda
