// GEMM, step 2: as step 1, but neighbouring threads compute neighbouring columns.
//
// Of row-major matrices a warp now reads one element of `a`, which all of its threads get at once, and one line of 32
// neighbouring elements of `b`, and writes one of `out`. Still every element is fetched n or m times from the caches.
#include "gemm.h"

namespace pycv::cuda {
namespace {

constexpr int kSide = 32;

template <class T>
__global__ void __launch_bounds__(kSide* kSide) gemm_coalesced(const Gemm<T> g) {
    const TileOrigin tile = tile_origin(g.n, kSide, kSide);
    const int64_t row = tile.row + threadIdx.y, column = tile.column + threadIdx.x;
    if (row >= g.m || column >= g.n) return;
    const int64_t batch = blockIdx.z;
    accumulator_t<T> sum = 0;
    for (int64_t k = 0; k < g.k; ++k)
        sum += to_accumulator(*g.a.at(batch, row, k)) * to_accumulator(*g.b.at(batch, k, column));
    g.write(sum, batch, row, column);
}

template <class T>
struct Coalesced {
    static void run(const Gemm<T>& g, Stream stream) {
        launch(gemm_coalesced<T>, tile_grid(g.batch, g.m, g.n, kSide, kSide), dim3(kSide, kSide), 0, stream, g);
    }
};

}  // namespace

PYCV_KERNEL("gemm", "simt_2_coalesced", plan_step<Coalesced>);

}  // namespace pycv::cuda
