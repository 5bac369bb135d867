// The register tile of Winograd's products: sums[tile][k] = sum over c of tiles[c][tile] * weight[c][k] for one plane.
//
// The transformed input is read as the transforms write it: vectors of `lanes` channels, one per tile, and the next
// channels `block` elements further; the weight as rows of kTileWidth output channels. `height` tiles by one or two
// vectors of channels stay in registers for the whole sum, as in gemm_microkernel.h. The weight is the one operand that
// comes from far: while a row of it is used, the one `ahead` elements further is asked for.
#pragma once

#include "gemm_microkernel.h"

namespace pycv::cpu::PYCV_ISA {

// Writes sums[height][kTileWidth], or adds to them; where `vectors` is 1, only the first half of each row.
template <class T>
using PlaneProduct = void (*)(const T* tiles, int64_t block, const T* weight, int64_t ahead, int64_t depth, bool add,
                              T* sums);

// 0 < height <= kTileHeight
template <class T>
PlaneProduct<T> plane_product(int height, int vectors);

// The register tile of grad_weight: sums[k][c] (+)= sum over tiles of gradients[tile][k] * tiles[tile][c] for one
// plane, kGradientRows channels k of one vector by one or two vectors of channels c, the second `block` elements
// further.
template <class T>
inline constexpr int kGradientRows = lanes<T> > 8             ? 8
                                     : lanes<T> > kTileHeight ? lanes<T> / 2
                                                              : lanes<T>;

template <class T>
using TileSum = void (*)(const T* gradients, const T* tiles, int64_t block, int64_t count, bool add, T* sums);

template <class T>
TileSum<T> tile_sum(int vectors);

}  // namespace pycv::cpu::PYCV_ISA
