// relu: y = max(x, 0), NaN stays NaN; its gradient: grad_input = grad_output where y > 0, else 0.
//
// One thread per 16 bytes, and one per element of what is left over; where a tensor is not aligned to 16 bytes, all of
// it is left over. 8 (forward) or 12 (gradient) bytes per fp32 element and one comparison: bound by memory bandwidth.
//
// With a mask, forward also writes a bit per element, whether the gradient passes there, and the gradient reads those
// in place of y: 8.125 bytes per fp32 element either way (16.25 for both, without a mask 20), 4.125 in 16 bits (8.25,
// not 10). A thread has all of its 16 bytes, or those elements of them that there are, one by one where a tensor is not
// aligned; so 1, 2 or 4 neighbouring lanes hold a byte of the mask, exchange their bits, and one of them writes it.
#include "device/half.h"
#include "device/launch.h"
#include "device/vector.h"
#include "device/warp.h"
#include "dtypes.h"
#include "integers.h"
#include "plan.h"

namespace pycv::cuda {
namespace {

constexpr int kThreads = 256;

// Where the forward met NaN, torch lets the gradient through: so it is not y > 0.
template <class T>
__device__ bool passes(T y) {
    return !(to_accumulator(y) <= 0);
}

template <class T>
__device__ T relu(T x) {
    return to_accumulator(x) < 0 ? from_accumulator<T>(0) : x;
}

template <class T>
__device__ T gradient(bool passed, T grad_output) {
    return passed ? grad_output : from_accumulator<T>(0);
}

template <class T, bool Gradient>
__device__ T result_of(T x, T grad_output) {
    return Gradient ? gradient(passes(x), grad_output) : relu(x);
}

// `out` may be `x`. Without Gradient, grad_output is null.
template <class T, bool Gradient>
__global__ void relu_kernel(const T* x, const T* grad_output, T* out, int64_t vectors, int64_t count) {
    constexpr int N = widest_vector<T>;
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (thread < vectors) {
        const Vector<T, N> values = load_vector<N>(x + thread * N);
        const Vector<T, N> grads = Gradient ? load_vector<N>(grad_output + thread * N) : values;
        Vector<T, N> result;
#pragma unroll
        for (int i = 0; i < N; ++i) result[i] = result_of<T, Gradient>(values[i], grads[i]);
        store_vector(out + thread * N, result);
        return;
    }
    const int64_t i = vectors * N + (thread - vectors);
    if (i < count) out[i] = result_of<T, Gradient>(x[i], Gradient ? grad_output[i] : x[i]);
}

// The first `there` of N elements, in one access where that is all of them and they are aligned; zeros for the others.
template <int N, class T>
__device__ Vector<T, N> load_some(const T* from, int64_t there, bool aligned) {
    if (aligned && there >= N) return load_vector<N>(from);
    Vector<T, N> values;
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = i < there ? from[i] : from_accumulator<T>(0);
    return values;
}

template <int N, class T>
__device__ void store_some(T* to, const Vector<T, N>& values, int64_t there, bool aligned) {
    if (aligned && there >= N) return store_vector(to, values);
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (i < there) to[i] = values[i];
}

// `out` may be `x`. Every lane comes to the shuffles; behind the last element bits are 0.
template <class T>
__global__ void relu_mask_kernel(const T* x, T* out, uint8_t* mask, bool aligned, int64_t count) {
    constexpr int N = widest_vector<T>;
    const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
    Vector<T, N> values = load_some<N>(x + first, count - first, aligned);
    const int place = static_cast<int>(first % 8);  // of these elements in their byte
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        values[i] = relu(values[i]);
        bits |= static_cast<unsigned>(passes(values[i])) << (place + i);
    }
    store_some(out + first, values, count - first, aligned);
#pragma unroll
    for (int lanes = 1; lanes < 8 / N; lanes *= 2) bits |= shuffle_xor(bits, lanes);
    if (place == 0 && first < count) mask[first / 8] = static_cast<uint8_t>(bits);
}

template <class T>
__global__ void relu_grad_mask_kernel(const uint8_t* mask, const T* grad_output, T* out, bool aligned, int64_t count) {
    constexpr int N = widest_vector<T>;
    const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
    if (first >= count) return;
    const unsigned bits = mask[first / 8] >> (first % 8);
    Vector<T, N> values = load_some<N>(grad_output + first, count - first, aligned);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = gradient(bits >> i & 1, values[i]);
    store_some(out + first, values, count - first, aligned);
}

dim3 blocks_of(int64_t threads) { return dim3(static_cast<unsigned>(ceil_div<int64_t>(threads, kThreads))); }

template <class T>
class Relu final : public PointwisePlan {
public:
    explicit Relu(const PointwiseProblem& problem) : problem_(problem) {}

    void run(const PointwiseArguments& a, Stream stream) const override {
        if (problem_.count == 0) return;
        const bool forward = problem_.pass == Pass::forward;
        if (problem_.mask)
            forward ? run_masked_forward(a, stream) : run_masked_gradient(a, stream);
        else
            forward ? run<false>(a, nullptr, stream) : run<true>(a, a.grad_output, stream);
    }

private:
    static constexpr int N = widest_vector<T>;

    template <bool Gradient>
    void run(const PointwiseArguments& a, const void* grad_output, Stream stream) const {
        const int64_t vectors = all_aligned(16, a.input, grad_output, a.output) ? problem_.count / N : 0;
        launch(relu_kernel<T, Gradient>, blocks_of(vectors + (problem_.count - vectors * N)), kThreads, 0, stream,
               static_cast<const T*>(a.input), static_cast<const T*>(grad_output), static_cast<T*>(a.output), vectors,
               problem_.count);
    }

    void run_masked_forward(const PointwiseArguments& a, Stream stream) const {
        launch(relu_mask_kernel<T>, blocks_of(ceil_div<int64_t>(problem_.count, N)), kThreads, 0, stream,
               static_cast<const T*>(a.input), static_cast<T*>(a.output), static_cast<uint8_t*>(a.mask),
               all_aligned(16, a.input, a.output), problem_.count);
    }

    void run_masked_gradient(const PointwiseArguments& a, Stream stream) const {
        launch(relu_grad_mask_kernel<T>, blocks_of(ceil_div<int64_t>(problem_.count, N)), kThreads, 0, stream,
               static_cast<const uint8_t*>(a.mask), static_cast<const T*>(a.grad_output), static_cast<T*>(a.output),
               all_aligned(16, a.grad_output, a.output), problem_.count);
    }

    PointwiseProblem problem_;
};

PointwisePlan* plan_relu(const PointwiseProblem& problem) {
    return of_dtype(problem.dtype, [&]<class T>() -> PointwisePlan* { return new Relu<T>(problem); });
}

}  // namespace

PYCV_KERNEL("relu", "direct", plan_relu);

}  // namespace pycv::cuda
