// Vectors narrower than the machine's, where a row is short, and how they cover a row.
// Only for kernel files (ISA namespace).
#pragma once

#include <utility>

#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

// L lanes of T; and the integer of T's width.
template <class T, int L>
using Row __attribute__((vector_size(L * sizeof(T)))) = T;
template <class T>
using IndexOf = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

template <class V, class T>
inline V load_row(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class V, class T>
inline void store_row(T* p, V v) {
    std::memcpy(p, &v, sizeof v);
}

// The same past the caches, if `streamed` and for whole vectors (store_streaming()).
template <class V, class T>
inline void put_row(T* p, V v, bool streamed) {
    if constexpr (sizeof(V) == PYCV_VECTOR_BYTES) {
        if (streamed) return store_streaming<T>(p, v);
    }
    store_row<V>(p, v);
}

// p[0], p[stride], ..., reading nothing beyond the last. Stride is the compile-time one, 0 where it is not 1 or 2.
template <class T, int L, int Stride>
inline Row<T, L> load_strided(const T* p, int64_t stride) {
    using V = Row<T, L>;
    if constexpr (Stride == 1) {
        return load_row<V>(p);
    } else {
        return [&]<int... I>(std::integer_sequence<int, I...>) -> V {
            if constexpr (Stride == 2) {
                // Two overlapping vectors: element 2 i is lane 2 i of the first or lane 2 i - (L - 1) of the second.
                const Row<IndexOf<T>, L> even{(2 * I < L ? 2 * I : 2 * I + 1)...};
                return __builtin_shuffle(load_row<V>(p), load_row<V>(p + L - 1), even);
            } else {
                return V{p[I * stride]...};
            }
        }(std::make_integer_sequence<int, L>{});
    }
}

// The first `count` lanes of v to consecutive elements: halves of it, as count's binary digits say.
template <class V, class T>
inline void store_first(T* to, V v, int64_t count) {
    constexpr int kLanes = sizeof(V) / sizeof(T);
    if (count == kLanes) return store_row<V>(to, v);
    if constexpr (kLanes > 1) {
        Row<T, kLanes / 2> half[2];
        std::memcpy(half, &v, sizeof v);
        if (count < kLanes / 2) return store_first(to, half[0], count);
        store_row(to, half[0]);
        store_first(to + kLanes / 2, half[1], count - kLanes / 2);
    }
}

// The same to elements `step` apart.
template <class V, class T>
inline void store_first(T* to, int64_t step, V v, int64_t count) {
    if (step == 1) return store_first(to, v, count);
    for (int64_t l = 0; l < count; ++l) to[l * step] = v[l];
}

// from[0], from[step], ..., `count` of them; 0 in the lanes beyond.
template <class V, class T>
inline V load_first(const T* from, int64_t step, int64_t count) {
    if (step == 1 && count == int64_t(sizeof(V) / sizeof(T))) return load_row<V>(from);
    V v{};
    for (int64_t l = 0; l < count; ++l) v[l] = from[l * step];
    return v;
}

// Covers [begin, end) with block<L>(first), L consecutive outputs each, the widest L that fits (the last block
// overlaps the one before it: it computes the same values again), down to 16 bytes; below that single(output).
template <class T, int L, class Block, class Single>
inline void for_blocks(int64_t begin, int64_t end, const Block& block, const Single& single) {
    if (end - begin >= L) {
        int64_t o = begin;
        for (; o + L <= end; o += L) block.template operator()<L>(o);
        if (o < end) block.template operator()<L>(end - L);
    } else if constexpr (L * sizeof(T) > 16) {
        for_blocks<T, L / 2>(begin, end, block, single);
    } else {
        for (int64_t o = begin; o < end; ++o) single(o);
    }
}

}  // namespace pycv::cpu::PYCV_ISA
