// Convolution as a matrix product on tensor cores by mma.sync (sm_80), all passes: the plans. conv_mma_kernel.h has the
// kernel, conv_gather.h what it gathers.
//
//     mma_sync           f16 and bf16, sums in fp32
//     mma_sync/3xtf32    f32, each operand as two of tf32: errors near those of fp32
//     mma_sync/tf32      f32, operands rounded to the 11 bits of precision of tf32
//
// 2 * n * k * out * (c / groups) * filter FLOPs, up to the edges of the tiles; channels count in eights (f32: fours).
// The kernel takes tensors whose channels are contiguous: what is read of others is transposed into the workspace
// first, its pixels so far apart that they are aligned: one pass over the tensor, reading and writing. The weight is
// prepared: its channels contiguous and filled up. Channels that are contiguous but not aligned are copied one by one.
// A prologue is applied in shared memory (conv_mma_kernel.h), whatever the layout.
//
// Not for depthwise and other thin groups: a tile is 64 channels of one group at least.
#include <memory>
#include <utility>

#include "conv_mma.h"
#include "mma_plans.h"
#include "mma_tiles_offered.h"
#include "transpose.h"

namespace pycv::cuda {
namespace {

// Rearranges [channel][c, filter] of every group to what ConvMma::plain is.
struct WeightToPitch {
    int64_t groups, channels, tap_channels, filters, tap_pitch;
    int64_t group_stride;
    Strides strides;  // n: of the channel, c: of the tap channel, w: of the filter position
};

constexpr int kRearranged = 256;

template <class T>
__global__ void rearrange_filters(const T* weight, T* prepared, const WeightToPitch r) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kRearranged + threadIdx.x;
    if (index >= r.groups * r.channels * r.filters * r.tap_pitch) return;
    const int64_t c = index % r.tap_pitch, filter = index / r.tap_pitch % r.filters;
    const int64_t channel = index / r.tap_pitch / r.filters % r.channels;
    const int64_t group = index / r.tap_pitch / r.filters / r.channels;
    const int64_t at = group * r.group_stride + channel * r.strides.n + c * r.strides.c + filter * r.strides.w;
    prepared[index] = c < r.tap_channels ? weight[at] : from_accumulator<T>(0);
}

// A tensor that is read: as it is, or transposed into the workspace so that channels are contiguous.
struct ReadTensor {
    Strides strides{};
    Transposition transposition{};
    int64_t bytes = 0;  // of the copy

    ReadTensor() = default;
    ReadTensor(const Strides& s, int64_t n, int64_t channels, const Spatial& size, int64_t element_bytes) : strides(s) {
        if (s.c == 1 || channels == 1) return;
        const int64_t vector = 16 / element_bytes, pixel = ceil_div(channels, vector) * vector;
        strides = {size.count() * pixel, 1, size.h * size.w * pixel, size.w * pixel, pixel};
        transposition = {n, channels, size.count(), s.n, s.c, strides.n, pixel};
        bytes = ceil_div<int64_t>(n * strides.n * element_bytes, 256) * 256;
    }

    // Where the kernel finds it; `copy` moves past the memory that it takes.
    const void* ready(const void* tensor, char*& copy, DType dtype, Stream stream) const {
        if (bytes == 0) return tensor;
        void* to = std::exchange(copy, copy + bytes);
        transpose(tensor, to, transposition, dtype, stream);
        return to;
    }
};

// The tiles of a pass; the one in the middle for 64 channels.
constexpr MmaTiles kImageTiles = {kLargeTile, kTallTile, kSmallTile};
constexpr MmaTiles kWeightTiles = {kLargeTile, kWideTile, kSmallTile};
constexpr MmaTiles tiles_of(Pass pass) { return pass == Pass::grad_weight ? kWeightTiles : kImageTiles; }

// The matrix product of a convolution: one of each group and phase, the size of those of the first phase, which is the
// largest.
struct ConvProduct {
    int64_t count = 0, rows = 0, columns = 0, depth = 0;
};

class MmaConvPlan : public ConvPlan {
public:
    virtual std::vector<std::string> offered() const = 0;
};

template <class Arithmetic>
class MmaConv final : public MmaConvPlan {
    using T = typename Arithmetic::T;

public:
    MmaConv(const ConvProblem& problem, int64_t workspace_limit, MmaTiles tiles) : problem_(problem) {
        const int64_t c = problem.c / problem.groups, k = problem.k / problem.groups;
        conv_.geometry = geometry_of(problem);
        conv_.n = static_cast<int>(problem.n);
        conv_.groups = static_cast<int>(problem.groups);
        const bool from_input = problem.pass != Pass::grad_input;
        source_ =
            from_input ? read(problem.input, problem.c, problem.size) : read(problem.output, problem.k, problem.out);
        conv_.tap_channels = static_cast<int>(from_input ? c : k);
        conv_.channels = static_cast<int>(from_input ? k : c);
        conv_.source_strides = source_.strides;
        conv_.source_group = conv_.tap_channels * source_.strides.c;
        if (problem.pass == Pass::grad_weight) {
            plain_ = read(problem.output, problem.k, problem.out);
            conv_.plain_strides = plain_.strides;
            conv_.plain_group = k * plain_.strides.c;
            conv_.computed_strides = problem.weight;
            conv_.computed_group = k * problem.weight.n;
        } else {
            conv_.plain_group = conv_.channels * conv_.weight_pitch();
            conv_.computed_strides = problem.pass == Pass::forward ? problem.output : problem.input;
            conv_.computed_group = conv_.channels * conv_.computed_strides.c;
            conv_.residual_strides = problem.residual;
            conv_.relu = problem.relu;
        }
        product_ = product();
        share(tiles, std::max<int64_t>(workspace_limit - source_.bytes - plain_.bytes, 0));
    }

    std::vector<std::string> offered() const override {
        return offered_tiles(tiles_of(problem_.pass), tile_.tile, product_.rows, product_.columns);
    }

    int64_t workspace_bytes() const override {
        const int64_t sums = conv_.parts == 1 ? 0 : conv_.parts * conv_.tiles() * tile_.tile_elements() * 4;
        return source_.bytes + plain_.bytes + sums;
    }

    int64_t prepared_weight_bytes() const override {
        if (problem_.pass == Pass::grad_weight) return 0;
        return conv_.groups * conv_.plain_group * static_cast<int64_t>(sizeof(T));
    }

    void prepare_weight(const void* weight, void* prepared, Stream stream) const override {
        if (prepared_weight_bytes() == 0) return;
        Strides strides = problem_.weight;
        if (problem_.pass == Pass::grad_input) std::swap(strides.n, strides.c);
        const WeightToPitch r{conv_.groups,
                              conv_.channels,
                              conv_.tap_channels,
                              problem_.filter.count(),
                              static_cast<int64_t>(conv_.tap_vectors()) * widest_vector<T>,
                              problem_.k / problem_.groups * problem_.weight.n,
                              strides};
        const int64_t count = conv_.groups * conv_.plain_group;
        launch(rearrange_filters<T>, dim3(static_cast<unsigned>(ceil_div<int64_t>(count, kRearranged))), kRearranged, 0,
               stream, static_cast<const T*>(weight), static_cast<T*>(prepared), r);
    }

    void run(const ConvArguments& a, Stream stream) const override {
        if (conv_.tiles() == 0) return;
        ConvMma<T> conv = conv_;
        char* workspace = static_cast<char*>(a.workspace);
        const bool grad_weight = problem_.pass == Pass::grad_weight, grad_input = problem_.pass == Pass::grad_input;
        conv.source = tensor(source_, grad_input ? a.output : a.input, workspace, stream);
        conv.source_vectors = come_as_vectors(conv.source, conv.source_strides, conv.tap_channels);
        if (grad_weight) {
            conv.plain = tensor(plain_, a.output, workspace, stream);
            conv.plain_vectors = come_as_vectors(conv.plain, conv.plain_strides, conv.channels);
        } else {
            conv.plain = static_cast<const T*>(a.weight);
            conv.prologue = {problem_, a};
            conv.bias = static_cast<const T*>(problem_.bias ? a.bias : nullptr);
            conv.residual = static_cast<const T*>(problem_.has_residual ? a.residual : nullptr);
        }
        conv.computed = static_cast<T*>(grad_weight ? a.weight : grad_input ? a.input : a.output);
        conv.sums = reinterpret_cast<float*>(workspace);
        launch_conv_mma<Arithmetic>(conv, grad_weight, tile_.tile, stream);
    }

private:
    ReadTensor read(const Strides& strides, int64_t channels, const Spatial& size) const {
        return {strides, problem_.n, channels, size, static_cast<int64_t>(sizeof(T))};
    }

    const T* tensor(const ReadTensor& tensor, const void* data, char*& workspace, Stream stream) const {
        return static_cast<const T*>(tensor.ready(data, workspace, problem_.dtype, stream));
    }

    // Whether the channels of every pixel and group begin at a multiple of 16 bytes.
    bool come_as_vectors(const void* data, const Strides& s, int64_t group) const {
        constexpr int64_t N = widest_vector<T>;
        return all_aligned(16, data) && s.n % N == 0 && s.d % N == 0 && s.h % N == 0 && s.w % N == 0 &&
               (conv_.groups == 1 || group % N == 0);
    }

    ConvProduct product() const {
        if (conv_.geometry.phase_count() == 0) return {};
        const Gather gather = conv_.geometry.phase(0);
        const bool grad_weight = problem_.pass == Pass::grad_weight;
        const int64_t positions = gather.positions() * problem_.n, channels = conv_.channels;
        const int64_t taps = (grad_weight ? gather.taps() : problem_.filter.count()) *
                             static_cast<int64_t>(conv_.tap_vectors()) * widest_vector<T>;
        const int64_t count = static_cast<int64_t>(conv_.groups) * conv_.geometry.phase_count();
        if (grad_weight) return {count, channels, taps, positions};
        return {count, positions, channels, taps};
    }

    // Tiles, and where they are few, parts of the depth.
    void share(MmaTiles tiles, int64_t workspace_limit) {
        conv_.parts = 1;
        if (product_.count == 0) return;
        tile_ = choose_mma_tile(tiles, product_.count, product_.rows, product_.columns, product_.depth, kMmaDepth<T>,
                                workspace_limit);
        conv_.down = tile_.down;
        conv_.across = tile_.across;
        conv_.parts = tile_.parts;
        conv_.part_depth = problem_.pass == Pass::grad_weight ? tile_.part_depth : tile_.part_depth / widest_vector<T>;
    }

    ConvProblem problem_;
    ConvMma<T> conv_{};
    ReadTensor source_, plain_;
    ConvProduct product_;
    MmaTileChoice tile_;
};

MmaConvPlan* plan_of(const ConvProblem& problem, int64_t workspace_limit, MmaTiles tiles) {
    if (problem.dtype == DType::f16) return new MmaConv<HalfArithmetic>(problem, workspace_limit, tiles);
    if (problem.dtype == DType::bf16) return new MmaConv<BfloatArithmetic>(problem, workspace_limit, tiles);
    return new MmaConv<Tf32Arithmetic>(problem, workspace_limit, tiles);
}
MmaConvPlan* plan_of_3xtf32(const ConvProblem& problem, int64_t workspace_limit, MmaTiles tiles) {
    return new MmaConv<Tf32x3Arithmetic>(problem, workspace_limit, tiles);
}

using Maker = MmaConvPlan* (*)(const ConvProblem&, int64_t, MmaTiles);

template <Maker make>
ConvPlan* plan_by_rule(const ConvProblem& problem, int64_t workspace_limit) {
    return make(problem, workspace_limit, tiles_of(problem.pass));
}
template <Maker make>
ConvPlan* plan_in(const ConvProblem& problem, int64_t workspace_limit, const std::string& tile) {
    return make(problem, workspace_limit, {tile_of(tile)});
}
template <Maker make>
std::vector<std::string> offered(const ConvProblem& problem, int64_t workspace_limit) {
    return std::unique_ptr<MmaConvPlan>(make(problem, workspace_limit, tiles_of(problem.pass)))->offered();
}

}  // namespace

ConvPlan* plan_conv_mma(const ConvProblem& problem, int64_t workspace_limit) {
    return plan_by_rule<plan_of>(problem, workspace_limit);
}

PYCV_KERNEL("conv", "mma_sync", plan_by_rule<plan_of>);
PYCV_KERNEL("conv", "mma_sync/3xtf32", plan_by_rule<plan_of_3xtf32>);
PYCV_KERNEL("conv", "mma_sync/tf32", plan_by_rule<plan_of>);
PYCV_CONV_TILES("mma_sync", offered<plan_of>, plan_in<plan_of>);
PYCV_CONV_TILES("mma_sync/3xtf32", offered<plan_of_3xtf32>, plan_in<plan_of_3xtf32>);
PYCV_CONV_TILES("mma_sync/tf32", offered<plan_of>, plan_in<plan_of>);

}  // namespace pycv::cuda
