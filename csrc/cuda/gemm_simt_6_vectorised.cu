// GEMM, step 6: memory moves in vectors of 16 bytes, global and shared.
//
// Tiles of 128 x 128 results, 256 threads of 8 x 8 each, as in step 5. The tile of a lies in shared memory with its
// rows side by side, so that a thread reads its 8 rows and 8 columns as vectors; what a matrix has side by side in
// global memory is fetched as vectors too. A thread's 8 are two runs of 4, 64 apart: neighbours read neighbouring
// vectors, and no two of them want the same bank.
#include "gemm_tiles.h"

namespace pycv::cuda {
namespace {

constexpr int kSide = 128, kThreads = 256, kAcross = 16;

template <class T>
using Shape = Tile<T, kSide, 8>;
template <class T>
using Source = TileSource<Shape<T>, kThreads, T>;

template <class T>
__global__ void __launch_bounds__(kThreads)
    gemm_vectorised(const Gemm<T> g, const Source<T> a, const Source<T> b, bool vectors_out) {
    __shared__ __align__(16) T a_tile[Shape<T>::elements], b_tile[Shape<T>::elements];
    const TileOrigin tile = tile_origin(g.n, kSide, kSide);
    const int first_row = threadIdx.x / kAcross * kRun, first_column = threadIdx.x % kAcross * kRun;
    const int64_t batch = blockIdx.z;
    ThreadProducts<T, 2, 2, kSide / 2, kSide / 2> products;
    TileCopier<Shape<T>, kThreads, T> copy_a(a, batch, tile.row, 0), copy_b(b, batch, tile.column, 0);
    for (int64_t k = 0; k < g.k; k += Shape<T>::depth) {
        const int depth = clamped(g.k - k, Shape<T>::depth);
        copy_a.template copy<CopyNow>(a_tile, depth);
        copy_b.template copy<CopyNow>(b_tile, depth);
        __syncthreads();
        products.template add<Shape<T>, Shape<T>>(a_tile, b_tile, first_row, first_column);
        __syncthreads();
    }
    products.for_each_run(first_row, first_column, [&](const accumulator_t<T>* run, int row, int column) {
        if (tile.row + row < g.m) write_run(g, vectors_out, run, batch, tile.row + row, tile.column + column);
    });
}

template <class T>
struct Vectorised {
    static void run(const Gemm<T>& g, Stream stream) {
        launch(gemm_vectorised<T>, tile_grid(g.batch, g.m, g.n, kSide, kSide), kThreads, 0, stream, g,
               source_a<Shape<T>, kThreads>(g), source_b<Shape<T>, kThreads>(g), writes_vectors(g));
    }
};

}  // namespace

PYCV_KERNEL("gemm", "simt_6_vectorised", plan_step<Vectorised>);

}  // namespace pycv::cuda
