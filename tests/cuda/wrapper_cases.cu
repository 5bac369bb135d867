// Golden tests of the wrappers in csrc/cuda/device, each against results that are worked out here by other means: what
// host execution and a device have to agree on before any kernel is worth testing.
#include <cstdint>
#include <cstring>
#include <limits>

#include "../simt/cases.h"
#include "device/async_copy.h"
#include "device/half.h"
#include "device/vector.h"
#include "device/warp.h"

using namespace pycv::cuda;

namespace {

// ------------------------------------------------------------------------------------------------------------ vectors

// Each thread moves a vector from global to shared memory, from there on to its neighbour's place, reversed.
template <class T, int N>
__global__ void vectors_kernel(const T* from, T* to) {
    alignas(16) __shared__ T staged[32 * N];
    const int i = thread_rank(), other = 31 - i;
    store_vector(staged + i * N, load_vector_read_only<N>(from + i * N));
    __syncthreads();
    auto moved = load_vector<N>(staged + other * N);
    const auto given = load_vector<N>(from + other * N);
    for (int k = 0; k < N; k++) moved[k] = given[N - 1 - k];
    store_vector(to + i * N, moved);
}

template <class T, int N>
void check_vectors() {
    cases::Values<T> from(32 * N), to(32 * N);
    std::vector<T> expected(32 * N);
    for (int i = 0; i < 32 * N; i++) from[i] = static_cast<T>(3 * i + 1);
    for (int i = 0; i < 32; i++)
        for (int k = 0; k < N; k++) expected[i * N + k] = static_cast<T>(3 * ((31 - i) * N + N - 1 - k) + 1);
    launch(vectors_kernel<T, N>, dim3(1), dim3(32), 0, nullptr, from.data(), to.data());
    cases::expect(to, expected);
}

CASE(vectors) {
    check_vectors<std::uint16_t, 2>();
    check_vectors<std::uint16_t, 4>();
    check_vectors<std::uint16_t, 8>();
    check_vectors<float, 1>();
    check_vectors<float, 2>();
    check_vectors<float, 4>();
    check_vectors<double, 1>();
    check_vectors<double, 2>();
}

// -------------------------------------------------------------------------------------------------- asynchronous
// copies

// Thread i copies N elements of which i % (N + 1) are valid; the rest has to become zero.
template <class T, int N>
__global__ void partial_copies_kernel(const T* from, T* to) {
    alignas(16) __shared__ T staged[32 * N];
    const int i = thread_rank();
    for (int k = 0; k < N; k++) staged[i * N + k] = static_cast<T>(99);
    async_copy<N>(staged + i * N, from + i * N, i % (N + 1));
    async_copy_commit();
    async_copy_wait<0>();
    __syncthreads();
    for (int k = 0; k < N; k++) to[(31 - i) * N + k] = staged[(31 - i) * N + k];
}

template <class T, int N>
void check_partial_copies() {
    cases::Values<T> from(32 * N), to(32 * N);
    std::vector<T> expected(32 * N);
    for (int i = 0; i < 32 * N; i++) {
        from[i] = static_cast<T>(i + 1);
        expected[i] = static_cast<T>(i % N < i / N % (N + 1) ? i + 1 : 0);
    }
    launch(partial_copies_kernel<T, N>, dim3(1), dim3(32), 0, nullptr, from.data(), to.data());
    cases::expect(to, expected);
}

CASE(asynchronous_copies_end_with_zeros) {
    check_partial_copies<float, 1>();
    check_partial_copies<float, 2>();
    check_partial_copies<float, 4>();
    check_partial_copies<double, 1>();
    check_partial_copies<double, 2>();
    check_partial_copies<std::uint16_t, 2>();
    check_partial_copies<std::uint16_t, 4>();
    check_partial_copies<std::uint16_t, 8>();
}

// A ring of three stages, of which two are under way while one is summed.
__global__ void pipeline_kernel(const float* from, float* sums, int tiles) {
    constexpr int stages = 3;
    alignas(16) __shared__ float ring[stages][128];
    const int i = thread_rank();
    const auto fetch = [&](int tile) {
        if (tile < tiles) async_copy<4>(ring[tile % stages] + 4 * i, from + 128 * tile + 4 * i);
        async_copy_commit();
    };
    fetch(0);
    fetch(1);
    float sum = 0;
    for (int tile = 0; tile < tiles; tile++) {
        async_copy_wait<1>();
        __syncthreads();
        fetch(tile + 2);
        for (int k = 0; k < 4; k++) sum += static_cast<float>(tile + 1) * ring[tile % stages][(4 * i + 37 + k) % 128];
    }
    sums[i] = sum;
}

CASE(pipeline_of_copies) {
    const int tiles = 7;
    cases::Values<float> from(128 * tiles), sums(32);
    std::vector<float> expected(32);
    for (int i = 0; i < 128 * tiles; i++) from[i] = static_cast<float>(i % 29 - 14);
    for (int i = 0; i < 32; i++)
        for (int tile = 0; tile < tiles; tile++)
            for (int k = 0; k < 4; k++)
                expected[i] += static_cast<float>((tile + 1) * ((128 * tile + (4 * i + 37 + k) % 128) % 29 - 14));
    launch(pipeline_kernel, dim3(1), dim3(32), 0, nullptr, from.data(), sums.data(), tiles);
    cases::expect(sums, expected);
}

// ----------------------------------------------------------------------------------------------------------------
// warps

constexpr int kWarpResults = 12;

template <class T>
__global__ void warps_kernel(T* out) {
    const int lane = lane_index();
    const T value = static_cast<T>(lane * lane);
    T* const mine = out + kWarpResults * thread_rank();
    mine[0] = shuffle(value, (lane + 5) % 32);
    mine[1] = shuffle_xor(value, 9);
    mine[2] = shuffle_down(value, 3);
    mine[3] = shuffle_up(value, 7);
    mine[4] = warp_sum(value);
    mine[5] = warp_sum<4>(value);
    mine[6] = warp_max(-value);
    mine[7] = warp_max<16>(value);
    mine[8] = static_cast<T>(__popc(pycv::cuda::ballot(lane % 5 == 2)));
    mine[9] = any_lane(lane == 31) ? T(1) : T(0);
    mine[10] = all_lanes(lane < 31) ? T(1) : T(0);
    mine[11] = lane < 16 ? shuffle_xor(value, 1, 0x0000ffffu) : shuffle_xor(value, 2, 0xffff0000u);
}

template <class T>
void check_warps() {
    const int threads = 64;
    cases::Values<T> out(kWarpResults * threads);
    std::vector<T> expected;
    const auto square = [](int lane) { return lane * lane; };
    for (int i = 0; i < threads; i++) {
        const int lane = i % 32, four = lane / 4 * 4, sixteen = lane / 16 * 16;
        const int sum_of_four = square(four) + square(four + 1) + square(four + 2) + square(four + 3);
        for (const int value : {square((lane + 5) % 32), square(lane ^ 9), square(lane < 29 ? lane + 3 : lane),
                                square(lane < 7 ? lane : lane - 7), 31 * 32 * 63 / 6, sum_of_four, 0,
                                square(sixteen + 15), 6, 1, 0, square(lane ^ (lane < 16 ? 1 : 2))})
            expected.push_back(static_cast<T>(value));
    }
    launch(warps_kernel<T>, dim3(1), dim3(8, 4, 2), 0, nullptr, out.data());
    cases::expect(out, expected);
}

CASE(warps) {
    check_warps<int>();
    check_warps<float>();
    check_warps<double>();
}

// Lanes exchange data through shared memory, ordered by nothing but sync_warp.
__global__ void warp_exchange_kernel(int* out) {
    __shared__ int slots[64];
    const int i = thread_rank();
    for (int round = 0; round < 4; round++) {
        slots[i] = i + round;
        sync_warp();
        out[64 * round + i] = slots[i ^ 31];
        sync_warp();
    }
}

CASE(exchange_within_warps) {
    cases::Values<int> out(256);
    std::vector<int> expected;
    for (int i = 0; i < 256; i++) expected.push_back((i % 64 ^ 31) + i / 64);
    launch(warp_exchange_kernel, dim3(1), dim3(64), 0, nullptr, out.data());
    cases::expect(out, expected);
}

// ---------------------------------------------------------------------------------------------------------- 16-bit
// types

template <class T>
__global__ void widen_kernel(const std::uint16_t* bits, float* values, int count) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) values[i] = to_accumulator(reinterpret_cast<const T*>(bits)[i]);
}

template <class T>
__global__ void narrow_kernel(const float* values, std::uint16_t* bits, int count) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) reinterpret_cast<T*>(bits)[i] = from_accumulator<T>(values[i]);
}

// The value of a 16-bit pattern by the definition of IEEE 754.
float decoded(int bits, int exponent_bits, int mantissa_bits) {
    const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1),
              mantissa = bits & ((1 << mantissa_bits) - 1);
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : static_cast<float>(sign * INFINITY);
    const double significand =
        exponent ? 1 + std::ldexp(mantissa, -mantissa_bits) : std::ldexp(mantissa, -mantissa_bits);
    return static_cast<float>(sign * std::ldexp(significand, (exponent ? exponent : 1) - bias));
}

template <class T>
void check_16_bits(int exponent_bits, int mantissa_bits) {
    const int count = 1 << 16, largest = ((1 << exponent_bits) - 1) << mantissa_bits;  // infinity
    cases::Values<std::uint16_t> bits(count), narrowed(3 * largest);
    cases::Values<float> widened(count), values(3 * largest);
    for (int i = 0; i < count; i++) bits[i] = static_cast<std::uint16_t>(i);
    launch(widen_kernel<T>, dim3(count / 256), dim3(256), 0, nullptr, bits.data(), widened.data(), count);
    cases::wait_for_device();
    std::vector<int> same, all(count, 1);
    for (int i = 0; i < count; i++) {
        const float value = decoded(i, exponent_bits, mantissa_bits);
        same.push_back(std::isnan(value) ? std::isnan(widened[i]) : widened[i] == value);
    }
    cases::expect(same, all);
    // Each value, the middle to the next, which goes to the even one, and what lies just beyond the middle.
    std::vector<std::uint16_t> expected;
    for (int i = 0; i < largest; i++) {
        const double low = decoded(i, exponent_bits, mantissa_bits);
        const double step = i + 1 < largest ? decoded(i + 1, exponent_bits, mantissa_bits) - low
                                            : low - decoded(i - 1, exponent_bits, mantissa_bits);
        const auto middle = static_cast<float>(low + step / 2);
        values[3 * i] = static_cast<float>(low);
        values[3 * i + 1] = -middle;
        values[3 * i + 2] = std::nextafter(middle, INFINITY);
        for (const int wanted : {i, (i + i % 2) | 0x8000, i + 1})
            expected.push_back(static_cast<std::uint16_t>(wanted));
    }
    const unsigned blocks = static_cast<unsigned>(3 * largest + 255) / 256;
    launch(narrow_kernel<T>, dim3(blocks), dim3(256), 0, nullptr, values.data(), narrowed.data(), 3 * largest);
    cases::expect(narrowed, expected);
}

CASE(half_of_every_pattern) { check_16_bits<half>(5, 10); }
CASE(bfloat16_of_every_pattern) { check_16_bits<bfloat16>(8, 7); }

// --------------------------------------------------------------------------------------------------------------
// launches

__global__ void large_shared_kernel(int* out, int count, double scale) {
    PYCV_SHARED(int, slots);
    for (int i = thread_rank(); i < count; i += 128) slots[i] = static_cast<int>(i * scale);
    __syncthreads();
    for (int i = thread_rank(); i < count; i += 128) out[i] = slots[count - 1 - i];
}

CASE(shared_memory_beyond_48_kilobytes) {
    const int count = 15 * 1024;  // 60 KB; a parameter that converts
    cases::Values<int> out(count);
    std::vector<int> expected;
    for (int i = 0; i < count; i++) expected.push_back(2 * (count - 1 - i));
    launch(large_shared_kernel, dim3(1), dim3(128), count * sizeof(int), nullptr, out.data(), count, 2);
    cases::expect(out, expected);
}

CASE(a_launch_that_fails_is_an_error) {
    std::string message;
    try {
        launch(large_shared_kernel, dim3(1), dim3(2048), 0, nullptr, nullptr, 0, 1);
    } catch (const CudaError& error) {
        message = error.what();
    }
    cases::expect<int>({message.find("large_shared_kernel") != std::string::npos}, {1});
}

}  // namespace
