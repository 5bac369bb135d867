// Depthwise forward and grad_input with channels in the lanes, for layouts in which a vector of channels is contiguous:
// nhwc, nchw8c, nchw16c.
//
// A register tile is a vector of channels of up to eight pixels of a row; input vectors are shared by the taps along
// the row (tap_tile.h). The weight is prepared as [vector of channels][tap][lane]. Nothing is copied, but for a
// prologue: the rows that a work item reads are then transformed into scratch.
// Only for kernel files (ISA namespace).
#pragma once

#include "depthwise.h"

namespace pycv::cpu::PYCV_ISA {

// The vectors of L channels that cover the channels of both tensors. In blocked layouts they end with the block, in
// nhwc the last one overlaps its neighbour.
struct ChannelVectors {
    int64_t channels, lanes, count;
    bool blocked;

    ChannelVectors(int64_t c, int64_t l, int64_t block)
        : channels(c), lanes(l), count(divide_up(block > 1 ? round_up(c, block) : c, l)), blocked(block > 1) {}
    int64_t start(int64_t v) const { return blocked ? v * lanes : smaller(v * lanes, channels - lanes); }
    int64_t real(int64_t v) const { return larger(0, smaller(lanes, channels - start(v))); }  // not padding
};

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
          vectors_(problem_.groups, L, larger(problem_.computed.block, problem_.source.block)) {
        constexpr int64_t kRowsInL1 = 20 << 10, kBandInL2 = 256 << 10;
        const int64_t width = larger(w_.size(), 1) * vector_bytes();
        const int64_t window = (h_.high() - h_.low() + 1) * (d_.high() - d_.low() + 1);
        chunk_ = smaller(larger(kRowsInL1 / (width * window), 2), larger(vectors_.count, 1));
        const int64_t rows = larger(rows_per_slice() * problem_.size.d, 1);
        band_ = larger(kBandInL2 / (width * h_.unit() * larger(vectors_.count, 1)), 4);
        const int64_t others = larger(problem_.n * chunks(), 1);
        band_ = larger(smaller(band_, rows * others / (4 * threads_)), 1);
    }

    int64_t workspace_bytes() const override { return has_prologue() ? threads_ * scratch_bytes() : 0; }
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

    Cost cost() const override {
        return {direct_multiply_adds(conv_) / threads_, 0, tensor_bytes(conv_), 1};
    }
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
            T* scratch = reinterpret_cast<T*>(static_cast<char*>(arguments.workspace) + thread * scratch_bytes());
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
    int64_t scratch_rows() const { return larger(d_[0].taps, 1) * larger(h_[0].taps, 1); }
    int64_t scratch_bytes() const {
        return has_prologue() ? scratch_rows() * chunk_ * larger(w_.size(), 1) * vector_bytes() : 0;
    }

    struct Place {
        int64_t n, d, h;  // of a computed row
    };

    // The source of one computed row: where each tap row begins, for the first vector.
    struct Source {
        const T* data;
        int64_t d, h, w;  // strides of tap rows and pixels
        bool scratch;     // vectors lie side by side, not as channels do
    };

    void row(const GatherTensors<T>& tensors, const T* weight, const Place& at, Range vectors, T* scratch) const {
        const TapAxis &d = d_.of(at.d), &h = h_.of(at.h);
        const int64_t qd = at.d / d_.count(), qh = at.h / h_.count();
        const Strides& s = problem_.source;
        const Window window{d, h, d.taps_inside(qd), h.taps_inside(qh)};
        Source source{tensors.source + at.n * s.n + (qd * d.unit + d.low) * s.d + (qh * h.unit + h.low) * s.h,
                      d.tap_step * s.d, h.tap_step * s.h, s.w, false};
        if (has_prologue()) source = transformed(tensors, source, window, vectors, scratch);
        for (int64_t phase = 0; phase < w_.count(); ++phase) {
            if (w_[phase].count == 0) continue;
            const Line line{tensors, weight, at, source, window, w_[phase], vectors};
            switch (w_[phase].sharing()) {
                case 1: tiles<1>(line); break;
                case 2: tiles<2>(line); break;
                default: tiles<0>(line);
            }
        }
    }

    // The taps of a computed row along the other two axes.
    struct Window {
        const TapAxis &d, &h;
        Range taps_d, taps_h;
    };

    // One phase of a computed row.
    struct Line {
        const GatherTensors<T>& tensors;
        const T* weight;
        Place at;
        Source source;
        Window window;
        const TapAxis& w;
        Range vectors;
    };

    template <int U>
    void tiles(const Line& line) const {
        switch (tile_outputs(line.w.count)) {
            case 8: return tiles<U, 8>(line);
            case 7: return tiles<U, 7>(line);
            case 4: return tiles<U, 4>(line);
            default: return tiles<U, 1>(line);
        }
    }

    template <int U, int P>
    void tiles(const Line& line) const {
        for (int64_t q = 0; q < line.w.count; q += P) {
            const int64_t first = smaller(q, line.w.count - P);
            for (int64_t v = line.vectors.begin; v < line.vectors.end; ++v) tile<U, P>(line, first, v);
        }
    }

    const T* vector_source(const Line& line, int64_t v) const {
        return line.source.data +
               (line.source.scratch ? (v - line.vectors.begin) * L : problem_.source.channel(vectors_.start(v)));
    }

    template <int U, int P>
    void tile(const Line& line, int64_t q, int64_t v) const {
        const TapAxis& w = line.w;
        const Window& window = line.window;
        const Range taps = w.taps_inside(q, P);
        const T* source = vector_source(line, v);
        const T* weight = line.weight + (v * this->taps() + w.filter_first) * L;
        const int64_t first = q * w.unit + w.low, pixel = line.source.w, filter_step = w.filter_step * L;
        const uint64_t size = static_cast<uint64_t>(w.size);
        V sum[P] = {};
        for (int64_t i = window.taps_d.begin; i < window.taps_d.end; ++i)
            for (int64_t j = window.taps_h.begin; j < window.taps_h.end; ++j) {
                const T* from = source + i * line.source.d + j * line.source.h;
                const int64_t filter_row = (window.d.filter_first + i * window.d.filter_step) * conv_.filter.h +
                                           window.h.filter_first + j * window.h.filter_step;
                const T* taps_row = weight + filter_row * conv_.filter.w * L;
                add_tap_run<U>(
                    sum, taps.begin, taps.end,
                    [&](int p, int64_t t) {
                        const int64_t x = first + (U == 0 ? p * w.unit + t * w.tap_step : t);
                        return static_cast<uint64_t>(x) < size ? load_row<V>(from + x * pixel) : V{};
                    },
                    [&](int64_t t) { return load_row<V>(taps_row + t * filter_step); });
            }
        finish<P>(line, q, v, sum);
    }

    // The first `real` lanes, 0 beyond.
    static V load_real(const T* p, int64_t real) {
        if (real == L) return load_row<V>(p);
        V v{};
        for (int64_t i = 0; i < real; ++i) v[i] = p[i];
        return v;
    }

    template <int P>
    void finish(const Line& line, int64_t q, int64_t v, V (&sum)[P]) const {
        const int64_t c = vectors_.start(v), x = line.w.first + q * line.w.step;
        const Strides &o = problem_.computed, &r = problem_.residual;
        const Place& at = line.at;
        if (line.tensors.bias) {
            const V bias = load_real(line.tensors.bias + c, vectors_.real(v));
            for (int p = 0; p < P; ++p) sum[p] += bias;
        }
        if (line.tensors.residual) {
            const T* from = line.tensors.residual + at.n * r.n + r.channel(c) + at.d * r.d + at.h * r.h + x * r.w;
            for (int p = 0; p < P; ++p) sum[p] += load_row<V>(from + p * line.w.step * r.w);
        }
        if (problem_.relu) {
            for (int p = 0; p < P; ++p) sum[p] = sum[p] < V{} ? V{} : sum[p];
        }
        T* to = line.tensors.computed + at.n * o.n + o.channel(c) + at.d * o.d + at.h * o.h + x * o.w;
        for (int p = 0; p < P; ++p) store_row<V>(to + p * line.w.step * o.w, sum[p]);
    }

    // Prologue: scratch as [tap row][pixel][vector], transformed.
    Source transformed(const GatherTensors<T>& tensors, const Source& source, const Window& window, Range vectors,
                       T* scratch) const {
        const int64_t count = vectors.end - vectors.begin, pixel = count * L, line = pixel * w_.size();
        for (int64_t i = window.taps_d.begin; i < window.taps_d.end; ++i)
            for (int64_t j = window.taps_h.begin; j < window.taps_h.end; ++j)
                for (int64_t v = 0; v < count; ++v) {
                    const int64_t c = vectors_.start(vectors.begin + v), real = vectors_.real(vectors.begin + v);
                    const T* from = source.data + i * source.d + j * source.h + problem_.source.channel(c);
                    T* to = scratch + (i * window.h.taps + j) * line + v * L;
                    const V one = T(1) - V{};
                    const V scale = tensors.scale ? load_real(tensors.scale + c, real) : one;
                    const V shift = tensors.scale ? load_real(tensors.shift + c, real) : V{};
                    for (int64_t x = 0; x < w_.size(); ++x) {
                        V value = load_row<V>(from + x * source.w);
                        if (tensors.scale) value = value * scale + shift;
                        if (conv_.relu_input) value = value < V{} ? V{} : value;
                        store_row<V>(to + x * pixel, value);
                    }
                }
        return {scratch, window.h.taps * line, line, pixel, true};
    }

    ConvProblem conv_;
    GatherProblem problem_;
    int threads_;
    AxisPhases d_, h_, w_;
    ChannelVectors vectors_;
    int64_t chunk_, band_;  // vectors and rows of a work item
};

// Whether vectors of `lanes` channels are contiguous in everything that a depthwise gather touches.
inline bool has_channel_vectors(const ConvProblem& p, int64_t lanes) {
    if (p.groups != p.c || p.groups != p.k || p.c == 0) return false;
    const auto contiguous = [](const Strides& s) { return s.block > 1 || s.c == 1; };
    if (!contiguous(p.input) || !contiguous(p.output) || (p.has_residual && !contiguous(p.residual))) return false;
    const int64_t in = p.input.block, out = p.output.block, residual = p.has_residual ? p.residual.block : out;
    if (in == 1 && out == 1 && residual == 1) return p.c >= lanes;
    if (in == out && out == residual) return in % lanes == 0;
    const auto divides = [lanes, &p](int64_t block) {
        return block == 1 || (block % lanes == 0 && p.c % block == 0);
    };
    return p.c % lanes == 0 && divides(in) && divides(out) && divides(residual);
}

}  // namespace pycv::cpu::PYCV_ISA
