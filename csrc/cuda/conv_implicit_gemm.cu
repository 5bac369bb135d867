// Convolution as a matrix product whose im2col operand is gathered tile by tile, all passes: conv_tile_kernel.h has the
// kernel, conv_gather.h what it gathers.
//
// 2 * n * k * out * (c / groups) * filter FLOPs, up to the edges of the tiles. The weight is prepared: rearranged so
// that the computed channels lie side by side. Each block reads (lines + columns) elements per row of its depth and
// makes lines * columns multiply-adds of them: with tiles of 128 x 64, 11 FLOPs per fp32 byte of L2. From memory
// comes, where L2 holds what neighbouring blocks share, each tensor once. Tiles too few to fill a GPU share the depth
// among several blocks, at 8 bytes per fp32 sum and split.
//
// Not for depthwise and other thin groups: a tile is at least 32 channels of one group wide.
#include <utility>

#include "conv_tiles.h"
#include "dtypes.h"

namespace pycv::cuda {
namespace {

constexpr int64_t kBlocks = 384;         // that a large GPU wants at least, at three per multiprocessor
constexpr int64_t kSmallestSplit = 128;  // rows: fewer are not worth the sums that have to be added

// Rearranges [column][c, filter] of every group to what ConvTiles::plain is, filled up with columns of 0. Threads along
// the columns, blocks of few rows: what a warp leaves of a cache line its neighbours take.
struct WeightRearrangement {
    int64_t groups, columns, channels, filters, plain_columns;
    int64_t group_stride;
    Strides strides;  // n: of the column, c: of the channel, w: of the filter position
    bool channels_inside;
};

constexpr int kRearranged = 256;

template <class T>
__global__ void rearrange_weight(const T* weight, T* prepared, const WeightRearrangement r) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kRearranged + threadIdx.x;
    const int64_t rows = r.channels * r.filters;
    if (index >= r.groups * rows * r.plain_columns) return;
    const int64_t column = index % r.plain_columns, row = index / r.plain_columns % rows;
    const int64_t group = index / r.plain_columns / rows;
    const int64_t c = r.channels_inside ? row % r.channels : row / r.filters;
    const int64_t filter = r.channels_inside ? row / r.channels : row % r.filters;
    const int64_t at = group * r.group_stride + column * r.strides.n + c * r.strides.c + filter * r.strides.w;
    prepared[index] = column < r.columns ? weight[at] : from_accumulator<T>(0);
}

// Whether elements from any line or column of a tile on come as whole, aligned vectors: their number, where they begin
// and every stride but their own are multiples of the vector.
template <class T, class... Counts>
bool come_as_vectors(const void* data, Counts... counts) {
    return all_aligned(16, data) && ((static_cast<int64_t>(counts) % widest_vector<T> == 0) && ...);
}

template <class T>
class ImplicitGemm final : public ConvPlan {
public:
    ImplicitGemm(const ConvProblem& problem, int64_t workspace_limit) : problem_(problem) {
        const bool forward = problem.pass == Pass::forward;
        const int64_t c = problem.c / problem.groups, k = problem.k / problem.groups;
        tiles_.geometry = geometry_of(problem);
        tiles_.n = static_cast<int>(problem.n);
        tiles_.groups = static_cast<int>(problem.groups);
        if (problem.pass == Pass::grad_weight) {
            set_source(problem.input, c);
            tiles_.columns = tiles_.plain_columns = static_cast<int>(k);
            tiles_.plain_strides = problem.output;
            tiles_.plain_group = k * problem.output.c;
            set_computed(problem.weight, k * problem.weight.n);
            tiles_.lines_contiguous = true;
        } else {
            set_source(forward ? problem.input : problem.output, forward ? c : k);
            tiles_.columns = static_cast<int>(forward ? k : c);
            tiles_.plain_columns = ceil_div(tiles_.columns, widest_vector<T>) * widest_vector<T>;
            tiles_.plain_strides = {0, 1, 0, 0, 0};
            tiles_.plain_group = tiles_.tap_channels * problem.filter.count() * tiles_.plain_columns;
            const Strides& computed = forward ? problem.output : problem.input;
            set_computed(computed, tiles_.columns * computed.c);
            tiles_.lines_contiguous = computed.c != 1;
            tiles_.residual_strides = problem.residual;
            tiles_.relu = problem.relu;
        }
        share(workspace_limit);
    }

    int64_t workspace_bytes() const override { return tiles_.splits > 1 ? tiles_.splits * split_bytes() : 0; }

    int64_t prepared_weight_bytes() const override {
        if (problem_.pass == Pass::grad_weight) return 0;
        return tiles_.groups * tiles_.plain_group * static_cast<int64_t>(sizeof(T));
    }

    void prepare_weight(const void* weight, void* prepared, Stream stream) const override {
        if (prepared_weight_bytes() == 0) return;
        const bool forward = problem_.pass == Pass::forward;
        Strides strides = problem_.weight;
        if (!forward) std::swap(strides.n, strides.c);
        const WeightRearrangement r{problem_.groups,
                                    tiles_.columns,
                                    tiles_.tap_channels,
                                    problem_.filter.count(),
                                    tiles_.plain_columns,
                                    problem_.k / problem_.groups * problem_.weight.n,
                                    strides,
                                    tiles_.channels_inside};
        const int64_t count = tiles_.groups * tiles_.plain_group;
        launch(rearrange_weight<T>, dim3(static_cast<unsigned>(ceil_div<int64_t>(count, kRearranged))), kRearranged, 0,
               stream, static_cast<const T*>(weight), static_cast<T*>(prepared), r);
    }

    void run(const ConvArguments& a, Stream stream) const override {
        if (lines() == 0 || tiles_.columns == 0) return;
        ConvTiles<T> tiles = tiles_;
        tiles.sums = static_cast<accumulator_t<T>*>(a.workspace);
        if (problem_.pass == Pass::grad_weight) {
            tiles.source = static_cast<const T*>(a.input);
            tiles.plain = static_cast<const T*>(a.output);
            tiles.computed = static_cast<T*>(a.weight);
            set_lanes(tiles);
            launch_grad_weight_tiles(tiles, stream);
            return;
        }
        const bool forward = problem_.pass == Pass::forward;
        tiles.source = static_cast<const T*>(forward ? a.input : a.output);
        tiles.plain = static_cast<const T*>(a.weight);
        tiles.prologue = {problem_, a};
        tiles.computed = static_cast<T*>(forward ? a.output : a.input);
        tiles.bias = static_cast<const T*>(problem_.bias ? a.bias : nullptr);
        tiles.residual = static_cast<const T*>(problem_.has_residual ? a.residual : nullptr);
        set_lanes(tiles);
        launch_gather_tiles(tiles, stream);
    }

private:
    void set_source(const Strides& strides, int64_t channels) {
        tiles_.source_strides = strides;
        tiles_.tap_channels = static_cast<int>(channels);
        tiles_.source_group = channels * strides.c;
        tiles_.channels_inside = strides.c == 1;
    }

    void set_computed(const Strides& strides, int64_t group) {
        tiles_.computed_strides = strides;
        tiles_.computed_group = group;
    }

    // Of the first phase, which is the largest.
    int64_t lines() const {
        if (tiles_.geometry.phase_count() == 0) return 0;
        const Gather gather = tiles_.geometry.phase(0);
        return problem_.pass == Pass::grad_weight ? gather.taps() * tiles_.tap_channels
                                                  : gather.positions() * problem_.n;
    }

    // At most: the phases differ in their taps.
    int64_t depth() const {
        if (problem_.pass == Pass::grad_weight) return tiles_.geometry.phase(0).positions() * problem_.n;
        return problem_.filter.count() * tiles_.tap_channels;
    }

    // Tiles, and where they are few, splits of the depth.
    void share(int64_t workspace_limit) {
        with_shape<T>(tiles_.columns, [&](auto shape) {
            using Shape = decltype(shape);
            tiles_.line_tiles = ceil_div<int64_t>(lines(), Shape::lines);
            tiles_.column_tiles = ceil_div<int64_t>(tiles_.columns, Shape::columns);
            tile_sums_ = Shape::sums * Shape::threads;
        });
        const int64_t all = max(tiles_.tiles(), int64_t{1});
        int64_t splits = min(ceil_div(kBlocks, all), depth() / kSmallestSplit);
        splits = max(min(splits, workspace_limit / max(split_bytes(), int64_t{1})), int64_t{1});
        const int64_t step = Shapes<T>::Wide::depth;
        tiles_.split_depth = max(ceil_div(ceil_div(depth(), splits), step) * step, step);
        tiles_.splits = max(ceil_div(depth(), tiles_.split_depth), int64_t{1});
    }

    int64_t split_bytes() const { return tiles_.tiles() * tile_sums_ * static_cast<int64_t>(sizeof(accumulator_t<T>)); }

    // Depends on where the tensors lie, which only run() knows.
    void set_lanes(ConvTiles<T>& t) const {
        const Strides &s = t.source_strides, &o = t.plain_strides;
        if (problem_.pass == Pass::grad_weight) {
            const bool source = come_as_vectors<T>(t.source, t.tap_channels, s.n, s.d, s.h, s.w);
            const bool plain = come_as_vectors<T>(t.plain, t.columns, o.n, o.d, o.h, o.w);
            t.source_lanes = s.c != 1 ? Lanes::rows : source ? Lanes::vectors : Lanes::lines;
            t.plain_lanes = o.c != 1 ? Lanes::rows : plain ? Lanes::vectors : Lanes::lines;
            return;
        }
        const bool source = is_matrix() && come_as_vectors<T>(t.source, t.geometry.phase(0).positions(), s.n, s.c);
        t.source_lanes = s.c == 1 && t.tap_channels > 1 ? Lanes::rows : source ? Lanes::vectors : Lanes::lines;
        t.plain_lanes = come_as_vectors<T>(t.plain) ? Lanes::vectors : Lanes::lines;
    }

    // Whether the positions of an image are the elements of a plane of the source, in their order.
    bool is_matrix() const {
        const Geometry& g = tiles_.geometry;
        const Strides& s = tiles_.source_strides;
        const Extent from = g.source_size(), to = g.strided_source ? g.out : g.size;
        const Gather phase = g.phase(0);
        return g.phase_count() == 1 && problem_.filter.count() == 1 && problem_.stride.count() == 1 &&
               problem_.padding.d == 0 && problem_.padding.h == 0 && problem_.padding.w == 0 && from.d == to.d &&
               from.h == to.h && from.w == to.w && phase.taps() == 1 && s.w == 1 && s.h == to.w && s.d == s.h * to.h;
    }

    ConvProblem problem_;
    ConvTiles<T> tiles_{};
    int64_t tile_sums_;
};

ConvPlan* plan_implicit_gemm(const ConvProblem& problem, int64_t workspace_limit) {
    return of_dtype(problem.dtype,
                    [&]<class T>() -> ConvPlan* { return new ImplicitGemm<T>(problem, workspace_limit); });
}

}  // namespace

PYCV_KERNEL("conv", "implicit_gemm", plan_implicit_gemm);

}  // namespace pycv::cuda
