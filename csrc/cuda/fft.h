// Fourier transforms of complex lines in shared memory, by all threads of a block together.
//
// Radix 2, 4 and 8 (Cooley and Tukey 1965) in place: forward by decimation in frequency, inverse by decimation in time,
// which is the same flow graph backwards. The forward transform therefore leaves frequency f at place(f), the inverse
// takes it from there, and no element is moved for the sake of order. Neither divides by the length, which is a power
// of two: 16 = 4 * 4, 32 = 4 * 8 and 64 = 8 * 8 are two passes through shared memory with a barrier after each.
#pragma once

#include "complex.h"
#include "device/launch.h"

namespace pycv::cuda::fft {

inline constexpr int kThreads = 128;

// exp(-2 pi i x)
__device__ __forceinline__ Complex<float> unit_root(float x) {
    Complex<float> root;
    sincospif(-2 * x, &root.im, &root.re);
    return root;
}
__device__ __forceinline__ Complex<double> unit_root(double x) {
    Complex<double> root;
    sincospi(-2 * x, &root.im, &root.re);
    return root;
}

// Bits of the radix of the first stage of a transform of 2^bits: as large as leaves whole radix-8 stages behind.
__device__ __forceinline__ int radix_bits(int bits) { return bits % 3 == 0 ? 3 : bits % 3 == 2 || bits > 1 ? 2 : 1; }

// Where frequency f of a transform of 2^bits lies.
__device__ __forceinline__ int place(int f, int bits) {
    int at = 0;
    while (bits > 0) {
        const int radix = radix_bits(bits);
        bits -= radix;
        at += (f & ((1 << radix) - 1)) << bits;
        f >>= radix;
    }
    return at;
}

// Times exp(-i pi / 2), inverse: exp(i pi / 2).
template <bool Inverse, class T>
__device__ __forceinline__ Complex<T> quarter_turn(Complex<T> z) {
    return Inverse ? Complex<T>{-z.im, z.re} : Complex<T>{z.im, -z.re};
}

template <bool Inverse, class T>
__device__ __forceinline__ void butterfly4(Complex<T>& a, Complex<T>& b, Complex<T>& c, Complex<T>& d) {
    const Complex<T> sum = a + c, difference = a - c, other = b + d, turned = quarter_turn<Inverse>(b - d);
    a = sum + other;
    b = difference + turned;
    c = sum - other;
    d = difference - turned;
}

// The transform of R elements in registers, in place and in order.
template <int R, bool Inverse, class T>
__device__ __forceinline__ void butterfly(Complex<T> (&z)[R]) {
    if constexpr (R == 2) {
        const Complex<T> difference = z[0] - z[1];
        z[0] = z[0] + z[1];
        z[1] = difference;
    } else if constexpr (R == 4) {
        butterfly4<Inverse>(z[0], z[1], z[2], z[3]);
    } else {
        static_assert(R == 8);
        constexpr T kSin45 = T(0.707106781186547524400844362104849039);
        butterfly4<Inverse>(z[0], z[2], z[4], z[6]);
        butterfly4<Inverse>(z[1], z[3], z[5], z[7]);
        z[3] = scaled(z[3] + quarter_turn<Inverse>(z[3]), kSin45);
        z[5] = quarter_turn<Inverse>(z[5]);
        z[7] = scaled(quarter_turn<Inverse>(z[7]) - z[7], kSin45);
        Complex<T> out[8];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            out[i] = z[2 * i] + z[2 * i + 1];
            out[i + 4] = z[2 * i] - z[2 * i + 1];
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) z[i] = out[i];
    }
}

// The powers of exp(-2 pi i / 2^bits), for lines of up to 2^bits.
template <class T>
struct Roots {
    Complex<T>* powers;
    int bits;

    __device__ __forceinline__ void fill() const {
        for (int i = static_cast<int>(threadIdx.x); i < 1 << bits; i += kThreads)
            powers[i] = unit_root(static_cast<T>(i) / static_cast<T>(1 << bits));
    }
};

// One stage of all lines: sub-transforms of 2^bits = R * rest elements, whose elements j + q * rest are combined over
// q. line(l) gives what leads from an element's index to its address.
template <int R, bool Inverse, class T, class Line>
__device__ __forceinline__ void run_radix(int lines, int line_bits, int bits, const Roots<T>& roots, const Line& line) {
    constexpr int r_bits = R == 8 ? 3 : R == 4 ? 2 : 1;
    const int rest_bits = bits - r_bits, per_line = 1 << (line_bits - r_bits);
    for (int i = static_cast<int>(threadIdx.x); i < lines * per_line; i += kThreads) {
        const int index = i / lines, j = index & ((1 << rest_bits) - 1), first = ((index >> rest_bits) << bits) + j;
        const auto at = line(i - index * lines);
        Complex<T> z[R];
#pragma unroll
        for (int q = 0; q < R; ++q) z[q] = *at(first + (q << rest_bits));
        if constexpr (Inverse)
#pragma unroll
            for (int q = 1; q < R; ++q) z[q] = z[q] * conjugate(roots.powers[(j * q) << (roots.bits - bits)]);
        butterfly<R, Inverse>(z);
        if constexpr (!Inverse)
#pragma unroll
            for (int q = 1; q < R; ++q) z[q] = z[q] * roots.powers[(j * q) << (roots.bits - bits)];
#pragma unroll
        for (int q = 0; q < R; ++q) *at(first + (q << rest_bits)) = z[q];
    }
    __syncthreads();
}

template <bool Inverse, class T, class Line>
__device__ __forceinline__ void run_stage(int lines, int line_bits, int bits, const Roots<T>& roots, const Line& line) {
    switch (radix_bits(bits)) {
        case 1: return run_radix<2, Inverse>(lines, line_bits, bits, roots, line);
        case 2: return run_radix<4, Inverse>(lines, line_bits, bits, roots, line);
        default: return run_radix<8, Inverse>(lines, line_bits, bits, roots, line);
    }
}

// Transforms `lines` lines of 2^bits elements. The lines have to be visible to the block; so are they afterwards.
template <bool Inverse, class T, class Line>
__device__ __forceinline__ void transform(int lines, int bits, const Roots<T>& roots, const Line& line) {
    if constexpr (!Inverse) {
        for (int rest = bits; rest > 0; rest -= radix_bits(rest)) run_stage<false>(lines, bits, rest, roots, line);
    } else {
        for (int done = 0; done < bits;) {  // the same stages, from the shortest sub-transforms up
            int stage = bits;
            while (stage - radix_bits(stage) > done) stage -= radix_bits(stage);
            run_stage<true>(lines, bits, stage, roots, line);
            done = stage;
        }
    }
}

}  // namespace pycv::cuda::fft
