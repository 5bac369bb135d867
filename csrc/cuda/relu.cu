// relu: y = max(x, 0), NaN stays NaN; its gradient: grad_input = grad_output where y > 0, else 0.
//
// One thread per 16 bytes, and one per element of what is left over; where a tensor is not aligned to 16 bytes, all of
// it is left over. 8 (forward) or 12 (gradient) bytes per fp32 element and one comparison: bound by memory bandwidth.
#include "device/half.h"
#include "device/launch.h"
#include "device/vector.h"
#include "integers.h"
#include "plan.h"

namespace pycv::cuda {
namespace {

constexpr int kThreads = 256;

// The mask of the gradient is !(y <= 0), not y > 0: where the forward met NaN, torch lets the gradient through.
template <class T, bool Gradient>
__device__ T relu(T x, T grad_output) {
    const auto value = to_accumulator(x);
    if constexpr (Gradient) return value <= 0 ? from_accumulator<T>(0) : grad_output;
    return value < 0 ? from_accumulator<T>(0) : x;
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
        for (int i = 0; i < N; ++i) result[i] = relu<T, Gradient>(values[i], grads[i]);
        store_vector(out + thread * N, result);
        return;
    }
    const int64_t i = vectors * N + (thread - vectors);
    if (i < count) out[i] = relu<T, Gradient>(x[i], Gradient ? grad_output[i] : x[i]);
}

template <class T>
class Relu final : public PointwisePlan {
public:
    explicit Relu(const PointwiseProblem& problem) : problem_(problem) {}

    void run(const PointwiseArguments& a, Stream stream) const override {
        if (problem_.count == 0) return;
        if (problem_.pass == Pass::forward)
            run<false>(a, nullptr, stream);
        else
            run<true>(a, a.grad_output, stream);
    }

private:
    template <bool Gradient>
    void run(const PointwiseArguments& a, const void* grad_output, Stream stream) const {
        constexpr int N = widest_vector<T>;
        const int64_t vectors = all_aligned(16, a.input, grad_output, a.output) ? problem_.count / N : 0;
        const int64_t threads = vectors + (problem_.count - vectors * N);
        launch(relu_kernel<T, Gradient>, dim3(static_cast<unsigned>(ceil_div<int64_t>(threads, kThreads))), kThreads, 0,
               stream, static_cast<const T*>(a.input), static_cast<const T*>(grad_output), static_cast<T*>(a.output),
               vectors, problem_.count);
    }

    PointwiseProblem problem_;
};

PointwisePlan* plan_relu(const PointwiseProblem& problem) {
    switch (problem.dtype) {
        case DType::f32: return new Relu<float>(problem);
        case DType::f64: return new Relu<double>(problem);
        case DType::f16: return new Relu<half>(problem);
        case DType::bf16: return new Relu<bfloat16>(problem);
    }
    return nullptr;
}

}  // namespace

PYCV_KERNEL("relu", "direct", plan_relu);

}  // namespace pycv::cuda
