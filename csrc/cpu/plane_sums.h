// Sums over whole planes that follow each other in memory, as many planes at a time as a vector has lanes.
//
// Each plane is summed into a vector in two independent parts; the vectors of `lanes` planes are then added as a
// transposition adds up, so that lane i of the result is the sum of plane i: two shuffles and an addition per plane.
// Only for kernel files (ISA namespace).
#pragma once

#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// The lanes of the result add up to the sum of `length` >= lanes elements.
template <class T>
inline Vec<T> sum_run(const T* p, int64_t length) {
    constexpr int64_t step = lanes<T>;
    Vec<T> even{}, odd{};
    int64_t i = 0;
    for (; i + 2 * step <= length; i += 2 * step) {
        even += load<T>(p + i);
        odd += load<T>(p + i + step);
    }
    if (i + step <= length) {
        even += load<T>(p + i);
        i += step;
    }
    if (i < length) {  // the last vector overlaps what was summed: those lanes do not count
        Vec<shuffles::Index<T>> lane;
        for (int l = 0; l < step; ++l) lane[l] = l;
        const Vec<T> last = load<T>(p + length - step);
        odd += lane >= static_cast<shuffles::Index<T>>(i - (length - step)) ? last : Vec<T>{};
    }
    return even + odd;
}

// Lane i becomes the sum of the lanes of v[i].
template <class T, int S = 1>
inline Vec<T> sum_lanes(Vec<T>* v) {
    constexpr int n = lanes<T>;
    if constexpr (S == n) {
        return v[0];
    } else {
        Vec<shuffles::Index<T>> low{}, high{};
        for (int j = 0; j < n; ++j) {
            low[j] = j & S ? n + j - S : j;
            high[j] = j & S ? n + j : j + S;
        }
#pragma GCC unroll 16
        for (int i = 0; i < n / S; i += 2)
            v[i / 2] = __builtin_shuffle(v[i], v[i + 1], low) + __builtin_shuffle(v[i], v[i + 1], high);
        return sum_lanes<T, 2 * S>(v);
    }
}

// The sums of `count` <= lanes planes of `length` elements, `stride` apart; the other lanes are 0.
template <class T>
inline Vec<T> plane_sums(const T* planes, int64_t stride, int64_t count, int64_t length) {
    Vec<T> sums[lanes<T>] = {};
    if (length >= lanes<T>) {
        if (count == lanes<T>) {
#pragma GCC unroll 16
            for (int i = 0; i < lanes<T>; ++i) sums[i] = sum_run<T>(planes + i * stride, length);
        } else {
            for (int64_t i = 0; i < count; ++i) sums[i] = sum_run<T>(planes + i * stride, length);
        }
        return sum_lanes<T>(sums);
    }
    for (int64_t k = 0; k < length; ++k)
        for (int64_t i = 0; i < count; ++i) sums[0][i] += planes[i * stride + k];
    return sums[0];
}

}  // namespace pycv::cpu::PYCV_ISA
