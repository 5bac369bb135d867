// What the GEMM kernels share: the matrices of a run as a kernel sees them, its epilogue, and the plan of the steps of
// the ladder that need no more than these.
//
// The ladder, gemm_simt_1_naive.cu to gemm_simt_8_warp_tiled.cu, is meant to be read in order: each step is one idea,
// works for all sizes and strides, and can be measured by its name. The last one is the one to use.
#pragma once

#include <algorithm>
#include <utility>

#include "device/half.h"
#include "device/launch.h"
#include "device/vector.h"
#include "integers.h"
#include "plan.h"

namespace pycv::cuda {

// Element (batch, row, column) of a matrix that is read.
template <class T>
struct Matrix {
    const T* data;
    MatrixStrides strides;

    __device__ const T* at(int64_t batch, int64_t row, int64_t column) const {
        return data + batch * strides.batch + row * strides.row + column * strides.column;
    }
};

// What becomes of a sum of products: relu(alpha * sum + beta * residual + bias).
template <class T>
struct Epilogue {
    accumulator_t<T> alpha, beta;
    const T* bias;  // null where there is none, as residual.data
    int64_t bias_row, bias_column;
    Matrix<T> residual;
    bool relu;

    __device__ T operator()(accumulator_t<T> sum, int64_t batch, int64_t row, int64_t column) const {
        accumulator_t<T> value = alpha * sum;
        if (residual.data) value += beta * to_accumulator(*residual.at(batch, row, column));
        if (bias) value += to_accumulator(bias[row * bias_row + column * bias_column]);
        return from_accumulator<T>(relu && value < 0 ? 0 : value);
    }
};

// A run of a problem. The result lies at the strides of `out`.
template <class T>
struct Gemm {
    int64_t batch, m, n, k;
    Matrix<T> a, b;
    T* out;
    MatrixStrides out_strides;
    Epilogue<T> epilogue;

    __device__ T* out_at(int64_t batch, int64_t row, int64_t column) const {
        return out + batch * out_strides.batch + row * out_strides.row + column * out_strides.column;
    }
    __device__ void write(accumulator_t<T> sum, int64_t batch, int64_t row, int64_t column) const {
        *out_at(batch, row, column) = epilogue(sum, batch, row, column);
    }
};

template <class T>
Gemm<T> gemm_of(const GemmProblem& p, const GemmArguments& a) {
    using A = accumulator_t<T>;
    const void* residual = p.has_residual && a.beta != 0 ? a.residual : nullptr;
    return {p.batch,
            p.m,
            p.n,
            p.k,
            {static_cast<const T*>(a.a), p.a},
            {static_cast<const T*>(a.b), p.b},
            static_cast<T*>(a.out),
            p.out,
            {static_cast<A>(a.alpha),
             static_cast<A>(a.beta),
             static_cast<const T*>(p.bias ? a.bias : nullptr),
             0,
             1,
             {static_cast<const T*>(residual), p.residual},
             p.relu}};
}

inline MatrixStrides transposed(const MatrixStrides& s) { return {s.batch, s.column, s.row}; }

// The same run with the roles of rows and columns exchanged: out^T = b^T a^T.
template <class T>
Gemm<T> transposed(const Gemm<T>& g) {
    Epilogue<T> epilogue = g.epilogue;
    std::swap(epilogue.bias_row, epilogue.bias_column);
    epilogue.residual.strides = transposed(epilogue.residual.strides);
    return {g.batch,
            g.n,
            g.m,
            g.k,
            {g.b.data, transposed(g.b.strides)},
            {g.a.data, transposed(g.a.strides)},
            g.out,
            transposed(g.out_strides),
            epilogue};
}

// The corner of the tile of the result that a block computes: blockIdx.x counts tiles, columns running fastest.
struct TileOrigin {
    int64_t row, column;
};
__device__ __forceinline__ TileOrigin tile_origin(int64_t n, int tile_rows, int tile_columns) {
    const int64_t across = ceil_div<int64_t>(n, tile_columns);
    return {blockIdx.x / across * tile_rows, blockIdx.x % across * tile_columns};
}

// The tile of that number, walking through the tiles in strips of a few tile rows, column by column: blocks that run at
// the same time read few different tiles of b.
constexpr int kStrip = 8;
__device__ __forceinline__ TileOrigin tile_in_strips(int64_t index, int64_t m, int64_t n, int rows, int columns) {
    const int64_t down = ceil_div<int64_t>(m, rows), across = ceil_div<int64_t>(n, columns);
    const int64_t strip = index / (kStrip * across);
    const int64_t height = down - strip * kStrip < kStrip ? down - strip * kStrip : kStrip;
    const int64_t within = index - strip * kStrip * across;
    return {(strip * kStrip + within % height) * rows, within / height * columns};
}
__device__ __forceinline__ TileOrigin tile_in_strips(int64_t m, int64_t n, int rows, int columns) {
    return tile_in_strips(blockIdx.x, m, n, rows, columns);
}

// x: tiles of the result, z: the batch.
inline dim3 tile_grid(int64_t batch, int64_t m, int64_t n, int tile_rows, int tile_columns) {
    const int64_t tiles = ceil_div<int64_t>(m, tile_rows) * ceil_div<int64_t>(n, tile_columns);
    return {static_cast<unsigned>(tiles), 1, static_cast<unsigned>(batch)};
}

// Calls run(gemm) with as many matrices of the batch at a time as a grid may have along z.
template <class T, class Run>
void for_each_grid(Gemm<T> g, Run run) {
    constexpr int64_t largest = 65535;
    for (int64_t left = g.batch; left > 0; left -= largest) {
        g.batch = left < largest ? left : largest;
        run(g);
        g.a.data += largest * g.a.strides.batch;
        g.b.data += largest * g.b.strides.batch;
        g.out += largest * g.out_strides.batch;
        if (g.epilogue.residual.data) g.epilogue.residual.data += largest * g.epilogue.residual.strides.batch;
    }
}

// A plan without workspace: Step<T>::run(gemm, stream) launches the kernel.
template <template <class> class Step, class T>
class SteppedGemm final : public GemmPlan {
public:
    explicit SteppedGemm(const GemmProblem& problem) : problem_(problem) {}
    int64_t workspace_bytes() const override { return 0; }
    void run(const GemmArguments& arguments, Stream stream) const override {
        if (problem_.m == 0 || problem_.n == 0) return;
        for_each_grid(gemm_of<T>(problem_, arguments), [&](const Gemm<T>& g) { Step<T>::run(g, stream); });
    }

private:
    GemmProblem problem_;
};

// The steps before the last are there to be read and measured: in f32, and in f64 to check gradients.
template <template <class> class Step>
GemmPlan* plan_step(const GemmProblem& problem, int64_t) {
    if (problem.dtype == DType::f64) return new SteppedGemm<Step, double>(problem);
    return new SteppedGemm<Step, float>(problem);
}

// The last step of the ladder, for algorithms that stand on a GEMM. The caller owns the plan.
GemmPlan* plan_gemm(const GemmProblem& problem, int64_t workspace_limit);

}  // namespace pycv::cuda
