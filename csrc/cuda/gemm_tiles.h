// Tiles of a and b in shared memory, for the steps of the GEMM ladder that read them as vectors, and the registers of a
// thread that they are multiplied from.
//
// A tile holds some lines (rows of a, columns of b) and some depth along k: tile[k][line], whatever the strides in
// global memory, so that a thread reads neighbouring lines as vectors. What lies beyond the matrix is zero.
#pragma once

#include "device/async_copy.h"
#include "gemm.h"

namespace pycv::cuda {

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

// One operand, as a kernel gets it whose `Threads` threads copy tiles of this shape together. The strides by which a
// thread moves are made by the host: a kernel then reads them where it needs them, and keeps them in no register.
template <class Shape, int Threads, class T>
struct TileSource {
    const T* data;
    int64_t batch_stride, line_stride, k_stride;
    int64_t lines;
    // What neighbouring threads copy: 16 bytes of neighbouring lines, or single elements along k or along the lines.
    bool vectors, along_k;
    int64_t step;     // from one copy of a thread to its next
    int64_t advance;  // from tile to tile

    static constexpr int N = widest_vector<T>;
    static constexpr int vectors_across = Shape::lines / N;
    static constexpr int vector_k_step = Threads / vectors_across;
    static constexpr int copies = Shape::lines * Shape::depth / Threads;  // of single elements
    static_assert(Threads % vectors_across == 0 && Threads % Shape::lines == 0 && Threads % Shape::depth == 0);
    // Of single elements:
    static constexpr int k_step = Threads / Shape::lines, line_step = Threads / Shape::depth;

    TileSource(const T* data, int64_t batch_stride, int64_t line_stride, int64_t k_stride, int64_t lines)
        : data(data), batch_stride(batch_stride), line_stride(line_stride), k_stride(k_stride), lines(lines) {
        vectors = line_stride == 1 && k_stride % N == 0 && batch_stride % N == 0 && all_aligned(16, data);
        along_k = k_stride == 1 && !vectors;
        step = vectors ? vector_k_step * k_stride : along_k ? line_step * line_stride : k_step * k_stride;
        advance = Shape::depth * k_stride;
    }
};

template <class Shape, int Threads, class T>
TileSource<Shape, Threads, T> source_a(const Gemm<T>& g) {
    return {g.a.data, g.a.strides.batch, g.a.strides.row, g.a.strides.column, g.m};
}
template <class Shape, int Threads, class T>
TileSource<Shape, Threads, T> source_b(const Gemm<T>& g) {
    return {g.b.data, g.b.strides.batch, g.b.strides.column, g.b.strides.row, g.n};
}

__device__ __forceinline__ int clamped(int64_t value, int largest) {
    return value < largest ? static_cast<int>(value) : largest;
}

// A thread's share in copying one tile after the other along k.
template <class Shape, int Threads, class T>
class TileCopier {
    using Source = TileSource<Shape, Threads, T>;

public:
    __device__ TileCopier(const Source& source, int64_t batch, int64_t first_line, int64_t first_k) : source_(source) {
        const int thread = threadIdx.x;
        int line;
        if (source.vectors) {
            k_ = thread / Source::vectors_across;
            line = thread % Source::vectors_across * Source::N;
        } else {
            k_ = source.along_k ? thread % Shape::depth : thread / Shape::lines;
            line = source.along_k ? thread / Shape::depth : thread % Shape::lines;
        }
        from_ = source.data + batch * source.batch_stride + (first_line + line) * source.line_stride +
                (first_k + k_) * source.k_stride;
        offset_ = k_ * Shape::pitch + line;
        lines_left_ = clamped(source.lines - first_line, Shape::lines) - line;
    }

    // Copies the next tile, of which `depth` lies within the matrix.
    template <class Copy>
    __device__ __forceinline__ void copy(T* tile, int depth) {
        const T* from = from_;
        tile += offset_;
        if (source_.vectors) {
            const int within = lines_left_ > Source::N ? Source::N : lines_left_ > 0 ? lines_left_ : 0;
#pragma unroll
            for (int k = 0; k < Shape::depth; k += Source::vector_k_step) {
                if (Source::vector_k_step > Shape::depth && k_ >= Shape::depth) break;
                Copy::template vector<Source::N>(tile, from, k + k_ < depth ? within : 0);
                from += source_.step;
                tile += Source::vector_k_step * Shape::pitch;
            }
        } else if (source_.along_k) {
#pragma unroll 2
            for (int i = 0; i < Source::copies; ++i) {
                Copy::element(tile, from, k_ < depth && i * Source::line_step < lines_left_);
                from += source_.step;
                tile += Source::line_step;
            }
        } else {
#pragma unroll 2
            for (int i = 0; i < Source::copies; ++i) {
                Copy::element(tile, from, k_ + i * Source::k_step < depth && lines_left_ > 0);
                from += source_.step;
                tile += Source::k_step * Shape::pitch;
            }
        }
        from_ += source_.advance;
    }

private:
    const Source& source_;
    const T* from_;
    int offset_, k_, lines_left_;
};

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
    T* out = g.out_at(batch, row, column);
    if (vectors && column + kRun <= g.n) {
#pragma unroll
        for (int i = 0; i < kRun; i += N) {
            Vector<T, N> values;
#pragma unroll
            for (int j = 0; j < N; ++j) values[j] = g.epilogue(run[i + j], batch, row, column + i + j);
            store_vector(out + i, values);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i)
        if (column + i < g.n) out[i * g.out_strides.column] = g.epilogue(run[i], batch, row, column + i);
}

// Writes four results at these offsets (negative: nowhere), as vectors where they lie side by side.
template <class T>
__device__ __forceinline__ void write_results(T* computed, const int64_t (&at)[kRun], const T (&values)[kRun]) {
    constexpr int N = kRunVector<T>;
    const bool neighbours = at[0] >= 0 && at[1] == at[0] + 1 && at[2] == at[0] + 2 && at[3] == at[0] + 3;
    if (neighbours && reinterpret_cast<uintptr_t>(computed + at[0]) % (N * sizeof(T)) == 0) {
#pragma unroll
        for (int i = 0; i < kRun; i += N) {
            Vector<T, N> vector;
#pragma unroll
            for (int j = 0; j < N; ++j) vector[j] = values[i + j];
            store_vector(computed + at[0] + i, vector);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i)
        if (at[i] >= 0) computed[at[i]] = values[i];
}

// The products of a thread: Rows x Columns runs of 4 x 4, runs RowStep and ColumnStep lines apart, so that the vectors
// that neighbouring threads read lie side by side.
template <class T, int Rows, int Columns, int RowStep, int ColumnStep>
struct ThreadProducts {
    using A = accumulator_t<T>;
    A sums[Rows * kRun][Columns * kRun] = {};

    template <class TileA, class TileB>
    __device__ __forceinline__ void add(const T* a_tile, const T* b_tile, int first_row, int first_column) {
#pragma unroll 2  // more of it at a time would keep more vectors in registers than there are
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
