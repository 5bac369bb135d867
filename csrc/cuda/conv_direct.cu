// Direct convolution of thin groups (depthwise above all) and of images with few channels, all passes: sums in
// registers, over taps read through the caches. conv_gather.h says what is gathered.
//
// forward, grad_input: a thread computes 4 positions of some channels: of 1, 4 or 16 channels of one group, which take
// from the same source elements; or, where pixels of depthwise channels are aligned (nhwc), of up to 4 channels with a
// source element each. Neighbouring threads take neighbouring positions (nchw) or channels (nhwc). The weight is
// prepared as [filter][c][group][channel], groups filled up to whole vectors. Per tap and source channel a thread reads
// 4 elements and a vector of weights, all but the first time out of L1, and makes 4 multiply-adds per channel. From
// memory comes every tensor once: 8 bytes per fp32 position of a depthwise channel and 2 * filter FLOPs, bound by
// memory. A prologue is computed anew for every tap that reads an element: two loads, out of L1, for a channel, and a
// few instructions for an element.
//
// Images of up to 4 channels with many filters go another way in forward, through shared memory: conv_direct_stem.h.
//
// grad_weight: a block sums up to 9 taps of 1 (nchw) or 32 (nhwc) pairs of channels over a split of all positions, a
// tree adds up its threads, and a second kernel the splits, always in the same order. Both images are read once per 9
// taps, and again for every channel of the group on the other side.
// Tuned: no kernel of this file may spill registers.
#include <utility>

#include "conv_direct_stem.h"
#include "dtypes.h"

namespace pycv::cuda {
namespace {

constexpr int kThreads = 256, kGatherThreads = 128;
constexpr int kNeighbours = 32;
constexpr int kTaps = 9;
constexpr int64_t kBlocks = 1024;      // of grad_weight, that a large GPU wants at least
constexpr int64_t kSmallestSplit = 8;  // positions per thread

// Depthwise channels of a thread: 16 bytes, but no more than its registers hold.
template <class T>
constexpr int kOwnVector = widest_vector<T> < 4 ? widest_vector<T> : 4;

// The prologue of some source channels at the positions of a thread. What lies outside stays 0.
template <class T, int Channels>
__device__ __forceinline__ void apply_prologue(const Prologue<T>& prologue, int channel,
                                               const T* const (&from)[kPositions],
                                               accumulator_t<T> (&x)[kPositions][Channels]) {
#pragma unroll
    for (int v = 0; v < Channels; ++v) {
        const ChannelPrologue<T> of_channel = prologue.of(channel + v);
#pragma unroll
        for (int i = 0; i < kPositions; ++i)
            if (from[i]) x[i][v] = to_accumulator(of_channel(from_accumulator<T>(x[i][v])));
    }
}

// Blocks of a multiprocessor, among which its registers are shared: told, or nvcc spills for the sake of more blocks.
template <int V>
constexpr int kBlocksTogether = V == 16 ? 2 : 3;

// OwnSource: every channel has a source channel of its own, its neighbour in memory. Otherwise the V channels share
// those of their group.
template <class T, int V, bool OwnSource>
__global__ void __launch_bounds__(kGatherThreads, kBlocksTogether<V>) direct_gather(const DirectGather<T> p) {
    using A = accumulator_t<T>;
    const int phases = p.geometry.phase_count();
    __shared__ Gather gather;  // registers are what this kernel lacks
    if (threadIdx.x == 0) gather = p.geometry.phase(static_cast<int>(blockIdx.x % phases));
    __syncthreads();
    const int64_t thread = static_cast<int64_t>(blockIdx.x / phases) * kGatherThreads + threadIdx.x;
    const int64_t positions = gather.positions() * p.n;
    const int unit = static_cast<int>(p.units_fastest ? thread % p.units : thread / p.slots);
    const int64_t slot = p.units_fastest ? thread / p.units : thread % p.slots;
    const int step = p.units_fastest ? 1 : kNeighbours;
    const int64_t first = slot / step * (step * kPositions) + slot % step;
    if (unit >= p.units || first >= positions) return;

    constexpr int own = OwnSource ? V : 1;  // source channels at a time
    const int units_of_group = OwnSource ? 1 : p.group_pitch / V;
    const int group = OwnSource ? unit * V : unit / units_of_group;
    const int channel = OwnSource ? 0 : unit % units_of_group * V;  // of its group
    const Strides& strides = p.source_strides;
    const T* const source = p.source + group * (p.source_channels * strides.c);
    const T* const weight = p.weight + group * static_cast<int64_t>(p.group_pitch) + channel;
    const int64_t weight_row = static_cast<int64_t>(p.groups) * p.group_pitch;
    const Radices radices = position_radices(gather);
    Point at[kPositions];
#pragma unroll
    for (int i = 0; i < kPositions; ++i) {
        at[i] = {0, kOutside, 0, 0};
        if (first + i * step >= positions) continue;
        const Digits q = Digits::of(first + i * step, radices);
        at[i] = position_point(gather, strides, q.at[3], q.at[2], q.at[1], q.at[0]);
    }

    const Extent size = p.geometry.source_size(), filter = p.geometry.filter;
    A sums[kPositions][V] = {};
    for (int d = 0; d < gather.d.taps; ++d)
        for (int h = 0; h < gather.h.taps; ++h)
            for (int w = 0; w < gather.w.taps; ++w) {
                const Point tap = tap_point(gather, strides, 0, d, h, w);
                const int64_t fd = gather.d.filter_first + d * gather.d.filter_step;
                const int fh = gather.h.filter_first + h * gather.h.filter_step;
                const int fw = gather.w.filter_first + w * gather.w.filter_step;
                const T* row = weight + ((fd * filter.h + fh) * filter.w + fw) * p.source_channels * weight_row;
                const T* from[kPositions];
#pragma unroll
                for (int i = 0; i < kPositions; ++i)
                    from[i] = inside(at[i], tap, size) ? source + (at[i].offset + tap.offset) : nullptr;
                for (int c = 0; c < p.source_channels; ++c, row += weight_row) {
                    A weights[V], x[kPositions][own] = {};
                    load_values<V>(weights, row);
#pragma unroll
                    for (int i = 0; i < kPositions; ++i)
                        if (from[i]) load_values<own>(x[i], from[i] + c * strides.c);
                    if (p.prologue.any()) apply_prologue(p.prologue, group * p.source_channels + c, from, x);
#pragma unroll
                    for (int i = 0; i < kPositions; ++i)
#pragma unroll
                        for (int v = 0; v < V; ++v) sums[i][v] += x[i][v % own] * weights[v];
                }
            }
    const int channels = OwnSource ? V : min(V, p.channels - channel);
#pragma unroll
    for (int i = 0; i < kPositions; ++i)
        if (first + i * step < positions)
            write_channels<V>(p, gather, Digits::of(first + i * step, radices), group * p.channels + channel, channels,
                              sums[i]);
}

struct DirectWeight {
    int groups, channels, source_channels, filters, group_pitch;
    int64_t group_stride;
    Strides strides;  // n: of the channel, c: of the source channel, w: of the filter position
};

// [channel][source channel, filter] of every group to [filter][source channel][group][channel].
template <class T>
__global__ void arrange_direct_weight(const T* weight, T* prepared, const DirectWeight s, int64_t count) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= count) return;
    int64_t rest = index;
    const int64_t channel = rest % s.group_pitch;
    rest /= s.group_pitch;
    const int64_t group = rest % s.groups;
    rest /= s.groups;
    const int64_t c = rest % s.source_channels, filter = rest / s.source_channels;
    const int64_t at = group * s.group_stride + channel * s.strides.n + c * s.strides.c + filter * s.strides.w;
    prepared[index] = channel < s.channels ? weight[at] : from_accumulator<T>(0);
}

unsigned blocks_of(int64_t threads, int together = kThreads) {
    return static_cast<unsigned>(ceil_div<int64_t>(threads, together));
}

template <class T>
class DirectGatherPlan final : public ConvPlan {
public:
    explicit DirectGatherPlan(const ConvProblem& problem) : problem_(problem), stem_(stem_tiles<T>(problem)) {
        const bool forward = problem.pass == Pass::forward;
        const int c = static_cast<int>(problem.c / problem.groups), k = static_cast<int>(problem.k / problem.groups);
        p_.geometry = geometry_of(problem);
        p_.n = static_cast<int>(problem.n);
        p_.groups = static_cast<int>(problem.groups);
        p_.channels = forward ? k : c;
        p_.source_channels = forward ? c : k;
        vector_ = p_.channels <= 1 ? 1 : p_.channels <= 8 ? 4 : 16;
        p_.group_pitch = ceil_div(p_.channels, vector_) * vector_;
        p_.source_strides = forward ? problem.input : problem.output;
        p_.computed_strides = forward ? problem.output : problem.input;
        p_.residual_strides = problem.residual;
        p_.relu = problem.relu;
        p_.units_fastest = p_.computed_strides.c == 1;
        positions_ = p_.geometry.phase_count() == 0 ? 0 : p_.geometry.phase(0).positions() * problem.n;
        p_.slots = p_.units_fastest ? ceil_div<int64_t>(positions_, kPositions)
                                    : ceil_div<int64_t>(positions_, kPositions * kNeighbours) * kNeighbours;
    }

    int64_t workspace_bytes() const override { return 0; }
    int64_t prepared_weight_bytes() const override { return weights() * static_cast<int64_t>(sizeof(T)); }

    void prepare_weight(const void* weight, void* prepared, Stream stream) const override {
        if (weights() == 0) return;
        Strides strides = problem_.weight;
        if (problem_.pass != Pass::forward) std::swap(strides.n, strides.c);
        const DirectWeight shape{p_.groups,
                                 p_.channels,
                                 p_.source_channels,
                                 static_cast<int>(problem_.filter.count()),
                                 p_.group_pitch,
                                 problem_.k / problem_.groups * problem_.weight.n,
                                 strides};
        launch(arrange_direct_weight<T>, dim3(blocks_of(weights())), kThreads, 0, stream, static_cast<const T*>(weight),
               static_cast<T*>(prepared), shape, weights());
    }

    void run(const ConvArguments& a, Stream stream) const override {
        if (positions_ == 0 || p_.channels == 0) return;
        const bool forward = problem_.pass == Pass::forward;
        DirectGather<T> p = p_;
        p.source = static_cast<const T*>(forward ? a.input : a.output);
        p.prologue = {problem_, a};
        p.weight = static_cast<const T*>(a.weight);
        p.computed = static_cast<T*>(forward ? a.output : a.input);
        p.bias = static_cast<const T*>(problem_.bias ? a.bias : nullptr);
        p.residual = static_cast<const T*>(problem_.has_residual ? a.residual : nullptr);
        if (stem_.filter_rows > 0) return run_stem(p, stem_, stream);
        const Strides& s = p.source_strides;
        constexpr int N = kOwnVector<T>;
        const bool aligned = all_aligned(16, p.source) && s.n % N == 0 && s.d % N == 0 && s.h % N == 0 && s.w % N == 0;
        const bool depthwise = p.channels == 1 && p.source_channels == 1;
        if (depthwise && s.c == 1 && p.units_fastest && p.groups % N == 0 && aligned)
            run<N, true>(p, stream);
        else if (vector_ == 1)
            run<1, false>(p, stream);
        else if (vector_ == 4)
            run<4, false>(p, stream);
        else
            run<16, false>(p, stream);
    }

private:
    int64_t weights() const { return problem_.filter.count() * p_.source_channels * p_.groups * p_.group_pitch; }

    template <int V, bool OwnSource>
    void run(DirectGather<T>& p, Stream stream) const {
        p.units = p.groups * p.group_pitch / V;
        const auto phases = static_cast<unsigned>(p.geometry.phase_count());
        const unsigned blocks = blocks_of(p.units * p.slots, kGatherThreads) * phases;
        launch(direct_gather<T, V, OwnSource>, dim3(blocks), kGatherThreads, 0, stream, p);
    }

    ConvProblem problem_;
    DirectGather<T> p_{};
    StemTiles stem_;
    int vector_;
    int64_t positions_;
};

// ------------------------------------------------------------------------------------------------------ grad_weight

template <class T>
struct DirectGradWeight {
    Geometry geometry;
    int n, channels, outputs;  // of a group
    const T* input;
    const T* output;
    T* weight;
    accumulator_t<T>* sums;  // [split][tap][pair], where there is more than one split
    Strides input_strides, output_strides, weight_strides;
    int64_t pairs, pair_blocks, tap_blocks, splits, split_positions;
    int lanes;  // threads side by side that take a pair each

    __host__ __device__ int taps() const { return geometry.filter.d * geometry.filter.h * geometry.filter.w; }

    // A pair is an output channel and a channel of its group, the latter running fastest.
    __device__ T* weight_at(int64_t pair, int tap) const {
        const Extent& f = geometry.filter;
        return weight + pair / channels * weight_strides.n + pair % channels * weight_strides.c +
               offset_of(weight_strides, tap / f.w / f.h, tap / f.w % f.h, tap % f.w);
    }
};

template <class T>
__global__ void __launch_bounds__(kThreads) direct_grad_weight(const DirectGradWeight<T> p) {
    using A = accumulator_t<T>;
    __shared__ A shared[kTaps][kThreads];
    __shared__ Point taps[kTaps];
    const Gather gather = p.geometry.phase(0);
    const int thread = threadIdx.x;
    const int64_t pair = blockIdx.x % p.pair_blocks * p.lanes + thread % p.lanes;
    const int first_tap = static_cast<int>(blockIdx.x / p.pair_blocks % p.tap_blocks) * kTaps;
    const int64_t split = blockIdx.x / p.pair_blocks / p.tap_blocks;
    if (thread < kTaps) {
        const int tap = first_tap + thread, w = gather.w.taps, h = gather.h.taps;
        taps[thread] = tap < p.taps() ? tap_point(gather, p.input_strides, 0, tap / w / h, tap / w % h, tap % w)
                                      : Point{0, kOutside, 0, 0};
    }
    __syncthreads();

    A sums[kTaps] = {};
    const int64_t end = min((split + 1) * p.split_positions, gather.positions() * p.n);
    const int64_t first = split * p.split_positions + thread / p.lanes;
    if (pair < p.pairs && first < end) {
        const int64_t k = pair / p.channels, c = k / p.outputs * p.channels + pair % p.channels;
        const T* const input = p.input + c * p.input_strides.c;
        const T* const output = p.output + k * p.output_strides.c;
        const Extent size = p.geometry.source_size();
        const Radices radices = position_radices(gather);
        const int step = kThreads / p.lanes;
        const Digits by = Digits::of(step, radices);
        Digits q = Digits::of(first, radices);
        for (int64_t position = first; position < end; position += step, q.advance(by, radices)) {
            const Strides& s = p.output_strides;
            const A grad = to_accumulator(__ldg(output + q.at[3] * s.n + offset_of(s, q.at[2], q.at[1], q.at[0])));
            const Point at = position_point(gather, p.input_strides, q.at[3], q.at[2], q.at[1], q.at[0]);
#pragma unroll
            for (int t = 0; t < kTaps; ++t)
                if (inside(at, taps[t], size))
                    sums[t] += grad * to_accumulator(__ldg(input + at.offset + taps[t].offset));
        }
    }
#pragma unroll
    for (int t = 0; t < kTaps; ++t) shared[t][thread] = sums[t];
    for (int half = kThreads / 2; half >= p.lanes; half /= 2) {
        __syncthreads();
        if (thread < half)
            for (int t = 0; t < kTaps; ++t) shared[t][thread] += shared[t][thread + half];
    }
    if (thread >= p.lanes || pair >= p.pairs) return;
    for (int t = 0; t < kTaps && first_tap + t < p.taps(); ++t) {
        if (p.splits == 1)
            *p.weight_at(pair, first_tap + t) = from_accumulator<T>(shared[t][thread]);
        else
            p.sums[(split * p.taps() + first_tap + t) * p.pairs + pair] = shared[t][thread];
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads) direct_add_splits(const DirectGradWeight<T> p) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, count = p.taps() * p.pairs;
    if (index >= count) return;
    accumulator_t<T> sum = 0;
    for (int64_t split = 0; split < p.splits; ++split) sum += p.sums[split * count + index];
    *p.weight_at(index % p.pairs, static_cast<int>(index / p.pairs)) = from_accumulator<T>(sum);
}

template <class T>
class DirectGradWeightPlan final : public ConvPlan {
public:
    DirectGradWeightPlan(const ConvProblem& problem, int64_t workspace_limit) {
        p_.geometry = geometry_of(problem);
        p_.n = static_cast<int>(problem.n);
        p_.channels = static_cast<int>(problem.c / problem.groups);
        p_.outputs = static_cast<int>(problem.k / problem.groups);
        p_.input_strides = problem.input;
        p_.output_strides = problem.output;
        p_.weight_strides = problem.weight;
        p_.pairs = problem.k * p_.channels;
        p_.lanes = problem.input.c == 1 ? kNeighbours : 1;
        p_.pair_blocks = ceil_div<int64_t>(p_.pairs, p_.lanes);
        p_.tap_blocks = ceil_div(p_.taps(), kTaps);
        const int64_t positions = p_.geometry.phase(0).positions() * problem.n;
        const int64_t step = kThreads / p_.lanes, blocks = max(p_.pair_blocks * p_.tap_blocks, int64_t{1});
        int64_t splits = min(ceil_div(kBlocks, blocks), positions / (step * kSmallestSplit));
        splits = max(min(splits, workspace_limit / max(split_bytes(), int64_t{1})), int64_t{1});
        p_.split_positions = max(ceil_div(ceil_div(positions, splits), step) * step, step);
        p_.splits = max(ceil_div(positions, p_.split_positions), int64_t{1});
    }

    int64_t workspace_bytes() const override { return p_.splits > 1 ? p_.splits * split_bytes() : 0; }

    void run(const ConvArguments& a, Stream stream) const override {
        if (p_.pairs == 0) return;
        DirectGradWeight<T> p = p_;
        p.input = static_cast<const T*>(a.input);
        p.output = static_cast<const T*>(a.output);
        p.weight = static_cast<T*>(a.weight);
        p.sums = static_cast<accumulator_t<T>*>(a.workspace);
        launch(direct_grad_weight<T>, dim3(static_cast<unsigned>(p.pair_blocks * p.tap_blocks * p.splits)), kThreads, 0,
               stream, p);
        if (p.splits > 1) launch(direct_add_splits<T>, dim3(blocks_of(p.taps() * p.pairs)), kThreads, 0, stream, p);
    }

private:
    int64_t split_bytes() const { return p_.taps() * p_.pairs * static_cast<int64_t>(sizeof(accumulator_t<T>)); }

    DirectGradWeight<T> p_{};
};

template <class T>
ConvPlan* plan(const ConvProblem& problem, int64_t workspace_limit) {
    if (problem.pass == Pass::grad_weight) return new DirectGradWeightPlan<T>(problem, workspace_limit);
    return new DirectGatherPlan<T>(problem);
}

ConvPlan* plan_direct(const ConvProblem& problem, int64_t workspace_limit) {
    return of_dtype(problem.dtype, [&]<class T>() -> ConvPlan* { return plan<T>(problem, workspace_limit); });
}

}  // namespace

PYCV_KERNEL("conv", "direct", plan_direct);

}  // namespace pycv::cuda
