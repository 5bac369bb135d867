// What a tensor map says: a tensor in global memory, and the box of it that one copy moves (device/tensor_map.h).
#pragma once

#include <cstdint>

namespace pycv::cuda {

enum class TensorElement { f16, bf16, f32, tf32 };  // tf32: of 32 bits, rounded to tf32 on the way into shared memory

constexpr int bytes_of(TensorElement element) {
    return element == TensorElement::f16 || element == TensorElement::bf16 ? 2 : 4;
}

// Of rows of so many bytes in shared memory: vectors of 16 bytes change places within them.
enum class Swizzle : int { none = 0, bytes_32 = 32, bytes_64 = 64, bytes_128 = 128 };

// Axes are counted from the innermost one on. What a box has beyond the tensor arrives as zeros, and is not stored.
struct TensorMapFields {
    const void* base;
    TensorElement element;
    int rank;
    int64_t sizes[5];
    int64_t strides[5];  // in bytes; strides[0] is the bytes of an element
    int box[5];          // elements
    Swizzle swizzle;

    // im2col, of channels x width x height x batch: a copy takes `pixels` places of a window, one after the other, and
    // box[0] channels of each; box[1] and up have no meaning. Places step through [lower, size + upper) of each axis,
    // width fastest, and go on in the next row and image.
    int pixels = 0;                                      // 0: no im2col
    int lower[2] = {}, upper[2] = {}, step[2] = {1, 1};  // of width and height
};

}  // namespace pycv::cuda
