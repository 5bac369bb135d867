// A product on Hopper as its kernels work, ring, roles and stores, and twins with a planted bug.
#include "cases.h"
#include "device/tensor_copy.h"
#include "device/vector.h"
#include "device/warp.h"
#include "device/wgmma.h"

using namespace pycv::cuda;

namespace {

enum class Bug {
    none,
    stage_released_early,
    wrong_phase,
    loads_not_awaited,
    products_not_fenced,
    products_not_awaited,
    too_few_bytes_expected,
    too_many_arrivals,
    stage_off_alignment,
    results_not_fenced,
    stores_not_awaited,
    another_thread_awaits_stores,
};

constexpr int side = 64, stages = 2, steps = 5, depth = 64;
constexpr int tile_bytes = side * 128, stage_bytes = 2 * tile_bytes;
constexpr int threads = warp_group_size + warp_size;

__device__ void copy_stages(unsigned char* ring, Barrier* full, Barrier* empty, const TensorMap& a, const TensorMap& b,
                            Bug bug) {
    for (int step = 0; step < steps; step++) {
        const int stage = step % stages;
        const unsigned parity = static_cast<unsigned>(step / stages) & 1u;
        barrier_wait(empty + stage, parity ^ (bug == Bug::wrong_phase ? 0u : 1u));  // line: wrong_phase
        barrier_expect(full + stage, stage_bytes - (bug == Bug::too_few_bytes_expected ? 16 : 0));
        unsigned char* const to = ring + stage * stage_bytes + (bug == Bug::stage_off_alignment ? 512 : 0);
        load_tensor(to, a, full + stage, step * depth, 0);  // line: stage_off_alignment
        load_tensor(to + tile_bytes, b, full + stage, step * depth, 0);
    }
}

__device__ void multiply_stages(float (&sums)[side / 2], const unsigned char* ring, Barrier* full, Barrier* empty,
                                Bug bug) {
    for (int step = 0; step < steps; step++) {
        const int stage = step % stages;
        const unsigned parity = static_cast<unsigned>(step / stages) & 1u;
        if (bug != Bug::loads_not_awaited) barrier_wait(full + stage, parity);  // line: too_few_bytes_expected
        const SharedMatrix a = shared_matrix(ring + stage * stage_bytes, 0);
        const SharedMatrix b = advanced(a, tile_bytes);
        if (bug != Bug::products_not_fenced) fence_products();
        for (int slice = 0; slice < 4; slice++)
            multiply_async<bfloat16, side, Major::k, Major::k>(  // line: products_not_fenced
                sums, advanced(a, slice * 32), advanced(b, slice * 32));
        commit_products();
        if (bug == Bug::stage_released_early) barrier_arrive(empty + stage);
        if (bug != Bug::products_not_awaited) wait_for_products<0>(sums);
        if (bug != Bug::stage_released_early) barrier_arrive(empty + stage);
        if (bug == Bug::too_many_arrivals) barrier_arrive(empty + stage);
    }
}

// 32 columns at a time, through one buffer.
__device__ void store_sums(const float (&sums)[side / 2], float* buffer, const TensorMap& out, Bug bug) {
    const int lane = lane_index(), row = warp_index() * 16 + lane / 4;
    const unsigned waiting = bug == Bug::another_thread_awaits_stores ? 1 : 0;
    for (int first = 0; first < side; first += 32) {
        if (bug != Bug::stores_not_awaited && threadIdx.x == waiting) store_wait_read<0>();
        named_barrier(1, warp_group_size);
        for (int i = 0; i < 16; i++) {
            const int r = row + i / 2 % 2 * 8, c = i / 4 * 8 + lane % 4 * 2 + i % 2;
            buffer[swizzled<Swizzle::bytes_128>((r * 32 + c) * 4) / 4] = sums[first / 2 + i];
        }
        if (bug != Bug::results_not_fenced) fence_async_copies();
        named_barrier(1, warp_group_size);
        if (threadIdx.x == 0) {
            store_tensor(out, buffer, first, 0, 0);  // line: results_not_fenced
            store_commit();
        }
    }
    if (threadIdx.x == 0) store_wait_read<0>();
}

__global__ void product_kernel(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                               const __grid_constant__ TensorMap out, Bug bug) {
    PYCV_SHARED(unsigned char, ring);
    __shared__ Barrier full[stages], empty[stages];
    if (threadIdx.x == 0) {
        for (int i = 0; i < stages; i++) {
            barrier_init(full + i, 1);
            barrier_init(empty + i, warp_group_size);
        }
        barriers_ready();
    }
    __syncthreads();
    if (threadIdx.x >= warp_group_size) {
        if (lane_index() == 0) copy_stages(ring, full, empty, a, b, bug);
        return;
    }
    float sums[side / 2] = {};
    multiply_stages(sums, ring, full, empty, bug);
    store_sums(sums, reinterpret_cast<float*>(ring + stages * stage_bytes), out, bug);
}

int left_value(int line, int k) { return (line * 31 + k * 7 + line * k) % 17 - 8; }
int right_value(int line, int k) { return (line * 5 + k * 13 + line * k) % 19 - 9; }

std::vector<bfloat16> filled(int (*value)(int, int)) {
    constexpr int width = steps * depth;
    return cases::table(side * width, [=](int i) { return from_accumulator<bfloat16>(value(i / width, i % width)); });
}

TensorMap operand_map(const std::vector<bfloat16>& data) {
    return make_tensor_map({.base = data.data(),
                            .element = TensorElement::bf16,
                            .rank = 2,
                            .sizes = {steps * depth, side},
                            .strides = {2, steps * depth * 2},
                            .box = {depth, side},
                            .swizzle = Swizzle::bytes_128});
}

void check_product(Bug bug) {
    const auto a = filled(left_value), b = filled(right_value);
    std::vector<float> out(side * side, NAN);
    const TensorMap out_map = make_tensor_map({.base = out.data(),
                                               .element = TensorElement::f32,
                                               .rank = 3,
                                               .sizes = {side, side, 1},
                                               .strides = {4, side * 4, side * side * 4},
                                               .box = {32, side, 1},
                                               .swizzle = Swizzle::bytes_128});
    launch(product_kernel, dim3(1), dim3(threads), stages * stage_bytes + side * 128, nullptr, operand_map(a),
           operand_map(b), out_map, bug);
    cases::expect(out, cases::table(side * side, [](int i) {
                      int sum = 0;
                      for (int k = 0; k < steps * depth; k++) sum += left_value(i / side, k) * right_value(i % side, k);
                      return static_cast<float>(sum);
                  }));
}

TWINS(stage_released_early) { check_product(Right ? Bug::none : Bug::stage_released_early); }
TWINS(wrong_phase) { check_product(Right ? Bug::none : Bug::wrong_phase); }
TWINS(loads_not_awaited) { check_product(Right ? Bug::none : Bug::loads_not_awaited); }
TWINS(products_not_fenced) { check_product(Right ? Bug::none : Bug::products_not_fenced); }
TWINS(products_not_awaited) { check_product(Right ? Bug::none : Bug::products_not_awaited); }
TWINS(too_few_bytes_expected) { check_product(Right ? Bug::none : Bug::too_few_bytes_expected); }
TWINS(too_many_arrivals) { check_product(Right ? Bug::none : Bug::too_many_arrivals); }
TWINS(stage_off_alignment) { check_product(Right ? Bug::none : Bug::stage_off_alignment); }
TWINS(results_not_fenced) { check_product(Right ? Bug::none : Bug::results_not_fenced); }
TWINS(stores_not_awaited) { check_product(Right ? Bug::none : Bug::stores_not_awaited); }
TWINS(another_thread_awaits_stores) { check_product(Right ? Bug::none : Bug::another_thread_awaits_stores); }

// A barrier that nobody has initialised.
template <bool Right>
__global__ void no_init_kernel(int* out) {
    __shared__ Barrier barrier;
    if (Right && threadIdx.x == 0) barrier_init(&barrier, 32);
    __syncthreads();
    barrier_arrive(&barrier);  // line: barrier_not_initialised
    barrier_wait(&barrier, 0);
    out[threadIdx.x] = 1;
}

TWINS(barrier_not_initialised) {
    std::vector<int> out(32);
    launch(no_init_kernel<Right>, dim3(1), dim3(32), 0, nullptr, out.data());
    cases::expect(out, std::vector<int>(32, 1));
}

// Two warps at one named barrier, which expect different numbers of threads.
template <bool Right>
__global__ void named_kernel(int* out) {
    named_barrier(1, Right || threadIdx.x < 32 ? 64 : 32);  // line: named_barrier_counts_differ
    out[threadIdx.x] = 1;
}

TWINS(named_barrier_counts_differ) {
    std::vector<int> out(64);
    launch(named_kernel<Right>, dim3(1), dim3(64), 0, nullptr, out.data());
    cases::expect(out, std::vector<int>(64, 1));
}

}  // namespace
