// The transforms of one tile size as functions over vectors of channels, reached through a table, so that the
// convolution around them is compiled once for all tile sizes.
//
// A "plane" xi is one of the A * A elements of the transformed tile; planes lie `plane` elements apart, and within one
// the tiles' vectors side by side.
#pragma once

#include <cstdint>

#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

// Where an output tile's pixels go: out = max(sum + bias + residual, floor), one vector of channels per pixel.
template <class T>
struct TileOutput {
    T* to;
    int64_t row, pixel;  // strides in elements
    const T* residual;   // null if none
    int64_t residual_row, residual_pixel;
    const T* bias;  // one vector
    T floor;        // 0 for relu, else minus infinity
    bool streamed;  // past the caches: whole vectors at aligned addresses
};

template <class T>
struct TileTransforms {
    // Per side: a tile makes m pixels of window ones, which begin step pixels after its neighbour's, by way of a
    // planes; a filter of r taps has u distinct elements, the last of which is that of all planes from u - 1 on. For
    // F(m x m, r x r) of stride 1, step = m and window = a = u = m + r - 1.
    int m, step, window, r, a, u;
    // `tiles` neighbours along a row, the first of which begins at `from`.
    void (*input)(const T* from, int64_t row, int64_t pixel, int64_t tiles, T* to, int64_t plane);
    // The same of a row of sums, whose vectors lie `step` elements apart within a plane.
    void (*output)(const T* from, int64_t plane, int64_t step, int64_t tiles, const TileOutput<T>& output);
    // grad_weight, which is F(r x r, m x m) with tiles of grad_output for filters: m x m pixels of `tiles` neighbours.
    void (*gradient)(const T* from, int64_t row, int64_t pixel, int64_t tiles, T* to, int64_t plane);
    // ... and its r * r outputs as vectors [tap].
    void (*taps)(const T* from, int64_t plane, T* to);
    // One filter, of vectors [tap], `tap` elements apart (negative: the filter turned by 180 degrees).
    void (*filter)(const T* from, int64_t tap, T* to, int64_t plane);
};

// Null where there is no such tile.
template <class T>
const TileTransforms<T>* tile_transforms(int64_t m, int64_t r);

// 3 x 3 with stride 2, m = 2 or 4; for forward and grad_weight, or for grad_input.
template <class T>
const TileTransforms<T>* split_transforms(int64_t m, bool grad_input);

}  // namespace pycv::cpu::PYCV_ISA
