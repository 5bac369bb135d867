// Planes of a vector of channels <-> the same elements with the channels in the lanes: [position][lane].
//
// Square transpositions in registers (vector_moves.h): for each vector a load, a store and log2(lanes) shuffles,
// between tensors in nchw and scratch in cache.
// Only for kernel files (ISA namespace).
#pragma once

#include "../common/problem.h"
#include "integers.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// Whether the elements of a plane lie one after the other.
inline bool has_dense_planes(const Strides& s, Spatial size) {
    return s.block == 1 && (size.w == 1 || s.w == 1) && (size.h == 1 || s.h == size.w) &&
           (size.d == 1 || s.d == size.h * size.w);
}

// Where the elements of one image lie with `lanes` channels side by side: one block.
inline Strides in_lanes(Spatial size, int64_t lanes) {
    const int64_t row = size.w * lanes, slice = size.h * row;
    return {size.d * slice, size.d * slice, slice, row, lanes, lanes};
}

// `channels` <= lanes planes of `positions` consecutive elements, `stride` apart.
struct PlaneVector {
    int64_t stride, channels, positions;
};

// to[j][i] = from[i][j] for i < rows, j < columns, both <= lanes; the lanes of `to` from `rows` on become 0 where it
// has `width` of them.
template <class T>
inline void transpose_part(const T* from, int64_t from_stride, int64_t rows, int64_t columns, T* to, int64_t to_stride,
                           int64_t width) {
    Vec<T> v[lanes<T>];
    for (int64_t i = 0; i < lanes<T>; ++i)
        v[i] = i < rows ? load_partial<T>(from + i * from_stride, columns) : Vec<T>{};
    shuffles::transpose_step<T, 1>(v);
    for (int64_t j = 0; j < columns; ++j) store_partial<T>(to + j * to_stride, v[j], width);
}

// body(first, count) for pieces of up to lanes<T> positions: the last of several overlaps the one before it.
template <class T, class Body>
inline void for_pieces(int64_t positions, const Body& body) {
    if (positions < lanes<T>) return body(0, positions);
    int64_t i = 0;
    for (; i + lanes<T> <= positions; i += lanes<T>) body(i, lanes<T>);
    if (i < positions) body(positions - lanes<T>, lanes<T>);
}

// to[position * pixel + channel] = from[channel * stride + position]; of the lanes beyond the channels become 0.
template <class T>
inline void planes_to_lanes(const T* from, const PlaneVector& planes, T* to, int64_t pixel = lanes<T>) {
    for_pieces<T>(planes.positions, [&](int64_t first, int64_t count) {
        const T* source = from + first;
        T* target = to + first * pixel;
        if (count == lanes<T> && planes.channels == lanes<T>)
            return transpose_block<T>(source, planes.stride, target, pixel);
        transpose_part<T>(source, planes.stride, planes.channels, count, target, pixel, lanes<T>);
    });
}

// to[channel * stride + position] = from[position * pixel + channel] of the channels that there are; past the caches
// where that is wanted and can be.
template <class T>
inline void lanes_to_planes(const T* from, const PlaneVector& planes, T* to, bool streams, int64_t pixel = lanes<T>) {
    for_pieces<T>(planes.positions, [&](int64_t first, int64_t count) {
        const T* source = from + first * pixel;
        T* target = to + first;
        if (count == lanes<T> && planes.channels == lanes<T>)
            return streams && is_streamable<T>(target, planes.stride)
                       ? transpose_block<T, true>(source, pixel, target, planes.stride)
                       : transpose_block<T>(source, pixel, target, planes.stride);
        transpose_part<T>(source, pixel, count, planes.channels, target, planes.stride, count);
    });
}

}  // namespace pycv::cpu::PYCV_ISA
