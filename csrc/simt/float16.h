// __half and __nv_bfloat16 as bits, with the conversions of cuda_fp16.h and cuda_bf16.h that kernels may use.
//
// Only storage: whatever is computed is computed in float. Conversions from float round to nearest even.
#pragma once

#include <bit>
#include <cstdint>

struct __half {
    std::uint16_t bits;
};
struct __nv_bfloat16 {
    std::uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 value) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};  // NaN
    return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

inline float __half2float(__half value) {
    const std::uint32_t sign = (value.bits & 0x8000u) << 16;
    const std::uint32_t rest = value.bits & 0x7fffu;
    if (rest >= 0x7c00u)  // infinity, NaN
        return std::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    // The exponent of float is larger by 112: scaling in float brings subnormals along.
    const float magnitude = std::bit_cast<float>(rest << 13) * 0x1p112f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

inline __half __float2half_rn(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
    const std::uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return {0x7fff};                                       // NaN
    if (rest >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // rounds to 65536 or more
    if (rest < 0x38800000u) {                                                      // subnormal
        // Adding 0.5 puts the last bit of a subnormal half, 2^-24, at the last bit of the float, which rounds it.
        const float sum = std::bit_cast<float>(rest) + 0.5f;
        return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(sum) - 0x3f000000u))};
    }
    const std::uint32_t rounded = rest - (112u << 23) + 0xfffu + (rest >> 13 & 1u);
    return {static_cast<std::uint16_t>(sign | rounded >> 13)};
}

inline __half __float2half(float value) { return __float2half_rn(value); }
inline __nv_bfloat16 __float2bfloat16(float value) { return __float2bfloat16_rn(value); }
