// Tiles of two operands in shared memory, and what a warp multiplies of them on tensor cores (device/mma.h).
//
// A tile lies as its operand does in global memory, so that it is copied by 16 bytes at a time: its rows run along k
// or along the lines (rows of a, columns of b). ldmatrix brings fragments of 16-bit elements out of both; those of 32
// bits that run along the lines are read one by one.
//
// The vectors of 16 bytes of a row are swizzled: eight rows of one column of vectors, which ldmatrix reads at a time,
// lie in the eight groups of banks that there are, without padding.
#pragma once

#include "device/async_copy.h"
#include "device/mma.h"
#include "device/vector.h"
#include "device/warp.h"

namespace pycv::cuda {

template <class T, Major major_, int Lines, int Depth>
struct SwizzledTile {
    static constexpr Major major = major_;
    static constexpr int lines = Lines, depth = Depth, elements = Lines * Depth;
    static constexpr int rows = major == Major::k ? Lines : Depth;
    static constexpr int width = major == Major::k ? Depth : Lines;  // elements of a row
    static constexpr int vectors = width / widest_vector<T>;         // of a row
    static_assert(vectors == 4 || vectors % 8 == 0);

    // Of a vector in the tile, in elements.
    static __device__ __forceinline__ int offset(int row, int vector) {
        if constexpr (vectors == 4)  // two rows fill the banks once
            vector ^= row / 2 % 4;
        else if constexpr (sizeof(T) == 4 && major == Major::line)  // read by 8 elements of 4 rows
            vector ^= row % 4 * 2;
        else
            vector ^= row % 8;
        return row * width + vector * widest_vector<T>;
    }
    static __device__ __forceinline__ int element(int row, int column) {
        return offset(row, column / widest_vector<T>) + column % widest_vector<T>;
    }
};

// Fragments come in slices of k of 32 bytes: what one multiplication takes.
template <class T>
constexpr int kSlice = 32 / sizeof(T);

template <class Tile, class T>
__device__ __forceinline__ void load_fragment(FragmentA& a, const T* tile, int first_line, int slice) {
    const int lane = lane_index();
    if constexpr (Tile::major == Major::k) {
        load_matrices(a.of, tile + Tile::offset(first_line + lane % 16, slice * 2 + lane / 16));
    } else if constexpr (sizeof(T) == 2) {
        const int row = slice * kSlice<T> + lane % 8 + lane / 16 * 8;
        load_matrices<true>(a.of, tile + Tile::offset(row, first_line / widest_vector<T> + lane / 8 % 2));
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = slice * kSlice<T> + lane % 4 + i / 2 * 4, line = first_line + lane / 4 + i % 2 * 8;
            a.of[i] = __float_as_uint(tile[Tile::element(row, line)]);
        }
    }
}

// Two at a time: of 16 columns.
template <class Tile, class T>
__device__ __forceinline__ void load_fragments(FragmentB* b, const T* tile, int first_line, int slice) {
    const int lane = lane_index();
    unsigned registers[4];
    if constexpr (Tile::major == Major::k) {
        const int line = first_line + lane % 8 + lane / 16 * 8;
        load_matrices(registers, tile + Tile::offset(line, slice * 2 + lane / 8 % 2));
    } else if constexpr (sizeof(T) == 2) {
        const int row = slice * kSlice<T> + lane % 16;
        load_matrices<true>(registers, tile + Tile::offset(row, first_line / widest_vector<T> + lane / 16));
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = slice * kSlice<T> + lane % 4 + i % 2 * 4, line = first_line + lane / 4 + i / 2 * 8;
            registers[i] = __float_as_uint(tile[Tile::element(row, line)]);
        }
    }
    b[0] = {registers[0], registers[1]};
    b[1] = {registers[2], registers[3]};
}

// ------------------------------------------------------------------------------------------------ arithmetic

// How elements of T are multiplied: as what, and in how many terms each. Of the products of terms i and j those with
// i + j < terms are taken.
template <class T_>
struct Plain16 {
    using T = T_;
    using Operand = T_;
    static constexpr int terms = 1;
};
using HalfArithmetic = Plain16<half>;
using BfloatArithmetic = Plain16<bfloat16>;

// tf32: operands keep 11 bits of precision.
struct Tf32Arithmetic {
    using T = float;
    using Operand = tf32;
    static constexpr int terms = 1;
};

// 3xTF32: an operand is the sum of two of tf32, of 22 bits together; the product of the smaller ones, below 2^-22 of
// the whole, is left out. The first is the nearest finite one, so that the second holds what is beyond, an infinity or
// NaN, too: what fp32 makes of such operands comes out, but that its two largest numbers round to 2^128. That takes two
// instructions of two cycles for each of the 24 registers of a slice of a warp: 96 cycles beside 48 products of 8
// cycles each, in another unit.
struct Tf32x3Arithmetic {
    using T = float;
    using Operand = tf32;
    static constexpr int terms = 2;
};

constexpr float kLargestTf32 = 0x1.ffcp127f;

// Splits N registers, which `first` holds as they were loaded, into their terms.
template <class Arithmetic, int N>
__device__ __forceinline__ void split_terms(unsigned (&first)[N], unsigned (&second)[N]) {
    if constexpr (std::is_same_v<typename Arithmetic::Operand, tf32>) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float value = __uint_as_float(first[i]);
            first[i] = to_tf32(Arithmetic::terms == 2 ? fminf(fmaxf(value, -kLargestTf32), kLargestTf32) : value);
            if constexpr (Arithmetic::terms == 2) second[i] = to_tf32(value - __uint_as_float(first[i]));
        }
    }
}

// -------------------------------------------------------------------------------------------------- products

// The shape of a block: Rows x Columns of the result, WarpRows x WarpColumns of a warp.
template <int Rows, int Columns, int WarpRows, int WarpColumns, int BlocksTogether>
struct MmaShape {
    static constexpr int rows = Rows, columns = Columns, warp_rows = WarpRows, warp_columns = WarpColumns;
    static constexpr int blocks_together = BlocksTogether;  // on a multiprocessor, which share its registers
    static constexpr int warps_across = Columns / WarpColumns;
    static constexpr int threads = Rows / WarpRows * warps_across * warp_size;
    static constexpr int down = WarpRows / 16, across = WarpColumns / 8;  // fragments of a warp
    static_assert(WarpRows % 16 == 0 && WarpColumns % 16 == 0);

    static __device__ __forceinline__ int warp_row() {
        return static_cast<int>(threadIdx.x) / warp_size / warps_across * WarpRows;
    }
    static __device__ __forceinline__ int warp_column() {
        return static_cast<int>(threadIdx.x) / warp_size % warps_across * WarpColumns;
    }
};

// The sums of a warp.
template <class Arithmetic, class Shape>
struct WarpProducts {
    using T = typename Arithmetic::T;
    FragmentSums sums[Shape::down][Shape::across] = {};

    // Adds the products of two tiles of a block.
    template <class TileA, class TileB>
    __device__ __forceinline__ void add(const T* a_tile, const T* b_tile) {
        static_assert(TileA::depth == TileB::depth);
        const int row = Shape::warp_row(), column = Shape::warp_column();
#pragma unroll(Arithmetic::terms == 1 ? TileA::depth / kSlice<T> : 1)  // of two terms, registers for one
        for (int slice = 0; slice < TileA::depth / kSlice<T>; ++slice) {
            FragmentA a[Arithmetic::terms][Shape::down];
            FragmentB b[Arithmetic::terms][Shape::across];
            constexpr int last = Arithmetic::terms - 1;
#pragma unroll
            for (int i = 0; i < Shape::down; ++i) {
                load_fragment<TileA>(a[0][i], a_tile, row + i * 16, slice);
                split_terms<Arithmetic>(a[0][i].of, a[last][i].of);
            }
#pragma unroll
            for (int j = 0; j < Shape::across; j += 2) {
                load_fragments<TileB>(b[0] + j, b_tile, column + j * 8, slice);
                split_terms<Arithmetic>(b[0][j].of, b[last][j].of);
                split_terms<Arithmetic>(b[0][j + 1].of, b[last][j + 1].of);
            }
            multiply(a, b);
        }
    }

    // Of two terms the small ones first, and the products of a slice by themselves: tensor cores cut off what a sum has
    // no bits for, each time towards zero, which in a long sum would be more than 3xTF32 keeps. So the additions to it
    // are done elsewhere, rounding: 64 instructions beside 48 products of 8 cycles.
    __device__ __forceinline__ void multiply(const FragmentA (&a)[Arithmetic::terms][Shape::down],
                                             const FragmentB (&b)[Arithmetic::terms][Shape::across]) {
        using Operand = typename Arithmetic::Operand;
        if constexpr (Arithmetic::terms == 1) {
            for_each_sum([&](FragmentSums& to, int i, int j) { multiply_add<Operand>(to, a[0][i], b[0][j]); });
        } else {
            for_each_pair_of_sums([&](FragmentSums* to, int i, int j) {
                FragmentSums slice[2] = {};
#pragma unroll
                for (int term = 0; term < 3; ++term)
#pragma unroll
                    for (int k = 0; k < 2; ++k) multiply_add<Operand>(slice[k], a[term == 0][i], b[term == 1][j + k]);
#pragma unroll
                for (int e = 0; e < 8; ++e) to[e / 4].of[e % 4] += slice[e / 4].of[e % 4];
            });
        }
    }

    template <class Visit>
    __device__ __forceinline__ void for_each_sum(Visit visit) {
#pragma unroll
        for (int i = 0; i < Shape::down; ++i)
#pragma unroll
            for (int j = 0; j < Shape::across; ++j) visit(sums[i][j], i, j);
    }

    template <class Visit>
    __device__ __forceinline__ void for_each_pair_of_sums(Visit visit) {
#pragma unroll
        for (int i = 0; i < Shape::down; ++i)
#pragma unroll
            for (int j = 0; j < Shape::across; j += 2) visit(sums[i] + j, i, j);
    }

    // Part of k: the sums of a block as one piece of memory, in the order in which its threads hold them.
    static constexpr int kept = Shape::rows * Shape::columns;
    __device__ __forceinline__ void keep(float* to) {
        for_each_sum([&](const FragmentSums& own, int i, int j) {
            Vector<float, 4> values{{own.of[0], own.of[1], own.of[2], own.of[3]}};
            store_vector(to + ((i * Shape::across + j) * Shape::threads + threadIdx.x) * 4, values);
        });
    }
    __device__ __forceinline__ void add_kept(const float* from) {
        for_each_sum([&](FragmentSums& own, int i, int j) {
            const auto values = load_vector<4>(from + ((i * Shape::across + j) * Shape::threads + threadIdx.x) * 4);
#pragma unroll
            for (int e = 0; e < 4; ++e) own.of[e] += values[e];
        });
    }
};

// ------------------------------------------------------------------------------------------------- the results

// Hands the sums of a block to write(run, row, column) in runs of 4 neighbouring columns, or with AlongRows of 4 rows,
// so that neighbouring lanes hold neighbouring runs. They pass through shared memory, which nobody may use any more:
// 16 rows of a warp at a time.
template <bool AlongRows, class Shape>
constexpr int kStagingPitch = Shape::warp_columns + (AlongRows ? 2 : 8);
template <class Shape>
constexpr int kStagingFloats = Shape::threads / warp_size * 16 * kStagingPitch<false, Shape>;

template <bool AlongRows, class Arithmetic, class Shape, class Write>
__device__ __forceinline__ void for_each_run(WarpProducts<Arithmetic, Shape>& products, float* shared, Write write) {
    constexpr int pitch = kStagingPitch<AlongRows, Shape>, runs_across = Shape::warp_columns / 4;
    const int lane = lane_index();
    float* const staged = shared + warp_index() * 16 * pitch;
#pragma unroll
    for (int i = 0; i < Shape::down; ++i) {
        sync_warp();  // all lanes are done with the rows before
#pragma unroll
        for (int j = 0; j < Shape::across; ++j) {
            const FragmentSums& sums = products.sums[i][j];
            float* to = staged + lane / 4 * pitch + j * 8 + lane % 4 * 2;
            store_vector(to, Vector<float, 2>{{sums.of[0], sums.of[1]}});
            store_vector(to + 8 * pitch, Vector<float, 2>{{sums.of[2], sums.of[3]}});
        }
        sync_warp();
#pragma unroll 2
        for (int run = lane; run < 16 * runs_across; run += warp_size) {
            const int row = AlongRows ? run % 4 * 4 : run / runs_across;
            const int column = AlongRows ? run / 4 : run % runs_across * 4;
            float values[4];
#pragma unroll
            for (int e = 0; e < 4; ++e)
                values[e] = staged[(row + (AlongRows ? e : 0)) * pitch + column + (AlongRows ? 0 : e)];
            write(values, Shape::warp_row() + i * 16 + row, Shape::warp_column() + column);
        }
    }
}

// --------------------------------------------------------------------------------------------- the loop over k

constexpr int kStages = 4;  // of shared memory: three pairs of tiles are on their way while one is multiplied

// Calls fetch(stage), arrived(stage) and multiply(stage) for each of `steps` pairs of tiles; fetch issues asynchronous
// copies. When a pair has arrived each thread may still change what it has copied itself. The barrier of a step says
// that its pair is there for all threads, and that all are done with the pair of the step before, whose stage is filled
// next.
template <class Fetch, class Arrived, class Multiply>
__device__ __forceinline__ void multistage(int64_t steps, Fetch fetch, Arrived arrived, Multiply multiply) {
#pragma unroll
    for (int stage = 0; stage < kStages - 1; ++stage) {
        if (stage < steps) fetch(stage);
        async_copy_commit();
    }
    int stage = 0;
    for (int64_t left = steps; left > 0; --left) {
        async_copy_wait<kStages - 2>();
        arrived(stage);
        __syncthreads();
        if (left >= kStages) fetch((stage + kStages - 1) % kStages);
        async_copy_commit();
        multiply(stage);
        stage = (stage + 1) % kStages;
    }
    __syncthreads();  // shared memory is free
}

template <class Fetch, class Multiply>
__device__ __forceinline__ void multistage(int64_t steps, Fetch fetch, Multiply multiply) {
    multistage(steps, fetch, [](int) {}, multiply);
}

}  // namespace pycv::cuda
