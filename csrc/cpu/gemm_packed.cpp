#include "parallel.h"
#include "plan.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <class T>
class NaiveGemm final : public GemmPlan {
public:
    NaiveGemm(const GemmProblem& problem, int threads) : p_(problem), threads_(threads) {}
    int64_t workspace_bytes() const override { return 0; }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}

    void run(const GemmArguments& g) const override {
        parallel_for(threads_, p_.batch * p_.m, [&](int64_t row) {
            const int64_t batch = row / p_.m, i = row % p_.m;
            const T* a = static_cast<const T*>(g.a) + batch * p_.a.batch + i * p_.a.row;
            const T* b = static_cast<const T*>(g.b) + batch * p_.b.batch;
            T* out = static_cast<T*>(g.out) + batch * p_.out.batch + i * p_.out.row;
            for (int64_t j = 0; j < p_.n; ++j) {
                T sum = 0;
                for (int64_t k = 0; k < p_.k; ++k) sum += a[k * p_.a.column] * b[k * p_.b.row + j * p_.b.column];
                sum *= static_cast<T>(g.alpha);
                if (p_.has_residual && g.beta != 0) {
                    const T* residual = static_cast<const T*>(g.residual) + batch * p_.residual.batch + i * p_.residual.row;
                    sum += static_cast<T>(g.beta) * residual[j * p_.residual.column];
                }
                if (p_.bias) sum += static_cast<const T*>(g.bias)[j];
                out[j * p_.out.column] = p_.relu ? relu<T>(sum) : sum;
            }
        });
    }

private:
    GemmProblem p_;
    int threads_;
};

GemmPlan* plan_packed(const GemmProblem& problem, int threads, int64_t) {
    if (problem.dtype == DType::f64) return new NaiveGemm<double>(problem, threads);
    return new NaiveGemm<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("gemm", "packed", plan_packed);

}  // namespace pycv::cpu::PYCV_ISA
