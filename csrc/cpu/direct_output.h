// From the sums of a block of positions, [row][column][kTileWidth channels], to the computed tensor: epilogue and
// layout. Channels that are contiguous in the tensor are stored as they are, positions that are go through a
// transposition in registers, anything else element by element.
#pragma once

#include "direct_microkernel.h"
#include "integers.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// Where the elements of a block lie: strides between channels, rows and columns.
template <class E>
struct BlockView {
    E* data;  // the first channel at the first position
    int64_t channel, row, column;
};

template <class T>
struct OutputBlock {
    int64_t rows, columns, pitch;  // pitch: positions from row to row in the sums
    int64_t channels;              // that exist, of kTileWidth
    int64_t zeros;                 // channels behind them to fill a block of the layout with 0
    BlockView<T> out;
    BlockView<const T> residual;  // data null if there is none
    const T* bias;                // of the first channel, or null
    bool relu;
    bool streams;  // vectors of positions past the caches

    // The sums may be changed, and up to lanes<T> - 1 positions behind the last one are read.
    void write(T* sums) const {
        if (residual.data) add_residual(sums);
        if (out.channel == 1 && (out.column != 1 || channels > 1)) return write_channels(sums);
        if (out.column != 1) return write_elements(sums);
        const bool whole = out.row == columns && pitch == columns;
        for (int64_t row = 0; row < (whole ? 1 : rows); ++row)
            write_positions(sums + row * pitch * kTileWidth<T>, out.data + row * out.row,
                            whole ? rows * columns : columns);
    }

private:
    void add_residual(T* sums) const {
        for (int64_t y = 0; y < rows; ++y)
            for (int64_t x = 0; x < columns; ++x) {
                T* at = sums + (y * pitch + x) * kTileWidth<T>;
                const T* from = residual.data + y * residual.row + x * residual.column;
                int64_t c = 0;
                if (residual.channel == 1)
                    for (; c + lanes<T> <= channels; c += lanes<T>)
                        store<T>(at + c, load<T>(at + c) + load<T>(from + c));
                for (; c < channels; ++c) at[c] += from[c * residual.channel];
            }
    }

    Vec<T> finished(Vec<T> v, Vec<T> add) const {
        v += add;
        return relu ? PYCV_ISA::relu<T>(v) : v;
    }

    // -0 is what adding no bias must add.
    T bias_of(int64_t c) const { return bias ? bias[c] : T(-0.0); }

    void write_channels(const T* sums) const {
        for (int64_t first = 0; first < channels + zeros; first += lanes<T>) {
            const int64_t count = larger(0, smaller(lanes<T>, channels - first));
            const int64_t stored = smaller(lanes<T>, channels + zeros - first);
            Vec<T> add{};
            for (int64_t i = 0; i < count; ++i) add[i] = bias_of(first + i);
            for (int64_t y = 0; y < rows; ++y) {
                const T* from = sums + y * pitch * kTileWidth<T> + first;
                T* to = out.data + y * out.row + first;
                for (int64_t x = 0; x < columns; ++x, from += kTileWidth<T>, to += out.column) {
                    if (count == lanes<T>) {
                        store<T>(to, finished(load<T>(from), add));
                    } else {
                        write_part(from, add, count, stored, to);
                    }
                }
            }
        }
    }

    // `count` channels and zeros up to `stored`.
    void write_part(const T* from, Vec<T> add, int64_t count, int64_t stored, T* to) const {
        alignas(64) T part[lanes<T>] = {};
        if (count > 0) store<T>(part, finished(load<T>(from), add));
        for (int64_t i = count; i < stored; ++i) part[i] = T(0);
        copy_run<T>(to, part, stored);
    }

    void write_positions(const T* sums, T* to, int64_t count) const {
        const bool streamed = streams && is_streamable<T>(to, out.channel);
        streamed ? write_positions<true>(sums, to, count) : write_positions<false>(sums, to, count);
    }

    template <bool Stream>
    void write_positions(const T* sums, T* to, int64_t count) const {
        for (int64_t first = 0; first < channels; first += lanes<T>) {
            const int64_t used = smaller(lanes<T>, channels - first);
            for (int64_t i = 0; i < count; i += lanes<T>) {
                Vec<T> v[lanes<T>];
#pragma GCC unroll 16
                for (int j = 0; j < lanes<T>; ++j) v[j] = load<T>(sums + (i + j) * kTileWidth<T> + first);
                shuffles::transpose_step<T, 1>(v);
                const int64_t valid = smaller(lanes<T>, count - i);
                if (used == lanes<T> && valid == lanes<T>) {
#pragma GCC unroll 16
                    for (int j = 0; j < lanes<T>; ++j) {
                        const Vec<T> y = finished(v[j], broadcast<T>(bias_of(first + j)));
                        T* const at = to + (first + j) * out.channel + i;
                        Stream ? store_streaming<T>(at, y) : store<T>(at, y);
                    }
                    continue;
                }
                for (int64_t j = 0; j < used; ++j) {
                    alignas(64) T part[lanes<T>];
                    store<T>(part, finished(v[j], broadcast<T>(bias_of(first + j))));
                    copy_run<T>(to + (first + j) * out.channel + i, part, valid);
                }
            }
        }
    }

    void write_elements(const T* sums) const {
        for (int64_t y = 0; y < rows; ++y)
            for (int64_t x = 0; x < columns; ++x)
                for (int64_t c = 0; c < channels; ++c) {
                    const T v = sums[(y * pitch + x) * kTileWidth<T> + c] + bias_of(c);
                    out.data[y * out.row + x * out.column + c * out.channel] = relu ? PYCV_ISA::relu<T>(v) : v;
                }
    }
};

}  // namespace pycv::cpu::PYCV_ISA
