// batch_norm: y = relu((x - mean) * invstd * weight + bias + residual) per channel, invstd = 1 / sqrt(variance + eps);
// residual and relu are optional.
//
// Training takes mean and (biased) variance from the batch in one read: with d = x - origin, where the origin is the
// mean of 4 values spread over the channel, the sums of d and d^2 give both without cancellation worth the name (chunks
// of a channel share the origin, so that merging them is adding). Sums are taken as norm.h says. What the mean loses
// when it is rounded goes into the shift, so that a mean far larger than the deviation costs no accuracy. With g the
// gradient of y, 0 where relu cut off (y <= 0):
//     grad_weight = invstd * sum(g * (x - mean)), grad_bias = sum(g), grad_residual = g
//     grad_input  = weight * invstd * (g - grad_bias / m - (x - mean) * invstd * grad_weight / m), m values per channel
// where evaluation, whose statistics are constants, drops the last two terms.
//
// Three launches: sums (not in evaluation), a warp per channel that turns them into what the elements need, elements.
// Bound by memory bandwidth: training reads x twice and writes y, 12 bytes per fp32 element; its gradient reads x and g
// twice and writes grad_input, 20; evaluation 8. Less where a tensor fits the L2 cache. About 10 operations each.
// Tuned: no kernel of this file may spill registers.
#include "dtypes.h"
#include "norm.h"

namespace pycv::cuda {
namespace {

constexpr int kSamples = 4;

// What the last launch does to a channel. Forward: (x - mean) * scale + shift;
// gradient: (g - shift - (x - mean) * slope) * scale. One array of a value per channel each.
enum Parameter { kMean, kScale, kShift, kSlope, kParameters };

template <class A>
struct Parameters {
    A* values;
    int64_t channels;
    __device__ __forceinline__ A* array(Parameter which) const { return values + which * channels; }
};

// Where values of a channel lie that stand for all of them, measured from its first one.
struct Samples {
    int64_t offsets[kSamples];
};

// The mean of the samples, and 0 where it is not finite; exact where all are equal.
template <class T, int V>
__device__ __forceinline__ Elements<T, V> sampled_mean(const T* channel, const Samples& samples) {
    Elements<T, V> mean = {};
#pragma unroll
    for (int i = 0; i < kSamples; ++i) {
        const Elements<T, V> values = load_elements<V>(channel + samples.offsets[i]);
#pragma unroll
        for (int v = 0; v < V; ++v) mean.of[v] += values.of[v] / kSamples;
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
        if (mean.of[v] - mean.of[v] != 0) mean.of[v] = 0;
    return mean;
}

// The sums of the forward: d and d^2.
template <class T>
struct Deviations {
    static constexpr int sums = 2;
    const T* x;
    NormStrides strides;
    Samples samples;

    template <int V>
    __device__ __forceinline__ Elements<T, V> channel(int64_t c, bool pixels) const {
        const T* first = x + c * strides.c;
        if (pixels) return sampled_mean<T, V>(first, samples);
        Elements<T, V> origin;
        const Elements<T, 1> mean = sampled_mean<T, 1>(first, samples);
#pragma unroll
        for (int v = 0; v < V; ++v) origin.of[v] = mean.of[0];
        return origin;
    }
    template <int V>
    __device__ __forceinline__ void add(const Elements<T, V>& origin, int64_t n, int64_t c, int64_t p,
                                        accumulator_t<T> (&sum)[2][V]) const {
        const Elements<T, V> values = load_elements<V>(x + strides.at(n, c, p));
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const accumulator_t<T> d = values.of[v] - origin.of[v];
            sum[0][v] += d;
            sum[1][v] += d * d;
        }
    }
};

// g, the gradient of y before relu.
template <class T>
struct OutputGradient {
    const T* grad_output;
    const T* forward_output;  // null without relu
    NormStrides strides;

    template <int V>
    __device__ __forceinline__ Elements<T, V> at(int64_t n, int64_t c, int64_t p) const {
        const int64_t from = strides.at(n, c, p);
        Elements<T, V> grads = load_elements<V>(grad_output + from);
        if (forward_output) {
            const Elements<T, V> y = load_elements<V>(forward_output + from);
            // Not y > 0: where the forward met NaN, relu lets the gradient through.
#pragma unroll
            for (int v = 0; v < V; ++v)
                if (y.of[v] <= 0) grads.of[v] = 0;
        }
        return grads;
    }
};

// The sums of the gradient: g, g * (x - mean) and x - mean.
template <class T>
struct Products {
    static constexpr int sums = 3;
    const T* x;
    const accumulator_t<T>* mean;
    NormStrides strides;
    OutputGradient<T> gradient;

    template <int V>
    __device__ __forceinline__ Elements<T, V> channel(int64_t c, bool pixels) const {
        return per_channel<T, V>(mean, c, pixels);
    }
    template <int V>
    __device__ __forceinline__ void add(const Elements<T, V>& center, int64_t n, int64_t c, int64_t p,
                                        accumulator_t<T> (&sum)[3][V]) const {
        const Elements<T, V> values = load_elements<V>(x + strides.at(n, c, p));
        const Elements<T, V> grads = gradient.template at<V>(n, c, p);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const accumulator_t<T> d = values.of[v] - center.of[v];
            sum[0][v] += grads.of[v];
            sum[1][v] += grads.of[v] * d;
            sum[2][v] += d;
        }
    }
};

// ---------------------------------------------------------------------------------------- from sums to parameters

template <class T>
struct ChannelArguments {
    using A = accumulator_t<T>;
    const A* partial;
    int64_t channels, chunks;
    double eps, momentum, share, unbiased;  // 1 / m and m / (m - 1), for m values per channel
    const T *weight, *bias;                 // these and the following may be null
    T *running_mean, *running_var;
    A *mean, *invstd;
    T *grad_weight, *grad_bias;
    Parameters<A> parameters;
};

template <class T>
__device__ __forceinline__ double number(const T* values, int64_t c, double otherwise) {
    return values ? static_cast<double>(to_accumulator(values[c])) : otherwise;
}
template <class T>
__device__ __forceinline__ void keep(T* values, int64_t c, double value) {
    if (values) values[c] = from_accumulator<T>(static_cast<accumulator_t<T>>(value));
}

template <class T>
__global__ void forward_parameters_kernel(ChannelArguments<T> a, const T* x, int64_t step, Samples samples) {
    using A = accumulator_t<T>;
    const int64_t c = channel_of_warp();
    if (c >= a.channels) return;
    double sums[2];
    channel_totals(a.partial, c, a.channels, a.chunks, sums);
    if (lane_index() > 0) return;
    const double weight = number(a.weight, c, 1), bias = number(a.bias, c, 0);
    double mean, variance;
    if (a.chunks == 0) {  // evaluation
        mean = number(a.running_mean, c, 0);
        variance = number(a.running_var, c, 1);
    } else {
        const double origin = sampled_mean<T, 1>(x + c * step, samples).of[0], beyond = sums[0] * a.share;
        mean = origin + beyond;
        variance = sums[1] * a.share - beyond * beyond;
        variance = variance < 0 ? 0 : variance;
    }
    const double invstd = 1 / sqrt(variance + a.eps), scale = invstd * weight;
    if (a.chunks > 0) {
        const double stay = 1 - a.momentum;
        keep(a.mean, c, mean);
        keep(a.invstd, c, invstd);
        keep(a.running_mean, c, stay * number(a.running_mean, c, 0) + a.momentum * mean);
        keep(a.running_var, c, stay * number(a.running_var, c, 0) + a.momentum * variance * a.unbiased);
    }
    const A rounded = static_cast<A>(mean);
    a.parameters.array(kMean)[c] = rounded;
    a.parameters.array(kScale)[c] = static_cast<A>(scale);
    a.parameters.array(kShift)[c] = static_cast<A>(bias - (mean - rounded) * scale);
}

template <class T>
__global__ void gradient_parameters_kernel(ChannelArguments<T> a) {
    using A = accumulator_t<T>;
    const int64_t c = channel_of_warp();
    if (c >= a.channels) return;
    double sums[3];
    channel_totals(a.partial, c, a.channels, a.chunks, sums);
    if (lane_index() > 0) return;
    const bool training = a.mean != nullptr;
    const double invstd = training ? number(a.invstd, c, 0) : 1 / sqrt(number(a.running_var, c, 1) + a.eps);
    const double lost = training ? sums[2] * a.share : 0;  // what the rounding of the mean took from it
    const double dot = sums[1] - lost * sums[0], slope = dot * a.share * invstd * invstd;
    keep(a.grad_weight, c, dot * invstd);
    keep(a.grad_bias, c, sums[0]);
    a.parameters.array(kScale)[c] = static_cast<A>(invstd * number(a.weight, c, 1));
    a.parameters.array(kShift)[c] = training ? static_cast<A>(sums[0] * a.share - lost * slope) : 0;
    a.parameters.array(kSlope)[c] = training ? static_cast<A>(slope) : 0;
}

// The means that evaluation subtracts, in the accumulator's type.
template <class T>
__global__ void means_kernel(const T* running_mean, int64_t channels, accumulator_t<T>* means) {
    const int64_t c = static_cast<int64_t>(blockIdx.x) * kNormThreads + threadIdx.x;
    if (c < channels) means[c] = to_accumulator(running_mean[c]);
}

// ------------------------------------------------------------------------------------------------------- elements

template <class T, int V>
__global__ void forward_kernel(ChannelTiles tiles, Parameters<accumulator_t<T>> parameters, const T* x,
                               NormStrides at_x, const T* residual, NormStrides at_residual, bool relu, T* y,
                               NormStrides at_y) {
    const int64_t c = tiles.channel();
    if (c >= tiles.channels()) return;
    const Elements<T, V> mean = per_channel<T, V>(parameters.array(kMean), c, tiles.pixels());
    const Elements<T, V> scale = per_channel<T, V>(parameters.array(kScale), c, tiles.pixels());
    const Elements<T, V> shift = per_channel<T, V>(parameters.array(kShift), c, tiles.pixels());
    tiles.for_rows([&](int64_t n, int64_t p) {
        Elements<T, V> values = load_elements<V>(x + at_x.at(n, c, p));
#pragma unroll
        for (int v = 0; v < V; ++v) values.of[v] = (values.of[v] - mean.of[v]) * scale.of[v] + shift.of[v];
        if (residual) {
            const Elements<T, V> more = load_elements<V>(residual + at_residual.at(n, c, p));
#pragma unroll
            for (int v = 0; v < V; ++v) values.of[v] += more.of[v];
        }
#pragma unroll
        for (int v = 0; v < V; ++v)
            if (relu && values.of[v] < 0) values.of[v] = 0;
        store_elements(y + at_y.at(n, c, p), values);
    });
}

template <class T, int V>
__global__ void gradient_kernel(ChannelTiles tiles, Parameters<accumulator_t<T>> parameters, bool training,
                                const accumulator_t<T>* means, const T* x, NormStrides at_x, OutputGradient<T> gradient,
                                T* grad_input, T* grad_residual, NormStrides at_residual) {
    const int64_t c = tiles.channel();
    if (c >= tiles.channels()) return;
    const Elements<T, V> mean = per_channel<T, V>(means, c, tiles.pixels());
    const Elements<T, V> scale = per_channel<T, V>(parameters.array(kScale), c, tiles.pixels());
    const Elements<T, V> shift = per_channel<T, V>(parameters.array(kShift), c, tiles.pixels());
    const Elements<T, V> slope = per_channel<T, V>(parameters.array(kSlope), c, tiles.pixels());
    tiles.for_rows([&](int64_t n, int64_t p) {
        Elements<T, V> grads = gradient.template at<V>(n, c, p);
        if (grad_residual) store_elements(grad_residual + at_residual.at(n, c, p), grads);
        if (!grad_input) return;
        if (training) {
            const Elements<T, V> values = load_elements<V>(x + at_x.at(n, c, p));
#pragma unroll
            for (int v = 0; v < V; ++v)
                grads.of[v] = grads.of[v] - shift.of[v] - (values.of[v] - mean.of[v]) * slope.of[v];
        }
#pragma unroll
        for (int v = 0; v < V; ++v) grads.of[v] *= scale.of[v];
        store_elements(grad_input + at_x.at(n, c, p), grads);
    });
}

// ----------------------------------------------------------------------------------------------------------- plan

template <class T>
class BatchNorm final : public NormPlan {
public:
    explicit BatchNorm(const NormProblem& problem)
        : p_(problem),
          x_(problem.input),
          y_(problem.output),
          residual_(problem.has_residual ? problem.residual : problem.input),
          pixels_(norm_pixels(problem, x_, y_, residual_)) {
        const int64_t plane = p_.size.count(), count = p_.n * plane;
        for (int i = 0; i < kSamples; ++i) {
            const int64_t sample = i * count / kSamples;
            samples_.offsets[i] = count > 0 ? sample / plane * x_.n + sample % plane * x_.p : 0;
        }
    }

    int64_t workspace_bytes() const override {
        return (kParameters + kMostSums * std::max(tiles<1>().chunks(), tiles<kVector>().chunks())) * p_.c * sizeof(A);
    }

    void run(const NormArguments& a, Stream stream) const override {
        if (p_.c == 0) return;
        const void* other = p_.pass == Pass::forward ? a.residual : a.grad_residual;
        const bool whole = x_.whole(pixels_, kVector) && y_.whole(pixels_, kVector) &&
                           residual_.whole(pixels_, kVector) &&
                           all_aligned(16, a.input, a.grad_output, a.output, a.forward_output, other);
        const bool vectors = (pixels_ ? p_.c : p_.size.count()) % kVector == 0 && whole;
        if (p_.pass == Pass::forward)
            vectors ? forward<kVector>(a, stream) : forward<1>(a, stream);
        else
            vectors ? gradient<kVector>(a, stream) : gradient<1>(a, stream);
    }

private:
    using A = accumulator_t<T>;
    static constexpr int kVector = widest_vector<T>, kMostSums = Products<T>::sums;

    template <int V>
    ChannelTiles tiles() const {
        return sum_tiles(p_, pixels_, V);
    }

    // Of the workspace: the parameters, then the sums of the chunks.
    Parameters<A> parameters(const NormArguments& a) const { return {static_cast<A*>(a.workspace), p_.c}; }

    ChannelArguments<T> channel_arguments(const NormArguments& a, int64_t chunks) const {
        const double count = static_cast<double>(p_.n * p_.size.count());
        ChannelArguments<T> c{};
        c.parameters = parameters(a);
        c.partial = c.parameters.values + kParameters * p_.c;
        c.channels = p_.c;
        c.chunks = chunks;
        c.eps = a.eps;
        c.momentum = a.momentum;
        c.share = 1 / count;
        c.unbiased = count / (count - 1);
        c.weight = static_cast<const T*>(a.weight);
        c.bias = static_cast<const T*>(a.bias);
        c.running_mean = static_cast<T*>(a.running_mean);
        c.running_var = static_cast<T*>(a.running_var);
        c.mean = p_.training ? static_cast<A*>(a.mean) : nullptr;
        c.invstd = static_cast<A*>(a.invstd);
        c.grad_weight = static_cast<T*>(a.grad_weight);
        c.grad_bias = static_cast<T*>(a.grad_bias);
        return c;
    }

    template <int V, class Term>
    void sum(const ChannelTiles& tiles, const Term& term, const ChannelArguments<T>& channel, Stream stream) const {
        launch(channel_sums_kernel<T, V, Term>, tiles.grid(), tiles.block(), 0, stream, tiles, term,
               const_cast<A*>(channel.partial));
    }

    template <int V>
    void forward(const NormArguments& a, Stream stream) const {
        const T* x = static_cast<const T*>(a.input);
        const ChannelTiles sums = tiles<V>(), elements = element_tiles(p_, pixels_, V);
        const ChannelArguments<T> channel = channel_arguments(a, p_.training ? sums.chunks() : 0);
        if (p_.training) sum<V>(sums, Deviations<T>{x, x_, samples_}, channel, stream);
        launch(forward_parameters_kernel<T>, totals_grid(p_.c), kNormThreads, 0, stream, channel, x, x_.c, samples_);
        launch(forward_kernel<T, V>, elements.grid(), elements.block(), 0, stream, elements, channel.parameters, x, x_,
               p_.has_residual ? static_cast<const T*>(a.residual) : nullptr, residual_, p_.relu,
               static_cast<T*>(a.output), y_);
    }

    template <int V>
    void gradient(const NormArguments& a, Stream stream) const {
        const T* x = static_cast<const T*>(a.input);
        T* grad_residual = p_.has_residual ? static_cast<T*>(a.grad_residual) : nullptr;
        const OutputGradient<T> g{static_cast<const T*>(a.grad_output),
                                  p_.relu ? static_cast<const T*>(a.forward_output) : nullptr, y_};
        const bool summed = p_.training || a.grad_weight || a.grad_bias;
        const ChannelTiles sums = tiles<V>(), elements = element_tiles(p_, pixels_, V);
        const ChannelArguments<T> channel = channel_arguments(a, summed ? sums.chunks() : 0);
        const A* means = channel.mean;
        if (!p_.training) {
            A* converted = channel.parameters.values;  // the array of kMean
            launch(means_kernel<T>, dim3(static_cast<unsigned>(ceil_div<int64_t>(p_.c, kNormThreads))), kNormThreads, 0,
                   stream, static_cast<const T*>(a.running_mean), p_.c, converted);
            means = converted;
        }
        if (summed) sum<V>(sums, Products<T>{x, means, x_, g}, channel, stream);
        launch(gradient_parameters_kernel<T>, totals_grid(p_.c), kNormThreads, 0, stream, channel);
        if (a.output || grad_residual)
            launch(gradient_kernel<T, V>, elements.grid(), elements.block(), 0, stream, elements, channel.parameters,
                   p_.training, means, x, x_, g, static_cast<T*>(a.output), grad_residual, residual_);
    }

    NormProblem p_;
    NormStrides x_, y_, residual_;
    bool pixels_;
    Samples samples_;
};

NormPlan* plan_batch_norm(const NormProblem& problem) {
    return of_dtype(problem.dtype, [&]<class T>() -> NormPlan* { return new BatchNorm<T>(problem); });
}

}  // namespace

PYCV_KERNEL("batch_norm", "direct", plan_batch_norm);

}  // namespace pycv::cuda
