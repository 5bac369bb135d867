// batch_norm: y = relu((x - mean) * invstd * weight + bias + residual) per channel, invstd = 1 / sqrt(variance + eps);
// residual and relu are optional.
//
// Training takes mean and (biased) variance from the batch in one read: with d = x - origin, where the origin is the
// mean of 8 values spread over the channel, the sums of d and d^2 give both without cancellation worth the name. Sums
// are taken in the dtype over at most 128 terms and added up in double. What the mean loses when it is rounded to the
// dtype goes into the shift, so that a mean far larger than the deviation costs no accuracy. With g the gradient of y,
// 0 where relu cut off (y <= 0):
//     grad_weight = invstd * sum(g * (x - mean)), grad_bias = sum(g), grad_residual = g
//     grad_input  = weight * invstd * (g - grad_bias / m - (x - mean) * invstd * grad_weight / m), m values per channel
// where evaluation, whose statistics are constants, drops the last two terms.
//
// Bytes, in passes over a tensor: training reads x, then reads x and writes y; its gradient reads x and g, then reads
// both and writes grad_input: 8 in all. Planar tensors (nchw) are worked off channel by channel, so that the second
// reads find in cache what fits there (n * h * w values): 5 remain. Interleaved ones (nhwc, blocked) are cut into
// blocks of positions that each thread goes through once in either direction: it finds the last megabyte or so of its
// own. A tensor that would fill a quarter of a usual last cache is written past it: that saves reading its lines first.
// Both are deterministic, and the same for every number of threads: how an interleaved tensor is cut depends on its
// shape alone, and the sums of the blocks are added in order.
#include <cmath>

#include "channel_tiles.h"
#include "cost.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

constexpr int64_t kGrain = 32768;   // elements that are worth another thread
constexpr int64_t kTileRows = 128;  // terms of a sum in the dtype
constexpr int64_t kTileElements = 8192;
constexpr int64_t kApplied = 16384;  // elements of a planar tile in the second pass
constexpr int kItems = 16;           // work items of an interleaved tensor
constexpr int64_t kItemRows = 64;    // positions that are worth another item
constexpr int kSamples = 8;

// Sums per channel. Forward: of d and d^2; gradient: of g, g * (x - mean) and x - mean.
constexpr int kForwardSums = 2, kGradientSums = 3;

struct Sums {
    double of[kGradientSums] = {};
};

// What the second pass does to a channel. Forward: (x - mean) * scale + shift;
// gradient: (g - shift - (x - mean) * slope) * scale.
enum Parameter { kMean, kScale, kShift, kSlope, kParameters };

template <class T>
struct Channel {
    T of[kParameters];
};

template <class T>
class BatchNorm final : public NormPlan {
public:
    BatchNorm(const NormProblem& p, int threads)
        : p_(p),
          third_(p.has_residual ? p.residual : p.input),
          positions_(positions(p.n, p.size, p.input, p.output, third_)),
          how_{p.input.block > 1 ? p.input.block : 0, {p.input.c, p.output.c, third_.c}},
          interleaved_(how_.block > 0 || (p.c > 1 && p.input.c == 1 && p.output.c == 1 && third_.c == 1)),
          channels_(how_.block > 0 ? round_up(p.c, how_.block) : p.c),
          sums_(p.pass == Pass::forward ? kForwardSums : kGradientSums) {
        const double m = static_cast<double>(positions_.count());
        share_ = 1 / m;
        unbiased_ = m / (m - 1);
        streams_ = static_cast<double>(p.n * p.c * p.size.count()) * sizeof(T) > kStreamedBytes;
        const int64_t count = positions_.count(), elements = channels_ * count;
        threads_ = static_cast<int>(smaller(threads, elements / kGrain + 1));
        blocks_ = static_cast<int>(larger(1, smaller(kItems, smaller(count / kItemRows, elements / kTileElements))));
        unit_ = how_.block > 0 ? how_.block : 4 * lanes<T>;
        panels_ = static_cast<int>(larger(1, smaller(kItems / blocks_, channels_ / unit_)));
        const int64_t panel = divide_up(divide_up(channels_, unit_), panels_) * unit_;
        tile_rows_ = larger(kTileRows / 4, smaller(kTileRows, kTileElements / larger(panel, 1)));
        for (int i = 0; i < kSamples; ++i) samples_[i] = count > 0 ? positions_.at(i * count / kSamples).x : 0;
    }

    int64_t workspace_bytes() const override {
        if (!interleaved_) return 0;
        const int64_t totals = blocks_ * sums_ * channels_ * static_cast<int64_t>(sizeof(double));
        return totals + (kParameters + blocks_) * channels_ * static_cast<int64_t>(sizeof(T));
    }

    void run(const NormArguments& a) const override {
        if (p_.pass == Pass::forward) {
            p_.relu ? go<Forward<true>>(a) : go<Forward<false>>(a);
        } else if (p_.training) {
            p_.relu ? go<Gradient<true, true>>(a) : go<Gradient<true, false>>(a);
        } else {
            p_.relu ? go<Gradient<false, true>>(a) : go<Gradient<false, false>>(a);
        }
    }

private:
    // ------------------------------------------------------------------------- the two passes over the elements
    //
    // A pass object knows the tensors from a channel on. collect() adds a part to the sums, apply() does the second
    // pass.

    template <bool Relu>
    struct Forward {
        static constexpr int sums = kForwardSums;
        const T* x;
        T* y;
        const T* residual;
        bool stream;

        Forward(const NormArguments& a, Offsets o, bool stream)
            : x(static_cast<const T*>(a.input) + o.x),
              y(static_cast<T*>(a.output) + o.y),
              residual(a.residual ? static_cast<const T*>(a.residual) + o.z : nullptr),
              stream(stream) {}

        // `origin`: one value per channel.
        template <class G>
        void collect(G group, const Part& part, const T* origin, double* totals, int64_t stride) const {
            const Row<G> zero(origin, part.parameter);
            add_rows<sums, T>(group, part, totals, stride, [&](const Part& from, int64_t row, int v, const auto& add) {
                const auto d = at<G>(x, from.at.x, from.step.x, row, v) - zero.of[v];
                add(0, d);
                add(1, d * d);
            });
        }

        template <class G>
        void apply(G group, const Part& part, const T* parameters, int64_t stride) const {
            const bool past = stream && streamable<G>(part, y + part.at.y, part.step.y);
            if (residual) {
                past ? rows<true, true>(group, part, parameters, stride)
                     : rows<true, false>(group, part, parameters, stride);
            } else {
                past ? rows<false, true>(group, part, parameters, stride)
                     : rows<false, false>(group, part, parameters, stride);
            }
        }

        template <bool Residual, bool Stream, class G>
        void rows(G, const Part& part, const T* parameters, int64_t stride) const {
            using Lane = typename G::Lane;
            const Row<G> mean(parameters + kMean * stride, part.parameter);
            const Row<G> scale(parameters + kScale * stride, part.parameter);
            const Row<G> shift(parameters + kShift * stride, part.parameter);
            each_row<G>(part, [&](const Part& to, int64_t row, int v) {
                Lane value = at<G>(x, to.at.x, to.step.x, row, v);
                value = (value - mean.of[v]) * scale.of[v] + shift.of[v];
                if constexpr (Residual) value += at<G>(residual, to.at.z, to.step.z, row, v);
                if constexpr (Relu) value = value < Lane{} ? Lane{} : value;
                set<G, Stream>(y, to.at.y, to.step.y, row, v, value);
            });
        }
    };

    template <bool Training, bool Relu>
    struct Gradient {
        static constexpr int sums = kGradientSums;
        const T *x, *g, *y;  // y: the forward's output, whose sign is relu's mask
        T *grad_input, *grad_residual;
        bool stream;

        Gradient(const NormArguments& a, Offsets o, bool stream)
            : x(static_cast<const T*>(a.input) + o.x),
              g(static_cast<const T*>(a.grad_output) + o.y),
              y(Relu ? static_cast<const T*>(a.forward_output) + o.y : nullptr),
              grad_input(a.output ? static_cast<T*>(a.output) + o.x : nullptr),
              grad_residual(a.grad_residual ? static_cast<T*>(a.grad_residual) + o.z : nullptr),
              stream(stream) {}

        template <class G>
        typename G::Lane gradient(const Part& part, int64_t row, int v) const {
            using Lane = typename G::Lane;
            const Lane value = at<G>(g, part.at.y, part.step.y, row, v);
            if constexpr (!Relu) return value;
            // Not y > 0: where the forward met NaN, relu lets the gradient through.
            return at<G>(y, part.at.y, part.step.y, row, v) <= Lane{} ? Lane{} : value;
        }

        // `origin`: the means.
        template <class G>
        void collect(G group, const Part& part, const T* origin, double* totals, int64_t stride) const {
            const Row<G> mean(origin, part.parameter);
            add_rows<sums, T>(group, part, totals, stride, [&](const Part& from, int64_t row, int v, const auto& add) {
                const auto d = at<G>(x, from.at.x, from.step.x, row, v) - mean.of[v];
                const auto value = gradient<G>(from, row, v);
                add(0, value);
                add(1, value * d);
                add(2, d);
            });
        }

        template <class G>
        void apply(G group, const Part& part, const T* parameters, int64_t stride) const {
            if (grad_residual) {
                rows<true, false>(group, part, parameters, stride);
            } else if (grad_input && stream && streamable<G>(part, grad_input + part.at.x, part.step.x)) {
                rows<false, true>(group, part, parameters, stride);
            } else if (grad_input) {
                rows<false, false>(group, part, parameters, stride);
            }
        }

        template <bool Residual, bool Stream, class G>
        void rows(G, const Part& part, const T* parameters, int64_t stride) const {
            const Row<G> mean(parameters + kMean * stride, part.parameter);
            const Row<G> scale(parameters + kScale * stride, part.parameter);
            const Row<G> shift(parameters + kShift * stride, part.parameter);
            const Row<G> slope(parameters + kSlope * stride, part.parameter);
            each_row<G>(part, [&](const Part& to, int64_t row, int v) {
                typename G::Lane value = gradient<G>(to, row, v);
                if constexpr (Residual) {
                    set<G>(grad_residual, to.at.z, to.step.z, row, v, value);
                    if (!grad_input) return;
                }
                if constexpr (Training) {
                    const auto d = at<G>(x, to.at.x, to.step.x, row, v) - mean.of[v];
                    value = value - shift.of[v] - d * slope.of[v];
                }
                set<G, Stream>(grad_input, to.at.x, to.step.x, row, v, value * scale.of[v]);
            });
        }
    };

    // A per-channel number for each vector of a group.
    template <class G>
    struct Row {
        typename G::Lane of[G::vectors];
        Row(const T* values, int64_t first) {
            for (int v = 0; v < G::vectors; ++v) of[v] = get<typename G::Lane>(values + first + v * G::lane);
        }
    };
    template <class G>
    static typename G::Lane at(const T* tensor, int64_t offset, int64_t step, int64_t row, int v) {
        return get<typename G::Lane>(tensor + offset + row * step + v * G::lane);
    }
    template <class G, bool Stream = false>
    static void set(T* tensor, int64_t offset, int64_t step, int64_t row, int v, typename G::Lane value) {
        if constexpr (Stream && G::lane == lanes<T>) {
            store_streaming<T>(tensor + offset + row * step + v * G::lane, value);
        } else {
            put(tensor + offset + row * step + v * G::lane, value);
        }
    }
    // Whether every vector of the part is aligned.
    template <class G>
    static bool streamable(const Part& part, const T* first, int64_t step) {
        return G::lane == lanes<T> && part.rest == 0 && step % lanes<T> == 0 &&
               reinterpret_cast<uintptr_t>(first) % sizeof(Vec<T>) == 0;
    }

    // -------------------------------------------------------------------------------------- from sums to parameters

    static T number(const void* values, int64_t i, T otherwise) {
        return values ? static_cast<const T*>(values)[i] : otherwise;
    }
    static void keep(void* values, int64_t i, double value) {
        if (values) static_cast<T*>(values)[i] = static_cast<T>(value);
    }

    bool needs_sums(const NormArguments& a) const { return p_.training || a.grad_weight || a.grad_bias; }
    Direction second_direction(const NormArguments& a) const {
        return needs_sums(a) ? Direction::backwards : Direction::forwards;
    }

    // The sums of channel c, and what its values were measured from in them.
    Channel<T> parameters(const NormArguments& a, int64_t c, T origin, const Sums& sums) const {
        if (p_.pass == Pass::grad_input) return gradient_parameters(a, c, origin, sums);
        const double weight = number(a.weight, c, T(1)), bias = number(a.bias, c, T(0));
        if (!p_.training) {
            const double invstd = 1 / std::sqrt(number(a.running_var, c, T(1)) + a.eps);
            const T mean = number(a.running_mean, c, T(0));
            return {{mean, static_cast<T>(invstd * weight), static_cast<T>(bias)}};
        }
        const double beyond = sums.of[0] * share_, mean = origin + beyond;
        double variance = sums.of[1] * share_ - beyond * beyond;
        variance = variance < 0 ? 0 : variance;
        const double invstd = 1 / std::sqrt(variance + a.eps), stay = 1 - a.momentum;
        const T rounded = static_cast<T>(mean);
        keep(a.mean, c, mean);
        keep(a.invstd, c, invstd);
        keep(a.running_mean, c, stay * number(a.running_mean, c, T(0)) + a.momentum * mean);
        keep(a.running_var, c, stay * number(a.running_var, c, T(0)) + a.momentum * variance * unbiased_);
        const double scale = invstd * weight;
        return {{rounded, static_cast<T>(scale), static_cast<T>(bias - (mean - rounded) * scale)}};
    }

    Channel<T> gradient_parameters(const NormArguments& a, int64_t c, T mean, const Sums& sums) const {
        const double weight = number(a.weight, c, T(1));
        if (!p_.training) {
            const double invstd = 1 / std::sqrt(number(a.running_var, c, T(1)) + a.eps);
            keep(a.grad_weight, c, sums.of[1] * invstd);
            keep(a.grad_bias, c, sums.of[0]);
            return {{mean, static_cast<T>(invstd * weight)}};
        }
        const double invstd = number(a.invstd, c, T(0));
        const double lost = sums.of[2] * share_;  // what the rounding of the mean took from it
        const double dot = sums.of[1] - lost * sums.of[0], slope = dot * share_ * invstd * invstd;
        keep(a.grad_weight, c, dot * invstd);
        keep(a.grad_bias, c, sums.of[0]);
        return {{mean, static_cast<T>(invstd * weight), static_cast<T>(sums.of[0] * share_ - lost * slope),
                 static_cast<T>(slope)}};
    }

    // What a channel's values are measured from in its sums: about its mean in forward, its mean in the gradient.
    T origin(const NormArguments& a, const T* x, int64_t c) const {
        if (p_.pass == Pass::grad_input) return number(p_.training ? a.mean : a.running_mean, c, T(0));
        return p_.training ? sampled_mean<T>(x) : T(0);
    }

    // The mean of the samples, and 0 where it is not finite; exact where all are equal.
    template <class Lane>
    Lane sampled_mean(const T* x) const {
        Lane sample[kSamples];
        for (int i = 0; i < kSamples; ++i) sample[i] = get<Lane>(x + samples_[i]) * T(1.0 / kSamples);
        for (int half = kSamples / 2; half >= 1; half /= 2)
            for (int i = 0; i < half; ++i) sample[i] += sample[i + half];
        return sample[0] - sample[0] == Lane{} ? sample[0] : Lane{};
    }

    // --------------------------------------------------------------------------------------- planar: by channels

    template <class Pass>
    void go(const NormArguments& a) const {
        if (interleaved_) return go_interleaved<Pass>(a);
        parallel_for(threads_, p_.c, [&](int64_t c) { planar_channel(Pass(a, how_.step * c, streams_), a, c); });
    }

    template <class Pass>
    void planar_channel(const Pass& pass, const NormArguments& a, int64_t c) const {
        constexpr int64_t L = lanes<T>;
        T origins[L];
        double totals[Pass::sums * L] = {};
        spread(origins, origin(a, pass.x, c));
        if (needs_sums(a))
            planar_pass(kTileRows * L, Direction::forwards,
                        [&](auto group, const Part& part) { pass.collect(group, part, origins, totals, L); });
        Sums sums;
        for (int s = 0; s < Pass::sums; ++s) sums.of[s] = fold<T>(totals + s * L);
        const Channel<T> channel = parameters(a, c, origins[0], sums);
        T values[kParameters * L];
        for (int i = 0; i < kParameters; ++i) spread(values + i * L, channel.of[i]);
        planar_pass(kApplied, second_direction(a),
                    [&](auto group, const Part& part) { pass.apply(group, part, values, L); });
    }

    template <class Body>
    void planar_pass(int64_t limit, Direction direction, const Body& body) const {
        for_tiles(positions_, {0, positions_.count()}, limit, direction,
                  [&](Offsets at, int64_t rows) { planar_parts<T>(positions_, at, rows, body); });
    }

    static void spread(T* values, T value) { store<T>(values, broadcast<T>(value)); }

    // ------------------------------------------------------------------ interleaved: by blocks of positions and panels

    struct Item {
        int block;
        Range positions, channels;
    };
    Item item(int64_t i) const {
        const int block = static_cast<int>(i) / panels_, panel = static_cast<int>(i) % panels_;
        const Range units = share(divide_up(channels_, unit_), panel, panels_);
        return {block,
                share(positions_.count(), block, blocks_),
                {smaller(units.begin * unit_, channels_), smaller(units.end * unit_, channels_)}};
    }

    template <class Pass>
    void go_interleaved(const NormArguments& a) const {
        const Pass pass(a, {0, 0, 0}, streams_);
        double* totals = static_cast<double*>(a.workspace);                      // [block][sum][channel]
        T* values = reinterpret_cast<T*>(totals + blocks_ * sums_ * channels_);  // [parameter][channel]
        T* origins = values + kParameters * channels_;  // [block][channel]: each block has its own, all alike
        parallel(threads_, [&](int thread, int team) {
            const Range items = share(blocks_ * panels_, thread, team);
            if (needs_sums(a)) {
                for (int64_t i = items.begin; i < items.end; ++i) collect_item(pass, a, item(i), totals, origins);
                team_barrier(team);
            }
            const Range mine = share(channels_, thread, team);
            for (int64_t c = mine.begin; c < mine.end; ++c) combine(a, c, totals, origins, values);
            team_barrier(team);
            const Direction direction = second_direction(a);
            for (int64_t i = items.begin; i < items.end; ++i)
                apply_item(pass, item(direction == Direction::forwards ? i : items.begin + items.end - 1 - i),
                           direction, values);
        });
    }

    template <class Pass>
    void collect_item(const Pass& pass, const NormArguments& a, const Item& it, double* totals, T* origins) const {
        double* sums = totals + it.block * sums_ * channels_;
        T* from = origins + it.block * channels_;
        for (int s = 0; s < sums_; ++s)
            for (int64_t c = it.channels.begin; c < it.channels.end; ++c) sums[s * channels_ + c] = 0;
        fill_origins(pass.x, a, it.channels, from);
        for_tiles(positions_, it.positions, tile_rows_, Direction::forwards, [&](Offsets at, int64_t rows) {
            interleaved_parts<T>(positions_, how_, it.channels, at, rows, [&](auto group, const Part& part) {
                pass.collect(group, part, from, sums, channels_);
            });
        });
    }

    template <class Pass>
    void apply_item(const Pass& pass, const Item& it, Direction direction, const T* values) const {
        for_tiles(positions_, it.positions, tile_rows_, direction, [&](Offsets at, int64_t rows) {
            interleaved_parts<T>(positions_, how_, it.channels, at, rows,
                                 [&](auto group, const Part& part) { pass.apply(group, part, values, channels_); });
        });
    }

    void fill_origins(const T* x, const NormArguments& a, Range channels, T* from) const {
        if (p_.pass == Pass::grad_input) {
            for (int64_t c = channels.begin; c < channels.end; ++c) from[c] = c < p_.c ? origin(a, x, c) : T(0);
            return;
        }
        interleaved_parts<T>(positions_, how_, channels, {0, 0, 0}, 1, [&](auto group, const Part& part) {
            using G = decltype(group);
            for (int v = 0; v < G::vectors; ++v)
                put(from + part.parameter + v * G::lane, sampled_mean<typename G::Lane>(x + part.at.x + v * G::lane));
        });
    }

    void combine(const NormArguments& a, int64_t c, const double* totals, const T* origins, T* values) const {
        Channel<T> channel{};  // zeros where a block is filled up: they make zeros
        if (c < p_.c) {
            const T from = needs_sums(a) ? origins[c] : origin(a, nullptr, c);
            Sums sums;
            if (needs_sums(a))
                for (int b = 0; b < blocks_; ++b)
                    for (int s = 0; s < sums_; ++s) sums.of[s] += totals[(b * sums_ + s) * channels_ + c];
            channel = parameters(a, c, from, sums);
        }
        for (int i = 0; i < kParameters; ++i) values[i * channels_ + c] = channel.of[i];
    }

    NormProblem p_;
    Strides third_;  // of residual and grad_residual
    Positions positions_;
    Interleaving how_;
    bool interleaved_;
    int64_t channels_;  // with those that fill up a block
    int sums_;
    int threads_, blocks_, panels_;
    int64_t unit_, tile_rows_;  // channels of which panels are made; rows of an interleaved tile
    int64_t samples_[kSamples];
    bool streams_;             // the tensor written would only fill the caches
    double share_, unbiased_;  // 1 / m and m / (m - 1), for m values per channel
};

NormPlan* plan_batch_norm(const NormProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new BatchNorm<double>(problem, threads);
    return new BatchNorm<float>(problem, threads);
}

}  // namespace

PYCV_KERNEL("batch_norm", "direct", plan_batch_norm);

}  // namespace pycv::cpu::PYCV_ISA
