// What the lanes of a warp do together: shuffles, votes, reductions. All lanes of the mask take part, by default 32.
//
// None of them orders memory but sync_warp: data that goes through shared memory from lane to lane needs it.
#pragma once

#include "launch.h"

namespace pycv::cuda {

inline constexpr int warp_size = 32;
inline constexpr unsigned full_warp = 0xffffffffu;

// Of this thread in its block, x running fastest.
__device__ __forceinline__ int thread_rank() {
    return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}
__device__ __forceinline__ int lane_index() { return thread_rank() % warp_size; }
__device__ __forceinline__ int warp_index() { return thread_rank() / warp_size; }

__device__ __forceinline__ void sync_warp(unsigned mask = full_warp PYCV_SITE) { __syncwarp(mask PYCV_SITE_ARGUMENT); }

// The value of lane `lane`.
template <class T>
__device__ __forceinline__ T shuffle(T value, int lane, unsigned mask = full_warp PYCV_SITE) {
    return __shfl_sync(mask, value, lane, warp_size PYCV_SITE_ARGUMENT);
}
// The value of lane (own ^ bits).
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int bits, unsigned mask = full_warp PYCV_SITE) {
    return __shfl_xor_sync(mask, value, bits, warp_size PYCV_SITE_ARGUMENT);
}
// The value of lane (own + distance), the own one where there is no such lane.
template <class T>
__device__ __forceinline__ T shuffle_down(T value, int distance, unsigned mask = full_warp PYCV_SITE) {
    return __shfl_down_sync(mask, value, distance, warp_size PYCV_SITE_ARGUMENT);
}
// The value of lane (own - distance), the own one where there is no such lane.
template <class T>
__device__ __forceinline__ T shuffle_up(T value, int distance, unsigned mask = full_warp PYCV_SITE) {
    return __shfl_up_sync(mask, value, distance, warp_size PYCV_SITE_ARGUMENT);
}

// Bit i: the predicate of lane i.
__device__ __forceinline__ unsigned ballot(bool predicate, unsigned mask = full_warp PYCV_SITE) {
    return __ballot_sync(mask, predicate PYCV_SITE_ARGUMENT);
}
__device__ __forceinline__ bool any_lane(bool predicate, unsigned mask = full_warp PYCV_SITE) {
    return __any_sync(mask, predicate PYCV_SITE_ARGUMENT) != 0;
}
__device__ __forceinline__ bool all_lanes(bool predicate, unsigned mask = full_warp PYCV_SITE) {
    return __all_sync(mask, predicate PYCV_SITE_ARGUMENT) != 0;
}

// Over groups of `Width` neighbouring lanes of a full warp; every lane gets the result, the same in every lane.
template <int Width = warp_size, class T>
__device__ __forceinline__ T warp_sum(T value PYCV_SITE) {
#pragma unroll
    for (int bits = Width / 2; bits > 0; bits /= 2) value += shuffle_xor(value, bits, full_warp PYCV_SITE_ARGUMENT);
    return value;
}
template <int Width = warp_size, class T>
__device__ __forceinline__ T warp_max(T value PYCV_SITE) {
#pragma unroll
    for (int bits = Width / 2; bits > 0; bits /= 2) {
        const T other = shuffle_xor(value, bits, full_warp PYCV_SITE_ARGUMENT);
        value = other > value ? other : value;
    }
    return value;
}

}  // namespace pycv::cuda
