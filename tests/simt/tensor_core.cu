// Tensor cores: who holds what of a fragment, stated here once more, against plain products of matrices whose elements
// all differ; tiles of every kind; and twins with a planted bug.
#include "cases.h"
#include "mma_tile.h"

using namespace pycv::cuda;

namespace {

// ----------------------------------------------------------------------------------------------------- fragments

constexpr int rows = 16, columns = 8;

template <class Operand>
using Stored = std::conditional_t<std::is_same_v<Operand, tf32>, float, Operand>;
template <class Operand>
constexpr int depth_of = std::is_same_v<Operand, tf32> ? 8 : 16;

// Different everywhere, and exact in every type.
int a_value(int row, int k) { return (row * 16 + k) * 37 % 256 - 128; }
int b_value(int k, int column) { return (k * 8 + column) * 29 % 128 - 64; }

template <class T>
std::vector<T> stored(int height, int width, int (*value)(int, int)) {
    return cases::table(height * width, [&](int i) { return from_accumulator<T>(value(i / width, i % width)); });
}

template <class T>
__device__ unsigned packed(T first, T second) {
    return first.bits | static_cast<unsigned>(second.bits) << 16;
}

template <class Operand, bool Right>
__global__ void fragments_kernel(const Stored<Operand>* a, const Stored<Operand>* b, float* out) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    constexpr int depth = depth_of<Operand>;
    FragmentA of_a;
    FragmentB of_b;
    for (int i = 0; i < 4; i++) {
        const bool lower = Right ? i % 2 : i / 2, later = Right ? i / 2 : i % 2;
        const Stored<Operand>* row = a + (g + 8 * lower) * depth + depth / 2 * later;
        if constexpr (depth == 8)
            of_a.of[i] = __float_as_uint(row[t]);
        else
            of_a.of[i] = packed(row[2 * t], row[2 * t + 1]);
    }
    for (int i = 0; i < 2; i++) {
        const Stored<Operand>* column = b + depth / 2 * i * columns + g;
        if constexpr (depth == 8)
            of_b.of[i] = __float_as_uint(column[t * columns]);
        else
            of_b.of[i] = packed(column[2 * t * columns], column[(2 * t + 1) * columns]);
    }
    FragmentSums sums{{1, 2, 3, 4}};
    multiply_add<Operand>(sums, of_a, of_b);
    for (int i = 0; i < 4; i++) out[(g + 8 * (i / 2)) * columns + 2 * t + i % 2] = sums.of[i];
}

template <class Operand, bool Right>
void check_fragments() {
    constexpr int depth = depth_of<Operand>;
    const auto a = stored<Stored<Operand>>(rows, depth, a_value), b = stored<Stored<Operand>>(depth, columns, b_value);
    std::vector<float> out(rows * columns, NAN);
    launch(fragments_kernel<Operand, Right>, dim3(1), dim3(warp_size), 0, nullptr, a.data(), b.data(), out.data());
    cases::expect(out, cases::table(rows * columns, [&](int i) {
                      const int row = i / columns, column = i % columns;
                      float sum = static_cast<float>(1 + column % 2 + row / 8 * 2);
                      for (int k = 0; k < depth; k++) sum += static_cast<float>(a_value(row, k) * b_value(k, column));
                      return sum;
                  }));
}

TWINS(fragments_of_half) { check_fragments<half, Right>(); }
TWINS(fragments_of_bfloat16) { check_fragments<bfloat16, Right>(); }
TWINS(fragments_of_tf32) { check_fragments<tf32, Right>(); }

// The matrices lie one below the other.
template <bool Transposed, int Lanes>
__global__ void load_kernel(const unsigned short* in, unsigned* out, int shift) {
    __shared__ __align__(16) unsigned short tile[33 * 8];
    const int lane = lane_index();
    for (int i = lane; i < 33 * 8; i += Lanes) tile[i] = in[i];
    sync_warp();
    unsigned registers[4];
    load_matrices<Transposed>(registers, tile + lane * 8 + shift);  // line: row_of_a_matrix
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = registers[i];
}

template <bool Transposed, int Lanes = warp_size, bool Asked = Transposed>
void check_load(int shift = 0) {
    const auto in = cases::table(33 * 8, [](int i) { return static_cast<unsigned short>(i); });
    std::vector<unsigned> out(warp_size * 4, ~0u);
    launch(load_kernel<Asked, Lanes>, dim3(1), dim3(Lanes), 0, nullptr, in.data(), out.data(), shift);
    cases::expect(out, cases::table(warp_size * 4, [](int i) {
                      const unsigned matrix = i % 4 * 64, g = i / 16, t = i / 4 % 4;
                      const unsigned low = Transposed ? 2 * t * 8 + g : g * 8 + 2 * t;
                      return (matrix + low) | (matrix + low + (Transposed ? 8 : 1)) << 16;
                  }));
}

TWINS(load_matrices_transposed) { check_load<true, warp_size, Right>(); }
CASE(load_matrices_as_they_are) { check_load<false>(); }
TWINS(row_of_a_matrix) { check_load<false>(Right ? 0 : 4); }
TWINS(lanes_of_a_matrix) { check_load<false, Right ? 32 : 24>(); }

// ---------------------------------------------------------------------------------------------------------- tf32

constexpr float step = 0x1p-10f;  // between neighbours from 1 on

CASE(tf32_rounds_to_nearest) {
    const auto rounded = [](float x) { return __uint_as_float(to_tf32(x)); };
    cases::expect<float>({rounded(1 + step / 2), rounded(1 + step / 2 - 0x1p-23f), rounded(-1 - step / 2),
                          rounded(-0.0f), rounded(INFINITY), rounded(2 - 0x1p-23f), rounded(1 + step)},
                         {1 + step, 1, -1 - step, 0, INFINITY, 2, 1 + step});
    cases::expect<int>({std::isnan(rounded(NAN))}, {1});
}

// The tensor core looks at no more bits than tf32 has: who does not round cuts them off.
template <bool Right>
__global__ void rounding_kernel(float x, float* out) {
    FragmentSums sums{};
    const unsigned bits = Right ? to_tf32(x) : __float_as_uint(x), one = __float_as_uint(1.0f);
    multiply_add<tf32>(sums, {{bits, bits, bits, bits}}, {{one, one}});
    out[lane_index()] = sums.of[0];
}

TWINS(operand_not_rounded) {
    std::vector<float> out(warp_size, NAN);
    launch(rounding_kernel<Right>, dim3(1), dim3(warp_size), 0, nullptr, 1 + step * 3 / 4, out.data());
    cases::expect(out, std::vector<float>(warp_size, 8 * (1 + step)));
}

// --------------------------------------------------------------------------------------- tiles and their pipeline

using Block = MmaShape<32, 64, 16, 32, 1>;
constexpr int stages = 3, pairs = 5;

template <class T, Major A, Major B>
struct Tiles {
    static constexpr int depth = 64 / sizeof(T);
    using TileA = SwizzledTile<T, A, Block::rows, depth>;
    using TileB = SwizzledTile<T, B, Block::columns, depth>;
    static constexpr int elements = TileA::elements + TileB::elements;
};

// Of an operand that is one column of tiles, each as it lies in global memory.
template <class Tile, class T>
__device__ void copy_tile(T* to, const T* from) {
    constexpr int vector = widest_vector<T>;
    for (int i = static_cast<int>(threadIdx.x); i < Tile::elements / vector; i += Block::threads)
        async_copy<vector>(to + Tile::offset(i / Tile::vectors, i % Tile::vectors), from + i * vector);
}

template <class Arithmetic, Major A, Major B, int Allowed, int Ahead>
__global__ void tiles_kernel(const typename Arithmetic::T* a, const typename Arithmetic::T* b, float* out) {
    using T = typename Arithmetic::T;
    using Of = Tiles<T, A, B>;
    PYCV_SHARED(T, shared);
    const auto fetch = [&](int stage, int pair) {
        T* to = shared + stage % stages * Of::elements;
        if (pair < pairs) {
            copy_tile<typename Of::TileA>(to, a + pair * Of::TileA::elements);
            copy_tile<typename Of::TileB>(to + Of::TileA::elements, b + pair * Of::TileB::elements);
        }
        async_copy_commit();
    };
    for (int pair = 0; pair < stages - 1; pair++) fetch(pair, pair);
    WarpProducts<Arithmetic, Block> products;
    for (int pair = 0; pair < pairs; pair++) {
        async_copy_wait<Allowed>();
        __syncthreads();
        fetch(pair + Ahead, pair + stages - 1);
        const T* tile = shared + pair % stages * Of::elements;
        products.template add<typename Of::TileA, typename Of::TileB>(tile, tile + Of::TileA::elements);
    }
    __syncthreads();
    for_each_run<A == B>(products, reinterpret_cast<float*>(shared), [&](const float (&run)[4], int row, int column) {
        for (int e = 0; e < 4; e++)
            out[A == B ? (row + e) * Block::columns + column : row * Block::columns + column + e] = run[e];
    });
}

template <class T, Major major, int Lines>
std::vector<T> tiled(int (*value)(int line, int k)) {
    constexpr int depth = 64 / sizeof(T);
    return cases::table(Lines * depth * pairs, [&](int i) {
        const int within = i % (Lines * depth), first_k = i / (Lines * depth) * depth;
        const int line = major == Major::k ? within / depth : within % Lines;
        const int k = major == Major::k ? within % depth : within / Lines;
        return from_accumulator<T>(value(line, first_k + k));
    });
}

int left_value(int line, int k) { return (line * 31 + k * 7 + line * k) % 17 - 8; }
int right_value(int line, int k) { return (line * 5 + k * 13 + line * k) % 19 - 9; }

template <class Arithmetic, Major A, Major B, int Allowed = 1, int Ahead = 2>
void check_tiles() {
    using T = typename Arithmetic::T;
    using Of = Tiles<T, A, B>;
    const auto a = tiled<T, A, Block::rows>(left_value);
    const auto b = tiled<T, B, Block::columns>(right_value);
    std::vector<float> out(Block::rows * Block::columns, NAN);
    constexpr int bytes = std::max<int>(stages * Of::elements * sizeof(T), kStagingFloats<Block> * 4);
    launch(tiles_kernel<Arithmetic, A, B, Allowed, Ahead>, dim3(1), dim3(Block::threads), bytes, nullptr, a.data(),
           b.data(), out.data());
    cases::expect(out, cases::table(Block::rows * Block::columns, [](int i) {
                      int sum = 0;
                      for (int k = 0; k < pairs * Of::depth; k++)
                          sum += left_value(i / Block::columns, k) * right_value(i % Block::columns, k);
                      return static_cast<float>(sum);
                  }));
}

template <class Arithmetic>
void check_majors() {
    check_tiles<Arithmetic, Major::k, Major::k>();
    check_tiles<Arithmetic, Major::k, Major::line>();
    check_tiles<Arithmetic, Major::line, Major::k>();
    check_tiles<Arithmetic, Major::line, Major::line>();
}

CASE(tiles_of_half) { check_majors<HalfArithmetic>(); }
CASE(tiles_of_bfloat16) { check_majors<BfloatArithmetic>(); }
CASE(tiles_of_tf32) { check_majors<Tf32Arithmetic>(); }
CASE(tiles_of_3xtf32) { check_majors<Tf32x3Arithmetic>(); }

TWINS(fragments_before_they_arrive) { check_tiles<HalfArithmetic, Major::k, Major::k, Right ? 1 : 2>(); }
TWINS(stage_reused_early) { check_tiles<HalfArithmetic, Major::k, Major::line, 1, Right ? 2 : 3>(); }

}  // namespace
