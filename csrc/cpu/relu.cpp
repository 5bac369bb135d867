// relu: y = max(x, 0), NaN stays NaN; its gradient: grad_input = grad_output where y > 0, else 0.
//
// One pass over dense memory, 8 (forward) or 12 (gradient) bytes per fp32 element and one comparison:
// bound by memory bandwidth. Small tensors stay on the calling thread.
#include "parallel.h"
#include "plan.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// Below this many elements a parallel region costs more than it saves.
constexpr int64_t kGrain = 32768;

template <class T>
void relu_forward(const T* x, T* y, int64_t count) {
    int64_t i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>) store<T>(y + i, relu<T>(load<T>(x + i)));
    for (; i < count; ++i) y[i] = relu<T>(x[i]);
}

// The mask is !(y <= 0), not y > 0: where the forward met NaN, torch lets the gradient through.
template <class T>
void relu_grad_input(const T* y, const T* grad_output, T* grad_input, int64_t count) {
    int64_t i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>) {
        const Vec<T> grad = load<T>(grad_output + i);
        store<T>(grad_input + i, load<T>(y + i) <= Vec<T>{} ? Vec<T>{} : grad);
    }
    for (; i < count; ++i) grad_input[i] = y[i] <= T(0) ? T(0) : grad_output[i];
}

template <class T>
class Relu final : public PointwisePlan {
public:
    Relu(const PointwiseProblem& problem, int threads) : problem_(problem), threads_(threads) {}

    void run(const PointwiseArguments& arguments) const override {
        const int64_t grains = (problem_.count + kGrain - 1) / kGrain;
        const int threads = grains < threads_ ? static_cast<int>(grains) : threads_;
        parallel(threads, [&](int thread, int team) {
            const Range range = share(problem_.count, thread, team);
            const T* x = static_cast<const T*>(arguments.input) + range.begin;
            T* out = static_cast<T*>(arguments.output) + range.begin;
            if (problem_.pass == Pass::forward) {
                relu_forward(x, out, range.end - range.begin);
            } else {
                const T* grad = static_cast<const T*>(arguments.grad_output) + range.begin;
                relu_grad_input(x, grad, out, range.end - range.begin);
            }
        });
    }

private:
    PointwiseProblem problem_;
    int threads_;
};

PointwisePlan* plan_relu(const PointwiseProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new Relu<double>(problem, threads);
    return new Relu<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("relu", "direct", plan_relu);

}  // namespace pycv::cpu::PYCV_ISA
