// GEMM on tensor cores by mma.sync, for every GPU from sm_80 on: the plans. gemm_mma.h has the kernel.
//
//     mma_sync           f16 and bf16, sums in fp32
//     mma_sync/3xtf32    f32, each operand as two of tf32: three times the multiplications, errors near those of fp32
//     mma_sync/tf32      f32, operands rounded to the 11 bits of precision of tf32
//
// Bound by the tensor cores where m, n and k are large: a tile of 128 x 128 reads 2 / 128 elements of L2 for each
// multiply-add.
#include "gemm_mma.h"
#include "mma_plans.h"
#include "mma_tiles_offered.h"

namespace pycv::cuda {

template <>
void launch_gemm_mma<HalfArithmetic>(const Gemm<half>&, MmaTileIndex, const MmaParts&, Stream);
template <>
void launch_gemm_mma<BfloatArithmetic>(const Gemm<bfloat16>&, MmaTileIndex, const MmaParts&, Stream);
template <>
void launch_gemm_mma<Tf32Arithmetic>(const Gemm<float>&, MmaTileIndex, const MmaParts&, Stream);
template <>
void launch_gemm_mma<Tf32x3Arithmetic>(const Gemm<float>&, MmaTileIndex, const MmaParts&, Stream);

namespace {

constexpr MmaTiles kAllTiles = {kLargeTile, kSmallTile};

// out^T = b^T a^T: so that rows of the result are contiguous
bool computes_transposed(const GemmProblem& p) { return p.out.column != 1 && p.out.row == 1; }

struct ResultSize {
    int64_t rows, columns;
};
ResultSize computed(const GemmProblem& p) {
    return computes_transposed(p) ? ResultSize{p.n, p.m} : ResultSize{p.m, p.n};
}

// One of these tiles, and the parts of k.
MmaTileChoice choose(const GemmProblem& p, MmaTiles tiles, int64_t workspace_limit) {
    const auto [rows, columns] = computed(p);
    const int64_t depth = p.dtype == DType::f32 ? kMmaDepth<float> : kMmaDepth<half>;
    return choose_mma_tile(tiles, p.batch, rows, columns, p.k, depth, workspace_limit);
}

std::vector<std::string> offered(const GemmProblem& p, int64_t workspace_limit) {
    const auto [rows, columns] = computed(p);
    return offered_tiles(kAllTiles, choose(p, kAllTiles, workspace_limit).tile, rows, columns);
}

template <class Arithmetic>
class MmaGemm final : public GemmPlan {
    using T = typename Arithmetic::T;

public:
    MmaGemm(const GemmProblem& p, int64_t workspace_limit, MmaTiles tiles)
        : problem_(p), transpose_(computes_transposed(p)), choice_(choose(p, tiles, workspace_limit)) {}

    int64_t workspace_bytes() const override {
        if (choice_.parts == 1) return 0;
        return problem_.batch * choice_.parts * choice_.tiles() * choice_.tile_elements() *
               static_cast<int64_t>(sizeof(float));
    }

    void run(const GemmArguments& arguments, Stream stream) const override {
        if (problem_.m == 0 || problem_.n == 0) return;
        const Gemm<T> whole = gemm_of<T>(problem_, arguments);
        const MmaParts parts{choice_.parts, choice_.part_depth, static_cast<float*>(arguments.workspace)};
        for_each_grid(transpose_ ? transposed(whole) : whole,
                      [&](const Gemm<T>& g) { launch_gemm_mma<Arithmetic>(g, choice_.tile, parts, stream); });
    }

private:
    GemmProblem problem_;
    bool transpose_;
    MmaTileChoice choice_;
};

GemmPlan* plan_of(const GemmProblem& problem, int64_t workspace_limit, MmaTiles tiles) {
    if (problem.dtype == DType::f16) return new MmaGemm<HalfArithmetic>(problem, workspace_limit, tiles);
    if (problem.dtype == DType::bf16) return new MmaGemm<BfloatArithmetic>(problem, workspace_limit, tiles);
    return new MmaGemm<Tf32Arithmetic>(problem, workspace_limit, tiles);
}
GemmPlan* plan_of_3xtf32(const GemmProblem& problem, int64_t workspace_limit, MmaTiles tiles) {
    return new MmaGemm<Tf32x3Arithmetic>(problem, workspace_limit, tiles);
}

using Maker = GemmPlan* (*)(const GemmProblem&, int64_t, MmaTiles);

template <Maker make>
GemmPlan* plan_by_rule(const GemmProblem& problem, int64_t workspace_limit) {
    return make(problem, workspace_limit, kAllTiles);
}
template <Maker make>
GemmPlan* plan_in(const GemmProblem& problem, int64_t workspace_limit, const std::string& tile) {
    return make(problem, workspace_limit, {tile_of(tile)});
}

}  // namespace

GemmPlan* plan_gemm_mma(const GemmProblem& problem, int64_t workspace_limit) {
    return plan_of(problem, workspace_limit, kAllTiles);
}

PYCV_KERNEL("gemm", "mma_sync", plan_by_rule<plan_of>);
PYCV_KERNEL("gemm", "mma_sync/3xtf32", plan_by_rule<plan_of_3xtf32>);
PYCV_KERNEL("gemm", "mma_sync/tf32", plan_by_rule<plan_of>);
PYCV_GEMM_TILES("mma_sync", offered, plan_in<plan_of>);
PYCV_GEMM_TILES("mma_sync/3xtf32", offered, plan_in<plan_of_3xtf32>);
PYCV_GEMM_TILES("mma_sync/tf32", offered, plan_in<plan_of>);

}  // namespace pycv::cuda
