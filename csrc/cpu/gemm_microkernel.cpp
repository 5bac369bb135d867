// All heights, widths and row formats of the register tile (gemm_microkernel.h), reached through a table.
#include "gemm_microkernel.h"

#include <utility>

namespace pycv::cpu::PYCV_ISA {
namespace {

// The sums of one tile. The compiler keeps them in registers: every loop over them is unrolled.
template <class T, int Vectors, int Height>
using Sums = Vec<T>[Height][Vectors];

// Runs over every vector of a tile, unrolled.
#define PYCV_FOR_TILE(i, j) \
    _Pragma("GCC unroll 16") for (int i = 0; i < Height; ++i) _Pragma("GCC unroll 2") for (int j = 0; j < Vectors; ++j)

// One vector of a row of the tile; of the last one only the columns that exist are touched.
template <class T, int Vectors, bool Part>
inline Vec<T> load_columns(const T* row, int j, int64_t rest) {
    return Part && j + 1 == Vectors ? load_partial<T>(row + j * lanes<T>, rest) : load<T>(row + j * lanes<T>);
}
template <class T, int Vectors, bool Part>
inline void store_columns(T* row, int j, int64_t rest, Vec<T> v) {
    if (Part && j + 1 == Vectors) {
        store_partial<T>(row + j * lanes<T>, v, rest);
    } else {
        store<T>(row + j * lanes<T>, v);
    }
}

template <class T, int Vectors, int Height, bool Part>
[[gnu::always_inline]] inline void finish(Sums<T, Vectors, Height>& sum, const TileTarget<T>& to) {
    const int64_t stride = to.stride, rest = to.columns - (Vectors - 1) * lanes<T>;
    T* const out = to.out;
    if (to.add) PYCV_FOR_TILE(i, j) sum[i][j] += load_columns<T, Vectors, Part>(out + i * stride, j, rest);
    if (const TileEpilogue<T>* const e = to.epilogue) {
        if (e->alpha != T(1)) PYCV_FOR_TILE(i, j) sum[i][j] = sum[i][j] * e->alpha;
        if (e->residual) {
            const T* const residual = e->residual;
            const int64_t residual_stride = e->residual_stride;
            const Vec<T> beta = broadcast<T>(e->beta);
            PYCV_FOR_TILE(i, j)
            sum[i][j] += beta * load_columns<T, Vectors, Part>(residual + i * residual_stride, j, rest);
        }
        if (e->row_bias) PYCV_FOR_TILE(i, j) sum[i][j] += broadcast<T>(e->row_bias[i]);
        if (e->column_bias) {
            Vec<T> bias[Vectors];
            for (int j = 0; j < Vectors; ++j) bias[j] = load_columns<T, Vectors, Part>(e->column_bias, j, rest);
            PYCV_FOR_TILE(i, j) sum[i][j] += bias[j];
        }
        if (e->relu) PYCV_FOR_TILE(i, j) sum[i][j] = relu<T>(sum[i][j]);
    }
    if (!Part && to.streamed) {
        PYCV_FOR_TILE(i, j) store_streaming<T>(out + i * stride + j * lanes<T>, sum[i][j]);
        return;
    }
    PYCV_FOR_TILE(i, j) store_columns<T, Vectors, Part>(out + i * stride, j, rest, sum[i][j]);
}

// How far ahead of a step the operands are that it asks for. In place, steps lie too far apart for the processor to
// guess the next one; packed, they need no asking.
constexpr int64_t prefetch_distance(int64_t stride, int64_t packed) {
    constexpr int64_t kSteps = 16;
    return stride > packed ? kSteps * stride : 0;
}

template <class T, RowFormat Format, int Vectors, int Height>
void multiply(const TileOperands<T>& operands, const TileTarget<T>& to) {
    Sums<T, Vectors, Height> sum = {};
    const T* rows = operands.rows;
    const T* from = operands.lanes;
    const int64_t row_stride = operands.row_stride, lane_stride = operands.lane_stride, depth = operands.depth;
    const T* next = operands.next_rows ? operands.next_rows : rows;
    int64_t next_column = 0;
    const int64_t rows_ahead = prefetch_distance(row_stride, kTileHeight);
    const int64_t lanes_ahead = prefetch_distance(lane_stride, kTileWidth<T>);
    for (int i = 0; i < Height && !to.streamed; ++i)  // they arrive while the sums are made
        for (int j = 0; j < Vectors; ++j) __builtin_prefetch(to.out + i * to.stride + j * lanes<T>, 1);
    for (int64_t k = 0; k < depth; ++k) {
        Vec<T> b[Vectors];
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) {
            b[j] = load<T>(from + j * lanes<T>);
            __builtin_prefetch(from + lanes_ahead + j * lanes<T>);
        }
        if (Format == RowFormat::rows_contiguous) __builtin_prefetch(rows + rows_ahead);
#pragma GCC unroll 16
        for (int i = 0; i < Height; ++i) {
            const Vec<T> a = broadcast<T>(rows[Format == RowFormat::k_contiguous ? i * row_stride : i]);
#pragma GCC unroll 2
            for (int j = 0; j < Vectors; ++j) sum[i][j] += a * b[j];
        }
        if (Format == RowFormat::k_contiguous) {  // a cache line for each step is enough for all of the next rows
            __builtin_prefetch(next + next_column);
            next_column += 64 / static_cast<int64_t>(sizeof(T));
            next += next_column < depth ? 0 : row_stride;
            next_column = next_column < depth ? next_column : 0;
        }
        rows += Format == RowFormat::k_contiguous ? 1 : row_stride;
        from += lane_stride;
    }
    if (to.columns == Vectors * lanes<T>) {
        finish<T, Vectors, Height, false>(sum, to);
    } else {
        finish<T, Vectors, Height, true>(sum, to);
    }
}

template <class T, RowFormat Format, int Vectors, int... Heights>
Microkernel<T> pick(int height, std::integer_sequence<int, Heights...>) {
    static constexpr Microkernel<T> table[] = {multiply<T, Format, Vectors, Heights + 1>...};
    return table[height - 1];
}

}  // namespace

template <class T>
Microkernel<T> microkernel(RowFormat format, int height, int vectors) {
    constexpr auto heights = std::make_integer_sequence<int, kTileHeight>{};
    if (format == RowFormat::k_contiguous) {
        return vectors == 1 ? pick<T, RowFormat::k_contiguous, 1>(height, heights)
                            : pick<T, RowFormat::k_contiguous, 2>(height, heights);
    }
    return vectors == 1 ? pick<T, RowFormat::rows_contiguous, 1>(height, heights)
                        : pick<T, RowFormat::rows_contiguous, 2>(height, heights);
}

template Microkernel<float> microkernel<float>(RowFormat, int, int);
template Microkernel<double> microkernel<double>(RowFormat, int, int);

}  // namespace pycv::cpu::PYCV_ISA
