// channel_sum: out[c] = sum over n and space of x[n, c, ...]: the gradient of a per-channel bias.
//
// One read of x, bound by memory bandwidth. Where channels lie apart, parallel over them (norm.h). Where they lie side
// by side, over blocks of positions, so that memory is read as it lies however many channels there are; panels of
// channels share a block out where there are few positions. Both are deterministic, and the same for every number of
// threads: how a tensor is cut depends on its shape alone, and the sums of the blocks are added in order.
#include "channel_tiles.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

constexpr int kItems = 16;         // work items of a tensor whose channels lie side by side
constexpr int64_t kItemRows = 32;  // positions that are worth another item
constexpr int64_t kItemElements = 8192;

template <class T>
class ChannelSum final : public NormPlan {
public:
    ChannelSum(const NormProblem& p, int threads)
        : channels_(p.c),
          stride_(p.input.c),
          walk_(walk(p.n, p.size, p.input, p.input)),
          positions_(positions(p.n, p.size, p.input, p.input, p.input)),
          interleaved_(p.c > 1 && p.input.c == 1),
          threads_(worthwhile_threads(p.n * p.c * p.size.count(), threads)) {
        const int64_t count = positions_.count(), units = divide_up(channels_, kUnit);
        blocks_ = larger(1, smaller(kItems, smaller(count / kItemRows, count * channels_ / kItemElements)));
        panels_ = larger(1, smaller(kItems / blocks_, units));
    }

    int64_t workspace_bytes() const override {
        return interleaved_ ? blocks_ * channels_ * static_cast<int64_t>(sizeof(double)) : 0;
    }

    void run(const NormArguments& arguments) const override {
        const T* x = static_cast<const T*>(arguments.input);
        T* out = static_cast<T*>(arguments.output);
        if (interleaved_) return sum_blocks(x, static_cast<double*>(arguments.workspace), out);
        parallel_for(threads_, channels_, [&](int64_t c) { out[c] = channel(x + c * stride_); });
    }

private:
    static constexpr int64_t kUnit = 4 * lanes<T>;  // channels of which panels are made

    // A channel whose neighbours lie elsewhere.
    T channel(const T* x) const {
        double total = 0;
        const int64_t step = walk_.axes[0].x;
        for_chunks(walk_, kChunk, [&](int64_t offset, int64_t, int64_t count) {
            T buffer[kChunk];
            const T* values = dense(x + offset, step, count, buffer);
            total += sum_terms<T>(count, [&]<class Lane>(int64_t i) { return get<Lane>(values + i); });
        });
        return static_cast<T>(total);
    }

    // Totals are [block][channel].
    void sum_blocks(const T* x, double* totals, T* out) const {
        parallel(threads_, [&](int thread, int team) {
            const Range items = share(blocks_ * panels_, thread, team);
            for (int64_t i = items.begin; i < items.end; ++i) sum_item(x, i / panels_, i % panels_, totals);
            team_barrier(team);
            const Range mine = share(channels_, thread, team);
            for (int64_t c = mine.begin; c < mine.end; ++c) {
                double total = 0;
                for (int64_t b = 0; b < blocks_; ++b) total += totals[b * channels_ + c];
                out[c] = static_cast<T>(total);
            }
        });
    }

    void sum_item(const T* x, int64_t block, int64_t panel, double* totals) const {
        const Range units = share(divide_up(channels_, kUnit), static_cast<int>(panel), static_cast<int>(panels_));
        const Range channels{smaller(units.begin * kUnit, channels_), smaller(units.end * kUnit, channels_)};
        const Range rows = share(positions_.count(), static_cast<int>(block), static_cast<int>(blocks_));
        double* sums = totals + block * channels_;
        for (int64_t c = channels.begin; c < channels.end; ++c) sums[c] = 0;
        for_tiles(positions_, rows, kGroupChunk, Direction::forwards, [&](Offsets at, int64_t count) {
            interleaved_parts<T>(positions_, {0, {1, 1, 1}}, channels, at, count, [&](auto group, const Part& part) {
                add_rows<1, T>(group, part, sums, channels_,
                               [&](const Part& from, int64_t row, int v, const auto& add) {
                                   using G = decltype(group);
                                   add(0, get<typename G::Lane>(x + from.at.x + row * from.step.x + v * G::lane));
                               });
            });
        });
    }

    int64_t channels_, stride_;
    Walk walk_;
    Positions positions_;
    bool interleaved_;
    int threads_;
    int64_t blocks_, panels_;
};

NormPlan* plan_channel_sum(const NormProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new ChannelSum<double>(problem, threads);
    return new ChannelSum<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("channel_sum", "direct", plan_channel_sum);

}  // namespace pycv::cpu::PYCV_ISA
