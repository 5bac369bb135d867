// GEMM, step 1: one thread per element of the result, which walks along k.
//
// Neighbouring threads (threadIdx.x) compute neighbouring rows. Of row-major matrices the 32 threads of a warp so read
// 32 addresses of `a` and write 32 of `out`, each in a cache line of its own: bound by memory transactions. Every
// element of a and b is fetched n and m times.
#include "gemm.h"

namespace pycv::cuda {
namespace {

constexpr int kSide = 32;

template <class T>
__global__ void __launch_bounds__(kSide* kSide) gemm_naive(const Gemm<T> g) {
    const TileOrigin tile = tile_origin(g.n, kSide, kSide);
    const int64_t row = tile.row + threadIdx.x, column = tile.column + threadIdx.y;
    if (row >= g.m || column >= g.n) return;
    const int64_t batch = blockIdx.z;
    accumulator_t<T> sum = 0;
    for (int64_t k = 0; k < g.k; ++k)
        sum += to_accumulator(*g.a.at(batch, row, k)) * to_accumulator(*g.b.at(batch, k, column));
    g.write(sum, batch, row, column);
}

template <class T>
struct Naive {
    static void run(const Gemm<T>& g, Stream stream) {
        launch(gemm_naive<T>, tile_grid(g.batch, g.m, g.n, kSide, kSide), dim3(kSide, kSide), 0, stream, g);
    }
};

}  // namespace

PYCV_KERNEL("gemm", "simt_1_naive", plan_step<Naive>);

}  // namespace pycv::cuda
