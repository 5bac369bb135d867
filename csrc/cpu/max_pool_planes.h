// max_pool with indices over planes, lanes along the outputs of a plane across its rows.
//
// A tile of outputs reads a copy of its inputs that is padded with -inf and split by the remainders modulo the strides:
// cell (q, x) of part (j, k) is input (q * stride + j, x * stride + k) of the tile. The rows of a part follow each
// other, so that a tap of the window is one shift for all outputs of the tile, and vectors run over its rows' ends:
// whatever the width, all lanes but those of the few cells at the end of a row give outputs. Where no NaN is about, a
// tap costs a comparison and two blends per vector, and a window of 3x3 at stride 2 about 4 instructions per output.
// Only for kernel files (ISA namespace).
#pragma once

#include <limits>

#include "byte_vectors.h"
#include "integers.h"
#include "norm.h"
#include "pool.h"
#include "tap_tile.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

template <class T>
class IndexedPlanes {
public:
    IndexedPlanes(const PoolProblem& p, const PoolAxes& axes)
        : p_(p), axes_(axes), parts_h_(parts(axes.h)), parts_w_(parts(axes.w)) {
        const int64_t farthest = (reach(axes.d) * p.size.h + reach(axes.h)) * p.size.w + reach(axes.w);
        const bool taken = p.input.w == 1 && p.output.w == 1 && !axes.d.adaptive && !axes.h.adaptive &&
                           !axes.w.adaptive && farthest <= std::numeric_limits<IndexOf<T>>::max();
        for (columns_ = smaller(axes.w.out, kColumns); taken && columns_ > 0; columns_ /= 2) {
            cells_ = columns_ + reach(axes.w) / axes.w.stride;
            const int64_t classes = parts_h_ * parts_w_, more = reach(axes.h) / axes.h.stride;
            const int64_t room = kElements - classes * (more * cells_ + kSpill) - 2 * kSpill;
            rows_ = smaller(room / ((classes + 2) * cells_), axes.h.out);
            if (rows_ > 0) break;
        }
        if (rows_ > 0) make_taps();
        for (int l = 0; l < lanes<int64_t>; ++l) steps_[l] = l * axes.w.stride;
    }
    ~IndexedPlanes() { delete[] taps_; }
    IndexedPlanes(const IndexedPlanes&) = delete;
    IndexedPlanes& operator=(const IndexedPlanes&) = delete;

    // Whether the planes of this problem can be taken so: rows that lie side by side, windows of one shape.
    bool fits() const { return rows_ > 0; }

    // One plane. one(d, h, w) writes the output of a window that has nothing above -inf. Index is uint8_t where the
    // problem has offsets.
    template <class Index, class One>
    void run(const T* x, T* y, Index* indices, const One& one) const {
        T copy[kElements];
        for (int64_t d = 0; d < axes_.d.out; ++d)
            for (int64_t h = 0; h < axes_.h.out; h += rows_)
                for (int64_t w = 0; w < axes_.w.out; w += columns_)
                    tile(x, {d, h, w, smaller(rows_, axes_.h.out - h), smaller(columns_, axes_.w.out - w)}, copy, y,
                         indices, one);
    }

private:
    using V = Vec<T>;
    using I = Row<IndexOf<T>, lanes<T>>;
    static constexpr int kLanes = lanes<T>;
    static constexpr int64_t kElements = (24 << 10) / sizeof(T);  // of the copy and the results: most of a usual L1
    static constexpr int64_t kColumns = 256;
    static constexpr int64_t kSpill = 2 * kLanes;  // what vectors may write and read beyond
    static constexpr T kLowest = -std::numeric_limits<T>::infinity();

    // An element of the window: where its cells lie, and its name: its distance from the window's first in the plane,
    // or its number.
    struct Tap {
        int64_t offset;
        IndexOf<T> name;
    };

    // Outputs (d, h..., w...).
    struct Tile {
        int64_t d, h, w, rows, columns;
    };

    static int64_t reach(const PoolAxis& a) { return (a.filter - 1) * a.dilation; }
    static int64_t parts(const PoolAxis& a) { return smaller(a.stride, reach(a) + 1); }
    int64_t part_elements() const { return (rows_ + reach(axes_.h) / axes_.h.stride) * cells_ + kSpill; }

    void make_taps() {
        const PoolAxis &h = axes_.h, &w = axes_.w;
        taps_ = new Tap[static_cast<size_t>(h.filter * w.filter)];
        Tap* tap = taps_;
        for (int64_t j = 0; j < reach(h) + 1; j += h.dilation)
            for (int64_t k = 0; k < reach(w) + 1; k += w.dilation) {
                const int64_t part = j % h.stride * parts_w_ + k % w.stride;
                const int64_t name = offsets() ? tap - taps_ : j * p_.size.w + k;
                *tap++ = {part * part_elements() + j / h.stride * cells_ + k / w.stride, static_cast<IndexOf<T>>(name)};
            }
    }

    bool offsets() const { return p_.indices == Indices::offset; }

    template <class Index, class One>
    void tile(const T* x, const Tile& t, T* copy, T* y, Index* indices, const One& one) const {
        const int64_t count = t.rows * cells_;
        T* best = copy + parts_h_ * parts_w_ * part_elements();
        IndexOf<T>* where = reinterpret_cast<IndexOf<T>*>(best + rows_ * cells_ + kSpill);
        const PoolAxis& axis = axes_.d;
        const Span d = span(axis, t.d);
        for (int64_t i = d.begin; i < d.end; i += axis.dilation) {
            const bool nan = fill(x + i * p_.input.d, t, copy);
            const int64_t distance = i - t.d * axis.stride + axis.padding;
            const IndexOf<T> slice =
                static_cast<IndexOf<T>>(offsets() ? distance / axis.dilation * axes_.h.filter * axes_.w.filter
                                                  : distance * p_.size.h * p_.size.w);
            const auto fold_group = [&]<int N>(int64_t at) {
                nan ? fold<N, true>(copy + at, slice, i == d.begin, best + at, where + at)
                    : fold<N, false>(copy + at, slice, i == d.begin, best + at, where + at);
            };
            int64_t at = 0;
            for (; at + 3 * kLanes < count; at += 4 * kLanes) fold_group.template operator()<4>(at);
            for (; at < count; at += kLanes) fold_group.template operator()<1>(at);
        }
        if (d.begin < d.end && write(t, best, where, y, indices)) return;
        for (int64_t r = 0; r < t.rows; ++r)
            for (int64_t o = 0; o < t.columns; ++o)
                if (d.begin >= d.end || where[r * cells_ + o] < 0) one(t.d, t.h + r, t.w + o);
    }

    // ------------------------------------------------------------------------------------------------- the copy

    // The rows of a tile's inputs: a row's pointer is that of the tile's first input, inside the row or not.
    struct Source {
        const T* end;    // of what may be read: the end of the plane
        Span even, odd;  // the cells inside the input: of the first part, and of the second
    };

    // Of everything that was copied.
    struct Sum {
        V one{}, other{};
        T single = 0;

        bool is_nan() const {
            const T total = horizontal_sum<T>(one + other) + single;
            return total != total;
        }
    };

    // Copies what the tile reads of a slice. Whether there may be NaN in it: their sum is one then (and with infinities
    // of both signs).
    bool fill(const T* slice, const Tile& t, T* to) const {
        const PoolAxis &h = axes_.h, &w = axes_.w;
        const Source source{slice + (h.size - 1) * p_.input.h + w.size, inside(t.w, 0), inside(t.w, 1)};
        Sum sum;
        const int64_t rows = t.rows + reach(h) / h.stride;
        for (int64_t j = 0; j < parts_h_; ++j, to += parts_w_ * part_elements())
            for (int64_t q = 0; q < rows; ++q) {
                const int64_t row = (t.h + q) * h.stride - h.padding + j;
                const T* from = slice + row * p_.input.h + t.w * w.stride - w.padding;
                T* cells = to + q * cells_;
                if (row < 0 || row >= h.size) {
                    for (int64_t k = 0; k < parts_w_; ++k) pad(cells + k * part_elements(), 0, cells_);
                } else if (w.stride == 2 && parts_w_ == 2) {
                    fill_row_by_two(from, source, cells, sum);
                } else if (w.stride == 1) {
                    fill_row_by_one(from, source, cells, sum);
                } else {
                    fill_row(from, t.w, cells, sum);
                }
            }
        return sum.is_nan();
    }

    // The cells of a part that lie inside the input, of a tile whose first output is `first`.
    Span inside(int64_t first, int64_t part) const {
        const PoolAxis& w = axes_.w;
        const int64_t at = first * w.stride - w.padding + part;
        const int64_t begin = at < 0 ? smaller(divide_up(-at, w.stride), cells_) : 0;
        const int64_t end = at < w.size ? smaller(divide_up(w.size - at, w.stride), cells_) : 0;
        return {begin, larger(begin, end)};
    }

    // Vectors write beyond the cells that they are for. That is put right: first comes the padding on the left, then
    // what is inside, then the padding on the right; the next row when its turn comes.
    static void pad(T* cells, int64_t begin, int64_t end) {
        for (int64_t x = begin; x < end; x += kLanes) store<T>(cells + x, broadcast<T>(kLowest));
    }

    // A vector of a row: what lies in the plane behind the row may follow it.
    static V load_within(const T* p, const T* end) {
        return end - p >= kLanes ? load<T>(p) : load_partial<T>(p, larger(end - p, 0));
    }

    void fill_row_by_one(const T* from, const Source& source, T* to, Sum& sum) const {
        const Span cells = source.even;
        pad(to, 0, cells.begin);
        for (int64_t x = cells.begin; x < cells.end; x += kLanes) {
            const V value = load_within(from + x, source.end);
            sum.one += value;
            store<T>(to + x, value);
        }
        pad(to, cells.end, cells_);
    }

    void fill_row_by_two(const T* from, const Source& source, T* even, Sum& sum) const {
        T* odd = even + part_elements();
        pad(even, 0, source.even.begin);
        pad(odd, 0, source.odd.begin);
        if (source.odd.begin < source.even.begin) {  // an odd cell comes first
            odd[source.odd.begin] = from[2 * source.odd.begin + 1];
            sum.single += odd[source.odd.begin];
        }
        for (int64_t x = source.even.begin; x < source.even.end; x += kLanes) {
            V low = load_within(from + 2 * x, source.end), high = load_within(from + 2 * x + kLanes, source.end);
            hold(high);
            sum.one += low;
            sum.other += high;
            store<T>(even + x, pick<0>(low, high));
            store<T>(odd + x, pick<1>(low, high));
        }
        pad(even, source.even.end, cells_);
        pad(odd, source.odd.end, cells_);
    }

    void fill_row(const T* from, int64_t first, T* to, Sum& sum) const {
        for (int64_t k = 0; k < parts_w_; ++k, to += part_elements()) {
            const Span cells = inside(first, k);
            pad(to, 0, cells.begin);
            for (int64_t x = cells.begin; x < cells.end; ++x) {
                to[x] = from[k + x * axes_.w.stride];
                sum.single += to[x];
            }
            pad(to, cells.end, cells_);
        }
    }

    // Every second lane of two vectors, from lane `First` on.
    template <int First>
    static V pick(V low, V high) {
        I lane;
        for (int l = 0; l < kLanes; ++l) lane[l] = 2 * l + First;
        return __builtin_shuffle(low, high, lane);
    }

    // ------------------------------------------------------------------------------------------------ the windows

    // N vectors of outputs: the largest of their windows in one slice, and its name. Nothing above -inf: name -1.
    template <int N, bool Nan>
    void fold(const T* from, IndexOf<T> slice, bool first, T* best_at, IndexOf<T>* where_at) const {
        V best[N];
        I where[N];
        for (int v = 0; v < N; ++v) {
            best[v] = first ? broadcast<T>(kLowest) : load<T>(best_at + v * kLanes);
            where[v] = first ? I{} - 1 : load_row<I>(where_at + v * kLanes);
        }
        const Tap* end = taps_ + axes_.h.filter * axes_.w.filter;
        for (const Tap* tap = taps_; tap < end; ++tap) {
            I name = I{} + (slice + tap->name);
            hold(name);
            for (int v = 0; v < N; ++v) {
                const V value = load<T>(from + tap->offset + v * kLanes);
                I better = value > best[v];
                if constexpr (Nan) better |= value != value;  // the last NaN beats everything
                best[v] = better ? value : best[v];
                where[v] = better ? name : where[v];
            }
        }
        for (int v = 0; v < N; ++v) {
            store<T>(best_at + v * kLanes, best[v]);
            store_row(where_at + v * kLanes, where[v]);
        }
    }

    // Rows of outputs. False where a window has nothing above -inf: its offset is wrong then.
    bool write(const Tile& t, const T* best, const IndexOf<T>* where, T* y, uint8_t* offsets) const {
        I found{};
        IndexOf<T> missing = 0;
        for (int64_t r = 0; r < t.rows; ++r, best += cells_, where += cells_) {
            const int64_t to = offset(p_.output, t.d, t.h + r, t.w);
            copy_run<T>(y + to, best, t.columns);
            for_blocks<T, kLanes>(
                0, t.columns,
                [&]<int L>(int64_t o) {
                    const auto name = load_row<Row<IndexOf<T>, L>>(where + o);
                    store_bytes<IndexOf<T>, L>(offsets + to + o, name);
                    if constexpr (L == kLanes) {
                        found |= name;
                    } else {
                        for (int l = 0; l < L; ++l) missing |= name[l];
                    }
                },
                [&](int64_t o) {
                    offsets[to + o] = static_cast<uint8_t>(where[o]);
                    missing |= where[o];
                });
        }
        for (int l = 0; l < kLanes; ++l) missing |= found[l];
        return missing >= 0;
    }

    // The same with indices.
    bool write(const Tile& t, const T* best, const IndexOf<T>* where, T* y, int64_t* indices) const {
        constexpr int kWide = lanes<int64_t>;
        using Wide = Row<int64_t, kWide>;
        Wide found{};
        int64_t missing = 0;
        for (int64_t r = 0; r < t.rows; ++r, best += cells_, where += cells_) {
            const int64_t d = t.d * axes_.d.stride - axes_.d.padding, h = (t.h + r) * axes_.h.stride - axes_.h.padding;
            const int64_t first =
                (d * p_.size.h + h) * p_.size.w + t.w * axes_.w.stride - axes_.w.padding;  // of the row's first window
            const int64_t to = offset(p_.output, t.d, t.h + r, t.w);
            copy_run<T>(y + to, best, t.columns);
            for_blocks<int64_t, kWide>(
                0, t.columns,
                [&]<int L>(int64_t o) {
                    using Part = Row<int64_t, L>;
                    const Part distance = __builtin_convertvector((load_row<Row<IndexOf<T>, L>>(where + o)), Part);
                    const int64_t at = first + o * axes_.w.stride;
                    store_row(indices + to + o, distance + load_row<Part>(steps_) + at);
                    if constexpr (L == kWide) {
                        found |= distance;
                    } else {
                        for (int l = 0; l < L; ++l) missing |= distance[l];
                    }
                },
                [&](int64_t o) {
                    indices[to + o] = where[o] + first + o * axes_.w.stride;
                    missing |= where[o];
                });
        }
        for (int l = 0; l < kWide; ++l) missing |= found[l];
        return missing >= 0;
    }

    PoolProblem p_;
    PoolAxes axes_;
    int64_t parts_h_, parts_w_;
    int64_t rows_ = 0, columns_ = 0, cells_ = 0;  // of a tile; cells are the columns of a part
    Tap* taps_ = nullptr;
    int64_t steps_[lanes<int64_t>];  // from window to window in the plane
};

}  // namespace pycv::cpu::PYCV_ISA
