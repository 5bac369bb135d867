// Golden tests of what sm_90 brings (device/barrier.h, tensor_copy.h, wgmma.h), each against results that are worked
// out here by other means. On a GPU of another kind than 9.0 they have nothing to run.
#include <algorithm>
#include <cstdint>
#include <limits>

#include "../simt/cases.h"
#include "device/tensor_copy.h"
#include "device/vector.h"
#include "device/warp.h"
#include "device/wgmma.h"

using namespace pycv::cuda;

namespace {

bool is_hopper() {
#if defined(PYCV_SIMT)
    return true;
#else
    cudaDeviceProp properties;
    cases::check(cudaGetDeviceProperties(&properties, 0));
    return properties.major == 9 && properties.minor == 0;
#endif
}

__device__ void init_one(Barrier* barrier, int arrivals) {
    if (threadIdx.x == 0) {
        barrier_init(barrier, arrivals);
        barriers_ready();
    }
    __syncthreads();
}

// --------------------------------------------------------------------------------------------------------- barriers

// Two warps hand a value to and fro, through a slot that each may write when the other has read it.
__global__ void hand_over_kernel(int* out, int rounds) {
    PYCV_NEEDS_WGMMA
    __shared__ Barrier full, empty;
    __shared__ int slots[32];
    if (threadIdx.x == 0) {
        barrier_init(&full, 32);
        barrier_init(&empty, 32);
        barriers_ready();
    }
    __syncthreads();
    const int lane = lane_index();
    for (int round = 0; round < rounds; round++) {
        const unsigned parity = static_cast<unsigned>(round) & 1u;
        if (warp_index() == 0) {
            barrier_wait(&empty, parity ^ 1u);
            slots[lane] = 100 * round + lane;
            barrier_arrive(&full);
        } else {
            barrier_wait(&full, parity);
            out[32 * round + lane] = slots[31 - lane];
            barrier_arrive(&empty);
        }
    }
}

CASE(hand_over_by_barriers) {
    if (!is_hopper()) return;
    const int rounds = 7;
    cases::Values<int> out(32 * rounds);
    launch(hand_over_kernel, dim3(1), dim3(64), 0, nullptr, out.data(), rounds);
    cases::expect(out, cases::table(32 * rounds, [](int i) { return i / 32 * 100 + 31 - i % 32; }));
}

// Two pairs of warps, each with a barrier of its own.
__global__ void pairs_kernel(int* out) {
    PYCV_NEEDS_WGMMA
    __shared__ int slots[128];
    const int i = thread_rank(), pair = i / 64;
    for (int round = 0; round < 3; round++) {
        slots[i] = 1000 * round + i;
        named_barrier(1 + pair, 64);
        out[128 * round + i] = slots[pair * 64 + 63 - i % 64];
        named_barrier(1 + pair, 64);
    }
}

CASE(named_barriers) {
    if (!is_hopper()) return;
    cases::Values<int> out(3 * 128);
    launch(pairs_kernel, dim3(1), dim3(128), 0, nullptr, out.data());
    cases::expect(out, cases::table(3 * 128, [](int i) {
                      const int round = i / 128, thread = i % 128;
                      return 1000 * round + thread / 64 * 64 + 63 - thread % 64;
                  }));
}

// -------------------------------------------------------------------------------------------------- boxes of tensors

// A matrix of 16-bit numbers that all differ, and what a copy of a box of it is to leave in shared memory.
constexpr int kHeight = 21, kWidth = 56, kBoxHeight = 16;

std::uint16_t number_at(int row, int column) {
    const bool there = row >= 0 && row < kHeight && column >= 0 && column < kWidth;
    return static_cast<std::uint16_t>(there ? 1 + row * kWidth + column : 0);
}

TensorMapFields matrix_fields(const void* data, int box_width, Swizzle swizzle) {
    return {.base = data,
            .element = TensorElement::f16,
            .rank = 2,
            .sizes = {kWidth, kHeight},
            .strides = {2, kWidth * 2},
            .box = {box_width, kBoxHeight},
            .swizzle = swizzle};
}

// Where the vector `v` of row `row` of a box lies: the definition.
int place_of(int row, int v, int box_width, Swizzle swizzle) {
    const int vectors = box_width / 8;
    if (swizzle == Swizzle::bytes_128) v ^= row % 8;
    if (swizzle == Swizzle::bytes_64) v ^= row / 2 % 4;
    if (swizzle == Swizzle::bytes_32) v ^= row / 4 % 2;
    return (row * vectors + v) * 8;
}

__global__ void load_box_kernel(const __grid_constant__ TensorMap map, int x, int y, int elements, std::uint16_t* out) {
    PYCV_NEEDS_WGMMA
    PYCV_SHARED(std::uint16_t, box);
    __shared__ Barrier arrived;
    init_one(&arrived, 1);
    if (threadIdx.x == 0) {
        barrier_expect(&arrived, elements * 2);
        load_tensor(box, map, &arrived, x, y);
    }
    barrier_wait(&arrived, 0);
    for (int i = static_cast<int>(threadIdx.x); i < elements; i += 32) out[i] = box[i];
}

void check_load(int box_width, Swizzle swizzle, int x, int y) {
    cases::Values<std::uint16_t> data(kHeight * kWidth), out(kBoxHeight * box_width);
    for (int i = 0; i < kHeight * kWidth; i++) data[i] = number_at(i / kWidth, i % kWidth);
    std::vector<std::uint16_t> expected(kBoxHeight * box_width);
    for (int row = 0; row < kBoxHeight; row++)
        for (int column = 0; column < box_width; column++)
            expected[place_of(row, column / 8, box_width, swizzle) + column % 8] = number_at(y + row, x + column);
    const auto elements = static_cast<int>(expected.size());
    launch(load_box_kernel, dim3(1), dim3(32), 2 * elements, nullptr,
           make_tensor_map(matrix_fields(data.data(), box_width, swizzle)), x, y, elements, out.data());
    cases::expect(out, expected);
}

CASE(boxes_as_they_lie_in_shared_memory) {
    if (!is_hopper()) return;
    for (const auto& [x, y] : {std::pair(0, 0), {8, 3}, {40, 15}, {-9, -5}, {200, 0}}) {
        check_load(64, Swizzle::bytes_128, x, y);
        check_load(32, Swizzle::bytes_64, x, y);
        check_load(16, Swizzle::bytes_32, x, y);
        check_load(24, Swizzle::none, x, y);
    }
}

__global__ void store_box_kernel(const __grid_constant__ TensorMap map, int x, int y) {
    PYCV_NEEDS_WGMMA
    PYCV_SHARED(std::uint16_t, box);
    for (int i = static_cast<int>(threadIdx.x); i < 16 * 64; i += 32)
        box[swizzled<Swizzle::bytes_128>(i * 2) / 2] = static_cast<std::uint16_t>(1000 + i);
    fence_async_copies();
    sync_warp();
    if (threadIdx.x == 0) {
        store_tensor(map, box, x, y, 1);
        store_commit();
        store_wait_read<0>();
    }
}

// Into the second of two matrices, where it exists.
CASE(boxes_stored) {
    if (!is_hopper()) return;
    for (const auto& [x, y] : {std::pair(0, 0), {-8, 2}, {40, 15}}) {
        cases::Values<std::uint16_t> data(2 * kHeight * kWidth);
        std::vector<std::uint16_t> expected(2 * kHeight * kWidth);
        TensorMapFields fields = matrix_fields(data.data(), 64, Swizzle::bytes_128);
        fields.rank = 3;
        fields.sizes[2] = 2;
        fields.strides[2] = kHeight * kWidth * 2;
        fields.box[2] = 1;
        for (int row = 0; row < kBoxHeight; row++)
            for (int column = 0; column < 64; column++)
                if (number_at(y + row, x + column) != 0)
                    expected[(kHeight + y + row) * kWidth + x + column] =
                        static_cast<std::uint16_t>(1000 + row * 64 + column);
        launch(store_box_kernel, dim3(1), dim3(32), 16 * 64 * 2, nullptr, make_tensor_map(fields), x, y);
        cases::expect(data, expected);
    }
}

// im2col, of 8 channels: pixels are numbered where they exist.
constexpr int kImages = 3, kImageHeight = 5, kImageWidth = 6, kPixels = 24;

__global__ void load_windows_kernel(const __grid_constant__ TensorMap map, int w, int h, int n, int dw, int dh,
                                    float* out) {
    PYCV_NEEDS_WGMMA
    PYCV_SHARED(float, box);
    __shared__ Barrier arrived;
    init_one(&arrived, 1);
    if (threadIdx.x == 0) {
        barrier_expect(&arrived, kPixels * 32);
        load_windows(box, map, &arrived, 4, w, h, n, dw, dh);
    }
    barrier_wait(&arrived, 0);
    for (int i = static_cast<int>(threadIdx.x); i < kPixels * 8; i += 32)
        out[i] = box[swizzled<Swizzle::bytes_32>(i * 4) / 4];
}

void check_windows(int filter, int stride, int padding, int first, int r, int s) {
    const int channels = 12, pixels = kImages * kImageHeight * kImageWidth;
    const auto count = [=](int size) { return (size + 2 * padding - filter) / stride + 1; };
    const int height = count(kImageHeight), width = count(kImageWidth);
    cases::Values<float> data(pixels * channels), out(kPixels * 8);
    for (int i = 0; i < pixels * channels; i++) data[i] = static_cast<float>(i + 1);
    TensorMapFields fields{
        .base = data.data(),
        .element = TensorElement::f32,
        .rank = 4,
        .sizes = {channels, kImageWidth, kImageHeight, kImages},
        .strides = {4, channels * 4, channels * 4 * kImageWidth, channels * 4 * kImageWidth * kImageHeight},
        .box = {8},
        .swizzle = Swizzle::bytes_32};
    fields.pixels = kPixels;
    fields.step[0] = fields.step[1] = stride;
    fields.lower[0] = fields.lower[1] = -padding;
    fields.upper[0] = (width - 1) * stride + 1 - kImageWidth - padding;
    fields.upper[1] = (height - 1) * stride + 1 - kImageHeight - padding;
    std::vector<float> expected(kPixels * 8);
    for (int i = 0; i < kPixels * 8; i++) {
        const int place = first + i / 8, n = place / (height * width);
        const int y = place / width % height * stride - padding + r, x = place % width * stride - padding + s;
        const bool there = n < kImages && y >= 0 && y < kImageHeight && x >= 0 && x < kImageWidth;
        const int pixel = (n * kImageHeight + y) * kImageWidth + x;
        expected[i] = there ? static_cast<float>(pixel * channels + 4 + i % 8 + 1) : 0;
    }
    launch(load_windows_kernel, dim3(1), dim3(32), kPixels * 32, nullptr, make_tensor_map(fields),
           first % width * stride - padding, first / width % height * stride - padding, first / (height * width), s, r,
           out.data());
    cases::expect(out, expected);
}

CASE(windows_by_im2col) {
    if (!is_hopper()) return;
    check_windows(3, 1, 1, 0, 0, 0);
    check_windows(3, 1, 1, 17, 2, 1);
    check_windows(3, 1, 0, 5, 1, 2);
    check_windows(3, 2, 1, 7, 1, 0);
    check_windows(1, 1, 0, 80, 0, 0);
}

__global__ void store_windows_kernel(const __grid_constant__ TensorMap map, int c, int w, int h, int n) {
    PYCV_NEEDS_WGMMA
    PYCV_SHARED(float, box);
    for (int i = static_cast<int>(threadIdx.x); i < kPixels * 8; i += 32)
        box[swizzled<Swizzle::bytes_32>(i * 4) / 4] = static_cast<float>(1000 + i);
    fence_async_copies();
    sync_warp();
    if (threadIdx.x == 0) {
        store_windows(map, box, c, w, h, n);
        store_commit();
        store_wait_read<0>();
    }
}

// Into every second pixel of every second row, which by themselves are images of 3 x 3 pixels: from one of them on,
// across rows and images, less what lies beyond the last image or the channels.
void check_stored_windows(int c, int first) {
    constexpr int channels = 12, row = kImageWidth * channels, image = kImageHeight * row, side = 3;
    cases::Values<float> data(kImages * image);
    TensorMapFields fields{.base = data.data() + channels,
                           .element = TensorElement::f32,
                           .rank = 4,
                           .sizes = {channels, side, side, kImages},
                           .strides = {4, 2 * channels * 4, 2 * row * 4, image * 4},
                           .box = {8},
                           .swizzle = Swizzle::bytes_32};
    fields.pixels = kPixels;
    std::vector<float> expected(kImages * image);
    for (int i = 0; i < kPixels * 8; i++) {
        const int place = first + i / 8, n = place / (side * side), channel = c + i % 8;
        if (n >= kImages || channel >= channels) continue;
        const int y = place / side % side * 2, x = 1 + place % side * 2;
        expected[n * image + y * row + x * channels + channel] = static_cast<float>(1000 + i);
    }
    launch(store_windows_kernel, dim3(1), dim3(32), kPixels * 32, nullptr, make_tensor_map(fields), c, first % side,
           first / side % side, first / (side * side));
    cases::expect(data, expected);
}

CASE(windows_stored_by_im2col) {
    if (!is_hopper()) return;
    check_stored_windows(0, 0);
    check_stored_windows(8, 2);
    check_stored_windows(4, 16);
    check_stored_windows(0, 27);
}

// Between neighbours in tf32, on the way into shared memory.
__global__ void load_tf32_kernel(const __grid_constant__ TensorMap map, float* out) {
    PYCV_NEEDS_WGMMA
    PYCV_SHARED(float, box);
    __shared__ Barrier arrived;
    init_one(&arrived, 1);
    if (threadIdx.x == 0) {
        barrier_expect(&arrived, 16);
        load_tensor(box, map, &arrived, 0, 0);
    }
    barrier_wait(&arrived, 0);
    if (threadIdx.x < 4) out[threadIdx.x] = box[threadIdx.x];
}

CASE(rounding_to_tf32_on_the_way) {
    if (!is_hopper()) return;
    constexpr float step = 0x1p-10f;
    cases::Values<float> data(4), out(4);
    data[0] = 1 + step / 4;
    data[1] = -1 - 3 * step / 4;
    data[2] = 1 + step / 2;  // ties go to the even one
    data[3] = 1 + 3 * step / 2;
    const TensorMapFields fields{.base = data.data(),
                                 .element = TensorElement::tf32,
                                 .rank = 2,
                                 .sizes = {4, 1},
                                 .strides = {4, 16},
                                 .box = {4, 1},
                                 .swizzle = Swizzle::none};
    launch(load_tf32_kernel, dim3(1), dim3(32), 128, nullptr, make_tensor_map(fields), out.data());
    cases::expect<float>(out, {1, -1 - step, 1, 1 + 2 * step});
}

// By a thread, as copies round.
__global__ void round_to_tf32_kernel(const float* from, float* out) {
    PYCV_NEEDS_WGMMA
    out[threadIdx.x] = __uint_as_float(to_tf32_even(from[threadIdx.x]) & 0xffffe000u);
}

CASE(rounding_to_tf32_by_threads) {
    if (!is_hopper()) return;
    constexpr float step = 0x1p-10f, infinity = std::numeric_limits<float>::infinity();
    cases::Values<float> data(8), out(8);
    const float values[8] = {1 + step / 4, -1 - 3 * step / 4, 1 + step / 2,  1 + 3 * step / 2,
                             -step / 4,    infinity,          -2 + step / 4, 0x1p-130f};
    std::copy(values, values + 8, data.data());
    launch(round_to_tf32_kernel, dim3(1), dim3(8), 0, nullptr, data.data(), out.data());
    cases::expect<float>(out, {1, -1 - step, 1, 1 + 2 * step, -step / 4, infinity, -2, 0x1p-130f});
}

CASE(a_tensor_map_that_is_refused) {
    if (!is_hopper()) return;
    cases::Values<std::uint16_t> data(kHeight * kWidth);
    int refused = 0;
    TensorMapFields fields = matrix_fields(data.data(), 64, Swizzle::bytes_128);
    fields.strides[1] = 2 * kWidth - 2;
    try {
        make_tensor_map(fields);
    } catch (const CudaError&) {
        refused++;
    }
    try {
        make_tensor_map(matrix_fields(data.data() + 1, 64, Swizzle::bytes_128));
    } catch (const CudaError&) {
        refused++;
    }
    cases::expect<int>({refused}, {2});
}

// ------------------------------------------------------------------------------------------------ products of groups

// Different everywhere, and exact in every type.
int left_number(int line, int k) { return (line * 31 + k * 7 + line * k) % 17 - 8; }
int right_number(int line, int k) { return (line * 5 + k * 13 + line * k) % 19 - 9; }

template <class T>
using Stored = std::conditional_t<std::is_same_v<T, tf32>, float, T>;
template <class T>
constexpr TensorElement kElement = std::is_same_v<T, half>       ? TensorElement::f16
                                   : std::is_same_v<T, bfloat16> ? TensorElement::bf16
                                                                 : TensorElement::tf32;

// A tile of so many lines and `Depth` bytes along k: boxes of `Span` bytes across.
template <class T, Major major, int Lines, Swizzle Span>
struct Tile {
    static constexpr int bytes = sizeof(Stored<T>), width = static_cast<int>(Span) / bytes;
    static constexpr int depth = 128 / bytes;
    static constexpr int across = (major == Major::k ? depth : Lines) / width;  // panels
    static constexpr int height = major == Major::k ? Lines : depth;
    static constexpr int panel = height * static_cast<int>(Span);

    static TensorMap map(const void* data) {
        return make_tensor_map({.base = data,
                                .element = kElement<T>,
                                .rank = 2,
                                .sizes = {across * width, height},
                                .strides = {bytes, across * width * bytes},
                                .box = {width, height},
                                .swizzle = Span});
    }
    static __device__ void load(unsigned char* to, const TensorMap& map, Barrier* barrier) {
        for (int i = 0; i < across; i++) load_tensor(to + i * panel, map, barrier, i * width, 0);
    }
    static __device__ SharedMatrix slice(const unsigned char* tile, int first_line, int slice) {
        const SharedMatrix whole = shared_matrix<Span>(tile, panel);
        constexpr int slices = static_cast<int>(Span) / 32;  // of a panel
        if (major == Major::k)
            return advanced(whole, slice / slices * panel + first_line * static_cast<int>(Span) + slice % slices * 32);
        return advanced(whole, first_line / width * panel + slice * 16 * static_cast<int>(Span));
    }
    static cases::Values<Stored<T>> fill(int (*number)(int, int)) {
        cases::Values<Stored<T>> data(Lines * depth);
        for (int i = 0; i < Lines * depth; i++)
            data[i] = major == Major::k ? from_accumulator<Stored<T>>(static_cast<float>(number(i / depth, i % depth)))
                                        : from_accumulator<Stored<T>>(static_cast<float>(number(i % Lines, i / Lines)));
        return data;
    }
};

// Two warp groups, each with 64 rows.
template <class T, int N, Major A, Major B, Swizzle Span>
__global__ void multiply_kernel(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
                                float* out) {
    PYCV_NEEDS_WGMMA
    using TileA = Tile<T, A, 128, Span>;
    using TileB = Tile<T, B, N, Span>;
    PYCV_SHARED(unsigned char, shared);
    unsigned char* const b = shared + 128 * 128;
    __shared__ Barrier arrived;
    init_one(&arrived, 1);
    if (threadIdx.x == 0) {
        barrier_expect(&arrived, (128 + N) * 128);
        TileA::load(shared, map_a, &arrived);
        TileB::load(b, map_b, &arrived);
    }
    barrier_wait(&arrived, 0);
    const int group = static_cast<int>(threadIdx.x) / warp_group_size;
    float sums[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) sums[i] = 1000;
    fence_products();
#pragma unroll
    for (int slice = 0; slice < 4; slice++)
        multiply_async<T, N, A, B>(sums, TileA::slice(shared, group * 64, slice), TileB::slice(b, 0, slice));
    commit_products();
    wait_for_products<0>(sums);
    const int lane = lane_index(), row = warp_index() * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < N / 2; i++) out[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

template <class T, int N, Major A, Major B, Swizzle Span>
void check_multiply() {
    using TileA = Tile<T, A, 128, Span>;
    using TileB = Tile<T, B, N, Span>;
    const auto a = TileA::fill(left_number);
    const auto b = TileB::fill(right_number);
    cases::Values<float> out(128 * N);
    launch(multiply_kernel<T, N, A, B, Span>, dim3(1), dim3(256), (128 + N) * 128, nullptr, TileA::map(a.data()),
           TileB::map(b.data()), out.data());
    cases::expect(out, cases::table(128 * N, [](int i) {
                      int sum = 1000;
                      for (int k = 0; k < TileA::depth; k++) sum += left_number(i / N, k) * right_number(i % N, k);
                      return static_cast<float>(sum);
                  }));
}

template <class T, int N, Swizzle Span>
void check_majors() {
    check_multiply<T, N, Major::k, Major::k, Span>();
    check_multiply<T, N, Major::k, Major::line, Span>();
    check_multiply<T, N, Major::line, Major::k, Span>();
    check_multiply<T, N, Major::line, Major::line, Span>();
}

CASE(products_of_bfloat16) {
    if (!is_hopper()) return;
    check_majors<bfloat16, 64, Swizzle::bytes_128>();
    check_majors<bfloat16, 128, Swizzle::bytes_128>();
}
CASE(products_of_half) {
    if (!is_hopper()) return;
    check_majors<half, 256, Swizzle::bytes_128>();
}
CASE(products_of_narrow_swizzles) {
    if (!is_hopper()) return;
    check_majors<half, 64, Swizzle::bytes_64>();
    check_majors<half, 64, Swizzle::bytes_32>();
}
CASE(products_of_tf32) {
    if (!is_hopper()) return;
    check_multiply<tf32, 64, Major::k, Major::k, Swizzle::bytes_128>();
    check_multiply<tf32, 128, Major::k, Major::k, Swizzle::bytes_64>();
    check_multiply<tf32, 256, Major::k, Major::k, Swizzle::bytes_32>();
}

// Both operands written by threads, as group_gather.h does: b is transposed on the way, and a warp speaks at the
// barrier for its lanes.
__global__ void multiply_written_kernel(const float* a, const float* b, float* out) {
    PYCV_NEEDS_WGMMA
    constexpr int N = 64, depth = 32;
    PYCV_SHARED(unsigned char, shared);
    __shared__ Barrier written;
    init_one(&written, 4);
    const int thread = static_cast<int>(threadIdx.x);
    const auto write = [&](unsigned char* tile, int line, int k, const Vector<float, 4>& vector) {
        store_vector(reinterpret_cast<float*>(tile + swizzled<Swizzle::bytes_128>(line * 128 + k * 4)), vector);
    };
    for (int i = thread; i < 64 * depth / 4; i += warp_group_size)
        write(shared, i / 8, i % 8 * 4, load_vector<4>(a + i * 4));
    for (int i = thread; i < N * depth / 4; i += warp_group_size) {
        const int line = i % N, k = i / N * 4;
        write(shared + 64 * 128, line, k,
              {{b[k * N + line], b[(k + 1) * N + line], b[(k + 2) * N + line], b[(k + 3) * N + line]}});
    }
    fence_async_copies();
    sync_warp();
    if (lane_index() == 0) barrier_arrive(&written);
    barrier_wait(&written, 0);
    float sums[N / 2] = {};
    fence_products();
#pragma unroll
    for (int slice = 0; slice < 4; slice++)
        multiply_async<tf32, N, Major::k, Major::k>(sums, advanced(shared_matrix(shared, 64 * 128), slice * 32),
                                                    advanced(shared_matrix(shared + 64 * 128, N * 128), slice * 32));
    commit_products();
    wait_for_products<0>(sums);
    const int lane = lane_index(), row = warp_index() * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < N / 2; i++) out[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

CASE(products_of_what_threads_have_written) {
    if (!is_hopper()) return;
    constexpr int lines = 64, depth = 32;
    cases::Values<float> a(lines * depth), b(lines * depth), out(lines * lines);
    for (int i = 0; i < lines * depth; i++) {
        a[i] = static_cast<float>(left_number(i / depth, i % depth));
        b[i] = static_cast<float>(right_number(i % lines, i / lines));
    }
    launch(multiply_written_kernel, dim3(1), dim3(warp_group_size), 2 * lines * 128, nullptr, a.data(), b.data(),
           out.data());
    cases::expect(out, cases::table(lines * lines, [](int i) {
                      int sum = 0;
                      for (int k = 0; k < depth; k++) sum += left_number(i / lines, k) * right_number(i % lines, k);
                      return static_cast<float>(sum);
                  }));
}

// Lane l holds elements 2 * (l % 4) and the next of row l / 4 of each of four matrices, one below the other.
__global__ void store_matrices_kernel(std::uint16_t* out) {
    PYCV_NEEDS_WGMMA
    __shared__ __align__(16) std::uint16_t tile[32 * 8];
    const int lane = lane_index();
    unsigned registers[4];
    for (int i = 0; i < 4; i++) {
        const auto first = static_cast<unsigned>(i * 64 + lane * 2);
        registers[i] = first | (first + 1) << 16;
    }
    store_matrices(tile + lane * 8, registers);
    sync_warp();
    for (int i = lane; i < 32 * 8; i += 32) out[i] = tile[i];
}

CASE(matrices_stored) {
    if (!is_hopper()) return;
    cases::Values<std::uint16_t> out(32 * 8);
    launch(store_matrices_kernel, dim3(1), dim3(32), 0, nullptr, out.data());
    cases::expect(out, cases::table(32 * 8, [](int i) { return static_cast<std::uint16_t>(i); }));
}

// Registers go from one warp group to the other, and sums survive.
__global__ void __launch_bounds__(256, 1) reallocate_kernel(int* out) {
    PYCV_NEEDS_WGMMA
    const int i = static_cast<int>(threadIdx.x);
    if (i < warp_group_size)
        reallocate_registers<40, false>();
    else
        reallocate_registers<232, true>();
    out[i] = 3 * i;
}

CASE(registers_reallocated) {
    if (!is_hopper()) return;
    cases::Values<int> out(256);
    launch(reallocate_kernel, dim3(1), dim3(256), 0, nullptr, out.data());
    cases::expect(out, cases::table(256, [](int i) { return 3 * i; }));
}

}  // namespace
