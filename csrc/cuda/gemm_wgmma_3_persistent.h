// Step 3 of Hopper's GEMMs: blocks that stay, and write one tile while they fetch the next.
//
// There is one block for each multiprocessor, which computes one tile after the other, in strips that keep a part of b
// in L2. The ring of step 2 goes on across tiles: while the warp groups round, stage and store a result, the producer
// fills all stages for the next one. Results go through shared memory by stmatrix, swizzled, 128 bytes of each row at a
// time, and from there by the tensor memory accelerator, which clips them to the matrix; two buffers of a warp group
// take turns.
#pragma once

#include "device/multiprocessors.h"
#include "group_pipeline.h"

namespace pycv::cuda {

template <class Shape>
struct Persistent {
    static constexpr int buffer_bytes = 64 * 128, buffers = 2;
    static constexpr int staging_bytes = Shape::groups * buffers * buffer_bytes;
    static constexpr int shared_bytes = Shape::ring_bytes + staging_bytes;
};

// relu(alpha * sum + beta * residual + bias) of the sums of a lane, from `column` of two rows on.
template <int N, class T>
__device__ __forceinline__ void apply_epilogue(float (&sums)[N / 2], const Gemm<T>& g, int batch, const int (&rows)[2],
                                               int column) {
    const Epilogue<T>& e = g.epilogue;
    // Beyond the result: of its last column, for sums that are not stored. There is no branch around a load, so that
    // many are under way; one around every 64 columns, so that they are not more than there are registers.
    const int last_column = static_cast<int>(g.n) - 1;
    const auto add = [&](const T* first, const T* second, int64_t step, float factor) {
        const T* const from[2] = {first, second};
#pragma unroll
        for (int chunk = 0; chunk < N / 2; chunk += 32) {
            if (column + chunk * 2 > last_column) break;
#pragma unroll
            for (int i = chunk; i < chunk + 32; ++i) {
                const int c = min(column + i / 4 * 8 + i % 2, last_column);
                sums[i] += factor * to_accumulator(from[i / 2 % 2][c * step]);
            }
        }
    };
#pragma unroll
    for (int i = 0; i < N / 2; ++i) sums[i] *= e.alpha;
    if (e.residual.data)
        add(e.residual.at(batch, rows[0], 0), e.residual.at(batch, rows[1], 0), e.residual.strides.column, e.beta);
    if (e.bias) add(e.bias + rows[0] * e.bias_row, e.bias + rows[1] * e.bias_row, e.bias_column, 1);
    if (e.relu)
#pragma unroll
        for (int i = 0; i < N / 2; ++i) sums[i] = sums[i] < 0 ? 0 : sums[i];
}

template <class T>
__device__ __forceinline__ unsigned packed_pair(float first, float second) {
    const Vector<T, 2> pair{{from_accumulator<T>(first), from_accumulator<T>(second)}};
    unsigned bits;
    std::memcpy(&bits, &pair, sizeof(bits));
    return bits;
}

// 128 bytes of each of the 64 rows of a warp group, from column `first` of the sums on, into a swizzled buffer.
template <class T, int N>
__device__ __forceinline__ void stage_results(unsigned char* buffer, const float (&sums)[N / 2], int first) {
    const int lane = lane_index(), warp_row = warp_index() % 4 * 16;
    if constexpr (sizeof(T) == 2) {
        const int row = warp_row + lane % 16;
#pragma unroll
        for (int j = 0; j < 4; ++j) {  // 16 columns
            const float* from = sums + (first / 8 + j * 2) * 4;
            const unsigned registers[4] = {packed_pair<T>(from[0], from[1]), packed_pair<T>(from[2], from[3]),
                                           packed_pair<T>(from[4], from[5]), packed_pair<T>(from[6], from[7])};
            store_matrices(buffer + swizzled<Swizzle::bytes_128>(row * 128 + (j * 2 + lane / 16) * 16), registers);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {  // rows g and g + 8 of 8 columns
            const int row = warp_row + lane / 4 + i % 2 * 8, column = i / 2 * 8 + lane % 4 * 2;
            const float* from = sums + (first / 8 + i / 2) * 4 + i % 2 * 2;
            auto* to = reinterpret_cast<T*>(buffer + swizzled<Swizzle::bytes_128>(row * 128 + column * 4));
            store_vector(to, Vector<T, 2>{{from[0], from[1]}});
        }
    }
}

// Stores what a warp group has computed, by store(buffer, column) for each buffer. Named barrier 1 + group is its own.
template <class Shape, class T, class Store>
__device__ __forceinline__ void store_results(const float (&sums)[Shape::columns / 2], unsigned char* staging,
                                              int group, int column, Store store) {
    using Of = Persistent<Shape>;
    constexpr int width = 128 / sizeof(T);
    // They take turns from tile to tile, too: an even number of stores, or a single buffer.
    constexpr int buffers = Shape::columns / width % Of::buffers == 0 ? Of::buffers : 1;
    const bool storing = threadIdx.x % warp_group_size == 0;
#pragma unroll
    for (int first = 0; first < Shape::columns; first += width) {
        unsigned char* const buffer = staging + (group * Of::buffers + first / width % buffers) * Of::buffer_bytes;
        if (storing) store_wait_read<buffers - 1>();  // the last store from this buffer has read it
        named_barrier(1 + group, warp_group_size);
        stage_results<T, Shape::columns>(buffer, sums, first);
        fence_async_copies();
        named_barrier(1 + group, warp_group_size);
        if (storing) {
            store(buffer, column + first);
            store_commit();
        }
    }
}

// Tile number `index` of the batch.
struct PersistentTile {
    int batch, row, column;

    template <class Shape, class T>
    static __device__ __forceinline__ PersistentTile of(const Gemm<T>& g, int64_t index) {
        const int64_t of_one = ceil_div<int64_t>(g.m, Shape::rows) * ceil_div<int64_t>(g.n, Shape::columns);
        const TileOrigin origin = tile_in_strips(index % of_one, g.m, g.n, Shape::rows, Shape::columns);
        return {static_cast<int>(index / of_one), static_cast<int>(origin.row), static_cast<int>(origin.column)};
    }
};

// Of a batch of matrices: which tiles there are, and where their results belong.
template <class Shape, class T>
struct MatrixResults {
    const Gemm<T>& g;
    const TensorMap& out;
    int64_t tiles;
    int of_each;  // steps

    __device__ __forceinline__ PersistentTile tile(int64_t index) const { return PersistentTile::of<Shape>(g, index); }
    __device__ __forceinline__ int steps(const PersistentTile&) const { return of_each; }
    // Of bias and residual: beyond the result the last one, for sums that are not stored.
    __device__ __forceinline__ int row(const PersistentTile&, int row) const {
        return min(row, static_cast<int>(g.m) - 1);
    }
    __device__ __forceinline__ void store(const float (&sums)[Shape::columns / 2], unsigned char* staging, int group,
                                          const PersistentTile& tile) const {
        store_results<Shape, T>(
            sums, staging, group, tile.column,
            [this, batch = tile.batch, row = tile.row + group * 64](const unsigned char* buffer, int column) {
                store_tensor(out, buffer, column, row, batch);
            });
    }
};

// All tiles of a block, with Persistent<Shape>::shared_bytes of shared memory from `ring` on. feed.loader(tile) gives
// the function that loads one stage after the other (group_pipeline.h).
template <class Arithmetic, class Shape, class TileA, class TileB, class T, class Feed, class Results>
__device__ __forceinline__ void run_persistent(unsigned char* ring, RingBarriers<Shape>& barriers, const Gemm<T>& g,
                                               const Feed& feed, const Results& results) {
    if (threadIdx.x == 0) barriers.init();
    __syncthreads();
    RingPlace<Shape> at;
    if (threadIdx.x < warp_group_size) {
        reallocate_registers<Shape::producer_registers, false>();
        if (threadIdx.x >= Shape::producers) return;
        for (int64_t index = blockIdx.x; index < results.tiles; index += gridDim.x) {
            const PersistentTile tile = results.tile(index);
            produce(ring, barriers, at, results.steps(tile), feed.loader(tile));
        }
    } else {
        reallocate_registers<Shape::consumer_registers, true>();
        const int group = static_cast<int>(threadIdx.x) / warp_group_size - 1;
        const int lane_row = group * 64 + warp_index() % 4 * 16 + lane_index() / 4, lane_column = lane_index() % 4 * 2;
        for (int64_t index = blockIdx.x; index < results.tiles; index += gridDim.x) {
            const PersistentTile tile = results.tile(index);
            float sums[Shape::columns / 2] = {};
            consume<Arithmetic, Shape, TileA, TileB>(sums, ring, barriers, at, results.steps(tile), group);
            const int row = tile.row + lane_row;
            const int rows[2] = {results.row(tile, row), results.row(tile, row + 8)};
            apply_epilogue<Shape::columns>(sums, g, tile.batch, rows, tile.column + lane_column);
            results.store(sums, ring + Shape::ring_bytes, group, tile);
        }
        if (threadIdx.x % warp_group_size == 0) store_wait_read<0>();
    }
}

template <class TileA, class TileB>
struct GemmFeed {
    const GroupOperands& in;

    __device__ __forceinline__ auto loader(const PersistentTile& tile) const {
        return [this, tile](unsigned char* tiles, Barrier* full, int step) {
            const int k = step * TileA::depth;
            TileA::load(tiles, in.a, full, tile.row, k, tile.batch * in.batch_step_a);
            TileB::load(tiles + TileA::bytes, in.b, full, tile.column, k, tile.batch * in.batch_step_b);
        };
    }
};

struct PersistentOperands {
    GroupOperands in;
    TensorMap out;
    int64_t tiles;  // of the whole batch
};

template <class Arithmetic, class Shape, Major A, Major B>
__global__ void __launch_bounds__(Shape::threads, 1)
    gemm_wgmma_3_persistent(const Gemm<typename Arithmetic::T> g, const __grid_constant__ PersistentOperands operands) {
    PYCV_NEEDS_WGMMA
    using TileA = GroupTile<Arithmetic, A, Shape::rows>;
    using TileB = GroupTile<Arithmetic, B, Shape::columns>;
    PYCV_SHARED(unsigned char, ring);
    __shared__ RingBarriers<Shape> barriers;
    const auto steps = static_cast<int>(ceil_div<int64_t>(g.k, TileA::depth));
    using Results = MatrixResults<Shape, typename Arithmetic::T>;
    run_persistent<Arithmetic, Shape, TileA, TileB>(ring, barriers, g, GemmFeed<TileA, TileB>{operands.in},
                                                    Results{g, operands.out, operands.tiles, steps});
}

template <class T>
constexpr TensorElement kResultElement = sizeof(T) == 4                ? TensorElement::f32
                                         : std::is_same_v<T, bfloat16> ? TensorElement::bf16
                                                                       : TensorElement::f16;

// Of the boxes that store_results() stores.
template <class T>
TensorMap result_map(const Gemm<T>& g) {
    return matrix_map(g.out, kResultElement<T>, g.n, g.m, g.batch, g.out_strides.row, g.out_strides.batch, 64);
}

template <class Arithmetic, class Shape>
void launch_wgmma_3(const Gemm<typename Arithmetic::T>& g, Stream stream) {
    const int64_t tiles = ceil_div<int64_t>(g.m, Shape::rows) * ceil_div<int64_t>(g.n, Shape::columns) * g.batch;
    const TensorMap out = result_map(g);
    with_majors<Arithmetic>(g, [&]<Major A, Major B>() {
        using TileA = GroupTile<Arithmetic, A, Shape::rows>;
        using TileB = GroupTile<Arithmetic, B, Shape::columns>;
        const auto grid = static_cast<unsigned>(std::min<int64_t>(tiles, multiprocessor_count()));
        launch(gemm_wgmma_3_persistent<Arithmetic, Shape, A, B>, dim3(grid), Shape::threads,
               Persistent<Shape>::shared_bytes, stream, g,
               PersistentOperands{group_operands<TileA, TileB>(g), out, tiles});
    });
}

// In the file of each arithmetic. The wide tile reads less of L2, the narrow one occupies more multiprocessors.
template <class Arithmetic>
void launch_wgmma_3(const Gemm<typename Arithmetic::T>& g, bool wide, Stream stream);

#define PYCV_GEMM_WGMMA_3(Arithmetic)                                                         \
    template <>                                                                               \
    void launch_wgmma_3<Arithmetic>(const Gemm<Arithmetic::T>& g, bool wide, Stream stream) { \
        if (wide)                                                                             \
            launch_wgmma_3<Arithmetic, WideGroups>(g, stream);                                \
        else                                                                                  \
            launch_wgmma_3<Arithmetic, NarrowGroups>(g, stream);                              \
    }

}  // namespace pycv::cuda
