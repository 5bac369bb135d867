// The part of the CUDA language that kernels may use, declared for a host compiler: no toolkit is needed.
//
// Everything here carries CUDA's own name and meaning. Collectives take one argument more, the place of the call, which
// errors report.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "float16.h"
#include "runtime.h"
#include "types.h"

// ------------------------------------------------------------------------------------------------------- qualifiers

#define __global__ [[maybe_unused]] static
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __constant__ [[maybe_unused]] static
// One copy for all threads, as blocks run one after the other. The runtime finds it by its symbol (symbols.h).
#define __shared__ static

// ------------------------------------------------------------------------------------------------- indices, barriers

#define threadIdx (::pycv::simt::current->index)
#define blockIdx (::pycv::simt::block_index)
#define blockDim (::pycv::simt::block_shape)
#define gridDim (::pycv::simt::grid_shape)
inline constexpr int warpSize = 32;

inline void __syncthreads(pycv::simt::Site site = pycv::simt::Site::current()) { pycv::simt::block_barrier(site); }

inline void __syncwarp(unsigned mask = 0xffffffffu, pycv::simt::Site site = pycv::simt::Site::current()) {
    pycv::simt::warp_barrier(mask, site);
}

// Threads run one at a time: what one has written, the next one reads.
inline void __threadfence() {}
inline void __threadfence_block() {}

[[noreturn]] inline void __trap(pycv::simt::Site site = pycv::simt::Site::current()) {
    pycv::simt::fail("__trap", site);
}

// --------------------------------------------------------------------------------------------------- warp shuffles

// Lanes form groups of `width`; lanes of another group cannot be read, the own value comes instead.
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize,
              pycv::simt::Site site = pycv::simt::Site::current()) {
    const int own = pycv::simt::lane_index();
    return pycv::simt::shuffle(mask, value, (own & -width) | (lane & (width - 1)), site);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize,
                  pycv::simt::Site site = pycv::simt::Site::current()) {
    const int own = pycv::simt::lane_index();
    const int lane = own ^ bits;
    return pycv::simt::shuffle(mask, value, lane < (own & -width) + width ? lane : own, site);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = warpSize,
                   pycv::simt::Site site = pycv::simt::Site::current()) {
    const int own = pycv::simt::lane_index();
    const int lane = own + static_cast<int>(distance);
    return pycv::simt::shuffle(mask, value, lane < (own & -width) + width ? lane : own, site);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = warpSize,
                 pycv::simt::Site site = pycv::simt::Site::current()) {
    const int own = pycv::simt::lane_index();
    const int lane = own - static_cast<int>(distance);
    return pycv::simt::shuffle(mask, value, lane >= (own & -width) ? lane : own, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, pycv::simt::Site site = pycv::simt::Site::current()) {
    return pycv::simt::ballot(mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, pycv::simt::Site site = pycv::simt::Site::current()) {
    return pycv::simt::ballot(mask, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, pycv::simt::Site site = pycv::simt::Site::current()) {
    return pycv::simt::ballot(mask, predicate == 0, site) == 0;
}

// ------------------------------------------------------------------------------------------------ loads and atomics

template <class T>
T __ldg(const T* address) {
    return *address;
}
template <class T>
T __ldcs(const T* address) {
    return *address;
}
template <class T>
T __ldcg(const T* address) {
    return *address;
}
template <class T>
void __stcs(T* address, std::type_identity_t<T> value) {
    *address = value;
}
template <class T>
void __stcg(T* address, std::type_identity_t<T> value) {
    *address = value;
}

// Atomics order memory here, unlike on the device: a kernel that needs an order says so by a fence of its own.
namespace pycv::simt {
template <class T, class Update>
T atomic_update(T* address, Update update) {
    std::atomic_ref<T> target(*address);
    T old = target.load();
    while (!target.compare_exchange_weak(old, update(old))) {
    }
    return old;
}
}  // namespace pycv::simt

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
    return pycv::simt::atomic_update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
    return pycv::simt::atomic_update(address, [=](T old) { return std::max(old, value); });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
    return pycv::simt::atomic_update(address, [=](T old) { return std::min(old, value); });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
    return pycv::simt::atomic_update(address, [=](T old) { return old | value; });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
    return std::atomic_ref<T>(*address).exchange(value);
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
    std::atomic_ref<T>(*address).compare_exchange_strong(expected, value);
    return expected;
}

// ------------------------------------------------------------------------------------------------------- arithmetic

using std::max;
using std::min;

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __saturatef(float x) { return x > 0 ? std::min(x, 1.0f) : 0.0f; }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1u) << (31 - bit);
    return reversed;
}
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>((std::uint64_t{x} * y) >> 32); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }

// sin and cos of pi x, exact at multiples of 1/2 as CUDA's are.
inline void sincospi(double x, double* sine, double* cosine) {
    const double turn = x - 2 * std::floor(x / 2);  // [0, 2)
    const double quarter = std::round(2 * turn);
    const double angle = (turn - quarter / 2) * 3.14159265358979323846;
    const double s = std::sin(angle), c = std::cos(angle);
    switch (static_cast<int>(quarter) % 4) {
        case 0: *sine = s, *cosine = c; break;
        case 1: *sine = c, *cosine = -s; break;
        case 2: *sine = -s, *cosine = -c; break;
        default: *sine = -c, *cosine = s; break;
    }
}
inline void sincospif(float x, float* sine, float* cosine) {
    double s, c;
    sincospi(x, &s, &c);
    *sine = static_cast<float>(s);
    *cosine = static_cast<float>(c);
}

// ----------------------------------------------------------------------------------------------------- runtime calls

inline cudaError_t cudaMemsetAsync(void* address, int value, std::size_t bytes, cudaStream_t) {
    std::memset(address, value, bytes);
    return cudaSuccess;
}
