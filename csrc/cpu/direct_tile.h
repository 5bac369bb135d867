// The padded copy of a block of the source that direct convolution reads: planes, one per channel, in which the
// positions that a register tile broadcasts lie side by side.
//
// Along each axis the coordinates are split by their remainder modulo a step (the stride; for grad_weight, the
// dilation along w): part after part, each with every step-th coordinate. What lies outside the source is 0. The
// prologue is applied on the way. One copy of an element serves all taps and output channels; a source whose channels
// are contiguous is transposed in registers.
#pragma once

#include "conv_gather.h"
#include "integers.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// Elements 0, Step, 2 * Step, ... at p, without reading behind the last of them: Step is 3, a power of two, or 3 times
// one.
template <class T, int Step>
inline Vec<T> load_every(const T* p) {
    if constexpr (Step == 1) {
        return load<T>(p);
    } else if constexpr (Step == 3) {
        // Three vectors, the last of which ends with the last element.
        constexpr int n = lanes<T>;
        Vec<shuffles::Index<T>> two{}, third{};
        for (int i = 0; i < n; ++i) {
            two[i] = smaller(3 * i, 2 * n - 1);
            third[i] = 3 * i < 2 * n ? i : 3 * i - (2 * n - 2) + n;
        }
        const Vec<T> firsts = __builtin_shuffle(load<T>(p), load<T>(p + n), two);
        return __builtin_shuffle(firsts, load<T>(p + 2 * n - 2), third);
    } else {
        static_assert(Step % 2 == 0);
        constexpr int n = lanes<T>;
        const Vec<T> low = load_every<T, Step / 2>(p), high = load_every<T, Step / 2>(p + (n - 1) * (Step / 2));
        Vec<shuffles::Index<T>> pick{};
        for (int i = 0; i < n; ++i) pick[i] = i < n / 2 ? 2 * i : 2 * i + 1;
        return __builtin_shuffle(low, high, pick);
    }
}

// Coordinates origin + distance for distances up to (count - 1) * step + reach.
struct TileAxis {
    int64_t step, parts, cells;

    TileAxis(int64_t step, int64_t count, int64_t reach)
        : step(step), parts(smaller(step, reach + 1)), cells(count + reach / step) {}
    int64_t length() const { return parts * cells; }
    int64_t index(int64_t distance) const { return distance % step * cells + distance / step; }
};

struct TileShape {
    TileAxis d, h, w;

    int64_t row() const { return w.length(); }
    int64_t slice() const { return h.length() * row(); }
    int64_t index(int64_t dd, int64_t dh, int64_t dw) const {
        return d.index(dd) * slice() + h.index(dh) * row() + w.index(dw);
    }
    // Elements of a channel's plane. Rows are written a vector at a time, past their end; planes do not start in the
    // same cache set.
    template <class T>
    int64_t plane() const {
        const int64_t elements = round_up(d.length() * slice() + lanes<T>, lanes<T>);
        return elements % (1024 / static_cast<int64_t>(sizeof(T))) == 0 ? elements + lanes<T> : elements;
    }
};

// Elements from the first to behind the last one of a tensor that is not empty.
inline int64_t tensor_extent(const Strides& s, int64_t n, int64_t channels, Spatial size) {
    return (n - 1) * s.n + s.channel(channels - 1) + (size.d - 1) * s.d + (size.h - 1) * s.h + (size.w - 1) * s.w + 1;
}

// One image of the source and what happens to it before the convolution.
template <class T>
struct TileSource {
    const T* data;
    const T* end;  // behind the last element of all images
    Strides strides;
    Spatial size;
    const T* scale;  // null, or per channel, as shift
    const T* shift;
    bool relu;

    bool prologue() const { return scale || relu; }
    Vec<T> transform(Vec<T> v, Vec<T> scales, Vec<T> shifts) const {
        if (scale) v = v * scales + shifts;
        return relu ? PYCV_ISA::relu<T>(v) : v;
    }
    T transform(T v, int64_t channel) const {
        if (scale) v = v * scale[channel] + shift[channel];
        return relu ? PYCV_ISA::relu<T>(v) : v;
    }
    // Whether the lanes<T> channels from this one on lie side by side.
    bool contiguous(int64_t channel, int64_t channels) const {
        if (channels < lanes<T>) return false;
        if (strides.block == 1) return strides.c == 1 && strides.w != 1;
        return channel % strides.block + lanes<T> <= strides.block;
    }
};

// The cells of one part of a row that lie inside the source.
struct CellRange {
    int64_t begin, end;
    int64_t first;  // coordinate of cell 0

    CellRange(const TileAxis& axis, int64_t origin, int64_t part, int64_t size) : first(origin + part) {
        begin = first < 0 ? smaller(divide_up(-first, axis.step), axis.cells) : 0;
        const int64_t behind = size > first ? divide_up(size - first, axis.step) : 0;
        end = larger(smaller(behind, axis.cells), begin);
    }
};

template <class T>
class TileFill {
public:
    // `plane`: elements from the plane of one channel to the next.
    TileFill(const TileShape& shape, const TileSource<T>& source, Spatial origin, int64_t plane)
        : shape_(shape), source_(source), origin_(origin), plane_(plane) {}

    // The planes of these channels (counted over the whole tensor) into `to`.
    void fill(int64_t first, int64_t count, T* to) const {
        for (int64_t c = 0; c < count;) {
            const bool vector = source_.contiguous(first + c, count - c);
            fill_rows(first + c, vector, to + c * plane_);
            c += vector ? lanes<T> : 1;
        }
    }

private:
    // Of one channel, or of lanes<T> contiguous ones.
    void fill_rows(int64_t channel, bool vector, T* to) const {
        const Strides& s = source_.strides;
        const T* from = source_.data + s.channel(channel);
        for (int64_t pd = 0; pd < shape_.d.parts; ++pd)
            for (int64_t cd = 0; cd < shape_.d.cells; ++cd)
                for (int64_t ph = 0; ph < shape_.h.parts; ++ph)
                    for (int64_t ch = 0; ch < shape_.h.cells; ++ch, to += shape_.row()) {
                        const int64_t d = origin_.d + pd + cd * shape_.d.step;
                        const int64_t h = origin_.h + ph + ch * shape_.h.step;
                        const bool inside = d >= 0 && d < source_.size.d && h >= 0 && h < source_.size.h;
                        fill_row(channel, vector, inside ? from + d * s.d + h * s.h : nullptr, to);
                    }
    }

    // A null `from` is a row of padding.
    void fill_row(int64_t channel, bool vector, const T* from, T* to) const {
        for (int64_t part = 0; part < shape_.w.parts; ++part, to += shape_.w.cells) {
            CellRange cells(shape_.w, origin_.w, part, source_.size.w);
            if (!from) cells.end = cells.begin;
            const int64_t planes = vector ? lanes<T> : 1;
            for (int64_t j = 0; j < planes; ++j) pad(to + j * plane_, 0, cells.begin);
            if (cells.end > cells.begin) {
                const int64_t stride = shape_.w.step * source_.strides.w;
                const T* start = from + cells.first * source_.strides.w;
                vector ? transpose_cells(channel, start, stride, cells, to)
                       : copy_cells(channel, start, stride, cells, to);
            }
            for (int64_t j = 0; j < planes; ++j) pad(to + j * plane_, cells.end, shape_.w.cells);
        }
    }

    // Writes whole vectors, as transpose() does.
    static void pad(T* to, int64_t begin, int64_t end) {
        for (; begin < end; begin += lanes<T>) store<T>(to + begin, Vec<T>{});
    }

    void copy_cells(int64_t channel, const T* from, int64_t stride, const CellRange& cells, T* to) const {
        copy(to + cells.begin, from + cells.begin * stride, cells.end - cells.begin, stride);
        if (!source_.prologue()) return;
        for (int64_t i = cells.begin; i < cells.end; ++i) to[i] = source_.transform(to[i], channel);
    }

    void copy(T* to, const T* from, int64_t count, int64_t stride) const {
        if (stride == 1) return copy_every<1>(to, from, count, 1);
        if (stride == 2) return copy_every<2>(to, from, count, 2);
        if (stride == 3) return copy_every<3>(to, from, count, 3);
        if (stride == 4) return copy_every<4>(to, from, count, 4);
        if (stride == 6) return copy_every<6>(to, from, count, 6);
        if (stride == 12) return copy_every<12>(to, from, count, 12);
        copy_every<0>(to, from, count, stride);
    }

    // Writes whole vectors where that many elements can be read.
    template <int Step>
    void copy_every(T* to, const T* from, int64_t count, int64_t stride) const {
        int64_t i = 0;
        if constexpr (Step > 0) {
            const int64_t readable = (source_.end - from + Step - 1) / Step;
            for (; i < count && i + lanes<T> <= readable; i += lanes<T>)
                store<T>(to + i, load_every<T, Step>(from + i * Step));
        }
        for (; i < count; ++i) to[i] = from[i * stride];
    }

    void transpose_cells(int64_t channel, const T* from, int64_t stride, const CellRange& cells, T* to) const {
        if (cells.end - cells.begin < lanes<T>)
            return transpose(channel, from, stride, cells.begin, cells.end - cells.begin, to);
        int64_t cell = cells.begin;
        for (; cell + lanes<T> <= cells.end; cell += lanes<T>) transpose(channel, from, stride, cell, lanes<T>, to);
        if (cell < cells.end) transpose(channel, from, stride, cells.end - lanes<T>, lanes<T>, to);
    }

    // Writes whole vectors: what lies beyond `count` cells is written again later, or is the slack of the plane.
    void transpose(int64_t channel, const T* from, int64_t stride, int64_t cell, int64_t count, T* to) const {
        Vec<T> v[lanes<T>];
        from += cell * stride;
        if (count == lanes<T>) {
#pragma GCC unroll 16
            for (int i = 0; i < lanes<T>; ++i) v[i] = load<T>(from + i * stride);
        } else {
#pragma GCC unroll 16
            for (int i = 0; i < lanes<T>; ++i) v[i] = i < count ? load<T>(from + i * stride) : Vec<T>{};
        }
        if (source_.prologue()) {
            const Vec<T> scale = source_.scale ? load<T>(source_.scale + channel) : Vec<T>{};
            const Vec<T> shift = source_.scale ? load<T>(source_.shift + channel) : Vec<T>{};
            for (int i = 0; i < lanes<T>; ++i) v[i] = source_.transform(v[i], scale, shift);
        }
        shuffles::transpose_step<T, 1>(v);
#pragma GCC unroll 16
        for (int j = 0; j < lanes<T>; ++j) store<T>(to + j * plane_ + cell, v[j]);
    }

    const TileShape& shape_;
    const TileSource<T>& source_;
    Spatial origin_;
    int64_t plane_;
};

}  // namespace pycv::cpu::PYCV_ISA
