// What the machine itself can do: the ceilings of a roofline. Measures rates; computes nothing.
//
// "fma": multiply-adds on vectors that never leave their registers, FLOP/s (two per multiply-add; on an instruction
// set without FMA a multiplication and an addition). "read": each thread sums its share of a buffer again and again,
// bytes/s; the buffer's size decides which cache level, or memory, answers. "copy": each thread copies half of its
// share onto the other half, bytes read and written per second: a level that loads and stores at once gives more than
// "read".
//
// The team works in rounds between two barriers, so that all threads load the machine at the same moment, and the
// best round counts: one in which a thread was descheduled is only too slow, never too fast. Rounds are short (a few
// tenths of a millisecond), so that even on a busy machine some pass undisturbed.
#include <time.h>

#include <cstdlib>

#include "parallel.h"
#include "plan.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// Enough independent chains to hide the latency of two FMA units, few enough for 16 registers.
constexpr int kChains = 12;
constexpr int64_t kFmaSteps = 1 << 15;    // per round
constexpr int64_t kRoundBytes = 4 << 20;  // per round and thread

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// work(thread, round) does `amount` of something; returns the best amount per second of the team over all rounds.
template <class Work>
double best_rate(int threads, double seconds, double amount, const Work& work) {
    double best = 0, start = 0;
    const double deadline = now() + seconds;
    bool done = false;
    parallel(threads, [&](int thread, int team) {
        work(thread, 0);  // warm-up: clocks, caches
        for (int64_t round = 1;; ++round) {
            if (thread == 0) start = now();
            team_barrier(team);
            if (done) return;
            work(thread, round);
            team_barrier(team);
            if (thread != 0) continue;
            const double end = now(), rate = amount * team / (end - start);
            best = rate > best ? rate : best;
            done = end > deadline;
        }
    });
    return best;
}

template <class T>
void keep(Vec<T> v) {
    volatile T sink = v[0];
    static_cast<void>(sink);
}

template <class T>
double fma_rate(int threads, double seconds) {
    return best_rate(threads, seconds, 2.0 * lanes<T> * kChains * kFmaSteps, [](int, int64_t) {
        volatile T factor = T(0.999), addend = T(0.001);  // unknown to the compiler; the values stay near 1
        const Vec<T> a = broadcast<T>(factor), b = broadcast<T>(addend);
        Vec<T> chain[kChains];
        for (int i = 0; i < kChains; ++i) chain[i] = broadcast<T>(T(i) / kChains);
        for (int64_t step = 0; step < kFmaSteps; ++step) {
#pragma GCC unroll 12
            for (int i = 0; i < kChains; ++i) chain[i] = chain[i] * a + b;
        }
        for (int i = 1; i < kChains; ++i) chain[0] += chain[i];
        keep<T>(chain[0]);
    });
}

constexpr int64_t kStreamedBytes = 64 << 20;  // a copy this large is written past the caches

template <class T>
double copy_rate(int64_t bytes, int threads, double seconds) {
    constexpr int64_t kStep = 8 * lanes<T>, kSize = sizeof(T);
    const int64_t half = bytes / kSize / threads / 2 / kStep * kStep;
    T* const data =
        static_cast<T*>(std::aligned_alloc(64, static_cast<size_t>((2 * half * threads * kSize + 63) & ~63)));
    if (!data || half == 0) return std::free(data), 0.0;
    parallel(threads, [&](int thread, int) {
        for (int64_t i = 0; i < 2 * half; ++i) data[thread * 2 * half + i] = T(1);
    });
    const bool past_caches = bytes >= kStreamedBytes;
    const int64_t block = half > kRoundBytes / kSize ? kRoundBytes / kSize : half;
    const int64_t blocks = half / block, passes = (kRoundBytes / kSize + block - 1) / block;
    const double amount = static_cast<double>(2 * block * passes * kSize);
    const double best = best_rate(threads, seconds, amount, [&](int thread, int64_t round) {
        const T* const from = data + thread * 2 * half + round % blocks * block;
        T* const to = data + thread * 2 * half + half + round % blocks * block;
        for (int64_t pass = 0; pass < passes; ++pass) {
            for (int64_t at = 0; at < block; at += kStep) {
#pragma GCC unroll 8
                for (int i = 0; i < 8; ++i) {
                    const Vec<T> v = load<T>(from + at + i * lanes<T>);
                    past_caches ? store_streaming<T>(to + at + i * lanes<T>, v) : store<T>(to + at + i * lanes<T>, v);
                }
            }
        }
        keep<T>(load<T>(to));
    });
    std::free(data);
    return best;
}

template <class T>
double read_rate(int64_t bytes, int threads, double seconds) {
    constexpr int64_t kStep = 8 * lanes<T>, kSize = sizeof(T);
    const int64_t share_size = bytes / kSize / threads / kStep * kStep;
    T* const data = static_cast<T*>(std::malloc(static_cast<size_t>(share_size * threads * kSize)));
    if (!data || share_size == 0) return std::free(data), 0.0;
    // Written by the thread that reads it: untouched pages would all be the same page of zeros.
    parallel(threads, [&](int thread, int) {
        for (int64_t i = 0; i < share_size; ++i) data[thread * share_size + i] = T(1);
    });
    // A round reads one block: the next one of a large share, a small share as often as it takes.
    const int64_t block = share_size > kRoundBytes / kSize ? kRoundBytes / kSize : share_size;
    const int64_t blocks = share_size / block, passes = (kRoundBytes / kSize + block - 1) / block;
    const double amount = static_cast<double>(block * passes * kSize);
    const double best = best_rate(threads, seconds, amount, [&](int thread, int64_t round) {
        const T* const begin = data + thread * share_size + round % blocks * block;
        Vec<T> sum[8]{};
        for (int64_t pass = 0; pass < passes; ++pass) {
            for (const T* p = begin; p < begin + block; p += kStep) {
#pragma GCC unroll 8
                for (int i = 0; i < 8; ++i) sum[i] += load<T>(p + i * lanes<T>);
            }
        }
        for (int i = 1; i < 8; ++i) sum[0] += sum[i];
        keep<T>(sum[0]);
    });
    std::free(data);
    return best;
}

double fma_peak(const PeakProblem& problem, int threads, double seconds) {
    return problem.dtype == DType::f64 ? fma_rate<double>(threads, seconds) : fma_rate<float>(threads, seconds);
}

double read_peak(const PeakProblem& problem, int threads, double seconds) {
    return problem.dtype == DType::f64 ? read_rate<double>(problem.bytes, threads, seconds)
                                       : read_rate<float>(problem.bytes, threads, seconds);
}

double copy_peak(const PeakProblem& problem, int threads, double seconds) {
    return copy_rate<float>(problem.bytes, threads, seconds);
}

}  // namespace

PYCV_KERNEL("peak", "fma", fma_peak);
PYCV_KERNEL("peak", "read", read_peak);
PYCV_KERNEL("peak", "copy", copy_peak);

}  // namespace pycv::cpu::PYCV_ISA
