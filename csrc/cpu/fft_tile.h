// Real two-dimensional Fourier transforms of tiles, one channel per vector lane: loading a tile from a tensor of any
// layout, the transform, its inverse, and storing what is wanted of the result.
//
// Real rows are transformed in pairs, as real and imaginary part of one complex line; the spectra of the two are then
// told apart by their symmetry, conj(X[f]) = X[-f]. Of each row width / 2 + 1 frequencies are kept, and those columns
// are transformed as complex lines. Rows that are known to be zero cost nothing in the row pass, rows that nobody asks
// for nothing in the inverse. Frequency (y, x) is element x * height + y of a spectrum; y is in the order of Fft.
//
// The scale is left out: inverse(forward(a) * forward(b)) is 4 * height * width times the cyclic convolution.
#pragma once

#include "fft.h"
#include "parallel.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// Element i of an axis in memory is at position first + i * step of the tile.
struct Run {
    int64_t first, step, count;

    int64_t position(int64_t i) const { return first + i * step; }
    bool covers(int64_t position) const {
        const int64_t i = (position - first) / step;
        return (position - first) % step == 0 && i >= 0 && i < count;
    }
};

// A rectangle of a tensor for up to lanes<T> channels: where lane l of element (0, 0) lies (T may be const).
template <class T>
struct Patch {
    T* data;
    int64_t lane, row, pixel;  // strides
    int64_t count;             // of lanes
};

// The real elements of `pixels` into their positions of a line; `to` is its real or imaginary part, elements `step`
// apart.
template <class T>
void load_row(const Patch<const T>& patch, const T* row, Run pixels, T* to, int64_t step, int64_t width) {
    const int64_t low = smaller(pixels.first, pixels.position(pixels.count - 1));
    const bool dense = pixels.step == 1 || pixels.step == -1;
    for (int64_t i = 0; i < width; ++i)
        if (!dense || i < low || i >= low + pixels.count) store<T>(to + i * step, Vec<T>{});
    to += pixels.first * step;
    step *= pixels.step;
    int64_t i = 0;
    if (patch.lane == 1) {
        if (patch.count == lanes<T>) {
            for (; i < pixels.count; ++i) store<T>(to + i * step, load<T>(row + i * patch.pixel));
        } else {
            for (; i < pixels.count; ++i) store<T>(to + i * step, load_partial<T>(row + i * patch.pixel, patch.count));
        }
        return;
    }
    alignas(64) T block[lanes<T>][lanes<T>];
    if (patch.pixel == 1) {
        if (patch.count == lanes<T>)
            for (; i + lanes<T> <= pixels.count; i += lanes<T>)
                transpose_block<T>(row + i, patch.lane, to + i * step, step);
        if (i == pixels.count) return;
    }
    for (int64_t l = patch.count; l < lanes<T>; ++l) store<T>(block[l], Vec<T>{});
    for (; i < pixels.count; i += lanes<T>) {
        const int64_t some = smaller(lanes<T>, pixels.count - i);
        for (int64_t l = 0; l < patch.count; ++l)
            copy_strided<T>(block[l], row + i * patch.pixel + l * patch.lane, some, patch.pixel);
        Vec<T> v[lanes<T>];
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) v[l] = load<T>(block[l]);
        shuffles::transpose_step<T, 1>(v);
        alignas(64) T turned[lanes<T>][lanes<T>];
#pragma GCC unroll 16
        for (int q = 0; q < lanes<T>; ++q) store<T>(turned[q], v[q]);
        for (int64_t q = 0; q < some; ++q) store<T>(to + (i + q) * step, load<T>(turned[q]));
    }
}

// What happens to a result on its way to memory.
template <class T>
struct Finish {
    T scale;
    Vec<T> bias;
    Patch<const T> residual;  // data null where there is none
    bool relu;

    // An infinity becomes NaN first: its sign means nothing after the transform, and relu must not hide it.
    Vec<T> channels(Vec<T> v) const {
        v = v * scale;
        if (relu) v += v * T(0);
        return v + bias;
    }
};

// The real elements at the positions `pixels` of a line to memory.
template <class T>
void store_row(const Finish<T>& finish, const Patch<T>& patch, T* row, const T* residual, Run pixels, const T* from,
               int64_t step) {
    from += pixels.first * step;
    step *= pixels.step;
    const Patch<const T>& other = finish.residual;
    const bool channels_inside = patch.lane == 1 && (!residual || other.lane == 1) && patch.count == lanes<T>;
    const bool pixels_inside = patch.pixel == 1 && (!residual || other.pixel == 1);
    for (int64_t i = 0; i < pixels.count; i += lanes<T>) {
        const int64_t some = smaller(lanes<T>, pixels.count - i);
        if (channels_inside) {
            for (int64_t q = i; q < i + some; ++q) {
                Vec<T> v = finish.channels(load<T>(from + q * step));
                if (residual) v += load<T>(residual + q * other.pixel);
                store<T>(row + q * patch.pixel, finish.relu ? relu<T>(v) : v);
            }
            continue;
        }
        alignas(64) T block[lanes<T>][lanes<T>];
        if (pixels_inside && some == lanes<T>) {
            Vec<T> v[lanes<T>];
#pragma GCC unroll 16
            for (int q = 0; q < lanes<T>; ++q) v[q] = finish.channels(load<T>(from + (i + q) * step));
            shuffles::transpose_step<T, 1>(v);
#pragma GCC unroll 16
            for (int l = 0; l < lanes<T>; ++l) store<T>(block[l], v[l]);
            for (int64_t l = 0; l < patch.count; ++l) {
                Vec<T> w = load<T>(block[l]);
                if (residual) w += load<T>(residual + l * other.lane + i);
                store<T>(row + l * patch.lane + i, finish.relu ? relu<T>(w) : w);
            }
            continue;
        }
        for (int64_t q = 0; q < some; ++q) store<T>(block[q], finish.channels(load<T>(from + (i + q) * step)));
        for (int64_t l = 0; l < patch.count; ++l)
            for (int64_t q = 0; q < some; ++q) {
                T v = block[q][l];
                if (residual) v += residual[l * other.lane + (i + q) * other.pixel];
                row[l * patch.lane + (i + q) * patch.pixel] = finish.relu ? relu<T>(v) : v;
            }
    }
}

// The transforms of tiles of one size; `width` is even.
template <class T>
class TileFft {
public:
    TileFft(int64_t height, int64_t width) : columns_(height), rows_(width) {}

    int64_t height() const { return columns_.size(); }
    int64_t width() const { return rows_.size(); }
    int64_t half() const { return width() / 2 + 1; }
    int stages() const { return columns_.stages() + rows_.stages(); }
    int64_t frequencies() const { return height() * half(); }
    // Of the scratch that a transform needs.
    int64_t scratch_elements() const { return (frequencies() + larger(height(), width())) * kElement; }

    // The spectrum of a tile that is zero where `rows` and `pixels` put nothing. Spectrum element f is at f of `to`.
    void forward(const Patch<const T>& patch, Run rows, Run pixels, Line<T> to, T* scratch) const {
        const Line<T> line = complex_line(scratch + frequencies() * kElement);
        if (pixels.count <= 0) rows.count = 0;
        for (int64_t r = 0; r < height(); ++r)
            if (!rows.covers(r)) zero_run(spectrum_row(scratch, r).data, half() * kElement);
        for (int64_t i = 0; i < rows.count; i += 2) {
            const bool pair = i + 1 < rows.count;
            const T* row = patch.data + i * patch.row;
            load_row<T>(patch, row, pixels, line.data, kElement, width());
            if (pair) {
                load_row<T>(patch, row + patch.row, pixels, line.data + line.im, kElement, width());
            } else {
                for (int64_t j = 0; j < width(); ++j) store<T>(line.data + line.im + j * kElement, Vec<T>{});
            }
            rows_.forward(line, line, line);
            const Line<T> first = spectrum_row(scratch, rows.position(i));
            split(line, first, pair ? spectrum_row(scratch, rows.position(i + 1)) : first, pair);
        }
        for (int64_t x = 0; x < half(); ++x)
            columns_.forward(spectrum_column(scratch, x), {to.data + x * height() * to.step, to.step, to.im}, line);
    }

    // The inverse of the spectrum `from`: stores the tile's elements at `rows` and `pixels`.
    void inverse(Line<T> from, const Finish<T>& finish, const Patch<T>& patch, Run rows, Run pixels, T* scratch) const {
        const Line<T> line = complex_line(scratch + frequencies() * kElement);
        for (int64_t x = 0; x < half(); ++x)
            columns_.inverse({from.data + x * height() * from.step, from.step, from.im}, spectrum_column(scratch, x),
                             line);
        const T* residual = finish.residual.data;
        for (int64_t i = 0; i < rows.count; i += 2) {
            const int64_t last = smaller(i + 1, rows.count - 1);
            join(spectrum_row(scratch, rows.position(i)), spectrum_row(scratch, rows.position(last)), line);
            rows_.inverse(line, line, line);
            for (int64_t r = i; r <= last; ++r)
                store_row<T>(finish, patch, patch.data + r * patch.row,
                             residual ? residual + r * finish.residual.row : nullptr, pixels,
                             line.data + (r - i) * line.im, kElement);
        }
    }

private:
    static constexpr int64_t kElement = 2 * lanes<T>;

    static Line<T> complex_line(T* data) { return {data, kElement, lanes<T>}; }
    Line<T> spectrum_row(T* spectrum, int64_t row) const { return complex_line(spectrum + row * half() * kElement); }
    Line<T> spectrum_column(T* spectrum, int64_t x) const {
        return {spectrum + x * kElement, half() * kElement, lanes<T>};
    }

    // Twice the spectra of the two real lines that make up a complex one: Z[f] +- conj(Z[-f]).
    void split(Line<T> line, Line<T> first, Line<T> second, bool pair) const {
        for (int64_t f = 0; f < half(); ++f) {
            const Complex<T> a = line.get(rows_.place(f)), b = line.get(rows_.place(f > 0 ? width() - f : 0));
            first.set(f, {a.re + b.re, a.im - b.im});
            if (pair) second.set(f, {a.im + b.im, b.re - a.re});
        }
    }

    // The spectrum of first + i * second, both real.
    void join(Line<T> first, Line<T> second, Line<T> line) const {
        for (int64_t f = 0; f < half(); ++f) {
            const Complex<T> a = first.get(f), b = second.get(f);
            line.set(rows_.place(f > 0 ? width() - f : 0), {a.re + b.im, b.re - a.im});
            line.set(rows_.place(f), {a.re - b.im, a.im + b.re});
        }
    }

    Fft<T> columns_, rows_;
};

}  // namespace pycv::cpu::PYCV_ISA
