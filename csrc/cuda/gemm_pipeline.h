// The loop over k of steps 7 and 8 of the GEMM ladder: while a pair of tiles is multiplied, the next pair is on its
// way.
//
// Two stages of shared memory and one barrier per pair. The barrier says two things at once: the pair of this round has
// arrived for all threads, and all of them are done with the pair of the round before, whose place the next pair takes.
#pragma once

#include "gemm_tiles.h"

namespace pycv::cuda {

// Bytes of shared memory for two stages.
template <class T, class TileA, class TileB>
constexpr int kPipelineBytes = 2 * (TileA::elements + TileB::elements) * static_cast<int>(sizeof(T));

// Calls multiply(a_tile, b_tile) for each pair of tiles with k in [first_k, end_k).
template <class TileA, class TileB, int Threads, class T, class Multiply>
__device__ __forceinline__ void pipeline(T* shared, const TileSource<TileA, Threads, T>& a,
                                         const TileSource<TileB, Threads, T>& b, int64_t batch, TileOrigin tile,
                                         int64_t first_k, int64_t end_k, Multiply multiply) {
    static_assert(TileA::depth == TileB::depth);
    constexpr int stage_elements = TileA::elements + TileB::elements;
    TileCopier<TileA, Threads, T> copy_a(a, batch, tile.row, first_k);
    TileCopier<TileB, Threads, T> copy_b(b, batch, tile.column, first_k);
    auto fetch = [&](int stage, int64_t k) {
        T* a_tile = shared + stage * stage_elements;
        if (k < end_k) {
            const int depth = clamped(end_k - k, TileA::depth);
            copy_a.template copy<CopyAsync>(a_tile, depth);
            copy_b.template copy<CopyAsync>(a_tile + TileA::elements, depth);
        }
        async_copy_commit();
    };
    fetch(0, first_k);
    int stage = 0;
    for (int64_t k = first_k; k < end_k; k += TileA::depth) {
        async_copy_wait<0>();
        __syncthreads();
        fetch(stage ^ 1, k + TileA::depth);
        const T* a_tile = shared + stage * stage_elements;
        multiply(a_tile, a_tile + TileA::elements);
        stage ^= 1;
    }
}

}  // namespace pycv::cuda
