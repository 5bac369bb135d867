// What the language offers: shared memory of both kinds, barriers, collectives, atomics, vectors, half types.
#include "cases.h"
#include "device/half.h"
#include "device/vector.h"
#include "device/warp.h"

using namespace pycv::cuda;

namespace {

template <int Tile>
__global__ void __launch_bounds__(Tile* Tile) product_kernel(const float* __restrict__ a, const float* __restrict__ b,
                                                             float* __restrict__ c, int m, int n, int k) {
    __shared__ float a_tile[Tile][Tile + 1];
    __shared__ float b_tile[Tile][Tile + 1];
    const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
    const int row = static_cast<int>(blockIdx.y) * Tile + y, column = static_cast<int>(blockIdx.x) * Tile + x;
    float sum = 0;
    for (int begin = 0; begin < k; begin += Tile) {
        a_tile[y][x] = row < m && begin + x < k ? __ldg(a + row * k + begin + x) : 0;
        b_tile[y][x] = column < n && begin + y < k ? __ldg(b + (begin + y) * n + column) : 0;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < Tile; i++) sum = fmaf(a_tile[y][i], b_tile[i][x], sum);
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = sum;
}

CASE(tiled_product) {
    const int m = 37, n = 18, k = 21;
    std::vector<float> a(m * k), b(k * n), c(m * n, NAN), expected(m * n);
    for (int i = 0; i < m * k; i++) a[i] = static_cast<float>(i % 7 - 3);
    for (int i = 0; i < k * n; i++) b[i] = static_cast<float>(i % 5 - 2);
    for (int i = 0; i < m * n; i++)
        for (int j = 0; j < k; j++) expected[i] += a[i / n * k + j] * b[j * n + i % n];
    launch(product_kernel<16>, dim3(2, 3), dim3(16, 16), 0, nullptr, a.data(), b.data(), c.data(), m, n, k);
    cases::expect(c, expected);
}

// One partial sum per warp in dynamic shared memory, one atomic addition per block.
__global__ void sum_kernel(const half* x, float* total) {
    PYCV_SHARED(float, partial);
    const auto pair = load_vector<2>(x + (blockIdx.x * blockDim.x + threadIdx.x) * 2);
    const float sum = warp_sum(to_accumulator(pair[0]) + to_accumulator(pair[1]));
    if (lane_index() == 0) partial[warp_index()] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    float block_sum = 0;
    for (unsigned i = 0; i < blockDim.x / 32; i++) block_sum += partial[i];
    atomicAdd(total, block_sum);
}

CASE(sum_of_halves) {
    std::vector<half> x;
    float expected = 0;
    for (int i = 0; i < 2 * 3 * 128; i++) {
        x.push_back(from_accumulator<half>(static_cast<float>(i % 9)));
        expected += static_cast<float>(i % 9);
    }
    std::vector<float> total(1);
    launch(sum_kernel, dim3(3), dim3(128), 4 * sizeof(float), nullptr, x.data(), total.data());
    cases::expect(total, {expected});
}

// ------------------------------------------------------------------------------------------------------ collectives

// Results of every shuffle and vote, by thread; the last warp of the block is short.
__global__ void collectives_kernel(int* out) {
    const int i = thread_rank(), lane = lane_index();
    int* const mine = out + 12 * i;
    mine[0] = shuffle_xor(i, 1);
    mine[1] = __shfl_sync(full_warp, i, lane + 1, 4);
    mine[2] = __shfl_up_sync(full_warp, i, 1, 8);
    mine[3] = __shfl_down_sync(full_warp, i, 2, 8);
    mine[4] = shuffle_up(i, 3);
    mine[5] = static_cast<int>(ballot(lane % 3 == 0));
    mine[6] = any_lane(i == 33);
    mine[7] = all_lanes(i < 32);
    mine[8] = warp_sum<8>(i);
    mine[9] = warp_max<8>(-i);
    mine[10] = lane % 2 ? shuffle(i, 7, 0xaaaaaaaau) : shuffle(i, 6, 0x55555555u);
    mine[11] = static_cast<int>(shuffle(i + 0.5, lane ^ 7) * 2);
}

CASE(collectives) {
    const int count = 48;
    std::vector<int> out(12 * count, -2), expected;
    for (int i = 0; i < count; i++) {
        const int lane = i % 32, warp = i - lane, first = i / 8 * 8;
        const int votes = warp == 0 ? 0x49249249 : 0x9249;
        const int in_eight = i % 8;
        for (const int x : {i ^ 1, i / 4 * 4 + (i + 1) % 4, in_eight < 1 ? i : i - 1, in_eight > 5 ? i : i + 2,
                            lane < 3 ? i : i - 3, votes, warp == 32 ? 1 : 0, warp == 0 ? 1 : 0, 8 * first + 28, -first,
                            warp + 6 + lane % 2, 2 * (i ^ 7) + 1})
            expected.push_back(x);
    }
    launch(collectives_kernel, dim3(1), dim3(3, 8, 2), 0, nullptr, out.data());
    cases::expect(out, expected);
}

// --------------------------------------------------------------------------------------------------- atomics, indices

__global__ void atomics_kernel(int* integers, float* sum, unsigned long long* flags) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    atomicMax(integers, i);
    atomicMin(integers + 1, -i);
    atomicAdd(integers + 2, 1);
    atomicCAS(integers + 3, i, i + 1);
    atomicAdd(sum, 0.5f);
    atomicOr(flags, 1ull << i);
}

CASE(atomics) {
    std::vector<int> integers(4);
    std::vector<float> sum(1);
    std::vector<unsigned long long> flags(1);
    launch(atomics_kernel, dim3(2), dim3(32), 0, nullptr, integers.data(), sum.data(), flags.data());
    integers[3] = integers[3] > 0 && integers[3] <= 64;  // how far it comes is a matter of the order
    cases::expect(integers, {63, -63, 64, 1});
    cases::expect(sum, {32.0f});
    cases::expect(flags, {~0ull});
}

__global__ void indices_kernel(unsigned* out) {
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    out[block * 24 + static_cast<unsigned>(thread_rank())] = threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z;
}

CASE(indices) {
    std::vector<unsigned> out(24 * 24), expected;
    for (unsigned i = 0; i < 24 * 24; i++) expected.push_back(i % 2 + 10 * (i / 2 % 3) + 100 * (i % 24 / 6));
    launch(indices_kernel, dim3(4, 3, 2), dim3(2, 3, 4), 0, nullptr, out.data());
    cases::expect(out, expected);
}

// -------------------------------------------------------------------------------------------------------- 16-bit types

// All finite values from zero on, in order, and what lies between two of them: rounds to the nearest, ties to even.
template <class T>
void check_rounding(int count) {
    for (int i = 0; i < count; i++) {
        const auto of = [](int bits) { return T{static_cast<std::uint16_t>(bits)}; };
        const float low = to_accumulator(of(i));
        const float high = i + 1 < count ? to_accumulator(of(i + 1)) : low + (low - to_accumulator(of(i - 1)));
        const float middle = low + (high - low) / 2;
        const auto bits = [](float x) { return static_cast<int>(from_accumulator<T>(x).bits); };
        const std::vector<int> rounded = {bits(low), bits(std::nextafter(middle, low)), bits(middle),
                                          bits(std::nextafter(middle, high)), bits(-low)};
        cases::expect(rounded, {i, i, i + i % 2, i + 1, i | 0x8000});
    }
}

template <class T>
void check_nonfinite(int infinity) {
    cases::expect<int>({from_accumulator<T>(INFINITY).bits, from_accumulator<T>(-INFINITY).bits},
                       {infinity, infinity | 0x8000});
    const auto bits = static_cast<std::uint16_t>(infinity);
    cases::expect<float>({to_accumulator(T{bits})}, {INFINITY});
    const bool kept = std::isnan(to_accumulator(from_accumulator<T>(NAN))) &&
                      std::isnan(to_accumulator(T{static_cast<std::uint16_t>(bits + 1)}));
    cases::expect<int>({kept}, {1});
}

CASE(half_rounds_to_nearest_even) { check_rounding<half>(0x7c00); }
CASE(bfloat16_rounds_to_nearest_even) { check_rounding<bfloat16>(0x7f7f); }
CASE(half_keeps_what_is_not_finite) { check_nonfinite<half>(0x7c00); }
CASE(bfloat16_keeps_what_is_not_finite) { check_nonfinite<bfloat16>(0x7f80); }

// ---------------------------------------------------------------------------------------------------------- arithmetic

CASE(arithmetic) {
    std::vector<float> turns;
    for (const float x : {0.0f, 0.5f, 1.0f, 1.5f, -0.5f, 2.5f}) {
        float sine, cosine;
        sincospif(x, &sine, &cosine);
        turns.insert(turns.end(), {sine, cosine});
    }
    cases::expect(turns, {0, 1, 1, 0, 0, -1, -1, 0, -1, 0, 1, 0});
    cases::expect<unsigned>({__umulhi(0xffffffffu, 0xffffffffu), __brev(0x80000003u)}, {0xfffffffeu, 0xc0000001u});
    cases::expect<int>({__clz(0), __clz(1), __ffs(0), __ffs(8), __popc(0xf0f0u)}, {32, 31, 0, 4, 8});
}

}  // namespace
