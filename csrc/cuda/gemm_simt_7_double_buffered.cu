// GEMM, step 7: as step 6, but the next tiles are fetched (cp.async, past the registers) while these are multiplied.
//
// The latency of global memory hides behind the multiply-adds, and one of two barriers is gone (gemm_pipeline.h).
#include "gemm_pipeline.h"

namespace pycv::cuda {
namespace {

constexpr int kSide = 128, kThreads = 256, kAcross = 16;

template <class T>
using Shape = Tile<T, kSide, 8>;
template <class T>
using Source = TileSource<Shape<T>, kThreads, T>;

template <class T>
__global__ void __launch_bounds__(kThreads)
    gemm_double_buffered(const Gemm<T> g, const Source<T> a, const Source<T> b, bool vectors_out) {
    PYCV_SHARED(T, shared);
    const TileOrigin tile = tile_origin(g.n, kSide, kSide);
    const int first_row = threadIdx.x / kAcross * kRun, first_column = threadIdx.x % kAcross * kRun;
    const int64_t batch = blockIdx.z;
    ThreadProducts<T, 2, 2, kSide / 2, kSide / 2> products;
    pipeline<Shape<T>, Shape<T>, kThreads>(shared, a, b, batch, tile, 0, g.k, [&](const T* a_tile, const T* b_tile) {
        products.template add<Shape<T>, Shape<T>>(a_tile, b_tile, first_row, first_column);
    });
    products.for_each_run(first_row, first_column, [&](const accumulator_t<T>* run, int row, int column) {
        if (tile.row + row < g.m) write_run(g, vectors_out, run, batch, tile.row + row, tile.column + column);
    });
}

template <class T>
struct DoubleBuffered {
    static void run(const Gemm<T>& g, Stream stream) {
        launch(gemm_double_buffered<T>, tile_grid(g.batch, g.m, g.n, kSide, kSide), kThreads,
               kPipelineBytes<T, Shape<T>, Shape<T>>, stream, g, source_a<Shape<T>, kThreads>(g),
               source_b<Shape<T>, kThreads>(g), writes_vectors(g));
    }
};

}  // namespace

PYCV_KERNEL("gemm", "simt_7_double_buffered", plan_step<DoubleBuffered>);

}  // namespace pycv::cuda
