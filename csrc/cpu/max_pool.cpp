// max_pool and adaptive_max_pool: the largest element of each window, and where it was.
//
// Of equal elements the first in the window's order wins; NaN beats everything, and the last NaN beats the others; a
// window of nothing but -inf gives its first element. Where it was is its name: an index, its position in the d*h*w
// plane of its channel, or in one byte an offset, its number in the window. Names are linear in the element's place.
// Forward reads each window element once from cache (three instructions per vector of them). The gradient adds every
// grad_output to the element that its name says, each plane by one thread in a fixed order. In pixels, where names are
// offsets, every input pixel instead looks for itself in the windows that it lies in (max_pool_pixels.h).
#include <limits>

#include "max_pool_pixels.h"
#include "max_pool_planes.h"
#include "pool_transposed.h"
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

// One axis of a window: its elements inside the input, the name of the first, and from each name to the next.
struct NamedSpan {
    int64_t begin, end, dilation, name, step;
};

// visit(i, j, k, name) for every element of a window that lies inside the input, in order.
template <class Visit>
inline void each_element(const NamedSpan& d, const NamedSpan& h, const NamedSpan& w, const Visit& visit) {
    int64_t depth = d.name;
    for (int64_t i = d.begin; i < d.end; i += d.dilation, depth += d.step) {
        int64_t row = depth + h.name;
        for (int64_t j = h.begin; j < h.end; j += h.dilation, row += h.step) {
            int64_t name = row + w.name;
            for (int64_t k = w.begin; k < w.end; k += w.dilation, name += w.step) visit(i, j, k, name);
        }
    }
}

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
          streams_(computed_bytes(p) > kStreamedBytes),
          offsets_(p.indices == Indices::offset),
          narrow_(offsets_ || p.size.count() <= std::numeric_limits<IndexOf<T>>::max()),
          row_names_(offsets_ ? axes_.w.filter : p.size.w),
          slice_names_(row_names_ * (offsets_ ? axes_.h.filter : p.size.h)),
          planes_(p, axes_),
          readers_(p, axes_) {
        if (offsets_) find_places();
    }

    void run(const PoolArguments& a) const override {
        const bool forward = p_.pass == Pass::forward;
        switch (p_.indices) {
            case Indices::none: return fold<void>(a);
            case Indices::int64: return forward ? fold<int64_t>(a) : scatter<int64_t>(a);
            case Indices::offset: return forward ? fold<uint8_t>(a) : scatter<uint8_t>(a);
        }
    }

private:
    template <class Index>
    void fold(const PoolArguments& a) const {
        constexpr bool kIndices = !std::is_void_v<Index>;
        const T* x = static_cast<const T*>(a.input);
        T* y = static_cast<T*>(a.output);
        [[maybe_unused]] Index* indices = static_cast<Index*>(a.indices);
        const int64_t rows = p_.out.d * p_.out.h;
        if (pixels_) {
            parallel_for(threads_, p_.n * rows * runs_.runs, [&](int64_t item) {
                const int64_t run = item / rows % runs_.runs, n = item / rows / runs_.runs;
                const int64_t d = item % rows / p_.out.h, h = item % p_.out.h;
                const int64_t to = n * p_.output.n + run * runs_.output_step + offset(p_.output, d, h, 0);
                const T* image = x + n * p_.input.n + run * runs_.input_step;
                if constexpr (kIndices) {
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
            if constexpr (kIndices) {
                index_plane(plane, y + to, indices + to);
            } else {
                for (int64_t d = 0; d < p_.out.d; ++d)
                    for (int64_t h = 0; h < p_.out.h; ++h) fold_row(plane, d, h, y + to + offset(p_.output, d, h, 0));
            }
        });
    }

    // Window o along an axis whose neighbouring elements (positions, for indices) have names `apart`.
    NamedSpan named(const PoolAxis& a, int64_t o, int64_t apart) const {
        const Span inside = span(a, o);
        if (!offsets_) return {inside.begin, inside.end, a.dilation, inside.begin * apart, a.dilation * apart};
        const int64_t begin = o * a.stride - a.padding;
        const int64_t before = begin < 0 ? divide_up(-begin, a.dilation) : 0;  // elements in the padding
        return {inside.begin, inside.end, a.dilation, before * apart, apart};
    }
    NamedSpan slices(int64_t o) const { return named(axes_.d, o, slice_names_); }
    NamedSpan rows(int64_t o) const { return named(axes_.h, o, row_names_); }
    NamedSpan columns(int64_t o) const { return named(axes_.w, o, 1); }

    // Where the elements of a window lie in memory, by their names, counted from where it begins.
    void find_places() {
        const Strides& s = p_.input;
        int64_t* place = places_;
        for (int64_t i = 0; i < axes_.d.filter; ++i)
            for (int64_t j = 0; j < axes_.h.filter; ++j)
                for (int64_t k = 0; k < axes_.w.filter; ++k)
                    *place++ = offset(s, i * axes_.d.dilation, j * axes_.h.dilation, k * axes_.w.dilation);
    }

    // Values only.
    void fold_row(const T* plane, int64_t od, int64_t oh, T* y) const {
        if (!vector_rows_) {
            for (int64_t o = 0; o < p_.out.w; ++o)
                single<void>(plane, slices(od), rows(oh), columns(o), y + o * p_.output.w, nullptr);
            return;
        }
        fold_plane_row<Largest, T>(
            axes_.w, interior_, p_.input, plane,
            {span(axes_.d, od), span(axes_.h, oh), axes_.d.dilation, axes_.h.dilation}, y,
            [](auto best) { return best; }, [](T best, int64_t, Span) { return best; });
    }

    void fold_pixels_of_row(const T* image, int64_t od, int64_t oh, T* y) const {
        const WindowRows rows{span(axes_.d, od), span(axes_.h, oh), axes_.d.dilation, axes_.h.dilation,
                              next_rows<T>(p_, axes_.h, oh)};
        const bool streamed = streams_ && is_streamable<T>(y, p_.output.w, runs_.channels);
        const auto finish = [&](int64_t o) {
            return [to = y + o * p_.output.w, streamed](int64_t c, auto best) { put_row(to + c, best, streamed); };
        };
        if (runs_.channels >= lanes<T>) {
            fold_pixel_row<Largest, lanes<T>>(image, runs_.channels, axes_.h, axes_.w, p_.input, rows, finish);
        } else if (runs_.channels >= lanes<T> / 2) {
            fold_pixel_row<Largest, lanes<T> / 2>(image, runs_.channels, axes_.h, axes_.w, p_.input, rows, finish);
        } else {
            fold_pixel_row<Largest, 1>(image, runs_.channels, axes_.h, axes_.w, p_.input, rows, finish);
        }
    }

    // One output: the definition.
    template <class Index>
    void single(const T* plane, const NamedSpan& d, const NamedSpan& h, const NamedSpan& w, T* y, Index* index) const {
        T best = -std::numeric_limits<T>::infinity();
        int64_t where = d.name + h.name + w.name;
        each_element(d, h, w, [&](int64_t i, int64_t j, int64_t k, int64_t name) {
            const T value = plane[offset(p_.input, i, j, k)];
            if (!beats(value, best)) return;
            best = value;
            where = name;
        });
        *y = best;
        if constexpr (!std::is_void_v<Index>) *index = static_cast<Index>(where);
    }

    template <class Index>
    void index_plane(const T* plane, T* y, Index* indices) const {
        const auto one = [&](int64_t d, int64_t h, int64_t w) {
            const int64_t to = offset(p_.output, d, h, w);
            single(plane, slices(d), rows(h), columns(w), y + to, indices + to);
        };
        if (planes_.fits()) return planes_.run(plane, y, indices, one);
        for (int64_t d = 0; d < p_.out.d; ++d)
            for (int64_t h = 0; h < p_.out.h; ++h)
                for (int64_t w = 0; w < p_.out.w; ++w) one(d, h, w);
    }

    template <class Index>
    void index_pixel_row(const T* image, int64_t od, int64_t oh, T* y, Index* indices) const {
        const NamedSpan d = slices(od), h = rows(oh);
        const Span next = next_rows<T>(p_, axes_.h, oh);
        const bool streamed = streams_ && is_streamable<T>(y, p_.output.w, runs_.channels);
        for (int64_t o = 0; o < p_.out.w; ++o) {
            const NamedSpan w = columns(o);
            if (next.begin < next.end) ask_for(image, runs_.channels, p_.input, next, {w.begin, w.end});
            T* to = y + o * p_.output.w;
            Index* to_index = indices + o * p_.output.w;
            if (narrow_ && runs_.channels >= lanes<T>) {
                each_group<lanes<T>>(runs_.channels, [&]<int N>(int64_t c) {
                    pixel<N>(image + c, d, h, w, to + c, to_index + c, streamed);
                });
                continue;
            }
            for (int64_t c = 0; c < runs_.channels; ++c) single(image + c, d, h, w, to + c, to_index + c);
        }
    }

    using Names = Row<IndexOf<T>, lanes<T>>;

    static void store_names(int64_t* to, Names from) {
        constexpr int kHalf = lanes<T> / 2;  // a vector of int64 for a half of int32
        alignas(64) IndexOf<T> index[lanes<T>];
        std::memcpy(index, &from, sizeof from);
        for (int i = 0; i < lanes<T>; i += kHalf)
            store_row(to + i,
                      __builtin_convertvector((load_row<Row<IndexOf<T>, kHalf>>(index + i)), Row<int64_t, kHalf>));
    }
    static void store_names(uint8_t* to, Names from) { store_bytes<IndexOf<T>, lanes<T>>(to, from); }

    template <int N, class Index>
    void pixel(const T* image, const NamedSpan& d, const NamedSpan& h, const NamedSpan& w, T* y, Index* indices,
               bool streamed) const {
        Vec<T> best[N];
        Names where[N];
        for (int v = 0; v < N; ++v) {
            best[v] = broadcast<T>(-std::numeric_limits<T>::infinity());
            where[v] = static_cast<IndexOf<T>>(d.name + h.name + w.name) - Names{};
        }
        each_element(d, h, w, [&](int64_t i, int64_t j, int64_t k, int64_t name) {
            const T* at = image + offset(p_.input, i, j, k);
            const Names here = static_cast<IndexOf<T>>(name) - Names{};
            for (int v = 0; v < N; ++v) {
                const Vec<T> value = load<T>(at + v * lanes<T>);
                const Names better = (value > best[v]) | (value != value);
                best[v] = better ? value : best[v];
                where[v] = better ? here : where[v];
            }
        });
        for (int v = 0; v < N; ++v) {
            put_row(y + v * lanes<T>, best[v], streamed);
            store_names(indices + v * lanes<T>, where[v]);
        }
    }

    template <class Index>
    void scatter(const PoolArguments& a) const {
        T* grad_input = static_cast<T*>(a.input);
        const T* grad_output = static_cast<const T*>(a.output);
        const Index* indices = static_cast<const Index*>(a.indices);
        if constexpr (std::is_same_v<Index, uint8_t>) {
            if (pixels_) return gather_pixels(grad_input, grad_output, indices);
        } else {
            if (pixels_) return scatter_pixel_runs(grad_input, grad_output, indices);
        }
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
                    if constexpr (std::is_same_v<Index, uint8_t>) {
                        scatter_row(plane, d, h, grad_output + row, indices + row);
                    } else {
                        for (int64_t w = 0; w < p_.out.w; ++w)
                            add_at(plane, indices[row + w * p_.output.w], grad_output[row + w * p_.output.w]);
                    }
                }
        });
    }

    // A row of outputs, to the elements that their offsets name.
    void scatter_row(T* plane, int64_t d, int64_t h, const T* grad, const uint8_t* offsets) const {
        const PoolAxes& a = axes_;
        const int64_t first =
            offset(p_.input, d * a.d.stride - a.d.padding, h * a.h.stride - a.h.padding, -a.w.padding);
        const int64_t step = a.w.stride * p_.input.w;
        for (int64_t w = 0; w < p_.out.w; ++w)
            plane[first + w * step + places_[offsets[w * p_.output.w]]] += grad[w * p_.output.w];
    }

    void gather_pixels(T* grad_input, const T* grad_output, const uint8_t* offsets) const {
        const int64_t rows = p_.size.d * p_.size.h;
        parallel_for(threads_, p_.n * runs_.runs * rows, [&](int64_t item) {
            const int64_t run = item / rows % runs_.runs, n = item / rows / runs_.runs;
            const int64_t d = item % rows / p_.size.h, h = item % p_.size.h;
            const int64_t from = n * p_.output.n + run * runs_.output_step;
            T* to = grad_input + n * p_.input.n + run * runs_.input_step + offset(p_.input, d, h, 0);
            // Padding lanes too: sums of zeros, whatever offset stands there.
            readers_.gather_row(d, h, runs_.channels, grad_output + from, offsets + from, to);
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
        const NamedSpan d = slices(od), h = rows(oh);
        for (int64_t o = 0; o < p_.out.w; ++o, grad += p_.output.w, indices += p_.output.w) {
            const NamedSpan w = columns(o);
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

    void add_matches(T* image, const NamedSpan& d, const NamedSpan& h, const NamedSpan& w, Vec<T> grad,
                     const int64_t* indices) const {
        Row<int64_t, lanes<T>> wide;
        std::memcpy(&wide, indices, sizeof wide);
        const Names index = __builtin_convertvector(wide, Names);
        each_element(d, h, w, [&](int64_t i, int64_t j, int64_t k, int64_t name) {
            T* to = image + offset(p_.input, i, j, k);
            const Names here = static_cast<IndexOf<T>>(name) - Names{};
            store<T>(to, load<T>(to) + (index == here ? grad : Vec<T>{}));
        });
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
    template <class Index>
    void scatter_plane(T* plane, const T* grad, const Index* indices) const {
        const int64_t elements = p_.size.count(), width = p_.out.w, step = p_.output.h;
        int64_t cleared = 0;
        for (int64_t h = 0; h < p_.out.h; ++h) {
            const int64_t reached = smaller(larger(span(axes_.h, h).end, 0), p_.size.h) * p_.size.w;
            if (reached > cleared) {
                zero_run(plane + cleared, reached - cleared);
                cleared = reached;
            }
            if constexpr (std::is_same_v<Index, uint8_t>) {
                scatter_row(plane, 0, h, grad + h * step, indices + h * step);
            } else {
                for (int64_t w = 0; w < width; ++w) {
                    const int64_t index = indices[h * step + w];
                    // Dilation can leave a window without an element; its index may lie outside.
                    if (index < elements) plane[index] += grad[h * step + w];
                }
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
    bool streams_;      // the values, past the caches
    bool offsets_;
    bool narrow_;                      // names fit IndexOf<T>
    int64_t row_names_, slice_names_;  // from one row, or slice, to the next
    int64_t places_[kMostElements];
    IndexedPlanes<T> planes_;
    WindowsOfPixels<T> readers_;
};

template <class T>
PoolPlan* plan_of(const PoolProblem& p, int threads) {
    const bool values = p.pass == Pass::forward && p.indices == Indices::none;
    if (!values || !has_short_rows<T>(p)) return new MaxPool<T>(p, threads);
    return new TransposedPool<T, MaxPool<T>>(p, pool_threads(p, pool_axes(p), threads));
}

PoolPlan* plan_max_pool(const PoolProblem& problem, int threads) {
    return problem.dtype == DType::f64 ? plan_of<double>(problem, threads) : plan_of<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("max_pool", "direct", plan_max_pool);
PYCV_KERNEL("adaptive_max_pool", "direct", plan_max_pool);

}  // namespace pycv::cpu::PYCV_ISA
