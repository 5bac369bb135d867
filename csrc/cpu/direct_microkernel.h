// The register tile of direct convolution: a rectangle of positions times up to two vectors of lanes,
//
//     sums[r][i] = initial[r][i] + sum over steps s of source[offset[s] + r * source_row + i] * lanes[s]
//
// For forward and grad_input the rectangle is of output positions, the steps are channels and taps, and the lanes are
// the weights of one block of output channels; for grad_weight it is of taps, the steps are positions, and the lanes
// the output gradients of a block of channels. Each step loads two vectors and broadcasts one element per position:
// up to 2 * kTileHeight multiply-adds for kTileHeight + 2 loads (gemm_microkernel.h), with nothing packed but a padded
// copy of the source (direct_tile.h) in which neighbouring positions are neighbours in memory. The places of the
// sums are asked for first, so that they arrive while the sums are made; a result larger than the caches is written
// past them.
#pragma once

#include "gemm_microkernel.h"

namespace pycv::cpu::PYCV_ISA {

// The sums of a rectangle in memory: from one row, position and vector to the next, in elements.
template <class E>
struct TileSums {
    E* data;
    int64_t row, position, vector;
    bool streamed = false;  // past the caches: whole vectors at aligned addresses

    TileSums at(int64_t r, int64_t i) const {
        return {data ? data + r * row + i * position : nullptr, row, position, vector, streamed};
    }
};

// What is read: kTileWidth lanes per step.
template <class T>
struct TileTerms {
    const T* source;
    int64_t source_row;
    const int32_t* offset;
    int64_t steps;
    const T* lanes;

    TileTerms at(int64_t r, int64_t i) const { return {source + r * source_row + i, source_row, offset, steps, lanes}; }
};

// Initial sums are 0 where `initial` is null; it may be where the sums go. `relu` applies to the result.
template <class T>
using DirectMicrokernel = void (*)(const TileTerms<T>& terms, const TileSums<const T>& initial, const TileSums<T>& sums,
                                   bool relu);

// The kernel of a rectangle of rows * width <= kTileHeight positions.
template <class T>
DirectMicrokernel<T> direct_microkernel(int64_t rows, int64_t width, int vectors);

// How a rectangle of rows x width positions is cut into tiles: as wide as possible, evenly, then as high as fits.
struct TileGrid {
    int64_t rows, width;     // of the whole
    int64_t height, across;  // rows of a tile, tiles in a row

    TileGrid(int64_t rows, int64_t width) : rows(rows), width(width) {
        across = (width + kTileHeight - 1) / kTileHeight;
        const int64_t widest = across > 0 ? (width + across - 1) / across : 1;
        height = kTileHeight / widest;
    }
};

// Runs one sum over all tiles of a rectangle.
template <class T>
inline void multiply_rectangle(const TileGrid& grid, int vectors, const TileTerms<T>& terms,
                               const TileSums<const T>& initial, const TileSums<T>& sums, bool relu) {
    for (int64_t row = 0; row < grid.rows; row += grid.height) {
        const int64_t rows = grid.rows - row < grid.height ? grid.rows - row : grid.height;
        for (int64_t i = 0; i < grid.across; ++i) {
            const int64_t begin = grid.width * i / grid.across, end = grid.width * (i + 1) / grid.across;
            direct_microkernel<T>(rows, end - begin, vectors)(terms.at(row, begin), initial.at(row, begin),
                                                              sums.at(row, begin), relu);
        }
    }
}

}  // namespace pycv::cpu::PYCV_ISA
