// Step 2 of Hopper's GEMMs: a producer and two warp groups that multiply, connected by a ring of four stages.
//
// A block computes 128 x 256 of the result: each warp group 64 x 256, for which it gets registers that the producer
// gives up. Three stages are on their way while one is multiplied, and the tensor cores wait for copies only at the
// beginning (group_pipeline.h). A block still ends with its results, while nothing is copied or multiplied.
// Tuned: no kernel of this file may spill registers.
#include "group_pipeline.h"

namespace pycv::cuda {
namespace {

using Shape = WideGroups;

template <class Arithmetic, Major A, Major B>
__global__ void __launch_bounds__(Shape::threads, 1)
    gemm_wgmma_2_specialized(const Gemm<typename Arithmetic::T> g, const __grid_constant__ GroupOperands operands,
                             bool vectors_out) {
    PYCV_NEEDS_WGMMA
    using TileA = GroupTile<Arithmetic, A, Shape::rows>;
    using TileB = GroupTile<Arithmetic, B, Shape::columns>;
    static_assert(Shape::groups * kStagedBytes<Shape::columns> <= Shape::ring_bytes);
    PYCV_SHARED(unsigned char, ring);
    __shared__ RingBarriers<Shape> barriers;
    if (threadIdx.x == 0) barriers.init();
    __syncthreads();
    const TileOrigin tile = tile_in_strips(g.m, g.n, Shape::rows, Shape::columns);
    const auto batch = static_cast<int>(blockIdx.z);
    const auto steps = static_cast<int>(ceil_div<int64_t>(g.k, TileA::depth));
    RingPlace<Shape> at;
    if (threadIdx.x < warp_group_size) {
        reallocate_registers<Shape::producer_registers, false>();
        if (threadIdx.x != 0) return;
        const auto row = static_cast<int>(tile.row), column = static_cast<int>(tile.column);
        produce(ring, barriers, at, steps, [&](unsigned char* tiles, Barrier* full, int step) {
            const int k = step * TileA::depth;
            TileA::load(tiles, operands.a, full, row, k, batch * operands.batch_step_a);
            TileB::load(tiles + Shape::a_bytes, operands.b, full, column, k, batch * operands.batch_step_b);
        });
    } else {
        reallocate_registers<Shape::consumer_registers, true>();
        const int group = static_cast<int>(threadIdx.x) / warp_group_size - 1;
        float sums[Shape::columns / 2] = {};
        consume<Arithmetic, Shape, TileA, TileB>(sums, ring, barriers, at, steps, group);
        named_barrier(1, Shape::groups * warp_group_size);  // both are done with the ring
        auto* const staged = reinterpret_cast<float*>(ring + group * kStagedBytes<Shape::columns>);
        write_group_sums<Shape::columns>(sums, staged, g, vectors_out, batch, tile.row + group * 64, tile.column);
    }
}

template <class Arithmetic>
struct Specialized {
    static bool takes(const Gemm<typename Arithmetic::T>& g) { return operands_in_boxes(g); }
    static void run(const Gemm<typename Arithmetic::T>& g, Stream stream) {
        with_majors<Arithmetic>(g, [&]<Major A, Major B>() {
            using TileA = GroupTile<Arithmetic, A, Shape::rows>;
            using TileB = GroupTile<Arithmetic, B, Shape::columns>;
            launch(gemm_wgmma_2_specialized<Arithmetic, A, B>,
                   tile_grid(g.batch, g.m, g.n, Shape::rows, Shape::columns), Shape::threads, Shape::ring_bytes, stream,
                   g, group_operands<TileA, TileB>(g), writes_vectors(g));
        });
    }
};

}  // namespace

PYCV_KERNEL("gemm", "wgmma_2_specialized", plan_wgmma_16_bits<Specialized>);
PYCV_KERNEL("gemm", "wgmma_2_specialized/tf32", plan_wgmma_tf32<Specialized>);

}  // namespace pycv::cuda
