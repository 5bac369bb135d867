// Integer arithmetic that host and device code share.
#pragma once

#include <cstdint>

#include "device/launch.h"

namespace pycv::cuda {

template <class T>
__host__ __device__ constexpr T ceil_div(T value, T divisor) {
    return (value + divisor - 1) / divisor;
}

// Whether all of these addresses (null among them) are multiples of `bytes`.
template <class... Address>
bool all_aligned(uintptr_t bytes, const Address*... addresses) {
    return ((reinterpret_cast<uintptr_t>(addresses) % bytes == 0) && ...);
}

}  // namespace pycv::cuda
