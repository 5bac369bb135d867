// Step 3 of Hopper's GEMMs, the one to use: the plans. gemm_wgmma_3_persistent.h has the kernel for what tensor maps
// describe, gemm_wgmma_3_gathered.h that for the rest.
//
//     wgmma_3_persistent         f16 and bf16, sums in fp32
//     wgmma_3_persistent/tf32    f32, operands rounded to the 11 bits of precision of tf32
//
// Bound by the tensor cores where m, n and k are large: a tile of 128 x 256 reads 3 / 256 elements of L2 for each
// multiply-add.
#include "gemm_wgmma_3_gathered.h"

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

template <class Arithmetic>
struct LastStep {
    using T = typename Arithmetic::T;
    static bool takes(const Gemm<T>&) { return true; }
    static void run(const Gemm<T>& g, Stream stream) {
        const bool wide = wide_is_faster(g.batch, g.m, g.n);
        if (operand_in_boxes<T>(group_matrix_a(g)) && operand_in_boxes<T>(group_matrix_b(g)) && result_in_boxes(g))
            launch_wgmma_3<Arithmetic>(g, wide, stream);
        else
            launch_wgmma_3_gathered<Arithmetic>(g, wide, stream);
    }
};

}  // namespace

PYCV_KERNEL("gemm", "wgmma_3_persistent", plan_wgmma_16_bits<LastStep>);
PYCV_KERNEL("gemm", "wgmma_3_persistent/tf32", plan_wgmma_tf32<LastStep>);

}  // namespace pycv::cuda
