// Which operands of step 3 of Hopper's GEMMs are copied before the product, and the copies.
//
// In 16 bits an operand that boxes cannot bring is gathered by the producer while others multiply (group_gather.h), or
// copied once into the workspace, along k, with rows that begin at multiples of 16 bytes (padded_copy.cu), from where
// boxes bring it. Gathering costs in each tile again, a copy once: so tall products copy b, wide ones a, small ones
// nothing. Where an operand lies is known when a plan is made, at which address only when it runs: what is off
// alignment by its address alone is gathered. tf32 is always gathered: that costs it little.
#pragma once

#include "device/multiprocessors.h"
#include "gemm_wgmma_3_gathered.h"
#include "padded_copy.h"

namespace pycv::cuda {

// Counted, not measured, in cycles. A step multiplies 128 rows by a tile's columns over 64 of k. For the 384 lines of a
// wide tile the producer needs 6 times 430, and that share of it for the lines that it gathers (group_gather.h). A copy
// writes a byte for each that it reads, 1900 in a cycle together: 3.35 TB/s at 1.75 GHz, an H100's; one more launch
// takes 2 us. So in full waves of wide tiles b is copied from some 800 rows of a on, and a beside boxes of b never:
// gathering it ends before the products do.
struct CopyCosts {
    static constexpr double step_of_column = 4, gathered_line = 6 * 430 / 384.0;
    static constexpr double copied_byte = 2 / 1900.0, launch = 4000;
};

struct OperandCopies {
    bool a = false, b = false;
};

inline PaddedCopy padded_copy_of(const GroupMatrix& m) {
    return {m.batch_stride == 0 ? 1 : m.batch, m.lines, m.k, m.batch_stride, m.line_stride, m.k_stride};
}

// Of the copies in the workspace: each begins at a multiple of 128.
inline int64_t bytes_in_workspace(const GroupMatrix& m) {
    return ceil_div<int64_t>(padded_copy_of(m).bytes(), 128) * 128;
}
template <class T>
int64_t bytes_in_workspace(const Gemm<T>& g, const OperandCopies& copies) {
    return (copies.a ? bytes_in_workspace(group_matrix_a(g)) : 0) +
           (copies.b ? bytes_in_workspace(group_matrix_b(g)) : 0);
}

// Cycles until a product with these copies is done, in tiles of so many columns.
template <class T>
double cycles_with(const Gemm<T>& g, const OperandCopies& copies, int columns) {
    constexpr int rows = WideGroups::rows, depth = 128 / sizeof(T);
    const GroupMatrix a = group_matrix_a(g), b = group_matrix_b(g);
    const bool a_in_boxes = copies.a || operand_in_boxes<T>(a), b_in_boxes = copies.b || operand_in_boxes<T>(b);
    int gathered = 0;  // lines of a step
    if (!a_in_boxes || !b_in_boxes || !result_in_boxes(g)) {
        if (!copies.a && !in_boxes<T>(a, Major::k)) gathered += rows;
        if (!copies.b && !in_boxes<T>(b, Major::k)) gathered += columns;
    }
    const int64_t tiles = g.batch * ceil_div<int64_t>(g.m, rows) * ceil_div<int64_t>(g.n, columns);
    const auto steps = static_cast<double>(ceil_div(tiles, kPlannedMultiprocessors) * ceil_div<int64_t>(g.k, depth));
    return steps * std::max(columns * CopyCosts::step_of_column, gathered * CopyCosts::gathered_line) +
           static_cast<double>(bytes_in_workspace(g, copies)) * CopyCosts::copied_byte +
           (copies.a + copies.b) * CopyCosts::launch;
}

// The copies that make a product the fastest, of those for which the workspace may have room. The addresses of `g` may
// be null: those are aligned.
template <class T>
OperandCopies choose_copies(const Gemm<T>& g, int columns, int64_t workspace_limit) {
    OperandCopies best;
    if (sizeof(T) != 2) return best;
    for (const OperandCopies& copies : {OperandCopies{true, false}, {false, true}, {true, true}})
        if (bytes_in_workspace(g, copies) <= workspace_limit &&
            cycles_with(g, copies, columns) < cycles_with(g, best, columns))
            best = copies;
    return best;
}

// Copies the operand and returns the copy, beginning at `to`, which moves behind it.
inline GroupMatrix copy_to_workspace(const GroupMatrix& m, char*& to, Stream stream) {
    const PaddedCopy copy = padded_copy_of(m);
    const int64_t pitch = copy.pitch();
    const GroupMatrix copied{to, m.lines, m.k, m.batch, pitch, 1, m.batch_stride == 0 ? 0 : m.lines * pitch};
    copy_padded(m.data, to, copy, stream);
    to += bytes_in_workspace(m);
    return copied;
}

// The same product of the copies.
template <class T>
Gemm<T> with_copies(Gemm<T> g, const OperandCopies& copies, void* workspace, Stream stream) {
    auto* to = static_cast<char*>(workspace);
    if (copies.a) {
        const GroupMatrix a = copy_to_workspace(group_matrix_a(g), to, stream);
        g.a = {static_cast<const T*>(a.data), {a.batch_stride, a.line_stride, a.k_stride}};
    }
    if (copies.b) {
        const GroupMatrix b = copy_to_workspace(group_matrix_b(g), to, stream);
        g.b = {static_cast<const T*>(b.data), {b.batch_stride, b.k_stride, b.line_stride}};
    }
    return g;
}

}  // namespace pycv::cuda
