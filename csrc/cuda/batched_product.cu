// Batched matrix products: a block computes a tile of one matrix, its threads TM x TN elements each, in registers.
// Tuned: no kernel of this file may spill registers.
//
// Steps of BK along k go through shared memory, in which both operands lie across k, whatever their order in memory.
// While one step is multiplied the next one is on its way into registers and goes to a second buffer afterwards: one
// barrier per step. A thread's rows and columns are groups of 16 bytes, a tile's width apart, so that fragments are
// read from shared memory by 16 bytes without bank conflicts.
//
// Per multiply-add of fp32: 8 / 128 bytes from L2 in a tile of 128 x 128 and a quarter of a byte per thread from
// shared memory (8 x 8 elements). The smaller tile serves what would leave the larger one half empty.
#include <algorithm>

#include "batched_product.h"
#include "device/launch.h"
#include "device/vector.h"
#include "integers.h"

namespace pycv::cuda {
namespace {

template <int Rows, int Columns, int Depth, int ThreadRows, int ThreadColumns>
struct ProductTile {
    static constexpr int BM = Rows, BN = Columns, BK = Depth, TM = ThreadRows, TN = ThreadColumns;
    static constexpr int columns = BN / TN, threads = BM / TM * columns;  // of threads
};

template <class E>
struct Tiles {  // elements of 8 bytes
    using Large = ProductTile<64, 64, 8, 8, 4>;
    using Small = Large;
};
template <>
struct Tiles<float> {
    using Large = ProductTile<128, 128, 16, 8, 8>;
    using Small = ProductTile<64, 64, 16, 8, 8>;
};
template <>
struct Tiles<Complex<double>> {
    using Large = ProductTile<64, 64, 8, 4, 4>;
    using Small = Large;
};

// Up to N elements from an aligned address, those from `count` on as zeros.
template <int N, class E>
__device__ __forceinline__ Vector<E, N> load_some(const E* from, int64_t count) {
    if (count >= N) return load_vector_read_only<N>(from);
    Vector<E, N> v{};
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (i < count) v[i] = from[i];
    return v;
}

// A block's part of one operand: W rows from the first on, a step of k at a time, from memory to registers to shared
// memory [k][row].
template <class E, int W, int BK, int Threads, bool AlongK>
struct StepLoader {
    static constexpr int V = widest_vector<E>;
    static constexpr int pitch = W + V;
    static constexpr int count = W * BK / V / Threads;  // vectors per thread
    static_assert(count * V * Threads == W * BK, "threads without a vector");

    const E* data;  // of the first row
    int64_t line, rows;
    Vector<E, V> held[count];

    __device__ __forceinline__ void load(int64_t k, int64_t end) {
#pragma unroll
        for (int i = 0; i < count; ++i) {
            const int index = i * Threads + static_cast<int>(threadIdx.x);
            if constexpr (AlongK) {
                const int row = index / (BK / V), at = index % (BK / V) * V;
                held[i] = load_some<V>(data + row * line + k + at, row < rows ? end - k - at : 0);
            } else {
                const int row = index % (W / V) * V, at = index / (W / V);
                held[i] = load_some<V>(data + (k + at) * line + row, k + at < end ? rows - row : 0);
            }
        }
    }

    __device__ __forceinline__ void store(E* shared) const {
#pragma unroll
        for (int i = 0; i < count; ++i) {
            const int index = i * Threads + static_cast<int>(threadIdx.x);
            if constexpr (AlongK) {
                const int row = index / (BK / V), at = index % (BK / V) * V;
#pragma unroll
                for (int j = 0; j < V; ++j) shared[(at + j) * pitch + row] = held[i][j];
            } else {
                store_vector(shared + index / (W / V) * pitch + index % (W / V) * V, held[i]);
            }
        }
    }
};

// fragment[i] = the thread's rows (or columns) of one k: groups of V, `Threads` groups apart.
template <int N, int Threads, class E>
__device__ __forceinline__ void load_fragment(const E* shared, int thread, E* fragment) {
    constexpr int V = widest_vector<E>;
#pragma unroll
    for (int group = 0; group < N / V; ++group) {
        const Vector<E, V> v = load_vector<V>(shared + (group * Threads + thread) * V);
#pragma unroll
        for (int i = 0; i < V; ++i) fragment[group * V + i] = v[i];
    }
}

template <class E, class Tile, bool AAlongK, bool BAlongK>
__global__ void __launch_bounds__(Tile::threads) product_kernel(BatchedProduct<E> p, int64_t k_per_split) {
    constexpr int V = widest_vector<E>, BM = Tile::BM, BN = Tile::BN, BK = Tile::BK, TM = Tile::TM, TN = Tile::TN;
    using LoadA = StepLoader<E, BM, BK, Tile::threads, AAlongK>;
    using LoadB = StepLoader<E, BN, BK, Tile::threads, BAlongK>;
    constexpr int buffer = BK * (LoadA::pitch + LoadB::pitch), b_at = BK * LoadA::pitch;
    PYCV_SHARED(E, shared);

    const int64_t row_tiles = ceil_div<int64_t>(p.m, BM), column_tiles = ceil_div<int64_t>(p.n, BN);
    int64_t index = blockIdx.x;
    const int64_t column = index % column_tiles * BN;
    index /= column_tiles;
    const int64_t row = index % row_tiles * BM;
    index /= row_tiles;
    const int64_t split = index % p.splits, batch = index / p.splits;
    const int64_t begin = split * k_per_split, end = min(p.k, begin + k_per_split);

    LoadA a{p.a.data + batch * p.a.batch + row * (AAlongK ? p.a.line : 1), p.a.line, p.m - row, {}};
    LoadB b{p.b.data + batch * p.b.batch + column * (BAlongK ? p.b.line : 1), p.b.line, p.n - column, {}};
    const int thread_column = static_cast<int>(threadIdx.x) % Tile::columns;
    const int thread_row = static_cast<int>(threadIdx.x) / Tile::columns;

    E sums[TM][TN] = {};
    a.load(begin, end);
    b.load(begin, end);
    a.store(shared);
    b.store(shared + b_at);
    __syncthreads();
    int current = 0;
    for (int64_t k = begin; k < end; k += BK) {
        const bool more = k + BK < end;
        if (more) {
            a.load(k + BK, end);
            b.load(k + BK, end);
        }
        const E* from = shared + current * buffer;
#pragma unroll
        for (int i = 0; i < BK; ++i) {
            E rows[TM], columns[TN];
            load_fragment<TM, BM / TM>(from + i * LoadA::pitch, thread_row, rows);
            load_fragment<TN, BN / TN>(from + b_at + i * LoadB::pitch, thread_column, columns);
#pragma unroll
            for (int r = 0; r < TM; ++r)
#pragma unroll
                for (int c = 0; c < TN; ++c) multiply_add(sums[r][c], rows[r], columns[c]);
        }
        if (more) {
            current ^= 1;
            a.store(shared + current * buffer);
            b.store(shared + current * buffer + b_at);
            __syncthreads();
        }
    }

    E* const c = p.c + batch * p.c_batch + split * p.split;
#pragma unroll
    for (int r = 0; r < TM; ++r) {
        const int64_t at_row = row + (r / V * (BM / TM) + thread_row) * V + r % V;
        if (at_row >= p.m) continue;
#pragma unroll
        for (int group = 0; group < TN / V; ++group) {
            const int64_t at = column + (group * (BN / TN) + thread_column) * V;
            E* const to = c + at_row * p.c_line + at;
            if (at + V <= p.n) {
                Vector<E, V> v;
                if (p.add) v = load_vector<V>(to);
#pragma unroll
                for (int i = 0; i < V; ++i) v[i] = p.add ? v[i] + sums[r][group * V + i] : sums[r][group * V + i];
                store_vector(to, v);
            } else {
#pragma unroll
                for (int i = 0; i < V; ++i)
                    if (at + i < p.n) to[i] = p.add ? to[i] + sums[r][group * V + i] : sums[r][group * V + i];
            }
        }
    }
}

template <class E, class Tile>
void launch_product(const BatchedProduct<E>& p, Stream stream) {
    constexpr int V = widest_vector<E>;
    constexpr size_t bytes = sizeof(E) * 2 * Tile::BK * (Tile::BM + Tile::BN + 2 * V);
    static_assert(bytes <= 48 * 1024);
    const int64_t per_split = ceil_div<int64_t>(ceil_div(p.k, p.splits), Tile::BK) * Tile::BK;
    const int64_t tiles = ceil_div<int64_t>(p.m, Tile::BM) * ceil_div<int64_t>(p.n, Tile::BN);
    const dim3 grid(static_cast<unsigned>(tiles * p.splits * p.batches));
    const auto kernel = p.a.along_k
                            ? p.b.along_k ? product_kernel<E, Tile, true, true> : product_kernel<E, Tile, true, false>
                        : p.b.along_k ? product_kernel<E, Tile, false, true>
                                      : product_kernel<E, Tile, false, false>;
    launch(kernel, grid, dim3(Tile::threads), bytes, stream, p, per_split);
}

}  // namespace

template <class E>
void run_product(const BatchedProduct<E>& p, Stream stream) {
    if (p.batches == 0 || p.m == 0 || p.n == 0) return;
    if (p.m > Tiles<E>::Small::BM && p.n > Tiles<E>::Small::BN)
        launch_product<E, typename Tiles<E>::Large>(p, stream);
    else
        launch_product<E, typename Tiles<E>::Small>(p, stream);
}

template void run_product(const BatchedProduct<float>&, Stream);
template void run_product(const BatchedProduct<double>&, Stream);
template void run_product(const BatchedProduct<Complex<float>>&, Stream);
template void run_product(const BatchedProduct<Complex<double>>&, Stream);

int64_t product_splits(int64_t batches, int64_t m, int64_t n, int64_t k, int64_t most) {
    constexpr int64_t kBlocks = 264, kLeast = 128;  // two for each multiprocessor of an H100; the shortest sum
    const int64_t blocks = batches * ceil_div<int64_t>(m, 128) * ceil_div<int64_t>(n, 128);
    const int64_t wanted = blocks > 0 ? kBlocks / blocks : 1;
    return std::max<int64_t>(1, std::min({wanted, most, k / kLeast}));
}

}  // namespace pycv::cuda
