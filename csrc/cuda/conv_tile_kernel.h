// The kernel of implicit_gemm: tiles of the im2col matrix (conv_gather.h) times tiles of a plain matrix.
//
//                          lines of the im2col matrix    columns of the plain matrix    depth (rows of both)
//     forward, grad_input  positions                     computed channels              taps
//     grad_weight          taps                          output channels                positions
//
// A block computes one tile of lines x columns of one group and phase, over all of the depth or one split of it. Each
// pair of tiles is fetched into shared memory (cp.async) while the pair before is multiplied: two stages, one barrier.
// Where the lines of the block lie is worked out once; where the rows of the next pair lie, one pair ahead, by a few
// threads that count through them. What is left for each element is an addition, a look whether it is inside the source
// and the copy. What is not inside is 0 and multiplied like any other value: as in torch's own im2col, an infinite
// weight gives NaN there. A prologue is applied to the tile of the source when it has arrived, at the price of one
// barrier more.
//
// With more than one split each block leaves its sums in the workspace, and a second kernel adds them up, always in the
// same order.
#pragma once

#include "conv_block.h"
#include "conv_tiles.h"

namespace pycv::cuda {

// Where a row of a pair of tiles lies in both matrices.
struct TileRow {
    Point point;
    int64_t plain;
    int channel;  // of the group, that a tap reads
};

// Where a line lies in the im2col matrix, and its results in what is computed.
struct TileLine {
    Point point;
    int64_t computed, residual;
};
constexpr int64_t kNoLine = -1;  // as `computed`: beyond the last line

template <class T, class Shape>
struct ConvShared {
    alignas(16) T tiles[2][Shape::Source::elements + Shape::Plain::elements];
    TileRow rows[2][Shape::depth];
    TileLine lines[Shape::lines];
    Digits next_rows[Shape::depth], step;  // in shared memory, as registers are what the kernel lacks
    Gather gather;
};

// The roles that positions and taps play.
template <class T, bool GradWeight>
struct ConvRoles {
    const ConvTiles<T>& p;
    const Gather& gather;
    TapAxes taps;

    __device__ ConvRoles(const ConvTiles<T>& tiles, const Gather& of_phase)
        : p(tiles), gather(of_phase), taps(of_phase, tiles.tap_channels, tiles.channels_inside) {}

    __device__ int64_t positions() const { return gather.positions() * p.n; }
    __device__ int64_t tap_count() const { return gather.taps() * p.tap_channels; }
    __device__ int64_t lines() const { return GradWeight ? tap_count() : positions(); }
    __device__ int64_t depth() const { return GradWeight ? positions() : tap_count(); }
    __device__ Radices row_radices() const { return GradWeight ? position_radices(gather) : taps.radices; }
    __device__ Radices line_radices() const { return GradWeight ? taps.radices : position_radices(gather); }
    __device__ Point tap(const Digits& i) const {
        return tap_point(gather, p.source_strides, taps.c(i), taps.d(i), taps.h(i), taps.w(i));
    }
    __device__ Point position(const Digits& i) const {
        return position_point(gather, p.source_strides, i.at[3], i.at[2], i.at[1], i.at[0]);
    }

    __device__ TileRow row(const Digits& i) const {
        if constexpr (GradWeight) {
            const Strides& s = p.plain_strides;
            return {position(i), i.at[3] * s.n + offset_of(s, i.at[2], i.at[1], i.at[0]), 0};
        } else {
            return {tap(i), weight_row(i) * p.plain_columns, taps.c(i)};
        }
    }

    __device__ TileLine line(const Digits& i) const {
        if constexpr (GradWeight) {
            const Strides& s = p.computed_strides;
            return {tap(i), taps.c(i) * s.c + offset_of(s, taps.d(i), taps.h(i), taps.w(i)), 0};
        } else {
            return {position(i), target(p.computed_strides, i), p.residual ? target(p.residual_strides, i) : 0};
        }
    }

private:
    // Of the prepared weight.
    __device__ int64_t weight_row(const Digits& i) const {
        const Extent& filter = p.geometry.filter;
        const int64_t d = gather.d.filter_first + taps.d(i) * gather.d.filter_step;
        const int64_t h = gather.h.filter_first + taps.h(i) * gather.h.filter_step;
        const int64_t w = gather.w.filter_first + taps.w(i) * gather.w.filter_step;
        const int64_t tap = (d * filter.h + h) * filter.w + w;
        const int64_t filters = static_cast<int64_t>(filter.d) * filter.h * filter.w;
        return taps.channels_inside ? tap * p.tap_channels + taps.c(i) : taps.c(i) * filters + tap;
    }

    // Of a position in a tensor laid out as the computed one.
    __device__ int64_t target(const Strides& s, const Digits& i) const {
        return i.at[3] * s.n + offset_of(s, gather.d.first + static_cast<int64_t>(i.at[2]) * gather.d.step,
                                         gather.h.first + static_cast<int64_t>(i.at[1]) * gather.h.step,
                                         gather.w.first + static_cast<int64_t>(i.at[0]) * gather.w.step);
    }
};

constexpr int64_t kNoRow = -1;  // as `plain`: beyond the last row

// Thread i < Depth counts through row i of each pair of tiles.
template <class Shape, class Roles, class Shared>
__device__ __forceinline__ void begin_rows(Shared* shared, const Roles& roles, int64_t first, int64_t end) {
    if (threadIdx.x >= Shape::depth || first >= end) return;
    shared->next_rows[threadIdx.x] = Digits::of(first + threadIdx.x, roles.row_radices());
    if (threadIdx.x == 0) shared->step = Digits::of(Shape::depth, roles.row_radices());
}

// The rows of the next pair, of which `left` are there.
template <class Shape, class Roles, class Shared>
__device__ __forceinline__ void next_rows(Shared* shared, const Roles& roles, int stage, int64_t left) {
    if (threadIdx.x >= Shape::depth) return;
    TileRow row{{0, kOutside, 0, 0}, kNoRow, 0};
    if (threadIdx.x < left) {
        Digits digits = shared->next_rows[threadIdx.x];
        row = roles.row(digits);
        digits.advance(shared->step, roles.row_radices());
        shared->next_rows[threadIdx.x] = digits;
    }
    shared->rows[stage][threadIdx.x] = row;
}

// All threads of a block work out where its lines lie.
template <class Shape, class Roles>
__device__ __forceinline__ void find_lines(TileLine* lines, const Roles& roles, int64_t first) {
    if (threadIdx.x >= Shape::lines) return;
    const int64_t line = first + threadIdx.x;
    lines[threadIdx.x] = line < roles.lines() ? roles.line(Digits::of(line, roles.line_radices()))
                                              : TileLine{{0, kOutside, 0, 0}, kNoLine, 0};
}

template <class T>
struct Element {
    const T* address;
    bool valid;
};

// The im2col matrix of a group, as copy_lanes reads it.
template <class T>
struct SourceReader {
    const T* data;
    const TileLine* lines;
    const TileRow* rows;
    Extent size;

    __device__ __forceinline__ Point line(int index) const { return lines[index].point; }
    __device__ __forceinline__ Point row(int index) const { return rows[index].point; }
    __device__ __forceinline__ Element<T> at(const Point& line, const Point& row) const {
        const bool valid = inside(line, row, size);
        return {valid ? data + (line.offset + row.offset) : data, valid};
    }
};

// The plain matrix of a group from the first column of a tile on.
template <class T>
struct PlainReader {
    const T* data;
    const TileRow* rows;
    int64_t column_stride, columns;

    __device__ __forceinline__ int line(int index) const { return index; }
    __device__ __forceinline__ int64_t row(int index) const { return rows[index].plain; }
    __device__ __forceinline__ Element<T> at(int column, int64_t row) const {
        const bool valid = column < columns && row != kNoRow;
        return {valid ? data + (row + column * column_stride) : data, valid};
    }
};

// All threads of a block copy a tile, neighbours along what is contiguous in memory.
template <class Shape, int Threads, class T, class Reader>
__device__ __forceinline__ void copy_lanes(T* tile, Lanes lanes, const Reader& reader) {
    if (lanes == Lanes::vectors) {
        constexpr int N = widest_vector<T>, across = Shape::lines / N;
#pragma unroll
        for (int i = threadIdx.x; i < Shape::depth * across; i += Threads) {
            const int row = i / across, line = i % across * N;
            const Element<T> element = reader.at(reader.line(line), reader.row(row));
            CopyAsync::vector<N>(tile + row * Shape::pitch + line, element.address, element.valid ? N : 0);
        }
    } else if (lanes == Lanes::lines) {
        const int line = threadIdx.x % Shape::lines;
        const auto from = reader.line(line);
#pragma unroll
        for (int row = threadIdx.x / Shape::lines; row < Shape::depth; row += Threads / Shape::lines) {
            const Element<T> element = reader.at(from, reader.row(row));
            CopyAsync::element(tile + row * Shape::pitch + line, element.address, element.valid);
        }
    } else {
        const int row = threadIdx.x % Shape::depth;
        const auto from = reader.row(row);
#pragma unroll
        for (int line = threadIdx.x / Shape::depth; line < Shape::lines; line += Threads / Shape::depth) {
            const Element<T> element = reader.at(reader.line(line), from);
            CopyAsync::element(tile + row * Shape::pitch + line, element.address, element.valid);
        }
    }
}

// The prologue, by all threads of a block, of a tile of the source that is there. What lies outside stays 0.
template <class Shape, class T>
__device__ __forceinline__ void apply_prologue(T* tile, const TileLine* lines, const TileRow* rows,
                                               const ConvTiles<T>& p, int group) {
    using Source = typename Shape::Source;
    const Extent size = p.geometry.source_size();
    const int line = threadIdx.x % Shape::lines;
#pragma unroll 1
    for (int row = threadIdx.x / Shape::lines; row < Shape::depth; row += Shape::threads / Shape::lines) {
        if (!inside(lines[line].point, rows[row].point, size)) continue;
        T& value = tile[row * Source::pitch + line];
        value = p.prologue.of(static_cast<int64_t>(group) * p.tap_channels + rows[row].channel)(value);
    }
}

// Where in its tile a thread's products lie: neighbours along what is contiguous in the computed tensor.
template <class Shape>
struct ThreadPlace {
    int line, column;

    __device__ explicit ThreadPlace(bool lines_contiguous) {
        const int thread = threadIdx.x;
        line = (lines_contiguous ? thread % Shape::down : thread / Shape::across) * kRun;
        column = (lines_contiguous ? thread / Shape::down : thread % Shape::across) * kRun;
    }
};

// The epilogue of a tile: + bias, + residual, relu, and out.
template <class Shape, bool GradWeight, class T>
__device__ __forceinline__ void write_tile(const ConvTiles<T>& p, const ConvBlock& block, const TileLine* lines,
                                           const ThreadPlace<Shape>& place, const typename Shape::Products& products) {
    using A = accumulator_t<T>;
    const int64_t column_stride = GradWeight ? p.computed_strides.n : p.computed_strides.c;
    T* const computed = p.computed + block.group * p.computed_group;
    auto write = [&](const A(&sums)[kRun], int line, int column, int line_step, int column_step) {
        int64_t at[kRun];
        T values[kRun];
#pragma unroll
        for (int i = 0; i < kRun; ++i) {
            const TileLine& to = lines[line + i * line_step];
            const int64_t c = block.column + column + i * column_step;
            const bool valid = to.computed != kNoLine && c < p.columns;
            at[i] = valid ? to.computed + c * column_stride : -1;
            A value = sums[i];
            if (!GradWeight && valid) {
                const int64_t channel = static_cast<int64_t>(block.group) * p.columns + c;
                if (p.bias) value += to_accumulator(p.bias[channel]);
                if (p.residual) value += to_accumulator(p.residual[to.residual + channel * p.residual_strides.c]);
                if (p.relu && value < 0) value = 0;
            }
            values[i] = from_accumulator<T>(value);
        }
        write_results(computed, at, values);
    };
    constexpr int line_run = Shape::lines / (Shape::line_sums / kRun);
    constexpr int column_run = Shape::columns / (Shape::column_sums / kRun);
    if (p.lines_contiguous) {
#pragma unroll
        for (int i = 0; i < Shape::line_sums; i += kRun)
#pragma unroll
            for (int j = 0; j < Shape::column_sums; ++j) {
                const A sums[kRun] = {products.sums[i][j], products.sums[i + 1][j], products.sums[i + 2][j],
                                      products.sums[i + 3][j]};
                write(sums, place.line + i / kRun * line_run, place.column + j / kRun * column_run + j % kRun, 1, 0);
            }
    } else {
#pragma unroll
        for (int i = 0; i < Shape::line_sums; ++i)
#pragma unroll
            for (int j = 0; j < Shape::column_sums; j += kRun) {
                const A sums[kRun] = {products.sums[i][j], products.sums[i][j + 1], products.sums[i][j + 2],
                                      products.sums[i][j + 3]};
                write(sums, place.line + i / kRun * line_run + i % kRun, place.column + j / kRun * column_run, 0, 1);
            }
    }
}

// Blocks of a multiprocessor, among which its registers are shared.
template <class T, bool GradWeight>
constexpr int kBlocksTogether = sizeof(T) == 4 && !GradWeight ? 3 : 2;

template <class T, class Shape, bool GradWeight>
__global__ void __launch_bounds__(Shape::threads, kBlocksTogether<T, GradWeight>) conv_tile(const ConvTiles<T> p) {
    using Shared = ConvShared<T, Shape>;
    PYCV_SHARED(Shared, shared);
    const auto block =
        ConvBlock::of<Shape::lines, Shape::columns>(p.line_tiles, p.column_tiles, p.geometry.phase_count(), p.groups);
    if (threadIdx.x == 0) shared->gather = p.geometry.phase(block.phase);
    __syncthreads();
    const ConvRoles<T, GradWeight> roles(p, shared->gather);
    find_lines<Shape>(shared->lines, roles, block.line);
    const int64_t first = block.part * p.split_depth;
    const int64_t end = min(first + p.split_depth, roles.depth());
    begin_rows<Shape>(shared, roles, first, end);
    __syncthreads();
    next_rows<Shape>(shared, roles, 0, end - first);

    const T* const source = p.source + block.group * p.source_group;
    const T* const plain = p.plain + block.group * p.plain_group + block.column * p.plain_strides.c;
    auto fetch = [&](int stage) {
        T* to = shared->tiles[stage];
        const TileRow* at = shared->rows[stage];
        copy_lanes<typename Shape::Source, Shape::threads>(
            to, p.source_lanes, SourceReader<T>{source, shared->lines, at, p.geometry.source_size()});
        copy_lanes<typename Shape::Plain, Shape::threads>(
            to + Shape::Source::elements, p.plain_lanes,
            PlainReader<T>{plain, at, p.plain_strides.c, p.plain_columns - block.column});
    };

    const ThreadPlace<Shape> place(p.lines_contiguous);
    typename Shape::Products products;
    __syncthreads();
    if (first < end) fetch(0);
    async_copy_commit();
    next_rows<Shape>(shared, roles, 1, end - first - Shape::depth);
    int stage = 0;
    for (int64_t left = end - first; left > 0; left -= Shape::depth) {
        async_copy_wait<0>();
        __syncthreads();  // this pair and the next rows are there, and nobody reads the pair before any more
        if constexpr (!GradWeight) {
            if (p.prologue.any()) {
                apply_prologue<Shape>(shared->tiles[stage], shared->lines, shared->rows[stage], p, block.group);
                __syncthreads();
            }
        }
        if (left > Shape::depth) fetch(stage ^ 1);
        async_copy_commit();
        next_rows<Shape>(shared, roles, stage, left - 2 * Shape::depth);
        const T* from = shared->tiles[stage];
        products.template add<typename Shape::Source, typename Shape::Plain>(from, from + Shape::Source::elements,
                                                                             place.line, place.column);
        stage ^= 1;
    }
    if (p.splits == 1) {
        write_tile<Shape, GradWeight>(p, block, shared->lines, place, products);
        return;
    }
    accumulator_t<T>* sums = p.sums + static_cast<int64_t>(blockIdx.x) * Shape::sums * Shape::threads + threadIdx.x;
#pragma unroll
    for (int i = 0; i < Shape::sums; ++i)
        sums[i * Shape::threads] = products.sums[i / Shape::column_sums][i % Shape::column_sums];
}

// Adds up the sums that the splits of a tile have left, and writes it.
template <class T, class Shape, bool GradWeight>
__global__ void __launch_bounds__(Shape::threads) conv_add_splits(const ConvTiles<T> p) {
    using Shared = ConvShared<T, Shape>;
    PYCV_SHARED(Shared, shared);
    const auto block =
        ConvBlock::of<Shape::lines, Shape::columns>(p.line_tiles, p.column_tiles, p.geometry.phase_count(), p.groups);
    if (threadIdx.x == 0) shared->gather = p.geometry.phase(block.phase);
    __syncthreads();
    find_lines<Shape>(shared->lines, ConvRoles<T, GradWeight>(p, shared->gather), block.line);
    typename Shape::Products products;
    const accumulator_t<T>* sums =
        p.sums + static_cast<int64_t>(blockIdx.x) * Shape::sums * Shape::threads + threadIdx.x;
    for (int64_t split = 0; split < p.splits; ++split, sums += p.tiles() * Shape::sums * Shape::threads) {
#pragma unroll
        for (int i = 0; i < Shape::sums; ++i)
            products.sums[i / Shape::column_sums][i % Shape::column_sums] += sums[i * Shape::threads];
    }
    __syncthreads();
    write_tile<Shape, GradWeight>(p, block, shared->lines, ThreadPlace<Shape>(p.lines_contiguous), products);
}

template <bool GradWeight, class T>
void launch_tiles(const ConvTiles<T>& p, Stream stream) {
    const auto tiles = static_cast<unsigned>(p.tiles()), splits = static_cast<unsigned>(p.splits);
    with_shape<T>(p.columns, [&](auto shape) {
        using Shape = decltype(shape);
        constexpr std::size_t bytes = sizeof(ConvShared<T, Shape>);
        launch(conv_tile<T, Shape, GradWeight>, dim3(tiles * splits), Shape::threads, bytes, stream, p);
        if (splits > 1) launch(conv_add_splits<T, Shape, GradWeight>, dim3(tiles), Shape::threads, bytes, stream, p);
    });
}

}  // namespace pycv::cuda
