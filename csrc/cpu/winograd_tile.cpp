// The tile transforms of Winograd convolution (winograd_tile.h): F(2), F(4), F(6) of 3 x 3 and F(2), F(3), F(4) of
// 5 x 5 filters.
//
// Each is two passes of one-dimensional transforms. The input's first pass runs down the columns of a strip of
// neighbouring tiles, which share their A - M overlapping columns, into a buffer that stays in the L1 cache.
#include "winograd_tile.h"

#include "../common/winograd_transform.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

using winograd::FilterMatrix;
using winograd::InputMatrix;
using winograd::multiply_points_in_columns;
using winograd::multiply_points_in_rows;
using winograd::OutputMatrix;

template <class T, int M, int R>
struct Tile {
    static constexpr int A = M + R - 1;
    static constexpr int kStripBytes = 12 * 1024;
    static constexpr int kFitting = (kStripBytes / (A * PYCV_VECTOR_BYTES) - (R - 1)) / M;
    static constexpr int kStripTiles = kFitting > 0 ? kFitting : 1;
    static constexpr int kStripPixels = kStripTiles * M + R - 1;

    static void input(const T* from, int64_t row, int64_t pixel, int64_t tiles, T* to, int64_t plane) {
        for (; tiles > kStripTiles; tiles -= kStripTiles) {
            input_strip(from, row, pixel, kStripTiles, to, plane);
            from += kStripTiles * M * pixel;
            to += kStripTiles * lanes<T>;
        }
        input_strip(from, row, pixel, tiles, to, plane);
    }

    static void input_strip(const T* from, int64_t row, int64_t pixel, int64_t tiles, T* to, int64_t plane) {
        alignas(64) Vec<T> strip[kStripPixels * A];  // [pixel][transformed row]
        const int64_t pixels = tiles * M + R - 1;
        for (int64_t x = 0; x < pixels; ++x) {
            Vec<T> column[A];
#pragma GCC unroll 8
            for (int i = 0; i < A; ++i) column[i] = load<T>(from + i * row + x * pixel);
            multiply_points_in_rows<InputMatrix<A>, T>(column, strip + x * A);
        }
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const Vec<T>* first = strip + tile * M * A;
            T* at = to + tile * lanes<T>;
            for (int i = 0; i < A; ++i, at += A * plane) {
                Vec<T> line[A], result[A];
#pragma GCC unroll 8
                for (int j = 0; j < A; ++j) line[j] = first[j * A + i];
                multiply_points_in_rows<InputMatrix<A>, T>(line, result);
#pragma GCC unroll 8
                for (int j = 0; j < A; ++j) store<T>(at + j * plane, result[j]);
            }
        }
    }

    static void output(const T* from, int64_t plane, int64_t step, int64_t tiles, const TileOutput<T>& output) {
        const Vec<T> bias = load<T>(output.bias), floor = broadcast<T>(output.floor);
        for (int64_t tile = 0; tile < tiles; ++tile) {
            Vec<T> columns[A][M];
            const T* at = from + tile * step;
#pragma GCC unroll 8
            for (int j = 0; j < A; ++j) {
                Vec<T> column[A];
#pragma GCC unroll 8
                for (int i = 0; i < A; ++i) column[i] = load<T>(at + (i * A + j) * plane);
                multiply_points_in_columns<OutputMatrix<M, R>, T>(column, columns[j]);
            }
#pragma GCC unroll 8
            for (int i = 0; i < M; ++i) {
                Vec<T> line[A], result[M];
#pragma GCC unroll 8
                for (int j = 0; j < A; ++j) line[j] = columns[j][i];
                multiply_points_in_columns<OutputMatrix<M, R>, T>(line, result);
                T* to = output.to + i * output.row + tile * M * output.pixel;
                const T* residual = output.residual;
                if (residual) residual += i * output.residual_row + tile * M * output.residual_pixel;
#pragma GCC unroll 8
                for (int j = 0; j < M; ++j) {
                    Vec<T> v = result[j] + bias;
                    if (residual) v += load<T>(residual + j * output.residual_pixel);
                    store<T>(to + j * output.pixel, v < floor ? floor : v);
                }
            }
        }
    }

    static void filter(const T* from, int64_t tap, T* to, int64_t plane) {
        Vec<T> columns[R][A];
#pragma GCC unroll 5
        for (int j = 0; j < R; ++j) {
            Vec<T> column[R];
#pragma GCC unroll 5
            for (int i = 0; i < R; ++i) column[i] = load<T>(from + (i * R + j) * tap);
            multiply_points_in_rows<FilterMatrix<M, R>, T>(column, columns[j]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < A; ++i) {
            Vec<T> line[R], result[A];
#pragma GCC unroll 5
            for (int j = 0; j < R; ++j) line[j] = columns[j][i];
            multiply_points_in_rows<FilterMatrix<M, R>, T>(line, result);
#pragma GCC unroll 8
            for (int j = 0; j < A; ++j) store<T>(to + (i * A + j) * plane, result[j]);
        }
    }

    static void gradient(const T* from, int64_t row, int64_t pixel, int64_t tiles, T* to, int64_t plane) {
        for (int64_t tile = 0; tile < tiles; ++tile, from += M * pixel, to += lanes<T>) {
            Vec<T> columns[M][A];
#pragma GCC unroll 8
            for (int j = 0; j < M; ++j) {
                Vec<T> column[M];
#pragma GCC unroll 8
                for (int i = 0; i < M; ++i) column[i] = load<T>(from + i * row + j * pixel);
                multiply_points_in_rows<FilterMatrix<R, M>, T>(column, columns[j]);
            }
            T* at = to;
#pragma GCC unroll 8
            for (int i = 0; i < A; ++i, at += A * plane) {
                Vec<T> line[M], result[A];
#pragma GCC unroll 8
                for (int j = 0; j < M; ++j) line[j] = columns[j][i];
                multiply_points_in_rows<FilterMatrix<R, M>, T>(line, result);
#pragma GCC unroll 8
                for (int j = 0; j < A; ++j) store<T>(at + j * plane, result[j]);
            }
        }
    }

    static void taps(const T* from, int64_t plane, T* to) {
        Vec<T> columns[A][R];
#pragma GCC unroll 8
        for (int j = 0; j < A; ++j) {
            Vec<T> column[A];
#pragma GCC unroll 8
            for (int i = 0; i < A; ++i) column[i] = load<T>(from + (i * A + j) * plane);
            multiply_points_in_columns<OutputMatrix<R, M>, T>(column, columns[j]);
        }
#pragma GCC unroll 5
        for (int i = 0; i < R; ++i) {
            Vec<T> line[A], result[R];
#pragma GCC unroll 8
            for (int j = 0; j < A; ++j) line[j] = columns[j][i];
            multiply_points_in_columns<OutputMatrix<R, M>, T>(line, result);
#pragma GCC unroll 5
            for (int j = 0; j < R; ++j) store<T>(to + (i * R + j) * lanes<T>, result[j]);
        }
    }

    static constexpr TileTransforms<T> kTable{M, R, A, input, output, gradient, taps, filter};
};

}  // namespace

template <class T>
const TileTransforms<T>* tile_transforms(int64_t m, int64_t r) {
    static constexpr const TileTransforms<T>* kAll[] = {&Tile<T, 2, 3>::kTable, &Tile<T, 4, 3>::kTable,
                                                        &Tile<T, 6, 3>::kTable, &Tile<T, 2, 5>::kTable,
                                                        &Tile<T, 3, 5>::kTable, &Tile<T, 4, 5>::kTable};
    for (const TileTransforms<T>* tile : kAll)
        if (tile->m == m && tile->r == r) return tile;
    return nullptr;
}

template const TileTransforms<float>* tile_transforms<float>(int64_t, int64_t);
template const TileTransforms<double>* tile_transforms<double>(int64_t, int64_t);

}  // namespace pycv::cpu::PYCV_ISA
