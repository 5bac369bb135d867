// The register tile of thin convolutions: several neighbouring outputs, each a vector, times a run of filter taps.
//
// Outputs and taps lie along the same axis of the image, so that one input vector serves every tap that reads it:
// (P - 1) * U + T loads for P * T multiply-adds. The vectors run along another axis: channels, or the image row.
// Only for kernel files (ISA namespace).
#pragma once

#include <utility>

#include "row_vectors.h"

namespace pycv::cpu::PYCV_ISA {

// The outputs of a tile that a row of `count` outputs is covered with: the last tile overlaps its neighbour. A width
// of 7 wastes less than 8 where it divides better.
inline int tile_outputs(int64_t count) {
    if (count >= 7) return count > 7 && (count + 7) / 8 * 8 <= (count + 6) / 7 * 7 ? 8 : 7;
    return count >= 4 ? 4 : 1;
}

// sum[p] += input(p * U + t) * weight(t) over t < T.
template <int T, int U, class V, int P, class Input, class Weight>
[[gnu::always_inline]] inline void add_taps(V (&sum)[P], const Input& input, const Weight& weight) {
    V taps[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) taps[t] = weight(t);
#pragma GCC unroll 32
    for (int i = 0; i < (P - 1) * U + T; ++i) {
        const V value = input(i);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t)
            if (i >= t && (i - t) % U == 0 && (i - t) / U < P) sum[(i - t) / U] += value * taps[t];
    }
}

// sum[p] += input(p * U + t) * weight(t) over taps.begin <= t < taps.end; U = 0: input(p, t) has no such relation.
template <int U, class V, int P, class Input, class Weight>
[[gnu::always_inline]] inline void add_tap_run(V (&sum)[P], int64_t begin, int64_t end, const Input& input,
                                               const Weight& weight) {
    if constexpr (U == 0) {
        for (int64_t t = begin; t < end; ++t)
            add_taps<1, 1>(sum, [&](int p) { return input(p, t); }, [&](int) { return weight(t); });
    } else {
        int64_t t = begin;
        const auto from = [&](int i) { return input(0, t + i); };
        const auto tap = [&](int j) { return weight(t + j); };
        for (; t + 4 <= end; t += 4) add_taps<4, U>(sum, from, tap);
        switch (end - t) {
            case 3: add_taps<3, U>(sum, from, tap); break;
            case 2: add_taps<2, U>(sum, from, tap); break;
            case 1: add_taps<1, U>(sum, from, tap); break;
        }
    }
}

}  // namespace pycv::cpu::PYCV_ISA
