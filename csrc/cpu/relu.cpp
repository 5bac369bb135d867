// relu: y = max(x, 0), NaN stays NaN; its gradient: grad_input = grad_output where y > 0, else 0.
//
// One pass over dense memory, 8 (forward) or 12 (gradient) bytes per fp32 element and one comparison:
// bound by memory bandwidth. Small tensors stay on the calling thread. What would fill a quarter of a usual last cache
// is written past it (unless in place): that saves reading its lines first, 4 bytes more per element.
#include "cost.h"
#include "parallel.h"
#include "plan.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// Below this many elements a parallel region costs more than it saves.
constexpr int64_t kGrain = 32768;

template <class Lane, class T>
inline Lane get(const T* p) {
    Lane lane;
    std::memcpy(&lane, p, sizeof lane);
    return lane;
}

// out[i] = term<Lane>(i), where Lane is Vec<T> (lanes i, i + 1, ...) or T.
template <class T, class Term>
void write(T* out, int64_t count, bool past_caches, const Term& term) {
    int64_t i = 0;
    if (past_caches) {
        for (; i < count && reinterpret_cast<uintptr_t>(out + i) % sizeof(Vec<T>) != 0; ++i)
            out[i] = term.template operator()<T>(i);
        for (; i + lanes<T> <= count; i += lanes<T>) store_streaming<T>(out + i, term.template operator()<Vec<T>>(i));
    }
    for (; i + lanes<T> <= count; i += lanes<T>) store<T>(out + i, term.template operator()<Vec<T>>(i));
    for (; i < count; ++i) out[i] = term.template operator()<T>(i);
}

template <class T>
class Relu final : public PointwisePlan {
public:
    Relu(const PointwiseProblem& problem, int threads) : problem_(problem), threads_(threads) {}

    void run(const PointwiseArguments& arguments) const override {
        const int64_t grains = (problem_.count + kGrain - 1) / kGrain;
        const int threads = grains < threads_ ? static_cast<int>(grains) : threads_;
        const bool past_caches = static_cast<double>(problem_.count) * sizeof(T) > kStreamedBytes &&
                                 arguments.output != arguments.input && arguments.output != arguments.grad_output;
        parallel(threads, [&](int thread, int team) {
            const Range range = share(problem_.count, thread, team);
            const int64_t count = range.end - range.begin;
            const T* x = static_cast<const T*>(arguments.input) + range.begin;
            T* out = static_cast<T*>(arguments.output) + range.begin;
            if (problem_.pass == Pass::forward) {
                write(out, count, past_caches, [=]<class Lane>(int64_t i) { return relu<T>(get<Lane>(x + i)); });
                return;
            }
            const T* grad = static_cast<const T*>(arguments.grad_output) + range.begin;
            // The mask is !(y <= 0), not y > 0: where the forward met NaN, torch lets the gradient through.
            write(out, count, past_caches, [=]<class Lane>(int64_t i) {
                const Lane value = get<Lane>(grad + i);
                return get<Lane>(x + i) <= Lane{} ? Lane{} : value;
            });
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
