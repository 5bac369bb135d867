// Step 3 of Hopper's GEMMs for matrices that lie in some other way than tensor maps describe: at any address and any
// strides, and in tf32 along their lines.
//
// The kernel is that of gemm_wgmma_3_persistent.h, with another producer: what boxes can bring along k they bring, the
// rest is gathered element by element (group_gather.h says what that costs), unless the plan has it copied first
// (gemm_wgmma_3_copies.h). Where boxes cannot store the result, each warp writes its own rows, element by element,
// neighbouring lanes neighbouring columns.
#pragma once

#include "gemm_wgmma_3_persistent.h"
#include "group_gather.h"

namespace pycv::cuda {

template <class T>
bool result_in_boxes(const Gemm<T>& g) {
    return in_boxes<T>({g.out, g.m, g.n, g.batch, g.out_strides.row, g.out_strides.column, g.out_strides.batch},
                       Major::k);
}

// One that comes by boxes along k or is gathered.
template <class T>
struct GatheredOperand {
    TensorMap map;
    GroupMatrix matrix;
    bool boxes;

    template <class Tile>
    static GatheredOperand of(const GroupMatrix& matrix) {
        const bool boxes = in_boxes<T>(matrix, Major::k);
        return {boxes ? Tile::map(matrix) : TensorMap{}, matrix, boxes};
    }

    template <class Tile>
    __device__ __forceinline__ void load(unsigned char* tile, Barrier* full, int line, int k, int batch) const {
        Tile::load(tile, map, full, line, k, matrix.batch_stride == 0 ? 0 : batch);
    }
    template <int Lines, int Depth>
    __device__ __forceinline__ void gather(unsigned char* tile, int line, int k, int batch) const {
        const GroupMatrix& m = matrix;
        const int64_t first = batch * m.batch_stride + line * m.line_stride + k * m.k_stride;
        const GatheredLines<T> lines{static_cast<const T*>(m.data) + first, m.line_stride, m.k_stride,
                                     clamped(m.lines - line, Lines), clamped(m.k - k, Depth)};
        lines.template gather<Lines>(tile);
    }
};

template <class T>
struct GatheredOperands {
    GatheredOperand<T> a, b;
    TensorMap out;
    bool boxes_out;
    int64_t tiles;  // of the whole batch
};

template <class TileA, class TileB, class T>
struct GatheringFeed {
    const GatheredOperands<T>& in;

    __device__ __forceinline__ auto loader(const PersistentTile& tile) const {
        return [this, tile](unsigned char* tiles, Barrier* full, int step) {
            unsigned char* const b_tile = tiles + TileA::bytes;
            const int k = step * TileA::depth;
            if (threadIdx.x == 0) {
                barrier_expect(full, (in.a.boxes ? TileA::bytes : 0) + (in.b.boxes ? TileB::bytes : 0));
                if (in.a.boxes) in.a.template load<TileA>(tiles, full, tile.row, k, tile.batch);
                if (in.b.boxes) in.b.template load<TileB>(b_tile, full, tile.column, k, tile.batch);
            }
            if (!in.a.boxes) in.a.template gather<TileA::lines, TileA::depth>(tiles, tile.row, k, tile.batch);
            if (!in.b.boxes) in.b.template gather<TileB::lines, TileB::depth>(b_tile, tile.column, k, tile.batch);
            arrive_with_tiles(full);
        };
    }
};

// Each warp for itself: what store_results() does where there are boxes.
template <class Shape, class T>
__device__ __forceinline__ void write_results(const float (&sums)[Shape::columns / 2], unsigned char* buffer,
                                              const Gemm<T>& g, int batch, int first_row, int first_column) {
    constexpr int width = 128 / sizeof(T);
    const int warp_row = warp_index() % 4 * 16;
#pragma unroll
    for (int first = 0; first < Shape::columns; first += width) {
        stage_results<T, Shape::columns>(buffer, sums, first);
        sync_warp();
#pragma unroll 1
        for (int i = lane_index(); i < 16 * width; i += warp_size) {
            const int row = warp_row + i / width, column = i % width;
            if (first_row + row >= g.m || first_column + first + column >= g.n) continue;
            const int place = swizzled<Swizzle::bytes_128>(row * 128 + column * static_cast<int>(sizeof(T)));
            *g.out_at(batch, first_row + row, first_column + first + column) =
                *reinterpret_cast<const T*>(buffer + place);
        }
        sync_warp();
    }
}

// As MatrixResults, where boxes may not do.
template <class Shape, class T>
struct GatheredResults : MatrixResults<Shape, T> {
    bool boxes;

    __device__ __forceinline__ void store(const float (&sums)[Shape::columns / 2], unsigned char* staging, int group,
                                          const PersistentTile& tile) const {
        using Of = Persistent<Shape>;
        if (boxes)
            MatrixResults<Shape, T>::store(sums, staging, group, tile);
        else
            write_results<Shape, T>(sums, staging + group * Of::buffers * Of::buffer_bytes, this->g, tile.batch,
                                    tile.row + group * 64, tile.column);
    }
};

template <class Arithmetic, class Shape>
__global__ void __launch_bounds__(Shape::threads, 1)
    gemm_wgmma_3_gathered(const Gemm<typename Arithmetic::T> g,
                          const __grid_constant__ GatheredOperands<typename Arithmetic::T> operands) {
    PYCV_NEEDS_WGMMA
    using T = typename Arithmetic::T;
    using TileA = GroupTile<Arithmetic, Major::k, Shape::rows>;
    using TileB = GroupTile<Arithmetic, Major::k, Shape::columns>;
    PYCV_SHARED(unsigned char, ring);
    __shared__ RingBarriers<Shape> barriers;
    const auto steps = static_cast<int>(ceil_div<int64_t>(g.k, TileA::depth));
    run_persistent<Arithmetic, Shape, TileA, TileB>(
        ring, barriers, g, GatheringFeed<TileA, TileB, T>{operands},
        GatheredResults<Shape, T>{{g, operands.out, operands.tiles, steps}, operands.boxes_out});
}

template <class Arithmetic, class Groups>
void launch_wgmma_3_gathered(const Gemm<typename Arithmetic::T>& g, Stream stream) {
    using T = typename Arithmetic::T;
    using Shape = Gathering<Groups, true>;
    using TileA = GroupTile<Arithmetic, Major::k, Shape::rows>;
    using TileB = GroupTile<Arithmetic, Major::k, Shape::columns>;
    const bool boxes_out = result_in_boxes(g);
    const int64_t tiles = ceil_div<int64_t>(g.m, Shape::rows) * ceil_div<int64_t>(g.n, Shape::columns) * g.batch;
    const GatheredOperands<T> operands{GatheredOperand<T>::template of<TileA>(group_matrix_a(g)),
                                       GatheredOperand<T>::template of<TileB>(group_matrix_b(g)),
                                       boxes_out ? result_map(g) : TensorMap{}, boxes_out, tiles};
    const auto grid = static_cast<unsigned>(std::min<int64_t>(tiles, multiprocessor_count()));
    launch(gemm_wgmma_3_gathered<Arithmetic, Shape>, dim3(grid), Shape::threads, Persistent<Shape>::shared_bytes,
           stream, g, operands);
}

// In the file of each arithmetic, as launch_wgmma_3 of gemm_wgmma_3_persistent.h.
template <class Arithmetic>
void launch_wgmma_3_gathered(const Gemm<typename Arithmetic::T>& g, bool wide, Stream stream);

#define PYCV_GEMM_WGMMA_3_GATHERED(Arithmetic)                                                         \
    template <>                                                                                        \
    void launch_wgmma_3_gathered<Arithmetic>(const Gemm<Arithmetic::T>& g, bool wide, Stream stream) { \
        if (wide)                                                                                      \
            launch_wgmma_3_gathered<Arithmetic, WideGroups>(g, stream);                                \
        else                                                                                           \
            launch_wgmma_3_gathered<Arithmetic, NarrowGroups>(g, stream);                              \
    }

}  // namespace pycv::cuda
