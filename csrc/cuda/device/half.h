// The storage types of 16 bits and what they are computed in: float.
//
// accumulator_t<T> is the type to compute and accumulate in: float for half, bfloat16 and float, double for double.
// to_accumulator(x) and from_accumulator<T>(x) convert, rounding to nearest even.
#pragma once

#include "launch.h"

namespace pycv::cuda {

using half = __half;
using bfloat16 = __nv_bfloat16;

template <class T>
struct Accumulator {
    using type = T;
};
template <>
struct Accumulator<half> {
    using type = float;
};
template <>
struct Accumulator<bfloat16> {
    using type = float;
};
template <class T>
using accumulator_t = typename Accumulator<T>::type;

__device__ __forceinline__ float to_accumulator(float x) { return x; }
__device__ __forceinline__ double to_accumulator(double x) { return x; }
__device__ __forceinline__ float to_accumulator(half x) { return __half2float(x); }
__device__ __forceinline__ float to_accumulator(bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T from_accumulator(accumulator_t<T> x) {
    return x;
}
template <>
__device__ __forceinline__ half from_accumulator<half>(float x) {
    return __float2half_rn(x);
}
template <>
__device__ __forceinline__ bfloat16 from_accumulator<bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

}  // namespace pycv::cuda
