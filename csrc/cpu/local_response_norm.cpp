// local_response_norm: y[c] = x[c] * s[c]^-beta, s[c] = k + alpha / size * sum of x[j]^2 over the `size` channels
// c - size/2 <= j <= c + (size-1)/2 that exist. Its gradient:
//     grad_input[c] = g[c] * s[c]^-beta - 2 alpha beta / size * x[c] * sum over the j whose sums contain c of
//                     g[j] * x[j] * s[j]^(-beta-1)
//
// A block of positions with all its channels is copied to the workspace as consecutive rows (one row per channel,
// zero rows around them), where the sums over channels are sums of shifted rows whatever the tensor's layout. The
// sums are recomputed for each channel: `size` additions, and no cancellation. s^-beta costs most; the usual
// beta = 0.75 takes two square roots.
#include "parallel.h"
#include "plan.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

constexpr int64_t kBlock = 16;       // positions per block
constexpr int64_t kLrnGrain = 4096;  // elements that are worth another thread

inline float square_root(float s) { return __builtin_sqrtf(s); }
inline double square_root(double s) { return __builtin_sqrt(s); }
inline float power(float s, double exponent) { return __builtin_powf(s, static_cast<float>(exponent)); }
inline double power(double s, double exponent) { return __builtin_pow(s, exponent); }

// s^-beta for each of `count` values, in place.
template <class T>
void negative_power(T* s, int64_t count, double beta) {
    if (beta == 0.75) {
        for (int64_t i = 0; i < count; ++i) {
            const T root = square_root(s[i]);
            s[i] = T(1) / (root * square_root(root));
        }
    } else {
        for (int64_t i = 0; i < count; ++i) s[i] = power(s[i], -beta);
    }
}

template <class T>
class LocalResponseNorm final : public NormPlan {
public:
    LocalResponseNorm(const NormProblem& p, int threads) : p_(p), block_(p.input.c == 1 && p.c > 1 ? 1 : kBlock) {
        blocks_ = (p.size.w + block_ - 1) / block_;
        items_ = p.n * p.size.d * p.size.h * blocks_;
        const int64_t grains = p.n * p.c * p.size.count() / kLrnGrain + 1;
        threads_ = static_cast<int>(grains < threads ? grains : threads);
        if (items_ < threads_) threads_ = static_cast<int>(items_ < 1 ? 1 : items_);
        row_count_ = (p.c + p.window - 1) * block_;
        plane_count_ = p.c * block_;
    }

    int64_t workspace_bytes() const override { return threads_ * scratch_count() * static_cast<int64_t>(sizeof(T)); }

    void run(const NormArguments& a) const override {
        parallel(threads_, [&](int thread, int team) {
            T* scratch = static_cast<T*>(a.workspace) + thread * scratch_count();
            const Range range = share(items_, thread, team);
            for (int64_t item = range.begin; item < range.end; ++item) {
                const int64_t w = item % blocks_ * block_, row = item / blocks_;
                const int64_t h = row % p_.size.h, d = row / p_.size.h % p_.size.d, n = row / p_.size.h / p_.size.d;
                const int64_t in = n * p_.input.n + d * p_.input.d + h * p_.input.h + w * p_.input.w;
                const int64_t out = n * p_.output.n + d * p_.output.d + h * p_.output.h + w * p_.output.w;
                const int64_t width = p_.size.w - w < block_ ? p_.size.w - w : block_;
                if (p_.pass == Pass::forward) {
                    forward(a, in, out, width, scratch);
                } else {
                    gradient(a, in, out, width, scratch);
                }
            }
        });
    }

private:
    // Per thread: the padded rows, and three arrays of c rows.
    int64_t scratch_count() const { return row_count_ + 3 * plane_count_; }

    void forward(const NormArguments& a, int64_t in, int64_t out, int64_t width, T* scratch) const {
        T* x = scratch + row_count_;
        T* s = x + plane_count_;
        gather(static_cast<const T*>(a.input) + in, p_.input, width, x);
        scales(a, x, width, scratch, s);
        negative_power(s, p_.c * width, a.beta);
        for (int64_t i = 0; i < p_.c * width; ++i) s[i] *= x[i];
        put(s, p_.output, width, static_cast<T*>(a.output) + out);
    }

    void gradient(const NormArguments& a, int64_t in, int64_t out, int64_t width, T* scratch) const {
        T* x = scratch + row_count_;
        T* s = x + plane_count_;
        T* g = s + plane_count_;
        const int64_t count = p_.c * width;
        gather(static_cast<const T*>(a.input) + in, p_.input, width, x);
        gather(static_cast<const T*>(a.grad_output) + out, p_.output, width, g);
        scales(a, x, width, scratch, s);
        // The sum of channel j reaches c where j lies in c - (size-1)/2 ... c + size/2: the mirrored window.
        T* ratio = clear_borders(scratch, (p_.window - 1) / 2, width);
        for (int64_t i = 0; i < count; ++i) ratio[i] = g[i] * x[i] / s[i];
        negative_power(s, count, a.beta);
        for (int64_t i = 0; i < count; ++i) {
            ratio[i] *= s[i];
            g[i] *= s[i];
        }
        if (a.beta != 0) {  // else s is no part of it, even where it is 0
            const T factor = static_cast<T>(-2 * a.alpha * a.beta / p_.window);
            window_sums(scratch, width, s);
            for (int64_t i = 0; i < count; ++i) g[i] += factor * x[i] * s[i];
        }
        put(g, p_.input, width, static_cast<T*>(a.output) + in);
    }

    // s = k + alpha / size * window sums of x^2; uses the padded rows.
    void scales(const NormArguments& a, const T* x, int64_t width, T* rows, T* s) const {
        T* squares = clear_borders(rows, p_.window / 2, width);
        for (int64_t i = 0; i < p_.c * width; ++i) squares[i] = x[i] * x[i];
        window_sums(rows, width, s);
        const T factor = static_cast<T>(a.alpha / p_.window), k = static_cast<T>(a.k);
        for (int64_t i = 0; i < p_.c * width; ++i) s[i] = k + factor * s[i];
    }

    // Zeroes `before` rows in front of the c rows and the rest behind them; returns the first of the c rows.
    T* clear_borders(T* rows, int64_t before, int64_t width) const {
        for (int64_t i = 0; i < before * width; ++i) rows[i] = T(0);
        T* first = rows + before * width;
        for (int64_t i = p_.c * width; i < (p_.c + p_.window - 1 - before) * width; ++i) first[i] = T(0);
        return first;
    }

    void window_sums(const T* rows, int64_t width, T* sums) const {
        for (int64_t i = 0; i < p_.c * width; ++i) sums[i] = rows[i];
        for (int64_t j = 1; j < p_.window; ++j)
            for (int64_t i = 0; i < p_.c * width; ++i) sums[i] += rows[i + j * width];
    }

    void gather(const T* from, const Strides& s, int64_t width, T* to) const {
        if (width == 1) {
            for (int64_t c = 0; c < p_.c; ++c) to[c] = from[c * s.c];
            return;
        }
        for (int64_t c = 0; c < p_.c; ++c)
            for (int64_t w = 0; w < width; ++w) to[c * width + w] = from[c * s.c + w * s.w];
    }

    void put(const T* from, const Strides& s, int64_t width, T* to) const {
        if (width == 1) {
            for (int64_t c = 0; c < p_.c; ++c) to[c * s.c] = from[c];
            return;
        }
        for (int64_t c = 0; c < p_.c; ++c)
            for (int64_t w = 0; w < width; ++w) to[c * s.c + w * s.w] = from[c * width + w];
    }

    NormProblem p_;
    int64_t block_, blocks_, items_, row_count_, plane_count_;
    int threads_;
};

NormPlan* plan_local_response_norm(const NormProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new LocalResponseNorm<double>(problem, threads);
    return new LocalResponseNorm<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("local_response_norm", "direct", plan_local_response_norm);

}  // namespace pycv::cpu::PYCV_ISA
