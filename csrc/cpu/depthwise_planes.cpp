// Forward and grad_input of convolutions with thin groups, lanes along the rows of a plane, for every layout.
//
// A work item is an image, a group and up to four of its computed channels. It copies the planes of the group's source
// channels, zero-padded and a strip of rows at a time, into scratch that stays in cache; columns are split by their
// remainder modulo the stride, so that every tap is a shift. Then a register tile is up to eight rows of one vector of
// columns; input vectors are shared by the taps down the filter's column (tap_tile.h). The prologue is applied to the
// copy, the epilogue to the tile.
#include "depthwise_plans.h"
#include "padded_planes.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

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
          streams_(computed_bytes(problem) > kStreamedBytes),
          copy_(d_, h_, w_, problem_.source_channels) {
        outer_ = new OuterTap[static_cast<size_t>(d_.count() * w_.count() * outer_taps())];
        for (int64_t pd = 0; pd < d_.count(); ++pd)
            for (int64_t pw = 0; pw < w_.count(); ++pw) list_outer_taps(d_[pd], w_[pw], outer_ + outer_list(pd, pw));
    }
    ~PlaneGather() override { delete[] outer_; }

    int64_t workspace_bytes() const override { return threads_ * thread_bytes(); }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}
    // Whole vectors of a row's positions; copies of the source, one for every few computed channels; what is computed;
    // and the weights, which are copied one by one.
    Cost cost() const override {
        const auto number = [](int64_t count) { return static_cast<double>(count); };
        const double sweeps = number(problem_.n * problem_.size.d * divide_up(h_.positions(), copy_.strip));
        const double blocks = number(problem_.groups * divide_up(problem_.channels, kShared));
        const double computed = number(problem_.groups * problem_.channels);
        const double copies = sweeps * blocks * number(problem_.source_channels * copy_.plane);
        const double weights = sweeps * computed * number(problem_.source_channels * conv_.filter.count() * kLanes);
        const double outputs = computed * number(problem_.n * problem_.size.count());
        return {direct_multiply_adds(conv_) * whole_vectors() / threads_, (copies + weights + outputs) / threads_,
                tensor_bytes(conv_), 1};
    }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& arguments) const override {
        const GatherTensors<T> tensors(conv_, arguments);
        const T* weight = static_cast<const T*>(arguments.weight);
        const int64_t blocks = divide_up(problem_.channels, kShared), items = problem_.n * problem_.groups * blocks;
        parallel(threads_, [&](int thread, int team) {
            const Scratch scratch = carve(arguments.workspace, thread);
            zero_run(scratch.planes, problem_.source_channels * copy_.plane);
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
            for (int64_t image = images.begin; image < images.end; ++image) zero_padding_lanes(tensors.computed, image);
        });
    }

private:
    static constexpr int kLanes = lanes<T>;
    using V = Row<T, kLanes>;
    static constexpr int64_t kShared = 4;  // computed channels that share a copy
    static constexpr int kPairRows = 4;    // of a tile of two interleaved phases

    // How many times more positions vectors have than rows.
    double whole_vectors() const {
        int64_t vectors = 0;
        for (int64_t i = 0; i < w_.count(); ++i) vectors += divide_up(w_[i].count, kLanes);
        return static_cast<double>(vectors * kLanes) / static_cast<double>(larger(problem_.size.w, 1));
    }

    struct Scratch {
        T* planes;  // [source channel][slice][row][part][cell]
        T* weight;  // [tap of h][source channel][tap of d][tap of w] of one computed channel
    };

    int64_t planes_elements() const { return round_up(problem_.source_channels * copy_.plane + kLanes, 64); }
    int64_t weight_elements_each() const { return round_up(problem_.source_channels * conv_.filter.count(), 64); }
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
            for (int64_t strip = 0; strip < h_.positions(); strip += copy_.strip) {
                fill(tensors, n, group, qd, strip, scratch.planes);
                for (int64_t ph = 0; ph < h_.count(); ++ph) {
                    const Range rows{strip, smaller(strip + copy_.strip, h_[ph].count)};
                    if (rows.begin >= rows.end) continue;
                    for (int64_t m = k.begin; m < k.end; ++m) {
                        const Place row{n, group * problem_.channels + m, z};
                        phases(tensors, filters + m * problem_.weight.n, scratch, row, pd, ph, rows);
                    }
                }
            }
            if (++pd < d_.count()) continue;
            pd = 0;
            ++qd;
        }
    }

    struct Place {
        int64_t n, channel, z;
    };

    // All phases along w of some rows.
    void phases(const GatherTensors<T>& tensors, const T* filter, const Scratch& scratch, const Place& at, int64_t pd,
                int64_t ph, Range rows) const {
        const auto sweep_of = [&](int64_t pw, T* weight) {
            const Phase phase{d_[pd], h_[ph], w_[pw], outer_ + outer_list(pd, pw)};
            copy_weight(phase, filter, weight);
            return Sweep{phase,
                         scratch.planes,
                         weight,
                         phase.outer_taps(problem_.source_channels),
                         target(tensors, phase, at.n, at.channel, at.z),
                         rows};
        };
        if (w_.count() == 2 && problem_.computed.w == 1) {
            const Sweep even = sweep_of(0, scratch.weight);
            return sweep_pair(even, sweep_of(1, scratch.weight + even.outer_taps * even.phase.h.taps));
        }
        for (int64_t pw = 0; pw < w_.count(); ++pw)
            if (w_[pw].count > 0) sweep(sweep_of(pw, scratch.weight));
    }

    struct Phase {
        const TapAxis &d, &h, &w;
        const OuterTap* outer;
        int64_t outer_taps(int64_t source_channels) const { return source_channels * d.taps * w.taps; }
    };

    void fill(const GatherTensors<T>& tensors, int64_t n, int64_t group, int64_t qd, int64_t qh, T* to) const {
        const Strides& s = problem_.source;
        for (int64_t c = 0; c < problem_.source_channels; ++c, to += copy_.plane) {
            const int64_t channel = group * problem_.source_channels + c;
            copy_.fill(tensors.source + n * s.n + s.channel(channel), s, qd, qh, to, [&](T* row) {
                if (conv_.scale_input || conv_.relu_input) transform(tensors, channel, row);
            });
        }
    }

    void transform(const GatherTensors<T>& tensors, int64_t channel, T* row) const {
        copy_.for_cells([&](int64_t i) {
            const T value = tensors.scale ? row[i] * tensors.scale[channel] + tensors.shift[channel] : row[i];
            row[i] = conv_.relu_input ? relu<T>(value) : value;
        });
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
                    const int64_t slice = d.low - copy_.d.low + i * d.tap_step;
                    to[index] = {c * copy_.plane + slice * copy_.slice + copy_.column(w, k), index};
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
                    for (int64_t k = 0; k < p.w.taps; ++k) *to++ = from[c * s.c + i * step_d + j * step_h + k * step_w];
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
                tensors.residual
                    ? tensors.residual + n * r.n + r.channel(channel) + z * r.d + p.h.first * r.h + p.w.first * r.w
                    : nullptr,
                // -0 is what adding no bias must add.
                tensors.bias ? tensors.bias[channel] : T(-0.0), p.h.step * o.h, p.w.step * o.w, p.h.step * r.h,
                p.w.step * r.w};
    }

    // Rows [rows.begin, rows.end) of one phase of one computed channel, whose source scratch holds.
    struct Sweep {
        Phase phase;
        const T *planes, *weight;
        int64_t outer_taps;
        Target target;
        Range rows;
    };

    // A vector of columns, of which the first `count` are real. What lies beyond in the copy is read and dropped.
    struct Columns {
        int64_t first, count;
    };

    // Calls body.template operator()<U>(columns) for all columns < count; the last vector overlaps the one before it.
    template <class Body>
    static void for_columns(const TapAxis& h, int64_t count, const Body& body) {
        switch (h.sharing()) {
            case 1: return for_columns<1>(count, body);
            case 2: return for_columns<2>(count, body);
            default: return for_columns<0>(count, body);
        }
    }
    template <int U, class Body>
    static void for_columns(int64_t count, const Body& body) {
        if (count < kLanes) return body.template operator()<U>(Columns{0, count});
        for (int64_t x = 0; x + kLanes <= count; x += kLanes) body.template operator()<U>(Columns{x, kLanes});
        if (count % kLanes != 0) body.template operator()<U>(Columns{count - kLanes, kLanes});
    }

    void sweep(const Sweep& s) const {
        for_columns(s.phase.h, s.phase.w.count, [&]<int U>(Columns x) { columns<U>(s, x); });
    }

    template <int U>
    void columns(const Sweep& s, Columns x) const {
        switch (tile_outputs(s.rows.end - s.rows.begin)) {
            case 8: return columns<U, 8>(s, x);
            case 7: return columns<U, 7>(s, x);
            case 4: return columns<U, 4>(s, x);
            default: return columns<U, 1>(s, x);
        }
    }

    template <int U, int P>
    void columns(const Sweep& s, Columns x) const {
        for (int64_t r = s.rows.begin; r < s.rows.end; r += P) {
            const int64_t q = smaller(r, s.rows.end - P);
            V sum[P] = {};
            add_tile<U, P>(s, x.first, q, sum);
            finish<P>(s.target, x, q, sum);
        }
    }

    // Two phases whose columns alternate in memory: their tiles are interleaved in registers.
    void sweep_pair(const Sweep& even, const Sweep& odd) const {
        const int64_t both = odd.phase.w.count;
        const bool tall = even.rows.end - even.rows.begin >= kPairRows;
        for_columns(even.phase.h, both, [&]<int U>(Columns x) {
            tall ? column_pairs<U, kPairRows>(even, odd, x) : column_pairs<U, 1>(even, odd, x);
        });
        if (both < even.phase.w.count)
            for_columns(even.phase.h, 1, [&]<int U>(Columns) { columns<U>(even, Columns{both, 1}); });
    }

    template <int U, int P>
    void column_pairs(const Sweep& even, const Sweep& odd, Columns x) const {
        const int64_t left = smaller(2 * x.count, kLanes), right = 2 * x.count - left;
        Target target = even.target;
        target.column = 1;
        target.residual_column = problem_.residual.w;
        for (int64_t r = even.rows.begin; r < even.rows.end; r += P) {
            const int64_t q = smaller(r, even.rows.end - P);
            V a[P] = {}, b[P] = {};
            add_tile<U, P>(even, x.first, q, a);
            add_tile<U, P>(odd, x.first, q, b);
            unroll<P>([&]<int p>() PYCV_INLINE { interleave(a[p], b[p]); });
            finish<P>(target, Columns{2 * x.first, left}, q, a);
            if (right > 0) finish<P>(target, Columns{2 * x.first + kLanes, right}, q, b);
        }
    }

    // a0 b0 a1 b1 ...: the first half of them into a, the others into b.
    PYCV_INLINE static void interleave(V& a, V& b) {
        if constexpr (kLanes > 1) {
            Row<IndexOf<T>, kLanes> low, high;
            for (int i = 0; i < kLanes; ++i) {
                low[i] = i / 2 + (i % 2 ? kLanes : 0);
                high[i] = kLanes / 2 + i / 2 + (i % 2 ? kLanes : 0);
            }
            const V first = __builtin_shuffle(a, b, low);
            b = __builtin_shuffle(a, b, high);
            a = first;
        }
    }

    template <int U, int P>
    PYCV_INLINE void add_tile(const Sweep& s, int64_t x, int64_t q, V (&sum)[P]) const {
        const TapAxis& h = s.phase.h;
        const int64_t row = (q - s.rows.begin) * h.unit + h.low - copy_.h.low;
        const TileSource<T> source{
            s.planes + row * copy_.pitch + x, s.weight, copy_.pitch, s.outer_taps, s.phase.outer, s.outer_taps};
        add_all_taps<U, TapWeight::broadcast, T, kLanes, P>(sum, source, h.taps, h.unit, h.tap_step,
                                                            [](int64_t, int64_t) { return ~InputMask{0}; });
    }

    template <int P>
    PYCV_INLINE void finish(const Target& t, Columns x, int64_t q, V (&sum)[P]) const {
        T* to = t.out + q * t.row + x.first * t.column;
        const V bias = t.bias - V{};
        unroll<P>([&]<int p>() PYCV_INLINE { sum[p] += bias; });
        if (t.residual) {
            const T* from = t.residual + q * t.residual_row + x.first * t.residual_column;
            V rows[P];
            for (int p = 0; p < P; ++p) rows[p] = load_first<V>(from + p * t.residual_row, t.residual_column, x.count);
            unroll<P>([&]<int p>() PYCV_INLINE { sum[p] += rows[p]; });
        }
        if (problem_.relu) unroll<P>([&]<int p>() PYCV_INLINE { sum[p] = sum[p] < V{} ? V{} : sum[p]; });
        if (t.column == 1 && x.count == kLanes) {
            const bool streamed = streams_ && is_streamable<T>(to, t.row);
            unroll<P>([&]<int p>() PYCV_INLINE { put_row<V>(to + p * t.row, sum[p], streamed); });
        } else {
            V rows[P];  // sums that a loop indexes would not be registers
            unroll<P>([&]<int p>() PYCV_INLINE { rows[p] = sum[p]; });
            for (int p = 0; p < P; ++p) store_first<V>(to + p * t.row, t.column, rows[p], x.count);
        }
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
    bool streams_;  // the computed tensor, past the caches
    PaddedPlanes<T> copy_;
    OuterTap* outer_;
};

}  // namespace

ConvPlan* plan_plane_gather(const ConvProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new PlaneGather<double>(problem, threads);
    return new PlaneGather<float>(problem, threads);
}

}  // namespace pycv::cpu::PYCV_ISA
