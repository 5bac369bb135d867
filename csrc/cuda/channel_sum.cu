// channel_sum: out[c] = sum over n and space of x[n, c, ...]: the gradient of a per-channel bias.
//
// One read of x (4 bytes and one addition per fp32 element), bound by memory bandwidth. Two launches (norm.h), no
// atomics: the same sum every time.
// Tuned: no kernel of this file may spill registers.
#include "dtypes.h"
#include "norm.h"

namespace pycv::cuda {
namespace {

template <class T>
struct Value {
    static constexpr int sums = 1;
    const T* x;
    NormStrides strides;

    struct Nothing {};
    template <int V>
    __device__ __forceinline__ Nothing channel(int64_t, bool) const {
        return {};
    }
    template <int V>
    __device__ __forceinline__ void add(Nothing, int64_t n, int64_t c, int64_t p, accumulator_t<T> (&sum)[1][V]) const {
        const Elements<T, V> values = load_elements<V>(x + strides.at(n, c, p));
#pragma unroll
        for (int v = 0; v < V; ++v) sum[0][v] += values.of[v];
    }
};

template <class T>
__global__ void channel_totals_kernel(const accumulator_t<T>* partial, int64_t channels, int64_t chunks, T* out) {
    const int64_t c = channel_of_warp();
    if (c >= channels) return;
    double total[1];
    channel_totals(partial, c, channels, chunks, total);
    if (lane_index() == 0) out[c] = from_accumulator<T>(static_cast<accumulator_t<T>>(total[0]));
}

template <class T>
class ChannelSum final : public NormPlan {
public:
    explicit ChannelSum(const NormProblem& problem)
        : p_(problem), strides_(problem.input), pixels_(norm_pixels(problem, strides_)) {}

    int64_t workspace_bytes() const override {
        return p_.c * std::max(tiles<1>().chunks(), tiles<kVector>().chunks()) * sizeof(accumulator_t<T>);
    }

    void run(const NormArguments& a, Stream stream) const override {
        if (p_.c == 0) return;
        const bool vectors = (pixels_ ? p_.c : p_.size.count()) % kVector == 0 && strides_.whole(pixels_, kVector) &&
                             all_aligned(16, a.input);
        vectors ? run<kVector>(a, stream) : run<1>(a, stream);
    }

private:
    static constexpr int kVector = widest_vector<T>;

    template <int V>
    ChannelTiles tiles() const {
        return sum_tiles(p_, pixels_, V);
    }

    template <int V>
    void run(const NormArguments& a, Stream stream) const {
        using A = accumulator_t<T>;
        const ChannelTiles t = tiles<V>();
        A* partial = static_cast<A*>(a.workspace);
        launch(channel_sums_kernel<T, V, Value<T>>, t.grid(), t.block(), 0, stream, t,
               Value<T>{static_cast<const T*>(a.input), strides_}, partial);
        launch(channel_totals_kernel<T>, totals_grid(p_.c), kNormThreads, 0, stream, partial, p_.c, t.chunks(),
               static_cast<T*>(a.output));
    }

    NormProblem p_;
    NormStrides strides_;
    bool pixels_;
};

NormPlan* plan_channel_sum(const NormProblem& problem) {
    return of_dtype(problem.dtype, [&]<class T>() -> NormPlan* { return new ChannelSum<T>(problem); });
}

}  // namespace

PYCV_KERNEL("channel_sum", "direct", plan_channel_sum);

}  // namespace pycv::cuda
