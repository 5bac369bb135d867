// Direct convolution, all passes: sums over taps straight from the source, for convolutions whose groups are too
// thin for a matrix product (depthwise), and for any other. Forward and grad_input are gathers (conv_gather.h).
//
// 2 * n * k * out * (c / groups) * filter FLOPs, in two schemes:
// - planes (any layout): a source channel's plane is copied, zero-padded and split by the remainder of its
//   coordinates modulo the stride, so that every tap is the same plane at another offset and the lanes sweep all rows
//   of the plane as one line. Up to four computed channels share a sweep: one element is copied for taps * 4
//   multiply-adds, one load serves four.
// - channels (depthwise, nhwc): lanes run along the channels of a pixel, and of the weight as [tap][channel]; nothing
//   is copied. One source load per multiply-add, a weight load for every four.
#include "conv_gather.h"
#include "cost.h"
#include "integers.h"
#include "parallel.h"
#include "plan.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// ------------------------------------------------------------------------------------------------------- planes

// One axis of a padded plane: coordinate x of the source is cell (x - low) / step of part (x - low) % step.
struct PaddedAxis {
    int64_t low, parts, cells, step, size;
    int64_t offset_first, offset_step;

    explicit PaddedAxis(const AxisGather& axis)
        : step(axis.source_step),
          size(axis.source_size),
          offset_first(axis.offset_first),
          offset_step(axis.offset_step) {
        const int64_t last = offset_first + larger(axis.taps - 1, 0) * offset_step;
        low = smaller(offset_first, last);
        const int64_t reach = larger(offset_first, last) - low;
        parts = smaller(step, reach + 1);
        cells = axis.count + reach / step;
    }
    int64_t part(int64_t tap) const { return (offset_first + tap * offset_step - low) % step; }
    int64_t cell(int64_t tap) const { return (offset_first + tap * offset_step - low) / step; }
    int64_t coordinate(int64_t part, int64_t cell) const { return low + part + cell * step; }
    bool inside(int64_t coordinate) const { return coordinate >= 0 && coordinate < size; }
};

// A padded plane in memory: [part of d][part of h][part of w] blocks of [cell of d][cell of h][cell of w].
struct PlaneShape {
    PaddedAxis d, h, w;

    explicit PlaneShape(const Gather& g) : d(g.d), h(g.h), w(g.w) {}
    int64_t pitch() const { return w.cells; }
    int64_t slice() const { return h.cells * w.cells; }
    int64_t block() const { return d.cells * slice(); }
    int64_t elements() const { return d.parts * h.parts * w.parts * block(); }
    int64_t tap(int64_t td, int64_t th, int64_t tw) const {
        return ((d.part(td) * h.parts + h.part(th)) * w.parts + w.part(tw)) * block() + d.cell(td) * slice() +
               h.cell(th) * pitch() + w.cell(tw);
    }
};

template <class T>
void fill_row(const PaddedAxis& w, int64_t part, const T* from, int64_t stride, T* to) {
    const int64_t first = w.coordinate(part, 0);
    const int64_t begin = first < 0 ? smaller(divide_up(-first, w.step), w.cells) : 0;
    const int64_t behind = w.size > first ? divide_up(w.size - first, w.step) : 0;
    const int64_t end = larger(smaller(behind, w.cells), begin);
    zero_run(to, begin);
    copy_strided<T>(to + begin, from + (first + begin * w.step) * stride, end - begin, w.step * stride);
    zero_run(to + end, w.cells - end);
}

template <class T>
void fill_plane(const PlaneShape& shape, const T* from, const Strides& s, T* to) {
    for (int64_t pd = 0; pd < shape.d.parts; ++pd)
        for (int64_t ph = 0; ph < shape.h.parts; ++ph)
            for (int64_t pw = 0; pw < shape.w.parts; ++pw)
                for (int64_t cd = 0; cd < shape.d.cells; ++cd)
                    for (int64_t ch = 0; ch < shape.h.cells; ++ch, to += shape.pitch()) {
                        const int64_t d = shape.d.coordinate(pd, cd), h = shape.h.coordinate(ph, ch);
                        if (shape.d.inside(d) && shape.h.inside(h)) {
                            fill_row(shape.w, pw, from + d * s.d + h * s.h, s.w, to);
                        } else {
                            zero_run(to, shape.pitch());
                        }
                    }
}

// The vectors of a sweep that are summed at a time, and the computed channels that share one.
constexpr int kSweep = 4;
constexpr int kShared = 4;

// sums[channel][i] (+)= sum over taps of plane[i + offset[tap]] * weight[channel][tap], for `length` elements i.
template <class T, int Channels>
void sweep(const T* plane, const int64_t* offset, const T* weight, int64_t taps, int64_t length, T* sums,
           int64_t sums_stride, bool add) {
    for (int64_t i = 0; i < length; i += kSweep * lanes<T>) {
        Vec<T> sum[Channels][kSweep] = {};
        if (add) {
            for (int c = 0; c < Channels; ++c)
                for (int v = 0; v < kSweep; ++v) sum[c][v] = load<T>(sums + c * sums_stride + i + v * lanes<T>);
        }
        for (int64_t t = 0; t < taps; ++t) {
            const T* from = plane + i + offset[t];
            Vec<T> value[kSweep];
#pragma GCC unroll 4
            for (int v = 0; v < kSweep; ++v) value[v] = load<T>(from + v * lanes<T>);
#pragma GCC unroll 4
            for (int c = 0; c < Channels; ++c)
#pragma GCC unroll 4
                for (int v = 0; v < kSweep; ++v) sum[c][v] += value[v] * broadcast<T>(weight[c * taps + t]);
        }
        for (int c = 0; c < Channels; ++c)
            for (int v = 0; v < kSweep; ++v) store<T>(sums + c * sums_stride + i + v * lanes<T>, sum[c][v]);
    }
}

template <class T>
void sweep_channels(int64_t channels, const T* plane, const int64_t* offset, const T* weight, int64_t taps,
                    int64_t length, T* sums, int64_t sums_stride, bool add) {
    if (channels == 4) return sweep<T, 4>(plane, offset, weight, taps, length, sums, sums_stride, add);
    if (channels == 3) return sweep<T, 3>(plane, offset, weight, taps, length, sums, sums_stride, add);
    if (channels == 2) return sweep<T, 2>(plane, offset, weight, taps, length, sums, sums_stride, add);
    sweep<T, 1>(plane, offset, weight, taps, length, sums, sums_stride, add);
}

// A thread's memory in the workspace.
template <class T>
struct PlaneSpace {
    T* plane;
    T* sums;          // kShared slices
    T* weight;        // kShared x taps
    int64_t* offset;  // taps
};

template <class T>
struct PlaneSizes {
    int64_t plane = 0, slice = 0, taps = 0;

    // Vectors are read and written past the end of a plane by less than a sweep.
    static constexpr int64_t kSlack = (kSweep + 1) * lanes<T>;

    void fit(const Gather& g) {
        const PlaneShape shape(g);
        plane = larger(plane, round_up(shape.elements() + kSlack, 64));
        slice = larger(slice, round_up(g.h.count * shape.pitch() + kSlack, 64));
        taps = larger(taps, round_up(g.taps() + 1, 64));
    }
    int64_t bytes() const {
        return (plane + kShared * slice + kShared * taps) * static_cast<int64_t>(sizeof(T)) + taps * 8;
    }
    PlaneSpace<T> carve(void* workspace, int thread) const {
        T* at = reinterpret_cast<T*>(static_cast<char*>(workspace) + thread * bytes());
        T* sums = at + plane;
        T* weight = sums + kShared * slice;
        return {at, sums, weight, reinterpret_cast<int64_t*>(weight + kShared * taps)};
    }
};

// Fills the plane's offsets of all taps.
inline void tap_offsets(const Gather& g, int64_t* offset) {
    const PlaneShape shape(g);
    for (int64_t d = 0; d < g.d.taps; ++d)
        for (int64_t h = 0; h < g.h.taps; ++h)
            for (int64_t w = 0; w < g.w.taps; ++w) *offset++ = shape.tap(d, h, w);
}

template <class T>
void tap_weights(const Gather& g, const Strides& s, const T* weight, T* to) {
    for (int64_t d = 0; d < g.d.taps; ++d)
        for (int64_t h = 0; h < g.h.taps; ++h)
            for (int64_t w = 0; w < g.w.taps; ++w)
                *to++ = weight[(g.d.filter_first + d * g.d.filter_step) * s.d +
                               (g.h.filter_first + h * g.h.filter_step) * s.h +
                               (g.w.filter_first + w * g.w.filter_step) * s.w];
}

template <class T>
class PlaneGather final : public ConvPlan {
public:
    PlaneGather(const ConvProblem& problem, int threads)
        : conv_(problem), problem_(gather_problem(problem)), threads_(threads > 1 ? threads : 1) {
        for (int64_t i = 0; i < problem_.phases.count(); ++i) sizes_.fit(gather_phase(conv_, i));
    }

    int64_t workspace_bytes() const override { return threads_ * sizes_.bytes(); }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}
    Cost cost() const override {
        return {direct_multiply_adds(conv_) / threads_, activation_bytes(conv_) / element_bytes(conv_.dtype) / threads_,
                tensor_bytes(conv_), 1};
    }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& arguments) const override {
        const int64_t blocks = divide_up(problem_.channels, kShared);
        const int64_t items = problem_.n * problem_.groups * blocks;
        parallel(threads_, [&](int thread, int team) {
            const PlaneSpace<T> space = sizes_.carve(arguments.workspace, thread);
            const Range mine = share(items, thread, team);
            for (int64_t phase = 0; phase < problem_.phases.count(); ++phase) {
                const Gather gather = gather_phase(conv_, phase);
                if (gather.positions() == 0) continue;
                tap_offsets(gather, space.offset);
                for (int64_t i = mine.begin; i < mine.end; ++i)
                    compute(arguments, gather, i / blocks / problem_.groups, i / blocks % problem_.groups,
                            i % blocks * kShared, space);
            }
        });
    }

private:
    // Up to kShared channels of one group and image.
    void compute(const ConvArguments& arguments, const Gather& g, int64_t n, int64_t group, int64_t channel,
                 const PlaneSpace<T>& space) const {
        const bool forward = conv_.pass == Pass::forward;
        const int64_t channels = smaller(kShared, problem_.channels - channel);
        const T* source = static_cast<const T*>(forward ? arguments.input : arguments.output) + n * problem_.source.n +
                          group * problem_.source_channels * problem_.source.c;
        const T* weight =
            static_cast<const T*>(arguments.weight) + group * problem_.weight_group + channel * problem_.weight.n;
        const PlaneShape shape(g);
        const int64_t taps = g.taps(), length = g.h.count * shape.pitch();
        // A plane of several slices in depth is summed slice by slice, all its source channels each.
        for (int64_t d = 0; d < g.d.count; ++d) {
            if (taps == 0 || problem_.source_channels == 0)
                for (int64_t i = 0; i < channels; ++i) zero_run(space.sums + i * sizes_.slice, length);
            for (int64_t c = 0; taps > 0 && c < problem_.source_channels; ++c) {
                if (d == 0 || problem_.source_channels > 1)
                    fill_plane(shape, source + c * problem_.source.c, problem_.source, space.plane);
                for (int64_t i = 0; i < channels; ++i)
                    tap_weights(g, problem_.weight, weight + c * problem_.weight.c + i * problem_.weight.n,
                                space.weight + i * taps);
                sweep_channels<T>(channels, space.plane + d * shape.slice(), space.offset, space.weight, taps, length,
                                  space.sums, sizes_.slice, c > 0);
            }
            for (int64_t i = 0; i < channels; ++i)
                finish(arguments, g, n, group * problem_.channels + channel + i, d, space.sums + i * sizes_.slice,
                       shape.pitch());
        }
    }

    // Epilogue and store of one slice.
    void finish(const ConvArguments& arguments, const Gather& g, int64_t n, int64_t channel, int64_t d, const T* sums,
                int64_t pitch) const {
        const Strides &o = problem_.computed, &r = problem_.residual;
        const int64_t plane = g.d.first + d * g.d.step;
        T* out = static_cast<T*>(conv_.pass == Pass::forward ? arguments.output : arguments.input) + n * o.n +
                 channel * o.c + plane * o.d;
        const T* residual = problem_.has_residual
                                ? static_cast<const T*>(arguments.residual) + n * r.n + channel * r.c + plane * r.d
                                : nullptr;
        // -0 is what adding no bias must add.
        const T bias = problem_.bias ? static_cast<const T*>(arguments.bias)[channel] : T(-0.0);
        for (int64_t h = 0; h < g.h.count; ++h) {
            const int64_t y = g.h.first + h * g.h.step;
            for (int64_t w = 0; w < g.w.count; ++w) {
                const int64_t x = g.w.first + w * g.w.step;
                T v = sums[h * pitch + w] + bias;
                if (residual) v += residual[y * r.h + x * r.w];
                out[y * o.h + x * o.w] = problem_.relu ? relu<T>(v) : v;
            }
        }
    }

    ConvProblem conv_;
    GatherProblem problem_;
    int threads_;
    PlaneSizes<T> sizes_;
};

// weight[k][c][tap] = sum over images and positions of output * plane at the tap's offset.
template <class T>
class PlaneGradWeight final : public ConvPlan {
public:
    PlaneGradWeight(const ConvProblem& problem, int threads)
        : conv_(problem),
          threads_(threads > 1 ? threads : 1),
          gather_(forward_gather(problem)),
          groups_(larger(problem.groups, 1)),
          channels_(problem.c / groups_),
          outputs_(problem.k / groups_) {
        sizes_.fit(gather_);
    }

    int64_t workspace_bytes() const override { return threads_ * sizes_.bytes(); }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}
    Cost cost() const override {
        return {direct_multiply_adds(conv_) / threads_, activation_bytes(conv_) / element_bytes(conv_.dtype) / threads_,
                tensor_bytes(conv_), 1};
    }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& arguments) const override {
        parallel(threads_, [&](int thread, int team) {
            const PlaneSpace<T> space = sizes_.carve(arguments.workspace, thread);
            tap_offsets(gather_, space.offset);
            const Range mine = share(groups_ * channels_, thread, team);
            for (int64_t i = mine.begin; i < mine.end; ++i)
                for (int64_t k = 0; k < outputs_; k += kShared)
                    compute(arguments, i / channels_, i % channels_, k, space);
        });
    }

private:
    // The filters of one input channel and up to kShared output channels; the sums grow in space.weight.
    void compute(const ConvArguments& arguments, int64_t group, int64_t c, int64_t k,
                 const PlaneSpace<T>& space) const {
        const int64_t taps = gather_.taps(), count = smaller(kShared, outputs_ - k);
        zero_run(space.weight, kShared * taps);
        const PlaneShape shape(gather_);
        for (int64_t n = 0; n < conv_.n && gather_.positions() > 0; ++n) {
            fill_plane(
                shape,
                static_cast<const T*>(arguments.input) + n * conv_.input.n + (group * channels_ + c) * conv_.input.c,
                conv_.input, space.plane);
            for (int64_t i = 0; i < count; ++i)
                for (int64_t d = 0; d < gather_.d.count; ++d)
                    add_slice(arguments, n, group * outputs_ + k + i, d, shape, space, space.weight + i * taps);
        }
        for (int64_t i = 0; i < count; ++i) write(arguments, group * outputs_ + k + i, c, space.weight + i * taps);
    }

    void add_slice(const ConvArguments& arguments, int64_t n, int64_t k, int64_t d, const PlaneShape& shape,
                   const PlaneSpace<T>& space, T* sums) const {
        const Strides& s = conv_.output;
        const T* from = static_cast<const T*>(arguments.output) + n * s.n + k * s.c + d * s.d;
        const int64_t pitch = round_up(gather_.w.count, lanes<T>);
        T* rows = space.sums;
        const int64_t batch = larger(1, kShared * sizes_.slice / pitch);
        for (int64_t h = 0; h < gather_.h.count; h += batch) {
            const int64_t count = smaller(batch, gather_.h.count - h);
            for (int64_t i = 0; i < count; ++i)
                copy_strided<T>(rows + i * pitch, from + (h + i) * s.h, gather_.w.count, s.w);
            const T* plane = space.plane + d * shape.slice() + h * shape.pitch();
            int64_t t = 0;
            for (; t + 4 <= gather_.taps(); t += 4)
                add_taps<4>(plane, space.offset + t, rows, count, pitch, shape.pitch(), sums + t);
            for (; t < gather_.taps(); ++t)
                add_taps<1>(plane, space.offset + t, rows, count, pitch, shape.pitch(), sums + t);
        }
    }

    // Lanes past the end of a row are dropped after the product: what they read may be NaN.
    template <int Taps>
    void add_taps(const T* plane, const int64_t* offset, const T* rows, int64_t count, int64_t rows_pitch,
                  int64_t plane_pitch, T* sums) const {
        const int64_t width = gather_.w.count, rest = width % lanes<T>;
        Vec<shuffles::Index<T>> used{};
        for (int i = 0; i < lanes<T>; ++i) used[i] = i < rest ? -1 : 0;
        Vec<T> sum[Taps] = {};
        for (int64_t h = 0; h < count; ++h) {
            const T* g = rows + h * rows_pitch;
            const T* x = plane + h * plane_pitch;
            int64_t w = 0;
            for (; w + lanes<T> <= width; w += lanes<T>) {
                const Vec<T> v = load<T>(g + w);
#pragma GCC unroll 4
                for (int t = 0; t < Taps; ++t) sum[t] += v * load<T>(x + offset[t] + w);
            }
            if (rest == 0) continue;
            const Vec<T> v = load<T>(g + w);
#pragma GCC unroll 4
            for (int t = 0; t < Taps; ++t) sum[t] += used ? v * load<T>(x + offset[t] + w) : Vec<T>{};
        }
        for (int t = 0; t < Taps; ++t)
            for (int i = 0; i < lanes<T>; ++i) sums[t] += sum[t][i];
    }

    void write(const ConvArguments& arguments, int64_t k, int64_t c, const T* sums) const {
        const Strides& s = conv_.weight;
        T* to = static_cast<T*>(arguments.weight) + k * s.n + c * s.c;
        for (int64_t d = 0; d < conv_.filter.d; ++d)
            for (int64_t h = 0; h < conv_.filter.h; ++h)
                for (int64_t w = 0; w < conv_.filter.w; ++w) to[d * s.d + h * s.h + w * s.w] = *sums++;
    }

    ConvProblem conv_;
    int threads_;
    Gather gather_;
    int64_t groups_, channels_, outputs_;  // channels and outputs per group
    PlaneSizes<T> sizes_;
};

// ----------------------------------------------------------------------------------------------------- channels

// Pixels along w that share the weight's loads.
constexpr int kPixels = 4;

// Calls body(first) for vectors that cover [0, channels); the last one overlaps its neighbour.
template <class T, class Body>
void for_channel_vectors(Range vectors, int64_t channels, const Body& body) {
    for (int64_t v = vectors.begin; v < vectors.end; ++v) body(smaller(v * lanes<T>, channels - lanes<T>));
}

template <class T>
class DepthwiseGather final : public ConvPlan {
public:
    DepthwiseGather(const ConvProblem& problem, int threads)
        : conv_(problem), problem_(gather_problem(problem)), threads_(threads), channels_(problem_.groups) {}

    int64_t workspace_bytes() const override { return 0; }
    int64_t prepared_weight_bytes() const override {
        return larger(1, conv_.filter.count()) * channels_ * static_cast<int64_t>(sizeof(T));
    }

    Cost cost() const override {
        return {direct_multiply_adds(conv_) / threads_, activation_bytes(conv_) / element_bytes(conv_.dtype) / threads_,
                tensor_bytes(conv_), 1};
    }
    Cost prepare_cost() const override {
        return {0, weight_elements(conv_), 2 * weight_elements(conv_) * element_bytes(conv_.dtype), 0};
    }

    // [filter position][channel]
    void prepare_weight(const void* weight, void* prepared) const override {
        T* to = static_cast<T*>(prepared);
        const Strides& s = problem_.weight;
        for (int64_t d = 0; d < conv_.filter.d; ++d)
            for (int64_t h = 0; h < conv_.filter.h; ++h)
                for (int64_t w = 0; w < conv_.filter.w; ++w, to += channels_)
                    copy_strided<T>(to, static_cast<const T*>(weight) + d * s.d + h * s.h + w * s.w, channels_,
                                    problem_.weight_group);
    }

    void run(const ConvArguments& arguments) const override {
        for (int64_t phase = 0; phase < problem_.phases.count(); ++phase) {
            const Gather g = gather_phase(conv_, phase);
            const int64_t rows = g.d.count * g.h.count;
            if (g.w.count == 0) continue;
            parallel_for(threads_, problem_.n * rows, [&](int64_t i) {
                const Row row(*this, arguments, g, i / rows, i % rows / g.h.count, i % g.h.count);
                for (int64_t w = 0; w < g.w.count; w += kPixels) row.pixels(w, smaller(kPixels, g.w.count - w));
            });
        }
    }

private:
    // One row of computed pixels.
    struct Row {
        const DepthwiseGather& plan;
        const Gather& g;
        const T *source, *weight, *residual, *bias;
        T* out;
        int64_t d, h;

        Row(const DepthwiseGather& p, const ConvArguments& a, const Gather& gather, int64_t n, int64_t row_d,
            int64_t row_h)
            : plan(p), g(gather), d(row_d), h(row_h) {
            const bool forward = p.conv_.pass == Pass::forward;
            const int64_t y = g.d.first + d * g.d.step, z = g.h.first + h * g.h.step;
            const Strides &o = p.problem_.computed, &r = p.problem_.residual;
            source = static_cast<const T*>(forward ? a.input : a.output) + n * p.problem_.source.n;
            weight = static_cast<const T*>(a.weight);
            bias = p.problem_.bias ? static_cast<const T*>(a.bias) : nullptr;
            residual =
                p.problem_.has_residual ? static_cast<const T*>(a.residual) + n * r.n + y * r.d + z * r.h : nullptr;
            out = static_cast<T*>(forward ? a.output : a.input) + n * o.n + y * o.d + z * o.h;
        }

        void pixels(int64_t w, int64_t count) const {
            const int64_t first = g.w.source(w, 0), last = g.w.source(w + count - 1, g.w.taps - 1);
            const int64_t other = g.w.source(w, g.w.taps - 1), far = g.w.source(w + count - 1, 0);
            const bool inside = g.w.inside(first) && g.w.inside(last) && g.w.inside(other) && g.w.inside(far);
            const Range vectors{0, divide_up(plan.channels_, lanes<T>)};
            for_channel_vectors<T>(vectors, plan.channels_, [&](int64_t c) {
                Vec<T> sum[kPixels] = {};
                if (inside && count == kPixels) {
                    add_taps<true>(w, count, c, sum);
                } else {
                    add_taps<false>(w, count, c, sum);
                }
                for (int64_t p = 0; p < count; ++p) finish(w + p, c, sum[p]);
            });
        }

        template <bool Inside>
        void add_taps(int64_t w, int64_t count, int64_t c, Vec<T>* sum) const {
            const Strides& s = plan.problem_.source;
            const Spatial& f = plan.conv_.filter;
            for (int64_t i = 0; i < g.d.taps; ++i) {
                const int64_t sd = g.d.source(d, i);
                if (!g.d.inside(sd)) continue;
                for (int64_t j = 0; j < g.h.taps; ++j) {
                    const int64_t sh = g.h.source(h, j);
                    if (!g.h.inside(sh)) continue;
                    const int64_t filter_row =
                        (g.d.filter_first + i * g.d.filter_step) * f.h + g.h.filter_first + j * g.h.filter_step;
                    const T* from = source + sd * s.d + sh * s.h + c;
                    for (int64_t k = 0; k < g.w.taps; ++k) {
                        const int64_t filter_w = g.w.filter_first + k * g.w.filter_step;
                        const Vec<T> weights = load<T>(weight + (filter_row * f.w + filter_w) * plan.channels_ + c);
                        const int64_t sw = g.w.source(w, k);
                        if constexpr (Inside) {
#pragma GCC unroll 4
                            for (int p = 0; p < kPixels; ++p)
                                sum[p] += weights * load<T>(from + (sw + p * g.w.source_step) * s.w);
                        } else {
                            for (int64_t p = 0; p < count; ++p)
                                if (const int64_t x = sw + p * g.w.source_step; g.w.inside(x))
                                    sum[p] += weights * load<T>(from + x * s.w);
                        }
                    }
                }
            }
        }

        void finish(int64_t w, int64_t c, Vec<T> v) const {
            const int64_t x = g.w.first + w * g.w.step;
            if (bias) v += load<T>(bias + c);
            if (residual) v += load<T>(residual + x * plan.problem_.residual.w + c);
            store<T>(out + x * plan.problem_.computed.w + c, plan.problem_.relu ? relu<T>(v) : v);
        }
    };

    ConvProblem conv_;
    GatherProblem problem_;
    int threads_;
    int64_t channels_;
};

template <class T>
class DepthwiseGradWeight final : public ConvPlan {
public:
    DepthwiseGradWeight(const ConvProblem& problem, int threads)
        : conv_(problem), threads_(threads), gather_(forward_gather(problem)) {}

    int64_t workspace_bytes() const override { return 0; }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}
    Cost cost() const override {
        return {direct_multiply_adds(conv_) / threads_, activation_bytes(conv_) / element_bytes(conv_.dtype) / threads_,
                tensor_bytes(conv_), 1};
    }
    Cost prepare_cost() const override { return {}; }

    // The filter rows of a channel vector are independent sums. The last vector overlaps its neighbour, and both would
    // write the same values: they go to one thread.
    void run(const ConvArguments& arguments) const override {
        const int64_t vectors = divide_up(conv_.c, lanes<T>), items = larger(vectors - 1, 1);
        const int64_t rows = conv_.filter.d * conv_.filter.h;
        parallel_for(threads_, items * rows, [&](int64_t i) {
            const int64_t item = i / rows;
            const Range mine{item, item + 1 == items ? vectors : item + 1};
            for_channel_vectors<T>(mine, conv_.c, [&](int64_t c) {
                int64_t w = 0;
                for (; w + 4 <= conv_.filter.w; w += 4) sum_taps<4>(arguments, i % rows, w, c);
                for (; w + 3 <= conv_.filter.w; w += 3) sum_taps<3>(arguments, i % rows, w, c);
                for (; w < conv_.filter.w; ++w) sum_taps<1>(arguments, i % rows, w, c);
            });
        });
    }

private:
    // The sums of `Taps` neighbouring filter positions of one filter row, for the channels of one vector.
    template <int Taps>
    void sum_taps(const ConvArguments& arguments, int64_t filter_row, int64_t first, int64_t c) const {
        const int64_t td = filter_row / conv_.filter.h, th = filter_row % conv_.filter.h;
        const Strides &x = conv_.input, &y = conv_.output, &s = conv_.weight;
        Vec<T> sum[Taps] = {};
        for (int64_t n = 0; n < conv_.n; ++n)
            for (int64_t d = 0; d < conv_.out.d; ++d)
                for (int64_t h = 0; h < conv_.out.h; ++h) {
                    const int64_t sd = gather_.d.source(d, td), sh = gather_.h.source(h, th);
                    if (!gather_.d.inside(sd) || !gather_.h.inside(sh)) continue;
                    const T* from = static_cast<const T*>(arguments.input) + n * x.n + sd * x.d + sh * x.h + c;
                    const T* grad = static_cast<const T*>(arguments.output) + n * y.n + d * y.d + h * y.h + c;
                    for (int64_t w = 0; w < conv_.out.w; ++w) {
                        const Vec<T> v = load<T>(grad + w * y.w);
#pragma GCC unroll 4
                        for (int t = 0; t < Taps; ++t)
                            if (const int64_t sw = gather_.w.source(w, first + t); gather_.w.inside(sw))
                                sum[t] += v * load<T>(from + sw * x.w);
                    }
                }
        T* to = static_cast<T*>(arguments.weight) + c * s.n + td * s.d + th * s.h + first * s.w;
        for (int t = 0; t < Taps; ++t)
            for (int i = 0; i < lanes<T>; ++i) to[t * s.w + i * s.n] = sum[t][i];
    }

    ConvProblem conv_;
    int threads_;
    Gather gather_;
};

bool depthwise_nhwc(const ConvProblem& p, int64_t vector_lanes) {
    return p.groups == p.c && p.groups == p.k && p.c >= vector_lanes && p.input.c == 1 && p.output.c == 1 &&
           (!p.has_residual || p.residual.c == 1);
}

template <class T>
ConvPlan* plan(const ConvProblem& problem, int threads) {
    const bool channels = depthwise_nhwc(problem, lanes<T>);
    if (problem.pass == Pass::grad_weight) {
        if (channels) return new DepthwiseGradWeight<T>(problem, threads);
        return new PlaneGradWeight<T>(problem, threads);
    }
    if (channels) return new DepthwiseGather<T>(problem, threads);
    return new PlaneGather<T>(problem, threads);
}

ConvPlan* plan_direct(const ConvProblem& problem, int threads, int64_t) {
    if (problem.dtype == DType::f64) return plan<double>(problem, threads);
    return plan<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("conv", "direct", plan_direct);

}  // namespace pycv::cpu::PYCV_ISA
