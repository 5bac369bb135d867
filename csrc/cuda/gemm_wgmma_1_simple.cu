// Step 1 of Hopper's GEMMs: one warp group multiplies what one thread has copied.
//
// A block computes 128 x 128 of the result. For each 128 bytes of k, a thread asks for the tiles of a and b, which the
// tensor memory accelerator brings, swizzled; all wait; the warp group multiplies straight out of shared memory, and
// waits again. No thread computes an address or moves a byte of a tile; but copies and products take turns, and the
// tensor cores rest for half of the time or more.
// Tuned: no kernel of this file may spill registers.
#include "gemm_wgmma.h"

namespace pycv::cuda {
namespace {

constexpr int kRows = 128, kColumns = 128;

template <class Arithmetic, Major A, Major B>
struct SimpleTiles {
    using TileA = GroupTile<Arithmetic, A, kRows>;
    using TileB = GroupTile<Arithmetic, B, kColumns>;
    static constexpr int stage_bytes = TileA::bytes + TileB::bytes;
    static constexpr int shared_bytes = std::max(stage_bytes, kStagedBytes<kColumns>);
};

template <class Arithmetic, Major A, Major B>
__global__ void __launch_bounds__(warp_group_size)
    gemm_wgmma_1_simple(const Gemm<typename Arithmetic::T> g, const __grid_constant__ GroupOperands operands,
                        bool vectors_out) {
    PYCV_NEEDS_WGMMA
    using Of = SimpleTiles<Arithmetic, A, B>;
    using Operand = typename Arithmetic::Operand;
    PYCV_SHARED(unsigned char, a_tile);
    unsigned char* const b_tile = a_tile + Of::TileA::bytes;
    __shared__ Barrier arrived;
    if (threadIdx.x == 0) {
        barrier_init(&arrived, 1);
        barriers_ready();
    }
    __syncthreads();
    const TileOrigin tile = tile_in_strips(g.m, g.n, kRows, kColumns);
    const auto row = static_cast<int>(tile.row), column = static_cast<int>(tile.column);
    const auto batch = static_cast<int>(blockIdx.z);
    float upper[kColumns / 2] = {}, lower[kColumns / 2] = {};  // 64 rows each
    unsigned parity = 0;
    for (int k = 0; k < g.k; k += Of::TileA::depth, parity ^= 1) {
        if (threadIdx.x == 0) {
            barrier_expect(&arrived, Of::stage_bytes);
            Of::TileA::load(a_tile, operands.a, &arrived, row, k, batch * operands.batch_step_a);
            Of::TileB::load(b_tile, operands.b, &arrived, column, k, batch * operands.batch_step_b);
        }
        barrier_wait(&arrived, parity);
        fence_products();
#pragma unroll
        for (int slice = 0; slice < Of::TileA::slices; ++slice) {
            const SharedMatrix b = Of::TileB::slice(b_tile, 0, slice);
            multiply_async<Operand, kColumns, A, B>(upper, Of::TileA::slice(a_tile, 0, slice), b);
            multiply_async<Operand, kColumns, A, B>(lower, Of::TileA::slice(a_tile, 64, slice), b);
        }
        commit_products();
        wait_for_products<0>(upper);
        wait_for_products<0>(lower);
        __syncthreads();  // all are done with the tiles
    }
    auto* const staged = reinterpret_cast<float*>(a_tile);
    write_group_sums<kColumns>(upper, staged, g, vectors_out, batch, tile.row, tile.column);
    write_group_sums<kColumns>(lower, staged, g, vectors_out, batch, tile.row + 64, tile.column);
}

template <class Arithmetic>
struct Simple {
    static bool takes(const Gemm<typename Arithmetic::T>& g) { return operands_in_boxes(g); }
    static void run(const Gemm<typename Arithmetic::T>& g, Stream stream) {
        with_majors<Arithmetic>(g, [&]<Major A, Major B>() {
            using Of = SimpleTiles<Arithmetic, A, B>;
            launch(gemm_wgmma_1_simple<Arithmetic, A, B>, tile_grid(g.batch, g.m, g.n, kRows, kColumns),
                   warp_group_size, Of::shared_bytes, stream, g,
                   group_operands<typename Of::TileA, typename Of::TileB>(g), writes_vectors(g));
        });
    }
};

}  // namespace

PYCV_KERNEL("gemm", "wgmma_1_simple", plan_wgmma_16_bits<Simple>);
PYCV_KERNEL("gemm", "wgmma_1_simple/tf32", plan_wgmma_tf32<Simple>);

}  // namespace pycv::cuda
