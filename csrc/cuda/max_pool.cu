// max_pool and adaptive_max_pool: the largest element of each window, and where it was.
//
// Of equal elements the first in the window's order wins; NaN beats everything, and the last NaN beats the others; a
// window of nothing but -inf gives its first element. An index is an offset in the d*h*w plane of its channel.
// The gradient gathers: a thread goes through the windows that cover its elements, in order, and adds the grad_output
// of those whose index names one of them. No atomics, the same sum every time.
//
// Bound by memory bandwidth. Forward reads each input element and writes each output element once, plus 8 bytes of
// index where asked: for 3x3 windows at stride 2 in fp32 5 bytes per input element, 7 with indices; one comparison per
// window element. The gradient moves the same bytes the other way; neighbours share what they read through L1, the
// rows of one thread through registers.
// Tuned: no kernel of this file may spill registers.
#include "pool.h"

namespace pycv::cuda {
namespace {

template <class T, int V, bool Indices>
struct Largest {
    using Value = accumulator_t<T>;
    Value best[V];
    int where[Indices ? V : 1];

    __device__ __forceinline__ void start(int first = 0) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            best[v] = -static_cast<Value>(INFINITY);
            if constexpr (Indices) where[v] = first;
        }
        if constexpr (!Indices) where[0] = 0;
    }
    __device__ __forceinline__ void take(int v, Value value, int position) {
        if (!(value > best[v] || value != value)) return;
        best[v] = value;
        if constexpr (Indices) where[v] = position;
    }
    __device__ __forceinline__ void add(const Elements<T, V>& values, int position) {
#pragma unroll
        for (int v = 0; v < V; ++v) take(v, values.of[v], position);
    }
    __device__ __forceinline__ void merge(const Largest& next) {
#pragma unroll
        for (int v = 0; v < V; ++v) take(v, next.best[v], Indices ? next.where[v] : 0);
    }
    // The lanes of a warp have their elements in turn: positions decide what comes first.
    __device__ __forceinline__ void join(int lane_bits) {
        static_assert(V == 1);
        const Value value = shuffle_xor(best[0], lane_bits);
        const int position = shuffle_xor(where[0], lane_bits);
        const bool missing = value != value, own_missing = best[0] != best[0];
        const bool better = missing ? !own_missing || position > where[0]
                                    : value > best[0] || (value == best[0] && position < where[0]);
        if (!better) return;
        best[0] = value;
        where[0] = position;
    }
    __device__ __forceinline__ void store(T* y) const {
        Elements<T, V> values;
#pragma unroll
        for (int v = 0; v < V; ++v) values.of[v] = best[v];
        store_elements(y, values);
    }
    __device__ __forceinline__ void store_indices(int64_t* to) const {
        if constexpr (V == 1) {
            *to = where[0];
        } else {
#pragma unroll
            for (int v = 0; v < V; v += 2) store_vector(to + v, Vector<int64_t, 2>{where[v], where[v + 1]});
        }
    }
};

template <class T, int V, int R, bool Indices>
__global__ void max_pool_kernel(PoolWindows g, PoolPlaces places, const T* x, T* y, int64_t* indices) {
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    const int first_d = g.d.window(at.d).begin, first_w = g.w.window(at.w).begin;
    Largest<T, V, Indices> folds[R];
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const int first_h = g.h.window(min(at.h + r, g.h.out - 1)).begin;
        folds[r].start((first_d * g.h.size + first_h) * g.w.size + first_w);
    }
    fold_windows<V>(g, x + at.n * g.input.n + at.c * g.input.c, at, folds);
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (at.h + r >= g.h.out) break;
        const int64_t to = at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, at.d, at.h + r, at.w);
        folds[r].store(y + to);
        if constexpr (Indices) folds[r].store_indices(indices + to);
    }
}

// A warp for every output.
template <class T, bool Indices>
__global__ void max_pool_wide_kernel(PoolWindows g, PoolPlaces places, const T* x, T* y, int64_t* indices) {
    const int64_t item = pool_item_of_warp();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    const int first_row = g.d.window(at.d).begin * g.h.size + g.h.window(at.h).begin;
    Largest<T, 1, Indices> fold;
    fold.start(first_row * g.w.size + g.w.window(at.w).begin);
    fold_wide_window(g, x + at.n * g.input.n + at.c * g.input.c, at, fold);
    if (lane_index() > 0) return;
    const int64_t to = at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, at.d, at.h, at.w);
    fold.store(y + to);
    if constexpr (Indices) fold.store_indices(indices + to);
}

template <class T, int V, int R>
__global__ void max_pool_gradient_kernel(PoolWindows g, PoolPlaces places, const T* grad_output, const int64_t* indices,
                                         T* grad_input) {
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    const PoolSpan d = g.d.covering(at.d), w = g.w.covering(at.w);
    const int last_row = min(at.h + R, g.h.size) - 1;
    const PoolSpan h{g.h.covering(at.h).begin, g.h.covering(last_row).end};
    const int own = (at.d * g.h.size + at.h) * g.w.size + at.w;
    Elements<T, V> sums[R] = {};
    for (int i = d.begin; i < d.end; ++i)
        for (int j = h.begin; j < h.end; ++j) {
            const int64_t row = at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, i, j, 0);
            for (int k = w.begin; k < w.end; ++k) {
                const int64_t from = row + k * g.output.w;
                const Elements<T, V> grads = load_elements<V>(grad_output + from);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const int64_t distance = indices[from + v] - own;
#pragma unroll
                    for (int r = 0; r < R; ++r)
                        if (distance == r * g.w.size) sums[r].of[v] += grads.of[v];
                }
            }
        }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (at.h + r >= g.h.size) break;
        store_elements(grad_input + at.n * g.input.n + at.c * g.input.c + pool_offset(g.input, at.d, at.h + r, at.w),
                       sums[r]);
    }
}

template <class T>
class MaxPool final : public PoolPlan {
public:
    explicit MaxPool(const PoolProblem& problem) : p_(problem), windows_(pool_windows(problem)) {}

    void run(const PoolArguments& a, Stream stream) const override {
        constexpr int N = widest_vector<T>;
        const bool vectors = pool_vectors(p_, N, a.input, a.output, a.indices);
        if (p_.pass == Pass::grad_input)
            vectors ? gradient<N, kPoolVectorRows>(a, stream) : gradient<1, kPoolRows>(a, stream);
        else if (pool_wide(p_, windows_))
            p_.indices ? wide<true>(a, stream) : wide<false>(a, stream);
        else if (p_.indices)
            vectors ? forward<N, true>(a, stream) : forward<1, true>(a, stream);
        else
            vectors ? forward<N, false>(a, stream) : forward<1, false>(a, stream);
    }

private:
    template <int V, bool Indices>
    void forward(const PoolArguments& a, Stream stream) const {
        constexpr int rows = V == 1 ? kPoolRows : kPoolVectorRows;
        windows_.h.overlaps() ? forward<V, rows, Indices>(a, stream) : forward<V, 1, Indices>(a, stream);
    }

    template <int V, int R, bool Indices>
    void forward(const PoolArguments& a, Stream stream) const {
        const PoolPlaces places(pool_pixels(p_), p_.n, p_.c, V, p_.out, R);
        if (places.count() == 0) return;
        launch(max_pool_kernel<T, V, R, Indices>, pool_grid(places.count()), kPoolThreads, 0, stream, windows_, places,
               static_cast<const T*>(a.input), static_cast<T*>(a.output), a.indices);
    }

    template <bool Indices>
    void wide(const PoolArguments& a, Stream stream) const {
        const PoolPlaces places(false, p_.n, p_.c, 1, p_.out, 1);
        if (places.count() == 0) return;
        launch(max_pool_wide_kernel<T, Indices>, pool_grid_of_warps(places.count()), kPoolThreads, 0, stream, windows_,
               places, static_cast<const T*>(a.input), static_cast<T*>(a.output), a.indices);
    }

    template <int V, int R>
    void gradient(const PoolArguments& a, Stream stream) const {
        const PoolPlaces places(pool_pixels(p_), p_.n, p_.c, V, p_.size, R);
        if (places.count() == 0) return;
        launch(max_pool_gradient_kernel<T, V, R>, pool_grid(places.count()), kPoolThreads, 0, stream, windows_, places,
               static_cast<const T*>(a.output), a.indices, static_cast<T*>(a.input));
    }

    PoolProblem p_;
    PoolWindows windows_;
};

PoolPlan* plan_max_pool(const PoolProblem& problem) {
    switch (problem.dtype) {
        case DType::f32: return new MaxPool<float>(problem);
        case DType::f64: return new MaxPool<double>(problem);
        case DType::f16: return new MaxPool<half>(problem);
        case DType::bf16: return new MaxPool<bfloat16>(problem);
    }
    return nullptr;
}

}  // namespace

PYCV_KERNEL("max_pool", "direct", plan_max_pool);
PYCV_KERNEL("adaptive_max_pool", "direct", plan_max_pool);

}  // namespace pycv::cuda
