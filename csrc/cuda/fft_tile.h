// Real two-dimensional Fourier transforms of tiles in shared memory: from elements of a tensor to the tile's spectrum
// and back.
//
// Real rows are transformed in pairs, as real and imaginary part of one complex line; the spectra of the two are then
// told apart by their symmetry, conj(X[f]) = X[-f]. Of each row width / 2 + 1 frequencies are kept, and those columns
// are transformed as complex lines. Frequency (y, x) is plane x * height + y, y in the order of fft.h.
//
// A block transforms the same tile of up to 8 neighbouring channels, so that what goes to the planes, where channels
// lie side by side, goes in whole sectors of memory. Per tile of t * t elements and channel: 4 t * t bytes of fp32
// read, 4 t (t + 2) written (inverse: the other way round), 5 t * t log2 t FLOPs, and shared memory passed through
// twice per stage.
//
// Elements of 16 bits are transformed in fp32.
//
// The scale is left out: inverse(forward(a) * forward(b)) is 4 * height * width times the cyclic convolution.
#pragma once

#include "device/half.h"
#include "fft.h"
#include "tile_planes.h"

namespace pycv::cuda::fft {

inline constexpr int kMostLanes = 8;                // channels of a block
inline constexpr int64_t kSharedBytes = 48 * 1024;  // that any GPU has

// How the positions of a tile's axis meet the elements of a tensor's: position x of tile i is element
// (origin + i * advance + x) / step, where that divides and lies in [low, high), for x in [first, limit).
struct Axis {
    int64_t origin, advance, step, low, high;
    int first, limit;

    // -1 if there is none.
    __device__ __forceinline__ int64_t element(int64_t tile, int x) const {
        const int64_t at = origin + tile * advance + x;
        if (x < first || x >= limit || at < 0) return -1;
        const int64_t element = step == 1 ? at : at / step;
        return element * step == at && element >= low && element < high ? element : -1;
    }
};

// Where the elements of a tensor lie, images (or filters of one channel) by channels within a group.
template <class T>
struct Elements {
    T* data;
    int64_t image, channel, group, row, column;  // strides

    __device__ __forceinline__ T* at(int64_t n, int64_t g, int64_t c, int64_t y, int64_t x) const {
        return data + n * image + g * group + c * channel + y * row + x * column;
    }
};

// Both axes of the tiles and what a block makes of them.
struct Shape {
    int height_bits, width_bits;  // logarithms of the sizes

    __host__ __device__ int height() const { return 1 << height_bits; }
    __host__ __device__ int width() const { return 1 << width_bits; }
    __host__ __device__ int half() const { return width() / 2 + 1; }  // columns of a spectrum
    __host__ __device__ int pairs() const { return height_bits > 0 ? height() / 2 : 1; }
    __host__ __device__ int pitch() const { return width() + 3; }  // two spectra of a row, and odd: all banks
    __host__ __device__ int elements() const { return pairs() * pitch(); }
    __host__ __device__ int root_bits() const { return height_bits > width_bits ? height_bits : width_bits; }
    int64_t frequencies() const { return static_cast<int64_t>(half()) * height(); }
    int64_t shared_elements(int64_t lanes) const { return lanes * elements() + (int64_t{1} << root_bits()); }
};

// Channels that a block takes together.
template <class T>
int lanes_of(const Shape& shape, int64_t channels) {
    int lanes = 1;
    while (lanes < kMostLanes && lanes * 2 <= channels &&
           shape.shared_elements(lanes * 2) * static_cast<int64_t>(sizeof(Complex<T>)) <= kSharedBytes)
        lanes *= 2;
    return lanes;
}

// A block's tiles, one after the other, and the roots behind them.
template <class T>
struct SharedTiles {
    Shape shape;
    int lanes;
    Complex<T>* data;
    Roots<T> roots;

    __device__ __forceinline__ SharedTiles(const Shape& shape, int lanes, Complex<T>* data)
        : shape(shape), lanes(lanes), data(data), roots{data + lanes * shape.elements(), shape.root_bits()} {}

    // The pair of rows that `row` belongs to, at element x.
    __device__ __forceinline__ Complex<T>* at(int lane, int row, int x) const {
        return data + lane * shape.elements() + (row >> 1) * shape.pitch() + x;
    }
    // Where frequency f of the even rows and of the odd rows lies: those of a pair share the places of f and -f, which
    // for f = 0 and width / 2 is one place, so that there are two more.
    __device__ __forceinline__ int even_place(int f) const { return place(f, shape.width_bits); }
    __device__ __forceinline__ int odd_place(int f) const {
        const int width = shape.width();
        return f == 0 ? width : f == width / 2 ? width + 1 : place(width - f, shape.width_bits);
    }

    template <bool Inverse>
    __device__ __forceinline__ void transform_rows() const {
        const auto line = [this](int l) {
            Complex<T>* const base = data + l * shape.pitch();
            return [base](int i) { return base + i; };
        };
        transform<Inverse>(lanes * shape.pairs(), shape.width_bits, roots, line);
    }

    template <bool Inverse>
    __device__ __forceinline__ void transform_columns() const {
        const auto line = [this](int l) {
            const int lane = l / shape.half(), f = l % shape.half();
            Complex<T>* const base = at(lane, 0, 0);
            const int even = even_place(f), odd = odd_place(f), pitch = shape.pitch();
            return [=](int y) { return base + (y >> 1) * pitch + ((y & 1) ? odd : even); };
        };
        transform<Inverse>(lanes * shape.half(), shape.height_bits, roots, line);
    }

    // Calls body(even, odd, real) for the two places of each frequency of each pair; there both spectra are real if
    // `real`. Visible to the block afterwards.
    template <class Body>
    __device__ __forceinline__ void each_pair(const Body& body) const {
        const int lines = lanes * shape.pairs();
        for (int i = static_cast<int>(threadIdx.x); i < lines * shape.half(); i += kThreads) {
            const int f = i / lines;
            Complex<T>* const base = data + (i - f * lines) * shape.pitch();
            body(base[even_place(f)], base[odd_place(f)], f == 0 || f == shape.width() / 2);
        }
        __syncthreads();
    }

    // Twice the spectra of the two real lines that make up a complex one: Z[f] +- conj(Z[-f]).
    __device__ __forceinline__ void split() const {
        each_pair([](Complex<T>& even, Complex<T>& odd, bool real) {
            const Complex<T> a = even;
            if (real) {
                even = {2 * a.re, 0};
                odd = {2 * a.im, 0};
            } else {
                const Complex<T> b = odd;
                even = {a.re + b.re, a.im - b.im};
                odd = {a.im + b.im, b.re - a.re};
            }
        });
    }

    // The spectrum of even + i * odd, both real.
    __device__ __forceinline__ void join() const {
        each_pair([](Complex<T>& even, Complex<T>& odd, bool real) {
            const Complex<T> a = even, b = odd;
            even = {a.re - b.im, a.im + b.re};
            if (!real) odd = {a.re + b.im, b.re - a.im};
        });
    }
};

// Which tile and channels a block has.
struct BlockWork {
    int64_t group, tile, channel;
    int lanes;  // that have a channel
};

__device__ __forceinline__ BlockWork work_of_block(const Planes& planes, int64_t tiles, int lanes) {
    const int64_t blocks = ceil_div<int64_t>(planes.channels, lanes);
    const int64_t index = blockIdx.x / blocks, channel = (blockIdx.x - index * blocks) * lanes;
    const int64_t left = planes.channels - channel;
    return {index / tiles, index % tiles, channel, static_cast<int>(left < lanes ? left : lanes)};
}

// Calls body(lane, row, x) for every element of the tiles, neighbouring threads with neighbouring channels or elements
// of a row.
template <class Body>
__device__ __forceinline__ void each_element(const Shape& shape, int lanes, bool channels_along, const Body& body) {
    const int rows = 2 * shape.pairs(), count = lanes * rows * shape.width();
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
        if (channels_along) {
            const int element = i / lanes;
            body(i % lanes, element >> shape.width_bits, element & (shape.width() - 1));
        } else {
            const int line = i >> shape.width_bits;
            body(line / rows, line % rows, i & (shape.width() - 1));
        }
    }
}

// Spectra of 16-bit elements are kept in fp32.
template <class T>
using SpectrumNumber = Complex<accumulator_t<T> >;

// The spectra of the tiles in `range`, or their conjugates, into planes.
template <class T>
__global__ void __launch_bounds__(kThreads)
    to_spectra(Shape shape, int lanes, Axis h, Axis w, Elements<const T> from, TileRange range, Planes planes,
               bool conjugated, SpectrumNumber<T>* to) {
    using A = accumulator_t<T>;
    PYCV_SHARED(Complex<A>, shared);
    const SharedTiles<A> tiles(shape, lanes, shared);
    const BlockWork work = work_of_block(planes, range.count, lanes);
    const TilePlace at = place_of(range, static_cast<unsigned>(work.tile));
    tiles.roots.fill();
    each_element(shape, lanes, from.channel == 1, [&](int lane, int row, int x) {
        const int64_t y_element = h.element(at.row, row), x_element = w.element(at.column, x);
        const bool inside = lane < work.lanes && y_element >= 0 && x_element >= 0;
        const A value =
            inside ? to_accumulator(*from.at(at.n, work.group, work.channel + lane, y_element, x_element)) : A(0);
        Complex<A>* const pair = tiles.at(lane, row, x);
        if (row & 1)
            pair->im = value;
        else
            pair->re = value;
    });
    __syncthreads();
    tiles.template transform_rows<false>();
    tiles.split();
    tiles.template transform_columns<false>();
    Complex<A>* const base = to + work.group * planes.group + work.tile * planes.line + work.channel;
    for (int i = static_cast<int>(threadIdx.x); i < lanes * shape.half() * shape.height(); i += kThreads) {
        const int plane = i / lanes, lane = i - plane * lanes;
        const int f = plane >> shape.height_bits, y = plane & (shape.height() - 1);
        if (lane >= work.lanes) continue;
        const Complex<A> z = *tiles.at(lane, y, (y & 1) ? tiles.odd_place(f) : tiles.even_place(f));
        base[plane * planes.plane + lane] = conjugated ? conjugate(z) : z;
    }
}

// What happens to a result on its way to memory. bias and residual may be null.
template <class T>
struct Finish {
    accumulator_t<T> scale;
    const T* bias;
    Elements<const T> residual;
    bool relu;
};

// The elements of the tiles in `range` from the spectra in planes.
template <class T>
__global__ void __launch_bounds__(kThreads)
    from_spectra(Shape shape, int lanes, Axis h, Axis w, const SpectrumNumber<T>* from, TileRange range, Planes planes,
                 Finish<T> finish, Elements<T> to) {
    using A = accumulator_t<T>;
    PYCV_SHARED(Complex<A>, shared);
    const SharedTiles<A> tiles(shape, lanes, shared);
    const BlockWork work = work_of_block(planes, range.count, lanes);
    const TilePlace at = place_of(range, static_cast<unsigned>(work.tile));
    tiles.roots.fill();
    const Complex<A>* const base = from + work.group * planes.group + work.tile * planes.line + work.channel;
    // A single row lacks its partner: that one's spectrum is zero.
    const int rows = 2 * shape.pairs(), row_bits = shape.height_bits > 0 ? shape.height_bits : 1;
    for (int i = static_cast<int>(threadIdx.x); i < lanes * shape.half() * rows; i += kThreads) {
        const int index = i / lanes, lane = i - index * lanes;
        const int f = index >> row_bits, y = index & (rows - 1);
        Complex<A> z{};
        if (lane < work.lanes && y < shape.height()) z = base[(f * shape.height() + y) * planes.plane + lane];
        *tiles.at(lane, y, (y & 1) ? tiles.odd_place(f) : tiles.even_place(f)) = z;
    }
    __syncthreads();
    tiles.template transform_columns<true>();
    tiles.join();
    tiles.template transform_rows<true>();
    each_element(shape, lanes, to.channel == 1, [&](int lane, int row, int x) {
        const int64_t y_element = h.element(at.row, row), x_element = w.element(at.column, x);
        if (lane >= work.lanes || y_element < 0 || x_element < 0) return;
        const int64_t channel = work.channel + lane;
        const Complex<A> pair = *tiles.at(lane, row, x);
        A value = ((row & 1) ? pair.im : pair.re) * finish.scale;
        value += value * A(0);  // an infinity's sign means nothing: relu must not hide it
        if (finish.bias) value += to_accumulator(finish.bias[work.group * planes.channels + channel]);
        if (finish.residual.data)
            value += to_accumulator(*finish.residual.at(at.n, work.group, channel, y_element, x_element));
        if (finish.relu && value < 0) value = 0;
        *to.at(at.n, work.group, channel, y_element, x_element) = from_accumulator<T>(value);
    });
}

}  // namespace pycv::cuda::fft
