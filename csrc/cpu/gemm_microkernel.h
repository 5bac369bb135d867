// The register tile of every matrix product here: tile[i][j] = sum over k of rows[i][k] * lanes[k][j].
//
// `height` rows by `vectors` vectors of lanes stay in registers for the whole sum; each step loads the vectors and
// broadcasts one element per row: 2 * height multiply-adds for 2 + height loads, so that the multiply-add units are
// the bound (AVX-512: 14 x 2 vectors of 32 registers, AVX2: 6 x 2 of 16, 128-bit: 4 x 2, or 8 x 2 with 32 registers).
//
// Both operands are read at any stride, packed or where they lie in a tensor, and the tile goes straight to the output
// where its columns are neighbours there: added to earlier partial sums, or finished with the epilogue.
#pragma once

#include <cstdint>

#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

#if PYCV_VECTOR_BYTES == 64
inline constexpr int kTileHeight = 14;
#elif PYCV_VECTOR_BYTES == 32
inline constexpr int kTileHeight = 6;
#elif defined(__aarch64__)
inline constexpr int kTileHeight = 8;
#else
inline constexpr int kTileHeight = 4;
#endif

template <class T>
inline constexpr int kTileWidth = 2 * lanes<T>;

// The longest sum between two visits of the output: one panel of lanes is then at most 64 KB.
template <class T>
inline constexpr int64_t kDepth = 2048 / static_cast<int64_t>(sizeof(T));

// How the rows of a panel lie: each row's k contiguous, or the rows of one k side by side.
enum class RowFormat { k_contiguous, rows_contiguous };

template <class T>
struct TileOperands {
    const T* rows;
    int64_t row_stride;   // k_contiguous: from row to row; rows_contiguous: from step to step
    const T* lanes;       // whole vectors are read
    int64_t lane_stride;  // from step to step
    int64_t depth;
    const T* next_rows;  // k_contiguous: those of a tile to come, which the caches are asked for; null: none
};

// What happens to a finished sum: v = alpha * sum + beta * residual + bias, then relu. Null pointers: not there.
template <class T>
struct TileEpilogue {
    T alpha, beta;
    const T* residual;
    int64_t residual_stride;  // from row to row; its columns are neighbours
    const T *row_bias, *column_bias;
    bool relu;
};

// `columns` neighbours in each row, the last vector may be a part.
template <class T>
struct TileTarget {
    T* out;
    int64_t stride;  // from row to row
    int64_t columns;
    bool add;                         // to what `out` holds
    const TileEpilogue<T>* epilogue;  // null: more depth blocks follow
    bool streamed = false;            // past the caches: whole vectors at aligned addresses
};

template <class T>
using Microkernel = void (*)(const TileOperands<T>&, const TileTarget<T>&);

template <class T>
Microkernel<T> microkernel(RowFormat format, int height, int vectors);

}  // namespace pycv::cpu::PYCV_ISA
