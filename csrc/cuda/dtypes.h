// From the dtype of a problem to the type of its elements, for kernels that take every dtype.
#pragma once

#include "device/half.h"
#include "plan.h"

namespace pycv::cuda {

// What make.operator()<T>() returns, T the type of a dtype's elements.
template <class Make>
auto of_dtype(DType dtype, const Make& make) {
    switch (dtype) {
        case DType::f32: return make.template operator()<float>();
        case DType::f64: return make.template operator()<double>();
        case DType::f16: return make.template operator()<half>();
        case DType::bf16: break;
    }
    return make.template operator()<bfloat16>();
}

}  // namespace pycv::cuda
