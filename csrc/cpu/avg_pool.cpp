// avg_pool and adaptive_avg_pool: the sum of each window over its divisor.
//
// The divisor is the window's extent clipped to the padded input (count_include_pad), clipped to the input itself
// (otherwise, and adaptive), or a given number. Forward adds each window element once, a row of the window at a time,
// so that a sum's error grows with its height and width rather than their product. The gradient adds
// grad_output / divisor to every element of the window, each plane by one thread in a fixed order.
#include "norm.h"
#include "plane_sums.h"
#include "pool.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T>
class AvgPool final : public PoolPlan {
public:
    AvgPool(const PoolProblem& p, int threads)
        : p_(p),
          axes_(pool_axes(p)),
          interior_(interior(axes_.w)),
          threads_(pool_threads(p, axes_, threads)),
          pixels_(p.input.c == 1 && p.output.c == 1 && p.c > 1),
          whole_(!pixels_ && p.input.w == 1 && is_dense(p.input, p.size) && p.size.count() <= kLongestPlane &&
                 covers(axes_.d) && covers(axes_.h) && covers(axes_.w)) {}

    void run(const PoolArguments& a) const override {
        if (whole_) {
            if (p_.pass == Pass::forward) {
                average_planes(static_cast<const T*>(a.input), static_cast<T*>(a.output));
            } else {
                fill_planes(static_cast<T*>(a.input), static_cast<const T*>(a.output));
            }
        } else if (p_.pass == Pass::forward) {
            forward(static_cast<const T*>(a.input), static_cast<T*>(a.output));
        } else {
            scatter(static_cast<T*>(a.input), static_cast<const T*>(a.output));
        }
    }

private:
    // Longer sums are taken in more parts.
    static constexpr int64_t kLongestPlane = 256 * lanes<T>;

    // One window that is the whole axis.
    static bool covers(const PoolAxis& a) {
        const Span window = span(a, 0);
        return a.out == 1 && a.dilation == 1 && window.begin == 0 && window.end == a.size;
    }

    T whole_divisor() const {
        return divisor(counted(axes_.d, 0, span(axes_.d, 0)), counted(axes_.h, 0, span(axes_.h, 0)),
                       counted(axes_.w, 0, span(axes_.w, 0)));
    }

    void average_planes(const T* x, T* y) const {
        const T divide = whole_divisor();
        const int64_t groups = (p_.c + lanes<T> - 1) / lanes<T>;
        parallel_for(threads_, p_.n * groups, [&](int64_t item) {
            const int64_t n = item / groups, c = item % groups * lanes<T>;
            const int64_t count = smaller(lanes<T>, p_.c - c);
            const Vec<T> mean =
                plane_sums<T>(x + n * p_.input.n + c * p_.input.c, p_.input.c, count, p_.size.count()) / divide;
            T* to = y + n * p_.output.n + c * p_.output.c;
            if (p_.output.c == 1 && count == lanes<T>) return store<T>(to, mean);
            for (int64_t i = 0; i < count; ++i) to[i * p_.output.c] = mean[i];
        });
    }

    void fill_planes(T* grad_input, const T* grad_output) const {
        const T divide = whole_divisor();
        parallel_for(threads_, p_.n * p_.c, [&](int64_t item) {
            const int64_t n = item / p_.c, c = item % p_.c;
            fill_run(grad_input + n * p_.input.n + c * p_.input.c, p_.size.count(),
                     grad_output[n * p_.output.n + c * p_.output.c] / divide);
        });
    }

    static void fill_run(T* to, int64_t count, T value) {
        const Vec<T> v = broadcast<T>(value);
        int64_t i = 0;
        for (; i + lanes<T> <= count; i += lanes<T>) store<T>(to + i, v);
        if (i > 0 && i < count) return store<T>(to + count - lanes<T>, v);
        for (; i < count; ++i) to[i] = value;
    }

    void forward(const T* x, T* y) const {
        const int64_t rows = p_.out.d * p_.out.h;
        parallel_for(threads_, pixels_ ? p_.n * rows : p_.n * p_.c, [&](int64_t item) {
            if (pixels_) {
                const int64_t n = item / rows, d = item % rows / p_.out.h, h = item % p_.out.h;
                pixel_row(x + n * p_.input.n, d, h, y + n * p_.output.n + offset(p_.output, d, h, 0));
                return;
            }
            const int64_t n = item / p_.c, c = item % p_.c;
            const T* plane = x + n * p_.input.n + c * p_.input.c;
            T* out = y + n * p_.output.n + c * p_.output.c;
            for (int64_t d = 0; d < p_.out.d; ++d)
                for (int64_t h = 0; h < p_.out.h; ++h) plane_row(plane, d, h, out + offset(p_.output, d, h, 0));
        });
    }

    // How many positions of the window count along one axis.
    int64_t counted(const PoolAxis& a, int64_t o, Span inside) const {
        if (a.adaptive || !p_.count_include_pad) return inside.end - inside.begin;
        const int64_t begin = o * a.stride - a.padding;
        return a.filter < a.size + a.padding - begin ? a.filter : a.size + a.padding - begin;
    }

    T divisor(int64_t d, int64_t h, int64_t w) const { return static_cast<T>(p_.divisor ? p_.divisor : d * h * w); }

    T window_sum(const T* plane, Span d, Span h, Span w) const {
        T sum = 0;
        for (int64_t i = d.begin; i < d.end; ++i)
            for (int64_t j = h.begin; j < h.end; ++j) {
                const T* row = plane + offset(p_.input, i, j, w.begin);
                sum += row_sum(row, w.end - w.begin);
            }
        return sum;
    }

    T row_sum(const T* row, int64_t count) const {
        if (p_.input.w == 1 && count >= lanes<T>)
            return sum_terms<T>(count, [&]<class Lane>(int64_t i) { return get<Lane>(row + i); });
        T sum = 0;
        for (int64_t k = 0; k < count; ++k) sum += row[k * p_.input.w];
        return sum;
    }

    // A window of whole rows of a dense plane is one long row.
    bool is_one_row(Span h, Span w) const {
        return p_.input.w == 1 && p_.input.h == p_.size.w && w.begin == 0 && w.end == p_.size.w && h.begin < h.end;
    }

    T single(const T* plane, Span d, Span h, Span w, T divisor) const {
        if (d.begin >= d.end || h.begin >= h.end || w.begin >= w.end) return T(0);
        if (!is_one_row(h, w)) return window_sum(plane, d, h, w) / divisor;
        T sum = 0;
        for (int64_t i = d.begin; i < d.end; ++i)
            sum += row_sum(plane + offset(p_.input, i, h.begin, 0), (h.end - h.begin) * p_.size.w);
        return sum / divisor;
    }

    void plane_row(const T* plane, int64_t od, int64_t oh, T* y) const {
        const Span d = span(axes_.d, od), h = span(axes_.h, oh);
        const int64_t count_d = counted(axes_.d, od, d), count_h = counted(axes_.h, oh, h);
        const auto one = [&](int64_t o) {
            const Span w = span(axes_.w, o);
            y[o * p_.output.w] = single(plane, d, h, w, divisor(count_d, count_h, counted(axes_.w, o, w)));
        };
        const bool vectors = p_.input.w == 1 && p_.output.w == 1 && d.begin < d.end && h.begin < h.end;
        const Span inside = vectors ? interior_ : Span{0, 0};
        const T divide = divisor(count_d, count_h, axes_.w.filter);
        for (int64_t o = 0; o < inside.begin; ++o) one(o);
        switch (axes_.w.stride) {
            case 1: row_blocks<1>(plane, d, h, inside, divide, y, one); break;
            case 2: row_blocks<2>(plane, d, h, inside, divide, y, one); break;
            default: row_blocks<0>(plane, d, h, inside, divide, y, one);
        }
        for (int64_t o = inside.end; o < p_.out.w; ++o) one(o);
    }

    template <int Stride, class One>
    void row_blocks(const T* plane, Span d, Span h, Span inside, T divide, T* y, const One& one) const {
        for_blocks<T, lanes<T>>(
            inside.begin, inside.end,
            [&]<int L>(int64_t o) {
                using V = Row<T, L>;
                const int64_t first = o * axes_.w.stride - axes_.w.padding;
                V sum{};
                for (int64_t i = d.begin; i < d.end; ++i)
                    for (int64_t j = h.begin; j < h.end; ++j) {
                        const T* row = plane + offset(p_.input, i, j, first);
                        V part{};
                        for (int64_t k = 0; k < axes_.w.filter; ++k)
                            part += load_strided<T, L, Stride>(row + k, axes_.w.stride);
                        sum += part;
                    }
                sum /= divide;
                std::memcpy(y + o, &sum, sizeof sum);
            },
            one);
    }

    void pixel_row(const T* image, int64_t od, int64_t oh, T* y) const {
        const Span d = span(axes_.d, od), h = span(axes_.h, oh);
        const int64_t count_d = counted(axes_.d, od, d), count_h = counted(axes_.h, oh, h);
        for (int64_t o = 0; o < p_.out.w; ++o) {
            const Span w = span(axes_.w, o);
            const T divide = divisor(count_d, count_h, counted(axes_.w, o, w));
            T* to = y + o * p_.output.w;
            int64_t c = 0;
            if (d.begin < d.end && h.begin < h.end && w.begin < w.end) {
                for (; c + 4 * lanes<T> <= p_.c; c += 4 * lanes<T>) pixel<4>(image + c, d, h, w, divide, to + c);
                for (; c + lanes<T> <= p_.c; c += lanes<T>) pixel<1>(image + c, d, h, w, divide, to + c);
            }
            for (; c < p_.c; ++c) to[c] = single(image + c, d, h, w, divide);
        }
    }

    template <int N>
    void pixel(const T* image, Span d, Span h, Span w, T divide, T* y) const {
        Vec<T> sum[N] = {};
        for (int64_t i = d.begin; i < d.end; ++i)
            for (int64_t j = h.begin; j < h.end; ++j) {
                Vec<T> part[N] = {};
                const T* at = image + offset(p_.input, i, j, w.begin);
                for (int64_t k = w.begin; k < w.end; ++k, at += p_.input.w)
                    for (int v = 0; v < N; ++v) part[v] += load<T>(at + v * lanes<T>);
                for (int v = 0; v < N; ++v) sum[v] += part[v];
            }
        for (int v = 0; v < N; ++v) store<T>(y + v * lanes<T>, sum[v] / divide);
    }

    // Complete windows side by side: every input element lies in exactly one of them.
    static bool tiles(const PoolAxis& a) {
        return !a.adaptive && a.padding == 0 && a.stride == a.filter && a.out * a.filter == a.size;
    }

    void scatter(T* grad_input, const T* grad_output) const {
        const ChannelShare share = channel_share(p_, pixels_, threads_);
        const bool tiled = tiles(axes_.d) && tiles(axes_.h) && tiles(axes_.w) && !pixels_;
        parallel_for(threads_, p_.n * share.items(), [&](int64_t item) {
            const int64_t n = item / share.items();
            const Span channels = share.item(item % share.items());
            T* image = grad_input + n * p_.input.n;
            const T* grad = grad_output + n * p_.output.n;
            if (!tiled) clear(image, p_.input, p_.size, channels);
            for (int64_t od = 0; od < p_.out.d; ++od)
                for (int64_t oh = 0; oh < p_.out.h; ++oh) {
                    const Span d = span(axes_.d, od), h = span(axes_.h, oh);
                    const int64_t count = counted(axes_.d, od, d) * counted(axes_.h, oh, h);
                    const T* row = grad + offset(p_.output, od, oh, 0);
                    if (tiled) {
                        fill_tiles(image + channels.begin * p_.input.c, d, h, row + channels.begin * p_.output.c);
                    } else if (pixels_) {
                        scatter_pixels(image, d, h, channels, row, count);
                    } else {
                        scatter_plane(image + channels.begin * p_.input.c, d, h, row + channels.begin * p_.output.c,
                                      count);
                    }
                }
        });
    }

    // One row of windows that tile the plane: its first row of elements is written, the others are copies.
    void fill_tiles(T* plane, Span d, Span h, const T* grad) const {
        const int64_t filter = axes_.w.filter, in = p_.input.w, out = p_.output.w, width = p_.out.w;
        const T divide = divisor(axes_.d.filter, axes_.h.filter, filter);
        T* first = plane + offset(p_.input, d.begin, h.begin, 0);
        if (in == 1 && filter == 2) {
            for (int64_t o = 0; o < width; ++o) first[2 * o] = first[2 * o + 1] = grad[o * out] / divide;
        } else {
            for (int64_t o = 0; o < width; ++o) {
                const T share = grad[o * out] / divide;
                for (int64_t k = 0; k < filter; ++k) first[(o * filter + k) * in] = share;
            }
        }
        for (int64_t i = d.begin; i < d.end; ++i)
            for (int64_t j = h.begin; j < h.end; ++j) {
                T* row = plane + offset(p_.input, i, j, 0);
                if (row == first) continue;
                if (in == 1) {
                    std::memcpy(row, first, static_cast<size_t>(p_.size.w) * sizeof(T));
                } else {
                    for (int64_t k = 0; k < p_.size.w; ++k) row[k * in] = first[k * in];
                }
            }
    }

    void scatter_plane(T* plane, Span d, Span h, const T* grad, int64_t count) const {
        const int64_t in = p_.input.w, out = p_.output.w, in_h = p_.input.h, in_d = p_.input.d, width = p_.out.w;
        for (int64_t o = 0; o < width; ++o) {
            const Span w = span(axes_.w, o);
            const T share = grad[o * out] / divisor(count, 1, counted(axes_.w, o, w));
            for (int64_t i = d.begin; i < d.end; ++i)
                for (int64_t j = h.begin; j < h.end; ++j) {
                    T* row = plane + i * in_d + j * in_h;
                    for (int64_t k = w.begin; k < w.end; ++k) row[k * in] += share;
                }
        }
    }

    void scatter_pixels(T* image, Span d, Span h, Span channels, const T* grad, int64_t count) const {
        for (int64_t o = 0; o < p_.out.w; ++o) {
            const Span w = span(axes_.w, o);
            const T divide = divisor(count, 1, counted(axes_.w, o, w));
            const T* from = grad + o * p_.output.w;
            for (int64_t i = d.begin; i < d.end; ++i)
                for (int64_t j = h.begin; j < h.end; ++j)
                    for (int64_t k = w.begin; k < w.end; ++k) {
                        T* to = image + offset(p_.input, i, j, k);
                        for (int64_t c = channels.begin; c < channels.end; ++c) to[c] += from[c] / divide;
                    }
        }
    }

    PoolProblem p_;
    PoolAxes axes_;
    Span interior_;
    int threads_;
    bool pixels_;  // vectors along the channels
    bool whole_;   // one window that is the whole of a dense plane
};

PoolPlan* plan_avg_pool(const PoolProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new AvgPool<double>(problem, threads);
    return new AvgPool<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("avg_pool", "direct", plan_avg_pool);
PYCV_KERNEL("adaptive_avg_pool", "direct", plan_avg_pool);

}  // namespace pycv::cpu::PYCV_ISA
