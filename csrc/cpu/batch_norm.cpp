// batch_norm: y = (x - mean) * invstd * weight + bias per channel, invstd = 1 / sqrt(variance + eps).
//
// Training takes mean and (biased) variance from the batch: each chunk of a channel gets its own mean and sum of
// squared deviations while it is in cache, and Chan's formula combines the chunks in double, so that a mean far
// larger than the deviation costs no accuracy. Memory is read once for the statistics and once to normalise. The
// gradient reads x and grad_output twice:
//     grad_weight = invstd * sum(g * (x - mean)), grad_bias = sum(g)
//     grad_input  = weight * invstd * (g - grad_bias / m - (x - mean) * invstd * grad_weight / m), m values per channel
// where evaluation, whose statistics are constants, drops the last two terms. Channels are shared out to the threads
// (norm.h): deterministic, and the same for every number of threads.
#include <cmath>

#include "norm.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <int W>
struct Moments {
    double count = 0, mean[W] = {}, squares[W] = {};  // squares: summed squared deviations from the mean

    template <class T>
    void add(double n, const T* chunk_mean, const T* chunk_squares) {
        const double total = count + n;
        for (int i = 0; i < W; ++i) {
            const double delta = chunk_mean[i] - mean[i];
            mean[i] += delta * (n / total);
            squares[i] += chunk_squares[i] + delta * delta * (count * n / total);
        }
        count = total;
    }
};

template <class T>
class BatchNorm final : public NormPlan {
public:
    BatchNorm(const NormProblem& p, int threads)
        : p_(p),
          walk_(walk(p.n, p.size, p.input, p.output)),
          threads_(worthwhile_threads(p.n * p.c * p.size.count(), threads)),
          items_(channel_items(p.c, p.input.c == 1 && p.output.c == 1, lanes<T>, threads_)) {}

    int64_t workspace_bytes() const override { return 0; }

    void run(const NormArguments& a) const override {
        for_channel_items(items_, threads_, [&](int64_t channel, auto vectors) {
            constexpr int V = vectors();
            if (p_.pass == Pass::grad_input) {
                gradient<V>(a, channel);
            } else {
                forward<V>(a, channel);
            }
        });
    }

private:
    // Element i of an optional per-channel array.
    static T at(const void* values, int64_t i, T otherwise) {
        return values ? static_cast<const T*>(values)[i] : otherwise;
    }
    static void put(void* values, int64_t i, double value) {
        if (values) static_cast<T*>(values)[i] = static_cast<T>(value);
    }

    template <int V>
    void forward(const NormArguments& a, int64_t channel) const {
        constexpr int W = width<T, V>;
        const T* x = static_cast<const T*>(a.input) + channel * p_.input.c;
        T* y = static_cast<T*>(a.output) + channel * p_.output.c;
        T mean[W], scale[W], shift[W];
        if (p_.training) {
            training_statistics<V>(a, channel, x, mean, scale);
        } else {
            for (int i = 0; i < W; ++i) {
                mean[i] = at(a.running_mean, channel + i, T(0));
                scale[i] = static_cast<T>(1 / std::sqrt(at(a.running_var, channel + i, T(1)) + a.eps));
            }
        }
        for (int i = 0; i < W; ++i) {
            scale[i] *= at(a.weight, channel + i, T(1));
            shift[i] = at(a.bias, channel + i, T(0));
        }
        normalise<V>(x, y, mean, scale, shift);
    }

    template <int V>
    void training_statistics(const NormArguments& a, int64_t channel, const T* x, T* mean, T* invstd) const {
        constexpr int W = width<T, V>;
        const Moments<W> moments = collect<V>(x);
        const double m = moments.count;
        for (int i = 0; i < W; ++i) {
            mean[i] = static_cast<T>(moments.mean[i]);
            invstd[i] = static_cast<T>(1 / std::sqrt(moments.squares[i] / m + a.eps));
            put(a.mean, channel + i, mean[i]);
            put(a.invstd, channel + i, invstd[i]);
            const double keep = 1 - a.momentum;
            put(a.running_mean, channel + i,
                keep * at(a.running_mean, channel + i, T(0)) + a.momentum * moments.mean[i]);
            put(a.running_var, channel + i,
                keep * at(a.running_var, channel + i, T(0)) + a.momentum * moments.squares[i] / (m - 1));
        }
    }

    template <int V>
    Moments<width<T, V>> collect(const T* x) const {
        Moments<width<T, V>> moments;
        const int64_t step = walk_.axes[0].x;
        for_chunks(walk_, chunk_limit<V>, [&](int64_t offset, int64_t, int64_t count) {
            T mean[width<T, V>], squares[width<T, V>];
            if constexpr (V == 0) {
                T buffer[kChunk];
                const T* values = dense(x + offset, step, count, buffer);
                const T m = sum_terms<T>(count, [&]<class Lane>(int64_t i) { return get<Lane>(values + i); }) / count;
                mean[0] = m;
                squares[0] = sum_terms<T>(count, [&]<class Lane>(int64_t i) {
                    const Lane d = get<Lane>(values + i) - m;
                    return d * d;
                });
            } else {
                const T* values = x + offset;
                sum_positions<T, V>(count, mean,
                                    [&](int64_t p, int v) { return load<T>(values + p * step + v * lanes<T>); });
                Vec<T> m[V];
                for (int v = 0; v < V; ++v) {
                    m[v] = load<T>(mean + v * lanes<T>) / static_cast<T>(count);
                    store<T>(mean + v * lanes<T>, m[v]);
                }
                sum_positions<T, V>(count, squares, [&](int64_t p, int v) {
                    const Vec<T> d = load<T>(values + p * step + v * lanes<T>) - m[v];
                    return d * d;
                });
            }
            moments.add(static_cast<double>(count), mean, squares);
        });
        return moments;
    }

    template <int V>
    void normalise(const T* x, T* y, const T* mean, const T* scale, const T* shift) const {
        const int64_t x_step = walk_.axes[0].x, y_step = walk_.axes[0].y;
        for_chunks(walk_, chunk_limit<V>, [&](int64_t x_offset, int64_t y_offset, int64_t count) {
            const T* from = x + x_offset;
            T* to = y + y_offset;
            if constexpr (V == 0) {
                const T m = mean[0], s = scale[0], b = shift[0];
                if (x_step == 1 && y_step == 1) {
                    int64_t i = 0;
                    for (; i + lanes<T> <= count; i += lanes<T>) store<T>(to + i, (load<T>(from + i) - m) * s + b);
                    for (; i < count; ++i) to[i] = (from[i] - m) * s + b;
                } else {
                    for (int64_t i = 0; i < count; ++i) to[i * y_step] = (from[i * x_step] - m) * s + b;
                }
            } else {
                Vec<T> m[V], s[V], b[V];
                for (int v = 0; v < V; ++v) {
                    m[v] = load<T>(mean + v * lanes<T>);
                    s[v] = load<T>(scale + v * lanes<T>);
                    b[v] = load<T>(shift + v * lanes<T>);
                }
                for (int64_t p = 0; p < count; ++p)
                    for (int v = 0; v < V; ++v)
                        store<T>(to + p * y_step + v * lanes<T>,
                                 (load<T>(from + p * x_step + v * lanes<T>) - m[v]) * s[v] + b[v]);
            }
        });
    }

    template <int V>
    void gradient(const NormArguments& a, int64_t channel) const {
        constexpr int W = width<T, V>;
        const T* x = static_cast<const T*>(a.input) + channel * p_.input.c;
        const T* g = static_cast<const T*>(a.grad_output) + channel * p_.output.c;
        T mean[W], invstd[W];
        for (int i = 0; i < W; ++i) {
            if (p_.training) {
                mean[i] = static_cast<const T*>(a.mean)[channel + i];
                invstd[i] = static_cast<const T*>(a.invstd)[channel + i];
            } else {
                mean[i] = at(a.running_mean, channel + i, T(0));
                invstd[i] = static_cast<T>(1 / std::sqrt(at(a.running_var, channel + i, T(1)) + a.eps));
            }
        }
        double sum[W] = {}, dot[W] = {};  // of g, of g * (x - mean)
        if (p_.training || a.grad_weight || a.grad_bias) gradient_sums<V>(x, g, mean, sum, dot);
        for (int i = 0; i < W; ++i) {
            put(a.grad_weight, channel + i, dot[i] * invstd[i]);
            put(a.grad_bias, channel + i, sum[i]);
        }
        if (!a.output) return;
        T scale[W], constant[W], slope[W];  // grad_input = scale * (g - constant - (x - mean) * slope)
        const double m = static_cast<double>(walk_.positions());
        for (int i = 0; i < W; ++i) {
            scale[i] = invstd[i] * at(a.weight, channel + i, T(1));
            constant[i] = static_cast<T>(sum[i] / m);
            slope[i] = static_cast<T>(dot[i] / m * invstd[i] * invstd[i]);
        }
        T* grad_input = static_cast<T*>(a.output) + channel * p_.input.c;
        if (p_.training) {
            spread<V, true>(x, g, grad_input, mean, scale, constant, slope);
        } else {
            spread<V, false>(x, g, grad_input, mean, scale, constant, slope);
        }
    }

    template <int V>
    void gradient_sums(const T* x, const T* g, const T* mean, double* sum, double* dot) const {
        constexpr int W = width<T, V>;
        const int64_t x_step = walk_.axes[0].x, g_step = walk_.axes[0].y;
        for_chunks(walk_, chunk_limit<V>, [&](int64_t x_offset, int64_t g_offset, int64_t count) {
            T part[W], part_dot[W];
            if constexpr (V == 0) {
                T x_buffer[kChunk], g_buffer[kChunk];
                const T* values = dense(x + x_offset, x_step, count, x_buffer);
                const T* grad = dense(g + g_offset, g_step, count, g_buffer);
                const T m = mean[0];
                part[0] = sum_terms<T>(count, [&]<class Lane>(int64_t i) { return get<Lane>(grad + i); });
                part_dot[0] = sum_terms<T>(
                    count, [&]<class Lane>(int64_t i) { return get<Lane>(grad + i) * (get<Lane>(values + i) - m); });
            } else {
                const T* values = x + x_offset;
                const T* grad = g + g_offset;
                Vec<T> m[V];
                for (int v = 0; v < V; ++v) m[v] = load<T>(mean + v * lanes<T>);
                sum_positions<T, V>(count, part,
                                    [&](int64_t p, int v) { return load<T>(grad + p * g_step + v * lanes<T>); });
                sum_positions<T, V>(count, part_dot, [&](int64_t p, int v) {
                    return load<T>(grad + p * g_step + v * lanes<T>) *
                           (load<T>(values + p * x_step + v * lanes<T>) - m[v]);
                });
            }
            for (int i = 0; i < W; ++i) {
                sum[i] += part[i];
                dot[i] += part_dot[i];
            }
        });
    }

    // Training: scale * (g - constant - (x - mean) * slope); otherwise scale * g, and x is not read.
    template <int V, bool Training>
    void spread(const T* x, const T* g, T* out, const T* mean, const T* scale, const T* constant,
                const T* slope) const {
        const int64_t x_step = walk_.axes[0].x, g_step = walk_.axes[0].y;
        for_chunks(walk_, chunk_limit<V>, [&](int64_t x_offset, int64_t g_offset, int64_t count) {
            const T* values = x + x_offset;
            const T* grad = g + g_offset;
            T* to = out + x_offset;
            if constexpr (V == 0) {
                const T m = mean[0], s = scale[0], k = constant[0], r = slope[0];
                const auto term = [&]<class Lane>(int64_t i, int64_t j) -> Lane {
                    if constexpr (Training) return (get<Lane>(grad + j) - k - (get<Lane>(values + i) - m) * r) * s;
                    return get<Lane>(grad + j) * s;
                };
                int64_t i = 0;
                if (x_step == 1 && g_step == 1)
                    for (; i + lanes<T> <= count; i += lanes<T>)
                        store<T>(to + i, term.template operator()<Vec<T>>(i, i));
                for (; i < count; ++i) to[i * x_step] = term.template operator()<T>(i * x_step, i * g_step);
            } else {
                Vec<T> m[V], s[V], k[V], r[V];
                for (int v = 0; v < V; ++v) {
                    m[v] = load<T>(mean + v * lanes<T>);
                    s[v] = load<T>(scale + v * lanes<T>);
                    k[v] = load<T>(constant + v * lanes<T>);
                    r[v] = load<T>(slope + v * lanes<T>);
                }
                for (int64_t p = 0; p < count; ++p)
                    for (int v = 0; v < V; ++v) {
                        Vec<T> value = load<T>(grad + p * g_step + v * lanes<T>);
                        if constexpr (Training)
                            value = value - k[v] - (load<T>(values + p * x_step + v * lanes<T>) - m[v]) * r[v];
                        store<T>(to + p * x_step + v * lanes<T>, value * s[v]);
                    }
            }
        });
    }

    NormProblem p_;
    Walk walk_;
    int threads_;
    ChannelItems items_;
};

NormPlan* plan_batch_norm(const NormProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new BatchNorm<double>(problem, threads);
    return new BatchNorm<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("batch_norm", "direct", plan_batch_norm);

}  // namespace pycv::cpu::PYCV_ISA
