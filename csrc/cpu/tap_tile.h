// The register tile of thin convolutions: several neighbouring outputs, each a vector, times a block of filter taps.
//
// Outputs and the taps of a block lie along the same axis of the image, so that one input vector serves every tap that
// reads it: (P - 1) * U + B loads for P * B multiply-adds. The vectors run along another axis: channels, or the image
// row. The remaining axes of the filter are a list of outer taps.
// Only for kernel files (ISA namespace).
#pragma once

#include <utility>

#include "row_vectors.h"

#define PYCV_INLINE __attribute__((always_inline))

namespace pycv::cpu::PYCV_ISA {

// body<0>(), ..., body<N - 1>(): indices are constants from the start, so that arrays they index become registers.
template <int N, class Body>
PYCV_INLINE inline void unroll(const Body& body) {
    [&]<int... I>(std::integer_sequence<int, I...>)
        PYCV_INLINE { (body.template operator()<I>(), ...); }(std::make_integer_sequence<int, N>{});
}

// Keeps a value in a register: otherwise the compiler folds its load into every multiply-add that uses it, and the
// loads become the bottleneck.
template <class V>
PYCV_INLINE inline void hold(V& value) {
    if constexpr (sizeof(V) >= 16) {
#if defined(__x86_64__)
        asm("" : "+v"(value));
#elif defined(__aarch64__)
        asm("" : "+w"(value));
#endif
    }
}

// One position of the filter along the axes that a tile does not share: where its input and its weight begin.
struct OuterTap {
    int64_t source, weight;
};

// What the outputs of a tile are summed from. Input i lies at source + i * step, tap t at weight + t * weight_step.
template <class T>
struct TileSource {
    const T *source, *weight;
    int64_t step, weight_step;
    const OuterTap* outer;
    int64_t outer_taps;

    TileSource from_tap(int64_t tap, int64_t tap_step) const {
        TileSource other = *this;
        other.source += tap * tap_step;
        other.weight += tap * weight_step;
        return other;
    }
};

// A vector of channels has a weight per lane, a piece of a row one for all.
enum class TapWeight { per_lane, broadcast };

// The inputs of a block that lie inside the image are the bits of a mask; the others are 0.
using InputMask = uint32_t;

// sum[p] += input[p * U + b] * tap[b] for b < B and all outer taps.
template <int B, int U, bool Edge, TapWeight W, class T, int L, int P>
PYCV_INLINE inline void add_block(Row<T, L> (&sum)[P], const TileSource<T>& tile, InputMask inside) {
    using V = Row<T, L>;
    for (const OuterTap* outer = tile.outer; outer != tile.outer + tile.outer_taps; ++outer) {
        const T* from = tile.source + outer->source;
        const T* weight = tile.weight + outer->weight;
        V taps[B];
        unroll<B>([&]<int b>() PYCV_INLINE {
            if constexpr (W == TapWeight::per_lane) {
                taps[b] = load_row<V>(weight + b * tile.weight_step);
            } else {
                taps[b] = weight[b * tile.weight_step] - V{};
            }
        });
        unroll<(P - 1) * U + B>([&]<int i>() PYCV_INLINE {
            V value{};
            if (!Edge || (inside >> i & 1) != 0) value = load_row<V>(from + i * tile.step);
            if constexpr (B > 1) hold(value);
            unroll<B>([&]<int b>() PYCV_INLINE {
                if constexpr (i >= b && (i - b) % U == 0 && (i - b) / U < P) sum[(i - b) / U] += value * taps[b];
            });
        });
    }
}

template <int B, int U, TapWeight W, class T, int L, int P>
PYCV_INLINE inline void add_block(Row<T, L> (&sum)[P], const TileSource<T>& tile, InputMask inside) {
    constexpr InputMask kAll = (InputMask{1} << ((P - 1) * U + B)) - 1;
    if (W == TapWeight::broadcast || (inside & kAll) == kAll) {
        add_block<B, U, false, W, T, L, P>(sum, tile, inside);
    } else if ((inside & kAll) != 0) {
        add_block<B, U, true, W, T, L, P>(sum, tile, inside);
    }
}

// The inputs i < 32 of coordinates first + i * step that are inside [0, size).
inline InputMask inputs_inside(int64_t first, int64_t step, int64_t size) {
    if (first >= 0 && first + 31 * step < size) return ~InputMask{0};
    InputMask mask = 0;
    for (int i = 0; i < 32; ++i)
        if (static_cast<uint64_t>(first + i * step) < static_cast<uint64_t>(size)) mask |= InputMask{1} << i;
    return mask;
}

// sum[p] += input[p * unit + t * tap_step] * tap[t] over all taps, where U = unit if neighbouring outputs share inputs
// (tap_step = 1), else 0. `inside(t, step)` is the mask of the inputs from tap t on, that many coordinates apart.
template <int U, TapWeight W, class T, int L, int P, class Inside>
PYCV_INLINE inline void add_all_taps(Row<T, L> (&sum)[P], const TileSource<T>& tile, int64_t taps, int64_t unit,
                                     int64_t tap_step, const Inside& inside) {
    if constexpr (U > 0) {
        if (taps == 5) return add_block<5, U, W, T, L, P>(sum, tile, inside(0, 1));
    }
    int64_t t = 0;
    if constexpr (U > 0)
        for (; t + 3 <= taps; t += 3) add_block<3, U, W, T, L, P>(sum, tile.from_tap(t, tile.step), inside(t, 1));
    TileSource<T> apart = tile;
    apart.step = tile.step * unit;
    for (; t < taps; ++t) add_block<1, 1, W, T, L, P>(sum, apart.from_tap(t, tap_step * tile.step), inside(t, unit));
}

// The outputs of a tile that a row of `count` outputs is covered with: the last tile overlaps its neighbour. A width
// of 7 wastes less than 8 where it divides better.
inline int tile_outputs(int64_t count) {
    if (count >= 7) return count > 7 && (count + 7) / 8 * 8 <= (count + 6) / 7 * 7 ? 8 : 7;
    return count >= 4 ? 4 : 1;
}

}  // namespace pycv::cpu::PYCV_ISA
