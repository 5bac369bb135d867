// grad_weight on Hopper's tensor cores (sm_90a): the product of the output's gradient, transposed, with the im2col
// matrix of the input.
//
//     result[k, (t, c)] = sum over positions of output[position, k] * input[position + t, c]
//
// Both operands lie along their lines in memory, channels, and in 16 bits are multiplied that way. A tile is 128 output
// channels by two or four panels, each 64 channels of one filter position: so that several filter positions share what
// is read of the output. Positions come 64 at a time, those of a panel in one im2col copy (conv_windows.h). In tf32
// both are transposed on the way, and panels are as wide as there are channels: conv_wgmma_grad_weight_gathered.h.
//
// A weight has few elements and a sum many terms: blocks share the positions. Each writes its sums, in fp32, to a
// matrix of its own in the workspace, by the persistent GEMM's way; a second kernel adds them up, always in the same
// order, and puts them where the weight has them.
//
// 2 * n * k * out * c * filter FLOPs, up to the edges of the tiles; 8 bytes to and from memory for each part of an
// element of the weight.
// Tuned: no kernel of this file may spill registers.
#include <memory>
#include <string>
#include <vector>

#include "conv_wgmma_grad_weight.h"
#include "conv_wgmma_grad_weight_gathered.h"
#include "conv_windows.h"
#include "gemm_wgmma_3_persistent.h"
#include "tile_entry.h"

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
    int panel, channel_blocks;                       // channels of a panel; panels of a filter position
    Extent filter;
    Strides weight;
};

constexpr int kAdded = 256;

template <class T>
__global__ void __launch_bounds__(kAdded) add_filter_sums(T* weight, const FilterSums s) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kAdded + threadIdx.x;
    if (index >= s.channels * s.columns) return;
    const int64_t k = index / s.columns, column = index % s.columns;
    const int64_t panel = column / s.panel, tap = panel / s.channel_blocks;
    const int64_t c = panel % s.channel_blocks * s.panel + column % s.panel;
    const int64_t r = tap / s.filter.w;
    if (c >= s.tap_channels || r >= s.filter.h) return;
    float sum = 0;
    for (int64_t part = 0; part < s.parts; ++part) sum += s.sums[part * s.channels * s.columns + index];
    weight[k * s.weight.n + c * s.weight.c + r * s.weight.h + tap % s.filter.w * s.weight.w] = from_accumulator<T>(sum);
}

const std::string kWideTile = tile_name(WideGroups::rows, WideGroups::columns);
const std::string kNarrowTile = tile_name(NarrowGroups::rows, NarrowGroups::columns);

// The columns of the product: filter positions, by panels of channels.
struct FilterColumns {
    int panel, channel_blocks;  // channels of a panel; panels of a filter position
    int64_t count;

    explicit FilterColumns(const ConvProblem& p)
        : panel(p.dtype == DType::f32 ? static_cast<int>(std::max<int64_t>(p.c, 1)) : kPanel),
          channel_blocks(static_cast<int>(ceil_div<int64_t>(p.c, panel))) {
        const int64_t elements = p.filter.count() * channel_blocks * panel;
        count = ceil_div<int64_t>(elements, widest_vector<float>) * widest_vector<float>;
    }
};

template <class Arithmetic>
class WgmmaGradWeight final : public ConvPlan {
    using T = typename Arithmetic::T;
    static constexpr bool gathered = sizeof(T) == 4;
    static constexpr int depth = 128 / sizeof(T);  // positions of a step

public:
    WgmmaGradWeight(const ConvProblem& p, int64_t workspace_limit, bool wide)
        : problem_(p), others_(plan_conv_mma(p, 0)), columns_(p), wide_(wide) {
        const Gather gather = geometry_of(p).phase(0);
        windows_ = ConvWindows(gather);
        positions_ = p.n * gather.positions();
        share(workspace_limit);
    }

    int64_t workspace_bytes() const override {
        return std::max(others_->workspace_bytes(), parts_ * problem_.k * columns_.count * 4);
    }

    void run(const ConvArguments& a, Stream stream) const override {
        const bool nothing = positions_ == 0 || problem_.k == 0 || columns_.count == 0;
        if (nothing || !(gathered || all_aligned(16, a.input, a.output))) {
            others_->run(a, stream);
            return;
        }
        auto* const sums = static_cast<float*>(a.workspace);
        wide_ ? multiply<WideGroups>(a, sums, stream) : multiply<NarrowGroups>(a, sums, stream);
        const ConvProblem& p = problem_;
        const FilterSums added{
            sums,    parts_, p.k, columns_.count, p.c, columns_.panel, columns_.channel_blocks, extent(p.filter),
            p.weight};
        launch(add_filter_sums<T>, dim3(static_cast<unsigned>(ceil_div<int64_t>(p.k * columns_.count, kAdded))), kAdded,
               0, stream, static_cast<T*>(a.weight), added);
    }

private:
    // As many parts as occupy a large device, and fit into the workspace.
    void share(int64_t workspace_limit) {
        const int64_t steps = std::max<int64_t>(ceil_div<int64_t>(positions_, depth), 1);
        const int64_t bytes = std::max<int64_t>(problem_.k * columns_.count * 4, 1);
        const int64_t tiles = std::max<int64_t>(wide_ ? tiles_of<WideGroups>() : tiles_of<NarrowGroups>(), 1);
        const int64_t wanted = std::min({kPlannedMultiprocessors / tiles, workspace_limit / bytes, steps});
        steps_ = ceil_div(steps, std::max<int64_t>(wanted, 1));
        parts_ = ceil_div(steps, steps_);
    }

    template <class Shape>
    int64_t tiles_of() const {
        return ceil_div<int64_t>(problem_.k, Shape::rows) * ceil_div<int64_t>(columns_.count, Shape::columns);
    }

    template <class Shape>
    void multiply(const ConvArguments& a, float* sums, Stream stream) const {
        const ConvProblem& p = problem_;
        Gemm<float> g{};
        g.batch = parts_;
        g.m = p.k;
        g.n = columns_.count;
        g.out = sums;
        g.out_strides = {p.k * columns_.count, columns_.count, 1};
        g.epilogue.alpha = 1;
        const int64_t tiles = parts_ * tiles_of<Shape>();
        const auto start = [&](auto kernel, const auto& operands) {
            const auto grid = static_cast<unsigned>(std::min<int64_t>(tiles, multiprocessor_count()));
            launch(kernel, dim3(grid), Shape::threads, Persistent<Shape>::shared_bytes, stream, g, operands);
        };
        const auto steps = static_cast<int>(steps_);
        if constexpr (gathered) {
            const GatheredFilter filter{static_cast<const float*>(a.output),
                                        static_cast<const float*>(a.input),
                                        p.output.w,
                                        p.input.w,
                                        static_cast<int>(p.size.h),
                                        static_cast<int>(p.size.w),
                                        columns_.panel,
                                        static_cast<int>(positions_),
                                        steps,
                                        windows_,
                                        result_map(g),
                                        tiles};
            start(conv_wgmma_grad_weight_gathered<Gathering<Shape, false>>, filter);
        } else {
            const ConvImages input{a.input, p.n, p.c, p.size.h, p.size.w, p.input};
            const FilterOperands filter{
                FilterTiles<Arithmetic, Shape>::TileA::map({a.output, p.k, positions_, 1, 1, p.output.w, 0}),
                windows_map(kTensorElement<Arithmetic>, input, windows_, kPositions),
                result_map(g),
                windows_,
                columns_.channel_blocks,
                tiles,
                steps};
            start(conv_wgmma_grad_weight<Arithmetic, Shape>, filter);
        }
    }

    ConvProblem problem_;
    std::unique_ptr<ConvPlan> others_;  // for runs that these kernels do not take
    ConvWindows windows_;
    FilterColumns columns_;
    int64_t positions_ = 0, steps_ = 1, parts_ = 1;
    bool wide_;
};

}  // namespace

std::vector<std::string> offered_wgmma_grad_weight(const ConvProblem& problem) {
    if (FilterColumns(problem).count <= NarrowGroups::columns) return {kNarrowTile};
    return {kWideTile, kNarrowTile};
}

ConvPlan* plan_wgmma_grad_weight(const ConvProblem& problem, int64_t workspace_limit, const std::string& tile) {
    const bool wide = tile == kWideTile;
    if (problem.dtype == DType::f32) return new WgmmaGradWeight<Tf32Arithmetic>(problem, workspace_limit, wide);
    if (problem.dtype == DType::f16) return new WgmmaGradWeight<HalfArithmetic>(problem, workspace_limit, wide);
    return new WgmmaGradWeight<BfloatArithmetic>(problem, workspace_limit, wide);
}

}  // namespace pycv::cuda
