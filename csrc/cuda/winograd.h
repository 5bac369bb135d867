// Winograd's tiles on the GPU: one thread transforms a tile of one channel in registers.
//
// In nchw neighbouring threads take neighbouring tiles, and the planes have these side by side; in nhwc neighbouring
// channels. The matrices and their points are those of common/winograd_matrices.h. What is stored in 16 bits is
// transformed and multiplied in fp32.
#pragma once

#include "../common/winograd_transform.h"
#include "device/half.h"
#include "tile_planes.h"

namespace pycv::cuda::winograd {

using namespace pycv::winograd;

inline constexpr int kTaps = 3;  // of a filter, per axis
inline constexpr int kThreads = 128;

// Tiles of m x m results.
inline TileGrid tile_grid(int64_t images, const Spatial& size, int64_t m) {
    return {images, ceil_div(size.h, m), ceil_div(size.w, m)};
}

// Where the tensor's tiles begin: tile (0, 0) at pixel (top, left), which padding makes negative.
struct TiledImage {
    Strides strides;
    int64_t height, width, top, left;
};

// The source of results of `size`, whose last tiles may reach beyond what these depend on: it ends there.
inline TiledImage source_image(const Strides& strides, const Spatial& source, const Spatial& size, int64_t top,
                               int64_t left) {
    return {strides, std::min(source.h, top + size.h + kTaps - 1), std::min(source.w, left + size.w + kTaps - 1), top,
            left};
}

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

}  // namespace pycv::cuda::winograd
