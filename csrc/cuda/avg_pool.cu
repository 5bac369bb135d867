// avg_pool and adaptive_avg_pool: the sum of each window over its divisor.
//
// The divisor is the window's extent clipped to the padded input (count_include_pad), clipped to the input itself
// (otherwise, and adaptive), or a given number. Sums are taken row by row of the window, in fp32 for types of 16 bits.
// The gradient gathers grad_output / divisor of the windows that cover an element, in order: no atomics.
//
// Bound by memory bandwidth: each input and each output element moves once (fp32, 2x2 at stride 2: 5 bytes per input
// element, one addition). Rows that windows share are summed along the width once.
// Tuned: no kernel of this file may spill registers.
#include "dtypes.h"
#include "pool_rows.h"

namespace pycv::cuda {
namespace {

template <class T, int V>
struct Sum {
    Elements<T, V> total;

    static __device__ __forceinline__ accumulator_t<T> outside() { return 0; }
    __device__ __forceinline__ void start() { total = {}; }
    __device__ __forceinline__ void add(const Elements<T, V>& values, int) {
#pragma unroll
        for (int v = 0; v < V; ++v) total.of[v] += values.of[v];
    }
    __device__ __forceinline__ void merge(const Sum& next) { add(next.total, 0); }
    __device__ __forceinline__ void join(int lane_bits) {
#pragma unroll
        for (int v = 0; v < V; ++v) total.of[v] += shuffle_xor(total.of[v], lane_bits);
    }
};

// What a sum is divided by: a number where one is given or all windows count alike, else the positions that count
// along each axis.
struct PoolDivisor {
    int64_t given;  // 0: none
    bool with_padding;

    PoolDivisor(const PoolProblem& p, const PoolWindows& g) : given(p.divisor), with_padding(p.count_include_pad) {
        const auto alike = [this](const PoolAxis& axis) { return axis.counts_alike(with_padding); };
        if (given == 0 && alike(g.d) && alike(g.h) && alike(g.w)) given = int64_t{g.d.filter} * g.h.filter * g.w.filter;
    }

    template <class A>
    __device__ __forceinline__ A along(const PoolAxis& axis, int o) const {
        return given ? A(1) : static_cast<A>(axis.counted(o, with_padding));
    }
    // A given number in place of the last factor.
    template <class A>
    __device__ __forceinline__ A whole() const {
        return given ? static_cast<A>(given) : A(1);
    }
};

template <class T, int V, int R>
__global__ void avg_pool_kernel(PoolWindows g, PoolPlaces places, PoolDivisor divisor, const T* x, T* y) {
    using A = accumulator_t<T>;
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    Sum<T, V> sums[R];
#pragma unroll
    for (int r = 0; r < R; ++r) sums[r].start();
    fold_windows<V>(g, x + at.n * g.input.n + at.c * g.input.c, at, PoolNames{}, sums);
    const A across = divisor.whole<A>() * divisor.along<A>(g.d, at.d) * divisor.along<A>(g.w, at.w);
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (at.h + r >= g.h.out) break;
        const A count = across * divisor.along<A>(g.h, at.h + r);
#pragma unroll
        for (int v = 0; v < V; ++v) sums[r].total.of[v] /= count;
        store_elements(y + at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, at.d, at.h + r, at.w),
                       sums[r].total);
    }
}

// V neighbouring outputs (pool_rows.h).
template <class T, class W, int V>
__global__ void avg_pool_rows_kernel(PoolWindows g, PoolPlaces places, PoolDivisor divisor, const T* x, T* y) {
    using A = accumulator_t<T>;
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    Sum<T, V> sums[1];
    sums[0].start();
    fold_row_windows<W, V>(g, x + at.n * g.input.n + at.c * g.input.c, at, PoolNames{}, sums);
    const A across = divisor.whole<A>() * divisor.along<A>(g.d, at.d) * divisor.along<A>(g.h, at.h);
#pragma unroll
    for (int v = 0; v < V; ++v) sums[0].total.of[v] /= across * divisor.along<A>(g.w, at.w + v);
    store_row_of<V>(y + at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, at.d, at.h, at.w),
                    sums[0].total.of, g.w.out - at.w);
}

// A warp for every output.
template <class T>
__global__ void avg_pool_wide_kernel(PoolWindows g, PoolPlaces places, PoolDivisor divisor, const T* x, T* y) {
    using A = accumulator_t<T>;
    const int64_t item = pool_item_of_warp();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    Sum<T, 1> sum;
    sum.start();
    fold_wide_window(g, x + at.n * g.input.n + at.c * g.input.c, at, PoolNames{}, sum);
    if (lane_index() > 0) return;
    sum.total.of[0] /=
        divisor.whole<A>() * divisor.along<A>(g.d, at.d) * divisor.along<A>(g.h, at.h) * divisor.along<A>(g.w, at.w);
    store_elements(y + at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, at.d, at.h, at.w), sum.total);
}

template <class T, int V, int R>
__global__ void avg_pool_gradient_kernel(PoolWindows g, PoolPlaces places, PoolDivisor divisor, const T* grad_output,
                                         T* grad_input) {
    using A = accumulator_t<T>;
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    const PoolSpan d = g.d.covering(at.d), w = g.w.covering(at.w);
    PoolSpan h[R];
#pragma unroll
    for (int r = 0; r < R; ++r) h[r] = g.h.covering(min(at.h + r, g.h.size - 1));
    Elements<T, V> sums[R] = {};
    for (int i = d.begin; i < d.end; ++i)
        for (int j = h[0].begin; j < h[R - 1].end; ++j) {
            const T* row = grad_output + at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, i, j, 0);
            Elements<T, V> across = {};
            for (int k = w.begin; k < w.end; ++k) {
                const Elements<T, V> grads = load_elements<V>(row + k * g.output.w);
                const A share = divisor.given ? A(1) : 1 / divisor.along<A>(g.w, k);
#pragma unroll
                for (int v = 0; v < V; ++v) across.of[v] += grads.of[v] * share;
            }
            const A count = divisor.along<A>(g.d, i) * divisor.along<A>(g.h, j);
            const A share = 1 / (divisor.whole<A>() * count);
#pragma unroll
            for (int v = 0; v < V; ++v) across.of[v] *= share;
#pragma unroll
            for (int r = 0; r < R; ++r) {
                if (j < h[r].begin || j >= h[r].end) continue;
#pragma unroll
                for (int v = 0; v < V; ++v) sums[r].of[v] += across.of[v];
            }
        }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        if (at.h + r >= g.h.size) break;
        store_elements(grad_input + at.n * g.input.n + at.c * g.input.c + pool_offset(g.input, at.d, at.h + r, at.w),
                       sums[r]);
    }
}

// V * stride neighbouring inputs of one row (pool_rows.h): up to 184 registers, the counts of its windows among them.
template <class T, class W, int V>
__global__ void avg_pool_rows_gradient_kernel(PoolWindows g, PoolPlaces places, PoolDivisor divisor,
                                              const T* grad_output, T* grad_input) {
    using A = accumulator_t<T>;
    using Reach = RowReach<W, V>;
    const int64_t item = pool_item();
    if (item >= places.count()) return;
    const PoolPlace at = places.at(item);
    const PoolSpan d = g.d.covering(at.d), h = g.h.covering(at.h);
    const int window = at.w / W::stride;
    A sums[Reach::inputs] = {};
    for (int i = d.begin; i < d.end; ++i)
        for (int j = h.begin; j < h.end; ++j) {
            const T* row = grad_output + at.n * g.output.n + at.c * g.output.c + pool_offset(g.output, i, j, 0);
            RowSegment<Reach::first, Reach::last, V, A> grads;
            grads.load(row, window, g.w.out, A(0));
            const A count = divisor.along<A>(g.d, i) * divisor.along<A>(g.h, j);
            const A share = 1 / (divisor.whole<A>() * count);
#pragma unroll
            for (int k = Reach::first; k <= Reach::last; ++k) {
                A grad = grads.of[k - Reach::first] * share;
                const bool inside = window + k >= 0 && window + k < g.w.out;
                if (!divisor.given && inside) grad /= divisor.along<A>(g.w, window + k);
#pragma unroll
                for (int t = 0; t < W::filter; ++t) {
                    const int input = k * W::stride - W::padding + t;
                    if (input >= 0 && input < Reach::inputs) sums[input] += grad;
                }
            }
        }
    T* const to = grad_input + at.n * g.input.n + at.c * g.input.c + pool_offset(g.input, at.d, at.h, at.w);
#pragma unroll
    for (int v = 0; v < Reach::inputs; v += V) store_row_of<V>(to + v, sums + v, g.w.size - at.w - v);
}

template <class T>
class AvgPool final : public PoolPlan {
public:
    explicit AvgPool(const PoolProblem& problem)
        : p_(problem), windows_(pool_windows(problem)), divisor_(problem, windows_) {}

    void run(const PoolArguments& a, Stream stream) const override {
        constexpr int N = widest_vector<T>;
        const bool vectors = pool_vectors(p_, N, a.input, a.output);
        if (p_.pass == Pass::forward && pool_wide(p_, windows_))
            wide(a, stream);
        else if (rows(a, stream))
            return;
        else if (p_.pass == Pass::grad_input)
            vectors ? gradient<N, kPoolVectorRows>(a, stream) : gradient<1, kPoolRows>(a, stream);
        else
            vectors ? forward<N>(a, stream) : forward<1>(a, stream);
    }

private:
    void wide(const PoolArguments& a, Stream stream) const {
        const PoolPlaces places(false, p_.n, p_.c, 1, p_.out, 1);
        if (places.count() == 0) return;
        launch(avg_pool_wide_kernel<T>, pool_grid_of_warps(places.count()), kPoolThreads, 0, stream, windows_, places,
               divisor_, static_cast<const T*>(a.input), static_cast<T*>(a.output));
    }

    // Whether these are windows that are computed by rows: then they are.
    bool rows(const PoolArguments& a, Stream stream) const {
        if (!pool_rows(p_, widest_vector<T>, sizeof(T), a.input)) return false;
        return use_row_window(windows_.w, [&](auto window) {
            using W = decltype(window);
            p_.pass == Pass::forward ? rows_forward<W>(a, stream) : rows_gradient<W>(a, stream);
        });
    }

    template <class W>
    void rows_forward(const PoolArguments& a, Stream stream) const {
        constexpr int V = widest_vector<T>;
        const PoolPlaces places(false, p_.n, p_.c, 1, p_.out, 1, V);
        if (places.count() == 0) return;
        launch(avg_pool_rows_kernel<T, W, V>, pool_grid(places.count()), kPoolThreads, 0, stream, windows_, places,
               divisor_, static_cast<const T*>(a.input), static_cast<T*>(a.output));
    }

    template <class W>
    void rows_gradient(const PoolArguments& a, Stream stream) const {
        constexpr int V = widest_vector<T>;
        const PoolPlaces places(false, p_.n, p_.c, 1, p_.size, 1, V * W::stride);
        if (places.count() == 0) return;
        launch(avg_pool_rows_gradient_kernel<T, W, V>, pool_grid(places.count()), kPoolThreads, 0, stream, windows_,
               places, divisor_, static_cast<const T*>(a.output), static_cast<T*>(a.input));
    }

    template <int V>
    void forward(const PoolArguments& a, Stream stream) const {
        constexpr int rows = V == 1 ? kPoolRows : kPoolVectorRows;
        windows_.h.overlaps() ? forward<V, rows>(a, stream) : forward<V, 1>(a, stream);
    }

    template <int V, int R>
    void forward(const PoolArguments& a, Stream stream) const {
        const PoolPlaces places(pool_pixels(p_), p_.n, p_.c, V, p_.out, R);
        if (places.count() == 0) return;
        launch(avg_pool_kernel<T, V, R>, pool_grid(places.count()), kPoolThreads, 0, stream, windows_, places, divisor_,
               static_cast<const T*>(a.input), static_cast<T*>(a.output));
    }

    template <int V, int R>
    void gradient(const PoolArguments& a, Stream stream) const {
        const PoolPlaces places(pool_pixels(p_), p_.n, p_.c, V, p_.size, R);
        if (places.count() == 0) return;
        launch(avg_pool_gradient_kernel<T, V, R>, pool_grid(places.count()), kPoolThreads, 0, stream, windows_, places,
               divisor_, static_cast<const T*>(a.output), static_cast<T*>(a.input));
    }

    PoolProblem p_;
    PoolWindows windows_;
    PoolDivisor divisor_;
};

PoolPlan* plan_avg_pool(const PoolProblem& problem) {
    return of_dtype(problem.dtype, [&]<class T>() -> PoolPlan* { return new AvgPool<T>(problem); });
}

}  // namespace

PYCV_KERNEL("avg_pool", "direct", plan_avg_pool);
PYCV_KERNEL("adaptive_avg_pool", "direct", plan_avg_pool);

}  // namespace pycv::cuda
