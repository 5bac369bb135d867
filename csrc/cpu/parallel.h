// Parallel regions: the only place that uses OpenMP. Included by kernel files only (ISA namespace).
#pragma once

#include <omp.h>

#include <cstdint>

#include "isa.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

// Runs body(thread, threads) on each of `threads` threads of one team; `threads` as seen by the body
// may be smaller than asked for. What was written is visible afterwards, past the caches or not.
template <class Body>
inline void parallel(int threads, const Body& body) {
    threads = usable_threads(threads);
    if (threads <= 1) {
        body(0, 1);
        finish_streaming();
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        body(omp_get_thread_num(), omp_get_num_threads());
        finish_streaming();
    }
}

// Waits for the whole team; only inside a body of parallel(), and only where threads > 1.
inline void team_barrier(int threads) {
    if (threads > 1) {
#pragma omp barrier
    }
}

// The half-open range of `count` items that falls to a thread: contiguous, sizes differing by at most 1.
struct Range {
    int64_t begin, end;
};
inline Range share(int64_t count, int thread, int threads) {
    return {count * thread / threads, count * (thread + 1) / threads};
}

// Calls item(i) for each i in [0, count), split evenly over the threads.
template <class Item>
inline void parallel_for(int threads, int64_t count, const Item& item) {
    if (count < threads) threads = static_cast<int>(count);
    parallel(threads, [&](int thread, int team) {
        const Range range = share(count, thread, team);
        for (int64_t i = range.begin; i < range.end; ++i) item(i);
    });
}

}  // namespace pycv::cpu::PYCV_ISA
