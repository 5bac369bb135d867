// Forward and grad_input of convolutions with thin groups, lanes along the rows of a plane, for every layout.
//
// A work item is an image, a group and up to four of its computed channels. It copies the planes of the group's source
// channels, zero-padded and a strip of rows at a time, into scratch that stays in cache; columns are split by their
// remainder modulo the stride, so that every tap is a shift. Then a register tile is up to eight rows of one vector of
// columns; input vectors are shared by the taps down the filter's column (tap_tile.h). The prologue is applied to the
// copy, the epilogue to the tile.
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
class PlaneGather final : public ConvPlan {
public:
    PlaneGather(const ConvProblem& problem, int threads)
        : conv_(problem),
          problem_(gather_problem(problem)),
          threads_(threads > 1 ? threads : 1),
          d_(depth_phases(problem)),
          h_(height_phases(problem)),
          w_(width_phases(problem)),
          pad_d_(d_),
          pad_h_(h_),
          pad_w_(w_) {
        constexpr int64_t kStripBytes = 24 << 10, kFewestRows = 8;
        cells_ = pad_w_.cells(w_.positions());
        pitch_ = pad_w_.parts() * cells_;
        const int64_t row_bytes = larger(problem_.source_channels * slices() * pitch_, 1) * sizeof(T);
        const int64_t rows = (kStripBytes / row_bytes - pad_h_.reach - 1) / pad_h_.unit + 1;
        const int64_t positions = larger(h_.positions(), 1);
        strip_ = smaller(larger(rows, kFewestRows), positions);
        strip_ = divide_up(positions, divide_up(positions, strip_));
        slice_ = pad_h_.extent(strip_) * pitch_;
        plane_ = slices() * slice_;
        one_strip_ = strip_ == positions && pad_d_.size == 1 && slices() == 1;
        parts_ = new Part[static_cast<size_t>(pad_w_.parts())];
        for (int64_t i = 0; i < pad_w_.parts(); ++i) parts_[i] = part(i);
        outer_ = new OuterTap[static_cast<size_t>(d_.count() * w_.count() * outer_taps())];
        for (int64_t pd = 0; pd < d_.count(); ++pd)
            for (int64_t pw = 0; pw < w_.count(); ++pw) list_outer_taps(d_[pd], w_[pw], outer_ + outer_list(pd, pw));
    }
    ~PlaneGather() override {
        delete[] parts_;
        delete[] outer_;
    }

    int64_t workspace_bytes() const override { return threads_ * thread_bytes(); }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}
    Cost cost() const override {
        return {direct_multiply_adds(conv_) / threads_, activation_bytes(conv_) / element_bytes(conv_.dtype) / threads_,
                tensor_bytes(conv_), 1};
    }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& arguments) const override {
        const GatherTensors<T> tensors(conv_, arguments);
        const T* weight = static_cast<const T*>(arguments.weight);
        const int64_t blocks = divide_up(problem_.channels, kShared), items = problem_.n * problem_.groups * blocks;
        parallel(threads_, [&](int thread, int team) {
            const Scratch scratch = carve(arguments.workspace, thread);
            zero_run(scratch.planes, problem_.source_channels * plane_);
            const Range mine = share(items, thread, team);
            int64_t block = mine.begin % larger(blocks, 1), image_group = mine.begin / larger(blocks, 1);
            int64_t group = image_group % problem_.groups, n = image_group / problem_.groups;
            for (int64_t i = mine.begin; i < mine.end; ++i) {
                const int64_t k = block * kShared;
                channels(tensors, weight, n, group, {k, smaller(k + kShared, problem_.channels)}, scratch);
                if (++block < blocks) continue;
                block = 0;
                if (++group < problem_.groups) continue;
                group = 0;
                ++n;
            }
            const Range images = share(problem_.n, thread, team);
            for (int64_t image = images.begin; image < images.end; ++image)
                zero_padding_lanes(tensors.computed, image);
        });
    }

private:
    static constexpr int64_t kShared = 4;  // computed channels that share a copy

    struct Scratch {
        T* planes;  // [source channel][slice][row][part][cell]
        T* weight;  // [tap of h][source channel][tap of d][tap of w] of one computed channel
    };

    int64_t slices() const { return pad_d_.reach + 1; }
    int64_t planes_elements() const { return round_up(problem_.source_channels * plane_, 64); }
    int64_t weight_elements_each() const {
        return round_up(problem_.source_channels * conv_.filter.count(), 64);
    }
    int64_t thread_bytes() const {
        return (planes_elements() + weight_elements_each()) * static_cast<int64_t>(sizeof(T));
    }
    Scratch carve(void* workspace, int thread) const {
        T* planes = reinterpret_cast<T*>(static_cast<char*>(workspace) + thread * thread_bytes());
        return {planes, planes + planes_elements()};
    }

    // A few computed channels of one image and group.
    void channels(const GatherTensors<T>& tensors, const T* weight, int64_t n, int64_t group, Range k,
                  const Scratch& scratch) const {
        const T* filters = weight + group * problem_.weight_group;
        int64_t pd = 0, qd = 0;
        for (int64_t z = 0; z < problem_.size.d; ++z) {
            for (int64_t strip = 0; strip < h_.positions(); strip += strip_) {
                fill(tensors, n, group, qd, strip, scratch.planes);
                for (int64_t ph = 0; ph < h_.count(); ++ph)
                    for (int64_t pw = 0; pw < w_.count(); ++pw) {
                        const Phase phase{d_[pd], h_[ph], w_[pw], outer_ + outer_list(pd, pw)};
                        const Range rows{strip, smaller(strip + strip_, phase.h.count)};
                        if (rows.begin >= rows.end || phase.w.count == 0) continue;
                        for (int64_t m = k.begin; m < k.end; ++m) {
                            copy_weight(phase, filters + m * problem_.weight.n, scratch.weight);
                            sweep(tensors, phase, scratch, n, group * problem_.channels + m, z, rows);
                        }
                    }
            }
            if (++pd < d_.count()) continue;
            pd = 0;
            ++qd;
        }
    }

    struct Phase {
        const TapAxis &d, &h, &w;
        const OuterTap* outer;
        int64_t outer_taps(int64_t source_channels) const { return source_channels * d.taps * w.taps; }
    };

    void fill(const GatherTensors<T>& tensors, int64_t n, int64_t group, int64_t qd, int64_t qh, T* to) const {
        const Strides& s = problem_.source;
        const int64_t rows = pad_h_.extent(strip_);
        for (int64_t c = 0; c < problem_.source_channels; ++c) {
            const int64_t channel = group * problem_.source_channels + c;
            const T* plane = tensors.source + n * s.n + s.channel(channel);
            for (int64_t i = 0; i < slices(); ++i) {
                const int64_t d = qd * pad_d_.unit + pad_d_.low + i;
                for (int64_t j = 0; j < rows; ++j, to += pitch_) {
                    const int64_t h = qh * pad_h_.unit + pad_h_.low + j;
                    if (d < 0 || d >= pad_d_.size || h < 0 || h >= pad_h_.size) {
                        if (!one_strip_) zero_run(to, pitch_);
                    } else {
                        fill_row(plane + d * s.d + h * s.h, to);
                        if (conv_.scale_input || conv_.relu_input) transform(tensors, channel, to);
                    }
                }
            }
        }
    }

    // The columns of one remainder: cells [begin, end) lie inside the source, from column `first` on.
    struct Part {
        int64_t begin, end, first;
    };
    Part part(int64_t remainder) const {
        const int64_t first = pad_w_.low + remainder;
        const int64_t begin = first < 0 ? smaller(divide_up(-first, pad_w_.unit), cells_) : 0;
        const int64_t behind = pad_w_.size > first ? divide_up(pad_w_.size - first, pad_w_.unit) : 0;
        return {begin, larger(smaller(behind, cells_), begin), first + begin * pad_w_.unit};
    }

    // The cells outside are 0 from the beginning.
    void fill_row(const T* from, T* to) const {
        const int64_t step = problem_.source.w;
        for (int64_t i = 0; i < pad_w_.parts(); ++i, to += cells_) {
            const Part& p = parts_[i];
            copy_strided<T>(to + p.begin, from + p.first * step, p.end - p.begin, pad_w_.unit * step);
        }
    }

    void transform(const GatherTensors<T>& tensors, int64_t channel, T* row) const {
        for (int64_t part = 0; part < pad_w_.parts(); ++part, row += cells_)
            for (int64_t i = parts_[part].begin; i < parts_[part].end; ++i) {
                const T value = tensors.scale ? row[i] * tensors.scale[channel] + tensors.shift[channel] : row[i];
                row[i] = conv_.relu_input ? relu<T>(value) : value;
            }
    }

    // The taps of the axes that a tile does not share: [source channel][tap of d][tap of w].
    int64_t outer_taps() const { return problem_.source_channels * conv_.filter.d * conv_.filter.w; }
    int64_t outer_list(int64_t phase_d, int64_t phase_w) const {
        return (phase_d * w_.count() + phase_w) * outer_taps();
    }
    // Offsets in scratch, those of the source relative to the phase's first tap of h; the weights follow copy_weight.
    void list_outer_taps(const TapAxis& d, const TapAxis& w, OuterTap* to) const {
        int64_t index = 0;
        for (int64_t c = 0; c < problem_.source_channels; ++c)
            for (int64_t i = 0; i < d.taps; ++i)
                for (int64_t k = 0; k < w.taps; ++k, ++index) {
                    const int64_t x = w.low - pad_w_.low + k * w.tap_step;
                    const int64_t slice = d.low - pad_d_.low + i * d.tap_step;
                    to[index] = {c * plane_ + slice * slice_ + x % pad_w_.unit * cells_ + x / pad_w_.unit, index};
                }
    }

    // One computed channel's weight as [tap of h][outer tap].
    void copy_weight(const Phase& p, const T* from, T* to) const {
        const Strides& s = problem_.weight;
        from += p.d.filter_first * s.d + p.h.filter_first * s.h + p.w.filter_first * s.w;
        const int64_t step_d = p.d.filter_step * s.d, step_h = p.h.filter_step * s.h, step_w = p.w.filter_step * s.w;
        for (int64_t j = 0; j < p.h.taps; ++j)
            for (int64_t c = 0; c < problem_.source_channels; ++c)
                for (int64_t i = 0; i < p.d.taps; ++i)
                    for (int64_t k = 0; k < p.w.taps; ++k)
                        *to++ = from[c * s.c + i * step_d + j * step_h + k * step_w];
    }

    // Where the results of one phase of one computed channel go.
    struct Target {
        T* out;
        const T* residual;
        T bias;
        int64_t row, column, residual_row, residual_column;
    };

    Target target(const GatherTensors<T>& tensors, const Phase& p, int64_t n, int64_t channel, int64_t z) const {
        const Strides &o = problem_.computed, &r = problem_.residual;
        return {tensors.computed + n * o.n + o.channel(channel) + z * o.d + p.h.first * o.h + p.w.first * o.w,
                tensors.residual ? tensors.residual + n * r.n + r.channel(channel) + z * r.d + p.h.first * r.h +
                                       p.w.first * r.w
                                 : nullptr,
                // -0 is what adding no bias must add.
                tensors.bias ? tensors.bias[channel] : T(-0.0),
                p.h.step * o.h,
                p.w.step * o.w,
                p.h.step * r.h,
                p.w.step * r.w};
    }

    // Tiles of all columns of rows [rows.begin, rows.end), which scratch holds.
    void sweep(const GatherTensors<T>& tensors, const Phase& phase, const Scratch& scratch, int64_t n, int64_t channel,
               int64_t z, Range rows) const {
        const Sweep s{phase, scratch, phase.outer_taps(problem_.source_channels), target(tensors, phase, n, channel, z), rows};
        const auto block = [&]<int L>(int64_t x) {
            switch (phase.h.sharing()) {
                case 1: return columns<L, 1>(s, x);
                case 2: return columns<L, 2>(s, x);
                default: return columns<L, 0>(s, x);
            }
        };
        for_blocks<T, lanes<T>>(0, phase.w.count, block, [&](int64_t x) { block.template operator()<1>(x); });
    }

    struct Sweep {
        const Phase& phase;
        const Scratch& scratch;
        int64_t outer_taps;
        Target target;
        Range rows;
    };

    template <int L, int U>
    void columns(const Sweep& s, int64_t x) const {
        switch (tile_outputs(s.rows.end - s.rows.begin)) {
            case 8: return columns<L, U, 8>(s, x);
            case 7: return columns<L, U, 7>(s, x);
            case 4: return columns<L, U, 4>(s, x);
            default: return columns<L, U, 1>(s, x);
        }
    }

    template <int L, int U, int P>
    void columns(const Sweep& s, int64_t x) const {
        for (int64_t q = s.rows.begin; q < s.rows.end; q += P) tile<L, U, P>(s, x, smaller(q, s.rows.end - P));
    }

    template <int L, int U, int P>
    void tile(const Sweep& s, int64_t x, int64_t q) const {
        const TapAxis& h = s.phase.h;
        const int64_t row = (q - s.rows.begin) * h.unit + h.low - pad_h_.low;
        const TileSource<T> source{s.scratch.planes + row * pitch_ + x,
                                   s.scratch.weight,
                                   pitch_,
                                   s.outer_taps,
                                   s.phase.outer,
                                   s.outer_taps};
        Row<T, L> sum[P] = {};
        add_all_taps<U, TapWeight::broadcast, T, L, P>(sum, source, h.taps, h.unit, h.tap_step,
                                                       [](int64_t, int64_t) { return ~InputMask{0}; });
        finish<L, P>(s.target, x, q, sum);
    }

    template <int L, int P>
    PYCV_INLINE void finish(const Target& t, int64_t x, int64_t q, Row<T, L> (&sum)[P]) const {
        using V = Row<T, L>;
        T* to = t.out + q * t.row + x * t.column;
        const V bias = t.bias - V{};
        unroll<P>([&]<int p>() PYCV_INLINE { sum[p] += bias; });
        if (t.residual) {
            const T* from = t.residual + q * t.residual_row + x * t.residual_column;
            unroll<P>([&]<int p>() PYCV_INLINE {
                sum[p] += load_apart<L>(from + p * t.residual_row, t.residual_column);
            });
        }
        if (problem_.relu) unroll<P>([&]<int p>() PYCV_INLINE { sum[p] = sum[p] < V{} ? V{} : sum[p]; });
        if (t.column == 1) {
            unroll<P>([&]<int p>() PYCV_INLINE { store_row<V>(to + p * t.row, sum[p]); });
        } else {
            unroll<P>([&]<int p>() PYCV_INLINE { store_apart<L>(to + p * t.row, t.column, sum[p]); });
        }
    }

    template <int L>
    static Row<T, L> load_apart(const T* from, int64_t step) {
        if (step == 1) return load_row<Row<T, L>>(from);
        Row<T, L> v;
        for (int l = 0; l < L; ++l) v[l] = from[l * step];
        return v;
    }

    template <int L>
    static void store_apart(T* to, int64_t step, Row<T, L> v) {
        for (int l = 0; l < L; ++l) to[l * step] = v[l];
    }

    // The lanes beyond the last channel of a blocked tensor.
    void zero_padding_lanes(T* computed, int64_t n) const {
        const Strides& o = problem_.computed;
        const int64_t channels = problem_.groups * problem_.channels;
        for (int64_t c = channels; c < round_up(channels, o.block); ++c)
            for (int64_t d = 0; d < problem_.size.d; ++d)
                for (int64_t h = 0; h < problem_.size.h; ++h)
                    for (int64_t w = 0; w < problem_.size.w; ++w)
                        computed[n * o.n + o.channel(c) + d * o.d + h * o.h + w * o.w] = T(0);
    }

    ConvProblem conv_;
    GatherProblem problem_;
    int threads_;
    AxisPhases d_, h_, w_;
    PaddedAxis pad_d_, pad_h_, pad_w_;
    int64_t cells_, pitch_, slice_, plane_;  // of the scratch
    int64_t strip_;                          // positions of h in a strip
    bool one_strip_;                         // each plane is copied whole: what lies outside stays 0
    Part* parts_;
    OuterTap* outer_;
};

}  // namespace pycv::cpu::PYCV_ISA
