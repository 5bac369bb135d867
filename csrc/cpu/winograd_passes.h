// The tile transforms of Winograd convolution (winograd_tile.h) as two passes of an axis' one-dimensional transforms.
//
// An Axis names the sizes of one-dimensional tiles and has, over vectors or anything with + - and scalar *,
//     input      kWindow pixels  -> kPlanes    (BT)        output    kPlanes -> kOutputs pixels  (AT)
//     filter     kTaps           -> kFilters   (G)
// and, where kGradients, those of the filter's gradient:
//     gradient   kOutputs pixels -> kPlanes                taps      kPlanes -> kTaps
//
// The input's first pass runs down the columns of a strip of neighbouring tiles, which share their overlapping columns,
// into a buffer that stays in the L1 cache. Where the image is far away its pixels take longer to come than to
// transform: each strip asks for the rows that the tiles below it will add, each output tile for the place of the tile
// after next.
#pragma once

#include "../common/winograd_transform.h"
#include "winograd_tile.h"

namespace pycv::cpu::PYCV_ISA {

using winograd::FilterMatrix;
using winograd::InputMatrix;
using winograd::multiply_points_in_columns;
using winograd::multiply_points_in_rows;
using winograd::OutputMatrix;

template <class T, class Axis>
struct Tile {
    static constexpr int A = Axis::kPlanes, R = Axis::kTaps, M = Axis::kOutputs, U = Axis::kFilters;
    static constexpr int W = Axis::kWindow, kStep = Axis::kStep;
    static constexpr int kStripBytes = 12 * 1024;
    static constexpr int kFitting = (kStripBytes / (A * PYCV_VECTOR_BYTES) - (W - kStep)) / kStep;
    static constexpr int kStripTiles = kFitting > 0 ? kFitting : 1;
    static constexpr int kStripPixels = kStripTiles * kStep + W - kStep;

    static void input(const T* from, int64_t row, int64_t pixel, int64_t tiles, T* to, int64_t plane) {
        for (; tiles > kStripTiles; tiles -= kStripTiles) {
            input_strip(from, row, pixel, kStripTiles, to, plane);
            from += kStripTiles * kStep * pixel;
            to += kStripTiles * lanes<T>;
        }
        input_strip(from, row, pixel, tiles, to, plane);
    }

    static void input_strip(const T* from, int64_t row, int64_t pixel, int64_t tiles, T* to, int64_t plane) {
        alignas(64) Vec<T> strip[kStripPixels * A];  // [pixel][transformed row]
        const int64_t pixels = tiles * kStep + W - kStep;
        for (int64_t x = 0; x < pixels; ++x) {
            Vec<T> column[W];
#pragma GCC unroll 9
            for (int i = 0; i < W; ++i) column[i] = load<T>(from + i * row + x * pixel);
#pragma GCC unroll 9
            for (int i = W; i < W + kStep; ++i) __builtin_prefetch(from + i * row + x * pixel, 0, 2);
            Axis::template input<T>(column, strip + x * A);
        }
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const Vec<T>* first = strip + tile * kStep * A;
            T* at = to + tile * lanes<T>;
            for (int i = 0; i < A; ++i, at += A * plane) {
                Vec<T> line[W], result[A];
#pragma GCC unroll 9
                for (int j = 0; j < W; ++j) line[j] = first[j * A + i];
                Axis::template input<T>(line, result);
#pragma GCC unroll 9
                for (int j = 0; j < A; ++j) store<T>(at + j * plane, result[j]);
            }
        }
    }

    static void output(const T* from, int64_t plane, int64_t step, int64_t tiles, const TileOutput<T>& to) {
        to.streamed ? write<true>(from, plane, step, tiles, to) : write<false>(from, plane, step, tiles, to);
    }

    template <bool Stream>
    static void write(const T* from, int64_t plane, int64_t step, int64_t tiles, const TileOutput<T>& output) {
        const Vec<T> bias = load<T>(output.bias), floor = broadcast<T>(output.floor);
        for (int64_t tile = 0; tile < tiles; ++tile) {
            Vec<T> columns[A][M];
            const T* at = from + tile * step;
#pragma GCC unroll 9
            for (int j = 0; j < A; ++j) {
                Vec<T> column[A];
#pragma GCC unroll 9
                for (int i = 0; i < A; ++i) column[i] = load<T>(at + (i * A + j) * plane);
                Axis::template output<T>(column, columns[j]);
            }
#pragma GCC unroll 9
            for (int i = 0; i < M; ++i) {
                Vec<T> line[A], result[M];
#pragma GCC unroll 9
                for (int j = 0; j < A; ++j) line[j] = columns[j][i];
                Axis::template output<T>(line, result);
                T* to = output.to + i * output.row + tile * M * output.pixel;
#pragma GCC unroll 9
                for (int j = 0; !Stream && j < M; ++j) __builtin_prefetch(to + (j + 2 * M) * output.pixel, 1);
                const T* residual = output.residual;
                if (residual) residual += i * output.residual_row + tile * M * output.residual_pixel;
#pragma GCC unroll 9
                for (int j = 0; j < M; ++j) {
                    Vec<T> v = result[j] + bias;
                    if (residual) v += load<T>(residual + j * output.residual_pixel);
                    v = v < floor ? floor : v;
                    Stream ? store_streaming<T>(to + j * output.pixel, v) : store<T>(to + j * output.pixel, v);
                }
            }
        }
    }

    static void filter(const T* from, int64_t tap, T* to, int64_t plane) {
        Vec<T> columns[R][U];
#pragma GCC unroll 5
        for (int j = 0; j < R; ++j) {
            Vec<T> column[R];
#pragma GCC unroll 5
            for (int i = 0; i < R; ++i) column[i] = load<T>(from + (i * R + j) * tap);
            Axis::template filter<T>(column, columns[j]);
        }
#pragma GCC unroll 9
        for (int i = 0; i < U; ++i) {
            Vec<T> line[R], result[U];
#pragma GCC unroll 5
            for (int j = 0; j < R; ++j) line[j] = columns[j][i];
            Axis::template filter<T>(line, result);
#pragma GCC unroll 9
            for (int j = 0; j < U; ++j) store<T>(to + (i * U + j) * plane, result[j]);
        }
    }

    static void gradient(const T* from, int64_t row, int64_t pixel, int64_t tiles, T* to, int64_t plane) {
        for (int64_t tile = 0; tile < tiles; ++tile, from += M * pixel, to += lanes<T>) {
            Vec<T> columns[M][A];
#pragma GCC unroll 9
            for (int j = 0; j < M; ++j) {
                Vec<T> column[M];
#pragma GCC unroll 9
                for (int i = 0; i < M; ++i) column[i] = load<T>(from + i * row + j * pixel);
                Axis::template gradient<T>(column, columns[j]);
            }
            T* at = to;
#pragma GCC unroll 9
            for (int i = 0; i < A; ++i, at += A * plane) {
                Vec<T> line[M], result[A];
#pragma GCC unroll 9
                for (int j = 0; j < M; ++j) line[j] = columns[j][i];
                Axis::template gradient<T>(line, result);
#pragma GCC unroll 9
                for (int j = 0; j < A; ++j) store<T>(at + j * plane, result[j]);
            }
        }
    }

    static void taps(const T* from, int64_t plane, T* to) {
        Vec<T> columns[A][R];
#pragma GCC unroll 9
        for (int j = 0; j < A; ++j) {
            Vec<T> column[A];
#pragma GCC unroll 9
            for (int i = 0; i < A; ++i) column[i] = load<T>(from + (i * A + j) * plane);
            Axis::template taps<T>(column, columns[j]);
        }
#pragma GCC unroll 5
        for (int i = 0; i < R; ++i) {
            Vec<T> line[A], result[R];
#pragma GCC unroll 9
            for (int j = 0; j < A; ++j) line[j] = columns[j][i];
            Axis::template taps<T>(line, result);
#pragma GCC unroll 5
            for (int j = 0; j < R; ++j) store<T>(to + (i * R + j) * lanes<T>, result[j]);
        }
    }

    static constexpr TileTransforms<T> table() {
        TileTransforms<T> result{M, kStep, W, R, A, U, input, output, nullptr, nullptr, filter};
        if constexpr (Axis::kGradients) {
            result.gradient = gradient;
            result.taps = taps;
        }
        return result;
    }
    static constexpr TileTransforms<T> kTable = table();
};

}  // namespace pycv::cpu::PYCV_ISA
