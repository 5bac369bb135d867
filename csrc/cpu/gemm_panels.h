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

#include "gemm_microkernel.h"
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

// A panel as the tile reads it (gemm_microkernel.h: row_stride or lane_stride), packed or in place.
template <class T>
struct PanelView {
    const T* data;
    int64_t stride;
    const T* next = nullptr;  // of the panel in place that follows; null: none
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

// Packed rows always lie side by side: a panel is then one stream of memory.
template <class T>
Side<T> rows_side(int64_t size, const Depth& depth) {
    const int64_t width = size > 0 ? divide_up(size, divide_up(size, kTileHeight)) : 1;
    return {false, RowFormat::rows_contiguous, size, width, width, width * depth.block};
}

// Depth steps that are transposed, or copied per row, at a time: short enough to stay in the L1 cache and, where the
// rows lie far apart, in the TLB.
inline constexpr int64_t kPackChunk = 128;

template <class T>
inline constexpr int64_t kScratchStride = kPackChunk + 64 / static_cast<int64_t>(sizeof(T));
template <class T>
inline constexpr int64_t kScratchElements = lanes<T> * kScratchStride<T>;

// At most lanes<T> indices of a panel from an operand that runs along the depth, through a transposition. All lanes are
// written (the missing ones as 0) if `pad`.
template <class T, class Operand>
void pack_transposed(const Operand& operand, Range index, Range depth, bool pad, int64_t stride, T* to, T* scratch) {
    const int64_t count = index.end - index.begin, written = pad ? lanes<T> : count;
    for (int64_t k = depth.begin; k < depth.end; k += kPackChunk) {
        const Range chunk{k, smaller(depth.end, k + kPackChunk)};
        const int64_t length = chunk.end - chunk.begin;
        operand.copy(scratch, kScratchStride<T>, index, chunk);
        for (int64_t i = count; i < written; ++i) zero_run(scratch + i * kScratchStride<T>, length);
        int64_t j = 0;
        for (; j + lanes<T> <= length; j += lanes<T>)
            transpose_block<T>(scratch + j, kScratchStride<T>, to + j * stride, stride, written);
        for (; j < length; ++j)
            for (int64_t i = 0; i < written; ++i) to[j * stride + i] = scratch[i * kScratchStride<T> + j];
        to += length * stride;
    }
}

template <class T, class Operand>
void pack_panel(const Side<T>& side, const Operand& operand, Range index, Range depth, T* to, T* scratch) {
    const int64_t count = index.end - index.begin;
    if (operand.k_contiguous()) {
        // A panel of at most lanes<T> columns is multiplied with one vector: its second half is never read.
        for (int64_t first = 0; first < count; first += lanes<T>) {
            const Range part{index.begin + first, smaller(index.end, index.begin + first + lanes<T>)};
            pack_transposed<T>(operand, part, depth, side.is_lanes, side.stride, to + first, scratch);
        }
        return;
    }
    operand.copy(to, side.stride, depth, index);
    if (side.is_lanes && count < side.width)
        for (int64_t k = 0; k < depth.end - depth.begin; ++k)
            zero_run(to + k * side.stride + count, side.width - count);
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
