// All heights, widths and row formats of the register tile (gemm_microkernel.h), reached through a table.
#include "gemm_microkernel.h"

#include <utility>

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T, RowFormat Format, int Vectors, int Height>
void multiply(const T* __restrict rows, const T* __restrict from, int64_t depth, T* __restrict tile) {
    Vec<T> sum[Height][Vectors] = {};
    for (int64_t k = 0; k < depth; ++k) {
        Vec<T> b[Vectors];
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) b[j] = load<T>(from + j * lanes<T>);
#pragma GCC unroll 16
        for (int i = 0; i < Height; ++i) {
            const Vec<T> a = broadcast<T>(rows[Format == RowFormat::k_contiguous ? i * kRowStride<T> : i]);
#pragma GCC unroll 2
            for (int j = 0; j < Vectors; ++j) sum[i][j] += a * b[j];
        }
        rows += Format == RowFormat::k_contiguous ? 1 : Height;
        from += kTileWidth<T>;
    }
#pragma GCC unroll 16
    for (int i = 0; i < Height; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) store<T>(tile + i * kTileWidth<T> + j * lanes<T>, sum[i][j]);
}

template <class T, RowFormat Format, int Vectors, int... Heights>
Microkernel<T> pick(int height, std::integer_sequence<int, Heights...>) {
    static constexpr Microkernel<T> table[] = {multiply<T, Format, Vectors, Heights + 1>...};
    return table[height - 1];
}

}  // namespace

template <class T>
Microkernel<T> microkernel(RowFormat format, int height, int vectors) {
    constexpr auto heights = std::make_integer_sequence<int, kTileHeight>{};
    if (format == RowFormat::k_contiguous) {
        return vectors == 1 ? pick<T, RowFormat::k_contiguous, 1>(height, heights)
                            : pick<T, RowFormat::k_contiguous, 2>(height, heights);
    }
    return vectors == 1 ? pick<T, RowFormat::rows_contiguous, 1>(height, heights)
                        : pick<T, RowFormat::rows_contiguous, 2>(height, heights);
}

template Microkernel<float> microkernel<float>(RowFormat, int, int);
template Microkernel<double> microkernel<double>(RowFormat, int, int);

}  // namespace pycv::cpu::PYCV_ISA
