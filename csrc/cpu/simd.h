// Vectors through the compiler's vector extension: one source for every instruction set and dtype.
//
// Vec<T> holds PYCV_VECTOR_BYTES / sizeof(T) lanes and supports + - * / and comparisons by itself; a * b + c
// becomes a fused multiply-add where the target has one (-ffp-contract=fast).
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace pycv::cpu::PYCV_ISA {

template <class T>
using Vec __attribute__((vector_size(PYCV_VECTOR_BYTES))) = T;

template <class T>
inline constexpr int lanes = PYCV_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
inline Vec<T> load(const T* p) {
    Vec<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline void store(T* p, Vec<T> v) {
    std::memcpy(p, &v, sizeof v);
}

template <class T>
inline Vec<T> broadcast(T value) {
    return value - Vec<T>{};
}

// The first `count` lanes (0 < count <= lanes); the others are 0.
template <class T>
inline Vec<T> load_partial(const T* p, int64_t count) {
    Vec<T> v{};
    std::memcpy(&v, p, static_cast<size_t>(count) * sizeof(T));
    return v;
}

template <class T>
inline void store_partial(T* p, Vec<T> v, int64_t count) {
    std::memcpy(p, &v, static_cast<size_t>(count) * sizeof(T));
}

// max(v, 0) that keeps NaN, as torch's relu does.
template <class T>
inline Vec<T> relu(Vec<T> v) {
    return v < Vec<T>{} ? Vec<T>{} : v;
}
template <class T>
    requires std::is_floating_point_v<T>
inline T relu(T v) {
    return v < T(0) ? T(0) : v;
}

}  // namespace pycv::cpu::PYCV_ISA
