// Types of the CUDA language.
#pragma once

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define PYCV_VECTOR_TYPES(name, scalar)                                                               \
    struct alignas(2 * sizeof(scalar)) name##2 { scalar x, y; };                                      \
    struct alignas(4 * sizeof(scalar) < 16 ? 4 * sizeof(scalar) : 16) name##4 { scalar x, y, z, w; }; \
    inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                              \
    inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
PYCV_VECTOR_TYPES(float, float)
PYCV_VECTOR_TYPES(double, double)
PYCV_VECTOR_TYPES(int, int)
PYCV_VECTOR_TYPES(uint, unsigned)
PYCV_VECTOR_TYPES(short, short)
PYCV_VECTOR_TYPES(ushort, unsigned short)
PYCV_VECTOR_TYPES(char, signed char)
PYCV_VECTOR_TYPES(uchar, unsigned char)
#undef PYCV_VECTOR_TYPES

// Host execution has neither streams nor asynchronous errors.
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0 };
