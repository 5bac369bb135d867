// Tiles of a and b in shared memory, for the steps of the GEMM ladder that read them as vectors, and the registers of a
// thread that they are multiplied from.
//
// A tile holds some lines (rows of a, columns of b) and some depth along k: tile[k][line], whatever the strides in
// global memory, so that a thread reads neighbouring lines as vectors. What lies beyond the matrix is zero.
#pragma once

#include "device/async_copy.h"
#include "gemm.h"

namespace pycv::cuda {

// One operand as tiles see it.
template <class T>
struct Side {
    const T* data;
    int64_t batch_stride, line_stride, k_stride;
    int64_t lines;
    // What neighbouring threads copy: 16 bytes of neighbouring lines, or single elements along k or along the lines.
    bool vectors, along_k;
};

template <class T>
Side<T> side_of(const T* data, int64_t batch_stride, int64_t line_stride, int64_t k_stride, int64_t lines) {
    constexpr int N = widest_vector<T>;
    const bool vectors = line_stride == 1 && k_stride % N == 0 && batch_stride % N == 0 && all_aligned(16, data);
    return {data, batch_stride, line_stride, k_stride, lines, vectors, k_stride == 1 && line_stride != 1};
}

template <class T>
Side<T> side_a(const Gemm<T>& g) {
    return side_of(g.a.data, g.a.strides.batch, g.a.strides.row, g.a.strides.column, g.m);
}
template <class T>
Side<T> side_b(const Gemm<T>& g) {
    return side_of(g.b.data, g.b.strides.batch, g.b.strides.column, g.b.strides.row, g.n);
}

// Copies through registers, done when they return.
struct CopyNow {
    template <int N, class T>
    static __device__ void vector(T* shared, const T* global, int valid) {
        if (valid == N) {
            store_vector(shared, load_vector<N>(global));
            return;
        }
#pragma unroll
        for (int i = 0; i < N; ++i) shared[i] = i < valid ? global[i] : from_accumulator<T>(0);
    }
    template <class T>
    static __device__ void element(T* shared, const T* global, bool valid) {
        *shared = valid ? *global : from_accumulator<T>(0);
    }
};

// Asynchronous copies where the hardware has them: not of 2 bytes.
struct CopyAsync {
    template <int N, class T>
    static __device__ void vector(T* shared, const T* global, int valid) {
        async_copy<N>(shared, global, valid);
    }
    template <class T>
    static __device__ void element(T* shared, const T* global, bool valid) {
        if constexpr (sizeof(T) >= 4)
            async_copy<1>(shared, global, valid ? 1 : 0);
        else
            CopyNow::element(shared, global, valid);
    }
};

// The shape of a tile in shared memory. Lines are padded so that neighbours along k lie in other banks.
template <class T, int Lines, int Depth>
struct Tile {
    static constexpr int lines = Lines, depth = Depth;
    static constexpr int pitch = Lines + widest_vector<T>;
    static constexpr int elements = Depth * pitch;
};

// All threads of a block copy the tile at (first_line, first_k); k ends before end_k.
template <class Copy, class Shape, int Threads, class T>
__device__ __forceinline__ void copy_tile(T* tile, const Side<T>& side, int64_t batch, int64_t first_line,
                                          int64_t first_k, int64_t end_k) {
    const T* from = side.data + batch * side.batch_stride + first_line * side.line_stride + first_k * side.k_stride;
    const int64_t lines = side.lines - first_line, depth = end_k - first_k;
    if (side.vectors) {
        constexpr int N = widest_vector<T>;
        constexpr int across = Shape::lines / N;
#pragma unroll
        for (int i = threadIdx.x; i < Shape::depth * across; i += Threads) {
            const int k = i / across, line = i % across * N;
            const int64_t left = k < depth ? lines - line : 0;
            const int valid = left >= N ? N : left > 0 ? static_cast<int>(left) : 0;
            Copy::template vector<N>(tile + k * Shape::pitch + line, from + k * side.k_stride + line, valid);
        }
        return;
    }
#pragma unroll 4
    for (int i = threadIdx.x; i < Shape::depth * Shape::lines; i += Threads) {
        const int k = side.along_k ? i % Shape::depth : i / Shape::lines;
        const int line = side.along_k ? i / Shape::depth : i % Shape::lines;
        Copy::element(tile + k * Shape::pitch + line, from + k * side.k_stride + line * side.line_stride,
                      k < depth && line < lines);
    }
}

// Lines that a thread computes come in runs of 4, read and written as vectors.
constexpr int kRun = 4;

template <class T>
constexpr int kRunVector = widest_vector<T> < kRun ? widest_vector<T> : kRun;

template <class T>
__device__ __forceinline__ void load_run(accumulator_t<T>* run, const T* shared) {
    constexpr int N = kRunVector<T>;
#pragma unroll
    for (int i = 0; i < kRun; i += N) {
        const Vector<T, N> values = load_vector<N>(shared + i);
#pragma unroll
        for (int j = 0; j < N; ++j) run[i + j] = to_accumulator(values[j]);
    }
}

// Whether runs of columns of the result can be written as vectors.
template <class T>
bool writes_vectors(const Gemm<T>& g) {
    constexpr int N = kRunVector<T>;
    return g.out_strides.column == 1 && g.out_strides.row % N == 0 && g.out_strides.batch % N == 0 &&
           all_aligned(N * sizeof(T), g.out);
}

template <class T>
__device__ __forceinline__ void write_run(const Gemm<T>& g, bool vectors, const accumulator_t<T>* run, int64_t batch,
                                          int64_t row, int64_t column) {
    constexpr int N = kRunVector<T>;
    if (vectors && column + kRun <= g.n) {
#pragma unroll
        for (int i = 0; i < kRun; i += N) {
            Vector<T, N> values;
#pragma unroll
            for (int j = 0; j < N; ++j) values[j] = g.epilogue(run[i + j], batch, row, column + i + j);
            store_vector(g.out_at(batch, row, column + i), values);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i)
        if (column + i < g.n) g.write(run[i], batch, row, column + i);
}

// The products of a thread: Rows x Columns runs of 4 x 4, runs RowStep and ColumnStep lines apart, so that the vectors
// that neighbouring threads read lie side by side.
template <class T, int Rows, int Columns, int RowStep, int ColumnStep>
struct ThreadProducts {
    using A = accumulator_t<T>;
    A sums[Rows * kRun][Columns * kRun] = {};

    template <class TileA, class TileB>
    __device__ __forceinline__ void add(const T* a_tile, const T* b_tile, int first_row, int first_column) {
#pragma unroll
        for (int k = 0; k < TileA::depth; ++k) {
            A a[Rows * kRun], b[Columns * kRun];
#pragma unroll
            for (int r = 0; r < Rows; ++r)
                load_run<T>(a + r * kRun, a_tile + k * TileA::pitch + first_row + r * RowStep);
#pragma unroll
            for (int c = 0; c < Columns; ++c)
                load_run<T>(b + c * kRun, b_tile + k * TileB::pitch + first_column + c * ColumnStep);
#pragma unroll
            for (int i = 0; i < Rows * kRun; ++i)
#pragma unroll
                for (int j = 0; j < Columns * kRun; ++j) sums[i][j] += a[i] * b[j];
        }
    }

    // write(run, row, column) for every run of 4 columns; (row, column) within the tile.
    template <class Write>
    __device__ __forceinline__ void for_each_run(int first_row, int first_column, Write write) const {
#pragma unroll
        for (int i = 0; i < Rows * kRun; ++i)
#pragma unroll
            for (int c = 0; c < Columns; ++c)
                write(sums[i] + c * kRun, first_row + i / kRun * RowStep + i % kRun, first_column + c * ColumnStep);
    }
};

}  // namespace pycv::cuda
