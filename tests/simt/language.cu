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

}  // namespace
