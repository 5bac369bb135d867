// Vectors of N neighbouring elements, 4, 8 or 16 bytes together, moved between memory and registers in one access.
//
// The address has to be a multiple of the vector's bytes; host execution checks that at every access. Vectors are
// plain arrays otherwise: compute on their elements.
#pragma once

#include <type_traits>

#include "launch.h"

namespace pycv::cuda {

template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
    static_assert(sizeof(T) * N == 4 || sizeof(T) * N == 8 || sizeof(T) * N == 16, "no vector access of these bytes");
    static constexpr int size = N;
    T elements[N];
    __host__ __device__ __forceinline__ T& operator[](int i) { return elements[i]; }
    __host__ __device__ __forceinline__ const T& operator[](int i) const { return elements[i]; }
};

// Elements of T in the widest vector access.
template <class T>
inline constexpr int widest_vector = 16 / sizeof(T);

template <class T, int N>
__device__ __forceinline__ const Vector<T, N>* as_vector(const T* address PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::check_aligned(address, sizeof(Vector<T, N>), "vector access", site);
#endif
    return reinterpret_cast<const Vector<T, N>*>(address);
}

// From global or shared memory.
template <int N, class T>
__device__ __forceinline__ Vector<T, N> load_vector(const T* address PYCV_SITE) {
    return *as_vector<T, N>(address PYCV_SITE_ARGUMENT);
}

// From global memory that no thread of this launch writes: through the read-only cache.
template <int N, class T>
__device__ __forceinline__ Vector<T, N> load_vector_read_only(const T* address PYCV_SITE) {
    const Vector<T, N>* source = as_vector<T, N>(address PYCV_SITE_ARGUMENT);
#if defined(PYCV_SIMT)
    return *source;
#else
    using Raw = typename std::conditional_t<sizeof(T) * N == 16, uint4,
                                            std::conditional_t<sizeof(T) * N == 8, uint2, unsigned> >;
    const Raw raw = __ldg(reinterpret_cast<const Raw*>(source));
    return *reinterpret_cast<const Vector<T, N>*>(&raw);
#endif
}

template <int N, class T>
__device__ __forceinline__ void store_vector(T* address, const Vector<T, N>& value PYCV_SITE) {
    *const_cast<Vector<T, N>*>(as_vector<T, N>(address PYCV_SITE_ARGUMENT)) = value;
}

// V neighbours in accesses of N, from global memory that no thread of this launch writes: to[i] = convert(from[i]).
template <int N, int V, class T, class Value, class Convert>
__device__ __forceinline__ void load_vectors_read_only(const T* from, Value* to, const Convert& convert) {
#pragma unroll
    for (int first = 0; first < V; first += N) {
        const Vector<T, N> part = load_vector_read_only<N>(from + first);
#pragma unroll
        for (int n = 0; n < N; ++n) to[first + n] = convert(part[n]);
    }
}

template <int N, int V, class T>
__device__ __forceinline__ void store_vectors(T* to, const T (&values)[V]) {
#pragma unroll
    for (int first = 0; first < V; first += N) {
        Vector<T, N> part;
#pragma unroll
        for (int n = 0; n < N; ++n) part[n] = values[first + n];
        store_vector(to + first, part);
    }
}

}  // namespace pycv::cuda
