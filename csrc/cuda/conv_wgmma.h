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

#include "conv_gather.h"
#include "gemm_wgmma_3_persistent.h"

namespace pycv::cuda {

// One axis of the windows: of output or, in grad_input, input positions.
struct WindowAxis {
    int count;          // positions
    int first, step;    // of the windows in the source: its lower end, and from one to the next
    int taps;           // of the filter
    int shift, by_tap;  // of tap 0 from the lower end, and from one tap to the next

    // Of a gather whose taps are those of the filter (conv_gather.h).
    static WindowAxis of(const AxisGather& axis) {
        const int last = (axis.taps - 1) * axis.offset_step;
        const int lower = last < 0 ? axis.offset_first + last : axis.offset_first;
        return {axis.count, lower, axis.source_step, axis.taps, axis.offset_first - lower, axis.offset_step};
    }
    // Where the first window ends to begin, and the last, relative to the source: im2col's corners.
    int lower_corner() const { return first; }
    int upper_corner(int size) const { return first + (count - 1) * step + 1 - size; }
};

struct ConvWindows {
    WindowAxis h, w;
    int blocks;  // of tap channels

    __host__ __device__ int steps() const { return blocks * h.taps * w.taps; }
};

struct ConvOperands {
    TensorMap source, weight, out;
    ConvWindows windows;
    int64_t tiles;
};

template <class TileA, class TileB>
struct ConvFeed {
    const ConvOperands& in;

    __device__ __forceinline__ auto loader(const PersistentTile& tile) const {
        const WindowAxis &h = in.windows.h, &w = in.windows.w;
        const int row = tile.row / w.count;
        const int x = tile.row % w.count * w.step + w.first, y = row % h.count * h.step + h.first, n = row / h.count;
        return [this, x, y, n, column = tile.column](unsigned char* tiles, Barrier* full, int step) {
            const WindowAxis &h = in.windows.h, &w = in.windows.w;
            const int tap = step % (h.taps * w.taps), r = tap / w.taps, s = tap % w.taps;
            const int channel = step / (h.taps * w.taps) * TileA::depth;
            load_windows(tiles, in.source, full, channel, x, y, n, w.shift + s * w.by_tap, h.shift + r * h.by_tap);
            TileB::load(tiles + TileA::bytes, in.weight, full, column, channel, tap);
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
    run_persistent<Arithmetic, Shape, TileA, TileB>(ring, barriers, g, ConvFeed<TileA, TileB>{operands}, operands.out,
                                                    operands.tiles, operands.windows.steps());
}

// ---------------------------------------------------------------------------------------------------------- launch

// A tensor whose channels are contiguous.
struct ConvSource {
    const void* data;
    int64_t n, channels, height, width;
    Strides strides;
};

// The prepared weight of mma_sync: [channel][filter position][tap channels, up to a multiple of 16 bytes].
struct ConvWeight {
    const void* data;
    int64_t channels, taps, pitch;
};

template <class Arithmetic>
TensorMap windows_map(const ConvSource& source, const ConvWindows& windows, int positions) {
    constexpr TensorElement element = kTensorElement<Arithmetic>;
    constexpr int bytes = bytes_of(element);
    TensorMapFields fields{
        .base = source.data,
        .element = element,
        .rank = 4,
        .sizes = {source.channels, source.width, source.height, source.n},
        .strides = {bytes, source.strides.w * bytes, source.strides.h * bytes, source.strides.n * bytes},
        .box = {128 / bytes},
        .swizzle = Swizzle::bytes_128};
    fields.pixels = positions;
    const WindowAxis axes[] = {windows.w, windows.h};
    for (int axis = 0; axis < 2; ++axis) {
        fields.lower[axis] = axes[axis].lower_corner();
        fields.upper[axis] = axes[axis].upper_corner(static_cast<int>(fields.sizes[axis + 1]));
        fields.step[axis] = axes[axis].step;
    }
    return make_tensor_map(fields);
}

// g: the result as a matrix of positions by channels, with its epilogue.
template <class Arithmetic, class Shape>
void launch_conv_wgmma(const Gemm<typename Arithmetic::T>& g, const ConvSource& source, const ConvWeight& weight,
                       const ConvWindows& windows, Stream stream) {
    const int64_t tiles = ceil_div<int64_t>(g.m, Shape::rows) * ceil_div<int64_t>(g.n, Shape::columns);
    const ConvOperands operands{windows_map<Arithmetic>(source, windows, Shape::rows),
                                matrix_map(weight.data, kTensorElement<Arithmetic>, weight.pitch, weight.channels,
                                           weight.taps, weight.taps * weight.pitch, weight.pitch, Shape::columns),
                                result_map<Arithmetic>(g), windows, tiles};
    const auto grid = static_cast<unsigned>(std::min<int64_t>(tiles, multiprocessor_count()));
    launch(conv_wgmma<Arithmetic, Shape>, dim3(grid), Shape::threads, Persistent<Shape>::shared_bytes, stream, g,
           operands);
}

// How many columns a tile has, by name.
enum class GroupColumns { thin = ThinGroups::columns, narrow = NarrowGroups::columns, wide = WideGroups::columns };

// In the file of each arithmetic.
template <class Arithmetic>
void launch_conv_wgmma(const Gemm<typename Arithmetic::T>& g, const ConvSource& source, const ConvWeight& weight,
                       const ConvWindows& windows, GroupColumns columns, Stream stream);

#define PYCV_CONV_WGMMA(Arithmetic)                                                                                \
    template <>                                                                                                    \
    void launch_conv_wgmma<Arithmetic>(const Gemm<Arithmetic::T>& g, const ConvSource& source,                     \
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
