// GEMM on tensor cores by mma.sync (sm_80): the kernel of mma_sync and its variants, and how a plan launches it.
//
// A block computes a tile of the result from tiles of a and b that travel through four stages of shared memory
// (cp.async, mma_tile.h). Both are copied as they lie in memory, k or the lines running fastest, 16 bytes at a time;
// where alignment or strides forbid that, element by element. Where tiles are too few to occupy a GPU, blocks share
// k: each keeps its sums in the workspace, and a second kernel adds them up, always in the same order.
#pragma once

#include "gemm_tiles.h"
#include "mma_tile.h"
#include "mma_tile_choice.h"

namespace pycv::cuda {

template <class Arithmetic>
struct MmaShapes {  // as many sums of a warp as registers can hold beside what is multiplied
    using Large = MmaShape<128, 128, 64, 64, 2>;
    using Tall = MmaShape<128, 64, 64, 32, 3>;
    using Wide = MmaShape<64, 128, 32, 64, 3>;
    using Small = MmaShape<64, 64, 32, 32, 4>;
};
template <>
struct MmaShapes<Tf32x3Arithmetic> {  // each operand twice
    using Large = MmaShape<128, 128, 64, 32, 1>;
    using Tall = MmaShape<128, 64, 64, 32, 2>;
    using Wide = MmaShape<64, 128, 32, 64, 2>;
    using Small = MmaShape<64, 64, 32, 32, 3>;
};

template <class T>
constexpr int kMmaDepth = 64 / sizeof(T);  // of a pair of tiles

// ----------------------------------------------------------------------------------------------------- operands

// Copies 16 bytes of a tile, of which `valid` elements exist, one by one; the others become zero.
template <class T>
__device__ __forceinline__ void copy_elements(T* shared, const T* global, int64_t stride, int valid) {
#pragma unroll
    for (int i = 0; i < widest_vector<T>; ++i) CopyAsync::element(shared + i, global + i * stride, i < valid);
}

// One operand as a kernel gets it. Rows and columns are those of its tiles.
template <class Tile, int Threads, class T>
struct MmaOperand {
    const T* data;
    int64_t batch_stride, row_stride, column_stride;
    int64_t lines;
    bool vectors;

    static constexpr int row_step = Threads / Tile::vectors;  // rows between the vectors that a thread copies
    static constexpr int copies = Tile::rows / row_step;
    static_assert(Threads % Tile::vectors == 0 && Tile::rows % row_step == 0);

    MmaOperand(const T* data, int64_t batch_stride, int64_t line_stride, int64_t k_stride, int64_t lines)
        : data(data), batch_stride(batch_stride), row_stride(line_stride), column_stride(k_stride), lines(lines) {
        if (Tile::major == Major::line) std::swap(row_stride, column_stride);
        constexpr int N = widest_vector<T>;
        vectors = column_stride == 1 && row_stride % N == 0 && batch_stride % N == 0 && all_aligned(16, data);
    }
};

// A thread's share in copying one tile after the other along k.
template <class Tile, int Threads, class T>
class MmaCopier {
    using Operand = MmaOperand<Tile, Threads, T>;
    static constexpr int N = widest_vector<T>;

public:
    __device__ MmaCopier(const Operand& operand, int64_t batch, int64_t first_line, int64_t first_k)
        : operand_(operand), row_(threadIdx.x / Tile::vectors), vector_(threadIdx.x % Tile::vectors) {
        const int64_t row = row_ + (Tile::major == Major::k ? first_line : first_k);
        const int64_t column = vector_ * N + (Tile::major == Major::k ? first_k : first_line);
        from_ = operand.data + batch * operand.batch_stride + row * operand.row_stride + column * operand.column_stride;
        lines_ = clamped(operand.lines - first_line, Tile::lines);
    }

    // The next tile, of which `depth` lies within the matrix.
    __device__ __forceinline__ void copy(T* tile, int depth) {
        const int rows = Tile::major == Major::k ? lines_ : depth;
        const int columns = (Tile::major == Major::k ? depth : lines_) - vector_ * N;
        const int within = columns < 0 ? 0 : columns < N ? columns : N;
        const T* from = from_;
        const int64_t step = Operand::row_step * operand_.row_stride;
        if (operand_.vectors) {
#pragma unroll
            for (int i = 0; i < Operand::copies; ++i, from += step) {
                const int row = row_ + i * Operand::row_step;
                async_copy<N>(tile + Tile::offset(row, vector_), from, row < rows ? within : 0);
            }
        } else {
#pragma unroll 1  // the rarer way: short, and with no registers of its own
            for (int i = 0; i < Operand::copies; ++i, from += step) {
                const int row = row_ + i * Operand::row_step;
                copy_elements(tile + Tile::offset(row, vector_), from, operand_.column_stride, row < rows ? within : 0);
            }
        }
        from_ += Tile::depth * (Tile::major == Major::k ? operand_.column_stride : operand_.row_stride);
    }

private:
    const Operand& operand_;
    const T* from_;
    int row_, vector_, lines_;
};

// ------------------------------------------------------------------------------------------------------- kernels

// Parts of k, each with sums of its own where there is more than one.
struct MmaParts {
    int64_t count, depth;
    float* sums;

    // Of part `part` of the tile of this block.
    template <class Shape>
    __device__ __forceinline__ float* of(int64_t part) const {
        return sums + ((blockIdx.z * count + part) * gridDim.x + blockIdx.x) * (Shape::rows * Shape::columns);
    }
};

template <class Arithmetic, class Shape, Major A, Major B>
struct GemmMma {
    using T = typename Arithmetic::T;
    using TileA = SwizzledTile<T, A, Shape::rows, kMmaDepth<T>>;
    using TileB = SwizzledTile<T, B, Shape::columns, kMmaDepth<T>>;
    using OperandA = MmaOperand<TileA, Shape::threads, T>;
    using OperandB = MmaOperand<TileB, Shape::threads, T>;
    static constexpr int stage = TileA::elements + TileB::elements;
    static constexpr int bytes = kStages * stage * static_cast<int>(sizeof(T));
    static_assert(kStagingFloats<Shape> * 4 <= bytes);
};

template <class Arithmetic, class Shape>
__device__ __forceinline__ void write_products(WarpProducts<Arithmetic, Shape>& products, float* shared,
                                               const Gemm<typename Arithmetic::T>& g, bool vectors_out,
                                               const TileOrigin& tile) {
    for_each_run<false>(products, shared, [&](const float (&run)[4], int i, int j) {
        const int64_t row = tile.row + i, column = tile.column + j;
        if (row < g.m) write_run(g, vectors_out, run, blockIdx.z, row, column);
    });
}

template <class Arithmetic, class Shape, Major A, Major B>
__global__ void __launch_bounds__(Shape::threads, Shape::blocks_together)
    gemm_mma(const Gemm<typename Arithmetic::T> g, const typename GemmMma<Arithmetic, Shape, A, B>::OperandA a,
             const typename GemmMma<Arithmetic, Shape, A, B>::OperandB b, bool vectors_out, const MmaParts parts) {
    PYCV_NEEDS_MMA
    using Of = GemmMma<Arithmetic, Shape, A, B>;
    using T = typename Arithmetic::T;
    PYCV_SHARED(T, shared);
    const TileOrigin tile = tile_in_strips(g.m, g.n, Shape::rows, Shape::columns);
    const int64_t first_k = blockIdx.y * parts.depth;
    int64_t left = (g.k - first_k < parts.depth ? g.k - first_k : parts.depth);  // to be fetched
    MmaCopier<typename Of::TileA, Shape::threads, T> copy_a(a, blockIdx.z, tile.row, first_k);
    MmaCopier<typename Of::TileB, Shape::threads, T> copy_b(b, blockIdx.z, tile.column, first_k);
    WarpProducts<Arithmetic, Shape> products;
    multistage(
        ceil_div<int64_t>(left, kMmaDepth<T>),
        [&](int stage) {
            T* to = shared + stage * Of::stage;
            const int depth = clamped(left, kMmaDepth<T>);
            copy_a.copy(to, depth);
            copy_b.copy(to + Of::TileA::elements, depth);
            left -= kMmaDepth<T>;
        },
        [&](int stage) {
            const T* from = shared + stage * Of::stage;
            products.template add<typename Of::TileA, typename Of::TileB>(from, from + Of::TileA::elements);
        });
    if (parts.count > 1)
        products.keep(parts.of<Shape>(blockIdx.y));
    else
        write_products(products, reinterpret_cast<float*>(shared), g, vectors_out, tile);
}

template <class Arithmetic, class Shape>
__global__ void __launch_bounds__(Shape::threads)
    gemm_mma_add_parts(const Gemm<typename Arithmetic::T> g, bool vectors_out, const MmaParts parts) {
    PYCV_NEEDS_MMA
    PYCV_SHARED(float, shared);
    WarpProducts<Arithmetic, Shape> products;
    for (int64_t part = 0; part < parts.count; ++part) products.add_kept(parts.of<Shape>(part));
    write_products(products, shared, g, vectors_out, tile_in_strips(g.m, g.n, Shape::rows, Shape::columns));
}

// -------------------------------------------------------------------------------------------------------- launch

template <class Arithmetic, class Shape, Major A, Major B>
void launch_gemm_mma(const Gemm<typename Arithmetic::T>& g, const MmaParts& parts, Stream stream) {
    using Of = GemmMma<Arithmetic, Shape, A, B>;
    const bool vectors_out = writes_vectors(g);
    dim3 grid = tile_grid(g.batch, g.m, g.n, Shape::rows, Shape::columns);
    grid.y = static_cast<unsigned>(parts.count);
    launch(gemm_mma<Arithmetic, Shape, A, B>, grid, Shape::threads, Of::bytes, stream, g,
           typename Of::OperandA(g.a.data, g.a.strides.batch, g.a.strides.row, g.a.strides.column, g.m),
           typename Of::OperandB(g.b.data, g.b.strides.batch, g.b.strides.column, g.b.strides.row, g.n), vectors_out,
           parts);
    if (parts.count == 1) return;
    grid.y = 1;
    launch(gemm_mma_add_parts<Arithmetic, Shape>, grid, Shape::threads, kStagingFloats<Shape> * 4, stream, g,
           vectors_out, parts);
}

inline Major major_of(int64_t line_stride, int64_t k_stride) {
    return line_stride == 1 && k_stride != 1 ? Major::line : Major::k;
}

template <class Arithmetic, class Shape>
void launch_gemm_mma(const Gemm<typename Arithmetic::T>& g, const MmaParts& parts, Stream stream) {
    const Major a = major_of(g.a.strides.row, g.a.strides.column), b = major_of(g.b.strides.column, g.b.strides.row);
    const bool b_along_k = b == Major::k;
    if (a == Major::k)
        b_along_k ? launch_gemm_mma<Arithmetic, Shape, Major::k, Major::k>(g, parts, stream)
                  : launch_gemm_mma<Arithmetic, Shape, Major::k, Major::line>(g, parts, stream);
    else
        b_along_k ? launch_gemm_mma<Arithmetic, Shape, Major::line, Major::k>(g, parts, stream)
                  : launch_gemm_mma<Arithmetic, Shape, Major::line, Major::line>(g, parts, stream);
}

// One batch that a grid can hold, with tiles of this shape.
template <class Arithmetic>
void launch_gemm_mma(const Gemm<typename Arithmetic::T>& g, MmaTileIndex tile, const MmaParts& parts, Stream stream);

// In the file of each arithmetic.
#define PYCV_GEMM_MMA(Arithmetic)                                                                            \
    template <>                                                                                              \
    void launch_gemm_mma<Arithmetic>(const Gemm<Arithmetic::T>& g, MmaTileIndex tile, const MmaParts& parts, \
                                     Stream stream) {                                                        \
        if (tile == kLargeTile)                                                                              \
            launch_gemm_mma<Arithmetic, MmaShapes<Arithmetic>::Large>(g, parts, stream);                     \
        else                                                                                                 \
            launch_gemm_mma<Arithmetic, MmaShapes<Arithmetic>::Small>(g, parts, stream);                     \
    }

}  // namespace pycv::cuda
