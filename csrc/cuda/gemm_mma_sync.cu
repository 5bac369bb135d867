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

template <class Arithmetic>
class MmaGemm final : public GemmPlan {
    using T = typename Arithmetic::T;

public:
    MmaGemm(const GemmProblem& p, int64_t workspace_limit)
        : problem_(p), transpose_(p.out.column != 1 && p.out.row == 1) {
        const int64_t m = transpose_ ? p.n : p.m, n = transpose_ ? p.m : p.n;
        choice_ = choose_mma_tile({kLargeTile, kSmallTile}, p.batch, m, n, p.k, kMmaDepth<T>, workspace_limit);
    }

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
    bool transpose_;  // out^T = b^T a^T: so that rows of the result are contiguous
    MmaTileChoice choice_;
};

GemmPlan* plan_16_bits(const GemmProblem& problem, int64_t workspace_limit) {
    if (problem.dtype == DType::f16) return new MmaGemm<HalfArithmetic>(problem, workspace_limit);
    return new MmaGemm<BfloatArithmetic>(problem, workspace_limit);
}

template <class Arithmetic>
GemmPlan* plan_f32(const GemmProblem& problem, int64_t workspace_limit) {
    return new MmaGemm<Arithmetic>(problem, workspace_limit);
}

}  // namespace

GemmPlan* plan_gemm_mma(const GemmProblem& problem, int64_t workspace_limit) {
    if (problem.dtype == DType::f32) return plan_f32<Tf32Arithmetic>(problem, workspace_limit);
    return plan_16_bits(problem, workspace_limit);
}

PYCV_KERNEL("gemm", "mma_sync", plan_16_bits);
PYCV_KERNEL("gemm", "mma_sync/3xtf32", plan_f32<Tf32x3Arithmetic>);
PYCV_KERNEL("gemm", "mma_sync/tf32", plan_f32<Tf32Arithmetic>);

}  // namespace pycv::cuda
