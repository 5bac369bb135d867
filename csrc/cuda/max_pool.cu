// max_pool and adaptive_max_pool: the largest element of each window, and where it was.
//
// Of equal elements the first in the window's order wins; NaN beats everything, and the last NaN beats the others; a
// window of nothing but -inf gives its first element. Where it was is its name: an index, its position in the d*h*w
// plane of its channel, or in one byte an offset, its number in the window.
// The gradient gathers: a thread goes through the windows that cover its elements, in order, and adds the grad_output
// of those whose index or offset names one of them. No atomics, the same sum every time.
//
// Bound by memory bandwidth. Forward reads each input element and writes each output element once, plus 1 byte of
// offset or 8 of index where asked: for 3x3 windows at stride 2 in fp32 5 bytes per input element, 5.25 with offsets,
// 7 with indices (bf16: 2.5, 2.75, 4.5); one comparison per window element. The gradient moves the same bytes the other
// way; neighbours share what they read through L1, the rows of one thread through registers.
// Tuned: no kernel of this file may spill registers.
#include <type_traits>

#include "dtypes.h"
#include "pool_rows.h"

namespace pycv::cuda {
namespace {

template <Indices I>
using index_t = std::conditional_t<I == Indices::offset, uint8_t, int64_t>;

// The name of the first element inside the r-th of a thread's windows along the height, as those of the 0th go on.
template <Indices I>
__device__ __forceinline__ int first_of_row(const PoolWindows& g, const PoolPlace& at, int r) {
    const int o = min(at.h + r, g.h.out - 1);
    if constexpr (I == Indices::offset) return (g.h.before(o) + r * g.h.stride) * g.w.filter;
    return g.h.window(o).begin * g.w.size;
}

template <Indices I>
__device__ __forceinline__ PoolNames names_of(const PoolWindows& g, const PoolPlace& at) {
    if constexpr (I == Indices::none) return PoolNames{};
    const int first_row = first_of_row<I>(g, at, 0);
    if constexpr (I == Indices::offset) {
        const int row = g.w.filter, slice = g.h.filter * row;
        return {{g.d.before(at.d) * slice, slice}, {first_row, row}, {g.w.before(at.w), 1}};
    }
    const int row = g.w.size, slice = g.h.size * row;
    return {{g.d.window(at.d).begin * slice, g.d.dilation * slice},
            {first_row, g.h.dilation * row},
            {g.w.window(at.w).begin, g.w.dilation}};
}

template <class T, int V, bool Named>
struct Largest {
    using Value = accumulator_t<T>;
    Value best[V];
    int where[Named ? V : 1];

    static __device__ __forceinline__ Value outside() { return -static_cast<Value>(INFINITY); }  // never taken
    __device__ __forceinline__ void start(int first = 0) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            best[v] = -static_cast<Value>(INFINITY);
            if constexpr (Named) where[v] = first;
        }
        if constexpr (!Named) where[0] = 0;
    }
    __device__ __forceinline__ void take(int v, Value value, int name) {
        if (!(value > best[v] || value != value)) return;
        best[v] = value;
        if constexpr (Named) where[v] = name;
    }
    __device__ __forceinline__ void add(const Elements<T, V>& values, int name) {
#pragma unroll
        for (int v = 0; v < V; ++v) take(v, values.of[v], name);
    }
    __device__ __forceinline__ void merge(const Largest& next) {
#pragma unroll
        for (int v = 0; v < V; ++v) take(v, next.best[v], Named ? next.where[v] : 0);
    }
    // The lanes of a warp have their elements in turn: names decide what comes first.
    __device__ __forceinline__ void join(int lane_bits) {
        static_assert(V == 1);
        const Value value = shuffle_xor(best[0], lane_bits);
        const int name = shuffle_xor(where[0], lane_bits);
        const bool missing = value != value, own_missing = best[0] != best[0];
        const bool better =
            missing ? !own_missing || name > where[0] : value > best[0] || (value == best[0] && name < where[0]);
        if (!better) return;
        best[0] = value;
        where[0] = name;
    }
    __device__ __forceinline__ void store(T* y) const {
        Elements<T, V> values;
#pragma unroll
        for (int v = 0; v < V; ++v) values.of[v] = best[v];
        store_elements(y, values);
    }
    // `before`: names that other windows of this thread have before this one's.
    template <class Index>
    __device__ __forceinline__ void store_names(Index* to, int before) const {
        constexpr int N = V * sizeof(Index) < 4 ? 1 : sizeof(Index) == 8 && V > 1 ? 2 : V;  // in one access
#pragma unroll
        for (int v = 0; v < V; v += N) {
            if constexpr (N == 1) {
                to[v] = static_cast<Index>(where[v] - before);
            } else {
                Vector<Index, N> names;
#pragma unroll
                for (int n = 0; n < N; ++n) names[n] = static_cast<Index>(where[v + n] - before);
                store_vector(to + v, names);
            }
        }
    }
};

template <class T, int V, int R, Indices I>
__global__ void max_pool_kernel(PoolWindows g, PoolPlaces places, const T* x, T* y, index_t<I>* indices) {
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    const PoolNames names = names_of<I>(g, at);
    Largest<T, V, I != Indices::none> folds[R];
#pragma unroll
    for (int r = 0; r < R; ++r) folds[r].start(names.d.first + first_of_row<I>(g, at, r) + names.w.first);
    fold_windows<V>(g, x + at.n * g.input.n + at.c * g.input.c, at, names, folds);
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (at.h + r >= g.h.out) break;
        const int64_t to = at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, at.d, at.h + r, at.w);
        folds[r].store(y + to);
        const int before = I == Indices::offset ? r * g.h.stride * g.w.filter : 0;
        if constexpr (I != Indices::none) folds[r].store_names(indices + to, before);
    }
}

// V neighbouring outputs (pool_rows.h).
template <class T, class W, int V, Indices I>
__global__ void max_pool_rows_kernel(PoolWindows g, PoolPlaces places, const T* x, T* y, index_t<I>* indices) {
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    PoolNames names = names_of<I>(g, at);
    if constexpr (I != Indices::none) names.w.first -= g.w.before(at.w);  // of its first element, inside or not
    Largest<T, V, I != Indices::none> folds[1];
    folds[0].start(names.first());
    if constexpr (I != Indices::none)
#pragma unroll
        for (int v = 0; v < V; ++v) folds[0].where[v] += g.w.before(at.w + v);
    fold_row_windows<W, V>(g, x + at.n * g.input.n + at.c * g.input.c, at, names, folds);
    const int count = g.w.out - at.w;
    const int64_t to = at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, at.d, at.h, at.w);
    store_row_of<V>(y + to, folds[0].best, count);
    if constexpr (I != Indices::none) {
        const int next = I == Indices::offset ? 0 : W::stride;  // from one window's names to the next one's
        index_t<I> where[V];
#pragma unroll
        for (int v = 0; v < V; ++v) where[v] = static_cast<index_t<I>>(folds[0].where[v] + v * next);
        store_row(indices + to, where, count);
    }
}

// A warp for every output.
template <class T, Indices I>
__global__ void max_pool_wide_kernel(PoolWindows g, PoolPlaces places, const T* x, T* y, index_t<I>* indices) {
    const int64_t item = pool_item_of_warp();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    const PoolNames names = names_of<I>(g, at);
    Largest<T, 1, I != Indices::none> fold;
    fold.start(names.first());
    fold_wide_window(g, x + at.n * g.input.n + at.c * g.input.c, at, names, fold);
    if (lane_index() > 0) return;
    const int64_t to = at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, at.d, at.h, at.w);
    fold.store(y + to);
    if constexpr (I != Indices::none) fold.store_names(indices + to, 0);
}

// The R rows of inputs that a thread adds up, and whether a name that was read is that of one of them: by indices.
template <Indices I, int R>
struct Own {
    int first, row;

    __device__ __forceinline__ Own(const PoolWindows& g, const PoolPlace& at)
        : first((at.d * g.h.size + at.h) * g.w.size + at.w), row(g.w.size) {}
    __device__ __forceinline__ void enter_row(const PoolWindows&, const PoolPlace&, int, int) {}
    __device__ __forceinline__ bool enter(const PoolWindows&, const PoolPlace&, int) { return true; }
    __device__ __forceinline__ bool is(int r, int64_t name) const { return name - first == r * row; }
    // Of input i from the first on, element t of its window.
    __device__ __forceinline__ bool is(int r, int name, int i, int) const { return name - first == r * row + i; }
};

// By offsets, which name an input differently in every window.
template <int R>
struct Own<Indices::offset, R> {
    static constexpr int kNone = -512;  // whatever is added to it along the width
    int rows[R], column = 0;

    __device__ __forceinline__ Own(const PoolWindows&, const PoolPlace&) {}
    __device__ __forceinline__ void enter_row(const PoolWindows& g, const PoolPlace& at, int i, int j) {
        const int d = g.d.element(i, at.d);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            const int h = g.h.element(j, at.h + r);
            rows[r] = d < 0 || h < 0 ? kNone : (d * g.h.filter + h) * g.w.filter;
        }
    }
    __device__ __forceinline__ bool enter(const PoolWindows& g, const PoolPlace& at, int k) {
        column = g.w.element(k, at.w);
        return column >= 0;
    }
    __device__ __forceinline__ bool is(int r, int name) const { return name == rows[r] + column; }
    __device__ __forceinline__ bool is(int r, int name, int, int t) const { return name == rows[r] + t; }
};

// V offsets in one access where there is such, else one by one as indices are.
template <int V, class Index>
struct Names {
    Index of[V];

    __device__ __forceinline__ explicit Names(const Index* from) {
        if constexpr (V * sizeof(Index) == 4 || V * sizeof(Index) == 8) {
            const Vector<Index, V> names = load_vector_read_only<V>(from);
#pragma unroll
            for (int v = 0; v < V; ++v) of[v] = names[v];
        } else {
#pragma unroll
            for (int v = 0; v < V; ++v) of[v] = from[v];
        }
    }
};

// The windows that cover any of `count` neighbouring positions, or those of them that exist.
__device__ __forceinline__ PoolSpan covering_rows(const PoolAxis& axis, int first, int count) {
    return {axis.covering(first).begin, axis.covering(min(first + count, axis.size) - 1).end};
}

template <class T, int V, int R, Indices I>
__global__ void max_pool_gradient_kernel(PoolWindows g, PoolPlaces places, const T* grad_output,
                                         const index_t<I>* indices, T* grad_input) {
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    const PoolSpan d = g.d.covering(at.d), w = g.w.covering(at.w);
    const PoolSpan h = covering_rows(g.h, at.h, R);
    Own<I, R> own(g, at);
    Elements<T, V> sums[R] = {};
    for (int i = d.begin; i < d.end; ++i)
        for (int j = h.begin; j < h.end; ++j) {
            const int64_t row = at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, i, j, 0);
            own.enter_row(g, at, i, j);
            for (int k = w.begin; k < w.end; ++k) {
                if (!own.enter(g, at, k)) continue;
                const int64_t from = row + k * g.output.w;
                const Elements<T, V> grads = load_elements<V>(grad_output + from);
                const Names<V, index_t<I>> names(indices + from);
#pragma unroll
                for (int v = 0; v < V; ++v)
#pragma unroll
                    for (int r = 0; r < R; ++r)
                        if (own.is(r, names.of[v])) sums[r].of[v] += grads.of[v];
            }
        }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (at.h + r >= g.h.size) break;
        store_elements(grad_input + at.n * g.input.n + at.c * g.input.c + pool_offset(g.input, at.d, at.h + r, at.w),
                       sums[r]);
    }
}

// V * stride neighbouring inputs of R rows (pool_rows.h).
template <class T, class W, int V, int R, Indices I>
__global__ void max_pool_rows_gradient_kernel(PoolWindows g, PoolPlaces places, const T* grad_output,
                                              const index_t<I>* indices, T* grad_input) {
    using A = accumulator_t<T>;
    using Reach = RowReach<W, V>;
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    const PoolSpan d = g.d.covering(at.d);
    const PoolSpan h = covering_rows(g.h, at.h, R);
    const int window = at.w / W::stride;
    Own<I, R> own(g, at);
    A sums[R][Reach::inputs] = {};
    for (int i = d.begin; i < d.end; ++i)
        for (int j = h.begin; j < h.end; ++j) {
            const int64_t row = at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, i, j, 0);
            own.enter_row(g, at, i, j);
            RowSegment<Reach::first, Reach::last, V, A> grads;
            RowSegment<Reach::first, Reach::last, V, int> names;
            grads.load(grad_output + row, window, g.w.out, A(0));
            names.load(indices + row, window, g.w.out, 0);
#pragma unroll
            for (int k = Reach::first; k <= Reach::last; ++k)
#pragma unroll
                for (int t = 0; t < W::filter; ++t) {
                    const int input = k * W::stride - W::padding + t;
                    if (input < 0 || input >= Reach::inputs) continue;
#pragma unroll
                    for (int r = 0; r < R; ++r)
                        if (own.is(r, names.of[k - Reach::first], input, t))
                            sums[r][input] += grads.of[k - Reach::first];
                }
        }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (at.h + r >= g.h.size) break;
        T* const to = grad_input + at.n * g.input.n + at.c * g.input.c + pool_offset(g.input, at.d, at.h + r, at.w);
#pragma unroll
        for (int v = 0; v < Reach::inputs; v += V) store_row_of<V>(to + v, sums[r] + v, g.w.size - at.w - v);
    }
}

template <class T>
class MaxPool final : public PoolPlan {
public:
    explicit MaxPool(const PoolProblem& problem) : p_(problem), windows_(pool_windows(problem)) {}

    void run(const PoolArguments& a, Stream stream) const override {
        switch (p_.indices) {
            case Indices::none: return forward<Indices::none>(a, stream);
            case Indices::int64: return run<Indices::int64>(a, stream);
            case Indices::offset: return run<Indices::offset>(a, stream);
        }
    }

private:
    static constexpr int kVector = widest_vector<T>;

    bool vectors(const PoolArguments& a) const { return pool_vectors(p_, kVector, a.input, a.output, a.indices); }

    template <Indices I>
    void run(const PoolArguments& a, Stream stream) const {
        if (p_.pass == Pass::forward)
            forward<I>(a, stream);
        else if (!rows_gradient<I>(a, stream))
            vectors(a) ? gradient<kVector, kPoolVectorRows, I>(a, stream) : gradient<1, kPoolRows, I>(a, stream);
    }

    template <Indices I>
    void forward(const PoolArguments& a, Stream stream) const {
        if (pool_wide(p_, windows_))
            wide<I>(a, stream);
        else if (!rows<I>(a, stream))
            vectors(a) ? forward<kVector, I>(a, stream) : forward<1, I>(a, stream);
    }

    // Whether these are windows that are computed by rows: then they are.
    template <Indices I>
    bool rows(const PoolArguments& a, Stream stream) const {
        if (!pool_rows(p_, kVector, sizeof(T), a.input)) return false;
        return use_row_window(windows_.w, [&](auto window) {
            using W = decltype(window);
            const PoolPlaces places(false, p_.n, p_.c, 1, p_.out, 1, kVector);
            if (places.count() == 0) return;
            launch(max_pool_rows_kernel<T, W, kVector, I>, pool_grid(places.count()), kPoolThreads, 0, stream, windows_,
                   places, static_cast<const T*>(a.input), static_cast<T*>(a.output),
                   static_cast<index_t<I>*>(a.indices));
        });
    }

    template <Indices I>
    bool rows_gradient(const PoolArguments& a, Stream stream) const {
        if (!pool_rows(p_, kVector, sizeof(T), a.input)) return false;
        return use_row_window(windows_.w, [&](auto window) {
            using W = decltype(window);
            const PoolPlaces places(false, p_.n, p_.c, 1, p_.size, kPoolVectorRows, kVector * W::stride);
            if (places.count() == 0) return;
            launch(max_pool_rows_gradient_kernel<T, W, kVector, kPoolVectorRows, I>, pool_grid(places.count()),
                   kPoolThreads, 0, stream, windows_, places, static_cast<const T*>(a.output),
                   static_cast<const index_t<I>*>(a.indices), static_cast<T*>(a.input));
        });
    }

    template <int V, Indices I>
    void forward(const PoolArguments& a, Stream stream) const {
        constexpr int rows = V == 1 ? kPoolRows : kPoolVectorRows;
        windows_.h.overlaps() ? forward<V, rows, I>(a, stream) : forward<V, 1, I>(a, stream);
    }

    template <int V, int R, Indices I>
    void forward(const PoolArguments& a, Stream stream) const {
        const PoolPlaces places(pool_pixels(p_), p_.n, p_.c, V, p_.out, R);
        if (places.count() == 0) return;
        launch(max_pool_kernel<T, V, R, I>, pool_grid(places.count()), kPoolThreads, 0, stream, windows_, places,
               static_cast<const T*>(a.input), static_cast<T*>(a.output), static_cast<index_t<I>*>(a.indices));
    }

    template <Indices I>
    void wide(const PoolArguments& a, Stream stream) const {
        const PoolPlaces places(false, p_.n, p_.c, 1, p_.out, 1);
        if (places.count() == 0) return;
        launch(max_pool_wide_kernel<T, I>, pool_grid_of_warps(places.count()), kPoolThreads, 0, stream, windows_,
               places, static_cast<const T*>(a.input), static_cast<T*>(a.output), static_cast<index_t<I>*>(a.indices));
    }

    template <int V, int R, Indices I>
    void gradient(const PoolArguments& a, Stream stream) const {
        const PoolPlaces places(pool_pixels(p_), p_.n, p_.c, V, p_.size, R);
        if (places.count() == 0) return;
        launch(max_pool_gradient_kernel<T, V, R, I>, pool_grid(places.count()), kPoolThreads, 0, stream, windows_,
               places, static_cast<const T*>(a.output), static_cast<const index_t<I>*>(a.indices),
               static_cast<T*>(a.input));
    }

    PoolProblem p_;
    PoolWindows windows_;
};

PoolPlan* plan_max_pool(const PoolProblem& problem) {
    return of_dtype(problem.dtype, [&]<class T>() -> PoolPlan* { return new MaxPool<T>(problem); });
}

}  // namespace

PYCV_KERNEL("max_pool", "direct", plan_max_pool);
PYCV_KERNEL("adaptive_max_pool", "direct", plan_max_pool);

}  // namespace pycv::cuda
