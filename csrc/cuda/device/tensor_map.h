// Tensor maps: what copies of boxes of a tensor are issued with (device/tensor_copy.h). The host makes them, without a
// call to the device, and kernels take them as `const __grid_constant__ TensorMap`.
//
// Addresses and strides are multiples of 16 bytes; a box has at most 256 elements of an axis, its inner axis at most
// the bytes of the swizzle, a multiple of 16. make_tensor_map throws CudaError where the driver refuses.
#pragma once

#include <algorithm>

#include "launch.h"
#include "tensor_fields.h"

#if defined(PYCV_SIMT)
#include "../../simt/tensor_copy.h"
#else
#include <cuda.h>
#endif

namespace pycv::cuda {

#if defined(PYCV_SIMT)
using TensorMap = simt::TensorMap;
using simt::make_tensor_map;
#else
using TensorMap = CUtensorMap;

inline void* driver_function(const char* name) {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &result);
    if (status != cudaSuccess || result != cudaDriverEntryPointSuccess)
        throw CudaError(std::string(name) + ": the driver has no such function");
    return function;
}

inline CUtensorMapDataType driver_type(TensorElement element) {
    switch (element) {
        case TensorElement::f16: return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
        case TensorElement::bf16: return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
        case TensorElement::f32: return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
        default: return CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
    }
}

inline CUtensorMapSwizzle driver_swizzle(Swizzle swizzle) {
    switch (swizzle) {
        case Swizzle::none: return CU_TENSOR_MAP_SWIZZLE_NONE;
        case Swizzle::bytes_32: return CU_TENSOR_MAP_SWIZZLE_32B;
        case Swizzle::bytes_64: return CU_TENSOR_MAP_SWIZZLE_64B;
        default: return CU_TENSOR_MAP_SWIZZLE_128B;
    }
}

inline TensorMap make_tensor_map(const TensorMapFields& fields) {
    static const auto encode_tiled =
        reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(driver_function("cuTensorMapEncodeTiled"));
    static const auto encode_im2col =
        reinterpret_cast<decltype(&cuTensorMapEncodeIm2col)>(driver_function("cuTensorMapEncodeIm2col"));
    cuuint64_t sizes[5], strides[4] = {};
    cuuint32_t box[5], steps[5] = {1, 1, 1, 1, 1};
    for (int axis = 0; axis < fields.rank; ++axis) {
        sizes[axis] = static_cast<cuuint64_t>(fields.sizes[axis]);
        box[axis] = static_cast<cuuint32_t>(fields.box[axis]);
        if (axis > 0) strides[axis - 1] = static_cast<cuuint64_t>(fields.strides[axis]);
    }
    TensorMap map;
    const auto type = driver_type(fields.element);
    const auto rank = static_cast<cuuint32_t>(fields.rank);
    const auto swizzle = driver_swizzle(fields.swizzle);
    void* const base = const_cast<void*>(fields.base);
    CUresult status;
    if (fields.pixels == 0) {
        status = encode_tiled(&map, type, rank, base, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                              swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    } else {
        std::copy(fields.step, fields.step + 2, steps + 1);
        status = encode_im2col(&map, type, rank, base, sizes, strides, fields.lower, fields.upper, box[0],
                               static_cast<cuuint32_t>(fields.pixels), steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                               CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    }
    if (status != CUDA_SUCCESS) throw CudaError("a tensor map was refused: error " + std::to_string(status));
    return map;
}
#endif

}  // namespace pycv::cuda
