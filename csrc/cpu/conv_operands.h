// Convolution tensors as operands of a matrix product (gemm_panels.h): the im2col matrix, which exists only in packed
// panels, and the weight.
//
// The im2col matrix has one index per position of the computed grid (n, d, h, w flattened) and one per source channel
// and tap. It is read along whichever of the two is contiguous in the source: along w (nchw), then channels are the
// slow part of the other index, [c][tap]; or along c (nhwc), then they are its fast part, [tap][c]. Taps outside the
// source read 0, which is multiplied like any other value: as in torch's own im2col, an infinite weight gives NaN
// there.
#pragma once

#include "conv_gather.h"
#include "gemm_panels.h"

namespace pycv::cpu::PYCV_ISA {

// The source of a gather for one group: data, strides, channels.
template <class T>
struct GatherSource {
    const T* data;
    Strides strides;
    int64_t channels;
    Gather gather;
};

// A run of positions in one row of the grid, at tap offset 0.
struct GridRun {
    int64_t length;
    int64_t at;       // offset of the first position's element in the source
    int64_t d, h, w;  // source coordinates of the first position
};

// The positions [begin, end) of the flattened grid as runs. Fits wherever end - begin runs fit.
template <class T>
inline int grid_runs(const GatherSource<T>& source, Range positions, GridRun* runs) {
    const Gather& g = source.gather;
    int64_t rest = positions.begin;
    int64_t w = rest % g.w.count;
    rest /= g.w.count;
    int64_t h = rest % g.h.count;
    rest /= g.h.count;
    int64_t d = rest % g.d.count;
    int64_t n = rest / g.d.count;
    int count = 0;
    for (int64_t left = positions.end - positions.begin; left > 0;) {
        const int64_t length = smaller(left, g.w.count - w);
        const int64_t sd = d * g.d.source_step, sh = h * g.h.source_step, sw = w * g.w.source_step;
        const Strides& s = source.strides;
        runs[count++] = {length, n * s.n + sd * s.d + sh * s.h + sw * s.w, sd, sh, sw};
        left -= length;
        w = 0;
        if (++h < g.h.count) continue;
        h = 0;
        if (++d < g.d.count) continue;
        d = 0;
        ++n;
    }
    return count;
}

// Counts through [c][d][h][w] of channels and taps.
struct TapCounter {
    const Gather& g;
    int64_t c, d, h, w;

    TapCounter(const Gather& gather, int64_t index) : g(gather) {
        w = index % g.w.taps;
        index /= g.w.taps;
        h = index % g.h.taps;
        index /= g.h.taps;
        d = index % g.d.taps;
        c = index / g.d.taps;
    }
    void next() {
        if (++w < g.w.taps) return;
        w = 0;
        next_row();
    }
    void next_row() {
        if (++h < g.h.taps) return;
        h = 0;
        if (++d < g.d.taps) return;
        d = 0;
        ++c;
    }
};

// The im2col matrix read along grid positions: x = [c][tap], y = position.
template <class T>
struct PositionRuns {
    GatherSource<T> source;
    bool positions_are_depth;  // grad_weight

    bool k_contiguous() const { return positions_are_depth; }

    void copy(T* to, int64_t to_stride, Range x, Range y) const {
        if (source.gather.w.source_step == 1 && source.strides.w == 1) {
            copy_taps<true>(to, to_stride, x, y);
        } else {
            copy_taps<false>(to, to_stride, x, y);
        }
    }

    template <bool Neighbours>
    void copy_taps(T* to, int64_t to_stride, Range x, Range y) const {
        GridRun runs[kPackChunk];
        for (int64_t begin = y.begin; begin < y.end; begin += kPackChunk) {
            const int count = grid_runs(source, {begin, smaller(y.end, begin + kPackChunk)}, runs);
            TapCounter tap(source.gather, x.begin);
            for (int64_t i = x.begin; i < x.end; ++i, tap.next())
                copy_tap<Neighbours>(to + (i - x.begin) * to_stride + (begin - y.begin), runs, count, tap);
        }
    }

    template <bool Neighbours>
    void copy_tap(T* to, const GridRun* runs, int count, const TapCounter& tap) const {
        const Gather& g = source.gather;
        const Strides& s = source.strides;
        const int64_t od = g.d.source(0, tap.d), oh = g.h.source(0, tap.h), ow = g.w.source(0, tap.w);
        const T* from = source.data + tap.c * s.c + od * s.d + oh * s.h + ow * s.w;
        const int64_t step = Neighbours ? 1 : g.w.source_step;
        for (int r = 0; r < count; ++r) {
            const GridRun& run = runs[r];
            int64_t low = 0, high = 0;
            if (g.d.inside(run.d + od) && g.h.inside(run.h + oh)) {
                const int64_t first = run.w + ow;
                high = run.length;
                if (first + (high - 1) * step >= g.w.source_size)
                    high = larger(0, positions(g.w.source_size - first, step));
                if (first < 0) low = smaller(positions(-first, step), high);
            }
            const T* begin = from + run.at + low * step * (Neighbours ? 1 : s.w);
            if (Neighbours) {
                copy_run<T>(to + low, begin, high - low);
            } else {
                copy_strided<T>(to + low, begin, high - low, step * s.w);
            }
            if (high - low < run.length) {
                zero_run(to, low);
                zero_run(to + high, run.length - high);
            }
            to += run.length;
        }
    }

    // How many steps it takes to cover a distance.
    static int64_t positions(int64_t distance, int64_t step) {
        return step == 1 || distance <= 0 ? distance : divide_up(distance, step);
    }
};

// The im2col matrix read along channels: x = position, y = [tap][c].
template <class T>
struct ChannelRuns {
    GatherSource<T> source;
    bool positions_are_depth;  // grad_weight

    bool k_contiguous() const { return !positions_are_depth; }

    // Taps along w whose channels follow each other in memory count as one run of channels.
    bool rows_of_taps() const { return source.gather.w.offset_step == 1 && source.strides.w == source.channels; }

    void copy(T* to, int64_t to_stride, Range x, Range y) const {
        GridRun runs[kPackChunk];
        const Gather& g = source.gather;
        const bool rows = rows_of_taps();
        const int64_t inner = rows ? g.w.taps * source.channels : source.channels;
        const int64_t first_tap = y.begin / inner * (rows ? g.w.taps : 1);
        const TapCounter tap(g, first_tap);
        const bool plain = is_plain(g.d) && is_plain(g.h) && is_plain(g.w);
        for (int64_t begin = x.begin; begin < x.end; begin += kPackChunk) {
            const int count = grid_runs(source, {begin, smaller(x.end, begin + kPackChunk)}, runs);
            if (plain) {
                const Strides& s = source.strides;
                const T* from =
                    source.data + g.d.offset_first * s.d + g.h.offset_first * s.h + g.w.offset_first * s.w + y.begin;
                for (int r = 0; r < count; to += runs[r].length * to_stride, ++r)
                    copy_pixels(to, to_stride, from + runs[r].at, runs[r].length, y.end - y.begin);
                continue;
            }
            for (int r = 0; r < count; ++r) {
                if (rows) {
                    copy_tap_rows(to, to_stride, runs[r], tap, y.begin % inner, y.end - y.begin);
                } else {
                    for (int64_t j = 0; j < runs[r].length; ++j)
                        copy_taps(to + j * to_stride, position(runs[r], j), tap, y.begin % inner, y.end - y.begin);
                }
                to += runs[r].length * to_stride;
            }
        }
    }

    GridRun position(const GridRun& run, int64_t index) const {
        const int64_t step = index * source.gather.w.source_step;
        return {1, run.at + step * source.strides.w, run.d, run.h, run.w + step};
    }

    // The same channels of neighbouring pixels, for a gather of one tap and no padding.
    void copy_pixels(T* to, int64_t to_stride, const T* from, int64_t pixels, int64_t channels) const {
        const int64_t from_stride = source.gather.w.source_step * source.strides.w;
        for (int64_t i = 0; i < pixels; ++i) copy_run<T>(to + i * to_stride, from + i * from_stride, channels);
    }

    // For every position of a run, `count` elements from element `begin` of a tap row on, the elements of a tap row
    // being [w][c].
    void copy_tap_rows(T* to, int64_t to_stride, const GridRun& run, TapCounter tap, int64_t begin,
                       int64_t count) const {
        const Gather& g = source.gather;
        const Strides& s = source.strides;
        const T* data = source.data + run.at + g.w.offset_first * s.w;
        for (; count > 0; begin = 0, tap.next_row()) {
            const int64_t length = smaller(count, g.w.taps * source.channels - begin);
            const int64_t od = g.d.source(0, tap.d), oh = g.h.source(0, tap.h);
            if (g.d.inside(run.d + od) && g.h.inside(run.h + oh)) {
                copy_tap_row(to, to_stride, run, data + od * s.d + oh * s.h, begin, length);
            } else {
                for (int64_t j = 0; j < run.length; ++j) zero_run(to + j * to_stride, length);
            }
            to += length;
            count -= length;
        }
    }

    void copy_tap_row(T* to, int64_t to_stride, const GridRun& run, const T* from, int64_t begin,
                      int64_t length) const {
        const AxisGather& w = source.gather.w;
        for (int64_t j = 0; j < run.length; ++j, to += to_stride, from += w.source_step * source.strides.w) {
            const int64_t first = run.w + j * w.source_step + w.offset_first;
            if (first >= 0 && first + w.taps <= w.source_size) {
                copy_run<T>(to, from + begin, length);
                continue;
            }
            const int64_t low = larger(0, -first) * source.channels;
            const int64_t high = (w.source_size - first) * source.channels;
            const int64_t start = smaller(larger(low - begin, 0), length);
            const int64_t end = larger(smaller(high - begin, length), start);
            zero_run(to, start);
            copy_run<T>(to + start, from + begin + start, end - start);
            zero_run(to + end, length - end);
        }
    }

    // `count` elements from channel `begin` of a tap on.
    void copy_taps(T* to, const GridRun& position, TapCounter tap, int64_t begin, int64_t count) const {
        const Gather& g = source.gather;
        const Strides& s = source.strides;
        const T* from = source.data + position.at;
        for (; count > 0; begin = 0, tap.next()) {
            const int64_t length = smaller(count, source.channels - begin);
            const int64_t od = g.d.source(0, tap.d), oh = g.h.source(0, tap.h), ow = g.w.source(0, tap.w);
            if (g.d.inside(position.d + od) && g.h.inside(position.h + oh) && g.w.inside(position.w + ow)) {
                copy_run<T>(to, from + od * s.d + oh * s.h + ow * s.w + begin, length);
            } else {
                zero_run(to, length);
            }
            to += length;
            count -= length;
        }
    }
};

// A weight's [c][tap] or [tap][c] index as up to four nested axes, neighbours in memory merged.
struct TapAxes {
    int count = 0;
    int64_t size[4], stride[4];  // innermost first

    void add(int64_t axis_size, int64_t axis_stride) {
        if (axis_size == 1 && count > 0) return;
        if (count > 0 && axis_stride == stride[count - 1] * size[count - 1]) {
            size[count - 1] *= axis_size;
            return;
        }
        if (count == 1 && size[0] == 1) count = 0;
        size[count] = axis_size;
        stride[count] = axis_stride;
        ++count;
    }
};

inline TapAxes tap_axes(const Gather& g, const Strides& weight, int64_t channels, bool channels_inside) {
    TapAxes axes;
    if (channels_inside) axes.add(channels, weight.c);
    axes.add(g.w.taps, g.w.filter_step * weight.w);
    axes.add(g.h.taps, g.h.filter_step * weight.h);
    axes.add(g.d.taps, g.d.filter_step * weight.d);
    if (!channels_inside) axes.add(channels, weight.c);
    return axes;
}

// Counts through nested axes, keeping the offset in memory.
struct TapCursor {
    const TapAxes& axes;
    int64_t position[4], at;

    TapCursor(const TapAxes& nested, int64_t index) : axes(nested), at(0) {
        for (int axis = 0; axis < axes.count; ++axis) {
            position[axis] = index % axes.size[axis];
            index /= axes.size[axis];
            at += position[axis] * axes.stride[axis];
        }
    }
    // Moves on by `steps`, which lead at most to the end of the innermost axis.
    void advance(int64_t steps) {
        position[0] += steps;
        at += steps * axes.stride[0];
        for (int axis = 0; axis + 1 < axes.count && position[axis] == axes.size[axis]; ++axis) {
            at += axes.stride[axis + 1] - axes.size[axis] * axes.stride[axis];
            position[axis] = 0;
            ++position[axis + 1];
        }
    }
};

// A weight: index = computed channel, depth = the [c][tap] or [tap][c] index of the im2col matrix.
template <class T>
struct WeightOperand {
    const T* data;  // of the group, at the phase's first filter position
    int64_t channel_stride;
    TapAxes axes;

    // Short runs along the depth lose to strided reads along close channels (grad_input of a small filter).
    bool k_contiguous() const {
        constexpr int64_t kShortRun = 16, kCloseChannels = 64;
        const int64_t run = axes.stride[0] == 1 ? axes.size[0] : 1;
        return channel_stride != 1 && (run >= kShortRun || channel_stride > kCloseChannels);
    }

    void copy(T* to, int64_t to_stride, Range x, Range y) const {
        if (k_contiguous()) {
            for (int64_t i = x.begin; i < x.end; ++i)
                copy_depth(to + (i - x.begin) * to_stride, data + i * channel_stride, y);
            return;
        }
        TapCursor cursor(axes, x.begin);
        for (int64_t k = x.begin; k < x.end; ++k, cursor.advance(1), to += to_stride)
            copy_strided<T>(to, data + cursor.at + y.begin * channel_stride, y.end - y.begin, channel_stride);
    }

    void copy_depth(T* to, const T* from, Range y) const {
        TapCursor cursor(axes, y.begin);
        for (int64_t left = y.end - y.begin; left > 0;) {
            const int64_t length = smaller(axes.size[0] - cursor.position[0], left);
            copy_strided<T>(to, from + cursor.at, length, axes.stride[0]);
            cursor.advance(length);
            to += length;
            left -= length;
        }
    }
};

}  // namespace pycv::cpu::PYCV_ISA
