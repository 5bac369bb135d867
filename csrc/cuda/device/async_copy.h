// Asynchronous copies from global to shared memory, past the registers: cp.async (sm_80; plain copies before it).
//
//     async_copy<N>(shared, global, valid)   N elements (4, 8 or 16 bytes), those from `valid` on become zero
//     async_copy_commit()                    closes a group: the copies that this thread issued since the last one
//     async_copy_wait<N>()                   until at most N of this thread's groups are under way
//
// What arrives is this thread's own until a barrier shows it to others. Both addresses have to be multiples of the
// bytes copied, also where nothing is valid; then nothing is read.
#pragma once

#include "launch.h"

#if defined(PYCV_SIMT)
#include "../../simt/async_copy.h"
#endif

namespace pycv::cuda {

template <int N, class T>
__device__ __forceinline__ void async_copy(T* shared, const T* global, int valid = N PYCV_SITE) {
    constexpr int bytes = N * static_cast<int>(sizeof(T));
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "no asynchronous copy of these bytes");
    [[maybe_unused]] const int valid_bytes = valid * static_cast<int>(sizeof(T));
#if defined(PYCV_SIMT)
    simt::async_copy(shared, global, bytes, valid_bytes, site);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const auto target = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    if constexpr (bytes == 16)  // past L1
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(global), "r"(valid_bytes)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target), "l"(global), "n"(bytes),
                     "r"(valid_bytes)
                     : "memory");
#else
#pragma unroll
    for (int i = 0; i < N; i++) shared[i] = i < valid ? global[i] : T{};
#endif
}

__device__ __forceinline__ void async_copy_commit() {
#if defined(PYCV_SIMT)
    simt::commit_async_copies();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N>
__device__ __forceinline__ void async_copy_wait() {
#if defined(PYCV_SIMT)
    simt::wait_async_copies(N);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

}  // namespace pycv::cuda
