// GEMM on tensor cores by mma.sync, for every GPU from sm_80 on: the plans. gemm_mma.h has the kernel.
//
//     mma_sync           f16 and bf16, sums in fp32
//     mma_sync/3xtf32    f32, each operand as two of tf32: three times the multiplications, errors near those of fp32
//     mma_sync/tf32      f32, operands rounded to the 11 bits of precision of tf32
//
// Bound by the tensor cores where m, n and k are large: a tile of 128 x 128 reads 2 / 128 elements of L2 for each
// multiply-add.
#include "gemm_mma.h"
#include "gemm_tile_entry.h"
#include "mma_plans.h"

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

using Tiles = std::initializer_list<MmaTileIndex>;
constexpr Tiles kAllTiles = {kLargeTile, kSmallTile};

// out^T = b^T a^T: so that rows of the result are contiguous
bool computes_transposed(const GemmProblem& p) { return p.out.column != 1 && p.out.row == 1; }

// One of these tiles, and the parts of k.
MmaTileChoice choose(const GemmProblem& p, Tiles tiles, int64_t workspace_limit) {
    const bool transpose = computes_transposed(p);
    const int64_t m = transpose ? p.n : p.m, n = transpose ? p.m : p.n;
    const int64_t depth = p.dtype == DType::f32 ? kMmaDepth<float> : kMmaDepth<half>;
    return choose_mma_tile(tiles, p.batch, m, n, p.k, depth, workspace_limit);
}

std::string name_of(MmaTileIndex tile) { return tile_name(kMmaTiles[tile].rows, kMmaTiles[tile].columns); }

// None that is twice as large as the result both ways.
std::vector<std::string> offered(const GemmProblem& p, int64_t workspace_limit) {
    const MmaTileIndex rule = choose(p, kAllTiles, workspace_limit).tile;
    std::vector<std::string> names{name_of(rule)};
    for (const MmaTileIndex tile : kAllTiles) {
        const bool fits = 2 * std::max(p.m, p.n) > std::min(kMmaTiles[tile].rows, kMmaTiles[tile].columns);
        if (tile != rule && fits) names.push_back(name_of(tile));
    }
    return names;
}

template <class Arithmetic>
class MmaGemm final : public GemmPlan {
    using T = typename Arithmetic::T;

public:
    MmaGemm(const GemmProblem& p, int64_t workspace_limit, Tiles tiles)
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

GemmPlan* plan_of(const GemmProblem& problem, int64_t workspace_limit, Tiles tiles) {
    if (problem.dtype == DType::f16) return new MmaGemm<HalfArithmetic>(problem, workspace_limit, tiles);
    if (problem.dtype == DType::bf16) return new MmaGemm<BfloatArithmetic>(problem, workspace_limit, tiles);
    return new MmaGemm<Tf32Arithmetic>(problem, workspace_limit, tiles);
}
GemmPlan* plan_of_3xtf32(const GemmProblem& problem, int64_t workspace_limit, Tiles tiles) {
    return new MmaGemm<Tf32x3Arithmetic>(problem, workspace_limit, tiles);
}

using Maker = GemmPlan* (*)(const GemmProblem&, int64_t, Tiles);

template <Maker make>
GemmPlan* plan_by_rule(const GemmProblem& problem, int64_t workspace_limit) {
    return make(problem, workspace_limit, kAllTiles);
}
template <Maker make>
GemmPlan* plan_in(const GemmProblem& problem, int64_t workspace_limit, const std::string& tile) {
    return make(problem, workspace_limit, {tile == name_of(kLargeTile) ? kLargeTile : kSmallTile});
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
