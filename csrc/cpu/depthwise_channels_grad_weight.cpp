// Depthwise grad_weight with channels in the lanes: weight[k][tap] = sum over images and positions of the output
// gradient times the input at the tap.
//
// A row of the output gradient meets each row of the input that a tap row reads; up to five taps along the row share
// its loads, their sums stay in registers for the row and grow in scratch.
#include "depthwise_channels.h"
#include "depthwise_plans.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

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
    // The sums are visited once for every row of the output gradient, and once in the end.
    Cost cost() const override {
        const double rows = static_cast<double>(conv_.n * conv_.out.d * conv_.out.h);
        const double sums = static_cast<double>(vectors_.count * total_elements());
        return {direct_multiply_adds(conv_) / threads_, (rows + 1) * sums / threads_, tensor_bytes(conv_), 2};
    }
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

}  // namespace

ConvPlan* plan_channel_grad_weight(const ConvProblem& problem, int threads) {
    return with_channel_lanes(
        problem, [&]<class T, int L>() -> ConvPlan* { return new ChannelGradWeight<T, L>(problem, threads); });
}

}  // namespace pycv::cpu::PYCV_ISA
