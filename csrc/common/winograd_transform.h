// Products of a constant matrix and a column of vectors, unrolled by the compiler: zeros cost nothing, ones an
// addition, and of two rows (or columns) that belong to points +p and -p the even and the odd part are computed once.
//
// A vector is anything with + - and scalar *; the matrices are the types of winograd_matrices.h. All of it is inlined
// into the kernels of whatever backend, so that no code is shared between instruction sets.
#pragma once

#include "winograd_matrices.h"

#if defined(__CUDACC__)
#define PYCV_INLINED __host__ __device__ __forceinline__
#else
#define PYCV_INLINED [[gnu::always_inline]] inline
#endif

namespace pycv::winograd {

namespace constant_matrix {

enum class Columns { all, even, odd };

constexpr bool belongs(int column, Columns which) {
    return which == Columns::all || (column % 2 == 0) == (which == Columns::even);
}

// The column to start a sum with: one with coefficient 1, which needs no multiplication, or the first that is not 0.
template <class M>
constexpr int first_column(int row, Columns which) {
    int first = -1;
    for (int i = 0; i < M::value.kColumns; ++i) {
        if (!belongs(i, which) || M::value.at[row][i] == 0) continue;
        if (M::value.at[row][i] == 1) return i;
        if (first < 0) first = i;
    }
    return first;
}

// The answers as variables: device code may use a constant of the host, not call its functions.
template <int Column, Columns Which>
inline constexpr bool kBelongs = belongs(Column, Which);
template <class M, int Row, Columns Which>
inline constexpr int kFirstColumn = first_column<M>(Row, Which);

template <class M, int Row, Columns Which, int Column, class V, class T>
PYCV_INLINED V add_terms(V sum, const V* in) {
    if constexpr (Column < M::value.kColumns) {
        constexpr double c = M::value.at[Row][Column];
        if constexpr (kBelongs<Column, Which> && c != 0 && Column != kFirstColumn<M, Row, Which>) {
            if constexpr (c == 1) {
                sum = sum + in[Column];
            } else if constexpr (c == -1) {
                sum = sum - in[Column];
            } else {
                sum = sum + in[Column] * T(c);
            }
        }
        return add_terms<M, Row, Which, Column + 1, V, T>(sum, in);
    } else {
        return sum;
    }
}

template <class M, int Row, Columns Which, class T, class V>
PYCV_INLINED V dot(const V* in) {
    constexpr int first = kFirstColumn<M, Row, Which>;
    static_assert(first >= 0);
    constexpr double c = M::value.at[Row][first];
    if constexpr (c == 1) {
        return add_terms<M, Row, Which, 0, V, T>(in[first], in);
    } else {
        return add_terms<M, Row, Which, 0, V, T>(in[first] * T(c), in);
    }
}

// 1 or -1 if row + 1 is that times the row with its odd columns negated, else 0.
template <class M>
constexpr int mirrored_row(int row) {
    if (row + 1 >= M::value.kRows) return 0;
    for (int sign = 1; sign >= -1; sign -= 2) {
        bool same = true;
        for (int i = 0; i < M::value.kColumns; ++i)
            same = same && M::value.at[row + 1][i] == (i % 2 == 0 ? sign : -sign) * M::value.at[row][i];
        if (same) return sign;
    }
    return 0;
}

template <class M, int Row>
inline constexpr int kMirroredRow = mirrored_row<M>(Row);

// Whether column + 1 is the column with its odd rows negated.
template <class M>
constexpr bool mirrored_column(int column) {
    if (column + 1 >= M::value.kColumns) return false;
    for (int i = 0; i < M::value.kRows; ++i)
        if (M::value.at[i][column + 1] != (i % 2 == 0 ? 1 : -1) * M::value.at[i][column]) return false;
    return true;
}

template <class M, int Column>
inline constexpr bool kMirroredColumn = mirrored_column<M>(Column);

// The matrix that acts on the sum and the difference of mirrored columns in their places.
template <class M>
constexpr auto folded() {
    auto result = M::value;
    for (int column = 0; column < M::value.kColumns; ++column) {
        if (!mirrored_column<M>(column)) continue;
        for (int i = 0; i < M::value.kRows; ++i) result.at[i][column + (i % 2 == 0 ? 1 : 0)] = 0;
        for (int i = 1; i < M::value.kRows; i += 2) result.at[i][column + 1] = M::value.at[i][column];
        ++column;
    }
    return result;
}
template <class M>
struct Folded {
    static constexpr auto value = folded<M>();
};

template <class M, int Row, class T, class V>
PYCV_INLINED void rows_from(const V* in, V* out) {
    if constexpr (Row < M::value.kRows) {
        constexpr int sign = kMirroredRow<M, Row>;
        if constexpr (sign == 0) {
            out[Row] = dot<M, Row, Columns::all, T>(in);
            rows_from<M, Row + 1, T>(in, out);
        } else {
            const V even = dot<M, Row, Columns::even, T>(in), odd = dot<M, Row, Columns::odd, T>(in);
            out[Row] = even + odd;
            out[Row + 1] = sign > 0 ? even - odd : odd - even;
            rows_from<M, Row + 2, T>(in, out);
        }
    }
}

template <class M, int Column, class V>
PYCV_INLINED void fold(V* in) {
    if constexpr (Column < M::value.kColumns) {
        if constexpr (kMirroredColumn<M, Column>) {
            const V sum = in[Column] + in[Column + 1], difference = in[Column] - in[Column + 1];
            in[Column] = sum;
            in[Column + 1] = difference;
            fold<M, Column + 2>(in);
        } else {
            fold<M, Column + 1>(in);
        }
    }
}

template <class M, int Row, class T, class V>
PYCV_INLINED void plain_rows_from(const V* in, V* out) {
    if constexpr (Row < M::value.kRows) {
        out[Row] = dot<M, Row, Columns::all, T>(in);
        plain_rows_from<M, Row + 1, T>(in, out);
    }
}

}  // namespace constant_matrix

// out = M in, for matrices whose mirrored points are rows (BT, G).
template <class M, class T, class V>
PYCV_INLINED void multiply_points_in_rows(const V* in, V* out) {
    constant_matrix::rows_from<M, 0, T>(in, out);
}

// out = M in, for matrices whose mirrored points are columns (AT). Overwrites `in`.
template <class M, class T, class V>
PYCV_INLINED void multiply_points_in_columns(V* in, V* out) {
    constant_matrix::fold<M, 0>(in);
    constant_matrix::plain_rows_from<constant_matrix::Folded<M>, 0, T>(in, out);
}

}  // namespace pycv::winograd
