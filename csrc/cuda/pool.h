// What max and average pooling share: windows, who computes what, and the fold over windows that overlap.
//
// A thread computes R rows of one column (of outputs forward, of inputs in the gradient), in V channels. In nhwc V
// channels are one vector of 16 bytes and neighbouring threads have neighbouring channels; in nchw V is 1 and
// neighbouring threads have neighbouring columns: accesses are coalesced either way, whatever the alignment of a row.
// Where rows are aligned and the windows well known, a thread computes several columns, by vectors: pool_rows.h.
// Rows of a window that several of the R outputs share are read and folded along the width once.
// Windows of many elements in planes (a plane as one window) take a warp each instead, whose lanes lie along its rows.
#pragma once

#include <algorithm>

#include "device/warp.h"
#include "division.h"
#include "elements.h"
#include "integers.h"
#include "plan.h"

namespace pycv::cuda {

inline constexpr int kPoolThreads = 256;

// Rows of a thread in planes, and in vectors, whose sums take V registers per row.
inline constexpr int kPoolRows = 4, kPoolVectorRows = 2;

// The positions begin, begin + dilation, ... < end of the input that a window covers; or the windows begin ... < end
// that cover a position.
struct PoolSpan {
    int begin, end;
};

// One axis of the windows. Adaptive windows are given by size and out alone.
struct PoolAxis {
    int size, filter, stride, padding, dilation, out;
    bool adaptive;
    bool all_cover;  // every window may point at any position
    Divider by_stride, by_out, by_size, by_dilation;

    // The positions of window o.
    __device__ __forceinline__ PoolSpan window(int o) const {
        if (adaptive)
            return {static_cast<int>(by_out.quotient(static_cast<int64_t>(o) * size)),
                    static_cast<int>(by_out.quotient(static_cast<int64_t>(o + 1) * size + out - 1))};
        int begin = o * stride - padding;
        const int last = begin + (filter - 1) * dilation + 1;
        if (begin < 0) begin += (-begin + dilation - 1) / dilation * dilation;
        return {begin, min(last, size)};
    }

    // The windows whose extent covers position i (between their elements, with dilation, it may be in none of them).
    __device__ __forceinline__ PoolSpan covering(int i) const {
        if (all_cover) return {0, out};
        if (adaptive)
            return {static_cast<int>(by_size.quotient(static_cast<int64_t>(i) * out)),
                    static_cast<int>(by_size.quotient(static_cast<int64_t>(i + 1) * out + size - 1))};
        const int beyond = i + padding - (filter - 1) * dilation - 1;  // begins of windows that end before i
        const int first = beyond < 0 ? 0 : static_cast<int>(by_stride.quotient(beyond)) + 1;
        return {first, min(static_cast<int>(by_stride.quotient(i + padding)) + 1, out)};
    }

    // How many elements of window o lie in the padding before the input. Not of adaptive windows.
    __device__ __forceinline__ int before(int o) const {
        const int begin = o * stride - padding;
        return begin < 0 ? (-begin + dilation - 1) / dilation : 0;
    }

    // Which element of window o lies at position i; -1 where none does. Not of adaptive windows.
    __device__ __forceinline__ int element(int o, int i) const {
        const int distance = i - (o * stride - padding);
        if (distance < 0) return -1;
        const int number = static_cast<int>(by_dilation.quotient(distance));
        return number < filter && number * dilation == distance ? number : -1;
    }

    // How many positions of window o count in an average: up to the right padding, or those of the input.
    __device__ __forceinline__ int counted(int o, bool with_padding) const {
        const PoolSpan inside = window(o);
        if (adaptive || !with_padding) return inside.end - inside.begin;
        const int begin = o * stride - padding;
        return min(filter, size + padding - begin);
    }

    // Whether neighbouring windows have rows in common.
    bool overlaps() const { return dilation == 1 && (adaptive || filter > stride); }
    // Whether an average divides by the whole window everywhere along this axis.
    bool counts_alike(bool with_padding) const {
        const int behind = with_padding ? padding : 0;
        return !adaptive && (with_padding || padding == 0) && (out - 1) * stride - padding + filter <= size + behind;
    }
    int longest_window() const { return adaptive ? ceil_div(size, std::max(out, 1)) : filter; }
};

inline PoolAxis pool_axis(bool adaptive, int64_t size, int64_t filter, int64_t stride, int64_t padding,
                          int64_t dilation, int64_t out, bool all_cover) {
    if (adaptive && out > 0 && size % out == 0) {  // windows that are all alike
        adaptive = false;
        filter = stride = size / out;
    } else if (adaptive) {
        filter = stride = 1;
    }
    if (adaptive || filter == 1) dilation = 1;
    if (adaptive) padding = 0;
    const int64_t largest = std::max(size + padding, (out + 1) * (size + 1));
    const auto number = [](int64_t value) { return static_cast<int>(value); };
    return {number(size),
            number(filter),
            number(stride),
            number(padding),
            number(dilation),
            number(out),
            adaptive,
            all_cover,
            Divider(stride, size + padding),
            Divider(std::max<int64_t>(out, 1), largest),
            Divider(std::max<int64_t>(size, 1), largest),
            Divider(dilation, size + padding)};
}

// The numbers of a window's elements along one axis: of its first inside the input, and from one to the next.
struct PoolNumbers {
    int first, step;
};

// What a fold calls the elements of a window: by their positions in the plane, or by their numbers in the window.
struct PoolNames {
    PoolNumbers d, h, w;
    __device__ __forceinline__ int first() const { return d.first + h.first + w.first; }
};

// The windows and where the tensors lie.
struct PoolWindows {
    PoolAxis d, h, w;
    Strides input, output;
};

inline PoolWindows pool_windows(const PoolProblem& p) {
    const bool adaptive = p.kind == PoolKind::adaptive_max || p.kind == PoolKind::adaptive_avg;
    // Expanded indices point at one position from several windows: it need not lie in each of them.
    const bool shared =
        p.indices == Indices::int64 &&
        ((p.output.d == 0 && p.out.d > 1) || (p.output.h == 0 && p.out.h > 1) || (p.output.w == 0 && p.out.w > 1));
    const auto axis = [&](int64_t size, int64_t filter, int64_t stride, int64_t padding, int64_t dilation,
                          int64_t out) {
        return pool_axis(adaptive, size, filter, stride, padding, dilation, out, shared);
    };
    return {axis(p.size.d, p.filter.d, p.stride.d, p.padding.d, p.dilation.d, p.out.d),
            axis(p.size.h, p.filter.h, p.stride.h, p.padding.h, p.dilation.h, p.out.h),
            axis(p.size.w, p.filter.w, p.stride.w, p.padding.w, p.dilation.w, p.out.w), p.input, p.output};
}

__device__ __forceinline__ int64_t pool_offset(const Strides& s, int d, int h, int w) {
    return d * s.d + h * s.h + w * s.w;
}

// What a thread computes: rows h, h + 1, ... of a column (pool_rows.h: of several), from channel c on.
struct PoolPlace {
    int64_t n, c;
    int d, h, w;
};

// The places of a tensor: neighbours are those of neighbouring threads.
class PoolPlaces {
public:
    PoolPlaces(bool pixels, int64_t n, int64_t channels, int vector, Spatial size, int rows, int columns = 1)
        : pixels_(pixels),
          rows_(rows),
          columns_(columns),
          vector_(vector),
          count_(n * (channels / vector) * size.d * ceil_div<int64_t>(size.h, rows) *
                 ceil_div<int64_t>(size.w, columns)),
          by_channel_(channels / vector, count_),
          by_d_(size.d, count_),
          by_h_(ceil_div<int64_t>(size.h, rows), count_),
          by_w_(ceil_div<int64_t>(size.w, columns), count_) {}

    __host__ __device__ int64_t count() const { return count_; }

    __device__ __forceinline__ PoolPlace at(int64_t item) const {
        PoolPlace place;
        if (pixels_) place.c = by_channel_.split(item) * vector_;
        place.w = static_cast<int>(by_w_.split(item)) * columns_;
        place.h = static_cast<int>(by_h_.split(item)) * rows_;
        place.d = static_cast<int>(by_d_.split(item));
        if (!pixels_) place.c = by_channel_.split(item) * vector_;
        place.n = item;
        return place;
    }

private:
    bool pixels_;  // channels vary fastest
    int rows_, columns_, vector_;
    int64_t count_;
    Divider by_channel_, by_d_, by_h_, by_w_;
};

__device__ __forceinline__ int64_t pool_item() { return static_cast<int64_t>(blockIdx.x) * kPoolThreads + threadIdx.x; }
inline dim3 pool_grid(int64_t items) { return dim3(static_cast<unsigned>(ceil_div<int64_t>(items, kPoolThreads))); }

// Whether the channels of a pixel lie side by side: threads then go along them.
inline bool pool_pixels(const PoolProblem& p) { return p.input.c == 1 && p.output.c == 1 && p.c > 1; }

// Whether a warp has enough to do with one output, and others have little use for what it reads.
inline bool pool_wide(const PoolProblem& p, const PoolWindows& g) {
    const int64_t elements = int64_t{g.d.longest_window()} * g.h.longest_window() * g.w.longest_window();
    return !pool_pixels(p) && elements >= warp_size && (g.h.adaptive || !g.h.overlaps());
}

// Whether vectors of so many channels are aligned at every pixel of these tensors.
template <class... Address>
bool pool_vectors(const PoolProblem& p, int vector, const Address*... addresses) {
    const auto whole = [vector](const Strides& s) {
        return s.n % vector == 0 && s.d % vector == 0 && s.h % vector == 0 && s.w % vector == 0;
    };
    return pool_pixels(p) && p.c % vector == 0 && whole(p.input) && whole(p.output) && all_aligned(16, addresses...);
}

// Folds the windows of outputs (at.h ... at.h + R - 1) into `folds`, which have been started, from the folds of their
// rows along the width: along_row(i, j, name). A Fold has start(), add(elements, name): the next elements of a row, and
// merge(fold): the next row. The names are those of the first of the R windows, and go on behind its end for the
// others.
template <int R, class Fold, class AlongRow>
__device__ __forceinline__ void fold_rows(const PoolWindows& g, const PoolPlace& at, const PoolNames& names,
                                          Fold (&folds)[R], const AlongRow& along_row) {
    const PoolSpan d = g.d.window(at.d);
    PoolSpan h[R];
#pragma unroll
    for (int r = 0; r < R; ++r) h[r] = g.h.window(min(at.h + r, g.h.out - 1));
    const int next_row = R == 1 ? g.h.dilation : 1;  // rows are shared where there is no dilation
    int slice = names.first();
    for (int i = d.begin; i < d.end; i += g.d.dilation, slice += names.d.step) {
        int first = slice;
        for (int j = h[0].begin; j < h[R - 1].end; j += next_row, first += names.h.step) {
            const Fold along = along_row(i, j, first);
#pragma unroll
            for (int r = 0; r < R; ++r)
                if (j >= h[r].begin && j < h[r].end) folds[r].merge(along);
        }
    }
}

// Folds the windows of one column, in V channels.
template <int V, int R, class T, class Fold>
__device__ __forceinline__ void fold_windows(const PoolWindows& g, const T* image, const PoolPlace& at,
                                             const PoolNames& names, Fold (&folds)[R]) {
    const PoolSpan w = g.w.window(at.w);
    fold_rows(g, at, names, folds, [&](int i, int j, int name) {
        const T* row = image + pool_offset(g.input, i, j, 0);
        Fold along;
        along.start();
        for (int k = w.begin; k < w.end; k += g.w.dilation, name += names.w.step)
            along.add(load_elements<V>(row + k * g.input.w), name);
        return along;
    });
}

// Folds the window of one output by a warp, which has started a fold in every lane; all of them get the result. A Fold
// has join(lane_bits): the fold of another lane, in no particular order.
template <class T, class Fold>
__device__ __forceinline__ void fold_wide_window(const PoolWindows& g, const T* image, const PoolPlace& at,
                                                 const PoolNames& names, Fold& fold) {
    const PoolSpan d = g.d.window(at.d), h = g.h.window(at.h), w = g.w.window(at.w);
    const int columns = ceil_div(w.end - w.begin, g.w.dilation);
    int i = d.begin, j = h.begin, k = lane_index();
    int slice = names.first(), row = slice;
    if (h.begin >= h.end || columns <= 0) i = d.end;  // nothing is inside
    while (i < d.end) {
        if (k < columns) {
            fold.add(load_elements<1>(image + pool_offset(g.input, i, j, w.begin + k * g.w.dilation)),
                     row + k * names.w.step);
            k += warp_size;
            continue;
        }
        k -= columns;
        j += g.h.dilation;
        row += names.h.step;
        if (j < h.end) continue;
        j = h.begin;
        i += g.d.dilation;
        slice += names.d.step;
        row = slice;
    }
#pragma unroll
    for (int bits = warp_size / 2; bits > 0; bits /= 2) fold.join(bits);
}

inline constexpr int kWarpsPerBlock = kPoolThreads / warp_size;
__device__ __forceinline__ int64_t pool_item_of_warp() {
    return static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + warp_index();
}
inline dim3 pool_grid_of_warps(int64_t items) {
    return dim3(static_cast<unsigned>(ceil_div<int64_t>(items, kWarpsPerBlock)));
}

}  // namespace pycv::cuda
