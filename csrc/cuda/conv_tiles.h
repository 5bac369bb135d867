// What the kernel of implicit_gemm (conv_tile_kernel.h) is told, the shapes of its tiles, and who launches it.
#pragma once

#include "conv_gather.h"
#include "conv_prologue.h"
#include "gemm_tiles.h"

namespace pycv::cuda {

// Along what neighbouring threads copy a tile, because it is contiguous in memory: 16 bytes of lines, lines, or rows.
enum class Lanes { vectors, lines, rows };

template <class T>
struct ConvTiles {
    Geometry geometry;
    int n, groups;
    int columns, tap_channels;  // of a group
    // The im2col matrix.
    const T* source;
    Strides source_strides;
    int64_t source_group;  // elements from one group to the next
    bool channels_inside;  // of the taps
    Lanes source_lanes;
    Prologue<T> prologue;  // forward
    // The plain matrix: forward and grad_input: the prepared weight [group][c, filter][column], or with channels_inside
    // [group][filter, c][column]; grad_weight: the output.
    const T* plain;
    Strides plain_strides;  // n and d, h, w in grad_weight; c leads from column to column
    int64_t plain_group;
    int plain_columns;  // that may be read
    Lanes plain_lanes;
    // What is computed.
    T* computed;
    Strides computed_strides;  // grad_weight: n leads from column to column, else c
    int64_t computed_group;
    bool lines_contiguous;
    const T* bias;  // null where there is none, as residual
    const T* residual;
    Strides residual_strides;
    bool relu;
    // How the blocks share the work.
    int64_t line_tiles, column_tiles, splits, split_depth;
    accumulator_t<T>* sums;  // of the splits; null where there is one

    __host__ __device__ int64_t tiles() const { return column_tiles * line_tiles * geometry.phase_count() * groups; }
};

template <class T, int Lines, int Columns, int LineRuns, int ColumnRuns>
struct ConvTileShape {
    static constexpr int depth = 16, lines = Lines, columns = Columns;
    static constexpr int down = Lines / (LineRuns * kRun), across = Columns / (ColumnRuns * kRun);
    static constexpr int threads = down * across;
    using Source = Tile<T, Lines, depth>;
    using Plain = Tile<T, Columns, depth>;
    using Products = ThreadProducts<T, LineRuns, ColumnRuns, Lines / LineRuns, Columns / ColumnRuns>;
    static constexpr int line_sums = LineRuns * kRun, column_sums = ColumnRuns * kRun;
    static constexpr int sums = line_sums * column_sums;  // of a thread
    static_assert(threads % Lines == 0 && threads % Columns == 0 && threads % depth == 0);
};

template <class T>
struct Shapes {
    using Wide = ConvTileShape<T, 128, 64, 2, 2>;
    using Thin = ConvTileShape<T, 128, 32, 2, 1>;
};
template <>
struct Shapes<double> {
    using Wide = ConvTileShape<double, 64, 64, 1, 2>;
    using Thin = ConvTileShape<double, 64, 32, 1, 1>;
};

// visit(shape) with an object of the type that suits so many columns.
template <class T, class Visit>
void with_shape(int64_t columns, Visit visit) {
    if (columns <= 32)
        visit(typename Shapes<T>::Thin{});
    else
        visit(typename Shapes<T>::Wide{});
}

// Launch the kernel, and where there are splits the one that adds them up.
template <class T>
void launch_gather_tiles(const ConvTiles<T>& tiles, Stream stream);  // forward, grad_input
template <class T>
void launch_grad_weight_tiles(const ConvTiles<T>& tiles, Stream stream);

}  // namespace pycv::cuda
