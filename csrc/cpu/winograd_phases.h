// Strided convolution as one of stride 1 ("space to depth"), for Winograd's tiles.
//
// Tap s * i + b of a filter, 0 <= b < s, is tap i of its phase b, which reads the pixels s * Y + b - padding of an
// axis: an image of every s-th pixel. Over the s * s phases of all channels, a convolution of stride s with r x r
// filters is one of stride 1 with filters of ceil(r / s) taps per side, of which those that do not exist are 0.
//
// Phase channel (row phase * column stride + column phase) * channels + c is channel c of a phase. The image of phases
// is never stored: patches of it are read from the tensor as it lies.
#pragma once

#include "winograd_image.h"

namespace pycv::cpu::PYCV_ISA {

struct Phases {
    int64_t rows = 1, columns = 1;  // the strides
    int64_t top = 0, left = 0;      // pixel (0, 0) of phase (0, 0) is row -top and column -left of the image

    int64_t count() const { return rows * columns; }

    // The pixels of which every phase lies within an image.
    Box inside(const Box& all, int64_t height, int64_t width) const {
        const int64_t first_row = larger(all.top, divide_up(top, rows));
        const int64_t first_column = larger(all.left, divide_up(left, columns));
        return {first_row, larger(first_row, smaller(all.bottom, (height + top) / rows)), first_column,
                larger(first_column, smaller(all.right, (width + left) / columns))};
    }
};

// The convolution sees relu(value * scale[c] + shift[c]).
template <class T>
struct Prologue {
    const T *scale, *shift;  // null if none
    bool relu;
};

// elements 0, S, 2 * S, ... of the S * (lanes - 1) + 1 elements at p
template <int S, class T>
inline Vec<T> load_every(const T* p) {
    constexpr int n = lanes<T>;
    Vec<T> result = load<T>(p);
#pragma GCC unroll 4
    for (int piece = 1; piece < S; ++piece) {  // pieces overlap by one element: nothing beyond the last is read
        const int begin = piece * (n - 1);
        Vec<IndexOf<T>> pick{};
        for (int i = 0; i < n; ++i) {
            const bool early = piece == 1 && i * S <= n - 1;
            pick[i] = early ? i * S : i * S > begin && i * S <= begin + n - 1 ? n + i * S - begin : i;
        }
        result = __builtin_shuffle(result, load<T>(p + begin), pick);
    }
    return result;
}

// A vector of phase channels [first, first + lanes) of an image's group.
template <class T>
class PhaseVector {
public:
    PhaseVector(const Image<const T>& image, const Phases& phases, int64_t first, const Prologue<T>& prologue)
        : image_(image), phases_(phases), prologue_(prologue) {
        count_ = smaller(lanes<T>, image.channels * phases.count() - first);
        for (int64_t i = 0; i < lanes<T>; ++i) {
            const int64_t phase = smaller(first + i, first + count_ - 1) / image.channels;
            Lane& lane = lanes_[i];
            lane.channel = (first + i) % image.channels;
            lane.row = phase / phases.columns - phases.top;
            lane.column = phase % phases.columns - phases.left;
            const Strides& s = image.strides;
            lane.offset = s.channel(lane.channel) + lane.row * s.h + lane.column * s.w;
            scale_[i] = prologue.scale && i < count_ ? prologue.scale[lane.channel] : T(1);
            shift_[i] = prologue.scale && i < count_ ? prologue.shift[lane.channel] : T(0);
        }
    }

    // patch[row][column] of vectors: the pixels `all` of the image of phases, 0 outside of the image.
    void read(Access access, int64_t n, const Box& all, T* patch) const {
        const Box inside = phases_.inside(all, image_.height, image_.width);
        const int64_t pitch = all.columns() * lanes<T>;
        for (int64_t y = all.top; y < all.bottom; ++y, patch += pitch) {
            if (inside.empty() || y < inside.top || y >= inside.bottom) {
                gather(n, y, all.left, all.right, patch);
                continue;
            }
            const int64_t begin = inside.left, end = inside.right;
            T* const first = patch + (begin - all.left) * lanes<T>;
            gather(n, y, all.left, begin, patch);
            if (access == Access::planes && end - begin >= lanes<T>) {
                read_planes(n, y, begin, end, first);
            } else if (access == Access::pixels && image_.strides.block == 1) {
                read_pixels(n, y, begin, end, first);
            } else {
                gather(n, y, begin, end, first);
            }
            gather(n, y, end, all.right, patch + (end - all.left) * lanes<T>);
        }
    }

private:
    struct Lane {
        int64_t channel, row, column;  // pixel (0, 0) of the lane's phase
        int64_t offset;                // of that pixel from the image's
    };

    const T* pixel(int64_t n, int64_t y, int64_t x) const {
        return image_.data + n * image_.strides.n + y * phases_.rows * image_.strides.h +
               x * phases_.columns * image_.strides.w;
    }

    void store_inside(T* to, Vec<T> v) const {
        if (prologue_.scale) v = v * load<T>(scale_) + load<T>(shift_);
        store<T>(to, prologue_.relu ? relu<T>(v) : v);
    }

    // Any pixels, element by element.
    void gather(int64_t n, int64_t y, int64_t begin, int64_t end, T* to) const {
        for (int64_t x = begin; x < end; ++x, to += lanes<T>) {
            const T* from = pixel(n, y, x);
            for (int64_t i = 0; i < lanes<T>; ++i) {
                const Lane& lane = lanes_[i];
                const int64_t row = y * phases_.rows + lane.row, column = x * phases_.columns + lane.column;
                T value = 0;
                if (i < count_ && row >= 0 && row < image_.height && column >= 0 && column < image_.width) {
                    value = from[lane.offset];
                    if (prologue_.scale) value = value * scale_[i] + shift_[i];
                    if (prologue_.relu) value = relu<T>(value);
                }
                to[i] = value;
            }
        }
    }

    // At least a vector of pixels of whole phases whose rows are contiguous; the last vector overlaps its neighbour.
    void read_planes(int64_t n, int64_t y, int64_t begin, int64_t end, T* to) const {
        switch (phases_.columns) {
            case 1: return read_every<1>(n, y, begin, end, to);
            case 2: return read_every<2>(n, y, begin, end, to);
            case 3: return read_every<3>(n, y, begin, end, to);
            default: return read_every<4>(n, y, begin, end, to);
        }
    }

    template <int S>
    void read_every(int64_t n, int64_t y, int64_t begin, int64_t end, T* to) const {
        for (int64_t x = begin; x < end; x += lanes<T>) {
            const int64_t at = smaller(x, end - lanes<T>);
            const T* from = pixel(n, y, at);
            Vec<T> v[lanes<T>];
            for (int i = 0; i < lanes<T>; ++i) v[i] = i < count_ ? load_every<S, T>(from + lanes_[i].offset) : Vec<T>{};
            shuffles::transpose_step<T, 1>(v);
#pragma GCC unroll 16
            for (int i = 0; i < lanes<T>; ++i) store_inside(to + (at - begin + i) * lanes<T>, v[i]);
        }
    }

    // Whole pixels whose channels are contiguous: runs of lanes that lie side by side.
    void read_pixels(int64_t n, int64_t y, int64_t begin, int64_t end, T* to) const {
        const int64_t step = phases_.columns * image_.strides.w;
        for (int64_t x = 0; count_ < lanes<T> && x < end - begin; ++x) store<T>(to + x * lanes<T>, Vec<T>{});
        for (int64_t lane = 0; lane < count_;) {
            int64_t length = 1;
            while (lane + length < count_ && lanes_[lane + length].offset == lanes_[lane].offset + length) ++length;
            const T* from = pixel(n, y, begin) + lanes_[lane].offset;
            for (int64_t x = 0; x < end - begin; ++x) copy_run<T>(to + x * lanes<T> + lane, from + x * step, length);
            lane += length;
        }
        if (prologue_.scale || prologue_.relu)
            for (int64_t x = 0; x < end - begin; ++x) store_inside(to + x * lanes<T>, load<T>(to + x * lanes<T>));
    }

    const Image<const T>& image_;
    Phases phases_;
    Prologue<T> prologue_;
    int64_t count_;
    Lane lanes_[lanes<T>];
    alignas(64) T scale_[lanes<T>], shift_[lanes<T>];
};

}  // namespace pycv::cpu::PYCV_ISA
