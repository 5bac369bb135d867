// The register tile of every matrix product here: tile[i][j] = sum over k of rows[i][k] * lanes[k][j].
//
// `height` rows by kTileWidth lanes stay in registers for the whole sum; each step loads two vectors of lanes and
// broadcasts one element per row: 2 * height multiply-adds for 2 + height loads, so that the multiply-add units are
// the bound (AVX-512: 14 x 2 vectors of 32 registers, AVX2: 6 x 2 of 16, 128-bit: 4 x 2, or 8 x 2 with 32 registers).
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

// How the rows of a panel lie: each row's k contiguous, one row every kRowStride elements, or the rows of one k
// side by side. The packer takes whichever is a plain copy.
enum class RowFormat { k_contiguous, rows_contiguous };

// Not a multiple of 4096 bytes, so that the rows of a panel fall into different cache sets.
template <class T>
inline constexpr int64_t kRowStride = kDepth<T> + 64 / static_cast<int64_t>(sizeof(T));

// Writes tile[height][kTileWidth]; where `vectors` is 1, only the first half of each row.
template <class T>
using Microkernel = void (*)(const T* rows, const T* lanes, int64_t depth, T* tile);

template <class T>
Microkernel<T> microkernel(RowFormat format, int height, int vectors);

}  // namespace pycv::cpu::PYCV_ISA
