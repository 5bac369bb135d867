// Products of spectra: at every frequency a product of complex matrices, real and imaginary parts apart.
//
// sum over d of rows[i][d] * lanes[d][j], in register tiles of kComplexRows rows by kComplexVectors vectors: each step
// loads 2 vectors and broadcasts 2 numbers per row for 4 multiply-adds per row and vector.
#pragma once

#include "fft.h"

namespace pycv::cpu::PYCV_ISA {

#if PYCV_VECTOR_BYTES == 64
inline constexpr int kComplexRows = 6, kComplexVectors = 2;
#else
inline constexpr int kComplexRows = 5, kComplexVectors = 1;
#endif

// A matrix of complex numbers; the columns of one row (of rows: the steps of the depth) may lie anywhere apart.
template <class T>
struct ComplexMatrix {
    T* data;
    int64_t index, depth;  // strides; of the lanes operand `index` is unused: its lanes are neighbours
    int64_t im;
};

template <class T, int Rows, int Vectors>
void complex_tile(ComplexMatrix<const T> rows, ComplexMatrix<const T> from, int64_t depth, ComplexMatrix<T> out,
                  bool add) {
    Vec<T> re[Rows][Vectors], im[Rows][Vectors];
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
            const T* at = out.data + i * out.index + v * lanes<T>;
            re[i][v] = add ? load<T>(at) : Vec<T>{};
            im[i][v] = add ? load<T>(at + out.im) : Vec<T>{};
        }
    const T* __restrict a = rows.data;
    const T* __restrict b = from.data;
    for (int64_t d = 0; d < depth; ++d) {
        Vec<T> b_re[Vectors], b_im[Vectors];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
            b_re[v] = load<T>(b + v * lanes<T>);
            b_im[v] = load<T>(b + v * lanes<T> + from.im);
        }
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) {
            const Vec<T> a_re = broadcast<T>(a[i * rows.index]), a_im = broadcast<T>(a[i * rows.index + rows.im]);
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) {
                re[i][v] += a_re * b_re[v];
                im[i][v] += a_re * b_im[v];
                re[i][v] -= a_im * b_im[v];
                im[i][v] += a_im * b_re[v];
            }
        }
        a += rows.depth;
        b += from.depth;
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
            store<T>(out.data + i * out.index + v * lanes<T>, re[i][v]);
            store<T>(out.data + i * out.index + v * lanes<T> + out.im, im[i][v]);
        }
}

template <class T, int Vectors>
void complex_rows(int rows, ComplexMatrix<const T> a, ComplexMatrix<const T> b, int64_t depth, ComplexMatrix<T> out,
                  bool add) {
    switch (rows) {
        case 1: return complex_tile<T, 1, Vectors>(a, b, depth, out, add);
        case 2: return complex_tile<T, 2, Vectors>(a, b, depth, out, add);
        case 3: return complex_tile<T, 3, Vectors>(a, b, depth, out, add);
        case 4: return complex_tile<T, 4, Vectors>(a, b, depth, out, add);
        case 5: return complex_tile<T, 5, Vectors>(a, b, depth, out, add);
        default: return complex_tile<T, kComplexRows, Vectors>(a, b, depth, out, add);
    }
}

// out[i][j] (+)= sum over d of a[i][d] * b[d][j] for `rows` rows, cut evenly, and 1 to kComplexVectors vectors.
template <class T>
void complex_product(int64_t rows, int64_t vectors, ComplexMatrix<const T> a, ComplexMatrix<const T> b, int64_t depth,
                     ComplexMatrix<T> out, bool add) {
    const int64_t tiles = divide_up(rows, kComplexRows);
    for (int64_t i = 0; i < tiles; ++i) {
        const int64_t begin = rows * i / tiles, end = rows * (i + 1) / tiles;
        const ComplexMatrix<const T> part{a.data + begin * a.index, a.index, a.depth, a.im};
        const ComplexMatrix<T> result{out.data + begin * out.index, out.index, out.depth, out.im};
        if (vectors == 1) {
            complex_rows<T, 1>(static_cast<int>(end - begin), part, b, depth, result, add);
        } else {
            complex_rows<T, kComplexVectors>(static_cast<int>(end - begin), part, b, depth, result, add);
        }
    }
}

// out[i] (+)= sum over d of a[d] * b[d], lane by lane: one product per lane.
template <class T>
inline void lane_product(ComplexMatrix<const T> a, ComplexMatrix<const T> b, int64_t depth, Line<T> out, bool add) {
    Complex<T> sum = add ? out.get(0) : Complex<T>{};
    for (int64_t d = 0; d < depth; ++d) {
        const Vec<T> a_re = load<T>(a.data + d * a.depth), a_im = load<T>(a.data + d * a.depth + a.im);
        const Vec<T> b_re = load<T>(b.data + d * b.depth), b_im = load<T>(b.data + d * b.depth + b.im);
        sum.re += a_re * b_re;
        sum.re -= a_im * b_im;
        sum.im += a_re * b_im;
        sum.im += a_im * b_re;
    }
    out.set(0, sum);
}

}  // namespace pycv::cpu::PYCV_ISA
