// Sums over a channel that stay accurate, and the walk through its elements.
//
// The elements of one channel are runs of `length` positions a fixed step apart. Sums are taken over chunks in the
// dtype, in several independent lanes, and chunks are added in double: an fp32 partial sum never covers more than 128
// terms, and the result does not depend on the number of threads.
// Only for kernel files (ISA namespace).
#pragma once

#include <utility>

#include "parallel.h"
#include "plan.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

constexpr int64_t kChunk = 1024;       // positions per chunk of a single channel
constexpr int64_t kGroupChunk = 128;   // positions per chunk of channels that lie side by side
constexpr int64_t kNormGrain = 32768;  // elements that are worth another thread

// The positions (n, d, h, w) of tensors x and y, axes that are contiguous in both merged; innermost first.
struct Walk {
    struct Axis {
        int64_t extent, x, y;
    } axes[4];

    int64_t runs() const { return axes[1].extent * axes[2].extent * axes[3].extent; }
    int64_t length() const { return axes[0].extent; }
    int64_t positions() const { return runs() * length(); }
};

inline Walk walk(int64_t n, Spatial size, Strides x, Strides y) {
    const Walk::Axis all[4] = {{size.w, x.w, y.w}, {size.h, x.h, y.h}, {size.d, x.d, y.d}, {n, x.n, y.n}};
    Walk result{{{1, 1, 1}, {1, 0, 0}, {1, 0, 0}, {1, 0, 0}}};
    int last = -1;
    for (const Walk::Axis& axis : all) {
        if (axis.extent == 1) continue;
        Walk::Axis* inner = last < 0 ? nullptr : &result.axes[last];
        if (inner && inner->x * inner->extent == axis.x && inner->y * inner->extent == axis.y) {
            inner->extent *= axis.extent;
        } else {
            result.axes[++last] = axis;
        }
    }
    return result;
}

// Calls visit(x offset, y offset, count) for consecutive chunks of at most `limit` positions.
template <class Visit>
inline void for_chunks(const Walk& walk, int64_t limit, const Visit& visit) {
    const auto& [inner, a, b, c] = walk.axes;
    for (int64_t k = 0; k < c.extent; ++k)
        for (int64_t j = 0; j < b.extent; ++j)
            for (int64_t i = 0; i < a.extent; ++i) {
                const int64_t x = k * c.x + j * b.x + i * a.x;
                const int64_t y = k * c.y + j * b.y + i * a.y;
                for (int64_t p = 0; p < inner.extent; p += limit)
                    visit(x + p * inner.x, y + p * inner.y, inner.extent - p < limit ? inner.extent - p : limit);
            }
}

inline int worthwhile_threads(int64_t elements, int threads) {
    const int64_t grains = elements / kNormGrain + 1;
    return grains < threads ? static_cast<int>(grains) : threads;
}

// `count` elements `step` apart as a dense array: x itself, or copied to the buffer.
template <class T>
inline const T* dense(const T* x, int64_t step, int64_t count, T* buffer) {
    if (step == 1) return x;
    for (int64_t i = 0; i < count; ++i) buffer[i] = x[i * step];
    return buffer;
}

// The sum of L lanes, halves added to halves in registers.
template <class T, int L, class V>
inline T lane_sum(V v) {
    if constexpr (L == 1) {
        return v[0];
    } else {
        using Half __attribute__((vector_size(L / 2 * sizeof(T)))) = T;
        return [&]<int... I>(std::integer_sequence<int, I...>) {
            const Half low = __builtin_shufflevector(v, v, I...);
            const Half high = __builtin_shufflevector(v, v, (I + L / 2)...);
            return lane_sum<T, L / 2>(low + high);
        }(std::make_integer_sequence<int, L / 2>{});
    }
}

template <class T>
inline T horizontal_sum(Vec<T> v) {
    return lane_sum<T, lanes<T>>(v);
}

// Sum over i < count of term<Lane>(i), where Lane is Vec<T> (lanes i, i + 1, ...) or T.
template <class T, class Term>
inline T sum_terms(int64_t count, const Term& term) {
    constexpr int64_t step = lanes<T>;
    Vec<T> sum[4] = {};
    int64_t i = 0;
    for (; i + 4 * step <= count; i += 4 * step)
        for (int u = 0; u < 4; ++u) sum[u] += term.template operator()<Vec<T>>(i + u * step);
    for (; i + step <= count; i += step) sum[0] += term.template operator()<Vec<T>>(i);
    T rest = 0;
    for (; i < count; ++i) rest += term.template operator()<T>(i);
    return horizontal_sum<T>((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

template <class Lane, class T>
inline Lane get(const T* p) {
    Lane lane;
    std::memcpy(&lane, p, sizeof lane);
    return lane;
}

}  // namespace pycv::cpu::PYCV_ISA
