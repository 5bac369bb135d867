// GEMM, step 5: a thread computes 8 x 8 elements, and so reads 8 elements of a and 8 of b for 64 multiply-adds.
//
// Tiles of 128 x 128 results, 8 deep, 256 threads. A quarter of a read of shared memory for each multiply-add: the
// multiply-adds begin to be what takes the time.
#include "gemm.h"

namespace pycv::cuda {
namespace {

constexpr int kSide = 128, kDepth = 8;
constexpr int kPerThread = 8;  // rows, and columns
constexpr int kAcross = kSide / kPerThread;
constexpr int kThreads = kAcross * kAcross;

template <class T>
__global__ void __launch_bounds__(kThreads) gemm_register_2d(const Gemm<T> g) {
    __shared__ T a_tile[kSide][kDepth], b_tile[kDepth][kSide];
    const int thread = threadIdx.x;
    const TileOrigin tile = tile_origin(g.n, kSide, kSide);
    const int first_row = thread / kAcross * kPerThread, first_column = thread % kAcross * kPerThread;
    const T zero = from_accumulator<T>(0);
    const int64_t batch = blockIdx.z;
    accumulator_t<T> sums[kPerThread][kPerThread] = {};
    for (int64_t first = 0; first < g.k; first += kDepth) {
        for (int i = thread; i < kSide * kDepth; i += kThreads) {
            const int64_t row = tile.row + i / kDepth, a_k = first + i % kDepth;
            const int64_t b_k = first + i / kSide, column = tile.column + i % kSide;
            a_tile[i / kDepth][i % kDepth] = row < g.m && a_k < g.k ? *g.a.at(batch, row, a_k) : zero;
            b_tile[i / kSide][i % kSide] = b_k < g.k && column < g.n ? *g.b.at(batch, b_k, column) : zero;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kDepth; ++k) {
            accumulator_t<T> a[kPerThread], b[kPerThread];
#pragma unroll
            for (int i = 0; i < kPerThread; ++i) {
                a[i] = to_accumulator(a_tile[first_row + i][k]);
                b[i] = to_accumulator(b_tile[k][first_column + i]);
            }
#pragma unroll
            for (int i = 0; i < kPerThread; ++i)
#pragma unroll
                for (int j = 0; j < kPerThread; ++j) sums[i][j] += a[i] * b[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i)
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) {
            const int64_t row = tile.row + first_row + i, column = tile.column + first_column + j;
            if (row < g.m && column < g.n) g.write(sums[i][j], batch, row, column);
        }
}

template <class T>
struct Register2d {
    static void run(const Gemm<T>& g, Stream stream) {
        launch(gemm_register_2d<T>, tile_grid(g.batch, g.m, g.n, kSide, kSide), kThreads, 0, stream, g);
    }
};

}  // namespace

PYCV_KERNEL("gemm", "simt_5_register_2d", plan_step<Register2d>);

}  // namespace pycv::cuda
