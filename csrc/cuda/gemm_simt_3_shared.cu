// GEMM, step 3: a block fetches 32 x 32 tiles of a and b into shared memory, and all of its threads read them there.
//
// Global memory is read 32 times less often. Each multiply-add still takes two reads of shared memory, which now bound
// the speed. What lies beyond the edge of a matrix is fetched as zero.
#include "gemm.h"

namespace pycv::cuda {
namespace {

constexpr int kSide = 32;

template <class T>
__global__ void __launch_bounds__(kSide* kSide) gemm_shared(const Gemm<T> g) {
    __shared__ T a_tile[kSide][kSide], b_tile[kSide][kSide];
    const int x = threadIdx.x, y = threadIdx.y;
    const TileOrigin tile = tile_origin(g.n, kSide, kSide);
    const int64_t row = tile.row + y, column = tile.column + x;
    const T zero = from_accumulator<T>(0);
    const int64_t batch = blockIdx.z;
    accumulator_t<T> sum = 0;
    for (int64_t first = 0; first < g.k; first += kSide) {
        a_tile[y][x] = row < g.m && first + x < g.k ? *g.a.at(batch, row, first + x) : zero;
        b_tile[y][x] = first + y < g.k && column < g.n ? *g.b.at(batch, first + y, column) : zero;
        __syncthreads();
        for (int k = 0; k < kSide; ++k) sum += to_accumulator(a_tile[y][k]) * to_accumulator(b_tile[k][x]);
        __syncthreads();
    }
    if (row < g.m && column < g.n) g.write(sum, batch, row, column);
}

template <class T>
struct Shared {
    static void run(const Gemm<T>& g, Stream stream) {
        launch(gemm_shared<T>, tile_grid(g.batch, g.m, g.n, kSide, kSide), dim3(kSide, kSide), 0, stream, g);
    }
};

}  // namespace

PYCV_KERNEL("gemm", "simt_3_shared", plan_step<Shared>);

}  // namespace pycv::cuda
