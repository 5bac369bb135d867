// The definitions, loop by loop in float64. Nothing here is clever.
#pragma once

#include <vector>

#include "tensor.h"

namespace reference {

using pycv::Spatial;

// Calls body(z, y, x) for each point of a box.
template <class Body>
void box(Spatial s, const Body& body) {
    for (int64_t z = 0; z < s.d; ++z)
        for (int64_t y = 0; y < s.h; ++y)
            for (int64_t x = 0; x < s.w; ++x) body(z, y, x);
}

inline bool inside(int64_t z, int64_t y, int64_t x, Spatial s) {
    return z >= 0 && z < s.d && y >= 0 && y < s.h && x >= 0 && x < s.w;
}

// Adds to whichever of the three the pass computes: every product of the sum that defines a convolution.
inline void conv(const pycv::ConvProblem& p, Tensor& input, Tensor& weight, Tensor& output) {
    const int64_t cg = p.c / p.groups, kg = p.k / p.groups;
    for (int64_t n = 0; n < p.n; ++n)
        for (int64_t k = 0; k < p.k; ++k)
            for (int64_t c = 0; c < cg; ++c)
                box(p.out, [&](int64_t oz, int64_t oy, int64_t ox) {
                    box(p.filter, [&](int64_t rz, int64_t ry, int64_t rx) {
                        const int64_t z = oz * p.stride.d - p.padding.d + rz * p.dilation.d;
                        const int64_t y = oy * p.stride.h - p.padding.h + ry * p.dilation.h;
                        const int64_t x = ox * p.stride.w - p.padding.w + rx * p.dilation.w;
                        if (!inside(z, y, x, p.size)) return;
                        double& in = input.at(n, k / kg * cg + c, z, y, x);
                        double& w = weight.at(k, c, rz, ry, rx);
                        double& out = output.at(n, k, oz, oy, ox);
                        if (p.pass == pycv::Pass::forward) out += in * w;
                        if (p.pass == pycv::Pass::grad_input) in += out * w;
                        if (p.pass == pycv::Pass::grad_weight) w += in * out;
                    });
                });
}

// The positions of the input that the window of one output covers.
inline std::vector<size_t> window(const pycv::PoolProblem& p, const Tensor& input, int64_t n, int64_t c, int64_t oz,
                                  int64_t oy, int64_t ox) {
    std::vector<size_t> found;
    if (p.kind == pycv::PoolKind::adaptive_max || p.kind == pycv::PoolKind::adaptive_avg) {
        const auto first = [](int64_t o, int64_t size, int64_t out) { return o * size / out; };
        const auto last = [](int64_t o, int64_t size, int64_t out) { return ((o + 1) * size + out - 1) / out; };
        for (int64_t z = first(oz, p.size.d, p.out.d); z < last(oz, p.size.d, p.out.d); ++z)
            for (int64_t y = first(oy, p.size.h, p.out.h); y < last(oy, p.size.h, p.out.h); ++y)
                for (int64_t x = first(ox, p.size.w, p.out.w); x < last(ox, p.size.w, p.out.w); ++x)
                    found.push_back(input.index(n, c, z, y, x));
        return found;
    }
    box(p.filter, [&](int64_t rz, int64_t ry, int64_t rx) {
        const int64_t z = oz * p.stride.d - p.padding.d + rz * p.dilation.d;
        const int64_t y = oy * p.stride.h - p.padding.h + ry * p.dilation.h;
        const int64_t x = ox * p.stride.w - p.padding.w + rx * p.dilation.w;
        if (inside(z, y, x, p.size)) found.push_back(input.index(n, c, z, y, x));
    });
    return found;
}

// By how much an average over a window is divided.
inline int64_t divisor(const pycv::PoolProblem& p, int64_t inside_count, int64_t oz, int64_t oy, int64_t ox) {
    if (p.kind == pycv::PoolKind::adaptive_avg) return inside_count;
    if (p.divisor) return p.divisor;
    if (!p.count_include_pad) return inside_count;
    // The padding counts, what lies beyond it (ceil_mode) does not.
    const auto extent = [](int64_t o, int64_t stride, int64_t padding, int64_t filter, int64_t size) {
        const int64_t begin = o * stride - padding;
        return std::min(begin + filter, size + padding) - begin;
    };
    return extent(oz, p.stride.d, p.padding.d, p.filter.d, p.size.d) *
           extent(oy, p.stride.h, p.padding.h, p.filter.h, p.size.h) *
           extent(ox, p.stride.w, p.padding.w, p.filter.w, p.size.w);
}

// The number in the window of output (oz, oy, ox) of its element at a position of the plane.
inline int64_t number_in_window(const pycv::PoolProblem& p, int64_t oz, int64_t oy, int64_t ox, int64_t position) {
    const int64_t z = position / (p.size.h * p.size.w), y = position / p.size.w % p.size.h, x = position % p.size.w;
    const int64_t rz = (z - oz * p.stride.d + p.padding.d) / p.dilation.d;
    const int64_t ry = (y - oy * p.stride.h + p.padding.h) / p.dilation.h;
    const int64_t rx = (x - ox * p.stride.w + p.padding.w) / p.dilation.w;
    return (rz * p.filter.h + ry) * p.filter.w + rx;
}

// Forward fills output and (max) indices; grad_input adds to input what output brings.
inline void pool(const pycv::PoolProblem& p, Tensor& input, Tensor& output, std::vector<int64_t>& indices) {
    const bool max = p.kind == pycv::PoolKind::max || p.kind == pycv::PoolKind::adaptive_max;
    for (int64_t n = 0; n < p.n; ++n)
        for (int64_t c = 0; c < p.c; ++c)
            box(p.out, [&](int64_t oz, int64_t oy, int64_t ox) {
                const std::vector<size_t> positions = window(p, input, n, c, oz, oy, ox);
                const size_t o = output.index(n, c, oz, oy, ox);
                const size_t plane = static_cast<size_t>((n * p.c + c) * p.size.count());
                if (max && p.pass == pycv::Pass::forward) {
                    size_t best = positions.front();  // of equals the first, of NaNs the last
                    for (size_t i : positions)
                        if (input.values[i] > input.values[best] || std::isnan(input.values[i])) best = i;
                    output.values[o] = input.values[best];
                    indices[o] = static_cast<int64_t>(best - plane);
                } else if (max) {
                    input.values[plane + static_cast<size_t>(indices[o])] += output.values[o];
                } else {
                    const double by = static_cast<double>(divisor(p, std::ssize(positions), oz, oy, ox));
                    double sum = 0;
                    for (size_t i : positions) sum += input.values[i];
                    if (p.pass == pycv::Pass::forward) output.values[o] = sum / by;
                    for (size_t i : positions)
                        if (p.pass == pycv::Pass::grad_input) input.values[i] += output.values[o] / by;
                }
            });
}

// batch_norm, local_response_norm and channel_sum, forward and gradients, with their per-channel results.
struct Norm {
    pycv::NormProblem p;
    Tensor input, grad_output, output;
    Tensor residual, forward_output;  // residual becomes grad_residual in the gradient
    std::vector<double> weight{}, bias{}, running_mean{}, running_var{}, mean{}, invstd{}, grad_weight{}, grad_bias{},
        sums{};
    double eps = 1e-3, momentum = 0.25, alpha = 0.3, beta = 0.75, k = 1.5;

    void run() {
        if (p.kind == pycv::NormKind::local_response_norm) return local_response();
        for (int64_t c = 0; c < p.c; ++c) channel(c);
    }

    // Calls body(index) for each element of a channel.
    template <class Body>
    void each(int64_t c, const Body& body) {
        for (int64_t n = 0; n < p.n; ++n)
            box(p.size, [&](int64_t z, int64_t y, int64_t x) { body(input.index(n, c, z, y, x)); });
    }

    void channel(int64_t c) {
        const size_t i = static_cast<size_t>(c);
        const double count = static_cast<double>(p.n * p.size.count());
        double sum = 0, squares = 0;
        each(c, [&](size_t e) { sum += input.values[e]; });
        sums.push_back(sum);
        each(c, [&](size_t e) { squares += (input.values[e] - sum / count) * (input.values[e] - sum / count); });
        const double m = p.training ? sum / count : running_mean[i];
        const double inv = 1 / std::sqrt((p.training ? squares / count : running_var[i]) + eps);
        mean.push_back(m);
        invstd.push_back(inv);
        const bool backward = p.pass != pycv::Pass::forward;
        if (backward && p.relu)
            each(c, [&](size_t e) { grad_output.values[e] *= forward_output.values[e] > 0 ? 1 : 0; });
        double g_sum = 0, g_dot = 0;
        each(c, [&](size_t e) {
            g_sum += grad_output.values[e];
            g_dot += grad_output.values[e] * (input.values[e] - m) * inv;
        });
        grad_bias.push_back(g_sum);
        grad_weight.push_back(g_dot);
        each(c, [&](size_t e) {
            const double normalised = (input.values[e] - m) * inv, g = grad_output.values[e];
            const double through = p.training ? (g_sum + normalised * g_dot) / count : 0;
            output.values[e] =
                p.pass == pycv::Pass::forward ? normalised * weight[i] + bias[i] : weight[i] * inv * (g - through);
            if (backward) {
                residual.values[e] = g;
                return;
            }
            if (p.has_residual) output.values[e] += residual.values[e];
            if (p.relu) output.values[e] = std::max(output.values[e], 0.0);
        });
        if (p.training && p.pass == pycv::Pass::forward) {
            running_mean[i] += momentum * (m - running_mean[i]);
            running_var[i] += momentum * (squares / (count - 1) - running_var[i]);
        }
    }

    // The channels in the sum of channel c.
    template <class Body>
    void neighbours(int64_t c, const Body& body) {
        for (int64_t j = c - p.window / 2; j < c - p.window / 2 + p.window; ++j)
            if (j >= 0 && j < p.c) body(j);
    }

    void local_response() {
        const double share = alpha / static_cast<double>(p.window);
        for (int64_t n = 0; n < p.n; ++n)
            box(p.size, [&](int64_t z, int64_t y, int64_t x) {
                for (int64_t c = 0; c < p.c; ++c) {
                    double s = k;
                    neighbours(c, [&](int64_t j) { s += share * std::pow(input.at(n, j, z, y, x), 2); });
                    const double in = input.at(n, c, z, y, x), g = grad_output.at(n, c, z, y, x);
                    if (p.pass == pycv::Pass::forward) {
                        output.at(n, c, z, y, x) = in * std::pow(s, -beta);
                        continue;
                    }
                    output.at(n, c, z, y, x) += g * std::pow(s, -beta);
                    neighbours(c, [&](int64_t j) {
                        output.at(n, j, z, y, x) -=
                            2 * beta * share * g * in * std::pow(s, -beta - 1) * input.at(n, j, z, y, x);
                    });
                }
            });
    }
};

}  // namespace reference
