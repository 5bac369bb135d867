// grad_weight on Hopper's tensor cores (sm_90a), f16 and bf16: the product of the output's gradient, transposed, with
// the im2col matrix of the input.
//
//     result[k, (t, c)] = sum over positions of output[position, k] * input[position + t, c]
//
// Both operands lie along their lines in memory, channels, and are multiplied that way. A tile is 128 output channels
// by two or four panels, each 64 channels of one filter position: so that several filter positions share what is read
// of the output. Positions come 64 at a time, those of a panel in one im2col copy (conv_windows.h).
//
// A weight has few elements and a sum many terms: blocks share the positions. Each writes its sums, in fp32, to a
// matrix of its own in the workspace, by the persistent GEMM's way; a second kernel adds them up, always in the same
// order, and puts them where the weight has them.
//
// 2 * n * k * out * c * filter FLOPs, up to the edges of the tiles; 8 bytes to and from memory for each part of an
// element of the weight.
// Tuned: no kernel of this file may spill registers.
#include <memory>

#include "conv_wgmma_grad_weight.h"
#include "conv_windows.h"
#include "gemm_wgmma_3_persistent.h"

namespace pycv::cuda {
namespace {

constexpr int kPanel = 64;      // channels
constexpr int kPositions = 64;  // of a step

struct FilterOperands {
    TensorMap output, input, sums;
    ConvWindows windows;
    int channel_blocks;  // panels of a filter position
    int64_t tiles;
    int steps;  // of a part
};

template <class Arithmetic, class Shape>
struct FilterTiles {
    using TileA = GroupTile<Arithmetic, Major::line, Shape::rows>;
    using TileB = GroupTile<Arithmetic, Major::line, Shape::columns>;
    static_assert(TileA::depth == kPositions && TileB::width == kPanel);
};

// The batch of the product counts parts.
template <class TileA, class TileB>
struct FilterFeed {
    const FilterOperands& in;

    __device__ __forceinline__ auto loader(const PersistentTile& tile) const {
        struct {
            int channel;
            WindowTap tap;
        } panels[TileB::panels];
        const int last = in.windows.taps() * in.channel_blocks - 1;
#pragma unroll
        for (int i = 0; i < TileB::panels; ++i) {
            const int panel = min(tile.column / kPanel + i, last);  // beyond the last: something, never looked at
            panels[i] = {panel % in.channel_blocks * kPanel, in.windows.tap(panel / in.channel_blocks)};
        }
        return [this, tile, panels](unsigned char* tiles, Barrier* full, int step) {
            const int position = (tile.batch * in.steps + step) * kPositions;
            TileA::load(tiles, in.output, full, tile.row, position, 0);
            const WindowPlace at = in.windows.place(position);
#pragma unroll
            for (int i = 0; i < TileB::panels; ++i)
                in.windows.load(tiles + TileA::bytes + i * TileB::panel_bytes, in.input, full, panels[i].channel, at,
                                panels[i].tap);
        };
    }
};

template <class Arithmetic, class Shape>
__global__ void __launch_bounds__(Shape::threads, 1)
    conv_wgmma_grad_weight(const Gemm<float> g, const __grid_constant__ FilterOperands operands) {
    PYCV_NEEDS_WGMMA
    using Of = FilterTiles<Arithmetic, Shape>;
    using Feed = FilterFeed<typename Of::TileA, typename Of::TileB>;
    PYCV_SHARED(unsigned char, ring);
    __shared__ RingBarriers<Shape> barriers;
    run_persistent<Arithmetic, Shape, typename Of::TileA, typename Of::TileB>(
        ring, barriers, g, Feed{operands},
        MatrixResults<Shape, float>{g, operands.sums, operands.tiles, operands.steps});
}

// Adds up the parts of each element of the weight.
struct FilterSums {
    const float* sums;
    int64_t parts, channels, columns, tap_channels;  // columns: a matrix of sums is channels x columns
    int channel_blocks;
    Extent filter;
    Strides weight;
};

constexpr int kAdded = 256;

template <class T>
__global__ void __launch_bounds__(kAdded) add_filter_sums(T* weight, const FilterSums s) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kAdded + threadIdx.x;
    if (index >= s.channels * s.columns) return;
    const int64_t k = index / s.columns, panel = index % s.columns / kPanel, tap = panel / s.channel_blocks;
    const int64_t c = panel % s.channel_blocks * kPanel + index % kPanel;
    if (c >= s.tap_channels) return;
    float sum = 0;
    for (int64_t part = 0; part < s.parts; ++part) sum += s.sums[part * s.channels * s.columns + index];
    const int64_t r = tap / s.filter.w, column = tap % s.filter.w;
    weight[k * s.weight.n + c * s.weight.c + r * s.weight.h + column * s.weight.w] = from_accumulator<T>(sum);
}

template <class Arithmetic>
class WgmmaGradWeight final : public ConvPlan {
    using T = typename Arithmetic::T;

public:
    WgmmaGradWeight(const ConvProblem& p, int64_t workspace_limit) : problem_(p), unaligned_(plan_conv_mma(p, 0)) {
        const Gather gather = geometry_of(p).phase(0);
        windows_ = ConvWindows(gather);
        channel_blocks_ = static_cast<int>(ceil_div<int64_t>(p.c, kPanel));
        columns_ = static_cast<int64_t>(windows_.taps()) * channel_blocks_ * kPanel;
        positions_ = p.n * gather.positions();
        wide_ = columns_ > NarrowGroups::columns;
        share(workspace_limit);
    }

    int64_t workspace_bytes() const override {
        return std::max(unaligned_->workspace_bytes(), parts_ * problem_.k * columns_ * 4);
    }

    void run(const ConvArguments& a, Stream stream) const override {
        if (positions_ == 0 || problem_.k == 0 || columns_ == 0 || !all_aligned(16, a.input, a.output)) {
            unaligned_->run(a, stream);
            return;
        }
        auto* const sums = static_cast<float*>(a.workspace);
        wide_ ? multiply<WideGroups>(a, sums, stream) : multiply<NarrowGroups>(a, sums, stream);
        const ConvProblem& p = problem_;
        const FilterSums added{sums, parts_, p.k, columns_, p.c, channel_blocks_, extent(p.filter), p.weight};
        launch(add_filter_sums<T>, dim3(static_cast<unsigned>(ceil_div<int64_t>(p.k * columns_, kAdded))), kAdded, 0,
               stream, static_cast<T*>(a.weight), added);
    }

private:
    // As many parts as occupy a large device, and fit into the workspace.
    void share(int64_t workspace_limit) {
        const int64_t steps = std::max<int64_t>(ceil_div<int64_t>(positions_, kPositions), 1);
        const int64_t bytes = std::max<int64_t>(problem_.k * columns_ * 4, 1);
        const int64_t tiles =
            std::max<int64_t>(ceil_div<int64_t>(problem_.k, WideGroups::rows) *
                                  ceil_div<int64_t>(columns_, wide_ ? WideGroups::columns : NarrowGroups::columns),
                              1);
        const int64_t wanted = std::min({kPlannedMultiprocessors / tiles, workspace_limit / bytes, steps});
        steps_ = ceil_div(steps, std::max<int64_t>(wanted, 1));
        parts_ = ceil_div(steps, steps_);
    }

    template <class Shape>
    void multiply(const ConvArguments& a, float* sums, Stream stream) const {
        using TileA = typename FilterTiles<Arithmetic, Shape>::TileA;
        const ConvProblem& p = problem_;
        Gemm<float> g{};
        g.batch = parts_;
        g.m = p.k;
        g.n = columns_;
        g.out = sums;
        g.out_strides = {p.k * columns_, columns_, 1};
        g.epilogue.alpha = 1;
        const FilterOperands operands{
            TileA::map({a.output, p.k, positions_, 1, 1, p.output.w, 0}),
            windows_map(kTensorElement<Arithmetic>, {a.input, p.n, p.c, p.size.h, p.size.w, p.input}, windows_,
                        kPositions),
            result_map(g),
            windows_,
            channel_blocks_,
            parts_ * ceil_div<int64_t>(p.k, Shape::rows) * ceil_div<int64_t>(columns_, Shape::columns),
            static_cast<int>(steps_)};
        const auto grid = static_cast<unsigned>(std::min<int64_t>(operands.tiles, multiprocessor_count()));
        launch(conv_wgmma_grad_weight<Arithmetic, Shape>, dim3(grid), Shape::threads, Persistent<Shape>::shared_bytes,
               stream, g, operands);
    }

    ConvProblem problem_;
    std::unique_ptr<ConvPlan> unaligned_;
    ConvWindows windows_;
    int channel_blocks_ = 0;
    int64_t columns_ = 0;  // of the product: filter positions, by panels of channels
    int64_t positions_ = 0, steps_ = 1, parts_ = 1;
    bool wide_ = false;
};

}  // namespace

ConvPlan* plan_wgmma_grad_weight(const ConvProblem& problem, int64_t workspace_limit) {
    if (problem.dtype == DType::f16) return new WgmmaGradWeight<HalfArithmetic>(problem, workspace_limit);
    return new WgmmaGradWeight<BfloatArithmetic>(problem, workspace_limit);
}

}  // namespace pycv::cuda
