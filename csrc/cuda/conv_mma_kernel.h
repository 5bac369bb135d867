// The convolution kernel on tensor cores: tiles of the im2col matrix (conv_gather.h), gathered from nhwc, and of a
// plain matrix travel through the stages of mma_tile.h.
//
//                          rows of the result    columns               depth
//     forward, grad_input  positions             computed channels     taps
//     grad_weight          output channels       taps                  positions
//
// Channels are contiguous in memory: they run along k in forward and grad_input, along the lines in grad_weight. Where
// the lines of a block lie is worked out once, where a slice of the depth lies a few slices ahead, by a few threads
// that count through them; both are kept in shared memory. What is left for 16 bytes is an addition, a look whether
// they are inside the source, and the copy. What is not inside is 0 and multiplied like any other value.
//
// A prologue is applied to the tile of the source in shared memory, by the thread that has copied a vector and before
// the barrier that shows it to others: so it needs none of its own. Counted in the machine code of sm_80, not measured:
// 82 instructions for a vector of 8 elements of 16 bits, 52 for 4 of 32 bits. A thread of a large tile has 4 of them in
// a step (3xtf32: 2): 330 (210) cycles of issue and some 50 for the scales and shifts, while the products of the step
// take 512 of the tensor cores, and another block has its turn. As elements are copied so they are transformed: once
// for each filter position and tile of channels that reads them.
#pragma once

#include "conv_block.h"
#include "conv_mma.h"

namespace pycv::cuda {

// Where a line of the im2col matrix lies, and its results: a position, or a vector of a tap's channels.
struct ConvLine {
    Point point;
    int64_t computed, residual;
    int count;  // channels; 0 beyond the last line
};

// Where an index along the depth lies in both matrices: a vector of a tap's channels, or a position.
struct ConvSlice {
    Point point;
    int64_t plain;
    int count;    // channels; 0 beyond the end
    int channel;  // of the group, the first of a vector
};

template <class T, class Shape, bool GradWeight>
struct ConvMmaTiles {
    static constexpr Major major = GradWeight ? Major::line : Major::k;
    using TileA = SwizzledTile<T, major, Shape::rows, kMmaDepth<T>>;
    using TileB = SwizzledTile<T, major, Shape::columns, kMmaDepth<T>>;
    static constexpr int stage = TileA::elements + TileB::elements;
    static constexpr int vector = widest_vector<T>;
    static constexpr int lines = GradWeight ? Shape::columns / vector : Shape::rows;  // in a block's table
    static constexpr int slices = GradWeight ? kMmaDepth<T> : kMmaDepth<T> / vector;  // of a pair of tiles
    static_assert(kStagingFloats<Shape> * 4 <= kStages * stage * static_cast<int>(sizeof(T)));
};

template <class T, class Shape, bool GradWeight>
struct ConvMmaShared {
    using Tiles = ConvMmaTiles<T, Shape, GradWeight>;
    alignas(128) T tiles[kStages][Tiles::stage];
    ConvLine lines[Tiles::lines];
    ConvSlice slices[kStages][Tiles::slices];
    Digits next[Tiles::slices], step;  // of the depth
    Gather gather;
};

// The roles of positions and taps.
template <class T, bool GradWeight>
struct ConvMmaRoles {
    const ConvMma<T>& p;
    const Gather& gather;
    TapAxes taps;

    __device__ ConvMmaRoles(const ConvMma<T>& problem, const Gather& of_phase)
        : p(problem), gather(of_phase), taps(of_phase, problem.tap_vectors(), true) {}

    __device__ int64_t positions() const { return gather.positions() * p.n; }
    __device__ int64_t tap_count() const { return gather.taps() * p.tap_vectors(); }
    __device__ int64_t lines() const { return GradWeight ? tap_count() : positions(); }
    __device__ int64_t depth() const { return GradWeight ? positions() : tap_count(); }
    __device__ Radices line_radices() const { return GradWeight ? taps.radices : position_radices(gather); }
    __device__ Radices slice_radices() const { return GradWeight ? position_radices(gather) : taps.radices; }

    __device__ ConvLine line(const Digits& i) const {
        if constexpr (GradWeight) {
            const Strides& s = p.computed_strides;
            const int c = first_channel(i);
            return {tap(i), c * s.c + offset_of(s, taps.d(i), taps.h(i), taps.w(i)), 0, count(c)};
        } else {
            return {position(i), target(p.computed_strides, i), p.residual ? target(p.residual_strides, i) : 0, 1};
        }
    }
    __device__ ConvSlice slice(const Digits& i) const {
        if constexpr (GradWeight) {
            const Strides& s = p.plain_strides;
            return {position(i), i.at[3] * s.n + offset_of(s, i.at[2], i.at[1], i.at[0]), 1, 0};
        } else {
            return {tap(i), in_weight(i), count(first_channel(i)), first_channel(i)};
        }
    }

private:
    static constexpr int vector = widest_vector<T>;

    __device__ int first_channel(const Digits& i) const { return taps.c(i) * vector; }
    __device__ int count(int channel) const { return min(vector, p.tap_channels - channel); }
    __device__ Point position(const Digits& i) const {
        return position_point(gather, p.source_strides, i.at[3], i.at[2], i.at[1], i.at[0]);
    }
    __device__ Point tap(const Digits& i) const {
        return tap_point(gather, p.source_strides, first_channel(i), taps.d(i), taps.h(i), taps.w(i));
    }
    // Of a tap in a channel of the prepared weight.
    __device__ int64_t in_weight(const Digits& i) const {
        const Extent& filter = p.geometry.filter;
        const int64_t d = gather.d.filter_first + taps.d(i) * gather.d.filter_step;
        const int64_t h = gather.h.filter_first + taps.h(i) * gather.h.filter_step;
        const int64_t w = gather.w.filter_first + taps.w(i) * gather.w.filter_step;
        return (((d * filter.h + h) * filter.w + w) * p.tap_vectors() + taps.c(i)) * vector;
    }
    // Of a position in a tensor laid out as the computed one.
    __device__ int64_t target(const Strides& s, const Digits& i) const {
        return i.at[3] * s.n + offset_of(s, gather.d.first + static_cast<int64_t>(i.at[2]) * gather.d.step,
                                         gather.h.first + static_cast<int64_t>(i.at[1]) * gather.h.step,
                                         gather.w.first + static_cast<int64_t>(i.at[0]) * gather.w.step);
    }
};

constexpr Point kNowhere{0, kOutside, 0, 0};

// All threads work out where the lines of the block lie.
template <class Shared, class Roles>
__device__ __forceinline__ void find_lines(Shared* shared, const Roles& roles, int64_t first) {
    for (int i = threadIdx.x; i < Shared::Tiles::lines; i += blockDim.x) {
        const int64_t line = first + i;
        shared->lines[i] =
            line < roles.lines() ? roles.line(Digits::of(line, roles.line_radices())) : ConvLine{kNowhere, 0, 0, 0};
    }
}

// Thread i counts through slice i of each pair of tiles, of which there is one at least.
template <class Shared, class Roles>
__device__ __forceinline__ void begin_slices(Shared* shared, const Roles& roles, int64_t first) {
    if (threadIdx.x >= Shared::Tiles::slices) return;
    shared->next[threadIdx.x] = Digits::of(first + threadIdx.x, roles.slice_radices());
    if (threadIdx.x == 0) shared->step = Digits::of(Shared::Tiles::slices, roles.slice_radices());
}

// Those of the next pair, of which `left` are there.
template <class Shared, class Roles>
__device__ __forceinline__ void next_slices(Shared* shared, const Roles& roles, int stage, int64_t left) {
    if (threadIdx.x >= Shared::Tiles::slices) return;
    ConvSlice slice{kNowhere, 0, 0, 0};
    if (threadIdx.x < left) {
        Digits digits = shared->next[threadIdx.x];
        slice = roles.slice(digits);
        digits.advance(shared->step, roles.slice_radices());
        shared->next[threadIdx.x] = digits;
    }
    shared->slices[stage][threadIdx.x] = slice;
}

// All threads copy a tile: at(row, vector) says from where, and how many elements there are.
template <class T>
struct ConvVector {
    const T* address;
    int count;
};
template <class Tile, int Threads, class T, class At>
__device__ __forceinline__ void copy_tile(T* tile, bool vectors, At at) {
    constexpr int row_step = Threads / Tile::vectors;
    const int first = threadIdx.x / Tile::vectors, vector = threadIdx.x % Tile::vectors;
    if (vectors) {
#pragma unroll
        for (int i = 0; i < Tile::rows; i += row_step) {
            const ConvVector<T> from = at(first + i, vector);
            async_copy<widest_vector<T>>(tile + Tile::offset(first + i, vector), from.address, from.count);
        }
    } else {
#pragma unroll 1  // the rarer way: short, and with no registers of its own
        for (int i = 0; i < Tile::rows; i += row_step) {
            const ConvVector<T> from = at(first + i, vector);
            copy_elements(tile + Tile::offset(first + i, vector), from.address, 1, from.count);
        }
    }
}

// A pair of tiles.
template <class Shape, bool GradWeight, class T>
__device__ __forceinline__ void fetch_tiles(ConvMmaShared<T, Shape, GradWeight>* shared, int stage, const ConvMma<T>& p,
                                            const ConvBlock& block) {
    using Tiles = ConvMmaTiles<T, Shape, GradWeight>;
    using TileA = typename Tiles::TileA;
    using TileB = typename Tiles::TileB;
    T* const tile_a = shared->tiles[stage];
    T* const tile_b = tile_a + TileA::elements;
    const ConvLine* const lines = shared->lines;
    const ConvSlice* const slices = shared->slices[stage];
    const T* const source = p.source + block.group * p.source_group;
    const T* const plain = p.plain + block.group * p.plain_group;
    const Extent size = p.geometry.source_size();
    constexpr int vector = widest_vector<T>;
    const auto gathered = [&](const Point& line, const Point& slice, int count) {
        const bool valid = count > 0 && inside(line, slice, size);
        return ConvVector<T>{valid ? source + (line.offset + slice.offset) : source, valid ? count : 0};
    };
    if constexpr (GradWeight) {
        copy_tile<TileA, Shape::threads>(tile_a, p.plain_vectors, [&](int row, int v) {
            const int64_t channel = block.line + v * vector;
            const int left = clamped(p.channels - channel, vector);
            const bool valid = slices[row].count > 0 && left > 0;
            return ConvVector<T>{valid ? plain + slices[row].plain + channel : plain, valid ? left : 0};
        });
        copy_tile<TileB, Shape::threads>(tile_b, p.source_vectors, [&](int row, int v) {
            return gathered(lines[v].point, slices[row].point, slices[row].count > 0 ? lines[v].count : 0);
        });
    } else {
        copy_tile<TileA, Shape::threads>(tile_a, p.source_vectors, [&](int row, int v) {
            return gathered(lines[row].point, slices[v].point, slices[v].count);
        });
        copy_tile<TileB, Shape::threads>(tile_b, true, [&](int row, int v) {
            const int64_t channel = block.column + row;
            const bool valid = slices[v].count > 0 && channel < p.channels;
            return ConvVector<T>{valid ? plain + channel * p.weight_pitch() + slices[v].plain : plain,
                                 valid ? vector : 0};
        });
    }
}

// The prologue, of the vectors of the source that this thread has copied (copy_tile). What lies outside stays 0.
template <class Shape, class T>
__device__ __forceinline__ void apply_prologue(ConvMmaShared<T, Shape, false>* shared, int stage, const ConvMma<T>& p,
                                               const ConvBlock& block) {
    using Tile = typename ConvMmaTiles<T, Shape, false>::TileA;
    constexpr int N = widest_vector<T>;
    const int vector = threadIdx.x % Tile::vectors;
    const ConvSlice& slice = shared->slices[stage][vector];
    const int64_t channel = static_cast<int64_t>(block.group) * p.tap_channels + slice.channel;
    ChannelPrologue<T> channels[N];
#pragma unroll
    for (int e = 0; e < N; ++e)  // beyond the channels there are zeros, and stay
        channels[e] = e < slice.count ? p.prologue.of(channel + e) : ChannelPrologue<T>{0, 0, false};
    const Extent size = p.geometry.source_size();
#pragma unroll 1
    for (int row = threadIdx.x / Tile::vectors; row < Tile::rows; row += Shape::threads / Tile::vectors) {
        if (!inside(shared->lines[row].point, slice.point, size)) continue;
        T* const at = shared->tiles[stage] + Tile::offset(row, vector);
        Vector<T, N> values = load_vector<N>(at);
#pragma unroll
        for (int e = 0; e < N; ++e) values[e] = channels[e](values[e]);
        store_vector(at, values);
    }
}

// + bias, + residual, relu, and out: of positions and channels.
template <bool AlongRows, class Arithmetic, class Shape, class T>
__device__ __forceinline__ void write_positions(WarpProducts<Arithmetic, Shape>& products, float* staging,
                                                const ConvMma<T>& p, const ConvBlock& block, const ConvLine* lines) {
    T* const computed = p.computed + block.group * p.computed_group;
    for_each_run<AlongRows>(products, staging, [&](const float (&run)[4], int row, int column) {
        int64_t at[kRun];
        T values[kRun];
#pragma unroll
        for (int e = 0; e < kRun; ++e) {
            const ConvLine& line = lines[row + (AlongRows ? e : 0)];
            const int64_t c = block.column + column + (AlongRows ? 0 : e);
            const bool valid = line.count > 0 && c < p.channels;
            at[e] = valid ? line.computed + c * p.computed_strides.c : -1;
            float value = run[e];
            if (valid) {
                const int64_t channel = static_cast<int64_t>(block.group) * p.channels + c;
                if (p.bias) value += to_accumulator(p.bias[channel]);
                if (p.residual) value += to_accumulator(p.residual[line.residual + channel * p.residual_strides.c]);
                if (p.relu && value < 0) value = 0;
            }
            values[e] = from_accumulator<T>(value);
        }
        write_results(computed, at, values);
    });
}

// Of output channels and taps.
template <class Arithmetic, class Shape, class T>
__device__ __forceinline__ void write_filters(WarpProducts<Arithmetic, Shape>& products, float* staging,
                                              const ConvMma<T>& p, const ConvBlock& block, const ConvLine* lines) {
    constexpr int vector = widest_vector<T>;
    T* const computed = p.computed + block.group * p.computed_group;
    for_each_run<false>(products, staging, [&](const float (&run)[4], int row, int column) {
        const ConvLine& line = lines[column / vector];
        const int64_t k = block.line + row, first = line.computed + k * p.computed_strides.n;
        int64_t at[kRun];
        T values[kRun];
#pragma unroll
        for (int e = 0; e < kRun; ++e) {
            const int c = column % vector + e;
            at[e] = k < p.channels && c < line.count ? first + c * p.computed_strides.c : -1;
            values[e] = from_accumulator<T>(run[e]);
        }
        write_results(computed, at, values);
    });
}

template <bool GradWeight, class Arithmetic, class Shape, class T>
__device__ __forceinline__ void write_tile(WarpProducts<Arithmetic, Shape>& products,
                                           ConvMmaShared<T, Shape, GradWeight>* shared, const ConvMma<T>& p,
                                           const ConvBlock& block) {
    float* const staging = reinterpret_cast<float*>(shared->tiles);
    if constexpr (GradWeight)
        write_filters(products, staging, p, block, shared->lines);
    else if (p.computed_strides.c == 1)
        write_positions<false>(products, staging, p, block, shared->lines);
    else
        write_positions<true>(products, staging, p, block, shared->lines);
}

template <class Arithmetic, class Shape, bool GradWeight>
__global__ void __launch_bounds__(Shape::threads, Shape::blocks_together)
    conv_mma(const ConvMma<typename Arithmetic::T> p) {
    PYCV_NEEDS_MMA
    using T = typename Arithmetic::T;
    using Shared = ConvMmaShared<T, Shape, GradWeight>;
    using Tiles = typename Shared::Tiles;
    PYCV_SHARED(Shared, shared);
    const auto block = ConvBlock::of<Shape::rows, Shape::columns>(p.down, p.across, p.geometry.phase_count(), p.groups);
    if (threadIdx.x == 0) shared->gather = p.geometry.phase(block.phase);
    __syncthreads();
    const ConvMmaRoles<T, GradWeight> roles(p, shared->gather);
    find_lines(shared, roles, GradWeight ? block.column / Tiles::vector : block.line);
    const int64_t first = block.part * p.part_depth;
    const int64_t end = min(first + p.part_depth, roles.depth()), depth = end > first ? end - first : 0;
    if (depth > 0) begin_slices(shared, roles, first);  // a phase may have no taps at all
    __syncthreads();
    int64_t left = depth;  // of which it is not known yet where they lie
    for (int stage = 0; stage < kStages; ++stage, left -= Tiles::slices) next_slices(shared, roles, stage, left);
    __syncthreads();

    WarpProducts<Arithmetic, Shape> products;
    multistage(
        ceil_div<int64_t>(depth, Tiles::slices), [&](int stage) { fetch_tiles(shared, stage, p, block); },
        [&](int stage) {
            if constexpr (!GradWeight)
                if (p.prologue.any()) apply_prologue<Shape>(shared, stage, p, block);
        },
        [&](int stage) {
            next_slices(shared, roles, stage, left);
            left -= Tiles::slices;
            const T* from = shared->tiles[stage];
            products.template add<typename Tiles::TileA, typename Tiles::TileB>(from, from + Tiles::TileA::elements);
        });
    if (p.parts == 1)
        write_tile<GradWeight>(products, shared, p, block);
    else
        products.keep(p.sums + static_cast<int64_t>(blockIdx.x) * (Shape::rows * Shape::columns));
}

// Adds up the sums of the parts of a tile, and writes it.
template <class Arithmetic, class Shape, bool GradWeight>
__global__ void __launch_bounds__(Shape::threads) conv_mma_add_parts(const ConvMma<typename Arithmetic::T> p) {
    PYCV_NEEDS_MMA
    using T = typename Arithmetic::T;
    using Shared = ConvMmaShared<T, Shape, GradWeight>;
    PYCV_SHARED(Shared, shared);
    const auto block = ConvBlock::of<Shape::rows, Shape::columns>(p.down, p.across, p.geometry.phase_count(), p.groups);
    if (threadIdx.x == 0) shared->gather = p.geometry.phase(block.phase);
    __syncthreads();
    find_lines(shared, ConvMmaRoles<T, GradWeight>(p, shared->gather),
               GradWeight ? block.column / Shared::Tiles::vector : block.line);
    WarpProducts<Arithmetic, Shape> products;
    const float* sums = p.sums + static_cast<int64_t>(blockIdx.x) * (Shape::rows * Shape::columns);
    for (int64_t part = 0; part < p.parts; ++part, sums += p.tiles() * (Shape::rows * Shape::columns))
        products.add_kept(sums);
    __syncthreads();
    write_tile<GradWeight>(products, shared, p, block);
}

template <class Arithmetic, class Shape, bool GradWeight>
void launch_conv_mma(const ConvMma<typename Arithmetic::T>& p, Stream stream) {
    constexpr std::size_t bytes = sizeof(ConvMmaShared<typename Arithmetic::T, Shape, GradWeight>);
    const auto tiles = static_cast<unsigned>(p.tiles()), parts = static_cast<unsigned>(p.parts);
    launch(conv_mma<Arithmetic, Shape, GradWeight>, dim3(tiles * parts), Shape::threads, bytes, stream, p);
    if (parts > 1)
        launch(conv_mma_add_parts<Arithmetic, Shape, GradWeight>, dim3(tiles), Shape::threads, bytes, stream, p);
}

template <class Arithmetic, bool GradWeight>
void launch_conv_mma(const ConvMma<typename Arithmetic::T>& p, MmaTileIndex tile, Stream stream) {
    using Shapes = MmaShapes<Arithmetic>;
    using Flat = std::conditional_t<GradWeight, typename Shapes::Wide, typename Shapes::Tall>;
    switch (tile) {
        case kLargeTile: return launch_conv_mma<Arithmetic, typename Shapes::Large, GradWeight>(p, stream);
        case kTallTile:
        case kWideTile: return launch_conv_mma<Arithmetic, Flat, GradWeight>(p, stream);
        case kSmallTile: return launch_conv_mma<Arithmetic, typename Shapes::Small, GradWeight>(p, stream);
    }
}

// In the file of each arithmetic.
#define PYCV_CONV_MMA(Arithmetic)                                                                          \
    template <>                                                                                            \
    void launch_conv_mma<Arithmetic>(const ConvMma<Arithmetic::T>& p, bool grad_weight, MmaTileIndex tile, \
                                     Stream stream) {                                                      \
        grad_weight ? launch_conv_mma<Arithmetic, true>(p, tile, stream)                                   \
                    : launch_conv_mma<Arithmetic, false>(p, tile, stream);                                 \
    }

}  // namespace pycv::cuda
