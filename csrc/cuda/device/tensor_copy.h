// Copies of whole boxes of a tensor between global and shared memory, by the tensor memory accelerator (sm_90). One
// thread issues a copy.
//
//     load_tensor(shared, map, barrier, c...)           the box at coordinates c, the innermost first: its bytes count
//                                                       at the barrier
//     load_windows(shared, map, barrier, c, w, h, n, dw, dh)   im2col: map.pixels places from (w, h, n) on, each moved
//                                                       by (dw, dh)
//     store_tensor(map, shared, c...)                   the box the other way round
//     store_windows(map, shared, c, w, h, n)            im2col the other way round: places are not moved
//     store_commit(), store_wait_read<N>()              until at most N of this thread's groups of stores still read
//     fence_async_copies()                              by full warps: what they have written to shared memory can be
//                                                       seen by copies and by products of warp groups, which take
//                                                       another path
//
// In shared memory a box is dense, in the order of its axes, and then swizzled: in rows of 128 bytes the vector of 16
// bytes v of row r lies at v ^ r % 8 (64: v ^ r / 2 % 4, 32: v ^ r / 4 % 2), rows counted from a multiple of 1024 bytes
// on. swizzled() says the same of byte offsets.
#pragma once

#include "barrier.h"
#include "tensor_map.h"

namespace pycv::cuda {

// Of an offset from an address that is a multiple of 1024.
template <Swizzle Span>
__host__ __device__ constexpr int swizzled(int offset) {
    if constexpr (Span == Swizzle::bytes_128) return offset ^ ((offset >> 7 & 7) << 4);
    if constexpr (Span == Swizzle::bytes_64) return offset ^ ((offset >> 7 & 3) << 4);
    if constexpr (Span == Swizzle::bytes_32) return offset ^ ((offset >> 7 & 1) << 4);
    return offset;
}

__device__ __forceinline__ void load_tensor(void* shared, const TensorMap& map, Barrier* barrier, int c0,
                                            int c1 PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::load_box(shared, map, &barrier->state, {c0, c1}, site);
#elif defined(PYCV_SM90)
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            shared_address(shared)),
        "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1)
        : "memory");
#endif
}

__device__ __forceinline__ void load_tensor(void* shared, const TensorMap& map, Barrier* barrier, int c0, int c1,
                                            int c2 PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::load_box(shared, map, &barrier->state, {c0, c1, c2}, site);
#elif defined(PYCV_SM90)
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
        "[%2];" ::"r"(shared_address(shared)),
        "l"(&map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2)
        : "memory");
#endif
}

__device__ __forceinline__ void load_windows(void* shared, const TensorMap& map, Barrier* barrier, int c, int w, int h,
                                             int n, int dw, int dh PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::load_windows(shared, map, &barrier->state, c, {w, h, n}, {dw, dh}, site);
#elif defined(PYCV_SM90)
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
        "%6}], [%2], {%7, %8};" ::"r"(shared_address(shared)),
        "l"(&map), "r"(shared_address(barrier)), "r"(c), "r"(w), "r"(h), "r"(n), "h"(static_cast<short>(dw)),
        "h"(static_cast<short>(dh))
        : "memory");
#endif
}

__device__ __forceinline__ void store_tensor(const TensorMap& map, const void* shared, int c0, int c1,
                                             int c2 PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::store_box(map, shared, {c0, c1, c2}, site);
#elif defined(PYCV_SM90)
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map),
                 "r"(shared_address(shared)), "r"(c0), "r"(c1), "r"(c2)
                 : "memory");
#endif
}

__device__ __forceinline__ void store_windows(const TensorMap& map, const void* shared, int c, int w, int h,
                                              int n PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::store_windows(map, shared, c, {w, h, n}, site);
#elif defined(PYCV_SM90)
    asm volatile(
        "cp.async.bulk.tensor.4d.global.shared::cta.im2col_no_offs.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(
            &map),
        "r"(shared_address(shared)), "r"(c), "r"(w), "r"(h), "r"(n)
        : "memory");
#endif
}

__device__ __forceinline__ void store_commit() {
#if defined(PYCV_SIMT)
    simt::commit_stores();
#elif defined(PYCV_SM90)
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}

template <int N>
__device__ __forceinline__ void store_wait_read() {
#if defined(PYCV_SIMT)
    simt::wait_for_stores(N);
#elif defined(PYCV_SM90)
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
#endif
}

__device__ __forceinline__ void fence_async_copies(PYCV_FIRST_SITE) {
#if defined(PYCV_SIMT)
    simt::fence_async_copies(site);
#elif defined(PYCV_SM90)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace pycv::cuda
