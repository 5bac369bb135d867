// Weight gradients of the depthwise convolution.
// Only for kernel files (ISA namespace).
#pragma once

#include "depthwise.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// One axis of a padded plane: coordinate x of the source is cell (x - low) / step of part (x - low) % step.
struct SplitAxis {
    int64_t low, parts, cells, step, size;
    int64_t offset_first, offset_step;

    explicit SplitAxis(const AxisGather& axis)
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
    SplitAxis d, h, w;

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
void fill_row(const SplitAxis& w, int64_t part, const T* from, int64_t stride, T* to) {
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


constexpr int kSweep = 4;
constexpr int kShared = 4;

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

// Calls body(first) for vectors that cover [0, channels); the last one overlaps its neighbour.
template <class T, class Body>
void for_channel_vectors(Range vectors, int64_t channels, const Body& body) {
    for (int64_t v = vectors.begin; v < vectors.end; ++v) body(smaller(v * lanes<T>, channels - lanes<T>));
}

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


}  // namespace pycv::cpu::PYCV_ISA
