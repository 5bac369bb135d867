// All rectangles and widths of the register tile of direct convolution (direct_microkernel.h), reached through a table.
#include "direct_microkernel.h"

#include <utility>

#include "row_vectors.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T, int Rows, int Width, int Vectors>
void multiply(const TileTerms<T>& terms, const TileSums<const T>& initial, const TileSums<T>& sums, bool relu) {
    Vec<T> sum[Rows][Width][Vectors] = {};
    if (initial.data) {
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
            for (int i = 0; i < Width; ++i)
#pragma GCC unroll 2
                for (int v = 0; v < Vectors; ++v)
                    sum[r][i][v] = load<T>(initial.data + r * initial.row + i * initial.position + v * initial.vector);
    }
    if (!sums.streamed) {
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
            for (int i = 0; i < Width; ++i)
#pragma GCC unroll 2
                for (int v = 0; v < Vectors; ++v)
                    __builtin_prefetch(sums.data + r * sums.row + i * sums.position + v * sums.vector, 1);
    }
    const T* source = terms.source;
    const int64_t source_row = terms.source_row, steps = terms.steps;
    const int32_t* offset = terms.offset;
    const T* from = terms.lanes;
    for (int64_t s = 0; s < steps; ++s) {
        const T* at = source + offset[s];
        Vec<T> b[Vectors];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) b[v] = load<T>(from + v * lanes<T>);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
            for (int i = 0; i < Width; ++i) {
                const Vec<T> a = broadcast<T>(at[r * source_row + i]);
#pragma GCC unroll 2
                for (int v = 0; v < Vectors; ++v) sum[r][i][v] += a * b[v];
            }
        from += kTileWidth<T>;
    }
    if (relu) {
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
            for (int i = 0; i < Width; ++i)
#pragma GCC unroll 2
                for (int v = 0; v < Vectors; ++v) sum[r][i][v] = PYCV_ISA::relu<T>(sum[r][i][v]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 16
        for (int i = 0; i < Width; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v)
                put_row(sums.data + r * sums.row + i * sums.position + v * sums.vector, sum[r][i][v], sums.streamed);
}

template <class T, int Rows, int Vectors, int... Widths>
DirectMicrokernel<T> pick_width(int64_t width, std::integer_sequence<int, Widths...>) {
    static constexpr DirectMicrokernel<T> table[] = {multiply<T, Rows, Widths + 1, Vectors>...};
    return table[width - 1];
}

template <class T, int Vectors, int... Rows>
DirectMicrokernel<T> pick(int64_t rows, int64_t width, std::integer_sequence<int, Rows...>) {
    using Pick = DirectMicrokernel<T> (*)(int64_t);
    static constexpr Pick table[] = {[](int64_t w) {
        return pick_width<T, Rows + 1, Vectors>(w, std::make_integer_sequence<int, kTileHeight / (Rows + 1)>{});
    }...};
    return table[rows - 1](width);
}

}  // namespace

template <class T>
DirectMicrokernel<T> direct_microkernel(int64_t rows, int64_t width, int vectors) {
    constexpr auto heights = std::make_integer_sequence<int, kTileHeight>{};
    return vectors == 1 ? pick<T, 1>(rows, width, heights) : pick<T, 2>(rows, width, heights);
}

template DirectMicrokernel<float> direct_microkernel<float>(int64_t, int64_t, int);
template DirectMicrokernel<double> direct_microkernel<double>(int64_t, int64_t, int);

}  // namespace pycv::cpu::PYCV_ISA
