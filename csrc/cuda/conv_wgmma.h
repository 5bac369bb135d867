// Convolution as a matrix product on Hopper's tensor cores, forward and unit-stride grad_input: what the kernel is
// told, and the kernel.
//
//     result[position, channel] = sum over filter positions t, tap channels c of source[position + t, c] * weight[t, c]
//
// Positions run through the tensor that is computed, tap channels through the one that is read: both nhwc. A tile of
// the im2col matrix, 128 positions by 128 bytes of channels of one filter position, is one copy by the tensor memory
// accelerator, which walks through rows and images by itself and brings zeros for what lies beyond (device/
// tensor_copy.h). The loop goes through the filter positions of a block of channels, then to the next block, so that
// what is read again is still in L2. The rest is the persistent GEMM's: gemm_wgmma_3_persistent.h.
#pragma once

#include "conv_windows.h"
#include "gemm_wgmma_3_persistent.h"

namespace pycv::cuda {

struct ConvOperands {
    TensorMap source, weight, out;
    ConvWindows windows;
    int64_t tiles;
    int steps;  // of a tile: filter positions of a block of channels, of all blocks
};

template <class TileA, class TileB>
struct ConvFeed {
    const ConvOperands& in;

    // Stages come in order, so that the producer counts where it is and divides only once for a tile.
    __device__ __forceinline__ auto loader(const PersistentTile& tile) const {
        return [this, at = in.windows.place(tile.row), column = tile.column, tap = WindowTap{}, channel = 0](
                   unsigned char* tiles, Barrier* full, int) mutable {
            in.windows.load(tiles, in.source, full, channel, at, tap);
            TileB::load(tiles + TileA::bytes, in.weight, full, column, channel, in.windows.index(tap));
            if (!in.windows.advance(tap)) channel += TileA::depth;
        };
    }
};

template <class Arithmetic, class Shape>
__global__ void __launch_bounds__(Shape::threads, 1)
    conv_wgmma(const Gemm<typename Arithmetic::T> g, const __grid_constant__ ConvOperands operands) {
    PYCV_NEEDS_WGMMA
    using TileA = GroupTile<Arithmetic, Major::k, Shape::rows>;
    using TileB = GroupTile<Arithmetic, Major::k, Shape::columns>;
    PYCV_SHARED(unsigned char, ring);
    __shared__ RingBarriers<Shape> barriers;
    using Results = MatrixResults<Shape, typename Arithmetic::T>;
    run_persistent<Arithmetic, Shape, TileA, TileB>(ring, barriers, g, ConvFeed<TileA, TileB>{operands},
                                                    Results{g, operands.out, operands.tiles, operands.steps});
}

// ---------------------------------------------------------------------------------------------------------- launch

// The prepared weight of mma_sync: [channel][filter position][tap channels, up to a multiple of 16 bytes].
struct ConvWeight {
    const void* data;
    int64_t channels, taps, pitch;
};

template <class Arithmetic, class Shape>
TensorMap weight_map(const ConvWeight& weight) {
    return matrix_map(weight.data, kTensorElement<Arithmetic>, weight.pitch, weight.channels, weight.taps,
                      weight.taps * weight.pitch, weight.pitch, Shape::columns);
}

// Steps of a filter position.
template <class Arithmetic>
int channel_blocks(const ConvImages& source) {
    return static_cast<int>(ceil_div<int64_t>(source.channels, 128 / sizeof(typename Arithmetic::T)));
}

// g: the result as a matrix of positions by channels, with its epilogue.
template <class Arithmetic, class Shape>
void launch_conv_wgmma(const Gemm<typename Arithmetic::T>& g, const ConvImages& source, const ConvWeight& weight,
                       const ConvWindows& windows, Stream stream) {
    const int64_t tiles = ceil_div<int64_t>(g.m, Shape::rows) * ceil_div<int64_t>(g.n, Shape::columns);
    const ConvOperands operands{windows_map(kTensorElement<Arithmetic>, source, windows, Shape::rows),
                                weight_map<Arithmetic, Shape>(weight),
                                result_map(g),
                                windows,
                                tiles,
                                channel_blocks<Arithmetic>(source) * windows.taps()};
    const auto grid = static_cast<unsigned>(std::min<int64_t>(tiles, multiprocessor_count()));
    launch(conv_wgmma<Arithmetic, Shape>, dim3(grid), Shape::threads, Persistent<Shape>::shared_bytes, stream, g,
           operands);
}

// How many columns a tile has, by name.
enum class GroupColumns { thin = ThinGroups::columns, narrow = NarrowGroups::columns, wide = WideGroups::columns };

// In the file of each arithmetic.
template <class Arithmetic>
void launch_conv_wgmma(const Gemm<typename Arithmetic::T>& g, const ConvImages& source, const ConvWeight& weight,
                       const ConvWindows& windows, GroupColumns columns, Stream stream);

#define PYCV_CONV_WGMMA(Arithmetic)                                                                                \
    template <>                                                                                                    \
    void launch_conv_wgmma<Arithmetic>(const Gemm<Arithmetic::T>& g, const ConvImages& source,                     \
                                       const ConvWeight& weight, const ConvWindows& windows, GroupColumns columns, \
                                       Stream stream) {                                                            \
        if (columns == GroupColumns::wide)                                                                         \
            launch_conv_wgmma<Arithmetic, WideGroups>(g, source, weight, windows, stream);                         \
        else if (columns == GroupColumns::narrow)                                                                  \
            launch_conv_wgmma<Arithmetic, NarrowGroups>(g, source, weight, windows, stream);                       \
        else                                                                                                       \
            launch_conv_wgmma<Arithmetic, ThinGroups>(g, source, weight, windows, stream);                         \
    }

}  // namespace pycv::cuda
