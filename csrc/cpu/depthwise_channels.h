// Vectors of channels, for depthwise convolutions in layouts in which they are contiguous: nhwc, nchw8c, nchw16c.
// Only for kernel files (ISA namespace).
#pragma once

#include "depthwise.h"

namespace pycv::cpu::PYCV_ISA {

// The vectors of L channels that cover the channels of both tensors. In blocked layouts they end with the block, in
// nhwc the last one overlaps its neighbour.
struct ChannelVectors {
    int64_t channels, lanes, count;
    bool blocked;

    ChannelVectors(int64_t c, int64_t l, int64_t block)
        : channels(c), lanes(l), count(divide_up(block > 1 ? round_up(c, block) : c, l)), blocked(block > 1) {}
    int64_t start(int64_t v) const { return blocked ? v * lanes : smaller(v * lanes, channels - lanes); }
    int64_t real(int64_t v) const { return larger(0, smaller(lanes, channels - start(v))); }  // not padding
};

// Whether vectors of `lanes` channels are contiguous in everything that a depthwise gather touches.
inline bool has_channel_vectors(const ConvProblem& p, int64_t lanes) {
    if (p.groups != p.c || p.groups != p.k || p.c == 0) return false;
    const auto contiguous = [](const Strides& s) { return s.block > 1 || s.c == 1; };
    if (!contiguous(p.input) || !contiguous(p.output) || (p.has_residual && !contiguous(p.residual))) return false;
    const int64_t in = p.input.block, out = p.output.block, residual = p.has_residual ? p.residual.block : out;
    if (in == 1 && out == 1 && residual == 1) return p.c >= lanes;
    if (in == out && out == residual) return in % lanes == 0;
    const auto divides = [lanes, &p](int64_t block) { return block == 1 || (block % lanes == 0 && p.c % block == 0); };
    return p.c % lanes == 0 && divides(in) && divides(out) && divides(residual);
}

// The number of lanes of the vectors that serve a problem: the machine's, or half of it where that makes 32 bytes (a
// block of eight channels); 0 if there are none.
inline int64_t channel_lanes(const ConvProblem& p) {
    const bool wide = p.dtype == DType::f32;
    const int64_t full = wide ? lanes<float> : lanes<double>;
    if (has_channel_vectors(p, full)) return full;
    const int64_t half = wide && full * sizeof(float) == 64 ? full / 2 : 0;
    return half > 0 && has_channel_vectors(p, half) ? half : 0;
}

// plan(T{}, lanes) for the scalar and the lanes of a problem that has them.
template <class Plan>
ConvPlan* with_channel_lanes(const ConvProblem& p, const Plan& plan) {
    if (p.dtype == DType::f64) return plan.template operator()<double, lanes<double>>();
    if constexpr (lanes<float> == 16) {
        if (channel_lanes(p) == 8) return plan.template operator()<float, 8>();
    }
    return plan.template operator()<float, lanes<float>>();
}

}  // namespace pycv::cpu::PYCV_ISA
