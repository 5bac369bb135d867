// The forward of pooling over its window's values, for an operation that folds them in any order (largest, sum):
// columns first, then along the row. What windows of neighbouring outputs share is folded once.
//
// Planes: the rows of a window fold into one row of columns, in vectors; outputs read it at the stride. Pixels
// (channels in the lanes): the same for a tile of outputs and a few vectors of channels where windows share enough,
// else the elements of a window one by one. Only for kernel files (ISA namespace).
#pragma once

#include "cost.h"
#include "pool.h"

namespace pycv::cpu::PYCV_ISA {

constexpr int64_t kPoolColumns = 1024;  // of a plane that are folded at a time
constexpr int64_t kPixelColumns = 17;   // of a tile of pixels

inline int64_t window_extent(const PoolAxis& a) {
    if (a.adaptive) return a.size / larger(a.out, 1) + 2;
    return (a.filter - 1) * a.dilation + 1;
}

// The rows of a window: how far apart they lie, and how many.
struct WindowRows {
    Span d, h;
    int64_t step_d, step_h;  // dilation
    Span next{0, 0};         // rows that the next row of outputs reads and this one does not, to be asked for
};

// Those of a problem whose tensors come from memory, where windows read several streams of short pieces: more than what
// a processor guesses.
template <class T>
inline Span next_rows(const PoolProblem& p, const PoolAxis& h, int64_t oh) {
    const int64_t bytes = p.n * p.c * (p.size.count() + p.out.count()) * static_cast<int64_t>(sizeof(T));
    if (static_cast<double>(bytes) <= kPastCaches || p.size.d > 1 || oh + 1 >= p.out.h) return {0, 0};
    const Span here = span(h, oh), next = span(h, oh + 1);
    return {larger(here.end, next.begin), next.end};
}

// One row of outputs of a plane whose rows are contiguous. inside(fold) finishes outputs whose window is complete along
// the row, edge(fold, o, window) any other.
template <class Fold, class T, class Inside, class Edge>
inline void fold_plane_row(const PoolAxis& w, Span complete, const Strides& s, const T* plane, const WindowRows& rows,
                           T* y, const Inside& inside, const Edge& edge) {
    T columns[kPoolColumns];
    for (int64_t o = 0, end; o < w.out; o = end) {
        const int64_t first = w.adaptive ? span(w, o).begin : larger(0, o * w.stride - w.padding);
        end = w.size <= kPoolColumns ? w.out : o + 1;
        while (end < w.out && span(w, end).end - first <= kPoolColumns) ++end;
        const auto fold_column = [&]<class V>(int64_t x) {
            V value = Fold::template start<V, T>();
            for (int64_t i = rows.d.begin; i < rows.d.end; i += rows.step_d)
                for (int64_t j = rows.h.begin; j < rows.h.end; j += rows.step_h)
                    value = Fold::add(value, load_row<V>(plane + offset(s, i, j, first + x)));
            store_row<V>(columns + x, value);
        };
        for_blocks<T, lanes<T>>(
            0, span(w, end - 1).end - first, [&]<int L>(int64_t x) { fold_column.template operator()<Row<T, L>>(x); },
            [&](int64_t x) { fold_column.template operator()<Row<T, 1>>(x); });

        const auto fold_edge = [&](int64_t q) {
            const Span window = span(w, q);
            Row<T, 1> value = Fold::template start<Row<T, 1>, T>();
            for (int64_t x = window.begin; x < window.end; x += w.dilation)
                value = Fold::add(value, load_row<Row<T, 1>>(columns + x - first));
            y[q] = edge(value[0], q, window);
        };
        const int64_t begin = smaller(larger(o, complete.begin), end);
        const int64_t behind = larger(smaller(end, complete.end), begin);
        for (int64_t q = o; q < begin; ++q) fold_edge(q);
        const auto fold_outputs = [&]<int L, int Stride>(int64_t q) {
            const T* from = columns + q * w.stride - w.padding - first;
            Row<T, L> value = Fold::template start<Row<T, L>, T>();
            for (int64_t k = 0; k < w.filter; ++k)
                value = Fold::add(value, load_strided<T, L, Stride>(from + k * w.dilation, w.stride));
            store_row<Row<T, L>>(y + q, inside(value));
        };
        switch (w.stride) {
            case 1:
                for_blocks<T, lanes<T>>(
                    begin, behind, [&]<int L>(int64_t q) { fold_outputs.template operator()<L, 1>(q); }, fold_edge);
                break;
            case 2:
                for_blocks<T, lanes<T>>(
                    begin, behind, [&]<int L>(int64_t q) { fold_outputs.template operator()<L, 2>(q); }, fold_edge);
                break;
            default:
                for_blocks<T, lanes<T>>(
                    begin, behind, [&]<int L>(int64_t q) { fold_outputs.template operator()<L, 0>(q); }, fold_edge);
        }
        for (int64_t q = behind; q < end; ++q) fold_edge(q);
    }
}

// N vectors of L channels of one pixel's window.
template <class Fold, int L, class V, int N, class T>
inline void fold_window(const T* image, const Strides& s, const WindowRows& rows, Span w, int64_t step_w,
                        V (&value)[N]) {
    for (int v = 0; v < N; ++v) value[v] = Fold::template start<V, T>();
    for (int64_t i = rows.d.begin; i < rows.d.end; i += rows.step_d)
        for (int64_t j = rows.h.begin; j < rows.h.end; j += rows.step_h)
            for (int64_t k = w.begin; k < w.end; k += step_w) {
                const T* at = image + offset(s, i, j, k);
                for (int v = 0; v < N; ++v) value[v] = Fold::add(value[v], load_row<V>(at + v * L));
            }
}

// How many outputs of a row of pixels share a tile's columns; 1 where folding columns first is no less work.
inline int64_t pixel_tile(const PoolAxis& h, const PoolAxis& w) {
    const int64_t extent = window_extent(w);
    if (w.adaptive || w.dilation != 1 || extent > kPixelColumns) return 1;
    // Per output, of elements, and of columns that are stored and read again.
    if (h.filter * w.filter <= h.filter * w.stride + w.stride + w.filter) return 1;
    return (kPixelColumns - extent) / w.stride + 1;
}

// N vectors of L channels of outputs [o, end) of a row of pixels; finish(o)(v, fold) takes the results.
template <class Fold, int L, int N, class T, class Finish>
inline void fold_pixels(const T* image, const PoolAxis& w, const Strides& s, const WindowRows& rows, int64_t o,
                        int64_t end, const Finish& finish) {
    using V = Row<T, L>;
    if (end - o == 1) {
        V value[N];
        fold_window<Fold, L>(image, s, rows, span(w, o), w.dilation, value);
        for (int v = 0; v < N; ++v) finish(o)(v, value[v]);
        return;
    }
    V columns[kPixelColumns][N];
    const int64_t first = span(w, o).begin, count = span(w, end - 1).end - first;
    for (int64_t x = 0; x < count; ++x)
        fold_window<Fold, L>(image, s, rows, Span{first + x, first + x + 1}, 1, columns[x]);
    for (int64_t q = o; q < end; ++q) {
        const Span window = span(w, q);
        const auto put = finish(q);
        for (int v = 0; v < N; ++v) {
            V value = Fold::template start<V, T>();
            for (int64_t x = window.begin; x < window.end; ++x) value = Fold::add(value, columns[x - first][v]);
            put(v, value);
        }
    }
}

// The elements of a small window of pixels: channel 0 of each. Channels follow as they lie in a pixel.
constexpr int64_t kListed = 16;
template <class T>
struct ListedWindow {
    const T* at[kListed];
    int64_t count = 0;  // 0: none, or too many

    ListedWindow(const T* image, const Strides& s, const WindowRows& rows, Span w, int64_t step_w) {
        for (int64_t i = rows.d.begin; i < rows.d.end; i += rows.step_d)
            for (int64_t j = rows.h.begin; j < rows.h.end; j += rows.step_h)
                for (int64_t k = w.begin; k < w.end; k += step_w) {
                    if (count == kListed) {
                        count = 0;
                        return;
                    }
                    at[count++] = image + offset(s, i, j, k);
                }
    }
};

template <class Fold, int L, int N, class T, class Put>
inline void fold_listed(const ListedWindow<T>& window, int64_t channel, const Put& put) {
    using V = Row<T, L>;
    V value[N];
    for (int v = 0; v < N; ++v) value[v] = Fold::template start<V, T>();
    for (int64_t i = 0; i < window.count; ++i)
        for (int v = 0; v < N; ++v) value[v] = Fold::add(value[v], load_row<V>(window.at[i] + channel + v * L));
    for (int v = 0; v < N; ++v) put(v, value[v]);
}

// Covers the channels of a pixel with vectors of L <= channels lanes, 4 at a time: group<N>(first channel). The last
// one overlaps its neighbour.
template <int L, class Group>
inline void each_group(int64_t channels, const Group& group) {
    int64_t c = 0;
    for (; c + 4 * L <= channels; c += 4 * L) group.template operator()<4>(c);
    for (; c + L <= channels; c += L) group.template operator()<1>(c);
    if (c < channels) group.template operator()<1>(channels - L);
}

// Every cache line of the pixels of a rectangle.
template <class T>
inline void ask_for(const T* image, int64_t channels, const Strides& s, Span rows, Span columns) {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    for (int64_t j = rows.begin; j < rows.end; ++j)
        for (int64_t k = columns.begin; k < columns.end; ++k)
            for (int64_t c = 0; c < channels; c += kLine) __builtin_prefetch(image + offset(s, 0, j, k) + c);
}

// Every vector of L <= channels channels of every output of a row of pixels. finish(o) gives what takes the results of
// an output: put(channel, fold).
template <class Fold, int L, class T, class Finish>
inline void fold_pixel_row(const T* image, int64_t channels, const PoolAxis& h, const PoolAxis& w, const Strides& s,
                           const WindowRows& rows, const Finish& finish) {
    const int64_t tile = pixel_tile(h, w);
    for (int64_t o = 0; o < w.out; o += tile) {
        const int64_t end = smaller(o + tile, w.out);
        if (rows.next.begin < rows.next.end)
            ask_for(image, channels, s, rows.next, {span(w, o).begin, span(w, end - 1).end});
        if (end - o == 1) {
            const ListedWindow<T> window(image, s, rows, span(w, o), w.dilation);
            if (window.count > 0) {
                const auto put = finish(o);
                each_group<L>(channels, [&]<int N>(int64_t c) {
                    fold_listed<Fold, L, N>(window, c, [&](int v, Row<T, L> value) { put(c + v * L, value); });
                });
                continue;
            }
        }
        each_group<L>(channels, [&]<int N>(int64_t c) {
            fold_pixels<Fold, L, N>(image + c, w, s, rows, o, end, [&](int64_t q) {
                return [c, put = finish(q)](int v, Row<T, L> value) { put(c + v * L, value); };
            });
        });
    }
}

// The channels of a tensor as runs that are contiguous in every pixel: all of them in nhwc, a block in nchw8c and
// nchw16c; none otherwise.
struct ChannelRuns {
    int64_t runs, channels, input_step, output_step;

    explicit ChannelRuns(const PoolProblem& p) : runs(1), channels(p.c), input_step(0), output_step(0) {
        if (p.input.block > 1) {
            runs = divide_up(p.c, p.input.block);
            channels = p.input.block;
            input_step = p.input.c;
            output_step = p.output.c;
        } else if (p.input.c != 1 || p.output.c != 1 || p.c == 1) {
            runs = 0;
        }
    }
    // Lanes of run r that belong to no channel of c.
    Span padding(int64_t r, int64_t c) const { return {smaller(channels, c - r * channels), channels}; }
};

// Writes 0 to the padding lanes of a row of pixels.
template <class T>
inline void clear_lanes(T* row, int64_t count, int64_t pixel, Span lanes_of_pixel) {
    for (int64_t c = lanes_of_pixel.begin; c < lanes_of_pixel.end; ++c)
        for (int64_t o = 0; o < count; ++o) row[o * pixel + c] = T(0);
}

}  // namespace pycv::cpu::PYCV_ISA
