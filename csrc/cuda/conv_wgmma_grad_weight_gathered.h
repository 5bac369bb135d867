// grad_weight of conv_wgmma_grad_weight.cu in tf32, whose operands, channels fastest, have to be transposed on the way
// into shared memory: a producer of 128 threads gathers both (group_gather.h).
//
// Columns of the product are elements of the filter, (filter position, channel), without gaps. Each lane finds one of
// the 32 positions of a step, leaves its pixel in shared memory for the lanes of its warp, and then loads the elements
// of its own columns around all of them: so channels may be of any number, at any address.
#pragma once

#include "conv_windows.h"
#include "gemm_wgmma_3_persistent.h"
#include "group_gather.h"

namespace pycv::cuda {

// Where the windows of a step begin in the input: the number of the pixel (with those that do not exist, in rows of
// the image's width), and its place in the image. Of a position that there is not, a row far above the image.
struct StepWindows {
    static constexpr int count = 32;
    int pixel[count], y[count], x[count];
};

struct GatheredFilter {
    const float* output;
    const float* input;
    int64_t output_pitch, input_pitch;  // from pixel to pixel
    int height, width, channels;        // of the input
    int positions, steps;               // all; of a part
    ConvWindows windows;
    TensorMap sums;
    int64_t tiles;

    // One for each lane of a warp.
    __device__ __forceinline__ void find_windows(StepWindows& found, int64_t first) const {
        const int lane = lane_index();
        const bool exists = first + lane < positions;
        const WindowPlace at = windows.place(exists ? static_cast<int>(first) + lane : 0);
        found.pixel[lane] = (at.n * height + at.y) * width + at.x;
        found.y[lane] = exists ? at.y : -(1 << 30);
        found.x[lane] = at.x;
        sync_warp();
    }

    // What loads vectors of a column.
    __device__ __forceinline__ auto column_loader(const StepWindows& found, int column) const {
        const WindowTap tap = windows.tap(column / channels);
        const int dy = windows.h.shift + tap.r * windows.h.by_tap, dx = windows.w.shift + tap.s * windows.w.by_tap;
        const bool exists = tap.r < windows.h.taps;
        const float* const from = input + (static_cast<int64_t>(dy) * width + dx) * input_pitch + column % channels;
        return [this, &found, from, dx, below = static_cast<unsigned>(exists ? height : 0), dy](auto& vector, int k) {
            const auto pixels = load_vector<4>(found.pixel + k), ys = load_vector<4>(found.y + k),
                       xs = load_vector<4>(found.x + k);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const bool inside = static_cast<unsigned>(ys[e] + dy) < below &&
                                    static_cast<unsigned>(xs[e] + dx) < static_cast<unsigned>(width);
                vector[e] = inside ? from[pixels[e] * input_pitch] : 0;
            }
        };
    }
};

// The batch of the product counts parts.
template <class TileA, class TileB>
struct GatheringFilterFeed {
    const GatheredFilter& in;
    int64_t rows;           // output channels
    StepWindows* of_warps;  // in shared memory

    __device__ __forceinline__ auto loader(const PersistentTile& tile) const {
        return [this, tile](unsigned char* tiles, Barrier* full, int step) {
            const int64_t position = (static_cast<int64_t>(tile.batch) * in.steps + step) * TileA::depth;
            const GatheredLines<float> lines{in.output + position * in.output_pitch + tile.row, 1, in.output_pitch,
                                             clamped(rows - tile.row, TileA::lines),
                                             clamped(in.positions - position, TileA::depth)};
            lines.template gather<TileA::lines>(tiles);
            StepWindows& found = of_warps[warp_index()];
            in.find_windows(found, position);
            gather_by_lines<TileB::lines, float>(tiles + TileA::bytes,
                                                 [&](int line) { return in.column_loader(found, tile.column + line); });
            arrive_with_tiles(full);
        };
    }
};

template <class Shape>
__global__ void __launch_bounds__(Shape::threads, 1)
    conv_wgmma_grad_weight_gathered(const Gemm<float> g, const __grid_constant__ GatheredFilter filter) {
    PYCV_NEEDS_WGMMA
    using TileA = GroupTile<Tf32Arithmetic, Major::k, Shape::rows>;
    using TileB = GroupTile<Tf32Arithmetic, Major::k, Shape::columns>;
    static_assert(TileA::depth == StepWindows::count);
    PYCV_SHARED(unsigned char, ring);
    __shared__ RingBarriers<Shape> barriers;
    __shared__ __align__(16) StepWindows of_warps[warp_group_size / warp_size];
    run_persistent<Tf32Arithmetic, Shape, TileA, TileB>(
        ring, barriers, g, GatheringFilterFeed<TileA, TileB>{filter, g.m, of_warps},
        MatrixResults<Shape, float>{g, filter.sums, filter.tiles, filter.steps});
}

}  // namespace pycv::cuda
