// Products of warp groups on tensor cores (wgmma, sm_90a): four warps multiply what lies in shared memory, on their
// own.
//
//     shared_matrix(tile, panel)         what names an operand: a tile of lines (rows of a, columns of b) by k in
//                                        swizzled shared memory, as boxes are copied there (tensor_copy.h)
//     fence_products()                   what was done to sums before, e.g. setting them to zero, comes first
//     multiply_async<T, N, A, B>(s, a, b)    s += a * b of 64 x N, over 32 bytes of k; T = half, bfloat16, tf32
//     commit_products()                  closes a group
//     wait_for_products<N>(s)            until at most N groups are under way; then the sums of the others are there
//     reallocate_registers<N, More>()    for all threads of a warp group from here on: N of them
//     store_matrices(row, registers)     four 8 x 8 matrices of 16 bits to shared memory, by stmatrix (sm_90)
//     to_tf32_even(x)                    the bits of x rounded to tf32 as copies by tensor maps do it, ties to even
//                                        (sm_90); products cut off what nobody has rounded
//
// Major::k: k runs fastest. A row of 128 bytes is 128 bytes of k of a line, the next row the next line; the
// operand of a slice of 32 bytes of k begins 32 bytes after the one before. Major::line, 16-bit types only: a row
// is the 64 lines of one k, the next row the next k; 64 lines on, the next panel begins, `panel` bytes after this one;
// the operand of a slice of 16 k begins 16 rows after the one before. Tiles and panels begin at multiples of 1024
// bytes.
//
// The sums of warp w of the group are rows 16 w to 16 w + 15. With g = lane / 4 and t = lane % 4, s[4 i] to s[4 i + 3]
// are (g, 8 i + 2 t), (g, 8 i + 2 t + 1), and the same of row g + 8. Nobody may touch them, nor the tiles, while
// products are under way.
//
// Other code than that for sm_90a has none of this: a kernel begins with PYCV_NEEDS_WGMMA, which traps there and leaves
// the rest of it out.
#pragma once

#include "barrier.h"
#include "mma.h"
#include "tensor_fields.h"

#if defined(PYCV_SIMT)
#include "../../simt/warp_group.h"
#endif

namespace pycv::cuda {

#if !defined(PYCV_SIMT) && defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool has_wgmma = false;
#else
inline constexpr bool has_wgmma = true;
#endif
#define PYCV_NEEDS_WGMMA        \
    if constexpr (!has_wgmma) { \
        __trap();               \
        return;                 \
    }

inline constexpr int warp_group_size = 128;

using SharedMatrix = std::uint64_t;

// Bytes between groups of eight rows; between panels.
template <Swizzle Span = Swizzle::bytes_128>
__device__ __forceinline__ SharedMatrix shared_matrix(const void* tile, int panel_bytes PYCV_SITE) {
    constexpr unsigned span = static_cast<unsigned>(Span), eight_rows = 8 * span;
    static_assert(span != 0, "no product of tiles that are not swizzled");
#if defined(PYCV_SIMT)
    return simt::describe_matrix(tile, static_cast<unsigned>(panel_bytes), eight_rows, span, site);
#else
    constexpr std::uint64_t kind = span == 128 ? 1 : span == 64 ? 2 : 3;
    const auto start = static_cast<std::uint64_t>(shared_address(tile) & 0x3ffff);
    return start >> 4 | static_cast<std::uint64_t>(panel_bytes >> 4) << 16 |
           static_cast<std::uint64_t>(eight_rows >> 4) << 32 | kind << 62;
#endif
}

// The operand that begins so many bytes after this one.
__device__ __forceinline__ SharedMatrix advanced(SharedMatrix matrix, int bytes) { return matrix + (bytes >> 4); }

__device__ __forceinline__ void fence_products(PYCV_FIRST_SITE) {
#if defined(PYCV_SIMT)
    simt::fence_products(site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void commit_products(PYCV_FIRST_SITE) {
#if defined(PYCV_SIMT)
    simt::commit_products(site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// The compiler sees here that the sums change.
template <int N, int Count>
__device__ __forceinline__ void wait_for_products([[maybe_unused]] float (&sums)[Count] PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::wait_for_products(N, site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#pragma unroll
    for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(sums[i])::"memory");
#endif
}

template <int N, bool More>
__device__ __forceinline__ void reallocate_registers() {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "registers come in eights, 24 to 256");
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    if constexpr (More)
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
    else
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
#endif
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Lists of registers for the instruction of N columns, which has N / 2 sums.
#define PYCV_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define PYCV_NAMES_16 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PYCV_NAMES_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define PYCV_NAMES_48 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PYCV_NAMES_64 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define PYCV_NAMES_80 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define PYCV_NAMES_96 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define PYCV_NAMES_112 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define PYCV_SUMS_4(i) "+f"(s[i]), "+f"(s[i + 1]), "+f"(s[i + 2]), "+f"(s[i + 3])
#define PYCV_SUMS_16(i) PYCV_SUMS_4(i), PYCV_SUMS_4(i + 4), PYCV_SUMS_4(i + 8), PYCV_SUMS_4(i + 12)
#define PYCV_NAMES_OF_64 PYCV_NAMES_0 ", " PYCV_NAMES_16
#define PYCV_NAMES_OF_128 PYCV_NAMES_OF_64 ", " PYCV_NAMES_32 ", " PYCV_NAMES_48
#define PYCV_NAMES_OF_256 PYCV_NAMES_OF_128 ", " PYCV_NAMES_64 ", " PYCV_NAMES_80 ", " PYCV_NAMES_96 ", " PYCV_NAMES_112
#define PYCV_SUMS_OF_64 PYCV_SUMS_16(0), PYCV_SUMS_16(16)
#define PYCV_SUMS_OF_128 PYCV_SUMS_OF_64, PYCV_SUMS_16(32), PYCV_SUMS_16(48)
#define PYCV_SUMS_OF_256 PYCV_SUMS_OF_128, PYCV_SUMS_16(64), PYCV_SUMS_16(80), PYCV_SUMS_16(96), PYCV_SUMS_16(112)

template <class T, int N, Major A, Major B>
struct GroupMultiply;

// The operands come after the sums: registers `a` and `b`, for 16-bit types whether lines run fastest in them.
#define PYCV_WGMMA_16(Type, type, N, a, b, a_lines, b_lines)                                                    \
    template <Major A, Major B>                                                                                 \
    struct GroupMultiply<Type, N, A, B> {                                                                       \
        static __device__ __forceinline__ void run(float (&s)[N / 2], SharedMatrix of_a, SharedMatrix of_b) {   \
            asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type " {" PYCV_NAMES_OF_##N \
                         "}, " a ", " b ", 1, 1, 1, " a_lines ", " b_lines ";"                                  \
                         : PYCV_SUMS_OF_##N                                                                     \
                         : "l"(of_a), "l"(of_b), "n"(A == Major::line ? 1 : 0), "n"(B == Major::line ? 1 : 0)); \
        }                                                                                                       \
    };
#define PYCV_WGMMA_TF32(N, a, b)                                                                                      \
    template <>                                                                                                       \
    struct GroupMultiply<tf32, N, Major::k, Major::k> {                                                               \
        static __device__ __forceinline__ void run(float (&s)[N / 2], SharedMatrix of_a, SharedMatrix of_b) {         \
            asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k8.f32.tf32.tf32 {" PYCV_NAMES_OF_##N "}, " a ", " b \
                                                                                                       ", 1, 1, 1;"   \
                         : PYCV_SUMS_OF_##N                                                                           \
                         : "l"(of_a), "l"(of_b));                                                                     \
        }                                                                                                             \
    };
PYCV_WGMMA_16(half, "f16", 64, "%32", "%33", "%34", "%35")
PYCV_WGMMA_16(bfloat16, "bf16", 64, "%32", "%33", "%34", "%35")
PYCV_WGMMA_TF32(64, "%32", "%33")
PYCV_WGMMA_16(half, "f16", 128, "%64", "%65", "%66", "%67")
PYCV_WGMMA_16(bfloat16, "bf16", 128, "%64", "%65", "%66", "%67")
PYCV_WGMMA_TF32(128, "%64", "%65")
PYCV_WGMMA_16(half, "f16", 256, "%128", "%129", "%130", "%131")
PYCV_WGMMA_16(bfloat16, "bf16", 256, "%128", "%129", "%130", "%131")
PYCV_WGMMA_TF32(256, "%128", "%129")
#endif

template <class T, int N, Major A, Major B>
__device__ __forceinline__ void multiply_async(float (&sums)[N / 2], SharedMatrix a, SharedMatrix b PYCV_SITE) {
    static_assert(N == 64 || N == 128 || N == 256);
    static_assert(!std::is_same_v<T, tf32> || (A == Major::k && B == Major::k), "tf32 takes operands along k");
#if defined(PYCV_SIMT)
    simt::multiply_async({matrix_type<T>, N, A == Major::line, B == Major::line, a, b}, sums, site);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
    GroupMultiply<T, N, A, B>::run(sums, a, b);
#endif
}

__device__ __forceinline__ unsigned to_tf32_even(float x) {
#if defined(PYCV_SM90)
    unsigned bits;
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#else
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;  // infinity, NaN
    return (bits + 0xfffu + (bits >> 13 & 1u)) & 0xffffe000u;
#endif
}

// What load_matrices (mma.h) loads, the other way round.
__device__ __forceinline__ void store_matrices(void* row, const unsigned (&registers)[4] PYCV_SITE) {
#if defined(PYCV_SIMT)
    simt::store_fragments(row, registers, site);
#elif defined(PYCV_SM90)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
                 "r"(registers[0]), "r"(registers[1]), "r"(registers[2]), "r"(registers[3])
                 : "memory");
#endif
}

}  // namespace pycv::cuda
