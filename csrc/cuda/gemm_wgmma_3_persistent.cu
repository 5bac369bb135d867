// Step 3 of Hopper's GEMMs, the one to use: the plans. gemm_wgmma_3_persistent.h has the kernel for what tensor maps
// describe, gemm_wgmma_3_gathered.h that for the rest, gemm_wgmma_3_copies.h what is copied so that they describe it.
//
//     wgmma_3_persistent         f16 and bf16, sums in fp32
//     wgmma_3_persistent/tf32    f32, operands rounded to the 11 bits of precision of tf32
//
// Bound by the tensor cores where m, n and k are large: a tile of 128 x 256 reads 3 / 256 elements of L2 for each
// multiply-add.
#include "gemm_wgmma_3_copies.h"
#include "tile_entry.h"

namespace pycv::cuda {

template <>
void launch_wgmma_3<HalfArithmetic>(const Gemm<half>&, bool, Stream);
template <>
void launch_wgmma_3<BfloatArithmetic>(const Gemm<bfloat16>&, bool, Stream);
template <>
void launch_wgmma_3<Tf32Arithmetic>(const Gemm<float>&, bool, Stream);
template <>
void launch_wgmma_3_gathered<HalfArithmetic>(const Gemm<half>&, bool, Stream);
template <>
void launch_wgmma_3_gathered<BfloatArithmetic>(const Gemm<bfloat16>&, bool, Stream);
template <>
void launch_wgmma_3_gathered<Tf32Arithmetic>(const Gemm<float>&, bool, Stream);

namespace {

// Whether wide tiles are done first: waves of blocks, at the share of its peak that a multiprocessor may reach with
// them, of which the narrow ones cost some (not measured yet: what they read of shared memory lets expect it).
bool wide_is_faster(int64_t batch, int64_t m, int64_t n) {
    constexpr double narrow_rate = 0.85;
    const auto waves = [&](int64_t columns) {
        return ceil_div(batch * ceil_div<int64_t>(m, WideGroups::rows) * ceil_div(n, columns), kPlannedMultiprocessors);
    };
    return narrow_rate * static_cast<double>(waves(WideGroups::columns) * WideGroups::columns) <=
           static_cast<double>(waves(NarrowGroups::columns) * NarrowGroups::columns);
}

const std::string kWideTile = tile_name(WideGroups::rows, WideGroups::columns);
const std::string kNarrowTile = tile_name(NarrowGroups::rows, NarrowGroups::columns);

// out^T = b^T a^T: so that rows of the result are contiguous, or there is but one.
bool computes_transposed(const GemmProblem& p) { return p.out.row == 1 && (p.out.column != 1 || p.n == 1); }

bool wide_is_faster(const GemmProblem& p) {
    return computes_transposed(p) ? wide_is_faster(p.batch, p.n, p.m) : wide_is_faster(p.batch, p.m, p.n);
}

// Nothing speaks for wide tiles where narrow ones are as wide as the result.
std::vector<std::string> offered(const GemmProblem& p, int64_t) {
    const int64_t columns = computes_transposed(p) ? p.m : p.n;
    if (columns <= NarrowGroups::columns) return {kNarrowTile};
    if (wide_is_faster(p)) return {kWideTile, kNarrowTile};
    return {kNarrowTile, kWideTile};
}

template <class Arithmetic>
class PersistentGemm final : public GemmPlan {
    using T = typename Arithmetic::T;

public:
    PersistentGemm(const GemmProblem& p, int64_t workspace_limit, bool wide)
        : problem_(p),
          wide_(wide),
          copies_(choose_copies(gemm({}), wide ? WideGroups::columns : NarrowGroups::columns, workspace_limit)),
          workspace_bytes_(bytes_in_workspace(gemm({}), copies_)),
          of_no_depth_(plan_gemm_mma(p, 0)) {}

    int64_t workspace_bytes() const override { return workspace_bytes_; }

    void run(const GemmArguments& arguments, Stream stream) const override {
        if (problem_.batch == 0 || problem_.m == 0 || problem_.n == 0) return;
        if (problem_.k == 0) {
            of_no_depth_->run(arguments, stream);
            return;
        }
        for_each_grid(with_copies(gemm(arguments), copies_, arguments.workspace, stream), [&](const Gemm<T>& g) {
            if (operands_in_boxes(g) && result_in_boxes(g))
                launch_wgmma_3<Arithmetic>(g, wide_, stream);
            else
                launch_wgmma_3_gathered<Arithmetic>(g, wide_, stream);
        });
    }

private:
    Gemm<T> gemm(const GemmArguments& arguments) const {
        const Gemm<T> g = gemm_of<T>(problem_, arguments);
        return computes_transposed(problem_) ? transposed(g) : g;
    }

    GemmProblem problem_;
    bool wide_;
    OperandCopies copies_;
    int64_t workspace_bytes_;
    std::unique_ptr<GemmPlan> of_no_depth_;
};

GemmPlan* plan_16_bits_in(const GemmProblem& problem, int64_t workspace_limit, const std::string& tile) {
    const bool wide = tile == kWideTile;
    if (problem.dtype == DType::f16) return new PersistentGemm<HalfArithmetic>(problem, workspace_limit, wide);
    return new PersistentGemm<BfloatArithmetic>(problem, workspace_limit, wide);
}
GemmPlan* plan_tf32_in(const GemmProblem& problem, int64_t workspace_limit, const std::string& tile) {
    return new PersistentGemm<Tf32Arithmetic>(problem, workspace_limit, tile == kWideTile);
}

template <GemmTileEntry::Factory factory>
GemmPlan* plan_by_rule(const GemmProblem& problem, int64_t workspace_limit) {
    return factory(problem, workspace_limit, wide_is_faster(problem) ? kWideTile : kNarrowTile);
}

}  // namespace

PYCV_KERNEL("gemm", "wgmma_3_persistent", plan_by_rule<plan_16_bits_in>);
PYCV_KERNEL("gemm", "wgmma_3_persistent/tf32", plan_by_rule<plan_tf32_in>);
PYCV_GEMM_TILES("wgmma_3_persistent", offered, plan_16_bits_in);
PYCV_GEMM_TILES("wgmma_3_persistent/tf32", offered, plan_tf32_in);

}  // namespace pycv::cuda
