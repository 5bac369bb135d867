// GEMM, step 8: as step 7, with tiles within tiles for the warps, tiles of three shapes, and k split among blocks.
// Tuned: no kernel of this file may spill registers.
//
// A warp computes a tile of its own, 32 x 64 of the block's 128 x 128 (4 x 8 threads of 8 x 8 each): its reads of
// shared memory then cover as few distinct vectors as can be. Where 128 x 128 tiles are too few to occupy a GPU, 64 x
// 64 ones are taken, and 16 x 128 ones where the result is a few rows high (or, transposed, a few columns wide). Where
// tiles are still too few and k is long, blocks share it: each writes its part of the sums to the workspace and a
// second kernel adds the parts, always in the same order. Blocks walk through the tiles in strips of 8 tile rows, so
// that those that run at the same time read few different tiles of b.
#include "device/multiprocessors.h"
#include "dtypes.h"
#include "gemm_pipeline.h"

namespace pycv::cuda {
namespace {

// Rows x Columns of a block, WarpRows x WarpColumns of a warp, Runs of 4 x 4 of a thread.
template <int Rows, int Columns, int WarpRows, int WarpColumns, int RowRuns, int ColumnRuns>
struct BlockShape {
    static constexpr int rows = Rows, columns = Columns, warp_rows = WarpRows, warp_columns = WarpColumns;
    static constexpr int row_runs = RowRuns, column_runs = ColumnRuns;
    static constexpr int row_step = WarpRows / RowRuns, column_step = WarpColumns / ColumnRuns;  // from run to run
    static constexpr int lanes_across = column_step / kRun;
    static constexpr int warps_across = Columns / WarpColumns;
    static constexpr int threads = 32 * warps_across * (Rows / WarpRows);
    static_assert(row_step / kRun * lanes_across == 32);
};
using Large = BlockShape<128, 128, 32, 64, 2, 2>;
using Small = BlockShape<64, 64, 32, 32, 1, 2>;
using Flat = BlockShape<16, 128, 16, 32, 1, 1>;

template <class T>
constexpr int kDepth = sizeof(T) == 8 ? 8 : 16;

// Sums of part blockIdx.y of k, as (part, batch, m, n); null where there is one part and the epilogue follows.
template <class T>
struct Parts {
    accumulator_t<T>* sums;
    int64_t depth;  // of a part
};

template <class T, class Shape>
using TileA = Tile<T, Shape::rows, kDepth<T>>;
template <class T, class Shape>
using TileB = Tile<T, Shape::columns, kDepth<T>>;
template <class T, class Shape>
using SourceA = TileSource<TileA<T, Shape>, Shape::threads, T>;
template <class T, class Shape>
using SourceB = TileSource<TileB<T, Shape>, Shape::threads, T>;

template <class T, class Shape>
__global__ void __launch_bounds__(Shape::threads, sizeof(T) == 8 ? 1 : 512 / Shape::threads)
    gemm_warp_tiled(const Gemm<T> g, const SourceA<T, Shape> a, const SourceB<T, Shape> b, bool vectors_out,
                    const Parts<T> parts) {
    PYCV_SHARED(T, shared);
    const TileOrigin tile = tile_in_strips(g.m, g.n, Shape::rows, Shape::columns);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int first_row = warp / Shape::warps_across * Shape::warp_rows + lane / Shape::lanes_across * kRun;
    const int first_column = warp % Shape::warps_across * Shape::warp_columns + lane % Shape::lanes_across * kRun;
    const int64_t first_k = blockIdx.y * parts.depth;
    const int64_t end_k = g.k - first_k < parts.depth ? g.k : first_k + parts.depth;
    const int64_t batch = blockIdx.z;
    ThreadProducts<T, Shape::row_runs, Shape::column_runs, Shape::row_step, Shape::column_step> products;
    pipeline(shared, a, b, batch, tile, first_k, end_k, [&](const T* a_tile, const T* b_tile) {
        products.template add<TileA<T, Shape>, TileB<T, Shape>>(a_tile, b_tile, first_row, first_column);
    });
    products.for_each_run(first_row, first_column, [&](const accumulator_t<T>* run, int i, int j) {
        const int64_t row = tile.row + i, column = tile.column + j;
        if (row >= g.m) return;
        if (!parts.sums) {
            write_run(g, vectors_out, run, batch, row, column);
            return;
        }
        accumulator_t<T>* to = parts.sums + ((blockIdx.y * g.batch + batch) * g.m + row) * g.n + column;
#pragma unroll
        for (int e = 0; e < kRun; ++e)
            if (column + e < g.n) to[e] = run[e];
    });
}

constexpr int kAddThreads = 256;

template <class T>
__global__ void __launch_bounds__(kAddThreads)
    gemm_add_parts(const Gemm<T> g, const accumulator_t<T>* sums, int count) {
    const int64_t elements = g.batch * g.m * g.n;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kAddThreads + threadIdx.x;
    if (i >= elements) return;
    accumulator_t<T> sum = sums[i];
    for (int part = 1; part < count; ++part) sum += sums[part * elements + i];
    g.write(sum, i / (g.m * g.n), i / g.n % g.m, i % g.n);
}

constexpr int64_t kBlocksWanted = 2 * kPlannedMultiprocessors;
constexpr int64_t kLeastDepth = 256;  // of a part

template <class T>
class WarpTiled final : public GemmPlan {
public:
    WarpTiled(const GemmProblem& p, int64_t workspace_limit) : problem_(p) {
        transpose_ = p.n < p.m && (p.n <= Flat::rows || (p.out.column != 1 && p.out.row == 1));
        const int64_t m = transpose_ ? p.n : p.m, n = transpose_ ? p.m : p.n;
        const auto blocks = [&](auto shape) {
            return ceil_div<int64_t>(m, shape.rows) * ceil_div<int64_t>(n, shape.columns) * p.batch;
        };
        flat_ = m <= Flat::rows;
        large_ = has_large && !flat_ && blocks(Large{}) >= kPlannedMultiprocessors;
        const int64_t elements = p.batch * p.m * p.n, tiles = flat_ ? blocks(Flat{}) : blocks(Small{});
        if (elements == 0 || large_) return;
        int64_t parts = kBlocksWanted / tiles;
        parts = std::min(parts, p.k / kLeastDepth);
        parts = std::min(parts, workspace_limit / (elements * static_cast<int64_t>(sizeof(A))));
        if (parts > 1) parts_ = static_cast<int>(parts);
    }

    int64_t workspace_bytes() const override {
        return parts_ == 1 ? 0 : parts_ * problem_.batch * problem_.m * problem_.n * static_cast<int64_t>(sizeof(A));
    }

    void run(const GemmArguments& arguments, Stream stream) const override {
        if (problem_.m == 0 || problem_.n == 0) return;
        const Gemm<T> whole = gemm_of<T>(problem_, arguments);
        for_each_grid(transpose_ ? transposed(whole) : whole, [&](const Gemm<T>& g) {
            if (flat_)
                run<Flat>(g, arguments.workspace, stream);
            else if (!large_)
                run<Small>(g, arguments.workspace, stream);
            else if constexpr (has_large)
                run<Large>(g, arguments.workspace, stream);
        });
    }

private:
    using A = accumulator_t<T>;
    // What is worth its compile time: double is there for checking, and 16 bits belong to tensor cores.
    static constexpr bool has_large = std::is_same_v<T, float>;

    template <class Shape>
    void run(const Gemm<T>& g, void* workspace, Stream stream) const {
        constexpr int bytes = kPipelineBytes<T, TileA<T, Shape>, TileB<T, Shape>>;
        A* sums = parts_ == 1 ? nullptr : static_cast<A*>(workspace);
        dim3 grid = tile_grid(g.batch, g.m, g.n, Shape::rows, Shape::columns);
        grid.y = parts_;
        launch(gemm_warp_tiled<T, Shape>, grid, Shape::threads, bytes, stream, g,
               source_a<TileA<T, Shape>, Shape::threads>(g), source_b<TileB<T, Shape>, Shape::threads>(g),
               writes_vectors(g), Parts<T>{sums, ceil_div<int64_t>(g.k, parts_)});
        if (!sums) return;
        const auto blocks = static_cast<unsigned>(ceil_div<int64_t>(g.batch * g.m * g.n, kAddThreads));
        launch(gemm_add_parts<T>, blocks, kAddThreads, 0, stream, g, sums, parts_);
    }

    GemmProblem problem_;
    bool transpose_, flat_, large_;
    int parts_ = 1;
};

GemmPlan* plan_warp_tiled(const GemmProblem& problem, int64_t workspace_limit) {
    return of_dtype(problem.dtype, [&]<class T>() -> GemmPlan* { return new WarpTiled<T>(problem, workspace_limit); });
}

}  // namespace

GemmPlan* plan_gemm(const GemmProblem& problem, int64_t workspace_limit) {
    return plan_warp_tiled(problem, workspace_limit);
}

PYCV_KERNEL("gemm", "simt_8_warp_tiled", plan_warp_tiled);

}  // namespace pycv::cuda
