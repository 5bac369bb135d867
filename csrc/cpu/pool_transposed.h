// Pooling of small planes with channels in the lanes: a vector of them is transposed into scratch, pooled as a blocked
// tensor is, and the result transposed back.
//
// Windows of any shape cost the same there, where along a row each that is not complete or of an odd stride is folded
// by itself. 2 * (input + output) elements moved, in cache.
// Only for kernel files (ISA namespace).
#pragma once

#include "channel_planes.h"
#include "pool.h"

namespace pycv::cpu::PYCV_ISA {

// On a thread's stack.
constexpr int64_t kTransposedBytes = 160 << 10;

// The part of a problem that `channels` channels of one image are, in a block of `lanes`.
inline PoolProblem of_pool_block(PoolProblem p, int64_t channels, int64_t lanes) {
    p.n = 1;
    p.c = channels;
    p.input = in_lanes(p.size, lanes);
    p.output = in_lanes(p.out, lanes);
    return p;
}

// Whether a problem is one of planes, dense and small, of several windows, whose channels leave few lanes empty.
template <class T>
inline bool can_be_transposed(const PoolProblem& p) {
    const int64_t bytes = (p.size.count() + p.out.count()) * lanes<T> * static_cast<int64_t>(sizeof(T));
    return has_dense_planes(p.input, p.size) && has_dense_planes(p.output, p.out) && bytes <= kTransposedBytes &&
           p.out.count() > 1 && 2 * round_up(p.c, lanes<T>) <= 3 * p.c;
}

// Whether that is faster in the forward. Measured: along the rows every second column is cheap where there is a vector
// of outputs, windows of any other kind are not.
template <class T>
inline bool has_short_rows(const PoolProblem& p) {
    const PoolAxis w = pool_axes(p).w;
    return can_be_transposed<T>(p) && (w.adaptive || w.stride != 2 || w.out < lanes<T>);
}

// How many channels are pooled at a time: several vectors, where they stay in the nearest cache and threads have work.
template <class T>
inline int64_t channels_at_once(const PoolProblem& p, int threads) {
    constexpr int64_t kInL1 = 32 << 10, kMost = 4;
    int64_t vectors = kMost;
    const auto bytes = [&] { return (p.size.count() + p.out.count()) * vectors * lanes<T> * int64_t(sizeof(T)); };
    while (vectors > 1 && (bytes() > kInL1 || p.n * divide_up(p.c, vectors * lanes<T>) < 2 * threads)) vectors /= 2;
    return vectors * lanes<T>;
}

// `Plan` pools blocked tensors, on one thread.
template <class T, class Plan>
class TransposedPool final : public PoolPlan {
public:
    TransposedPool(const PoolProblem& p, int threads)
        : p_(p),
          threads_(threads),
          block_(channels_at_once<T>(p, threads)),
          streams_(computed_bytes(p) > kStreamedBytes),
          whole_(of_pool_block(p, block_, block_), 1),
          last_(of_pool_block(p, larger(p.c % block_, 1), block_), 1) {}

    void run(const PoolArguments& a) const override {
        const int64_t blocks = divide_up(p_.c, block_);
        parallel_for(threads_, p_.n * blocks, [&](int64_t item) {
            const int64_t n = item / blocks, c = item % blocks * block_;
            block(static_cast<T*>(a.input) + n * p_.input.n + c * p_.input.c,
                  static_cast<T*>(a.output) + n * p_.output.n + c * p_.output.c, smaller(block_, p_.c - c));
        });
    }

private:
    void block(T* input, T* output, int64_t channels) const {
        alignas(64) T scratch[kTransposedBytes / sizeof(T)];
        T *x = scratch, *y = scratch + p_.size.count() * block_;
        const Plan& plan = channels == block_ ? whole_ : last_;
        const bool forward = p_.pass == Pass::forward;
        for_vectors(channels, [&](int64_t c, int64_t count) {
            if (forward) {
                planes_to_lanes<T>(input + c * p_.input.c, {p_.input.c, count, p_.size.count()}, x + c, block_);
            } else {
                planes_to_lanes<T>(output + c * p_.output.c, {p_.output.c, count, p_.out.count()}, y + c, block_);
            }
        });
        plan.run({x, y, nullptr});
        for_vectors(channels, [&](int64_t c, int64_t count) {
            if (count == 0) return;
            if (forward) {
                lanes_to_planes<T>(y + c, {p_.output.c, count, p_.out.count()}, output + c * p_.output.c, streams_,
                                   block_);
            } else {
                lanes_to_planes<T>(x + c, {p_.input.c, count, p_.size.count()}, input + c * p_.input.c, streams_,
                                   block_);
            }
        });
    }

    // body(first channel, how many there are) for each vector of a block.
    template <class Body>
    void for_vectors(int64_t channels, const Body& body) const {
        for (int64_t c = 0; c < block_; c += lanes<T>) body(c, larger(0, smaller(lanes<T>, channels - c)));
    }

    PoolProblem p_;
    int threads_;
    int64_t block_;      // channels that lie side by side in scratch
    bool streams_;       // what is written, past the caches
    Plan whole_, last_;  // of a block, and of fewer channels
};

}  // namespace pycv::cpu::PYCV_ISA
