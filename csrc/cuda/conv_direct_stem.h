// Direct convolution, forward, of images of up to 4 channels with more than 8 filters, which are not grouped and have
// no prologue: the stem of a network.
//
// A block computes 4 rows of 32 positions of 32 or 64 output channels. What its windows see of the input, all channels,
// goes to shared memory once, as numbers of the accumulator's type and zeros for the padding: an element serves every
// tap and output channel that meet it. The filters follow, all of them or, where those are more than fit, some of their
// rows at a time. A thread sums up 8 positions of 4 or 8 channels in registers: per tap and source channel it reads 8
// elements of the input and a vector of weights, for 32 or 64 multiply-adds. Columns of the input lie by their
// remainder modulo the stride, so that neighbouring positions read neighbouring words: no bank serves two lanes,
// whatever the stride, and both output layouts are written in whole sectors.
//
// 2 * n * k * out * c * filter FLOPs; bytes: input and output once, the input's rows that two blocks need twice through
// L2, and for each block the filters. 7x7 at stride 2, 3 to 64 channels at 224x224 in fp32: 236 MFLOP and 3.8 MB per
// image, 62 FLOPs per byte, bound by the multiply-adds of fp32: 3.5 us of an H100 at its peak, against 1.3 us for the
// memory. 16-bit storage halves the bytes; tensor cores (mma_sync) take the FLOPs. A block of it loads 13 x 69 pixels
// for 128 positions: 2691 elements and 9408 weights for 1.2 million multiply-adds.
//
// grad_weight has no use for this staging: its sums are the filters, [k] x [taps], over positions as the depth, and
// each element would be read from shared memory for few of them. That product is what implicit_gemm makes, in tiles of
// both and with its depth in parts; direct_grad_weight reads the gradients once for every source channel and 9 taps.
#pragma once

#include <algorithm>

#include "conv_direct.h"
#include "device/warp.h"
#include "division.h"

namespace pycv::cuda {

constexpr int kStemLanes = 16, kStemGroups = 8;  // of a block: threads along positions, along channels
constexpr int kStemThreads = kStemLanes * kStemGroups;
constexpr int kStemColumns = 32, kStemRows = 4;  // positions of a block
constexpr int kStemPositions = kStemColumns * kStemRows / kStemLanes;
constexpr int kStemMostChannels = 4, kStemFewestFilters = 9;

struct StemTiles {
    int channels;                         // of a thread
    int across, down, filters;            // tiles in each direction
    int rows, columns;                    // of the input that a block sees
    int phase_pitch, row_pitch, plane;    // where they lie: a remainder of columns, a row, a channel
    int filter_rows, filter_row_weights;  // staged at a time, weights of one
    Divider by_stride, by_channels;

    int64_t elements(int source_channels) const {
        return int64_t{plane} * source_channels + int64_t{filter_rows} * filter_row_weights;
    }
};

// The tiles of a problem; none of a filter row where something does not fit, or where most of a tile would be empty.
template <class T>
StemTiles stem_tiles(const ConvProblem& p) {
    const int64_t S = p.stride.w, largest = p.size.w + 2 * p.padding.w + p.stride.w * kStemColumns;
    StemTiles t{.filter_rows = 0, .by_stride = Divider(S, largest), .by_channels = Divider(p.c, largest * p.c)};
    const bool plane = p.size.d == 1 && p.out.d == 1 && p.filter.d == 1 && p.padding.d == 0;
    const bool prologue = p.scale_input || p.relu_input;  // the image is the first thing that a network sees
    if (p.pass != Pass::forward || p.groups != 1 || !plane || prologue || p.c < 1 || p.c > kStemMostChannels ||
        p.k < kStemFewestFilters || p.out.h * p.out.w < 1)
        return t;
    const auto number = [](int64_t value) { return static_cast<int>(value); };
    const int64_t across = ceil_div<int64_t>(p.out.w, kStemColumns), down = ceil_div<int64_t>(p.out.h, kStemRows);
    const int64_t columns = (kStemColumns - 1) * S + (p.filter.w - 1) * p.dilation.w + 1;
    const int64_t rows = (kStemRows - 1) * p.stride.h + (p.filter.h - 1) * p.dilation.h + 1;
    const bool wide = sizeof(T) < 8 && ceil_div<int64_t>(p.k, 64) * 2 <= ceil_div<int64_t>(p.k, 32);
    const int64_t pitch = ceil_div<int64_t>(columns, S), plane_elements = ceil_div<int64_t>(rows * pitch * S, 4) * 4;
    const int64_t channels = wide ? 8 : 4, weights = p.filter.w * p.c * channels * kStemGroups;
    const int64_t room = 48 * 1024 / static_cast<int64_t>(sizeof(accumulator_t<T>));  // that any GPU has
    const int64_t filter_rows = std::min(p.filter.h, (room - plane_elements * p.c) / weights);
    if (filter_rows < 1 || across * kStemColumns * down * kStemRows > 2 * p.out.h * p.out.w) return t;
    t.channels = number(channels);
    t.across = number(across);
    t.down = number(down);
    t.filters = number(ceil_div<int64_t>(p.k, channels * kStemGroups));
    t.rows = number(rows);
    t.columns = number(columns);
    t.phase_pitch = number(pitch);
    t.row_pitch = number(pitch * S);
    t.plane = number(plane_elements);
    t.filter_rows = number(filter_rows);
    t.filter_row_weights = number(weights);
    return t;
}

// The rows of the input from (y, x) on into shared memory, neighbouring threads what lies side by side.
template <class T>
__device__ __forceinline__ void stage_image(const StemTiles& t, const DirectGather<T>& p, const T* image, int y, int x,
                                            accumulator_t<T>* to) {
    const Strides& s = p.source_strides;
    const Extent size = p.geometry.size;
    const bool pixels = s.c == 1;
    const int lines = pixels ? t.rows : t.rows * p.source_channels;
    const int elements = pixels ? t.columns * p.source_channels : t.columns;
    for (int line = warp_index(); line < lines; line += kStemThreads / warp_size) {
        const int row = line % t.rows, h = y + row;
        for (int element = lane_index(); element < elements; element += warp_size) {
            int64_t column = element;
            const int c = pixels ? static_cast<int>(t.by_channels.split(column)) : line / t.rows;
            const int w = x + static_cast<int>(column), phase = static_cast<int>(t.by_stride.split(column));
            const bool inside = static_cast<unsigned>(h) < static_cast<unsigned>(size.h) &&
                                static_cast<unsigned>(w) < static_cast<unsigned>(size.w);
            to[c * t.plane + row * t.row_pitch + phase * t.phase_pitch + static_cast<int>(column)] =
                inside ? to_accumulator(__ldg(image + offset_of(s, 0, h, w) + c * s.c)) : accumulator_t<T>(0);
        }
    }
}

// Taps of filter rows from `first_row` on, for the block's channels from `channel` on: [tap][source channel][channel].
template <class T, int Q>
__device__ __forceinline__ void stage_filters(const StemTiles& t, const DirectGather<T>& p, int first_row, int rows,
                                              int channel, accumulator_t<T>* to) {
    constexpr int kChannels = Q * kStemGroups, N = 4;  // the prepared weight has whole vectors of 4
    const int line = p.geometry.filter.w * p.source_channels, lines = rows * line;
    const T* const from = p.weight + static_cast<int64_t>(first_row) * line * p.group_pitch + channel;
    for (int i = static_cast<int>(threadIdx.x) * N; i < lines * kChannels; i += kStemThreads * N) {
        const int tap = i / kChannels, k = i % kChannels;
        accumulator_t<T> values[N] = {};
        if (channel + k < p.group_pitch) load_values<N>(values, from + static_cast<int64_t>(tap) * p.group_pitch + k);
#pragma unroll
        for (int n = 0; n < N; ++n) to[i + n] = values[n];
    }
}

template <class T, int Q>
__global__ void __launch_bounds__(kStemThreads, 3) direct_stem(const DirectGather<T> p, const StemTiles t) {
    using A = accumulator_t<T>;
    constexpr int kChannels = Q * kStemGroups, N = widest_vector<A>;
    PYCV_SHARED(A, shared);
    A* const filters = shared + t.plane * p.source_channels;
    unsigned tile = blockIdx.x;
    const int channel = static_cast<int>(tile % t.filters) * kChannels;
    tile /= t.filters;
    const int column = static_cast<int>(tile % t.across) * kStemColumns;
    tile /= t.across;
    const int row = static_cast<int>(tile % t.down) * kStemRows, n = static_cast<int>(tile / t.down);
    const Geometry& g = p.geometry;
    stage_image(t, p, p.source + n * p.source_strides.n, row * g.stride.h - g.padding.h,
                column * g.stride.w - g.padding.w, shared);

    const int lane = static_cast<int>(threadIdx.x) % kStemLanes, group = static_cast<int>(threadIdx.x) / kStemLanes;
    const int next_row = g.stride.h * t.row_pitch;
    A sums[kStemPositions][Q] = {};
    for (int first = 0; first < g.filter.h; first += t.filter_rows) {
        const int rows = min(t.filter_rows, g.filter.h - first);
        if (first > 0) __syncthreads();  // the last ones have been read
        stage_filters<T, Q>(t, p, first, rows, channel, filters);
        __syncthreads();
        const A* weight = filters + group * Q;
        for (int fh = first; fh < first + rows; ++fh)
            for (int fw = 0; fw < g.filter.w; ++fw) {
                int64_t along = fw * g.dilation.w;
                const int phase = static_cast<int>(t.by_stride.split(along));
                const A* source =
                    shared + fh * g.dilation.h * t.row_pitch + phase * t.phase_pitch + static_cast<int>(along) + lane;
                for (int c = 0; c < p.source_channels; ++c, source += t.plane, weight += kChannels) {
                    A weights[Q];
#pragma unroll
                    for (int q = 0; q < Q; q += N) {
                        const Vector<A, N> part = load_vector<N>(weight + q);
#pragma unroll
                        for (int j = 0; j < N; ++j) weights[q + j] = part[j];
                    }
#pragma unroll
                    for (int i = 0; i < kStemPositions; ++i) {
                        const A x = source[i / 2 * next_row + i % 2 * kStemLanes];
#pragma unroll
                        for (int q = 0; q < Q; ++q) sums[i][q] += x * weights[q];
                    }
                }
            }
    }

    Gather forward{};  // positions as they are counted
    forward.d.step = forward.h.step = forward.w.step = 1;
    const int own = channel + group * Q, count = min(Q, p.channels - own);
#pragma unroll
    for (int i = 0; i < kStemPositions; ++i) {
        const Digits at{{column + i % 2 * kStemLanes + lane, row + i / 2, 0, n}};
        if (at.at[0] < g.out.w && at.at[1] < g.out.h && count > 0)
            write_channels<Q>(p, forward, at, own, count, sums[i]);
    }
}

template <class T, int Q>
void launch_stem(const DirectGather<T>& p, const StemTiles& t, Stream stream) {
    const int64_t blocks = int64_t{p.n} * t.down * t.across * t.filters;
    launch(direct_stem<T, Q>, dim3(static_cast<unsigned>(blocks)), kStemThreads,
           static_cast<size_t>(t.elements(p.source_channels)) * sizeof(accumulator_t<T>), stream, p, t);
}

// The weight is that of direct_gather, in vectors of 16 channels.
template <class T>
void run_stem(const DirectGather<T>& p, const StemTiles& t, Stream stream) {
    static_assert(kStemColumns == 2 * kStemLanes);
    if constexpr (sizeof(T) < 8) {
        if (t.channels == 8) return launch_stem<T, 8>(p, t, stream);
    }
    launch_stem<T, 4>(p, t, stream);
}

}  // namespace pycv::cuda
