// Complex numbers in registers and, re and im side by side, in memory.
#pragma once

#include "device/launch.h"

namespace pycv::cuda {

template <class T>
struct Complex {
    T re, im;
};

template <class T>
__device__ __forceinline__ Complex<T> operator+(Complex<T> a, Complex<T> b) {
    return {a.re + b.re, a.im + b.im};
}
template <class T>
__device__ __forceinline__ Complex<T> operator-(Complex<T> a, Complex<T> b) {
    return {a.re - b.re, a.im - b.im};
}
template <class T>
__device__ __forceinline__ Complex<T> operator*(Complex<T> a, Complex<T> b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class T>
__device__ __forceinline__ Complex<T> scaled(Complex<T> a, T factor) {
    return {a.re * factor, a.im * factor};
}
template <class T>
__device__ __forceinline__ Complex<T> conjugate(Complex<T> a) {
    return {a.re, -a.im};
}

// sum += a * b, by fused multiply-adds.
template <class T>
__device__ __forceinline__ void multiply_add(T& sum, T a, T b) {
    sum += a * b;
}
template <class T>
__device__ __forceinline__ void multiply_add(Complex<T>& sum, Complex<T> a, Complex<T> b) {
    sum.re += a.re * b.re;
    sum.re -= a.im * b.im;
    sum.im += a.re * b.im;
    sum.im += a.im * b.re;
}

}  // namespace pycv::cuda
