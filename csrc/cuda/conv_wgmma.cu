// Convolution on Hopper's tensor cores (sm_90a): the plans of forward and grad_input. conv_wgmma.h has the kernel,
// conv_wgmma_phases.h that of strided grad_input, conv_wgmma_grad_weight.cu that of grad_weight and its plan.
//
//     wgmma         f16 and bf16, sums in fp32
//     wgmma/tf32    f32, operands rounded to the 11 bits of precision of tf32
//
// 2 * n * k * out * c * filter FLOPs, up to the edges of the tiles: 128 positions, 128 bytes of tap channels. Reads
// each element of the source once for each filter position and tile of channels, from L2 nearly always. Takes dense
// images of contiguous channels, of one group. The weight is prepared as for mma_sync, which runs where an address is
// not aligned to 16 bytes.
#include <memory>
#include <string>
#include <vector>

#include "conv_wgmma_grad_weight.h"
#include "conv_wgmma_phases.h"
#include "tile_entry.h"

namespace pycv::cuda {

template <>
void launch_conv_wgmma<HalfArithmetic>(const Gemm<half>&, const ConvImages&, const ConvWeight&, const ConvWindows&,
                                       GroupColumns, Stream);
template <>
void launch_conv_wgmma<BfloatArithmetic>(const Gemm<bfloat16>&, const ConvImages&, const ConvWeight&,
                                         const ConvWindows&, GroupColumns, Stream);
template <>
void launch_conv_wgmma<Tf32Arithmetic>(const Gemm<float>&, const ConvImages&, const ConvWeight&, const ConvWindows&,
                                       GroupColumns, Stream);
template <>
void launch_conv_wgmma_phases<HalfArithmetic>(const Gemm<half>&, const ConvImages&, const ConvImages&,
                                              const ConvWeight&, const Geometry&, GroupColumns, Stream);
template <>
void launch_conv_wgmma_phases<BfloatArithmetic>(const Gemm<bfloat16>&, const ConvImages&, const ConvImages&,
                                                const ConvWeight&, const Geometry&, GroupColumns, Stream);
template <>
void launch_conv_wgmma_phases<Tf32Arithmetic>(const Gemm<float>&, const ConvImages&, const ConvImages&,
                                              const ConvWeight&, const Geometry&, GroupColumns, Stream);

namespace {

// The share of its peak that a multiprocessor may reach with a tile: not measured yet, what it reads of shared memory
// for a multiply-add lets expect it.
constexpr struct {
    GroupColumns columns;
    double rate;
} kColumns[] = {{GroupColumns::wide, 1.0}, {GroupColumns::narrow, 0.85}, {GroupColumns::thin, 0.6}};

int64_t positions_of(const ConvProblem& p) { return p.n * (p.pass == Pass::forward ? p.out : p.size).count(); }
int64_t channels_of(const ConvProblem& p) { return p.pass == Pass::forward ? p.k : p.c; }

// The tile that is done first: waves of blocks, each as long as it is wide.
GroupColumns choose_columns(const ConvProblem& p) {
    const int64_t rows = ceil_div<int64_t>(positions_of(p), WideGroups::rows);
    GroupColumns best = GroupColumns::thin;
    double least = 0;
    for (const auto& row : kColumns) {
        const auto columns = static_cast<int64_t>(row.columns);
        const int64_t tiles = rows * ceil_div(channels_of(p), columns);
        const double time = static_cast<double>(ceil_div(tiles, kPlannedMultiprocessors) * columns) / row.rate;
        if (least != 0 && time >= least) continue;
        least = time;
        best = row.columns;
    }
    return best;
}

std::string name_of(GroupColumns columns) { return tile_name(WideGroups::rows, static_cast<int>(columns)); }

// None of which half would do.
std::vector<std::string> offered(const ConvProblem& p, int64_t workspace_limit) {
    if (p.pass == Pass::grad_weight) return offered_wgmma_grad_weight(p);
    const GroupColumns rule = choose_columns(p);
    std::vector<std::string> names{name_of(rule)};
    for (const auto& row : kColumns) {
        const bool halved =
            row.columns != GroupColumns::thin && 2 * channels_of(p) <= static_cast<int64_t>(row.columns);
        if (row.columns != rule && !halved) names.push_back(name_of(row.columns));
    }
    return names;
}

GroupColumns columns_of(const std::string& tile) {
    for (const auto& row : kColumns)
        if (tile == name_of(row.columns)) return row.columns;
    return GroupColumns::thin;
}

// Of a dense tensor of contiguous channels: its pixels as the rows of a matrix.
MatrixStrides pixels_of(const Strides& s) { return {0, s.w, s.c}; }

template <class Arithmetic>
class WgmmaConv final : public ConvPlan {
    using T = typename Arithmetic::T;

public:
    WgmmaConv(const ConvProblem& p, GroupColumns columns)
        : problem_(p),
          forward_(p.pass == Pass::forward),
          unaligned_(plan_conv_mma(p, 0)),
          geometry_(geometry_of(p)),
          positions_(positions_of(p)),
          columns_(columns) {}

    int64_t workspace_bytes() const override { return unaligned_->workspace_bytes(); }
    int64_t prepared_weight_bytes() const override { return unaligned_->prepared_weight_bytes(); }
    void prepare_weight(const void* weight, void* prepared, Stream stream) const override {
        unaligned_->prepare_weight(weight, prepared, stream);
    }

    void run(const ConvArguments& a, Stream stream) const override {
        if (positions_ == 0 || prepared_weight_bytes() == 0 || !all_aligned(16, a.input, a.weight, a.output)) {
            unaligned_->run(a, stream);
            return;
        }
        const ConvProblem& p = problem_;
        const int64_t tap_channels = forward_ ? p.c : p.k, channels = forward_ ? p.k : p.c;
        const Spatial& size = forward_ ? p.size : p.out;
        const ConvImages source{forward_ ? a.input : a.output, p.n, tap_channels, size.h, size.w,
                                forward_ ? p.input : p.output};
        constexpr int64_t N = widest_vector<T>;
        const ConvWeight weight{a.weight, channels, p.filter.count(), ceil_div(tap_channels, N) * N};
        const Gemm<T> g = result(a, channels);
        if (forward_ || p.stride.h * p.stride.w == 1) {
            launch_conv_wgmma<Arithmetic>(g, source, weight, ConvWindows(geometry_.phase(0)), columns_, stream);
        } else {
            const ConvImages computed{a.input, p.n, channels, p.size.h, p.size.w, p.input};
            launch_conv_wgmma_phases<Arithmetic>(g, computed, source, weight, geometry_, columns_, stream);
        }
    }

private:
    Gemm<T> result(const ConvArguments& a, int64_t channels) const {
        const MatrixStrides out = pixels_of(forward_ ? problem_.output : problem_.input);
        const auto* bias = static_cast<const T*>(problem_.bias ? a.bias : nullptr);
        const auto* residual = static_cast<const T*>(problem_.has_residual ? a.residual : nullptr);
        return {1,
                positions_,
                channels,
                0,
                {},
                {},
                static_cast<T*>(forward_ ? a.output : a.input),
                out,
                {1, 1, bias, 0, 1, {residual, pixels_of(problem_.residual)}, problem_.relu}};
    }

    ConvProblem problem_;
    bool forward_;
    std::unique_ptr<ConvPlan> unaligned_;
    Geometry geometry_;
    int64_t positions_;
    GroupColumns columns_;
};

ConvPlan* plan_in(const ConvProblem& problem, int64_t workspace_limit, const std::string& tile) {
    if (problem.pass == Pass::grad_weight) return plan_wgmma_grad_weight(problem, workspace_limit, tile);
    const GroupColumns columns = columns_of(tile);
    if (problem.dtype == DType::f16) return new WgmmaConv<HalfArithmetic>(problem, columns);
    if (problem.dtype == DType::bf16) return new WgmmaConv<BfloatArithmetic>(problem, columns);
    return new WgmmaConv<Tf32Arithmetic>(problem, columns);
}
ConvPlan* plan_by_rule(const ConvProblem& problem, int64_t workspace_limit) {
    return plan_in(problem, workspace_limit, offered(problem, workspace_limit).front());
}

}  // namespace

PYCV_KERNEL("conv", "wgmma", plan_by_rule);
PYCV_KERNEL("conv", "wgmma/tf32", plan_by_rule);
PYCV_CONV_TILES("wgmma", offered, plan_in);
PYCV_CONV_TILES("wgmma/tf32", offered, plan_in);

}  // namespace pycv::cuda
