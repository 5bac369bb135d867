// Barriers that not all threads of a block wait at (sm_90).
//
//     barrier_init(barrier, arrivals)   by one thread; then barriers_ready() by the same, and __syncthreads()
//     barrier_arrive(barrier)           the last arrival that a phase expects ends it, once its bytes have come
//     barrier_expect(barrier, bytes)    arrives, and says that copies will bring so many bytes in this phase
//     barrier_wait(barrier, parity)     until the phase of this parity has ended: that of the first one is 0; before
//                                       it, 1 counts as ended
//     named_barrier(id, threads)        __syncthreads among so many threads, whole warps; id from 1 to 15
//
// Barriers live in shared memory. A wait shows what the threads that arrived have done before, and what copies have
// brought.
#pragma once

#include <cstdint>

#include "launch.h"

#if defined(PYCV_SIMT)
#include "../../simt/barriers.h"
#endif

namespace pycv::cuda {

struct alignas(8) Barrier {
    std::uint64_t state;
};

#if defined(PYCV_SIMT)
#define PYCV_FIRST_SITE ::pycv::simt::Site site = ::pycv::simt::Site::current()  // of a wrapper without parameters
#else
#define PYCV_FIRST_SITE
__device__ __forceinline__ unsigned shared_address(const void* shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define PYCV_SM90 1
#endif

__device__ __forceinline__ void barrier_init(Barrier* barrier, int arrivals PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::init_barrier(&barrier->state, arrivals, site);
#elif defined(PYCV_SM90)
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
#endif
}

// Copies find barriers through another path to shared memory than threads do.
__device__ __forceinline__ void barriers_ready() {
#if defined(PYCV_SM90)
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async;" ::: "memory");
#endif
}

__device__ __forceinline__ void barrier_arrive(Barrier* barrier PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::arrive_at_barrier(&barrier->state, 0, site);
#elif defined(PYCV_SM90)
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

__device__ __forceinline__ void barrier_expect(Barrier* barrier, int bytes PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::arrive_at_barrier(&barrier->state, bytes, site);
#elif defined(PYCV_SM90)
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
#endif
}

__device__ __forceinline__ void barrier_wait(Barrier* barrier, unsigned parity PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::wait_at_barrier(&barrier->state, parity, site);
#elif defined(PYCV_SM90)
    unsigned ended;
    do {
        asm volatile(
            "{\n"
            ".reg .pred ended;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
            "selp.u32 %0, 1, 0, ended;\n"
            "}"
            : "=r"(ended)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (!ended);
#endif
}

__device__ __forceinline__ void named_barrier(int id, int threads PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::named_barrier(id, threads, site);
#elif defined(__CUDA_ARCH__)
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

}  // namespace pycv::cuda
