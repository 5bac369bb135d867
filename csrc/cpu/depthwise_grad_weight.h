// Weight gradients of convolutions with thin groups: weight[k][c][tap] = sum over images and positions of the output
// gradient times the input at the tap. Two schemes, as for the other passes.
//
// - channels: lanes along channels. A row of the output gradient meets each row of the input that a tap row reads; up
//   to five taps along the row share its loads, their sums stay in registers for the row and grow in scratch.
// - planes: lanes along the row of a zero-padded copy. Up to eight rows of the gradient stay in registers while the
//   taps down a filter's column share the input's loads; the lanes of a tap's sum are added up at the end.
// Only for kernel files (ISA namespace).
#pragma once

#include "depthwise_channels.h"
#include "norm.h"
#include "padded_planes.h"

namespace pycv::cpu::PYCV_ISA {

// ----------------------------------------------------------------------------------------------------- channels

template <class T, int L>
class ChannelGradWeight final : public ConvPlan {
public:
    using V = Row<T, L>;

    ChannelGradWeight(const ConvProblem& problem, int threads)
        : conv_(problem),
          threads_(threads > 1 ? threads : 1),
          d_(forward_gather(problem).d),
          h_(forward_gather(problem).h),
          w_(forward_gather(problem).w),
          vectors_(problem.c, L, problem.input.block) {
        // Where there are few channels, the rows are shared out too, and the parts added up at the end.
        const int64_t rows = larger(conv_.n * conv_.out.d * conv_.out.h, 1);
        splits_ = vectors_.count >= 2 * threads_ || threads_ == 1 ? 1 : smaller(threads_, rows);
    }

    int64_t workspace_bytes() const override { return splits_ * vectors_.count * total_elements() * sizeof(T); }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}
    Cost cost() const override { return {direct_multiply_adds(conv_) / threads_, 0, tensor_bytes(conv_), 2}; }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& arguments) const override {
        T* totals = static_cast<T*>(arguments.workspace);
        parallel(threads_, [&](int thread, int team) {
            const Range mine = share(vectors_.count * splits_, thread, team);
            for (int64_t i = mine.begin; i < mine.end; ++i)
                add_rows(arguments, i / splits_, share(conv_.n * conv_.out.d * conv_.out.h, i % splits_, splits_),
                         totals + i * total_elements());
            team_barrier(team);
            const Range written = share(vectors_.count, thread, team);
            for (int64_t v = written.begin; v < written.end; ++v)
                write(arguments, v, totals + v * splits_ * total_elements());
        });
    }

private:
    int64_t total_elements() const { return conv_.filter.count() * L; }

    // The sums of one vector over some rows (n, d, h) of the output.
    void add_rows(const ConvArguments& arguments, int64_t v, Range rows, T* totals) const {
        const Strides &x = conv_.input, &y = conv_.output;
        zero_run(totals, total_elements());
        const T* input = static_cast<const T*>(arguments.input) + x.channel(vectors_.start(v));
        const T* grad = static_cast<const T*>(arguments.output) + y.channel(vectors_.start(v));
        const int64_t per_image = conv_.out.d * conv_.out.h;
        for (int64_t r = rows.begin; r < rows.end; ++r) {
            const int64_t n = r / per_image, d = r % per_image / conv_.out.h, h = r % conv_.out.h;
            const Range taps_d = d_.taps_inside(d), taps_h = h_.taps_inside(h);
            for (int64_t i = taps_d.begin; i < taps_d.end; ++i)
                for (int64_t j = taps_h.begin; j < taps_h.end; ++j)
                    add_row(input + n * x.n + (d * d_.unit + d_.low + i * d_.tap_step) * x.d +
                                (h * h_.unit + h_.low + j * h_.tap_step) * x.h,
                            grad + n * y.n + d * y.d + h * y.h, totals + (i * conv_.filter.h + j) * conv_.filter.w * L);
        }
    }

    // One row of the output with the taps of one filter row.
    void add_row(const T* input, const T* grad, T* totals) const {
        int64_t t = 0;
        if (w_.sharing() > 0) {
            if (w_.taps == 5) return add_taps<5>(input, grad, 0, totals);
            for (; t + 3 <= w_.taps; t += 3) add_taps<3>(input, grad, t, totals);
        }
        for (; t < w_.taps; ++t) add_taps<1>(input, grad, t, totals);
    }

    // B neighbouring taps from tap t on.
    template <int B>
    void add_taps(const T* input, const T* grad, int64_t t, T* totals) const {
        const int64_t pixel = conv_.input.w, step = conv_.output.w;
        // Outputs whose inputs at all of these taps lie inside.
        const int64_t low = w_.low + t * w_.tap_step, high = low + (B - 1) * w_.tap_step;
        const int64_t begin = smaller(low < 0 ? divide_up(-low, w_.unit) : 0, w_.count);
        const int64_t behind = w_.size > high ? divide_up(w_.size - high, w_.unit) : 0;
        const int64_t end = larger(smaller(behind, w_.count), begin);
        V sum[B];
        unroll<B>([&]<int b>() PYCV_INLINE { sum[b] = load_row<V>(totals + (t + b) * L); });
        const auto edge = [&](int64_t q) PYCV_INLINE {
            const V g = load_row<V>(grad + q * step);
            unroll<B>([&]<int b>() PYCV_INLINE {
                const int64_t x = q * w_.unit + low + b * w_.tap_step;
                if (x >= 0 && x < w_.size) sum[b] += g * load_row<V>(input + x * pixel);
            });
        };
        for (int64_t q = 0; q < begin; ++q) edge(q);
        if (w_.unit == 1 && B > 1) {
            add_inside<B, 1>(input + (begin + low) * pixel, pixel, grad + begin * step, step, end - begin, sum);
        } else if (w_.unit == 2 && B > 1) {
            add_inside<B, 2>(input + (begin * 2 + low) * pixel, pixel, grad + begin * step, step, end - begin, sum);
        } else {
            add_inside<B, 1>(input + (begin * w_.unit + low) * pixel, w_.unit * pixel, grad + begin * step, step,
                             end - begin, sum);
        }
        for (int64_t q = end; q < w_.count; ++q) edge(q);
        unroll<B>([&]<int b>() PYCV_INLINE { store_row<V>(totals + (t + b) * L, sum[b]); });
    }

    // sum[b] += grad[q] * input[q * U + b]; two partial sums of each, to have enough independent additions.
    template <int B, int U>
    PYCV_INLINE static void add_inside(const T* input, int64_t pixel, const T* grad, int64_t step, int64_t count,
                                       V (&sum)[B]) {
        constexpr int kOutputs = 4;
        V other[B] = {}, row[B] = {};
        int64_t q = 0;
        for (; q + kOutputs <= count; q += kOutputs, input += kOutputs * U * pixel, grad += kOutputs * step) {
            V g[kOutputs];
            unroll<kOutputs>([&]<int p>() PYCV_INLINE { g[p] = load_row<V>(grad + p * step); });
            unroll<(kOutputs - 1) * U + B>([&]<int i>() PYCV_INLINE {
                V value = load_row<V>(input + i * pixel);
                if constexpr (B > 1) hold(value);
                unroll<B>([&]<int b>() PYCV_INLINE {
                    if constexpr (i >= b && (i - b) % U == 0 && (i - b) / U < kOutputs) {
                        constexpr int p = (i - b) / U;
                        (p % 2 ? other : row)[b] += g[p] * value;
                    }
                });
            });
        }
        for (; q < count; ++q, input += U * pixel, grad += step) {
            const V g = load_row<V>(grad);
            unroll<B>([&]<int b>() PYCV_INLINE { row[b] += g * load_row<V>(input + b * pixel); });
        }
        unroll<B>([&]<int b>() PYCV_INLINE { sum[b] += row[b] + other[b]; });
    }

    // Channels that the vector before has, and lanes of padding, are left out.
    void write(const ConvArguments& arguments, int64_t v, const T* totals) const {
        const Strides& s = conv_.weight;
        const int64_t start = vectors_.start(v);
        T* to = static_cast<T*>(arguments.weight) + start * s.n;
        for (int64_t d = 0; d < conv_.filter.d; ++d)
            for (int64_t h = 0; h < conv_.filter.h; ++h)
                for (int64_t w = 0; w < conv_.filter.w; ++w, totals += L) {
                    V sum = load_row<V>(totals);
                    for (int64_t part = 1; part < splits_; ++part) sum += load_row<V>(totals + part * total_elements());
                    for (int64_t i = v * L - start; i < vectors_.real(v); ++i)
                        to[i * s.n + d * s.d + h * s.h + w * s.w] = sum[i];
                }
    }

    ConvProblem conv_;
    int threads_;
    TapAxis d_, h_, w_;
    ChannelVectors vectors_;
    int64_t splits_;
};

// ------------------------------------------------------------------------------------------------------- planes

template <class T>
class PlaneGradWeight final : public ConvPlan {
public:
    PlaneGradWeight(const ConvProblem& problem, int threads)
        : conv_(problem),
          threads_(threads > 1 ? threads : 1),
          groups_(larger(problem.groups, 1)),
          channels_(problem.c / groups_),
          outputs_(problem.k / groups_),
          d_(depth_phases(problem)),
          h_(height_phases(problem)),
          w_(width_phases(problem)),
          copy_(d_, h_, w_, 1) {}

    int64_t workspace_bytes() const override { return threads_ * thread_bytes(); }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}
    Cost cost() const override {
        return {direct_multiply_adds(conv_) / threads_, activation_bytes(conv_) / element_bytes(conv_.dtype) / threads_,
                tensor_bytes(conv_), 1};
    }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& arguments) const override {
        parallel(threads_, [&](int thread, int team) {
            T* plane = reinterpret_cast<T*>(static_cast<char*>(arguments.workspace) + thread * thread_bytes());
            T* sums = plane + plane_elements();
            zero_run(plane, copy_.plane);
            const int64_t blocks = divide_up(outputs_, kShared);
            const Range mine = share(groups_ * channels_ * blocks, thread, team);
            for (int64_t i = mine.begin; i < mine.end; ++i) {
                const int64_t k = i % blocks * kShared, c = i / blocks % channels_, group = i / blocks / channels_;
                filters(arguments, group, c, {k, smaller(k + kShared, outputs_)}, plane, sums);
            }
        });
    }

private:
    static constexpr int64_t kShared = 4;  // filters that share a copy
    static constexpr int kRows = 7;        // of a tile

    int64_t plane_elements() const { return round_up(copy_.plane, 64); }
    int64_t sum_elements() const { return conv_.filter.count() * lanes<T>; }  // [tap of d][tap of w][tap of h][lane]
    int64_t thread_bytes() const {
        return (plane_elements() + kShared * sum_elements()) * static_cast<int64_t>(sizeof(T));
    }

    // The filters of one input channel and some output channels of a group.
    void filters(const ConvArguments& arguments, int64_t group, int64_t c, Range k, T* plane, T* sums) const {
        const Strides &x = conv_.input, &y = conv_.output;
        zero_run(sums, (k.end - k.begin) * sum_elements());
        const T* input = static_cast<const T*>(arguments.input) + x.channel(group * channels_ + c);
        const bool empty = conv_.filter.count() == 0;
        for (int64_t n = 0; n < conv_.n && !empty; ++n)
            for (int64_t d = 0; d < conv_.out.d; ++d)
                for (int64_t strip = 0; strip < conv_.out.h; strip += copy_.strip) {
                    copy_.fill(input + n * x.n, x, d, strip, plane, [](T*) {});
                    const int64_t rows = smaller(copy_.strip, conv_.out.h - strip);
                    for (int64_t m = k.begin; m < k.end; ++m) {
                        const T* grad = static_cast<const T*>(arguments.output) + n * y.n +
                                        y.channel(group * outputs_ + m) + d * y.d + strip * y.h;
                        add_strip(grad, rows, plane, sums + (m - k.begin) * sum_elements());
                    }
                }
        for (int64_t m = k.begin; m < k.end; ++m)
            write(arguments, group * outputs_ + m, c, sums + (m - k.begin) * sum_elements());
    }

    void add_strip(const T* grad, int64_t rows, const T* plane, T* sums) const {
        int64_t counted = 0;  // columns that are in the sums already
        const auto block = [&]<int L>(int64_t x) {
            switch (h_[0].sharing()) {
                case 1: add_columns<L, 1>(grad, rows, plane, x, counted - x, sums); break;
                case 2: add_columns<L, 2>(grad, rows, plane, x, counted - x, sums); break;
                default: add_columns<L, 0>(grad, rows, plane, x, counted - x, sums);
            }
            counted = x + L;
        };
        for_blocks<T, lanes<T>>(0, conv_.out.w, block, [&](int64_t x) { block.template operator()<1>(x); });
    }

    // L columns from x on, of which the first `skip` do not count.
    template <int L, int U>
    void add_columns(const T* grad, int64_t rows, const T* plane, int64_t x, int64_t skip, T* sums) const {
        int64_t r = 0;
        for (; r + kRows <= rows; r += kRows) add_tile<L, U, kRows>(grad, r, plane, x, skip, sums);
        for (; r < rows; ++r) add_tile<L, U, 1>(grad, r, plane, x, skip, sums);
    }

    template <int L, int U, int P>
    void add_tile(const T* grad, int64_t r, const T* plane, int64_t x, int64_t skip, T* sums) const {
        const TapAxis &d = d_[0], &h = h_[0], &w = w_[0];
        const Strides& y = conv_.output;
        Row<T, L> rows[P];
        unroll<P>([&]<int p>() PYCV_INLINE { rows[p] = load_columns<L>(grad + (r + p) * y.h + x * y.w, y.w); });
        const T* from = plane + r * h.unit * copy_.pitch + x;
        Row<IndexOf<T>, L> counts;
        for (int l = 0; l < L; ++l) counts[l] = l < skip ? 0 : -1;
        for (int64_t i = 0; i < d.taps; ++i)
            for (int64_t k = 0; k < w.taps; ++k, sums += h.taps * lanes<T>)
                add_column<L, U, P>(rows, from + i * d.tap_step * copy_.slice + copy_.column(w, k), counts, sums);
    }

    // The taps of one column of the filter.
    template <int L, int U, int P>
    PYCV_INLINE void add_column(const Row<T, L> (&rows)[P], const T* from, Row<IndexOf<T>, L> counts, T* sums) const {
        const TapAxis& h = h_[0];
        int64_t t = 0;
        if constexpr (U > 0) {
            if (h.taps == 5) return add_taps<L, U, P, 5>(rows, from, copy_.pitch, counts, sums);
            for (; t + 3 <= h.taps; t += 3)
                add_taps<L, U, P, 3>(rows, from + t * copy_.pitch, copy_.pitch, counts, sums + t * lanes<T>);
        }
        for (; t < h.taps; ++t)
            add_taps<L, 1, P, 1>(rows, from + t * h.tap_step * copy_.pitch, h.unit * copy_.pitch, counts,
                                 sums + t * lanes<T>);
    }

    // sums[b] += rows[p] * from[p * U + b] in the lanes that count. The others are dropped after the product: they may
    // be NaN.
    template <int L, int U, int P, int B>
    PYCV_INLINE static void add_taps(const Row<T, L> (&rows)[P], const T* from, int64_t step, Row<IndexOf<T>, L> counts,
                                     T* sums) {
        using V = Row<T, L>;
        V sum[B] = {};
        unroll<(P - 1) * U + B>([&]<int i>() PYCV_INLINE {
            V value = load_row<V>(from + i * step);
            if constexpr (B > 1) hold(value);
            unroll<B>([&]<int b>() PYCV_INLINE {
                if constexpr (i >= b && (i - b) % U == 0 && (i - b) / U < P) sum[b] += rows[(i - b) / U] * value;
            });
        });
        unroll<B>([&]<int b>() PYCV_INLINE {
            const V counted = counts ? sum[b] : V{};
            store_row<V>(sums + b * lanes<T>, load_row<V>(sums + b * lanes<T>) + counted);
        });
    }

    template <int L>
    PYCV_INLINE static Row<T, L> load_columns(const T* from, int64_t step) {
        if (step == 1) return load_row<Row<T, L>>(from);
        Row<T, L> v;
        for (int l = 0; l < L; ++l) v[l] = from[l * step];
        return v;
    }

    void write(const ConvArguments& arguments, int64_t k, int64_t c, const T* sums) const {
        const Strides& s = conv_.weight;
        T* to = static_cast<T*>(arguments.weight) + k * s.n + c * s.c;
        for (int64_t d = 0; d < conv_.filter.d; ++d)
            for (int64_t w = 0; w < conv_.filter.w; ++w)
                for (int64_t h = 0; h < conv_.filter.h; ++h, sums += lanes<T>)
                    to[d * s.d + h * s.h + w * s.w] = horizontal_sum<T>(load<T>(sums));
    }

    ConvProblem conv_;
    int threads_;
    int64_t groups_, channels_, outputs_;  // channels and outputs per group
    AxisPhases d_, h_, w_;
    PaddedPlanes<T> copy_;
};

}  // namespace pycv::cpu::PYCV_ISA
