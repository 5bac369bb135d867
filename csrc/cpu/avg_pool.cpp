// avg_pool and adaptive_avg_pool: the sum of each window over its divisor.
//
// The divisor is the window's extent clipped to the padded input (count_include_pad), clipped to the input itself
// (otherwise, and adaptive), or a given number. Forward adds each window element once, all but small windows a row at
// a time, so that a sum's error grows with its height and width rather than their product. The gradient adds
// grad_output / divisor to every element of the window, each plane by one thread in a fixed order.
//
// Bound by memory, each element moved once; small planes are transposed in cache besides (pool_transposed.h).
#include "norm.h"
#include "plane_sums.h"
#include "pool_transposed.h"
#include "pool_windows.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

struct Sum {
    template <class V, class T>
    static V start() {
        return V{};
    }
    template <class V>
    static V add(V sum, V value) {
        return sum + value;
    }
};

template <class T>
class AvgPool final : public PoolPlan {
public:
    AvgPool(const PoolProblem& p, int threads)
        : p_(p),
          axes_(pool_axes(p)),
          interior_(interior(axes_.w)),
          threads_(pool_threads(p, axes_, threads)),
          runs_(p),
          pixels_(runs_.runs > 0),
          vector_rows_(p.input.w == 1 && p.output.w == 1 && window_extent(axes_.w) <= kPoolColumns),
          streams_(computed_bytes(p) > kStreamedBytes),
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

    // Complete windows side by side: every input element lies in exactly one of them.
    static bool tiles(const PoolAxis& a) {
        return !a.adaptive && a.padding == 0 && a.stride == a.filter && a.out * a.filter == a.size;
    }

private:
    // Longer sums are taken in more parts.
    static constexpr int64_t kLongestPlane = 256 * lanes<T>;

    // One window that is the whole axis.
    static bool covers(const PoolAxis& a) {
        if (a.out != 1 || a.dilation != 1) return false;
        const Span window = span(a, 0);
        return window.begin == 0 && window.end == a.size;
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
        if (pixels_) {
            parallel_for(threads_, p_.n * rows * runs_.runs, [&](int64_t item) {
                const int64_t run = item / rows % runs_.runs, n = item / rows / runs_.runs;
                const int64_t d = item % rows / p_.out.h, h = item % p_.out.h;
                T* to = y + n * p_.output.n + run * runs_.output_step + offset(p_.output, d, h, 0);
                pixel_row(x + n * p_.input.n + run * runs_.input_step, d, h, to);
                clear_lanes(to, p_.out.w, p_.output.w, runs_.padding(run, p_.c));
            });
            return;
        }
        parallel_for(threads_, p_.n * p_.c, [&](int64_t item) {
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

    // Of a power of two, with which multiplying is exact and much faster than dividing; 0 of any other number.
    static T reciprocal(T divisor) {
        const int64_t n = static_cast<int64_t>(divisor);
        return n > 0 && (n & (n - 1)) == 0 ? T(1) / divisor : T(0);
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
        if (!vector_rows_ || d.begin >= d.end || h.begin >= h.end) {
            for (int64_t o = 0; o < p_.out.w; ++o) {
                const Span w = span(axes_.w, o);
                y[o * p_.output.w] = single(plane, d, h, w, divisor(count_d, count_h, counted(axes_.w, o, w)));
            }
            return;
        }
        const T complete = divisor(count_d, count_h, axes_.w.filter);
        fold_plane_row<Sum, T>(
            axes_.w, interior_, p_.input, plane, {d, h, 1, 1}, y, [&](auto sum) { return sum / complete; },
            [&](T sum, int64_t o, Span w) {
                return w.begin < w.end ? sum / divisor(count_d, count_h, counted(axes_.w, o, w)) : T(0);
            });
    }

    void pixel_row(const T* image, int64_t od, int64_t oh, T* y) const {
        const Span d = span(axes_.d, od), h = span(axes_.h, oh);
        const int64_t count_d = counted(axes_.d, od, d), count_h = counted(axes_.h, oh, h);
        const bool rows_empty = d.begin >= d.end || h.begin >= h.end;
        const bool streamed = streams_ && is_streamable<T>(y, p_.output.w, runs_.channels);
        const auto finish = [&](int64_t o) {
            const Span w = span(axes_.w, o);
            const bool empty = rows_empty || w.begin >= w.end;
            const T divide = empty ? T(1) : divisor(count_d, count_h, counted(axes_.w, o, w));
            const T factor = reciprocal(divide);
            return [to = y + o * p_.output.w, divide, factor, streamed](int64_t c, auto sum) {
                put_row(to + c, factor != T(0) ? sum * factor : sum / divide, streamed);
            };
        };
        const WindowRows rows{d, h, 1, 1, next_rows<T>(p_, axes_.h, oh)};
        if (runs_.channels >= lanes<T>) {
            fold_pixel_row<Sum, lanes<T>>(image, runs_.channels, axes_.h, axes_.w, p_.input, rows, finish);
        } else if (runs_.channels >= lanes<T> / 2) {
            fold_pixel_row<Sum, lanes<T> / 2>(image, runs_.channels, axes_.h, axes_.w, p_.input, rows, finish);
        } else {
            fold_pixel_row<Sum, 1>(image, runs_.channels, axes_.h, axes_.w, p_.input, rows, finish);
        }
    }

    void scatter(T* grad_input, const T* grad_output) const {
        if (pixels_) return scatter_pixel_runs(grad_input, grad_output);
        const bool tiled = tiles(axes_.d) && tiles(axes_.h) && tiles(axes_.w);
        const bool vectors = p_.input.w == 1 && p_.size.w <= kPoolColumns;
        parallel_for(threads_, p_.n * p_.c, [&](int64_t item) {
            const int64_t n = item / p_.c, c = item % p_.c;
            T* plane = grad_input + n * p_.input.n + c * p_.input.c;
            const T* grad = grad_output + n * p_.output.n + c * p_.output.c;
            if (!tiled) clear(grad_input + n * p_.input.n, p_.input, p_.size, Span{c, c + 1});
            for (int64_t od = 0; od < p_.out.d; ++od)
                for (int64_t oh = 0; oh < p_.out.h; ++oh) {
                    const Span d = span(axes_.d, od), h = span(axes_.h, oh);
                    const int64_t count = counted(axes_.d, od, d) * counted(axes_.h, oh, h);
                    const T* row = grad + offset(p_.output, od, oh, 0);
                    if (tiled) {
                        fill_tiles(plane, d, h, row);
                    } else if (vectors) {
                        scatter_columns(plane, d, h, row, count);
                    } else {
                        scatter_plane(plane, d, h, row, count);
                    }
                }
        });
    }

    void scatter_pixel_runs(T* grad_input, const T* grad_output) const {
        ChannelShare share = channel_share(p_, true, threads_);
        if (p_.input.block > 1) share = {runs_.channels, runs_.channels};
        parallel_for(threads_, p_.n * runs_.runs * share.items(), [&](int64_t item) {
            const int64_t n = item / share.items() / runs_.runs, run = item / share.items() % runs_.runs;
            const Span channels = share.item(item % share.items());
            T* image = grad_input + n * p_.input.n + run * runs_.input_step;
            const T* grad = grad_output + n * p_.output.n + run * runs_.output_step;
            clear_pixels(image, p_.input, p_.size, channels);
            for (int64_t od = 0; od < p_.out.d; ++od)
                for (int64_t oh = 0; oh < p_.out.h; ++oh) {
                    const Span d = span(axes_.d, od), h = span(axes_.h, oh);
                    const int64_t count = counted(axes_.d, od, d) * counted(axes_.h, oh, h);
                    scatter_pixels(image, d, h, channels, grad + offset(p_.output, od, oh, 0), count);
                }
            const Span padding = runs_.padding(run, p_.c);
            for (int64_t r = 0; r < p_.size.d * p_.size.h && padding.begin < padding.end; ++r)
                clear_lanes(image + offset(p_.input, r / p_.size.h, r % p_.size.h, 0), p_.size.w, p_.input.w, padding);
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

    // What one row of windows gives to a row of the plane is the same for all of its rows.
    void scatter_columns(T* plane, Span d, Span h, const T* grad, int64_t count) const {
        T columns[kPoolColumns];
        zero_run(columns, p_.size.w);
        for (int64_t o = 0; o < p_.out.w; ++o) {
            const Span w = span(axes_.w, o);
            const T share = grad[o * p_.output.w] / divisor(count, 1, counted(axes_.w, o, w));
            for (int64_t k = w.begin; k < w.end; ++k) columns[k] += share;
        }
        for (int64_t i = d.begin; i < d.end; ++i)
            for (int64_t j = h.begin; j < h.end; ++j) {
                T* row = plane + offset(p_.input, i, j, 0);
                int64_t x = 0;
                for (; x + lanes<T> <= p_.size.w; x += lanes<T>)
                    store<T>(row + x, load<T>(row + x) + load<T>(columns + x));
                for (; x < p_.size.w; ++x) row[x] += columns[x];
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
            const auto add = [&]<class V>(int64_t c) {
                const V share = load_row<V>(from + c) / divide;
                for (int64_t i = d.begin; i < d.end; ++i)
                    for (int64_t j = h.begin; j < h.end; ++j) {
                        T* to = image + offset(p_.input, i, j, w.begin) + c;
                        for (int64_t k = w.begin; k < w.end; ++k, to += p_.input.w)
                            store_row<V>(to, load_row<V>(to) + share);
                    }
            };
            int64_t c = channels.begin;
            for (; c + lanes<T> <= channels.end; c += lanes<T>) add.template operator()<Vec<T>>(c);
            for (; c < channels.end; ++c) add.template operator()<Row<T, 1>>(c);
        }
    }

    PoolProblem p_;
    PoolAxes axes_;
    Span interior_;
    int threads_;
    ChannelRuns runs_;
    bool pixels_;       // vectors along the channels
    bool vector_rows_;  // vectors along the rows
    bool streams_;      // what is written, past the caches
    bool whole_;        // one window that is the whole of a dense plane
};

// Of a gradient whose windows lie side by side, copies are faster where they are not too short.
template <class T>
bool is_better_transposed(const PoolProblem& p) {
    if (p.pass == Pass::forward) return has_short_rows<T>(p);
    const PoolAxis w = pool_axes(p).w;
    return can_be_transposed<T>(p) && (!AvgPool<T>::tiles(w) || w.out < lanes<T> / 2);
}

template <class T>
PoolPlan* plan_of(const PoolProblem& p, int threads) {
    if (!is_better_transposed<T>(p)) return new AvgPool<T>(p, threads);
    return new TransposedPool<T, AvgPool<T>>(p, pool_threads(p, pool_axes(p), threads));
}

PoolPlan* plan_avg_pool(const PoolProblem& problem, int threads) {
    return problem.dtype == DType::f64 ? plan_of<double>(problem, threads) : plan_of<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("avg_pool", "direct", plan_avg_pool);
PYCV_KERNEL("adaptive_avg_pool", "direct", plan_avg_pool);

}  // namespace pycv::cpu::PYCV_ISA
