// Golden tests of device/mma.h: products of matrices whose elements all differ, by fragments that are put together here
// or loaded by ldmatrix from matrices that lie either way, and roundings to tf32. Before sm_80 there is nothing to run.
//
// In words of 32 bits the three types are alike: a row of 8 words is 16 numbers of 16 bits or 8 of tf32, and a register
// of a fragment is a word. So there is one kernel for all.
#include <cstdint>
#include <cstring>

#include "../simt/cases.h"
#include "device/mma.h"
#include "device/warp.h"

using namespace pycv::cuda;

namespace {

constexpr int rows = 16, columns = 16, row_words = 8;

bool has_tensor_cores() {
#if defined(PYCV_SIMT)
    return true;
#else
    cudaDeviceProp properties;
    cases::check(cudaGetDeviceProperties(&properties, 0));
    return properties.major >= 8;
#endif
}

// Different everywhere, and exact in every type.
int a_value(int row, int k) { return (row * 16 + k) * 37 % 256 - 128; }
int b_value(int k, int column) { return (k * 16 + column) * 93 % 256 - 128; }
int first_sum(int row, int column) { return 1000 + row * columns + column; }

template <class T>
T stored(float x);
template <>
float stored(float x) {
    return x;
}
template <>
half stored(float x) {
    return __float2half_rn(x);
}
template <>
bfloat16 stored(float x) {
    return __float2bfloat16_rn(x);
}

// A matrix as it lies in memory, `lines` times 8 words.
template <class T, class F>
cases::Values<unsigned> words_of(int lines, F value) {
    constexpr int across = row_words * 4 / sizeof(T);
    cases::Values<unsigned> words(lines * row_words);
    for (int i = 0; i < lines * across; i++) {
        const T element = stored<T>(static_cast<float>(value(i / across, i % across)));
        std::memcpy(reinterpret_cast<char*>(words.data()) + i * sizeof(T), &element, sizeof(T));
    }
    return words;
}

template <class Operand>
using Stored = std::conditional_t<std::is_same_v<Operand, tf32>, float, Operand>;
template <class Operand>
constexpr int depth_of = row_words * 4 / sizeof(Stored<Operand>);

// sums, 16 x 16 in two products, += a (rows of k) * b (columns of k), each lane's share as the header of mma.h has it.
template <class Operand>
__device__ void multiply(const FragmentA& a, const FragmentB (&b)[2], float* sums) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    for (int half_of = 0; half_of < 2; half_of++) {
        float* corner = sums + g * columns + 8 * half_of + 2 * t;
        FragmentSums of{{corner[0], corner[1], corner[8 * columns], corner[8 * columns + 1]}};
        multiply_add<Operand>(of, a, b[half_of]);
        corner[0] = of.of[0], corner[1] = of.of[1];
        corner[8 * columns] = of.of[2], corner[8 * columns + 1] = of.of[3];
    }
}

template <class Operand>
__global__ void fragments_kernel(const unsigned* a, const unsigned* b, float* sums) {
    PYCV_NEEDS_MMA
    const int g = lane_index() / 4, t = lane_index() % 4;
    const unsigned* row = a + g * row_words + t;
    const FragmentA of_a{{row[0], row[8 * row_words], row[4], row[8 * row_words + 4]}};
    const unsigned* column = b + g * row_words + t;
    const FragmentB of_b[2] = {{{column[0], column[4]}}, {{column[8 * row_words], column[8 * row_words + 4]}}};
    multiply<Operand>(of_a, of_b, sums);
}

// a and b as before, or transposed: rows of k become columns.
template <class Operand, bool TransposedA, bool TransposedB>
__global__ void loaded_kernel(const unsigned* a, const unsigned* b, float* sums) {
    PYCV_NEEDS_MMA
    __shared__ __align__(16) unsigned of_a[rows * row_words], of_b[columns * row_words];
    for (int i = lane_index(); i < rows * row_words; i += warp_size) of_a[i] = a[i], of_b[i] = b[i];
    sync_warp();
    const int matrix = lane_index() / 8, row = lane_index() % 8;
    const int odd = matrix % 2, late = matrix / 2;  // of a: rows from 8 on, k of the second half; of b the other way
    FragmentA left;
    load_matrices<TransposedA>(
        left.of, of_a + (row + 8 * (TransposedA ? late : odd)) * row_words + 4 * (TransposedA ? odd : late));
    unsigned right[4];
    load_matrices<TransposedB>(
        right, of_b + (row + 8 * (TransposedB ? odd : late)) * row_words + 4 * (TransposedB ? late : odd));
    multiply<Operand>(left, {{{right[0], right[1]}}, {{right[2], right[3]}}}, sums);
}

using Kernel = void (*)(const unsigned*, const unsigned*, float*);

template <class Operand>
void check_product(Kernel kernel, bool transposed_a = false, bool transposed_b = false) {
    using T = Stored<Operand>;
    constexpr int depth = depth_of<Operand>;
    if (!has_tensor_cores()) return;
    const auto a = words_of<T>(rows, [&](int i, int j) { return transposed_a ? a_value(j, i) : a_value(i, j); });
    const auto b = words_of<T>(columns, [&](int i, int j) { return transposed_b ? b_value(i, j) : b_value(j, i); });
    cases::Values<float> sums(rows * columns);
    for (int i = 0; i < rows * columns; i++) sums[i] = static_cast<float>(first_sum(i / columns, i % columns));
    launch(kernel, dim3(1), dim3(warp_size), 0, nullptr, a.data(), b.data(), sums.data());
    cases::expect(sums, cases::table(rows * columns, [](int i) {
                      int sum = first_sum(i / columns, i % columns);
                      for (int k = 0; k < depth; k++) sum += a_value(i / columns, k) * b_value(k, i % columns);
                      return static_cast<float>(sum);
                  }));
}

template <class Operand>
void check_both_ways() {
    check_product<Operand>(loaded_kernel<Operand, false, false>);
    check_product<Operand>(loaded_kernel<Operand, false, true>, false, true);
    check_product<Operand>(loaded_kernel<Operand, true, false>, true, false);
    check_product<Operand>(loaded_kernel<Operand, true, true>, true, true);
}

CASE(warp_products_of_half) { check_product<half>(fragments_kernel<half>); }
CASE(warp_products_of_bfloat16) { check_product<bfloat16>(fragments_kernel<bfloat16>); }
CASE(warp_products_of_tf32) { check_product<tf32>(fragments_kernel<tf32>); }
CASE(loaded_products_of_half) { check_both_ways<half>(); }
CASE(loaded_products_of_bfloat16) { check_both_ways<bfloat16>(); }
CASE(loaded_products_of_tf32) { check_product<tf32>(loaded_kernel<tf32, false, false>); }  // a word is no pair there

// Which number of which of the four matrices each lane gets, whatever is computed with them.
template <bool Transposed>
__global__ void matrices_kernel(unsigned* out) {
    PYCV_NEEDS_MMA
    __shared__ __align__(16) unsigned short tile[4 * 64];
    for (int i = lane_index(); i < 4 * 64; i += warp_size) tile[i] = static_cast<unsigned short>(i);
    sync_warp();
    unsigned registers[4];
    load_matrices<Transposed>(registers, tile + lane_index() * 8);
    for (int i = 0; i < 4; i++) out[lane_index() * 4 + i] = registers[i];
}

template <bool Transposed>
void check_matrices() {
    if (!has_tensor_cores()) return;
    cases::Values<unsigned> out(warp_size * 4);
    launch(matrices_kernel<Transposed>, dim3(1), dim3(warp_size), 0, nullptr, out.data());
    cases::expect(out, cases::table(warp_size * 4, [](int i) {
                      const unsigned matrix = i % 4 * 64, g = i / 16, t = i / 4 % 4;
                      const unsigned low = Transposed ? 2 * t * 8 + g : g * 8 + 2 * t;
                      return (matrix + low) | (matrix + low + (Transposed ? 8 : 1)) << 16;
                  }));
}

CASE(matrices_as_they_lie) { check_matrices<false>(); }
CASE(matrices_transposed) { check_matrices<true>(); }

// --------------------------------------------------------------------------------------------------------- tf32

__global__ void tf32_kernel(const float* x, unsigned* bits) {
    PYCV_NEEDS_MMA
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    bits[i] = to_tf32(x[i]);
}

unsigned bits_of(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// To the nearest of 11 bits, ties away from zero, in double.
unsigned rounded(float x) {
    if (x == 0 || std::isinf(x)) return bits_of(x);
    const double step = std::ldexp(1.0, std::ilogb(x) - 10);
    return bits_of(static_cast<float>(std::copysign(std::floor(std::fabs(x) / step + 0.5) * step, x)));
}

CASE(roundings_to_tf32) {
    if (!has_tensor_cores()) return;
    constexpr int threads = 128, blocks = 32;
    constexpr float ulp = 0x1p-23f, largest = 3.40282347e38f;
    const float chosen[] = {0.0f,          -0.0f,   INFINITY,     -INFINITY, largest,       1 + 0x1p-11f,
                            -1 - 0x1p-11f, 2 - ulp, 1 + 0x1p-10f, 1 - ulp,   0x1.ffcp-126f, 0x1p-126f};
    cases::Values<float> x(threads * blocks);
    unsigned state = 1;
    for (std::size_t i = 0; i < x.size(); i++) {
        state = state * 1664525u + 1013904223u;
        // every second one lies on a tie or a bit beside it; exponents keep clear of subnormals and infinity
        const unsigned mantissa = i % 2 ? state >> 9 : (state >> 9 & 0x7fe000u) + 0x0fffu + i / 2 % 3;
        const unsigned bits = (state & 0x80000000u) | (1 + (i * 7) % 253) << 23 | mantissa;
        std::memcpy(&x[i], &bits, sizeof bits);
        if (i < std::size(chosen)) x[i] = chosen[i];
    }
    cases::Values<unsigned> bits(x.size());
    launch(tf32_kernel, dim3(blocks), dim3(threads), 0, nullptr, x.data(), bits.data());
    cases::expect(bits, cases::table(threads * blocks, [&](int i) { return rounded(x[i]); }));
}

CASE(nan_in_tf32) {
    if (!has_tensor_cores()) return;
    cases::Values<float> x(1, NAN);
    cases::Values<unsigned> bits(1);
    launch(tf32_kernel, dim3(1), dim3(1), 0, nullptr, x.data(), bits.data());
    cases::wait_for_device();
    float back;
    std::memcpy(&back, bits.data(), sizeof back);
    cases::expect<int>({std::isnan(back)}, {1});
}

}  // namespace
