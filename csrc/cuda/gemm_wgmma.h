// What the GEMMs on Hopper's tensor cores share: operands as tensor maps, their tiles in shared memory, the plans.
//
// The ladder, gemm_wgmma_1_simple.cu to gemm_wgmma_3_persistent.h, is meant to be read in order: each step is one idea
// and can be measured by its name. All of them take operands whose rows begin at multiples of 16 bytes, along k or, in
// 16 bits, along the lines; sizes may be anything: what a box has beyond a matrix arrives as zeros. The last step takes
// all others, too: gemm_wgmma_3_gathered.h, gemm_wgmma_3_copies.h. Where the earlier ones meet an address that is not
// aligned to 16 bytes, which no problem says, mma_sync runs instead.
#pragma once

#include <memory>

#include "device/tensor_copy.h"
#include "device/wgmma.h"
#include "gemm_tiles.h"
#include "mma_plans.h"
#include "mma_tile.h"

namespace pycv::cuda {

template <class Arithmetic>
constexpr TensorElement kTensorElement = std::is_same_v<typename Arithmetic::Operand, half>       ? TensorElement::f16
                                         : std::is_same_v<typename Arithmetic::Operand, bfloat16> ? TensorElement::bf16
                                                                                                  : TensorElement::tf32;

// ----------------------------------------------------------------------------------------------------- operands

// A matrix of lines (rows of a, columns of b) by k, as tensor maps see it.
struct GroupMatrix {
    const void* data;
    int64_t lines, k, batch;
    int64_t line_stride, k_stride, batch_stride;  // elements
};

template <class T>
GroupMatrix group_matrix_a(const Gemm<T>& g) {
    return {g.a.data, g.m, g.k, g.batch, g.a.strides.row, g.a.strides.column, g.a.strides.batch};
}
template <class T>
GroupMatrix group_matrix_b(const Gemm<T>& g) {
    return {g.b.data, g.n, g.k, g.batch, g.b.strides.column, g.b.strides.row, g.b.strides.batch};
}

// Whether boxes can bring a matrix whose rows run along `major`. A stride along an axis of one element says nothing.
template <class T>
bool in_boxes(const GroupMatrix& m, Major major) {
    const bool along_k = major == Major::k;
    const int64_t columns = along_k ? m.k : m.lines, step = along_k ? m.k_stride : m.line_stride;
    const int64_t rows = along_k ? m.lines : m.k, pitch = along_k ? m.line_stride : m.k_stride;
    return all_aligned(16, m.data) && (columns == 1 || step == 1) &&
           (rows == 1 || (pitch > 0 && pitch % widest_vector<T> == 0)) &&
           (m.batch == 1 || m.batch_stride % widest_vector<T> == 0);
}

// The major by which boxes bring an operand, if any does: everything that makes or reads its tiles asks here. Tensor
// cores multiply tf32 along k alone.
template <class T>
Major major_in_boxes(const GroupMatrix& m) {
    return sizeof(T) == 2 && !in_boxes<T>(m, Major::k) && in_boxes<T>(m, Major::line) ? Major::line : Major::k;
}
template <class T>
bool operand_in_boxes(const GroupMatrix& m) {
    return in_boxes<T>(m, major_in_boxes<T>(m));
}
template <class T>
bool operands_in_boxes(const Gemm<T>& g) {
    return operand_in_boxes<T>(group_matrix_a(g)) && operand_in_boxes<T>(group_matrix_b(g));
}

// Of a batch of matrices whose rows are contiguous: boxes of rows x 128 bytes.
inline TensorMap matrix_map(const void* data, TensorElement element, int64_t columns, int64_t rows, int64_t batch,
                            int64_t row_stride, int64_t batch_stride, int box_rows) {
    const int bytes = bytes_of(element);
    const int64_t dense = ceil_div<int64_t>(columns * bytes, 16) * 16;  // where there is one, of no meaning
    return make_tensor_map(
        {.base = data,
         .element = element,
         .rank = 3,
         .sizes = {columns, rows, batch},
         .strides = {bytes, rows > 1 ? row_stride * bytes : dense, batch > 1 ? batch_stride * bytes : dense},
         .box = {128 / bytes, box_rows, 1},
         .swizzle = Swizzle::bytes_128});
}

// A tile in shared memory: rows of 128 bytes, along k or along the lines (device/wgmma.h).
template <class Arithmetic, Major major_, int Lines>
struct GroupTile {
    static constexpr Major major = major_;
    static constexpr int lines = Lines;
    using T = typename Arithmetic::T;
    static constexpr int width = 128 / sizeof(T);  // elements of a row
    static constexpr int depth = width;
    static constexpr int bytes = Lines * 128;
    static constexpr int panels = major == Major::k ? 1 : Lines / width, panel_bytes = bytes / panels;
    static constexpr int slices = 4;  // of 32 bytes of k

    static TensorMap map(const GroupMatrix& m) {
        const int64_t matrices = m.batch_stride == 0 ? 1 : m.batch;
        if constexpr (major == Major::k)
            return matrix_map(m.data, kTensorElement<Arithmetic>, m.k, m.lines, matrices, m.line_stride, m.batch_stride,
                              Lines);
        else
            return matrix_map(m.data, kTensorElement<Arithmetic>, m.lines, m.k, matrices, m.k_stride, m.batch_stride,
                              depth);
    }

    static __device__ __forceinline__ void load(unsigned char* tile, const TensorMap& map, Barrier* barrier, int line,
                                                int k, int batch) {
        if constexpr (major == Major::k) {
            load_tensor(tile, map, barrier, k, line, batch);
        } else {
#pragma unroll
            for (int i = 0; i < panels; ++i)
                load_tensor(tile + i * panel_bytes, map, barrier, line + i * width, k, batch);
        }
    }

    // 32 bytes of k of the lines from first_line on, a multiple of 64.
    static __device__ __forceinline__ SharedMatrix slice(const unsigned char* tile, int first_line, int slice) {
        constexpr int line_bytes = major == Major::k ? 128 : panel_bytes / width;
        constexpr int slice_bytes = major == Major::k ? 32 : panel_bytes / slices;
        return advanced(shared_matrix(tile, panel_bytes), first_line * line_bytes + slice * slice_bytes);
    }
};

// What a kernel gets beside the problem.
struct GroupOperands {
    TensorMap a, b;
    int batch_step_a, batch_step_b;  // 0: one matrix for the whole batch
};

template <class TileA, class TileB, class T>
GroupOperands group_operands(const Gemm<T>& g) {
    return {TileA::map(group_matrix_a(g)), TileB::map(group_matrix_b(g)), g.a.strides.batch != 0,
            g.b.strides.batch != 0};
}

// ------------------------------------------------------------------------------------------------------ results

// Writes the sums of 64 x N that a warp group holds, through `staged`, of kStagedBytes<N>, shared memory of this group
// that no copy and no product uses any more: so that neighbouring lanes write neighbouring columns.
template <int N>
constexpr int kStagedPitch = N + 8;
template <int N>
constexpr int kStagedBytes = 64 * kStagedPitch<N> * 4;

template <int N, class T>
__device__ __forceinline__ void write_group_sums(const float (&sums)[N / 2], float* staged, const Gemm<T>& g,
                                                 bool vectors_out, int64_t batch, int64_t first_row,
                                                 int64_t first_column) {
    const int lane = lane_index(), warp_row = warp_index() % 4 * 16;
    staged += warp_row * kStagedPitch<N>;
#pragma unroll
    for (int i = 0; i < N / 2; i += 2) {
        const int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2;
        store_vector(staged + row * kStagedPitch<N> + column, Vector<float, 2>{{sums[i], sums[i + 1]}});
    }
    sync_warp();
#pragma unroll 1
    for (int run = lane; run < 16 * (N / kRun); run += warp_size) {
        const int row = run / (N / kRun), column = run % (N / kRun) * kRun;
        if (first_row + warp_row + row >= g.m) break;
        const auto values = load_vector<kRun>(staged + row * kStagedPitch<N> + column);
        write_run(g, vectors_out, values.elements, batch, first_row + warp_row + row, first_column + column);
    }
    sync_warp();
}

// -------------------------------------------------------------------------------------------------------- plans

// Calls launch.operator()<A, B>() for the majors of the operands; tf32 has one.
template <class Arithmetic, class Launch>
void with_majors(const Gemm<typename Arithmetic::T>& g, Launch launch) {
    using T = typename Arithmetic::T;
    if constexpr (sizeof(T) == 4) {
        launch.template operator()<Major::k, Major::k>();
    } else {
        const Major a = major_in_boxes<T>(group_matrix_a(g)), b = major_in_boxes<T>(group_matrix_b(g));
        if (a == Major::k)
            b == Major::k ? launch.template operator()<Major::k, Major::k>()
                          : launch.template operator()<Major::k, Major::line>();
        else
            b == Major::k ? launch.template operator()<Major::line, Major::k>()
                          : launch.template operator()<Major::line, Major::line>();
    }
}

// Step<Arithmetic>::run(gemm, stream) launches the kernel, for as many matrices as a grid can have along z, if it is
// one that Step<Arithmetic>::takes(gemm).
template <template <class> class Step, class Arithmetic>
class WgmmaGemm final : public GemmPlan {
    using T = typename Arithmetic::T;

public:
    explicit WgmmaGemm(const GemmProblem& p)
        : problem_(p), transpose_(p.out.column != 1 && p.out.row == 1), others_(plan_gemm_mma(p, 0)) {}

    int64_t workspace_bytes() const override { return others_->workspace_bytes(); }

    void run(const GemmArguments& arguments, Stream stream) const override {
        if (problem_.m == 0 || problem_.n == 0) return;
        const Gemm<T> whole = gemm_of<T>(problem_, arguments);
        if (problem_.k == 0 || !Step<Arithmetic>::takes(whole)) {
            others_->run(arguments, stream);
            return;
        }
        for_each_grid(transpose_ ? transposed(whole) : whole,
                      [&](const Gemm<T>& g) { Step<Arithmetic>::run(g, stream); });
    }

private:
    GemmProblem problem_;
    bool transpose_;                    // out^T = b^T a^T: so that rows of the result are contiguous
    std::unique_ptr<GemmPlan> others_;  // for runs that the step does not take
};

template <template <class> class Step>
GemmPlan* plan_wgmma_16_bits(const GemmProblem& problem, int64_t) {
    if (problem.dtype == DType::f16) return new WgmmaGemm<Step, HalfArithmetic>(problem);
    return new WgmmaGemm<Step, BfloatArithmetic>(problem);
}
template <template <class> class Step>
GemmPlan* plan_wgmma_tf32(const GemmProblem& problem, int64_t) {
    return new WgmmaGemm<Step, Tf32Arithmetic>(problem);
}

}  // namespace pycv::cuda
