// Strided grad_input on Hopper's tensor cores: what the kernel is told, and the kernel.
//
// Positions that are equal modulo the stride, a phase, meet the same filter positions and take unit steps through the
// output (conv_gather.h): each phase is a unit-stride product like those of conv_wgmma.h, with a part of the filter.
// One launch computes them all. Tiles are numbered phase after phase, those of the most filter positions first, so that
// the blocks end with short ones. A phase that meets no filter position takes no step: its result is the epilogue of 0.
//
// Pixels of a phase lie apart. Counted by themselves they are images again, whose strides are those of the tensor times
// the stride of the convolution, and 64 of them, wherever their rows and images end, are one store of im2col
// (device/tensor_copy.h).
//
// The filter positions of all phases together are those of the filter: 2 * n * k * out * c * filter FLOPs as in
// conv_wgmma.cu, and no product with inserted zeros; each phase has its own ragged tile.
#pragma once

#include "conv_wgmma.h"

namespace pycv::cuda {

// A part of the filter positions: tap (0, 0) in the prepared weight, and from one tap to the next.
struct FilterPart {
    int first, by_row, by_column;

    FilterPart() = default;
    FilterPart(const Gather& gather, int filter_width)
        : first(gather.h.filter_first * filter_width + gather.w.filter_first),
          by_row(gather.h.filter_step * filter_width),
          by_column(gather.w.filter_step) {}

    __device__ __forceinline__ int index(const WindowTap& tap) const {
        return first + tap.r * by_row + tap.s * by_column;
    }
};

struct ConvPhase {
    TensorMap source, out;
    ConvWindows windows;
    FilterPart filter;
    int first_row, first_column;  // of its pixels in an image
    int positions;
    int steps;  // of a tile: filter positions of a block of channels, of all blocks
    int64_t first_tile;
};

// Tensor maps are parameters of the kernel, of which there are 4096 bytes at most: 3 x 3 phases.
constexpr int kMostPhases = 9;

struct PhaseOperands {
    TensorMap weight;
    ConvPhase phases[kMostPhases];
    int count;
    int height, width, row_step, column_step;  // of an image, and from one pixel of a phase to the next
    int64_t tiles;
};

// The batch of a tile counts phases.
template <class TileA, class TileB>
struct PhaseFeed {
    const PhaseOperands& in;

    __device__ __forceinline__ auto loader(const PersistentTile& tile) const {
        const ConvPhase& phase = in.phases[tile.batch];
        return [&weight = in.weight, &phase, at = phase.windows.place(tile.row), column = tile.column,
                tap = WindowTap{}, channel = 0](unsigned char* tiles, Barrier* full, int) mutable {
            phase.windows.load(tiles, phase.source, full, channel, at, tap);
            TileB::load(tiles + TileA::bytes, weight, full, column, channel, phase.filter.index(tap));
            if (!phase.windows.advance(tap)) channel += TileA::depth;
        };
    }
};

// What MatrixResults is to matrices.
template <class Shape, class T>
struct PhaseResults {
    const PhaseOperands& in;
    int64_t channels, tiles;

    __device__ __forceinline__ PersistentTile tile(int64_t index) const {
        int phase = 0;
        while (phase + 1 < in.count && index >= in.phases[phase + 1].first_tile) ++phase;
        const ConvPhase& of = in.phases[phase];
        const TileOrigin origin =
            tile_in_strips(index - of.first_tile, of.positions, channels, Shape::rows, Shape::columns);
        return {phase, static_cast<int>(origin.row), static_cast<int>(origin.column)};
    }
    __device__ __forceinline__ int steps(const PersistentTile& tile) const { return in.phases[tile.batch].steps; }
    // The pixel of a position.
    __device__ __forceinline__ int row(const PersistentTile& tile, int row) const {
        const ConvPhase& phase = in.phases[tile.batch];
        const WindowPlace at = phase.windows.counted(min(row, phase.positions - 1));
        return (at.n * in.height + phase.first_row + at.y * in.row_step) * in.width + phase.first_column +
               at.x * in.column_step;
    }
    __device__ __forceinline__ void store(const float (&sums)[Shape::columns / 2], unsigned char* staging, int group,
                                          const PersistentTile& tile) const {
        const ConvPhase& phase = in.phases[tile.batch];
        store_results<Shape, T>(
            sums, staging, group, tile.column,
            [&out = phase.out, at = phase.windows.counted(tile.row + group * 64)](
                const unsigned char* buffer, int column) { store_windows(out, buffer, column, at.x, at.y, at.n); });
    }
};

template <class Arithmetic, class Shape>
__global__ void __launch_bounds__(Shape::threads, 1)
    conv_wgmma_phases(const Gemm<typename Arithmetic::T> g, const __grid_constant__ PhaseOperands operands) {
    PYCV_NEEDS_WGMMA
    using TileA = GroupTile<Arithmetic, Major::k, Shape::rows>;
    using TileB = GroupTile<Arithmetic, Major::k, Shape::columns>;
    PYCV_SHARED(unsigned char, ring);
    __shared__ RingBarriers<Shape> barriers;
    run_persistent<Arithmetic, Shape, TileA, TileB>(
        ring, barriers, g, PhaseFeed<TileA, TileB>{operands},
        PhaseResults<Shape, typename Arithmetic::T>{operands, g.n, operands.tiles});
}

// ---------------------------------------------------------------------------------------------------------- launch

// The pixels of a phase as images of their own: what 64 rows of results are stored by.
template <class T>
TensorMap phase_result_map(const ConvImages& result, const Gather& gather) {
    const Strides& s = result.strides;
    Strides apart = s;
    apart.h *= gather.h.step;
    apart.w *= gather.w.step;
    const T* first = static_cast<const T*>(result.data) + gather.h.first * s.h + gather.w.first * s.w;
    return windows_map(kResultElement<T>, {first, result.n, result.channels, gather.h.count, gather.w.count, apart},
                       ConvWindows::of_pixels(gather.h.count, gather.w.count), 64);
}

template <class Arithmetic, class Shape>
ConvPhase conv_phase(const ConvImages& result, const ConvImages& source, const Gather& gather, int filter_width) {
    ConvPhase phase{};
    phase.windows = ConvWindows(gather);
    phase.steps = channel_blocks<Arithmetic>(source) * phase.windows.taps();
    if (phase.steps > 0)  // else the corners of its windows mean nothing
        phase.source = windows_map(kTensorElement<Arithmetic>, source, phase.windows, Shape::rows);
    phase.out = phase_result_map<typename Arithmetic::T>(result, gather);
    phase.filter = FilterPart(gather, filter_width);
    phase.first_row = gather.h.first;
    phase.first_column = gather.w.first;
    phase.positions = static_cast<int>(result.n * gather.positions());
    return phase;
}

template <class Arithmetic, class Shape>
PhaseOperands phase_operands(const ConvImages& result, const ConvImages& source, const ConvWeight& weight,
                             const Geometry& geometry) {
    PhaseOperands operands{};
    operands.weight = weight_map<Arithmetic, Shape>(weight);
    operands.count = geometry.phase_count();
    operands.height = geometry.size.h;
    operands.width = geometry.size.w;
    operands.row_step = geometry.stride.h;
    operands.column_step = geometry.stride.w;
    ConvPhase* const end = operands.phases + operands.count;
    for (int i = 0; i < operands.count; ++i)
        operands.phases[i] = conv_phase<Arithmetic, Shape>(result, source, geometry.phase(i), geometry.filter.w);
    std::sort(operands.phases, end, [](const ConvPhase& a, const ConvPhase& b) { return a.steps > b.steps; });
    for (ConvPhase* phase = operands.phases; phase != end; ++phase) {
        phase->first_tile = operands.tiles;
        operands.tiles +=
            ceil_div<int64_t>(phase->positions, Shape::rows) * ceil_div<int64_t>(result.channels, Shape::columns);
    }
    return operands;
}

// g: the channels of the result, and its epilogue.
template <class Arithmetic, class Shape>
void launch_conv_wgmma_phases(const Gemm<typename Arithmetic::T>& g, const ConvImages& result, const ConvImages& source,
                              const ConvWeight& weight, const Geometry& geometry, Stream stream) {
    static_assert(sizeof(g) + sizeof(PhaseOperands) + alignof(PhaseOperands) <= 4096, "parameters of a kernel");
    const auto operands = phase_operands<Arithmetic, Shape>(result, source, weight, geometry);
    const auto grid = static_cast<unsigned>(std::min<int64_t>(operands.tiles, multiprocessor_count()));
    launch(conv_wgmma_phases<Arithmetic, Shape>, dim3(grid), Shape::threads, Persistent<Shape>::shared_bytes, stream, g,
           operands);
}

// In the file of each arithmetic.
template <class Arithmetic>
void launch_conv_wgmma_phases(const Gemm<typename Arithmetic::T>& g, const ConvImages& result, const ConvImages& source,
                              const ConvWeight& weight, const Geometry& geometry, GroupColumns columns, Stream stream);

#define PYCV_CONV_WGMMA_PHASES(Arithmetic)                                                                     \
    template <>                                                                                                \
    void launch_conv_wgmma_phases<Arithmetic>(const Gemm<Arithmetic::T>& g, const ConvImages& result,          \
                                              const ConvImages& source, const ConvWeight& weight,              \
                                              const Geometry& geometry, GroupColumns columns, Stream stream) { \
        if (columns == GroupColumns::wide)                                                                     \
            launch_conv_wgmma_phases<Arithmetic, WideGroups>(g, result, source, weight, geometry, stream);     \
        else if (columns == GroupColumns::narrow)                                                              \
            launch_conv_wgmma_phases<Arithmetic, NarrowGroups>(g, result, source, weight, geometry, stream);   \
        else                                                                                                   \
            launch_conv_wgmma_phases<Arithmetic, ThinGroups>(g, result, source, weight, geometry, stream);     \
    }

}  // namespace pycv::cuda
