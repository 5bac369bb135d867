// Moving runs of elements between tensors and packed panels: exact copies of any length without a call to memcpy,
// every second element, and square transpositions in registers.
#pragma once

#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

// Two overlapping copies of `Bytes` bytes, for runs of Bytes / sizeof(T) to 2 * Bytes / sizeof(T) elements.
template <int Bytes, class T>
inline void copy_ends(T* to, const T* from, int64_t count) {
    constexpr int64_t kPiece = Bytes / static_cast<int64_t>(sizeof(T));
    struct Piece {
        unsigned char bytes[Bytes];
    };
    Piece head, tail;
    std::memcpy(&head, from, Bytes);
    std::memcpy(&tail, from + count - kPiece, Bytes);
    std::memcpy(to, &head, Bytes);
    std::memcpy(to + count - kPiece, &tail, Bytes);
}

template <class T>
inline void copy_run(T* __restrict to, const T* __restrict from, int64_t count) {
    if (count == 2 * lanes<T>) {  // a whole panel row
        store<T>(to, load<T>(from));
        store<T>(to + lanes<T>, load<T>(from + lanes<T>));
        return;
    }
    if (count >= lanes<T>) {
        int64_t i = 0;
        for (; i + lanes<T> <= count; i += lanes<T>) store<T>(to + i, load<T>(from + i));
        if (i < count) store<T>(to + count - lanes<T>, load<T>(from + count - lanes<T>));
        return;
    }
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (bytes >= 32) return copy_ends<32>(to, from, count);
    if (bytes >= 16) return copy_ends<16>(to, from, count);
    if (bytes >= 8) return copy_ends<8>(to, from, count);
    if (count > 0) *to = *from;
}

template <class T>
inline void zero_run(T* to, int64_t count) {
    int64_t i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>) store<T>(to + i, Vec<T>{});
    for (; i < count; ++i) to[i] = T(0);
}

namespace shuffles {

template <class T>
using Index = IndexOf<T>;

// Elements 0, 2, 4, ... of the 2 * lanes - 1 elements at p.
template <class T>
inline Vec<T> load_every_second(const T* p) {
    constexpr int n = lanes<T>;
    const Vec<T> low = load<T>(p), high = load<T>(p + n - 1);
    Vec<Index<T>> pick{};
    for (int i = 0; i < n; ++i) pick[i] = i < n / 2 ? 2 * i : n + 1 + 2 * (i - n / 2);
    return __builtin_shuffle(low, high, pick);
}

// One step of a transposition: exchanges the off-diagonal blocks of size S x S.
template <class T, int S>
inline void transpose_step(Vec<T>* v) {
    constexpr int n = lanes<T>;
    Vec<Index<T>> even{}, odd{};
    for (int j = 0; j < n; ++j) {
        even[j] = j & S ? n + j - S : j;
        odd[j] = j & S ? n + j : j + S;
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
        if (i & S) continue;
        const Vec<T> a = v[i], b = v[i + S];
        v[i] = __builtin_shuffle(a, b, even);
        v[i + S] = __builtin_shuffle(a, b, odd);
    }
    if constexpr (2 * S < n) transpose_step<T, 2 * S>(v);
}

}  // namespace shuffles

template <class T>
inline void copy_strided(T* __restrict to, const T* __restrict from, int64_t count, int64_t stride) {
    if (stride == 1) return copy_run<T>(to, from, count);
    int64_t i = 0;
    if (stride == 2)
        for (; i + lanes<T> <= count; i += lanes<T>) store<T>(to + i, shuffles::load_every_second<T>(from + 2 * i));
    for (; i < count; ++i) to[i] = from[i * stride];
}

// to[j][i] = from[i][j] for a lanes x lanes block, of which the first `columns` elements of each row of `to` are
// written. Streamed, rows go past the caches: whole ones at aligned addresses.
template <class T, bool Streamed = false>
inline void transpose_block(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t columns = lanes<T>) {
    Vec<T> v[lanes<T>];
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) v[i] = load<T>(from + i * from_stride);
    shuffles::transpose_step<T, 1>(v);
    if (columns == lanes<T>) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i)
            Streamed ? store_streaming<T>(to + i * to_stride, v[i]) : store<T>(to + i * to_stride, v[i]);
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i) store_partial<T>(to + i * to_stride, v[i], columns);
    }
}

}  // namespace pycv::cpu::PYCV_ISA
