// Copies and products at the same time: a producer fills a ring of stages in shared memory, two warp groups multiply.
//
// A block has three warp groups. In the first one a single thread copies (all of them where they load elements:
// group_gather.h), and gives up registers; the others multiply 64 rows each of a block's 128, with more registers. Two
// barriers for each stage say what may happen next: `full`, that its tiles have arrived; `empty`, that both warp groups
// are done with them. Every warp of these arrives for itself.
#pragma once

#include "gemm_wgmma.h"

namespace pycv::cuda {

// How many columns a block computes, and how many stages fit into shared memory beside 32 KB for results.
template <int Columns, int Stages>
struct GroupShape {
    static constexpr int rows = 128, columns = Columns, stages = Stages;
    static constexpr int groups = 2, threads = (groups + 1) * warp_group_size;
    static constexpr int stage_bytes = (rows + columns) * 128, ring_bytes = stages * stage_bytes;
    static constexpr int a_bytes = rows * 128;
    static constexpr int producers = 1;  // threads that copy
    static constexpr int arrivals = 1;   // of theirs, for a stage
    // 128 threads with the few and 256 with the many, of the 384 * 168 that a block gets.
    static constexpr int producer_registers = 40, consumer_registers = 232;
};

using WideGroups = GroupShape<256, 4>;
using NarrowGroups = GroupShape<128, 6>;
using ThinGroups = GroupShape<64, 8>;

// Where producer or consumers are in the ring; both go round in the same order.
template <class Shape>
struct RingPlace {
    int stage = 0;
    unsigned parity = 0;

    __device__ __forceinline__ void advance() {
        if (++stage < Shape::stages) return;
        stage = 0;
        parity ^= 1;
    }
};

template <class Shape>
struct RingBarriers {
    Barrier full[Shape::stages], empty[Shape::stages];

    // By one thread, before a barrier of the block.
    __device__ __forceinline__ void init() {
#pragma unroll
        for (int i = 0; i < Shape::stages; ++i) {
            barrier_init(full + i, Shape::arrivals);
            barrier_init(empty + i, Shape::groups * 4);
        }
        barriers_ready();
    }
};

// The producer's side of `steps` stages: load(tiles, barrier, step). Where there are several, load() arrives, too.
template <class Shape, class Load>
__device__ __forceinline__ void produce(unsigned char* ring, RingBarriers<Shape>& barriers, RingPlace<Shape>& at,
                                        int steps, Load load) {
    for (int step = 0; step < steps; ++step, at.advance()) {
        barrier_wait(barriers.empty + at.stage, at.parity ^ 1);
        if constexpr (Shape::producers == 1) barrier_expect(barriers.full + at.stage, Shape::stage_bytes);
        load(ring + at.stage * Shape::stage_bytes, barriers.full + at.stage, step);
    }
}

// The side of warp group `group`. The products of a step are under way while those of the next one are issued, and its
// stage is given back then.
template <class Arithmetic, class Shape, class TileA, class TileB>
__device__ __forceinline__ void consume(float (&sums)[Shape::columns / 2], const unsigned char* ring,
                                        RingBarriers<Shape>& barriers, RingPlace<Shape>& at, int steps, int group) {
    using Operand = typename Arithmetic::Operand;
    int before = 0;
    for (int step = 0; step < steps; ++step, at.advance()) {
        barrier_wait(barriers.full + at.stage, at.parity);
        const unsigned char* const tiles = ring + at.stage * Shape::stage_bytes;
        fence_products();
#pragma unroll
        for (int slice = 0; slice < TileA::slices; ++slice)
            multiply_async<Operand, Shape::columns, TileA::major, TileB::major>(
                sums, TileA::slice(tiles, group * 64, slice), TileB::slice(tiles + Shape::a_bytes, 0, slice));
        commit_products();
        wait_for_products<1>(sums);
        if (step > 0 && lane_index() == 0) barrier_arrive(barriers.empty + before);
        before = at.stage;
    }
    wait_for_products<0>(sums);
    if (steps > 0 && lane_index() == 0) barrier_arrive(barriers.empty + before);
}

}  // namespace pycv::cuda
