// Depthwise forward and grad_input with channels in the lanes, for layouts in which a vector of channels is contiguous:
// nhwc, nchw8c, nchw16c.
//
// A register tile is a vector of channels of up to eight pixels of a row; input vectors are shared by the taps along
// the row (tap_tile.h). The weight is prepared as [vector of channels][tap][lane]. A work item is some rows of whole
// pixels, so that memory is read as it lies. Nothing is copied, but for a prologue: the rows that a work item reads are
// then transformed into scratch. Rows that come from memory are asked for one row ahead.
#include "depthwise_channels.h"

#include "depthwise_plans.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T, int L>
class ChannelGather final : public ConvPlan {
public:
    using V = Row<T, L>;

    ChannelGather(const ConvProblem& problem, int threads)
        : conv_(problem),
          problem_(gather_problem(problem)),
          threads_(threads > 1 ? threads : 1),
          d_(depth_phases(problem)),
          h_(height_phases(problem)),
          w_(width_phases(problem)),
          vectors_(problem_.groups, L, larger(problem_.computed.block, problem_.source.block)),
          from_memory_(activation_bytes(problem) > kPastCaches && d_.size() == 1 && w_[0].sharing() > 0 &&
                       !has_prologue()),
          streams_(computed_bytes(problem) > kStreamedBytes) {
        // Whole pixels, whose rows follow each other in memory; vectors of channels are shared out where rows are few.
        constexpr int64_t kBandInL2 = 256 << 10;
        const int64_t rows = larger(rows_per_slice() * problem_.size.d, 1), parts = 4 * threads_;
        chunk_ = divide_up(larger(vectors_.count, 1), divide_up(parts, larger(problem_.n * rows, 1)));
        const int64_t row_bytes = larger(w_.size(), 1) * vector_bytes() * larger(vectors_.count, 1);
        band_ = larger(kBandInL2 / (row_bytes * h_.unit()), 4);
        band_ = larger(smaller(band_, rows * larger(problem_.n * chunks(), 1) / parts), 1);
        offsets_ = new Offsets[static_cast<size_t>(vectors_.count)];
        for (int64_t v = 0; v < vectors_.count; ++v) {
            const int64_t c = vectors_.start(v);
            offsets_[v] = {problem_.source.channel(c), problem_.computed.channel(c), problem_.residual.channel(c)};
        }
    }
    ~ChannelGather() override { delete[] offsets_; }

    int64_t workspace_bytes() const override { return threads_ * scratch_bytes(); }
    int64_t prepared_weight_bytes() const override { return larger(1, taps() * vectors_.count * vector_bytes()); }

    // [vector of channels][filter position][lane], 0 beyond the channels.
    void prepare_weight(const void* weight, void* prepared) const override {
        T* to = static_cast<T*>(prepared);
        const Strides& s = problem_.weight;
        for (int64_t v = 0; v < vectors_.count; ++v) {
            const T* from = static_cast<const T*>(weight) + vectors_.start(v) * problem_.weight_group;
            const int64_t real = vectors_.real(v);
            for (int64_t d = 0; d < conv_.filter.d; ++d)
                for (int64_t h = 0; h < conv_.filter.h; ++h)
                    for (int64_t w = 0; w < conv_.filter.w; ++w, to += L)
                        for (int64_t i = 0; i < L; ++i)
                            to[i] = i < real ? from[i * problem_.weight_group + d * s.d + h * s.h + w * s.w] : T(0);
        }
    }

    Cost cost() const override { return {direct_multiply_adds(conv_) / threads_, 0, tensor_bytes(conv_), 1}; }
    Cost prepare_cost() const override {
        return {0, weight_elements(conv_), 2 * weight_elements(conv_) * element_bytes(conv_.dtype), 0};
    }

    void run(const ConvArguments& arguments) const override {
        const int64_t rows = rows_per_slice() * problem_.size.d;
        const int64_t bands = divide_up(rows, band_), items = problem_.n * bands * chunks();
        const GatherTensors<T> tensors(conv_, arguments);
        const T* weight = static_cast<const T*>(arguments.weight);
        if (w_.positions() == 0) return;
        parallel(threads_, [&](int thread, int team) {
            const Scratch scratch = carve(arguments.workspace, thread);
            const Range mine = share(items, thread, team);
            for (int64_t i = mine.begin; i < mine.end; ++i) {
                const int64_t chunk = i % chunks(), band = i / chunks() % bands, n = i / chunks() / bands;
                const Range vectors{chunk * chunk_, smaller((chunk + 1) * chunk_, vectors_.count)};
                for (int64_t r = band * band_; r < smaller((band + 1) * band_, rows); ++r) {
                    const Place place{n, r / rows_per_slice(), r % rows_per_slice()};
                    row(tensors, weight, place, vectors, scratch);
                }
            }
        });
    }

private:
    static int64_t vector_bytes() { return L * static_cast<int64_t>(sizeof(T)); }
    int64_t taps() const { return conv_.filter.count(); }
    int64_t chunks() const { return divide_up(vectors_.count, chunk_); }
    int64_t rows_per_slice() const { return problem_.size.h; }
    bool has_prologue() const { return conv_.scale_input || conv_.relu_input; }

    struct Scratch {
        OuterTap* outer;
        T* rows;  // transformed
    };
    int64_t outer_bytes() const {
        return round_up(larger(conv_.filter.d * conv_.filter.h, 1) * static_cast<int64_t>(sizeof(OuterTap)), 64);
    }
    int64_t scratch_bytes() const {
        const int64_t rows = has_prologue() ? larger(conv_.filter.d * conv_.filter.h, 1) : 0;
        return outer_bytes() + rows * chunk_ * larger(w_.size(), 1) * vector_bytes();
    }
    Scratch carve(void* workspace, int thread) const {
        char* at = static_cast<char*>(workspace) + thread * scratch_bytes();
        return {reinterpret_cast<OuterTap*>(at), reinterpret_cast<T*>(at + outer_bytes())};
    }

    struct Place {
        int64_t n, d, h;  // of a computed row
    };

    // One computed row: the tap rows that lie inside the source, where the first pixel of each begins.
    struct Line {
        const GatherTensors<T>& tensors;
        const T* source;  // of the image, or the transformed rows
        const T* weight;
        Place at;
        Range vectors;
        const OuterTap* outer;
        int64_t outer_taps, pixel;
        Range next_rows{0, 0};  // of the source, which the next computed row reads and this one does not
    };

    void row(const GatherTensors<T>& tensors, const T* weight, const Place& at, Range vectors,
             const Scratch& scratch) const {
        const TapAxis &d = d_.of(at.d), &h = h_.of(at.h);
        const int64_t qd = at.d / d_.count(), qh = at.h / h_.count();
        const Range taps_d = d.taps_inside(qd), taps_h = h.taps_inside(qh);
        const Strides& s = problem_.source;
        OuterTap* outer = scratch.outer;
        for (int64_t i = taps_d.begin; i < taps_d.end; ++i)
            for (int64_t j = taps_h.begin; j < taps_h.end; ++j) {
                const int64_t filter_row =
                    (d.filter_first + i * d.filter_step) * conv_.filter.h + h.filter_first + j * h.filter_step;
                *outer++ = {(qd * d.unit + d.low + i * d.tap_step) * s.d + (qh * h.unit + h.low + j * h.tap_step) * s.h,
                            filter_row * conv_.filter.w * L};
            }
        Line line{tensors, tensors.source + at.n * s.n, weight, at, vectors, scratch.outer, outer - scratch.outer, s.w};
        if (has_prologue()) transform(line, scratch);
        if (from_memory_ && h.sharing() > 0) {
            const int64_t next = qh * h.unit + h.high() + 1;
            line.next_rows = {larger(next, 0), smaller(next + h.unit, h.size)};
        }
        for (int64_t phase = 0; phase < w_.count(); ++phase) {
            if (w_[phase].count == 0) continue;
            switch (w_[phase].sharing()) {
                case 1: tiles<1>(line, w_[phase]); break;
                case 2: tiles<2>(line, w_[phase]); break;
                default: tiles<0>(line, w_[phase]);
            }
        }
    }

    template <int U>
    void tiles(const Line& line, const TapAxis& w) const {
        switch (tile_outputs(w.count)) {
            case 8: return tiles<U, 8>(line, w);
            case 7: return tiles<U, 7>(line, w);
            case 4: return tiles<U, 4>(line, w);
            default: return tiles<U, 1>(line, w);
        }
    }

    template <int U, int P>
    void tiles(const Line& line, const TapAxis& w) const {
        for (int64_t q = 0; q < w.count; q += P) tile<U, P>(line, w, smaller(q, w.count - P));
    }

    // All vectors of P pixels.
    template <int U, int P>
    void tile(const Line& line, const TapAxis& w, int64_t q) const {
        const int64_t first = q * w.unit + w.low;
        const InputMask mask = inputs_inside(first, 1, w.size);
        const auto inside = [&](int64_t t, int64_t step) {
            return t == 0 && step == 1 ? mask : inputs_inside(first + t * w.tap_step, step, w.size);
        };
        TileSource<T> source{line.source + first * line.pixel,
                             line.weight + w.filter_first * L,
                             line.pixel,
                             w.filter_step * L,
                             line.outer,
                             line.outer_taps};
        const Range ahead{larger(first, 0), smaller(first + P * w.unit, w.size)};
        for (int64_t v = line.vectors.begin; v < line.vectors.end; ++v) {
            prefetch(line, ahead, v);
            V sum[P] = {};
            TileSource<T> here = source;
            here.source += has_prologue() ? (v - line.vectors.begin) * L : offsets_[v].source;
            here.weight += v * taps() * L;
            add_all_taps<U, TapWeight::per_lane, T, L, P>(sum, here, w.taps, w.unit, w.tap_step, inside);
            finish<P>(line, w, q, v, sum);
        }
    }

    // Where rows come from memory, the next ones are asked for meanwhile: several streams, each of a few vectors at
    // some distance, are not what a processor guesses.
    PYCV_INLINE void prefetch(const Line& line, Range pixels, int64_t v) const {
        for (int64_t r = line.next_rows.begin; r < line.next_rows.end; ++r)
            for (int64_t x = pixels.begin; x < pixels.end; ++x)
                __builtin_prefetch(line.source + r * problem_.source.h + x * line.pixel + offsets_[v].source);
    }

    // The first `real` lanes, 0 beyond.
    PYCV_INLINE static V load_real(const T* p, int64_t real) {
        if (real == L) return load_row<V>(p);
        V v{};
        for (int64_t i = 0; i < real; ++i) v[i] = p[i];
        return v;
    }

    template <int P>
    PYCV_INLINE void finish(const Line& line, const TapAxis& w, int64_t q, int64_t v, V (&sum)[P]) const {
        const int64_t x = w.first + q * w.step;
        const Strides &o = problem_.computed, &r = problem_.residual;
        const Place& at = line.at;
        if (line.tensors.bias) {
            const V bias = load_real(line.tensors.bias + vectors_.start(v), vectors_.real(v));
            unroll<P>([&]<int p>() PYCV_INLINE { sum[p] += bias; });
        }
        if (line.tensors.residual) {
            const T* from =
                line.tensors.residual + at.n * r.n + offsets_[v].residual + at.d * r.d + at.h * r.h + x * r.w;
            unroll<P>([&]<int p>() PYCV_INLINE { sum[p] += load_row<V>(from + p * w.step * r.w); });
        }
        if (problem_.relu) unroll<P>([&]<int p>() PYCV_INLINE { sum[p] = sum[p] < V{} ? V{} : sum[p]; });
        T* to = line.tensors.computed + at.n * o.n + offsets_[v].computed + at.d * o.d + at.h * o.h + x * o.w;
        const int64_t step = w.step * o.w;
        const bool streamed = streams_ && is_streamable<T>(to, step);
        unroll<P>([&]<int p>() PYCV_INLINE { put_row<V>(to + p * step, sum[p], streamed); });
    }

    // Prologue: the tap rows as [outer tap][pixel][vector of the chunk], transformed.
    void transform(Line& line, const Scratch& scratch) const {
        const int64_t count = line.vectors.end - line.vectors.begin, pixel = count * L;
        for (int64_t i = 0; i < line.outer_taps; ++i)
            for (int64_t v = 0; v < count; ++v) {
                const T* from = line.source + line.outer[i].source + offsets_[line.vectors.begin + v].source;
                transform_row(line, line.vectors.begin + v, from, scratch.rows + i * pixel * w_.size() + v * L, pixel);
            }
        for (int64_t i = 0; i < line.outer_taps; ++i) scratch.outer[i].source = i * pixel * w_.size();
        line.source = scratch.rows;
        line.pixel = pixel;
    }

    void transform_row(const Line& line, int64_t v, const T* from, T* to, int64_t to_pixel) const {
        const GatherTensors<T>& tensors = line.tensors;
        const int64_t c = vectors_.start(v), real = vectors_.real(v);
        const V scale = tensors.scale ? load_real(tensors.scale + c, real) : V{};
        const V shift = tensors.scale ? load_real(tensors.shift + c, real) : V{};
        for (int64_t x = 0; x < w_.size(); ++x) {
            V value = load_row<V>(from + x * line.pixel);
            if (tensors.scale) value = value * scale + shift;
            if (conv_.relu_input) value = value < V{} ? V{} : value;
            store_row<V>(to + x * to_pixel, value);
        }
    }

    ConvProblem conv_;
    GatherProblem problem_;
    int threads_;
    AxisPhases d_, h_, w_;
    ChannelVectors vectors_;
    int64_t chunk_, band_;  // vectors and rows of a work item
    bool from_memory_;      // images whose rows are worth asking for
    bool streams_;          // the computed tensor, past the caches
    // Where each vector lies, relative to channel 0.
    struct Offsets {
        int64_t source, computed, residual;
    };
    Offsets* offsets_;
};

}  // namespace

ConvPlan* plan_channel_gather(const ConvProblem& problem, int threads) {
    return with_channel_lanes(problem,
                              [&]<class T, int L>() -> ConvPlan* { return new ChannelGather<T, L>(problem, threads); });
}

}  // namespace pycv::cpu::PYCV_ISA
