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

// A store to an aligned address that goes past the caches where the target can, for tensors that would only fill them:
// memory is then written without being read first. finish_streaming() makes such stores visible to other threads.
template <class T>
inline void store_streaming(T* p, Vec<T> v) {
#if PYCV_VECTOR_BYTES == 64 && defined(__AVX512F__)
    typedef double Doubles __attribute__((vector_size(64)));
    __builtin_ia32_movntpd512(reinterpret_cast<double*>(p), reinterpret_cast<Doubles>(v));
#elif PYCV_VECTOR_BYTES == 32 && defined(__AVX__)
    typedef double Doubles __attribute__((vector_size(32)));
    __builtin_ia32_movntpd256(reinterpret_cast<double*>(p), reinterpret_cast<Doubles>(v));
#elif PYCV_VECTOR_BYTES == 16 && defined(__SSE2__)
    typedef double Doubles __attribute__((vector_size(16)));
    __builtin_ia32_movntpd(reinterpret_cast<double*>(p), reinterpret_cast<Doubles>(v));
#else
    store<T>(p, v);
#endif
}
// Whether p, and all that lies multiples of these strides (in elements) from it, is aligned for such a store.
template <class T, class... Strides>
inline bool is_streamable(const T* p, Strides... strides) {
    const auto elements = (uint64_t{0} | ... | static_cast<uint64_t>(strides));
    return (reinterpret_cast<uintptr_t>(p) | elements * sizeof(T)) % sizeof(Vec<T>) == 0;
}
inline void finish_streaming() {
#if defined(__SSE2__)
    __builtin_ia32_sfence();
#endif
}

template <class T>
inline Vec<T> broadcast(T value) {
    return value - Vec<T>{};
}

// An integer as wide as a T.
template <class T>
using IndexOf = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

// The first `count` lanes (0 <= count <= lanes); the others are 0 and their memory is not touched. The loops become
// one masked move where the target has it.
template <class T>
inline Vec<T> load_partial(const T* p, int64_t count) {
    alignas(sizeof(Vec<T>)) T v[lanes<T>];
    const IndexOf<T> end = static_cast<IndexOf<T>>(count);
#pragma omp simd
    for (IndexOf<T> i = 0; i < lanes<T>; ++i) v[i] = i < end ? p[i] : T(0);
    return load<T>(v);
}

template <class T>
inline void store_partial(T* p, Vec<T> v, int64_t count) {
    alignas(sizeof(Vec<T>)) T from[lanes<T>];
    store<T>(from, v);
    const IndexOf<T> end = static_cast<IndexOf<T>>(count);
#pragma omp simd
    for (IndexOf<T> i = 0; i < lanes<T>; ++i)
        if (i < end) p[i] = from[i];
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
