// Panels: how the two operands of a matrix product are cut and packed for the register tile.
//
// A product sums rows[i][k] * lanes[k][j] over k, the depth. Each operand is cut along its own index into panels of the
// tile's height or width, and along the depth into blocks; one panel of one depth block is contiguous in memory and
// in the order in which the microkernel reads it.
//
// An operand is anything with
//     bool k_contiguous() const               whether its memory runs along the depth (else along its index)
//     void copy(T* to, int64_t to_stride, Range x, Range y) const
// where copy writes the elements of the slow axis x and the fast axis y as rows of contiguous elements. A plain
// matrix, a convolution weight, and the im2col matrix that is never materialised are such operands.
#pragma once

#include "gemm_tile.h"
#include "integers.h"
#include "parallel.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// The depth in blocks of equal length (the last may be shorter). A depth of 0 is one block of 0.
struct Depth {
    int64_t size, block;

    int64_t blocks() const { return size > 0 ? divide_up(size, block) : 1; }
    Range range(int64_t index) const { return {index * block, smaller(size, (index + 1) * block)}; }
};

template <class T>
Depth depth_in_blocks(int64_t size) {
    const int64_t blocks = larger(1, divide_up(size, kDepth<T>));
    return {size, larger(1, divide_up(size, blocks))};
}

// A panel as the tile reads it (gemm_tile.h: row_stride or lane_stride), packed or in place.
template <class T>
struct PanelView {
    const T* data;
    int64_t stride;
};

// One operand's index range in panels. Rows are cut evenly (64 rows: 5 panels of 13), lanes into full tile widths.
template <class T>
struct Side {
    bool is_lanes;
    RowFormat format;  // of rows
    int64_t size;
    int64_t width;           // rows or lanes of a panel
    int64_t stride;          // of a packed panel: see PanelView
    int64_t panel_elements;  // of a packed panel

    int64_t panels() const { return divide_up(size, width); }
    Range range(int64_t panel) const { return {panel * width, smaller(size, (panel + 1) * width)}; }
};

template <class T>
Side<T> lanes_side(int64_t size, const Depth& depth) {
    return {true, RowFormat::rows_contiguous, size, kTileWidth<T>, kTileWidth<T>, kTileWidth<T> * depth.block};
}

template <class T>
Side<T> rows_side(int64_t size, bool k_contiguous, const Depth& depth) {
    const int64_t width = size > 0 ? divide_up(size, divide_up(size, kTileHeight)) : 1;
    if (!k_contiguous) return {false, RowFormat::rows_contiguous, size, width, width, width * depth.block};
    // An odd number of cache lines, so that the rows of a panel fall into different cache sets.
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t stride = (divide_up(depth.block, kLine) | 1) * kLine;
    return {false, RowFormat::k_contiguous, size, width, stride, width * stride};
}

// Depth steps that are transposed, or copied per row, at a time: short enough to stay in the L1 cache and, where the
// rows lie far apart, in the TLB.
inline constexpr int64_t kPackChunk = 128;

template <class T>
inline constexpr int64_t kScratchStride = kPackChunk + 64 / static_cast<int64_t>(sizeof(T));
template <class T>
inline constexpr int64_t kScratchElements = lanes<T> * kScratchStride<T>;

// lanes<T> columns of a lane panel from an operand that runs along the depth, through a transposition.
template <class T, class Operand>
void pack_transposed(const Operand& operand, Range index, Range depth, T* to, T* scratch) {
    const int64_t count = index.end - index.begin;
    for (int64_t k = depth.begin; k < depth.end; k += kPackChunk) {
        const Range chunk{k, smaller(depth.end, k + kPackChunk)};
        const int64_t length = chunk.end - chunk.begin;
        operand.copy(scratch, kScratchStride<T>, index, chunk);
        for (int64_t i = count; i < lanes<T>; ++i) zero_run(scratch + i * kScratchStride<T>, length);
        int64_t j = 0;
        for (; j + lanes<T> <= length; j += lanes<T>)
            transpose_block<T>(scratch + j, kScratchStride<T>, to + j * kTileWidth<T>, kTileWidth<T>);
        for (; j < length; ++j)
            for (int i = 0; i < lanes<T>; ++i) to[j * kTileWidth<T> + i] = scratch[i * kScratchStride<T> + j];
        to += length * kTileWidth<T>;
    }
}

template <class T, class Operand>
void pack_lanes(const Operand& operand, Range index, Range depth, T* to, T* scratch) {
    const int64_t count = index.end - index.begin;
    if (!operand.k_contiguous()) {
        operand.copy(to, kTileWidth<T>, depth, index);
        if (count < kTileWidth<T>)
            for (int64_t k = 0; k < depth.end - depth.begin; ++k)
                zero_run(to + k * kTileWidth<T> + count, kTileWidth<T> - count);
        return;
    }
    // A panel of at most lanes<T> columns is multiplied with one vector: its second half is never read.
    for (int64_t first = 0; first < count; first += lanes<T>) {
        const Range part{index.begin + first, smaller(index.end, index.begin + first + lanes<T>)};
        pack_transposed<T>(operand, part, depth, to + first, scratch);
    }
}

template <class T, class Operand>
void pack_rows(const Operand& operand, Range index, Range depth, int64_t stride, T* to) {
    if (!operand.k_contiguous()) return operand.copy(to, stride, depth, index);
    for (int64_t k = depth.begin; k < depth.end; k += kPackChunk)
        operand.copy(to + (k - depth.begin), stride, index, {k, smaller(depth.end, k + kPackChunk)});
}

template <class T, class Operand>
void pack_panel(const Side<T>& side, const Operand& operand, Range index, Range depth, T* to, T* scratch) {
    if (side.is_lanes) {
        pack_lanes<T>(operand, index, depth, to, scratch);
    } else {
        pack_rows<T>(operand, index, depth, side.stride, to);
    }
}

// A matrix with any strides.
template <class T>
struct MatrixOperand {
    const T* data;
    int64_t index_stride, depth_stride;

    bool k_contiguous() const { return index_stride != 1; }
    void copy(T* to, int64_t to_stride, Range x, Range y) const {
        const int64_t x_stride = k_contiguous() ? index_stride : depth_stride;
        const int64_t y_stride = k_contiguous() ? depth_stride : index_stride;
        for (int64_t i = x.begin; i < x.end; ++i)
            copy_strided<T>(to + (i - x.begin) * to_stride, data + i * x_stride + y.begin * y_stride, y.end - y.begin,
                            y_stride);
    }
};

}  // namespace pycv::cpu::PYCV_ISA
