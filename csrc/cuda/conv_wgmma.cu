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

#include "conv_wgmma_grad_weight.h"
#include "conv_wgmma_phases.h"

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

// The tile that is done first: waves of blocks, at the share of its peak that a multiprocessor may reach with it (not
// measured yet: what it reads of shared memory for a multiply-add lets expect it).
GroupColumns choose_columns(int64_t positions, int64_t channels) {
    constexpr struct {
        GroupColumns columns;
        double rate;
    } rows[] = {{GroupColumns::wide, 1.0}, {GroupColumns::narrow, 0.85}, {GroupColumns::thin, 0.6}};
    GroupColumns best = GroupColumns::thin;
    double least = 0;
    for (const auto& row : rows) {
        const auto columns = static_cast<int64_t>(row.columns);
        const int64_t tiles = ceil_div<int64_t>(positions, WideGroups::rows) * ceil_div(channels, columns);
        const double time = static_cast<double>(ceil_div(tiles, kPlannedMultiprocessors) * columns) / row.rate;
        if (least != 0 && time >= least) continue;
        least = time;
        best = row.columns;
    }
    return best;
}

// Of a dense tensor of contiguous channels: its pixels as the rows of a matrix.
MatrixStrides pixels_of(const Strides& s) { return {0, s.w, s.c}; }

template <class Arithmetic>
class WgmmaConv final : public ConvPlan {
    using T = typename Arithmetic::T;

public:
    explicit WgmmaConv(const ConvProblem& p)
        : problem_(p), forward_(p.pass == Pass::forward), unaligned_(plan_conv_mma(p, 0)), geometry_(geometry_of(p)) {
        positions_ = p.n * (forward_ ? p.out : p.size).count();
        if (positions_ > 0) columns_ = choose_columns(positions_, forward_ ? p.k : p.c);
    }

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
    int64_t positions_ = 0;
    GroupColumns columns_ = GroupColumns::thin;
};

ConvPlan* plan_16_bits(const ConvProblem& problem, int64_t workspace_limit) {
    if (problem.pass == Pass::grad_weight) return plan_wgmma_grad_weight(problem, workspace_limit);
    if (problem.dtype == DType::f16) return new WgmmaConv<HalfArithmetic>(problem);
    return new WgmmaConv<BfloatArithmetic>(problem);
}
ConvPlan* plan_tf32(const ConvProblem& problem, int64_t workspace_limit) {
    if (problem.pass == Pass::grad_weight) return plan_wgmma_grad_weight(problem, workspace_limit);
    return new WgmmaConv<Tf32Arithmetic>(problem);
}

}  // namespace

PYCV_KERNEL("conv", "wgmma", plan_16_bits);
PYCV_KERNEL("conv", "wgmma/tf32", plan_tf32);

}  // namespace pycv::cuda
