// Winograd's tiles on the GPU: which pixels they cover, where their transforms lie, and the transform of one tile.
//
// A tensor's tiles are transformed into planes, one for each of the A * A elements of a transformed tile; a plane holds
// that element of every tile and channel of a group, either the tiles of a channel side by side (for nchw, whose
// neighbouring threads read neighbouring tiles) or the channels of a tile (for nhwc). The matrices and their points are
// those of common/winograd_matrices.h. What is stored in 16 bits is transformed and multiplied in fp32.
#pragma once

#include <algorithm>

#include "../common/winograd_transform.h"
#include "batched_product.h"
#include "device/half.h"
#include "integers.h"

namespace pycv::cuda::winograd {

using namespace pycv::winograd;

inline constexpr int kTaps = 3;  // of a filter, per axis
inline constexpr int kThreads = 128;

// Images in tiles of M x M results. Tiles are numbered along the rows, image by image.
struct TileGrid {
    int64_t images, rows, columns;

    TileGrid(int64_t n, int64_t height, int64_t width, int64_t m)
        : images(n), rows(ceil_div(height, m)), columns(ceil_div(width, m)) {}
    int64_t count() const { return images * rows * columns; }
};

// Some neighbours among the tiles of all images. Within them, 32 bits suffice.
struct TileRange {
    int64_t image;    // of the first tile
    unsigned offset;  // of the first tile in its image
    unsigned count;
    unsigned rows, columns;  // per image

    TileRange(const TileGrid& grid, int64_t begin, int64_t end)
        : image(begin / (grid.rows * grid.columns)),
          offset(static_cast<unsigned>(begin % (grid.rows * grid.columns))),
          count(static_cast<unsigned>(end - begin)),
          rows(static_cast<unsigned>(grid.rows)),
          columns(static_cast<unsigned>(grid.columns)) {}
};

struct TilePlace {
    int64_t n, row, column;
};

__device__ __forceinline__ TilePlace place_of(const TileRange& range, unsigned tile) {
    const unsigned index = range.offset + tile, in_image = index % (range.rows * range.columns);
    return {range.image + index / (range.rows * range.columns), in_image / range.columns, in_image % range.columns};
}

// Where the tensor's tiles begin: tile (0, 0) at pixel (top, left), which padding makes negative.
struct TiledImage {
    Strides strides;
    int64_t height, width, top, left;
};

// The planes of all groups: `count` of each group, one after the other, of `channels` (per group) by `tiles`.
struct Planes {
    int64_t groups, count, channels, tiles;
    bool channels_along;         // channels lie side by side, not tiles
    int64_t line, plane, group;  // elements from one to the next

    Planes(int64_t groups, int64_t count, int64_t channels, int64_t tiles, bool channels_along)
        : groups(groups), count(count), channels(channels), tiles(tiles), channels_along(channels_along) {
        line = line_elements(channels_along ? channels : tiles);
        plane = line * (channels_along ? tiles : channels);
        group = plane * count;
    }
    int64_t all_channels() const { return groups * channels; }
    int64_t elements() const { return groups * group; }

    // Of the first plane, for the channels of all groups.
    __device__ __forceinline__ int64_t at(unsigned channel, unsigned tile) const {
        const unsigned in_group = channel % static_cast<unsigned>(channels);
        const int64_t base = channel / static_cast<unsigned>(channels) * group;
        return base + (channels_along ? tile * line + in_group : in_group * line + tile);
    }
};

// Whether neighbouring threads should take neighbouring channels of a tensor, rather than tiles.
inline bool channels_along(const Strides& s, int64_t channels) { return s.c == 1 && (s.w != 1 || channels > 1); }

// out = M in transpose(M) for a matrix with the points in its rows (B transposed, G).
template <class M, class A, int N = M::value.kColumns, int K = M::value.kRows>
__device__ __forceinline__ void transform_rows(const A (&in)[N][N], A (&out)[K][K]) {
    A half[N][K];  // [column][transformed row]
#pragma unroll
    for (int j = 0; j < N; ++j) {
        A column[N];
#pragma unroll
        for (int i = 0; i < N; ++i) column[i] = in[i][j];
        multiply_points_in_rows<M, A>(column, half[j]);
    }
#pragma unroll
    for (int i = 0; i < K; ++i) {
        A line[N];
#pragma unroll
        for (int j = 0; j < N; ++j) line[j] = half[j][i];
        multiply_points_in_rows<M, A>(line, out[i]);
    }
}

// The same for a matrix with the points in its columns (A transposed), of what read(row, column) returns.
template <class M, class A, int N = M::value.kColumns, int K = M::value.kRows, class Read>
__device__ __forceinline__ void transform_columns(const Read& read, A (&out)[K][K]) {
    A half[N][K];
#pragma unroll
    for (int j = 0; j < N; ++j) {
        A column[N];
#pragma unroll
        for (int i = 0; i < N; ++i) column[i] = read(i, j);
        multiply_points_in_columns<M, A>(column, half[j]);
    }
#pragma unroll
    for (int i = 0; i < K; ++i) {
        A line[N];
#pragma unroll
        for (int j = 0; j < N; ++j) line[j] = half[j][i];
        multiply_points_in_columns<M, A>(line, out[i]);
    }
}

// A thread's tile and channel among all of them, the one that lies side by side running fastest.
struct ThreadWork {
    unsigned tile, channel;
    bool inside;
};

__device__ __forceinline__ ThreadWork work_of_thread(unsigned tiles, const Planes& planes) {
    const unsigned channels = static_cast<unsigned>(planes.groups * planes.channels);
    const unsigned index = blockIdx.x * kThreads + threadIdx.x, along = planes.channels_along ? channels : tiles;
    const unsigned across = index / along, rest = index - across * along;
    if (planes.channels_along) return {across, rest, across < tiles};
    return {rest, across, across < channels};
}

inline dim3 grid_of(int64_t threads) { return dim3(static_cast<unsigned>(ceil_div<int64_t>(threads, kThreads))); }

// Transforms the tiles of `step` x `step` results' worth of pixels, each N x N pixels large for N columns of Matrix;
// what lies beyond the image is zero. One thread per tile and channel: N * N elements read, of which neighbours share
// some through L1, and K * K written.
template <class T, class Matrix>
__global__ void __launch_bounds__(kThreads)
    transform_tiles(TiledImage image, TileRange range, Planes planes, int step, const T* from, accumulator_t<T>* to) {
    using A = accumulator_t<T>;
    constexpr int N = Matrix::value.kColumns, K = Matrix::value.kRows;
    const auto work = work_of_thread(range.count, planes);
    if (!work.inside) return;
    const TilePlace place = place_of(range, work.tile);
    const int64_t top = place.row * step + image.top, left = place.column * step + image.left;
    const T* const base = from + place.n * image.strides.n + work.channel * image.strides.c;
    A in[N][N], out[K][K];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const bool row_inside = top + i >= 0 && top + i < image.height;
        const T* const row = base + (top + i) * image.strides.h + left * image.strides.w;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const bool inside = row_inside && left + j >= 0 && left + j < image.width;
            in[i][j] = inside ? to_accumulator(row[j * image.strides.w]) : A(0);
        }
    }
    transform_rows<Matrix>(in, out);
    A* const at = to + planes.at(work.channel, work.tile);
#pragma unroll
    for (int i = 0; i < K; ++i)
#pragma unroll
        for (int j = 0; j < K; ++j) at[(i * K + j) * planes.plane] = out[i][j];
}

template <class T, class Matrix>
void launch_transform(const TiledImage& image, const TileRange& range, const Planes& planes, int step, const void* from,
                      void* to, Stream stream) {
    const int64_t threads = range.count * planes.all_channels();
    if (threads == 0) return;
    launch(transform_tiles<T, Matrix>, grid_of(threads), dim3(kThreads), 0, stream, image, range, planes, step,
           static_cast<const T*>(from), static_cast<accumulator_t<T>*>(to));
}

// Tiles at a time, for `limit` bytes at `per_tile` bytes each: equal shares of all, whole lines but for the last, and
// few enough for 32-bit counts of threads.
inline int64_t tiles_at_a_time(int64_t tiles, int64_t channels, int64_t per_tile, int64_t limit) {
    constexpr int64_t kMostThreads = int64_t{1} << 30;
    const int64_t fitting =
        std::min(limit / std::max<int64_t>(1, per_tile), kMostThreads / std::max<int64_t>(1, channels));
    const int64_t most = std::max<int64_t>(kLineElements, fitting / kLineElements * kLineElements);
    const int64_t parts = std::max<int64_t>(1, ceil_div(tiles, most));
    return std::min(most, line_elements(ceil_div(tiles, parts)));
}

}  // namespace pycv::cuda::winograd
