// V neighbouring elements as a thread computes with them: in the accumulator's type. One element is read as it is,
// several in one vector access, through the read-only cache: no thread of the launch may write them.
#pragma once

#include "device/half.h"
#include "device/vector.h"

namespace pycv::cuda {

template <class T, int V>
struct Elements {
    accumulator_t<T> of[V];
};

template <int V, class T>
__device__ __forceinline__ Elements<T, V> load_elements(const T* from PYCV_SITE) {
    Elements<T, V> values;
    if constexpr (V == 1) {
        values.of[0] = to_accumulator(__ldg(from));
    } else {
        const Vector<T, V> raw = load_vector_read_only<V>(from PYCV_SITE_ARGUMENT);
#pragma unroll
        for (int v = 0; v < V; ++v) values.of[v] = to_accumulator(raw[v]);
    }
    return values;
}

template <class T, int V>
__device__ __forceinline__ void store_elements(T* to, const Elements<T, V>& values PYCV_SITE) {
    if constexpr (V == 1) {
        *to = from_accumulator<T>(values.of[0]);
    } else {
        Vector<T, V> raw;
#pragma unroll
        for (int v = 0; v < V; ++v) raw[v] = from_accumulator<T>(values.of[v]);
        store_vector(to, raw PYCV_SITE_ARGUMENT);
    }
}

}  // namespace pycv::cuda
