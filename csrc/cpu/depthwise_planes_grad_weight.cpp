// grad_weight of convolutions with thin groups, lanes along the rows of a plane, for every layout: weight[k][c][tap] =
// sum over images and positions of the output gradient times the input at the tap.
//
// Works on zero-padded copies of the input's planes. Up to seven rows of the gradient stay in registers while the taps
// down a filter's column share the input's loads; the lanes of a tap's sum are added up at the end.
#include "depthwise_plans.h"
#include "norm.h"
#include "padded_planes.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

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
    // Whole vectors of a row's positions; copies of the input, one for every few filters; visits of the sums, one for
    // every tile of the gradient and one in the end.
    Cost cost() const override {
        const auto number = [](int64_t count) { return static_cast<double>(count); };
        const int64_t vectors = divide_up(conv_.out.w, kLanes), strips = divide_up(conv_.out.h, copy_.strip);
        const int64_t tiles = strips * vectors * (copy_.strip / kRows + copy_.strip % kRows);
        const double slices = number(conv_.n * conv_.out.d), filters = number(groups_ * channels_ * outputs_);
        const double copies =
            slices * number(groups_ * channels_ * divide_up(outputs_, kShared) * strips * copy_.plane);
        const double visits = (slices * number(tiles) + 1) * filters * number(sum_elements());
        const double whole_vectors = number(vectors * kLanes) / number(larger(conv_.out.w, 1));
        return {direct_multiply_adds(conv_) * whole_vectors / threads_, (copies + visits) / threads_,
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
    static constexpr int kLanes = lanes<T>;
    using V = Row<T, kLanes>;
    using Mask = Row<IndexOf<T>, kLanes>;
    static constexpr int64_t kShared = 4;  // filters that share a copy
    static constexpr int kRows = 7;        // of a tile

    int64_t plane_elements() const { return round_up(copy_.plane + kLanes, 64); }
    int64_t sum_elements() const { return conv_.filter.count() * kLanes; }  // [tap of d][tap of w][tap of h][lane]
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
                        const T* from = static_cast<const T*>(arguments.output) + n * y.n +
                                        y.channel(group * outputs_ + m) + d * y.d;
                        const Grad grad{from + strip * y.h, from + (conv_.out.h - 1) * y.h + conv_.out.w};
                        add_strip(grad, rows, plane, sums + (m - k.begin) * sum_elements());
                    }
                }
        for (int64_t m = k.begin; m < k.end; ++m)
            write(arguments, group * outputs_ + m, c, sums + (m - k.begin) * sum_elements());
    }

    // The gradient from a strip on, and the end of its plane where the rows are contiguous.
    struct Grad {
        const T *from, *end;
    };

    void add_strip(const Grad& grad, int64_t rows, const T* plane, T* sums) const {
        switch (h_[0].sharing()) {
            case 1: return add_strip<1>(grad, rows, plane, sums);
            case 2: return add_strip<2>(grad, rows, plane, sums);
            default: return add_strip<0>(grad, rows, plane, sums);
        }
    }

    // A vector of columns; those that another one has counted, or that lie beyond the row, do not count.
    struct Columns {
        int64_t first, count;  // of the vector: its first column, and how many lie in the row
        Mask counted;
    };

    template <int U>
    void add_strip(const Grad& grad, int64_t rows, const T* plane, T* sums) const {
        const int64_t width = conv_.out.w;
        for (int64_t x = 0; x < width; x += kLanes) {
            const int64_t first = larger(smaller(x, width - kLanes), 0);
            Mask counted{};
            for (int l = 0; l < kLanes; ++l) counted[l] = first + l >= x && first + l < width ? -1 : 0;
            const Columns columns{first, smaller(width, kLanes), counted};
            int64_t r = 0;
            for (; r + kRows <= rows; r += kRows) add_tile<U, kRows>(grad, r, plane, columns, sums);
            for (; r < rows; ++r) add_tile<U, 1>(grad, r, plane, columns, sums);
        }
    }

    template <int U, int P>
    void add_tile(const Grad& grad, int64_t r, const T* plane, const Columns& x, T* sums) const {
        const TapAxis &d = d_[0], &h = h_[0], &w = w_[0];
        const Strides& y = conv_.output;
        V rows[P];
        unroll<P>([&]<int p>() PYCV_INLINE { rows[p] = load_columns(grad, (r + p) * y.h + x.first * y.w, x.count); });
        const T* from = plane + r * h.unit * copy_.pitch + x.first;
        for (int64_t i = 0; i < d.taps; ++i)
            for (int64_t k = 0; k < w.taps; ++k, sums += h.taps * kLanes)
                add_column<U, P>(rows, from + i * d.tap_step * copy_.slice + copy_.column(w, k), x.counted, sums);
    }

    // Lanes beyond `count` hold what comes next in the plane, which reads faster than picking the others.
    V load_columns(const Grad& grad, int64_t offset, int64_t count) const {
        const T* from = grad.from + offset;
        if (conv_.output.w == 1 && grad.end - from >= kLanes) return load_row<V>(from);
        return load_first<V>(from, conv_.output.w, count);
    }

    // The taps of one column of the filter.
    template <int U, int P>
    PYCV_INLINE void add_column(const V (&rows)[P], const T* from, Mask counted, T* sums) const {
        const TapAxis& h = h_[0];
        int64_t t = 0;
        if constexpr (U > 0) {
            if (h.taps == 5) return add_taps<U, P, 5>(rows, from, copy_.pitch, counted, sums);
            for (; t + 3 <= h.taps; t += 3)
                add_taps<U, P, 3>(rows, from + t * copy_.pitch, copy_.pitch, counted, sums + t * kLanes);
        }
        for (; t < h.taps; ++t)
            add_taps<1, P, 1>(rows, from + t * h.tap_step * copy_.pitch, h.unit * copy_.pitch, counted,
                              sums + t * kLanes);
    }

    // sums[b] += rows[p] * from[p * U + b] in the lanes that count. The others are dropped after the product: they may
    // be NaN.
    template <int U, int P, int B>
    PYCV_INLINE static void add_taps(const V (&rows)[P], const T* from, int64_t step, Mask counted, T* sums) {
        V sum[B] = {};
        unroll<(P - 1) * U + B>([&]<int i>() PYCV_INLINE {
            V value = load_row<V>(from + i * step);
            if constexpr (B > 1) hold(value);
            unroll<B>([&]<int b>() PYCV_INLINE {
                if constexpr (i >= b && (i - b) % U == 0 && (i - b) / U < P) sum[b] += rows[(i - b) / U] * value;
            });
        });
        unroll<B>([&]<int b>() PYCV_INLINE {
            const V added = counted ? sum[b] : V{};
            store_row<V>(sums + b * kLanes, load_row<V>(sums + b * kLanes) + added);
        });
    }

    void write(const ConvArguments& arguments, int64_t k, int64_t c, const T* sums) const {
        const Strides& s = conv_.weight;
        T* to = static_cast<T*>(arguments.weight) + k * s.n + c * s.c;
        for (int64_t d = 0; d < conv_.filter.d; ++d)
            for (int64_t w = 0; w < conv_.filter.w; ++w)
                for (int64_t h = 0; h < conv_.filter.h; ++h, sums += kLanes)
                    to[d * s.d + h * s.h + w * s.w] = horizontal_sum<T>(load<T>(sums));
    }

    ConvProblem conv_;
    int threads_;
    int64_t groups_, channels_, outputs_;  // channels and outputs per group
    AxisPhases d_, h_, w_;
    PaddedPlanes<T> copy_;
};

}  // namespace

ConvPlan* plan_plane_grad_weight(const ConvProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new PlaneGradWeight<double>(problem, threads);
    return new PlaneGradWeight<float>(problem, threads);
}

}  // namespace pycv::cpu::PYCV_ISA
