// All heights and widths of Winograd's register tile (winograd_product.h).
#include "winograd_product.h"

#include <utility>

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T, int Vectors, int Height>
void multiply(const T* __restrict tiles, int64_t block, const T* __restrict weight, int64_t ahead, int64_t depth,
              bool add, T* __restrict sums) {
    Vec<T> sum[Height][Vectors] = {};
    for (; depth > 0; depth -= lanes<T>, tiles += block) {
        const T* row = tiles;
        const T* const end = tiles + (depth < lanes<T> ? depth : lanes<T>);
        for (; row != end; ++row, weight += kTileWidth<T>) {
            Vec<T> b[Vectors];
#pragma GCC unroll 2
            for (int j = 0; j < Vectors; ++j) {
                b[j] = load<T>(weight + j * lanes<T>);
                __builtin_prefetch(weight + ahead + j * lanes<T>, 0, 2);
            }
#pragma GCC unroll 16
            for (int i = 0; i < Height; ++i) {
                const Vec<T> a = broadcast<T>(row[i * lanes<T>]);
#pragma GCC unroll 2
                for (int j = 0; j < Vectors; ++j) sum[i][j] += a * b[j];
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Height; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) {
            T* to = sums + i * kTileWidth<T> + j * lanes<T>;
            store<T>(to, add ? load<T>(to) + sum[i][j] : sum[i][j]);
        }
}

template <class T, int Vectors>
void sum_tiles(const T* __restrict gradients, const T* __restrict tiles, int64_t block, int64_t count, bool add,
               T* __restrict sums) {
    constexpr int kRows = kGradientRows<T>;
    Vec<T> sum[kRows][Vectors] = {};
    for (int64_t t = 0; t < count; ++t, gradients += lanes<T>, tiles += lanes<T>) {
        Vec<T> b[Vectors];
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) b[j] = load<T>(tiles + j * block);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
            const Vec<T> a = broadcast<T>(gradients[i]);
#pragma GCC unroll 2
            for (int j = 0; j < Vectors; ++j) sum[i][j] += a * b[j];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) {
            T* to = sums + i * kTileWidth<T> + j * lanes<T>;
            store<T>(to, add ? load<T>(to) + sum[i][j] : sum[i][j]);
        }
}

template <class T, int Vectors, int... Heights>
PlaneProduct<T> pick(int height, std::integer_sequence<int, Heights...>) {
    static constexpr PlaneProduct<T> table[] = {multiply<T, Vectors, Heights + 1>...};
    return table[height - 1];
}

}  // namespace

template <class T>
PlaneProduct<T> plane_product(int height, int vectors) {
    constexpr auto heights = std::make_integer_sequence<int, kTileHeight>{};
    return vectors == 1 ? pick<T, 1>(height, heights) : pick<T, 2>(height, heights);
}

template <class T>
TileSum<T> tile_sum(int vectors) {
    return vectors == 1 ? sum_tiles<T, 1> : sum_tiles<T, 2>;
}

template TileSum<float> tile_sum<float>(int);
template TileSum<double> tile_sum<double>(int);
template PlaneProduct<float> plane_product<float>(int, int);
template PlaneProduct<double> plane_product<double>(int, int);

}  // namespace pycv::cpu::PYCV_ISA
