// max_pool and adaptive_max_pool: the largest element of each window, and where it was.
//
// Of equal elements the first in the window's order wins; NaN beats everything, and the last NaN beats the others; a
// window of nothing but -inf gives its first element. An index is an offset in the d*h*w plane of its channel.
// Forward reads each window element once from cache (three instructions per vector of them). The gradient adds every
// grad_output to the element that its index names, each plane by one thread in a fixed order.
#include <limits>

#include "max_pool_planes.h"
#include "pool_windows.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T>
inline bool beats(T value, T best) {
    return value > best || value != value;
}

// NaN stays, as in beats().
struct Largest {
    template <class V, class T>
    static V start() {
        return -std::numeric_limits<T>::infinity() - V{};
    }
    template <class V>
    static V add(V best, V value) {
        return (value > best) | (value != value) ? value : best;
    }
};

template <class T>
class MaxPool final : public PoolPlan {
public:
    MaxPool(const PoolProblem& p, int threads)
        : p_(p),
          axes_(pool_axes(p)),
          interior_(interior(axes_.w)),
          threads_(pool_threads(p, axes_, threads)),
          runs_(p),
          pixels_(runs_.runs > 0),
          vector_rows_(p.input.w == 1 && p.output.w == 1 && window_extent(axes_.w) <= kPoolColumns),
          dense_(is_dense(p.input, p.size)),
          narrow_(p.size.count() <= std::numeric_limits<IndexOf<T>>::max()),
          planes_(p, axes_) {}

    void run(const PoolArguments& a) const override {
        const T* x = static_cast<const T*>(a.input);
        if (p_.pass == Pass::grad_input) {
            scatter(static_cast<T*>(a.input), static_cast<const T*>(a.output), a.indices);
        } else if (p_.indices) {
            forward<true>(x, static_cast<T*>(a.output), a.indices);
        } else {
            forward<false>(x, static_cast<T*>(a.output), nullptr);
        }
    }

private:
    template <bool Indices>
    void forward(const T* x, T* y, int64_t* indices) const {
        const int64_t rows = p_.out.d * p_.out.h;
        if (pixels_) {
            parallel_for(threads_, p_.n * rows * runs_.runs, [&](int64_t item) {
                const int64_t run = item / rows % runs_.runs, n = item / rows / runs_.runs;
                const int64_t d = item % rows / p_.out.h, h = item % p_.out.h;
                const int64_t to = n * p_.output.n + run * runs_.output_step + offset(p_.output, d, h, 0);
                const T* image = x + n * p_.input.n + run * runs_.input_step;
                if constexpr (Indices) {
                    index_pixel_row(image, d, h, y + to, indices + to);
                    clear_lanes(indices + to, p_.out.w, p_.output.w, runs_.padding(run, p_.c));
                } else {
                    fold_pixels_of_row(image, d, h, y + to);
                }
                clear_lanes(y + to, p_.out.w, p_.output.w, runs_.padding(run, p_.c));
            });
            return;
        }
        parallel_for(threads_, p_.n * p_.c, [&](int64_t item) {
            const int64_t n = item / p_.c, c = item % p_.c;
            const T* plane = x + n * p_.input.n + c * p_.input.c;
            const int64_t to = n * p_.output.n + c * p_.output.c;
            if constexpr (Indices) {
                index_plane(plane, y + to, indices + to);
            } else {
                for (int64_t d = 0; d < p_.out.d; ++d)
                    for (int64_t h = 0; h < p_.out.h; ++h) fold_row(plane, d, h, y + to + offset(p_.output, d, h, 0));
            }
        });
    }

    // Values only.
    void fold_row(const T* plane, int64_t od, int64_t oh, T* y) const {
        const Span d = span(axes_.d, od), h = span(axes_.h, oh);
        if (!vector_rows_) {
            for (int64_t o = 0; o < p_.out.w; ++o)
                single<false>(plane, d, h, span(axes_.w, o), y + o * p_.output.w, nullptr);
            return;
        }
        fold_plane_row<Largest, T>(
            axes_.w, interior_, p_.input, plane, {d, h, axes_.d.dilation, axes_.h.dilation}, y,
            [](auto best) { return best; }, [](T best, int64_t, Span) { return best; });
    }

    void fold_pixels_of_row(const T* image, int64_t od, int64_t oh, T* y) const {
        const WindowRows rows{span(axes_.d, od), span(axes_.h, oh), axes_.d.dilation, axes_.h.dilation,
                              next_rows<T>(p_, axes_.h, oh)};
        const auto finish = [&](int64_t o) {
            return [to = y + o * p_.output.w](int64_t c, auto best) { store_row(to + c, best); };
        };
        if (runs_.channels >= lanes<T>) {
            fold_pixel_row<Largest, lanes<T>>(image, runs_.channels, axes_.h, axes_.w, p_.input, rows, finish);
        } else if (runs_.channels >= lanes<T> / 2) {
            fold_pixel_row<Largest, lanes<T> / 2>(image, runs_.channels, axes_.h, axes_.w, p_.input, rows, finish);
        } else {
            fold_pixel_row<Largest, 1>(image, runs_.channels, axes_.h, axes_.w, p_.input, rows, finish);
        }
    }

    int64_t plane_index(int64_t d, int64_t h, int64_t w) const { return (d * p_.size.h + h) * p_.size.w + w; }

    // One output: the definition.
    template <bool Indices>
    void single(const T* plane, Span d, Span h, Span w, T* y, int64_t* index) const {
        T best = -std::numeric_limits<T>::infinity();
        int64_t where = plane_index(d.begin, h.begin, w.begin);
        for (int64_t i = d.begin; i < d.end; i += axes_.d.dilation)
            for (int64_t j = h.begin; j < h.end; j += axes_.h.dilation)
                for (int64_t k = w.begin; k < w.end; k += axes_.w.dilation) {
                    const T value = plane[offset(p_.input, i, j, k)];
                    if (!beats(value, best)) continue;
                    best = value;
                    where = plane_index(i, j, k);
                }
        *y = best;
        if constexpr (Indices) *index = where;
    }

    void index_plane(const T* plane, T* y, int64_t* indices) const {
        const auto one = [&](int64_t d, int64_t h, int64_t w) {
            const int64_t to = offset(p_.output, d, h, w);
            single<true>(plane, span(axes_.d, d), span(axes_.h, h), span(axes_.w, w), y + to, indices + to);
        };
        if (planes_.fits()) return planes_.run(plane, y, indices, one);
        for (int64_t d = 0; d < p_.out.d; ++d)
            for (int64_t h = 0; h < p_.out.h; ++h)
                for (int64_t w = 0; w < p_.out.w; ++w) one(d, h, w);
    }

    void index_pixel_row(const T* image, int64_t od, int64_t oh, T* y, int64_t* indices) const {
        const Span d = span(axes_.d, od), h = span(axes_.h, oh);
        for (int64_t o = 0; o < p_.out.w; ++o) {
            const Span w = span(axes_.w, o);
            T* to = y + o * p_.output.w;
            int64_t* to_index = indices + o * p_.output.w;
            if (narrow_ && runs_.channels >= lanes<T>) {
                each_group<lanes<T>>(runs_.channels,
                                     [&]<int N>(int64_t c) { pixel<N>(image + c, d, h, w, to + c, to_index + c); });
                continue;
            }
            for (int64_t c = 0; c < runs_.channels; ++c) single<true>(image + c, d, h, w, to + c, to_index + c);
        }
    }

    static void store_wide(int64_t* to, Row<IndexOf<T>, lanes<T>> from) {
        constexpr int kHalf = lanes<T> / 2;  // a vector of int64 for a half of int32
        alignas(64) IndexOf<T> index[lanes<T>];
        std::memcpy(index, &from, sizeof from);
        for (int i = 0; i < lanes<T>; i += kHalf)
            store_row(to + i,
                      __builtin_convertvector((load_row<Row<IndexOf<T>, kHalf>>(index + i)), Row<int64_t, kHalf>));
    }

    template <int N>
    void pixel(const T* image, Span d, Span h, Span w, T* y, int64_t* indices) const {
        using I = Row<IndexOf<T>, lanes<T>>;
        Vec<T> best[N];
        I where[N];
        for (int v = 0; v < N; ++v) {
            best[v] = broadcast<T>(-std::numeric_limits<T>::infinity());
            where[v] = static_cast<IndexOf<T>>(plane_index(d.begin, h.begin, w.begin)) - I{};
        }
        for (int64_t i = d.begin; i < d.end; i += axes_.d.dilation)
            for (int64_t j = h.begin; j < h.end; j += axes_.h.dilation)
                for (int64_t k = w.begin; k < w.end; k += axes_.w.dilation) {
                    const T* at = image + offset(p_.input, i, j, k);
                    const I index = static_cast<IndexOf<T>>(plane_index(i, j, k)) - I{};
                    for (int v = 0; v < N; ++v) {
                        const Vec<T> value = load<T>(at + v * lanes<T>);
                        const I better = (value > best[v]) | (value != value);
                        best[v] = better ? value : best[v];
                        where[v] = better ? index : where[v];
                    }
                }
        for (int v = 0; v < N; ++v) {
            store<T>(y + v * lanes<T>, best[v]);
            store_wide(indices + v * lanes<T>, where[v]);
        }
    }

    void scatter(T* grad_input, const T* grad_output, const int64_t* indices) const {
        if (pixels_) return scatter_pixel_runs(grad_input, grad_output, indices);
        const bool dense =
            p_.size.d == 1 && p_.out.d == 1 && p_.input.w == 1 && p_.output.w == 1 && p_.input.h == p_.size.w;
        parallel_for(threads_, p_.n * p_.c, [&](int64_t item) {
            const int64_t n = item / p_.c, c = item % p_.c;
            T* plane = grad_input + n * p_.input.n + c * p_.input.c;
            const int64_t from = n * p_.output.n + c * p_.output.c;
            if (dense) return scatter_plane(plane, grad_output + from, indices + from);
            clear(grad_input + n * p_.input.n, p_.input, p_.size, Span{c, c + 1});
            for (int64_t d = 0; d < p_.out.d; ++d)
                for (int64_t h = 0; h < p_.out.h; ++h) {
                    const int64_t row = from + offset(p_.output, d, h, 0);
                    for (int64_t w = 0; w < p_.out.w; ++w)
                        add_at(plane, indices[row + w * p_.output.w], grad_output[row + w * p_.output.w]);
                }
        });
    }

    void scatter_pixel_runs(T* grad_input, const T* grad_output, const int64_t* indices) const {
        ChannelShare share = channel_share(p_, true, threads_);
        if (p_.input.block > 1) share = {runs_.channels, runs_.channels};
        parallel_for(threads_, p_.n * runs_.runs * share.items(), [&](int64_t item) {
            const int64_t n = item / share.items() / runs_.runs, run = item / share.items() % runs_.runs;
            Span channels = share.item(item % share.items());
            T* image = grad_input + n * p_.input.n + run * runs_.input_step;
            clear_pixels(image, p_.input, p_.size, channels);
            // Padding lanes stay 0: their indices mean nothing.
            channels.end = smaller(channels.end, runs_.padding(run, p_.c).begin);
            for (int64_t d = 0; d < p_.out.d; ++d)
                for (int64_t h = 0; h < p_.out.h; ++h) {
                    const int64_t from = n * p_.output.n + run * runs_.output_step + offset(p_.output, d, h, 0);
                    scatter_pixels(image, d, h, channels, grad_output + from, indices + from);
                }
        });
    }

    // A row of pixels: vectors compare their indices with each position of a small window.
    void scatter_pixels(T* image, int64_t od, int64_t oh, Span channels, const T* grad, const int64_t* indices) const {
        constexpr int64_t kSmallWindow = 16;
        const Span d = span(axes_.d, od), h = span(axes_.h, oh);
        for (int64_t o = 0; o < p_.out.w; ++o, grad += p_.output.w, indices += p_.output.w) {
            const Span w = span(axes_.w, o);
            const int64_t window = (d.end - d.begin) * (h.end - h.begin) * (w.end - w.begin);
            int64_t c = channels.begin;
            if (narrow_ && !shared_indices() && window <= kSmallWindow)
                for (; c + lanes<T> <= channels.end; c += lanes<T>)
                    add_matches(image + c, d, h, w, load<T>(grad + c), indices + c);
            for (; c < channels.end; ++c) add_at(image + c, indices[c], grad[c]);
        }
    }

    // An expanded tensor of indices has one index for several windows: it need not lie in each of them.
    bool shared_indices() const {
        const Strides& s = p_.output;
        return (s.d == 0 && p_.out.d > 1) || (s.h == 0 && p_.out.h > 1) || (s.w == 0 && p_.out.w > 1);
    }

    void add_matches(T* image, Span d, Span h, Span w, Vec<T> grad, const int64_t* indices) const {
        using I = Row<IndexOf<T>, lanes<T>>;
        Row<int64_t, lanes<T>> wide;
        std::memcpy(&wide, indices, sizeof wide);
        const I index = __builtin_convertvector(wide, I);
        for (int64_t i = d.begin; i < d.end; i += axes_.d.dilation)
            for (int64_t j = h.begin; j < h.end; j += axes_.h.dilation)
                for (int64_t k = w.begin; k < w.end; k += axes_.w.dilation) {
                    T* to = image + offset(p_.input, i, j, k);
                    const I here = static_cast<IndexOf<T>>(plane_index(i, j, k)) - I{};
                    store<T>(to, load<T>(to) + (index == here ? grad : Vec<T>{}));
                }
    }

    void add_at(T* plane, int64_t index, T grad) const {
        // Dilation can leave a window without an element; its index may lie outside.
        if (index >= p_.size.count()) return;
        if (dense_) {
            plane[index * p_.input.w] += grad;
            return;
        }
        const int64_t row = index / p_.size.w;
        plane[offset(p_.input, row / p_.size.h, row % p_.size.h, index % p_.size.w)] += grad;
    }

    // A dense plane: its rows are cleared just before the first window that reaches them.
    void scatter_plane(T* plane, const T* grad, const int64_t* indices) const {
        const int64_t elements = p_.size.count(), width = p_.out.w, step = p_.output.h;
        int64_t cleared = 0;
        for (int64_t h = 0; h < p_.out.h; ++h) {
            const int64_t reached = smaller(larger(span(axes_.h, h).end, 0), p_.size.h) * p_.size.w;
            if (reached > cleared) {
                zero_run(plane + cleared, reached - cleared);
                cleared = reached;
            }
            for (int64_t w = 0; w < width; ++w) {
                const int64_t index = indices[h * step + w];
                // Dilation can leave a window without an element; its index may lie outside.
                if (index < elements) plane[index] += grad[h * step + w];
            }
        }
        zero_run(plane + cleared, elements - cleared);
    }

    PoolProblem p_;
    PoolAxes axes_;
    Span interior_;
    int threads_;
    ChannelRuns runs_;
    bool pixels_;       // vectors along the channels
    bool vector_rows_;  // vectors along the rows
    bool dense_;        // the planes of the input
    bool narrow_;       // indices fit IndexOf<T>
    IndexedPlanes<T> planes_;
};

PoolPlan* plan_max_pool(const PoolProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new MaxPool<double>(problem, threads);
    return new MaxPool<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("max_pool", "direct", plan_max_pool);
PYCV_KERNEL("adaptive_max_pool", "direct", plan_max_pool);

}  // namespace pycv::cpu::PYCV_ISA
