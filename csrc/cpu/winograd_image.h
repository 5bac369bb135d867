// Images in and out of Winograd's tiles, a vector of channels per pixel.
//
// A Rectangle is some rows of some tiles of one image. Its patch is what the tiles read, or write, as [row][pixel] of
// vectors of `lanes` channels: pixels outside of the image are 0, channels beyond the last are 0. How a patch is
// moved depends on how the tensor lies:
//     pixels   channels of a pixel side by side (nhwc, and blocked layouts): one vector move per pixel
//     planes   pixels of a row side by side (nchw): lanes x lanes transpositions of runs of pixels, which are whole
//              groups of rows where nothing lies between those
#pragma once

#include "../common/problem.h"
#include "integers.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

enum class Access { pixels, planes };

inline Access access_of(const Strides& s, int64_t channels) {
    if (s.block > 1) return Access::pixels;
    return s.c == 1 && (s.w != 1 || channels > 1) ? Access::pixels : Access::planes;
}

// `rows` x `columns` tiles of image n, the first of which is tile (row, column).
struct Rectangle {
    int64_t n, row, column, rows, columns;
};

// Pixels [top, bottom) x [left, right), and what is left of them within an image.
struct Box {
    int64_t top, bottom, left, right;

    Box within(int64_t height, int64_t width) const {
        const int64_t first_row = smaller(larger(top, 0), height), first_column = smaller(larger(left, 0), width);
        return {first_row, larger(first_row, smaller(bottom, height)), first_column,
                larger(first_column, smaller(right, width))};
    }
    int64_t rows() const { return bottom - top; }
    int64_t columns() const { return right - left; }
    bool empty() const { return rows() <= 0 || columns() <= 0; }
    bool operator==(const Box&) const = default;
};

// A tensor (n, c, h, w) of one group.
template <class T>
struct Image {
    T* data;
    Strides strides;
    int64_t channels, height, width;

    T* at(int64_t n, int64_t channel, int64_t y, int64_t x) const {
        return data + n * strides.n + strides.channel(channel) + y * strides.h + x * strides.w;
    }
};

// Moves `count` channels of a pixel from or to a vector; channels lie in blocks of at least one, at most `lanes`.
template <class T>
inline void copy_channels(T* to, int64_t to_piece, const T* from, int64_t from_piece, int64_t piece, int64_t count) {
    for (; count > 0; count -= piece, to += to_piece, from += from_piece)
        copy_run<T>(to, from, smaller(piece, count));
}

template <class T>
inline Vec<T> at_least(Vec<T> v, Vec<T> floor) {  // NaN stays NaN
    return v < floor ? floor : v;
}

// Walks through the pixels of a box row by row within a patch.
template <class T>
struct PatchCursor {
    T* at;
    int64_t column, columns, row_skip;  // row_skip: from the end of one row of the box to the next

    PatchCursor(T* first, int64_t index, int64_t box_columns, int64_t pitch)
        : at(first + (index / box_columns * pitch + index % box_columns) * lanes<T>),
          column(index % box_columns),
          columns(box_columns),
          row_skip((pitch - box_columns) * lanes<T>) {}
    T* next() {
        T* const here = at;
        at += lanes<T>;
        if (++column == columns) {
            column = 0;
            at += row_skip;
        }
        return here;
    }
};

// ------------------------------------------------------------------------------------------------- reading

// A patch's frame: the pixels of `all` that are not of `inside`.
template <class T>
void zero_frame(T* patch, const Box& all, const Box& inside) {
    const int64_t pitch = all.columns();
    const auto clear = [&](int64_t y, int64_t begin, int64_t end) {
        for (int64_t x = begin; x < end; ++x)
            store<T>(patch + ((y - all.top) * pitch + (x - all.left)) * lanes<T>, Vec<T>{});
    };
    for (int64_t y = all.top; y < all.bottom; ++y) {
        if (inside.empty() || y < inside.top || y >= inside.bottom) {
            clear(y, all.left, all.right);
        } else {
            clear(y, all.left, inside.left);
            clear(y, inside.right, all.right);
        }
    }
}

// lanes pixels of `count` channels from planes into a patch, through a transposition.
template <class T>
inline void read_planes(const T* from, int64_t channel, int64_t count, int64_t pixels, PatchCursor<T> to) {
    Vec<T> v[lanes<T>];
    if (count == lanes<T> && pixels == lanes<T>) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i) v[i] = load<T>(from + i * channel);
    } else {
        for (int i = 0; i < lanes<T>; ++i) {
            v[i] = Vec<T>{};
            if (i < count) v[i] = pixels == lanes<T> ? load<T>(from + i * channel) : load_partial<T>(from + i * channel, pixels);
        }
    }
    shuffles::transpose_step<T, 1>(v);
    if (pixels == lanes<T>) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i) store<T>(to.next(), v[i]);
    } else {
        for (int64_t i = 0; i < pixels; ++i) store<T>(to.next(), v[i]);
    }
}

// Pixels [0, length) of planes, from memory that runs on, into the pixels of a box. The last vector overlaps its
// neighbour.
template <class T>
void read_run(const T* from, int64_t channel, int64_t count, int64_t length, T* first, int64_t columns, int64_t pitch) {
    for (int64_t i = 0; i < length; i += lanes<T>) {
        const int64_t begin = length >= lanes<T> ? smaller(i, length - lanes<T>) : i;
        read_planes<T>(from + begin, channel, count, smaller(lanes<T>, length - begin),
                       PatchCursor<T>(first, begin, columns, pitch));
    }
}

// Fills the inside of a patch with channels [channel, channel + lanes).
template <class T>
void read_patch(const Image<const T>& image, Access access, int64_t n, int64_t channel, const Box& all,
                const Box& inside, T* patch) {
    if (inside.empty()) return;
    const int64_t pitch = all.columns(), columns = inside.columns();
    const int64_t count = smaller(lanes<T>, image.channels - channel);
    T* const first = patch + ((inside.top - all.top) * pitch + (inside.left - all.left)) * lanes<T>;
    const T* const from = image.at(n, channel, inside.top, inside.left);
    const Strides& s = image.strides;
    if (access == Access::planes) {
        if (s.h == columns) return read_run<T>(from, s.c, count, inside.rows() * columns, first, columns, pitch);
        for (int64_t y = 0; y < inside.rows(); ++y)
            read_run<T>(from + y * s.h, s.c, count, columns, first + y * pitch * lanes<T>, columns, pitch);
        return;
    }
    const bool whole = s.block > 1 ? s.block >= lanes<T> : count == lanes<T>;
    for (int64_t y = 0; y < inside.rows(); ++y)
        for (int64_t x = 0; x < columns; ++x) {
            T* to = first + (y * pitch + x) * lanes<T>;
            const T* pixel = from + y * s.h + x * s.w;
            if (whole) {
                store<T>(to, load<T>(pixel));
                continue;
            }
            store<T>(to, Vec<T>{});
            const int64_t piece = s.block > 1 ? s.block : lanes<T>;
            copy_channels<T>(to, piece, pixel, s.c, piece, count);
        }
}

// ------------------------------------------------------------------------------------------------- writing

template <class T>
struct Destination {
    Image<T> image;
    Access access;
    Image<const T> residual;  // data is null if none
    Access residual_access;
    T floor;
};

// lanes pixels of `count` channels from a patch into planes.
template <class T>
inline void write_planes(const Destination<T>& d, T* to, const T* residual, int64_t count, int64_t pixels,
                         PatchCursor<const T> from) {
    Vec<T> v[lanes<T>];
    if (pixels == lanes<T>) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i) v[i] = load<T>(from.next());
    } else {
        for (int64_t i = 0; i < lanes<T>; ++i) v[i] = i < pixels ? load<T>(from.next()) : Vec<T>{};
    }
    shuffles::transpose_step<T, 1>(v);
    const Vec<T> floor = broadcast<T>(d.floor);
    const int64_t channel = d.image.strides.c, residual_channel = d.residual.strides.c;
    if (count == lanes<T> && pixels == lanes<T> && !residual) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes<T>; ++i) store<T>(to + i * channel, at_least<T>(v[i], floor));
        return;
    }
    for (int64_t i = 0; i < count; ++i) {
        if (pixels == lanes<T>) {
            if (residual) v[i] += load<T>(residual + i * residual_channel);
            store<T>(to + i * channel, at_least<T>(v[i], floor));
        } else {
            if (residual) v[i] += load_partial<T>(residual + i * residual_channel, pixels);
            store_partial<T>(to + i * channel, at_least<T>(v[i], floor), pixels);
        }
    }
}

template <class T>
void write_run(const Destination<T>& d, T* to, const T* residual, int64_t count, int64_t length, const T* first,
               int64_t columns, int64_t pitch) {
    for (int64_t i = 0; i < length; i += lanes<T>) {
        const int64_t begin = length >= lanes<T> ? smaller(i, length - lanes<T>) : i;
        write_planes<T>(d, to + begin, residual ? residual + begin : nullptr, count, smaller(lanes<T>, length - begin),
                        PatchCursor<const T>(first, begin, columns, pitch));
    }
}

// One pixel's channels, where `count` of them exist; channels that only fill up a block become 0.
template <class T>
inline void write_pixel(const Destination<T>& d, int64_t n, int64_t channel, int64_t count, int64_t y, int64_t x,
                        const T* from) {
    alignas(64) T values[lanes<T>];
    const Image<T>& image = d.image;
    for (int64_t i = 0; i < lanes<T>; ++i) values[i] = i < count ? from[i] : T(0);
    if (d.residual.data) {
        if (d.residual_access == Access::pixels && d.residual.strides.block == 1) {
            const T* at = d.residual.at(n, channel, y, x);
            for (int64_t i = 0; i < count; ++i) values[i] += at[i];
        } else {
            for (int64_t i = 0; i < count; ++i) values[i] += *d.residual.at(n, channel + i, y, x);
        }
    }
    store<T>(values, at_least<T>(load<T>(values), broadcast<T>(d.floor)));
    const int64_t block = image.strides.block;
    if (d.access == Access::pixels) {
        const int64_t piece = block > 1 ? block : lanes<T>;
        const int64_t filled = block > 1 ? smaller(lanes<T>, round_up(image.channels, block) - channel) : count;
        copy_channels<T>(image.at(n, channel, y, x), image.strides.c, values, piece, piece, filled);
    } else {
        for (int64_t i = 0; i < count; ++i) *image.at(n, channel + i, y, x) = values[i];
    }
}

// The inside of a patch to channels [channel, channel + lanes), with residual and relu.
template <class T>
void write_patch(const Destination<T>& d, int64_t n, int64_t channel, const Box& all, const Box& inside,
                 const T* patch) {
    const int64_t pitch = all.columns(), columns = inside.columns();
    const int64_t count = smaller(lanes<T>, d.image.channels - channel);
    const T* const first = patch + ((inside.top - all.top) * pitch + (inside.left - all.left)) * lanes<T>;
    if (d.access == Access::planes && (!d.residual.data || d.residual_access == Access::planes)) {
        T* to = d.image.at(n, channel, inside.top, inside.left);
        const T* residual = d.residual.data ? d.residual.at(n, channel, inside.top, inside.left) : nullptr;
        if (d.image.strides.h == columns && (!residual || d.residual.strides.h == columns))
            return write_run<T>(d, to, residual, count, inside.rows() * columns, first, columns, pitch);
        for (int64_t y = 0; y < inside.rows(); ++y)
            write_run<T>(d, to + y * d.image.strides.h, residual ? residual + y * d.residual.strides.h : nullptr, count,
                         columns, first + y * pitch * lanes<T>, columns, pitch);
        return;
    }
    for (int64_t y = 0; y < inside.rows(); ++y)
        for (int64_t x = 0; x < columns; ++x)
            write_pixel<T>(d, n, channel, count, inside.top + y, inside.left + x, first + (y * pitch + x) * lanes<T>);
}

}  // namespace pycv::cpu::PYCV_ISA
