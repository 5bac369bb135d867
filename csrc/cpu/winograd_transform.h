// Products of a constant matrix and a column of vectors, unrolled by the compiler: zeros cost nothing, ones an
// addition, and of two rows (or columns) that belong to points +p and -p the even and the odd part are computed once.
//
// A vector is anything with + - and scalar *; the matrices are those of winograd_matrices.h.
#pragma once

#include "winograd_matrices.h"

namespace pycv::cpu::PYCV_ISA {

namespace constant_matrix {

enum class Columns { all, even, odd };

constexpr bool belongs(int column, Columns which) {
    return which == Columns::all || (column % 2 == 0) == (which == Columns::even);
}

// The column to start a sum with: one with coefficient 1, which needs no multiplication, or the first that is not 0.
template <const auto& M>
constexpr int first_column(int row, Columns which) {
    int first = -1;
    for (int i = 0; i < M.kColumns; ++i) {
        if (!belongs(i, which) || M.at[row][i] == 0) continue;
        if (M.at[row][i] == 1) return i;
        if (first < 0) first = i;
    }
    return first;
}

template <const auto& M, int Row, Columns Which, int Column, class V, class T>
[[gnu::always_inline]] inline V add_terms(V sum, const V* in) {
    if constexpr (Column < M.kColumns) {
        constexpr double c = M.at[Row][Column];
        if constexpr (belongs(Column, Which) && c != 0 && Column != first_column<M>(Row, Which)) {
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

template <const auto& M, int Row, Columns Which, class T, class V>
[[gnu::always_inline]] inline V dot(const V* in) {
    constexpr int first = first_column<M>(Row, Which);
    static_assert(first >= 0);
    constexpr double c = M.at[Row][first];
    if constexpr (c == 1) {
        return add_terms<M, Row, Which, 0, V, T>(in[first], in);
    } else {
        return add_terms<M, Row, Which, 0, V, T>(in[first] * T(c), in);
    }
}

// 1 or -1 if row + 1 is that times the row with its odd columns negated, else 0.
template <const auto& M>
constexpr int mirrored_row(int row) {
    if (row + 1 >= M.kRows) return 0;
    for (int sign = 1; sign >= -1; sign -= 2) {
        bool same = true;
        for (int i = 0; i < M.kColumns; ++i)
            same = same && M.at[row + 1][i] == (i % 2 == 0 ? sign : -sign) * M.at[row][i];
        if (same) return sign;
    }
    return 0;
}

// Whether column + 1 is the column with its odd rows negated.
template <const auto& M>
constexpr bool mirrored_column(int column) {
    if (column + 1 >= M.kColumns) return false;
    for (int i = 0; i < M.kRows; ++i)
        if (M.at[i][column + 1] != (i % 2 == 0 ? 1 : -1) * M.at[i][column]) return false;
    return true;
}

// The matrix that acts on the sum and the difference of mirrored columns in their places.
template <const auto& M>
constexpr auto folded() {
    auto result = M;
    for (int column = 0; column < M.kColumns; ++column) {
        if (!mirrored_column<M>(column)) continue;
        for (int i = 0; i < M.kRows; ++i) result.at[i][column + (i % 2 == 0 ? 1 : 0)] = 0;
        for (int i = 1; i < M.kRows; i += 2) result.at[i][column + 1] = M.at[i][column];
        ++column;
    }
    return result;
}
template <const auto& M>
inline constexpr auto kFolded = folded<M>();

template <const auto& M, int Row, class T, class V>
[[gnu::always_inline]] inline void rows_from(const V* in, V* out) {
    if constexpr (Row < M.kRows) {
        constexpr int sign = mirrored_row<M>(Row);
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

template <const auto& M, int Column, class V>
[[gnu::always_inline]] inline void fold(V* in) {
    if constexpr (Column < M.kColumns) {
        if constexpr (mirrored_column<M>(Column)) {
            const V sum = in[Column] + in[Column + 1], difference = in[Column] - in[Column + 1];
            in[Column] = sum;
            in[Column + 1] = difference;
            fold<M, Column + 2>(in);
        } else {
            fold<M, Column + 1>(in);
        }
    }
}

template <const auto& M, int Row, class T, class V>
[[gnu::always_inline]] inline void plain_rows_from(const V* in, V* out) {
    if constexpr (Row < M.kRows) {
        out[Row] = dot<M, Row, Columns::all, T>(in);
        plain_rows_from<M, Row + 1, T>(in, out);
    }
}

}  // namespace constant_matrix

// out = M in, for matrices whose mirrored points are rows (BT, G).
template <const auto& M, class T, class V>
[[gnu::always_inline]] inline void multiply_points_in_rows(const V* in, V* out) {
    constant_matrix::rows_from<M, 0, T>(in, out);
}

// out = M in, for matrices whose mirrored points are columns (AT). Overwrites `in`.
template <const auto& M, class T, class V>
[[gnu::always_inline]] inline void multiply_points_in_columns(V* in, V* out) {
    constant_matrix::fold<M, 0>(in);
    constant_matrix::plain_rows_from<constant_matrix::kFolded<M>, 0, T>(in, out);
}

}  // namespace pycv::cpu::PYCV_ISA
