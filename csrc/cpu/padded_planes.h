// Zero-padded copies of planes, in which every tap of a filter is a shift: what convolutions with lanes along the rows
// of a plane read.
//
// A copy holds the rows that a strip of positions reads, of one or several slices. Its columns are split by their
// remainder modulo the stride: [slice][row][part][cell].
// Only for kernel files (ISA namespace).
#pragma once

#include "depthwise.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// One axis of the padded copy: cell i of part r is source coordinate low + first * unit + r + i * unit, where `first`
// is the position that the copy begins at.
struct PaddedAxis {
    int64_t low, reach, unit, size;

    explicit PaddedAxis(const AxisPhases& axis)
        : low(axis.low()), reach(axis.high() - axis.low()), unit(axis.unit()), size(axis.size()) {}
    // Source coordinates that `positions` positions read.
    int64_t extent(int64_t positions) const { return positions > 0 ? (positions - 1) * unit + reach + 1 : 0; }
    int64_t parts() const { return smaller(unit, reach + 1); }
    int64_t cells(int64_t positions) const { return positions + reach / unit; }
};

template <class T>
class PaddedPlanes {
public:
    // Strips are as high as `channels` copies of them fit into the cache.
    PaddedPlanes(const AxisPhases& phases_d, const AxisPhases& phases_h, const AxisPhases& phases_w, int64_t channels)
        : d(phases_d), h(phases_h), w(phases_w) {
        constexpr int64_t kStripBytes = 24 << 10, kFewestRows = 8;
        cells = w.cells(phases_w.positions());
        pitch = w.parts() * cells;
        const int64_t row_bytes = larger(channels * slices() * pitch, 1) * static_cast<int64_t>(sizeof(T));
        const int64_t rows = (kStripBytes / row_bytes - h.reach - 1) / h.unit + 1;
        const int64_t positions = larger(phases_h.positions(), 1);
        strip = smaller(larger(rows, kFewestRows), positions);
        strip = divide_up(positions, divide_up(positions, strip));
        slice = h.extent(strip) * pitch;
        plane = slices() * slice;
        one_strip_ = strip == positions && phases_d.positions() == 1 && slices() == 1;
        parts_ = new Part[static_cast<size_t>(w.parts())];
        for (int64_t i = 0; i < w.parts(); ++i) parts_[i] = part(i);
    }
    ~PaddedPlanes() { delete[] parts_; }
    PaddedPlanes(const PaddedPlanes&) = delete;
    PaddedPlanes& operator=(const PaddedPlanes&) = delete;

    // Where a tap of w lies relative to the cell of its position.
    int64_t column(const TapAxis& axis, int64_t tap) const {
        const int64_t x = axis.low - w.low + tap * axis.tap_step;
        return x % w.unit * cells + x / w.unit;
    }

    // Copies what the positions from (qd, qh) on read of a channel at `from`. Whoever owns the memory clears it once,
    // before the first copy. `each_row` gets every row that was copied.
    template <class EachRow>
    void fill(const T* from, const Strides& s, int64_t qd, int64_t qh, T* to, const EachRow& each_row) const {
        const int64_t rows = h.extent(strip);
        for (int64_t i = 0; i < slices(); ++i) {
            const int64_t source_d = qd * d.unit + d.low + i;
            for (int64_t j = 0; j < rows; ++j, to += pitch) {
                const int64_t source_h = qh * h.unit + h.low + j;
                if (source_d >= 0 && source_d < d.size && source_h >= 0 && source_h < h.size) {
                    fill_row(from + source_d * s.d + source_h * s.h, s.w, to);
                    each_row(to);
                } else if (!one_strip_) {
                    zero_run(to, pitch);
                }
            }
        }
    }

    // Calls body(cell) for the cells of a row that lie inside the source.
    template <class Body>
    void for_cells(const Body& body) const {
        for (int64_t i = 0; i < w.parts(); ++i)
            for (int64_t x = parts_[i].begin; x < parts_[i].end; ++x) body(i * cells + x);
    }

    PaddedAxis d, h, w;
    int64_t cells, pitch, slice, plane;  // elements; a plane is all slices of a channel
    int64_t strip;                       // positions of h

private:
    int64_t slices() const { return d.reach + 1; }

    // The columns of one remainder: cells [begin, end) lie inside the source, from column `first` on.
    struct Part {
        int64_t begin, end, first;
    };
    Part part(int64_t remainder) const {
        const int64_t first = w.low + remainder;
        const int64_t begin = first < 0 ? smaller(divide_up(-first, w.unit), cells) : 0;
        const int64_t behind = w.size > first ? divide_up(w.size - first, w.unit) : 0;
        return {begin, larger(smaller(behind, cells), begin), first + begin * w.unit};
    }

    // The cells outside are 0 from the beginning.
    void fill_row(const T* from, int64_t source_step, T* to) const {
        const int64_t step = w.unit * source_step;
        for (int64_t i = 0; i < w.parts(); ++i, to += cells) {
            const Part& p = parts_[i];
            const T* first = from + p.first * source_step;
            if (step == 1) {
                copy_run<T>(to + p.begin, first, p.end - p.begin);
            } else if (step == 2) {
                for_blocks<T, lanes<T>>(
                    0, p.end - p.begin,
                    [&]<int L>(int64_t x) {
                        store_row<Row<T, L>>(to + p.begin + x, load_strided<T, L, 2>(first + 2 * x, 2));
                    },
                    [&](int64_t x) { to[p.begin + x] = first[2 * x]; });
            } else {
                for (int64_t x = p.begin; x < p.end; ++x, first += step) to[x] = *first;
            }
        }
    }

    bool one_strip_;  // each plane is copied whole: what lies outside stays 0
    Part* parts_;
};

}  // namespace pycv::cpu::PYCV_ISA
