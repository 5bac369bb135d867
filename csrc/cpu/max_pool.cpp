// max_pool and adaptive_max_pool: the largest element of each window, and where it was.
//
// Of equal elements the first in the window's order wins; NaN beats everything, and the last NaN beats the others; a
// window of nothing but -inf gives its first element. An index is an offset in the d*h*w plane of its channel.
// Forward reads each window element once from cache (three instructions per vector of them). The gradient adds every
// grad_output to the element that its index names, each plane by one thread in a fixed order.
#include <limits>

#include "pool.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T>
inline bool beats(T value, T best) {
    return value > best || value != value;
}

template <class T>
class MaxPool final : public PoolPlan {
public:
    MaxPool(const PoolProblem& p, int threads)
        : p_(p),
          axes_(pool_axes(p)),
          interior_(interior(axes_.w)),
          threads_(pool_threads(p, axes_, threads)),
          pixels_(p.input.c == 1 && p.output.c == 1 && p.c > 1),
          narrow_(p.size.count() <= std::numeric_limits<IndexOf<T>>::max()) {}

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
        parallel_for(threads_, pixels_ ? p_.n * rows : p_.n * p_.c, [&](int64_t item) {
            if (pixels_) {
                const int64_t n = item / rows, d = item % rows / p_.out.h, h = item % p_.out.h;
                const int64_t to = n * p_.output.n + offset(p_.output, d, h, 0);
                pixel_row<Indices>(x + n * p_.input.n, d, h, y + to, indices + (Indices ? to : 0));
                return;
            }
            const int64_t n = item / p_.c, c = item % p_.c;
            const T* plane = x + n * p_.input.n + c * p_.input.c;
            for (int64_t d = 0; d < p_.out.d; ++d)
                for (int64_t h = 0; h < p_.out.h; ++h) {
                    const int64_t to = n * p_.output.n + c * p_.output.c + offset(p_.output, d, h, 0);
                    plane_row<Indices>(plane, d, h, y + to, indices + (Indices ? to : 0));
                }
        });
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

    template <bool Indices>
    void plane_row(const T* plane, int64_t od, int64_t oh, T* y, int64_t* indices) const {
        const Span d = span(axes_.d, od), h = span(axes_.h, oh);
        const auto one = [&](int64_t o) {
            single<Indices>(plane, d, h, span(axes_.w, o), y + o * p_.output.w,
                            indices + (Indices ? o * p_.output.w : 0));
        };
        const bool vectors = p_.input.w == 1 && p_.output.w == 1 && narrow_;
        const Span inside = vectors ? interior_ : Span{0, 0};
        for (int64_t o = 0; o < inside.begin; ++o) one(o);
        switch (axes_.w.stride) {
            case 1: row_blocks<Indices, 1>(plane, d, h, inside, y, indices, one); break;
            case 2: row_blocks<Indices, 2>(plane, d, h, inside, y, indices, one); break;
            default: row_blocks<Indices, 0>(plane, d, h, inside, y, indices, one);
        }
        for (int64_t o = inside.end; o < p_.out.w; ++o) one(o);
    }

    template <bool Indices, int Stride, class One>
    void row_blocks(const T* plane, Span d, Span h, Span inside, T* y, int64_t* indices, const One& one) const {
        for_blocks<T, lanes<T>>(
            inside.begin, inside.end,
            [&]<int L>(int64_t o) {
                using V = Row<T, L>;
                using I = Row<IndexOf<T>, L>;
                const int64_t first = o * axes_.w.stride - axes_.w.padding;
                I step;
                for (int l = 0; l < L; ++l) step[l] = static_cast<IndexOf<T>>(l * axes_.w.stride);
                V best = -std::numeric_limits<T>::infinity() - V{};
                I where = step + static_cast<IndexOf<T>>(plane_index(d.begin, h.begin, first));
                for (int64_t i = d.begin; i < d.end; i += axes_.d.dilation)
                    for (int64_t j = h.begin; j < h.end; j += axes_.h.dilation) {
                        const T* row = plane + offset(p_.input, i, j, first);
                        for (int64_t k = 0; k < axes_.w.filter * axes_.w.dilation; k += axes_.w.dilation) {
                            const V value = load_strided<T, L, Stride>(row + k, axes_.w.stride);
                            const I better = (value > best) | (value != value);
                            best = better ? value : best;
                            if constexpr (Indices)
                                where = better ? step + static_cast<IndexOf<T>>(plane_index(i, j, first + k)) : where;
                        }
                    }
                std::memcpy(y + o, &best, sizeof best);
                if constexpr (Indices)
                    for (int l = 0; l < L; ++l) indices[o + l] = where[l];
            },
            one);
    }

    template <bool Indices>
    void pixel_row(const T* image, int64_t od, int64_t oh, T* y, int64_t* indices) const {
        const Span d = span(axes_.d, od), h = span(axes_.h, oh);
        for (int64_t o = 0; o < p_.out.w; ++o) {
            const Span w = span(axes_.w, o);
            T* to = y + o * p_.output.w;
            int64_t* to_index = indices + (Indices ? o * p_.output.w : 0);
            int64_t c = 0;
            if (narrow_) {
                for (; c + 4 * lanes<T> <= p_.c; c += 4 * lanes<T>)
                    pixel<Indices, 4>(image + c, d, h, w, to + c, to_index + c);
                for (; c + lanes<T> <= p_.c; c += lanes<T>) pixel<Indices, 1>(image + c, d, h, w, to + c, to_index + c);
            }
            for (; c < p_.c; ++c) single<Indices>(image + c, d, h, w, to + c, to_index + c);
        }
    }

    template <bool Indices, int N>
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
                        if constexpr (Indices) where[v] = better ? index : where[v];
                    }
                }
        for (int v = 0; v < N; ++v) {
            store<T>(y + v * lanes<T>, best[v]);
            if constexpr (Indices)
                for (int l = 0; l < lanes<T>; ++l) indices[v * lanes<T> + l] = where[v][l];
        }
    }

    void scatter(T* grad_input, const T* grad_output, const int64_t* indices) const {
        const ChannelShare share = channel_share(p_, pixels_, threads_);
        parallel_for(threads_, p_.n * share.items(), [&](int64_t item) {
            const int64_t n = item / share.items();
            const Span channels = share.item(item % share.items());
            T* image = grad_input + n * p_.input.n;
            if (!pixels_ && p_.size.d == 1 && p_.input.w == 1 && p_.output.w == 1 && p_.input.h == p_.size.w) {
                const int64_t from = n * p_.output.n + channels.begin * p_.output.c;
                return scatter_plane(image + channels.begin * p_.input.c, grad_output + from, indices + from);
            }
            clear(image, p_.input, p_.size, channels);
            for (int64_t d = 0; d < p_.out.d; ++d)
                for (int64_t h = 0; h < p_.out.h; ++h) {
                    const int64_t from = n * p_.output.n + offset(p_.output, d, h, 0);
                    scatter_row(image, channels, grad_output + from, indices + from);
                }
        });
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

    void scatter_row(T* image, Span channels, const T* grad, const int64_t* indices) const {
        const Strides in = p_.input, out = p_.output;
        const Spatial size = p_.size;
        const int64_t plane = size.count(), width = p_.out.w;
        const bool dense = is_dense(in, size);
        for (int64_t w = 0; w < width; ++w)
            for (int64_t c = channels.begin; c < channels.end; ++c) {
                const int64_t index = indices[w * out.w + c * out.c];
                if (index >= plane) continue;
                const int64_t row = dense ? 0 : index / size.w;
                const int64_t to = dense ? index * in.w : offset(in, row / size.h, row % size.h, index % size.w);
                image[c * in.c + to] += grad[w * out.w + c * out.c];
            }
    }

    PoolProblem p_;
    PoolAxes axes_;
    Span interior_;
    int threads_;
    bool pixels_;  // vectors along the channels
    bool narrow_;  // indices fit IndexOf<T>
};

PoolPlan* plan_max_pool(const PoolProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new MaxPool<double>(problem, threads);
    return new MaxPool<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("max_pool", "direct", plan_max_pool);
PYCV_KERNEL("adaptive_max_pool", "direct", plan_max_pool);

}  // namespace pycv::cpu::PYCV_ISA
