// Tensor cores by mma.sync (sm_80): what the 32 lanes of a warp multiply together, and how they load it.
//
//     multiply_add<T>(sums, a, b)        sums += a * b for T = half, bfloat16 (over 16 k) or tf32 (over 8), in fp32
//     load_matrices<Transposed>(r, row)  four 8 x 8 matrices of 16 bits from shared memory, by ldmatrix: lane 8i + j
//                                        names row j of matrix i, 16 aligned bytes
//     to_tf32(x)                         the bits of x rounded to the 11 bits of precision of tf32, ties away from zero
//
// A fragment is a lane's share of a matrix. With g = lane / 4 and t = lane % 4 a register holds, of (row, column):
//     16 bits   a, 16 x 16   (g, 2t), (g, 2t + 1) | the same of row g + 8 | of columns + 8 | of both
//               b, 16 x 8    (2t, g), (2t + 1, g) | of rows + 8
//     tf32      a, 16 x 8    (g, t) | (g + 8, t) | (g, t + 4) | (g + 8, t + 4)
//               b,  8 x 8    (t, g) | (t + 4, g)
//     sums, 16 x 8           (g, 2t) | (g, 2t + 1) | (g + 8, 2t) | (g + 8, 2t + 1)
// ldmatrix gives a lane (g, 2t) and (g, 2t + 1) of each matrix, transposed (2t, g) and (2t + 1, g). An element of 32
// bits is two of 16 to it: a row of four.
//
// All of it takes a full warp. Before sm_80 there is none of this: a kernel begins with PYCV_NEEDS_MMA, which traps
// there and leaves the rest of it out.
#pragma once

#include <type_traits>

#include "half.h"

#if defined(PYCV_SIMT)
#include "../../simt/tensor_core.h"
#endif

namespace pycv::cuda {

#if !defined(PYCV_SIMT) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
inline constexpr bool has_mma = false;
#else
inline constexpr bool has_mma = true;
#endif
#define PYCV_NEEDS_MMA        \
    if constexpr (!has_mma) { \
        __trap();             \
        return;               \
    }

enum class Major { k, line };  // what a row of a tile of an operand runs along

struct tf32 {};  // names the type of operands; they are kept as float

struct FragmentA {
    unsigned of[4];
};
struct FragmentB {
    unsigned of[2];
};
struct FragmentSums {
    float of[4];
};

#if defined(PYCV_SIMT)
template <class T>
inline constexpr simt::MatrixType matrix_type = std::is_same_v<T, half>       ? simt::MatrixType::f16
                                                : std::is_same_v<T, bfloat16> ? simt::MatrixType::bf16
                                                                              : simt::MatrixType::tf32;
#endif

template <class T>
__device__ __forceinline__ void multiply_add(FragmentSums& sums, const FragmentA& a, const FragmentB& b PYCV_SITE) {
    static_assert(std::is_same_v<T, half> || std::is_same_v<T, bfloat16> || std::is_same_v<T, tf32>);
#if defined(PYCV_SIMT)
    const float* s = sums.of;
    simt::MatrixFragments lane{{a.of[0], a.of[1], a.of[2], a.of[3]}, {b.of[0], b.of[1]}, {s[0], s[1], s[2], s[3]}};
    simt::multiply_fragments(matrix_type<T>, lane, site);
    for (int i = 0; i < 4; ++i) sums.of[i] = lane.sums[i];
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define PYCV_MMA(shape, type)                                                             \
    asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type                  \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"   \
                 : "+f"(sums.of[0]), "+f"(sums.of[1]), "+f"(sums.of[2]), "+f"(sums.of[3]) \
                 : "r"(a.of[0]), "r"(a.of[1]), "r"(a.of[2]), "r"(a.of[3]), "r"(b.of[0]), "r"(b.of[1]))
    if constexpr (std::is_same_v<T, half>)
        PYCV_MMA("m16n8k16", "f16");
    else if constexpr (std::is_same_v<T, bfloat16>)
        PYCV_MMA("m16n8k16", "bf16");
    else
        PYCV_MMA("m16n8k8", "tf32");
#undef PYCV_MMA
#endif
}

template <bool Transposed = false>
__device__ __forceinline__ void load_matrices(unsigned (&registers)[4], const void* row PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::load_fragments(row, Transposed, registers, site);
#elif defined(__CUDA_ARCH__)  // sm_75
    const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if constexpr (Transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                     : "r"(address)
                     : "memory");
#endif
}

__device__ __forceinline__ unsigned to_tf32(float x) {
#if !defined(PYCV_SIMT) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#else
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;  // infinity, NaN
    return (bits + 0x1000u) & 0xffffe000u;
#endif
}

}  // namespace pycv::cuda
