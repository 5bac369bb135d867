// Convolution tensors as operands of a matrix product (gemm_panels.h): the im2col matrix, which exists only in packed
// panels, and the weight.
//
// The im2col matrix has one index per position of the computed grid (n, d, h, w flattened) and one per source channel and
// tap. It is read along whichever of the two is contiguous in the source: along w (nchw), then channels are the slow
// part of the other index, [c][tap]; or along c (nhwc), then they are its fast part, [tap][c]. Taps outside the source
// read 0.
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
    int64_t at;                              // offset of the first position's element in the source
    int64_t d, h, w;                         // source coordinates of the first position
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
    bool positions_are_depth;                // grad_weight

    bool k_contiguous() const { return positions_are_depth; }

    void copy(T* to, int64_t to_stride, Range x, Range y) const {
        GridRun runs[kPackChunk];
        for (int64_t begin = y.begin; begin < y.end; begin += kPackChunk) {
            const int count = grid_runs(source, {begin, smaller(y.end, begin + kPackChunk)}, runs);
            TapCounter tap(source.gather, x.begin);
            for (int64_t i = x.begin; i < x.end; ++i, tap.next())
                copy_tap(to + (i - x.begin) * to_stride + (begin - y.begin), runs, count, tap);
        }
    }

    void copy_tap(T* to, const GridRun* runs, int count, const TapCounter& tap) const {
        const Gather& g = source.gather;
        const Strides& s = source.strides;
        const int64_t od = g.d.source(0, tap.d), oh = g.h.source(0, tap.h), ow = g.w.source(0, tap.w);
        const T* from = source.data + tap.c * s.c + od * s.d + oh * s.h + ow * s.w;
        const int64_t step = g.w.source_step;
        for (int r = 0; r < count; ++r) {
            const GridRun& run = runs[r];
            int64_t low = 0, high = 0;
            if (g.d.inside(run.d + od) && g.h.inside(run.h + oh)) {
                const int64_t first = run.w + ow;
                high = run.length;
                if (first + (high - 1) * step >= g.w.source_size)
                    high = g.w.source_size > first ? divide_up(g.w.source_size - first, step) : 0;
                if (first < 0) low = smaller(divide_up(-first, step), high);
            }
            zero_run(to, low);
            copy_strided<T>(to + low, from + run.at + low * step * s.w, high - low, step * s.w);
            zero_run(to + high, run.length - high);
            to += run.length;
        }
    }
};

// The im2col matrix read along channels: x = position, y = [tap][c].
template <class T>
struct ChannelRuns {
    GatherSource<T> source;
    bool positions_are_depth;                // grad_weight

    bool k_contiguous() const { return !positions_are_depth; }

    // Taps along w whose channels follow each other in memory count as one run of channels.
    bool rows_of_taps() const {
        return source.gather.w.offset_step == 1 && source.strides.w == source.channels;
    }

    void copy(T* to, int64_t to_stride, Range x, Range y) const {
        GridRun runs[kPackChunk];
        const Gather& g = source.gather;
        for (int64_t begin = x.begin; begin < x.end; begin += kPackChunk) {
            const int count = grid_runs(source, {begin, smaller(x.end, begin + kPackChunk)}, runs);
            for (int r = 0; r < count; ++r)
                for (int64_t j = 0; j < runs[r].length; ++j, to += to_stride) {
                    const int64_t step = j * g.w.source_step;
                    const GridRun position{1, runs[r].at + step * source.strides.w, runs[r].d, runs[r].h,
                                           runs[r].w + step};
                    if (rows_of_taps()) {
                        copy_tap_rows(to, position, y);
                    } else {
                        copy_taps(to, position, y);
                    }
                }
        }
    }

    // y in [d][h] rows of [w][c].
    void copy_tap_rows(T* to, const GridRun& position, Range y) const {
        const Gather& g = source.gather;
        const Strides& s = source.strides;
        const int64_t row = g.w.taps * source.channels;
        const int64_t first = position.w + g.w.offset_first;
        const int64_t low = smaller(g.w.taps, larger(0, -first)) * source.channels;
        const int64_t high = larger(0, smaller(g.w.taps, g.w.source_size - first)) * source.channels;
        int64_t begin = y.begin % row;
        int64_t h = y.begin / row % g.h.taps, d = y.begin / row / g.h.taps;
        for (int64_t left = y.end - y.begin; left > 0; begin = 0) {
            const int64_t length = smaller(left, row - begin);
            const int64_t sd = position.d + g.d.source(0, d), sh = position.h + g.h.source(0, h);
            if (g.d.inside(sd) && g.h.inside(sh)) {
                const int64_t from = smaller(larger(low - begin, 0), length);
                const int64_t end = larger(smaller(high - begin, length), from);
                zero_run(to, from);
                copy_run<T>(to + from,
                            source.data + position.at + g.d.source(0, d) * s.d + g.h.source(0, h) * s.h +
                                g.w.offset_first * s.w + begin + from,
                            end - from);
                zero_run(to + end, length - end);
            } else {
                zero_run(to, length);
            }
            to += length;
            left -= length;
            if (++h == g.h.taps) h = 0, ++d;
        }
    }

    void copy_taps(T* to, const GridRun& position, Range y) const {
        const Gather& g = source.gather;
        const Strides& s = source.strides;
        int64_t begin = y.begin % source.channels;
        TapCounter tap(g, y.begin / source.channels);
        for (int64_t left = y.end - y.begin; left > 0; begin = 0, tap.next()) {
            const int64_t length = smaller(left, source.channels - begin);
            const int64_t od = g.d.source(0, tap.d), oh = g.h.source(0, tap.h), ow = g.w.source(0, tap.w);
            if (g.d.inside(position.d + od) && g.h.inside(position.h + oh) && g.w.inside(position.w + ow)) {
                copy_strided<T>(to,
                                source.data + position.at + od * s.d + oh * s.h + ow * s.w + begin * s.c,
                                length, s.c);
            } else {
                zero_run(to, length);
            }
            to += length;
            left -= length;
        }
    }
};

// A weight's [c][tap] or [tap][c] index as up to four nested axes, neighbours in memory merged.
struct TapAxes {
    int count = 0;
    int64_t size[4], stride[4];              // innermost first

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

// A weight: index = computed channel, depth = the [c][tap] or [tap][c] index of the im2col matrix.
template <class T>
struct WeightOperand {
    const T* data;                           // of the group, at the phase's first filter position
    int64_t channel_stride;
    TapAxes axes;

    bool k_contiguous() const { return channel_stride != 1; }

    void copy(T* to, int64_t to_stride, Range x, Range y) const {
        if (k_contiguous()) {
            for (int64_t i = x.begin; i < x.end; ++i)
                copy_depth(to + (i - x.begin) * to_stride, data + i * channel_stride, y);
            return;
        }
        for (int64_t k = x.begin; k < x.end; ++k) {
            int64_t rest = k, at = 0;
            for (int axis = 0; axis < axes.count; ++axis) {
                at += rest % axes.size[axis] * axes.stride[axis];
                rest /= axes.size[axis];
            }
            copy_run<T>(to + (k - x.begin) * to_stride, data + at + y.begin, y.end - y.begin);
        }
    }

    void copy_depth(T* to, const T* from, Range y) const {
        for (int64_t k = y.begin; k < y.end;) {
            int64_t rest = k / axes.size[0], at = 0;
            for (int axis = 1; axis < axes.count; ++axis) {
                at += rest % axes.size[axis] * axes.stride[axis];
                rest /= axes.size[axis];
            }
            const int64_t begin = k % axes.size[0];
            const int64_t length = smaller(axes.size[0] - begin, y.end - k);
            copy_strided<T>(to, from + at + begin * axes.stride[0], length, axes.stride[0]);
            to += length;
            k += length;
        }
    }
};

}  // namespace pycv::cpu::PYCV_ISA
