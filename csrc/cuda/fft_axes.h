// How a convolution's axes are cut into the tiles of a Fourier transform (overlap-save), and how large these are.
//
// A tile of t = m + extent - 1 elements of the source gives m results at distance 1, the extent being that of the
// dilated filter; a stride leaves out results (forward) or puts zeros between the source's elements (grad_input,
// grad_weight). Elements of input and output that meet nothing but padding are never looked at.
#pragma once

#include <algorithm>
#include <limits>

#include "fft_tile.h"
#include "plan.h"

namespace pycv::cuda::fft {

// One axis of a convolution without its tiling.
struct ConvAxis {
    Pass pass;
    int64_t size, filter, out, stride, padding, dilation;
    int64_t extent, positions;                           // of the filter; results at distance 1
    int64_t input_begin, input_end, out_begin, out_end;  // in use

    ConvAxis(Pass pass, int64_t size, int64_t filter, int64_t out, int64_t stride, int64_t padding, int64_t dilation)
        : pass(pass), size(size), filter(filter), out(out), stride(stride), padding(padding), dilation(dilation) {
        extent = (filter - 1) * dilation + 1;
        positions = pass == Pass::grad_input ? size : out > 0 ? (out - 1) * stride + 1 : 0;
        input_begin = size, out_begin = out, input_end = out_end = 0;
        for (int64_t o = 0; o < out; ++o) {
            const int64_t begin = o * stride - padding;  // of the window
            const int64_t first = begin >= 0 ? 0 : ceil_div(-begin, dilation);
            const int64_t last = size > begin ? std::min(filter, ceil_div(size - begin, dilation)) - 1 : -1;
            if (first > last) continue;
            input_begin = std::min(input_begin, begin + first * dilation);
            input_end = std::max(input_end, begin + last * dilation + 1);
            out_begin = std::min(out_begin, o);
            out_end = o + 1;
        }
    }
};

// An axis in tiles of 2^bits.
struct TiledAxis {
    ConvAxis axis;
    int bits;

    int length() const { return 1 << bits; }
    int64_t results() const { return length() - axis.extent + 1; }  // per tile
    int64_t tiles() const { return ceil_div(axis.positions, results()); }

    Axis input() const { return {-axis.padding, results(), 1, axis.input_begin, axis.input_end, 0, length()}; }
    // Of grad_input's source, whose results come last in their tile.
    Axis gradient() const {
        return {axis.padding - (axis.extent - 1), results(), axis.stride, axis.out_begin, axis.out_end, 0, length()};
    }
    Axis source() const { return axis.pass == Pass::grad_input ? gradient() : input(); }
    Axis computed() const {
        const int m = static_cast<int>(results()), late = length() - m;
        if (axis.pass == Pass::grad_input) return {-late, m, 1, 0, axis.size, late, length()};
        return {0, m, axis.stride, 0, axis.out, 0, m};
    }
    // Of grad_weight: the m gradients that a tile of the input is paired with.
    Axis paired() const {
        const int m = static_cast<int>(results());
        return {0, m, axis.stride, axis.out_begin, axis.out_end, 0, m};
    }
    Axis taps() const { return {0, 0, axis.dilation, 0, axis.filter, 0, static_cast<int>(axis.extent)}; }
};

struct Tiling {
    TiledAxis h, w;

    Shape shape() const { return {h.bits, w.bits}; }
    TileGrid grid(int64_t images) const { return {images, h.tiles(), w.tiles()}; }
};

template <class T>
bool fits(const Shape& shape) {
    return shape.shared_elements(1) * static_cast<int64_t>(sizeof(Complex<T>)) <= kSharedBytes;
}

// What the choice of a tile depends on besides its size.
struct Amounts {
    double inputs, outputs, filters;  // to transform: per tile, per tile, and in all
    int64_t bytes;                    // of a real number
    int64_t limit;                    // of the workspace
};

// Time, about, in bytes of memory traffic; a GPU has some 20 FLOPs for each.
inline double estimate(const Tiling& t, int64_t images, const Amounts& a) {
    constexpr double kFlopsPerByte = 20;
    const Shape shape = t.shape();
    const double elements = static_cast<double>(shape.height()) * shape.width();
    const double frequencies = static_cast<double>(shape.frequencies()),
                 tiles = static_cast<double>(t.grid(images).count());
    const double channels = a.inputs + a.outputs, bytes = static_cast<double>(a.bytes);
    const double flops =
        tiles * channels * elements * 5 * (shape.height_bits + shape.width_bits) + tiles * frequencies * a.filters * 8;
    const double moved = tiles * channels * frequencies * 4 * bytes + a.filters * frequencies * 4 * bytes;
    const double least = frequencies * channels * 2 * bytes;  // what does not fit is all but excluded
    return flops / kFlopsPerByte + moved + std::max(0.0, least - static_cast<double>(a.limit)) * 1e3;
}

// The best of the tiles that fit into shared memory: from the extent to what takes the whole axis in one tile.
template <class T>
Tiling choose_tiling(const ConvProblem& p, const Amounts& amounts) {
    const ConvAxis h(p.pass, p.size.h, p.filter.h, p.out.h, p.stride.h, p.padding.h, p.dilation.h);
    const ConvAxis w(p.pass, p.size.w, p.filter.w, p.out.w, p.stride.w, p.padding.w, p.dilation.w);
    Tiling best{{h, 0}, {w, 1}};
    double least = std::numeric_limits<double>::infinity();
    const auto long_enough = [](const ConvAxis& axis, int bits) { return int64_t{1} << bits >= axis.extent; };
    const auto takes_all = [](const ConvAxis& axis, int bits) {
        return int64_t{1} << bits >= axis.positions + axis.extent - 1;
    };
    for (int height = 0; fits<T>({height, 1}); ++height) {
        if (!long_enough(h, height)) continue;
        for (int width = 1; fits<T>({height, width}); ++width) {
            if (!long_enough(w, width)) continue;
            const Tiling tiling{{h, height}, {w, width}};
            const double cost = estimate(tiling, p.n, amounts);
            if (cost < least) {
                least = cost;
                best = tiling;
            }
            if (takes_all(w, width)) break;
        }
        if (takes_all(h, height)) break;
    }
    return best;
}

}  // namespace pycv::cuda::fft
