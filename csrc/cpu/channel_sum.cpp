// channel_sum: out[c] = sum over n and space of x[n, c, ...]: the gradient of a per-channel bias.
//
// One read of x, bound by memory bandwidth. Parallel over channels (norm.h): deterministic, and the same for every
// number of threads.
#include "norm.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T>
class ChannelSum final : public NormPlan {
public:
    ChannelSum(const NormProblem& p, int threads)
        : walk_(walk(p.n, p.size, p.input, p.input)),
          stride_(p.input.c),
          threads_(worthwhile_threads(p.n * p.c * p.size.count(), threads)),
          items_(channel_items(p.c, p.input.c == 1, lanes<T>, threads_)) {}

    int64_t workspace_bytes() const override { return 0; }

    void run(const NormArguments& arguments) const override {
        for_channel_items(items_, threads_, [&](int64_t channel, auto vectors) {
            sum<vectors()>(static_cast<const T*>(arguments.input) + channel * stride_,
                           static_cast<T*>(arguments.output) + channel);
        });
    }

private:
    template <int V>
    void sum(const T* x, T* out) const {
        double total[width<T, V>] = {};
        const int64_t step = walk_.axes[0].x;
        for_chunks(walk_, chunk_limit<V>, [&](int64_t offset, int64_t, int64_t count) {
            T part[width<T, V>];
            if constexpr (V == 0) {
                T buffer[kChunk];
                const T* values = dense(x + offset, step, count, buffer);
                part[0] = sum_terms<T>(count, [&]<class Lane>(int64_t i) { return get<Lane>(values + i); });
            } else {
                const T* values = x + offset;
                sum_positions<T, V>(count, part,
                                    [&](int64_t p, int v) { return load<T>(values + p * step + v * lanes<T>); });
            }
            for (int i = 0; i < width<T, V>; ++i) total[i] += part[i];
        });
        for (int i = 0; i < width<T, V>; ++i) out[i] = static_cast<T>(total[i]);
    }

    Walk walk_;
    int64_t stride_;
    int threads_;
    ChannelItems items_;
};

NormPlan* plan_channel_sum(const NormProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new ChannelSum<double>(problem, threads);
    return new ChannelSum<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("channel_sum", "direct", plan_channel_sum);

}  // namespace pycv::cpu::PYCV_ISA
