// The matrices of Winograd's minimal filtering algorithms, made by the compiler.
//
// F(M, R) computes M outputs of a filter of R taps with M + R - 1 = A multiplications instead of M * R:
//
//     output = AT ((G filter) * (BT input)),     element by element between the brackets, A inputs
//
// (S. Winograd, Arithmetic complexity of computations, 1980; for convolution layers A. Lavin and S. Gray, Fast
// algorithms for convolutional neural networks, 2016.) The Cook-Toom construction evaluates two polynomials at A - 1
// points and at infinity and interpolates their product; F is its transpose. BT depends on the points only, so that
// F(M, R) and F(R, M), which a gradient of the filter needs, share it. In two dimensions each matrix is applied to the
// columns and to the rows of a tile.
//
// The points decide the error. Those below are the best of a search among fractions with small numerators over powers
// of two, in pairs +p, -p, which halve the transforms' work. Largest error relative to the largest output, as measured
// (fp32, N(0, 1) inputs, He-scaled weights; forward with 64 / 512 channels, where fp32 sums weigh in):
//     A = 3: 1; A = 5: 1/2, 5/4   F(2, 2), F(4, 2) of 3 x 3 with stride 2: 3e-7 / 9e-7
//     A = 4: 0, 1            F(2, 3)  4e-7 / 9e-7, F(3, 2) 4e-7 / 1e-6
//     A = 6: 0, 5/8, 3/2     F(4, 3)  2e-6 / 5e-6, F(2, 5) 1e-6 / 5e-6, F(5, 2) 2e-6 / 6e-6, F(3, 4) 1e-6 / 3e-6
//                            (with 0, 1/2, 2 twice as much)
//     A = 7: 1/4, 7/8, 7/4   F(3, 5)  3e-6 / 7e-6, F(4, 4) 3e-6 / 9e-6, F(5, 3) 4e-6 / 1.3e-5 (256 channels: 8e-6)
//     A = 8: 0, 1/2, 1, 2    F(6, 3)  9e-6 / 3e-5, F(4, 5) 9e-6 / 2e-5: not within 1e-5, so of numeric class "fast"
#pragma once

namespace pycv::winograd {

template <int Rows, int Columns>
struct Matrix {
    static constexpr int kRows = Rows, kColumns = Columns;
    double at[Rows][Columns];
};

namespace cook_toom {

template <int A>
struct Points;
template <>
struct Points<3> {
    static constexpr double at[] = {1, -1};
};
template <>
struct Points<4> {
    static constexpr double at[] = {0, 1, -1};
};
template <>
struct Points<5> {
    static constexpr double at[] = {0.5, -0.5, 1.25, -1.25};
};
template <>
struct Points<6> {
    static constexpr double at[] = {0, 0.625, -0.625, 1.5, -1.5};
};
template <>
struct Points<7> {
    static constexpr double at[] = {0.25, -0.25, 0.875, -0.875, 1.75, -1.75};
};
template <>
struct Points<8> {
    static constexpr double at[] = {0, 0.5, -0.5, 1, -1, 2, -2};
};

constexpr double power(double x, int exponent) {
    double result = 1;
    for (int i = 0; i < exponent; ++i) result *= x;
    return result;
}

// Row i: the coefficients of the product of (x - point) over all points but the i-th; the last row: over all.
template <int A>
constexpr Matrix<A, A> input_matrix() {
    Matrix<A, A> result{};
    for (int row = 0; row < A; ++row) {
        double* c = result.at[row];
        c[0] = 1;
        for (int i = 0; i < A - 1; ++i) {
            if (i == row) continue;
            for (int k = A - 1; k > 0; --k) c[k] = c[k - 1] - Points<A>::at[i] * c[k];
            c[0] *= -Points<A>::at[i];
        }
    }
    return result;
}

// Row i: the powers of the i-th point over the product of its distances to the others; the last row: infinity.
template <int M, int R>
constexpr Matrix<M + R - 1, R> filter_matrix() {
    constexpr int A = M + R - 1;
    Matrix<A, R> result{};
    for (int row = 0; row < A - 1; ++row) {
        const double point = Points<A>::at[row];
        double distances = 1;
        for (int i = 0; i < A - 1; ++i) distances *= i == row ? 1 : point - Points<A>::at[i];
        for (int k = 0; k < R; ++k) result.at[row][k] = power(point, k) / distances;
    }
    result.at[A - 1][R - 1] = 1;
    return result;
}

template <int M, int R>
constexpr Matrix<M, M + R - 1> output_matrix() {
    constexpr int A = M + R - 1;
    Matrix<M, A> result{};
    for (int row = 0; row < M; ++row)
        for (int i = 0; i < A - 1; ++i) result.at[row][i] = power(Points<A>::at[i], row);
    result.at[M - 1][A - 1] = 1;
    return result;
}

}  // namespace cook_toom

// The matrices as types, whose `value` the transforms (winograd_transform.h) are compiled for.
template <int A>
struct InputMatrix {
    static constexpr Matrix<A, A> value = cook_toom::input_matrix<A>();
};
template <int M, int R>
struct FilterMatrix {
    static constexpr Matrix<M + R - 1, R> value = cook_toom::filter_matrix<M, R>();
};
template <int M, int R>
struct OutputMatrix {
    static constexpr Matrix<M, M + R - 1> value = cook_toom::output_matrix<M, R>();
};

}  // namespace pycv::winograd
