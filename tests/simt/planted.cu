// Kernels and their twins with a planted bug. Where an error has to name a line, a comment marks it.
#include "cases.h"
#include "device/async_copy.h"
#include "device/vector.h"
#include "device/warp.h"

using namespace pycv::cuda;

namespace {

constexpr int threads = 64;

int index_of(int i) { return i; }

// ------------------------------------------------------------------------------------------------ barriers, races

template <bool Right>
__global__ void exchange_kernel(const int* in, int* out) {
    __shared__ int tile[threads];
    const int i = static_cast<int>(threadIdx.x);
    tile[i] = in[i];
    if constexpr (Right) __syncthreads();
    out[i] = tile[i ^ 1];
}

TWINS(dropped_barrier) {
    const auto in = cases::table(threads, index_of);
    std::vector<int> out(threads, -2);
    launch(exchange_kernel<Right>, dim3(1), dim3(threads), 0, nullptr, in.data(), out.data());
    cases::expect(out, cases::table(threads, [](int i) { return i ^ 1; }));
}

// Between a warp's lanes it takes __syncwarp: lockstep is no order.
template <bool Right>
__global__ void warp_exchange_kernel(const int* in, int* out) {
    __shared__ int tile[warp_size];
    const int i = lane_index();
    tile[i] = in[i];
    if constexpr (Right) sync_warp();
    out[i] = tile[i ^ 1];
}

TWINS(dropped_warp_barrier) {
    const auto in = cases::table(warp_size, index_of);
    std::vector<int> out(warp_size, -2);
    launch(warp_exchange_kernel<Right>, dim3(1), dim3(warp_size), 0, nullptr, in.data(), out.data());
    cases::expect(out, cases::table(warp_size, [](int i) { return i ^ 1; }));
}

// A tile is used twice: the second round may not begin before everybody has read the first.
template <bool Right>
__global__ void rounds_kernel(const int* in, int* out) {
    __shared__ int tile[threads];
    const int i = static_cast<int>(threadIdx.x);
    int sum = 0;
    for (int round = 0; round < 3; round++) {
        tile[i] = in[i] + round;
        __syncthreads();
        sum += tile[threads - 1 - i];
        if constexpr (Right) __syncthreads();
    }
    out[i] = sum;
}

TWINS(tile_overwritten) {
    const auto in = cases::table(threads, index_of);
    std::vector<int> out(threads, -2);
    launch(rounds_kernel<Right>, dim3(1), dim3(threads), 0, nullptr, in.data(), out.data());
    cases::expect(out, cases::table(threads, [](int i) { return 3 * (threads - 1 - i) + 3; }));
}

// Threads run one at a time, so that no order loses an update.
template <bool Right>
__global__ void count_kernel(const int* in, int* out) {
    __shared__ int count;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    if (in[threadIdx.x] % 3 == 0) {
        if constexpr (Right)
            atomicAdd(&count, 1);
        else
            count++;  // line: lost_update
    }
    __syncthreads();
    if (threadIdx.x == 0) *out = count;
}

TWINS(lost_update) {
    const auto in = cases::table(threads, index_of);
    std::vector<int> out(1);
    launch(count_kernel<Right>, dim3(1), dim3(threads), 0, nullptr, in.data(), out.data());
    cases::expect(out, {(threads + 2) / 3});
}

// The same between blocks, in global memory.
template <bool Right>
__global__ void total_kernel(const int* in, int* total) {
    if constexpr (Right)
        atomicAdd(total, in[blockIdx.x]);
    else
        *total += in[blockIdx.x];  // line: lost_block
}

TWINS(lost_block) {
    const auto in = cases::table(threads, index_of);
    std::vector<int> total(1);
    launch(total_kernel<Right>, dim3(threads), dim3(1), 0, nullptr, in.data(), total.data());
    cases::expect(total, {threads * (threads - 1) / 2});
}

// A shuffle orders no memory.
template <bool Right>
__global__ void shuffle_order_kernel(int* out) {
    __shared__ int tile[warp_size];
    const int i = lane_index();
    tile[i] = i;
    if constexpr (Right) sync_warp();
    const int other = shuffle_xor(i, 1);
    out[i] = tile[other];
}

TWINS(shuffle_is_no_barrier) {
    std::vector<int> out(warp_size, -2);
    launch(shuffle_order_kernel<Right>, dim3(1), dim3(warp_size), 0, nullptr, out.data());
    cases::expect(out, cases::table(warp_size, [](int i) { return i ^ 1; }));
}

template <bool Right>
__global__ void branches_kernel(int* out) {
    if (Right || threadIdx.x < 16)
        __syncthreads();
    else
        __syncthreads();  // line: divergent_barrier
    out[threadIdx.x] = static_cast<int>(threadIdx.x);
}

TWINS(divergent_barrier) {
    std::vector<int> out(threads, -2);
    launch(branches_kernel<Right>, dim3(1), dim3(threads), 0, nullptr, out.data());
    cases::expect(out, cases::table(threads, index_of));
}

template <bool Right>
__global__ void early_return_kernel(int* out, int count) {
    const int i = static_cast<int>(threadIdx.x);
    if (!Right && i >= count) return;
    __syncthreads();  // line: barrier_after_return
    if (i < count) out[i] = i;
}

TWINS(barrier_after_return) {
    std::vector<int> out(threads - 1, -2);
    launch(early_return_kernel<Right>, dim3(1), dim3(threads), 0, nullptr, out.data(), threads - 1);
    cases::expect(out, cases::table(threads - 1, index_of));
}

// Half of the warp waits for a shuffle, the other half at the barrier.
template <bool Right>
__global__ void deadlock_kernel(int* out) {
    const int i = lane_index();
    if (!Right && i >= 16) __syncthreads();
    out[i] = shuffle_xor(i, 1);  // line: deadlock
    __syncthreads();
}

TWINS(deadlock) {
    std::vector<int> out(warp_size, -2);
    launch(deadlock_kernel<Right>, dim3(1), dim3(warp_size), 0, nullptr, out.data());
    cases::expect(out, cases::table(warp_size, [](int i) { return i ^ 1; }));
}

// ------------------------------------------------------------------------------------------- asynchronous pipelines

// Sums `steps` slices of in, which travel through a ring of stages.
template <int Stages, int Allowed, int Ahead>
__global__ void pipeline_kernel(const float* in, float* out, int steps) {
    PYCV_SHARED(float, ring);
    const int i = static_cast<int>(threadIdx.x) * 4;
    const auto load = [&](int stage, int step) {
        if (step < steps) async_copy<4>(ring + stage * threads * 4 + i, in + step * threads * 4 + i);
        async_copy_commit();
    };
    for (int step = 0; step < Stages - 1; step++) load(step, step);
    float sum = 0;
    for (int step = 0; step < steps; step++) {
        async_copy_wait<Allowed>();
        __syncthreads();
        load((step + Ahead) % Stages, step + Stages - 1);
        for (int j = 0; j < 4; j++) sum += ring[step % Stages * threads * 4 + threads * 4 - 1 - i - j];
    }
    out[threadIdx.x] = sum;
}

template <int Allowed, int Ahead>
void check_pipeline() {
    constexpr int stages = 3, steps = 7;
    const auto in = cases::table(steps * threads * 4, [](int i) { return static_cast<float>(i % 113); });
    std::vector<float> out(threads, NAN);
    launch(pipeline_kernel<stages, Allowed, Ahead>, dim3(1), dim3(threads), stages * threads * 16, nullptr, in.data(),
           out.data(), steps);
    cases::expect(out, cases::table(threads, [&](int i) {
                      float sum = 0;
                      for (int step = 0; step < steps; step++)
                          for (int j = 0; j < 4; j++) sum += in[step * threads * 4 + threads * 4 - 1 - 4 * i - j];
                      return sum;
                  }));
}

TWINS(lax_wait) { check_pipeline<Right ? 1 : 2, 2>(); }
TWINS(wrong_stage) { check_pipeline<1, Right ? 2 : 1>(); }

// -------------------------------------------------------------------------------------------- alignment and bounds

__global__ void vector_kernel(const float* in, float* out) {
    store_vector(out + threadIdx.x * 4, load_vector<4>(in + threadIdx.x * 4));  // line: misaligned_vector
}

TWINS(misaligned_vector) {
    const auto in = cases::table(threads * 4 + 4, [](int i) { return static_cast<float>(i); });
    std::vector<float> out(threads * 4, NAN);
    launch(vector_kernel, dim3(1), dim3(threads), 0, nullptr, in.data() + (Right ? 4 : 1), out.data());
    cases::expect(out, cases::table(threads * 4, [](int i) { return static_cast<float>(i + (Right ? 4 : 1)); }));
}

__global__ void float4_kernel(const float* in, float* out) {
    const float4 x = *reinterpret_cast<const float4*>(in + threadIdx.x * 4);  // line: misaligned_float4
    out[threadIdx.x] = x.x + x.y + x.z + x.w;
}

TWINS(misaligned_float4) {
    const auto in = cases::table(threads * 4 + 4, [](int) { return 1.0f; });
    std::vector<float> out(threads, NAN);
    launch(float4_kernel, dim3(1), dim3(threads), 0, nullptr, in.data() + (Right ? 4 : 1), out.data());
    cases::expect(out, cases::table(threads, [](int) { return 4.0f; }));
}

__global__ void misaligned_copy_kernel(const float* in, float* out, int offset) {
    PYCV_SHARED(float, tile);
    async_copy<2>(tile + threadIdx.x * 2 + offset, in + threadIdx.x * 2);  // line: misaligned_copy
    async_copy_commit();
    async_copy_wait<0>();
    out[threadIdx.x] = tile[threadIdx.x * 2 + offset];
}

TWINS(misaligned_copy) {
    const auto in = cases::table(threads * 2, [](int i) { return static_cast<float>(i); });
    std::vector<float> out(threads, NAN);
    launch(misaligned_copy_kernel, dim3(1), dim3(threads), (threads + 1) * 8, nullptr, in.data(), out.data(),
           Right ? 2 : 1);
    cases::expect(out, cases::table(threads, [](int i) { return static_cast<float>(2 * i); }));
}

__global__ void difference_kernel(const int* in, int* out, int count) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) out[i] = in[i + 1] - in[i];  // line: global_bounds
}

TWINS(global_bounds) {
    const int count = 2 * threads - 3;
    const auto in = cases::table(count + (Right ? 1 : 0), index_of);
    std::vector<int> out(count, -2);
    launch(difference_kernel, dim3(2), dim3(threads), 0, nullptr, in.data(), out.data(), count);
    cases::expect({out.begin(), out.end() - 1}, std::vector<int>(count - 1, 1));
}

template <bool Right>
__global__ void async_bounds_kernel(const float* in, float* out, int count) {
    PYCV_SHARED(float, tile);
    const int i = static_cast<int>(threadIdx.x) * 4;
    async_copy<4>(tile + i, in + i, Right && count - i < 4 ? count - i : 4);  // line: async_bounds
    async_copy_commit();
    async_copy_wait<0>();
    for (int j = 0; j < 4; j++) out[i + j] = tile[i + j];
}

TWINS(async_bounds) {
    const int count = threads * 4 - 2;
    const auto in = cases::table(count, [](int i) { return static_cast<float>(i); });
    std::vector<float> out(threads * 4, NAN);
    launch(async_bounds_kernel<Right>, dim3(1), dim3(threads), threads * 16, nullptr, in.data(), out.data(), count);
    cases::expect(out, in);
    if (Right) cases::expect({out.begin() + count, out.end()}, std::vector<float>(2));
}

__global__ void static_bounds_kernel(int* out, int shift) {
    __shared__ int tile[threads];
    const int i = static_cast<int>(threadIdx.x);
    tile[i] = i;
    __syncthreads();
    out[i] = tile[i + shift] == -7 ? -7 : i;  // line: static_bounds
}

TWINS(static_bounds) {
    std::vector<int> out(threads, 0);
    launch(static_bounds_kernel, dim3(1), dim3(threads), 0, nullptr, out.data(), Right ? 0 : 1);
    cases::expect(out, cases::table(threads, index_of));
}

// What lies behind the variable is of no use to anybody here, so that no result shows the write.
__global__ void static_overrun_kernel(int* out, int shift) {
    __shared__ int tile[threads];
    const int i = static_cast<int>(threadIdx.x);
    tile[i] = i;
    if (i == threads - 1) tile[i + shift] = i;  // line: static_overrun
    out[i] = tile[i];
}

TWINS(static_overrun) {
    std::vector<int> out(threads, -1);
    launch(static_overrun_kernel, dim3(1), dim3(threads), 0, nullptr, out.data(), Right ? 0 : 1);
    cases::expect(out, cases::table(threads, index_of));
}

__global__ void dynamic_bounds_kernel(int* out, int shift) {
    PYCV_SHARED(int, tile);
    const int i = static_cast<int>(threadIdx.x);
    tile[i + shift] = i;  // line: dynamic_bounds
    out[i] = i;
}

TWINS(dynamic_bounds) {
    std::vector<int> out(threads, -2);
    launch(dynamic_bounds_kernel, dim3(1), dim3(threads), threads * 4, nullptr, out.data(), Right ? 0 : 1);
    cases::expect(out, cases::table(threads, index_of));
}

__global__ void below_kernel(int* out, int shift) {
    PYCV_SHARED(int, tile);
    const int i = static_cast<int>(threadIdx.x);
    tile[i - shift] = i;
    out[i] = i;
}

TWINS(below_dynamic_shared) {
    std::vector<int> out(threads, -2);
    launch(below_kernel, dim3(1), dim3(threads), threads * 4, nullptr, out.data(), Right ? 0 : 1);
    cases::expect(out, cases::table(threads, index_of));
}

// ---------------------------------------------------------------------------------------------- uninitialised memory

// The last block has less than a tile, and must not find what another one has left.
template <bool Right>
__global__ void static_tail_kernel(const float* in, float* out, int count) {
    __shared__ float tile[threads];
    const int i = static_cast<int>(threadIdx.x), from = static_cast<int>(blockIdx.x) * threads + i;
    if (from < count)
        tile[i] = in[from];
    else if (Right)
        tile[i] = 0;
    __syncthreads();
    if (i != 0) return;
    float sum = 0;
    for (const float x : tile) sum += x;
    out[blockIdx.x] = sum;
}

template <bool Right>
__global__ void dynamic_tail_kernel(const float* in, float* out, int count) {
    PYCV_SHARED(float, tile);
    const int i = static_cast<int>(threadIdx.x), from = static_cast<int>(blockIdx.x) * threads + i;
    if (from < count || Right) tile[i] = from < count ? in[from] : 0;
    __syncthreads();
    if (i != 0) return;
    float sum = 0;
    for (int j = 0; j < threads; j++) sum += tile[j];
    out[blockIdx.x] = sum;
}

void check_tail(void (*kernel)(const float*, float*, int), int shared_bytes) {
    const int count = 2 * threads + 5;
    const auto in = cases::table(count, [](int) { return 1.0f; });
    std::vector<float> out(3, NAN);
    launch(kernel, dim3(3), dim3(threads), shared_bytes, nullptr, in.data(), out.data(), count);
    cases::expect(out, {threads, threads, 5});
}

TWINS(uninitialised_static_shared) { check_tail(static_tail_kernel<Right>, 0); }
TWINS(uninitialised_dynamic_shared) { check_tail(dynamic_tail_kernel<Right>, threads * 4); }

// ---------------------------------------------------------------------------------------------- misuse of collectives

template <bool Right>
__global__ void own_lane_kernel(int* out) {
    const unsigned mask = Right || lane_index() >= 16 ? 0xffff0000u : 0x0000ffffu;
    if (lane_index() < 8 || lane_index() >= 16) sync_warp(Right ? full_warp >> 16 << 16 | 0xffu : mask & ~1u);
    out[lane_index()] = lane_index();
}

TWINS(own_lane_not_in_mask) {
    std::vector<int> out(warp_size, -2);
    launch(own_lane_kernel<Right>, dim3(1), dim3(warp_size), 0, nullptr, out.data());
    cases::expect(out, cases::table(warp_size, index_of));
}

template <bool Right>
__global__ void masks_kernel(int* out) {
    const bool low = lane_index() < 16;
    const unsigned low_mask = Right ? 0x0000ffffu : full_warp, high_mask = Right ? 0xffff0000u : 0xffff0001u;
    out[lane_index()] = shuffle_xor(lane_index(), 1, low ? low_mask : high_mask);
}

TWINS(masks_differ) {
    std::vector<int> out(warp_size, -2);
    launch(masks_kernel<Right>, dim3(1), dim3(warp_size), 0, nullptr, out.data());
    cases::expect(out, cases::table(warp_size, [](int i) { return i ^ 1; }));
}

template <bool Right>
__global__ void operations_kernel(int* out) {
    if (Right || lane_index() < 16)
        out[lane_index()] = shuffle_xor(lane_index(), 1);
    else
        out[lane_index()] = static_cast<int>(ballot(true));
}

TWINS(operations_differ) {
    std::vector<int> out(warp_size, -2);
    launch(operations_kernel<Right>, dim3(1), dim3(warp_size), 0, nullptr, out.data());
    cases::expect(out, cases::table(warp_size, [](int i) { return i ^ 1; }));
}

template <bool Right>
__global__ void inactive_lane_kernel(int* out) {
    const int i = lane_index();
    if (i < 16) out[i] = shuffle(i, Right ? 15 - i : 16 + i, 0x0000ffffu);
}

TWINS(shuffle_from_inactive_lane) {
    std::vector<int> out(16, -2);
    launch(inactive_lane_kernel<Right>, dim3(1), dim3(warp_size), 0, nullptr, out.data());
    cases::expect(out, cases::table(16, [](int i) { return 15 - i; }));
}

template <bool Right>
__global__ void ended_lane_kernel(int* out) {
    const int i = lane_index();
    if (!Right && i == 3) return;
    const int other = shuffle_xor(i, 1);
    out[i] = other;
}

TWINS(lane_has_ended) {
    std::vector<int> out(warp_size, -2);
    launch(ended_lane_kernel<Right>, dim3(1), dim3(warp_size), 0, nullptr, out.data());
    cases::expect(out, cases::table(warp_size, [](int i) { return i ^ 1; }));
}

__global__ void trap_kernel(int* out) {
    if (threadIdx.x == 5 && *out == 7) __trap();  // line: trap
}

TWINS(trap) {
    std::vector<int> out(1, Right ? 6 : 7);
    launch(trap_kernel, dim3(1, 2), dim3(3, 4), 0, nullptr, out.data());
    launch(trap_kernel, dim3(1, 2), dim3(8, 2), 0, nullptr, out.data());
}

// -------------------------------------------------------------------------------------------------- launch limits

__global__ void nothing_kernel() {}

template <int Bytes>
__global__ void static_shared_kernel(int* out) {
    __shared__ unsigned char tile[Bytes];
    tile[threadIdx.x] = 1;
    *out = tile[0];
}

void launch_nothing(dim3 grid, dim3 block, int shared_bytes = 0) {
    launch(nothing_kernel, grid, block, shared_bytes, nullptr);
}

TWINS(threads_per_block) { launch_nothing(dim3(1), dim3(Right ? 512 : 513, 2)); }
TWINS(block_depth) { launch_nothing(dim3(1), dim3(1, 1, Right ? 64 : 65)); }
TWINS(empty_block) { launch_nothing(dim3(1), dim3(1, Right ? 1 : 0)); }
TWINS(empty_grid) { launch_nothing(dim3(Right ? 1 : 0), dim3(1)); }
TWINS(grid_y) { launch_nothing(dim3(1, Right ? 65535 : 65536), dim3(1)); }
TWINS(grid_z) { launch_nothing(dim3(1, 1, Right ? 65535 : 65536), dim3(1)); }
TWINS(dynamic_shared_bytes) { launch_nothing(dim3(1), dim3(1), 227 * 1024 + (Right ? 0 : 1)); }
TWINS(static_shared_bytes) {
    std::vector<int> out(1);
    launch(static_shared_kernel<48 * 1024 + (Right ? 0 : 1)>, dim3(1), dim3(1), 0, nullptr, out.data());
}
TWINS(shared_bytes_together) {
    std::vector<int> out(1);
    launch(static_shared_kernel<1024>, dim3(1), dim3(1), 226 * 1024 + (Right ? 0 : 1), nullptr, out.data());
}

}  // namespace
