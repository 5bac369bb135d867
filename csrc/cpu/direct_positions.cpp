// All sizes of the register tile of positions by channels (direct_positions.h), reached through a table.
#include "direct_positions.h"

#include <utility>

namespace pycv::cpu::PYCV_ISA {
namespace {

// A load that the compiler may not repeat as the memory operand of every use: unaligned ones are slow.
template <class T>
inline Vec<T> load_once(const T* p) {
    using Unaligned __attribute__((vector_size(PYCV_VECTOR_BYTES), aligned(sizeof(T)), may_alias)) = T;
    return *reinterpret_cast<const volatile Unaligned*>(p);
}

template <class T, int Channels, int Vectors>
void multiply(const TileTerms<T>& terms, T* sums, int64_t pitch, bool add) {
    Vec<T> sum[Channels][Vectors] = {};
    if (add) {
#pragma GCC unroll 16
        for (int c = 0; c < Channels; ++c)
#pragma GCC unroll 8
            for (int v = 0; v < Vectors; ++v) sum[c][v] = load<T>(sums + c * pitch + v * lanes<T>);
    }
    const T* source = terms.source;
    const T* weight = terms.lanes;
    const int32_t* offset = terms.offset;
    const int64_t steps = terms.steps;
    for (int64_t s = 0; s < steps; ++s, weight += kTileWidth<T>) {
        const T* at = source + offset[s];
        if constexpr (Channels < Vectors) {
            Vec<T> w[Channels];
#pragma GCC unroll 16
            for (int c = 0; c < Channels; ++c) w[c] = broadcast<T>(weight[c]);
#pragma GCC unroll 8
            for (int v = 0; v < Vectors; ++v) {
                const Vec<T> x = load_once<T>(at + v * lanes<T>);
#pragma GCC unroll 16
                for (int c = 0; c < Channels; ++c) sum[c][v] += x * w[c];
            }
        } else {
            Vec<T> x[Vectors];
#pragma GCC unroll 8
            for (int v = 0; v < Vectors; ++v) x[v] = load_once<T>(at + v * lanes<T>);
#pragma GCC unroll 16
            for (int c = 0; c < Channels; ++c) {
                const Vec<T> w = broadcast<T>(weight[c]);
#pragma GCC unroll 8
                for (int v = 0; v < Vectors; ++v) sum[c][v] += x[v] * w;
            }
        }
    }
#pragma GCC unroll 16
    for (int c = 0; c < Channels; ++c)
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) store<T>(sums + c * pitch + v * lanes<T>, sum[c][v]);
}

template <class T, int Channels, int... Vectors>
PositionsMicrokernel<T> pick_vectors(int64_t vectors, std::integer_sequence<int, Vectors...>) {
    static constexpr PositionsMicrokernel<T> table[] = {multiply<T, Channels, Vectors + 1>...};
    return table[vectors - 1];
}

template <class T, int... Channels>
PositionsMicrokernel<T> pick(int64_t channels, int64_t vectors, std::integer_sequence<int, Channels...>) {
    using Pick = PositionsMicrokernel<T> (*)(int64_t);
    static constexpr Pick table[] = {[](int64_t v) {
        return pick_vectors<T, Channels + 1>(v, std::make_integer_sequence<int, position_vectors(Channels + 1)>{});
    }...};
    return table[channels - 1](vectors);
}

}  // namespace

template <class T>
PositionsMicrokernel<T> positions_microkernel(int64_t channels, int64_t vectors) {
    return pick<T>(channels, vectors, std::make_integer_sequence<int, kTileHeight>{});
}

template PositionsMicrokernel<float> positions_microkernel<float>(int64_t, int64_t);
template PositionsMicrokernel<double> positions_microkernel<double>(int64_t, int64_t);

}  // namespace pycv::cpu::PYCV_ISA
