// The definition of a convolution, element by element.
#pragma once

#include "conv_gather.h"
#include "parallel.h"
#include "plan.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

template <class T>
class NaiveConv final : public ConvPlan {
public:
    NaiveConv(const ConvProblem& problem, int threads) : p_(problem), threads_(threads) {}
    int64_t workspace_bytes() const override { return 0; }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}

    void run(const ConvArguments& a) const override {
        if (p_.pass == Pass::grad_weight) return grad_weight(a);
        const GatherProblem g = gather_problem(p_);
        const int64_t phases = g.phases.count();
        parallel_for(threads_, g.n * g.groups * g.channels, [&](int64_t i) {
            const int64_t n = i / (g.groups * g.channels), channel = i % (g.groups * g.channels);
            for (int64_t phase = 0; phase < phases; ++phase) plane(a, g, gather_phase(p_, phase), n, channel);
        });
    }

private:
    void plane(const ConvArguments& a, const GatherProblem& g, const Gather& t, int64_t n, int64_t channel) const {
        const bool forward = p_.pass == Pass::forward;
        const int64_t group = channel / g.channels;
        T* out = static_cast<T*>(forward ? a.output : a.input) + n * g.computed.n + channel * g.computed.c;
        const T* source = static_cast<const T*>(forward ? a.input : a.output) + n * g.source.n +
                          group * g.source_channels * g.source.c;
        const T* weight = static_cast<const T*>(a.weight) + group * g.weight_group + channel % g.channels * g.weight.n;
        const T* residual = g.has_residual ? static_cast<const T*>(a.residual) + n * g.residual.n + channel * g.residual.c : nullptr;
        const T bias = g.bias ? static_cast<const T*>(a.bias)[channel] : T(0);
        for (int64_t d = 0; d < t.d.count; ++d)
            for (int64_t h = 0; h < t.h.count; ++h)
                for (int64_t w = 0; w < t.w.count; ++w) {
                    T sum = 0;
                    for (int64_t c = 0; c < g.source_channels; ++c) sum += dot(g, t, source + c * g.source.c, weight + c * g.weight.c, d, h, w);
                    const int64_t y[3] = {t.d.first + d * t.d.step, t.h.first + h * t.h.step, t.w.first + w * t.w.step};
                    sum += bias;
                    if (residual) sum += residual[y[0] * g.residual.d + y[1] * g.residual.h + y[2] * g.residual.w];
                    out[y[0] * g.computed.d + y[1] * g.computed.h + y[2] * g.computed.w] = g.relu ? relu<T>(sum) : sum;
                }
    }

    static T dot(const GatherProblem& g, const Gather& t, const T* source, const T* weight, int64_t d, int64_t h, int64_t w) {
        T sum = 0;
        for (int64_t i = 0; i < t.d.taps; ++i) {
            const int64_t sd = t.d.source(d, i);
            if (!t.d.inside(sd)) continue;
            for (int64_t j = 0; j < t.h.taps; ++j) {
                const int64_t sh = t.h.source(h, j);
                if (!t.h.inside(sh)) continue;
                for (int64_t k = 0; k < t.w.taps; ++k) {
                    const int64_t sw = t.w.source(w, k);
                    if (!t.w.inside(sw)) continue;
                    sum += source[sd * g.source.d + sh * g.source.h + sw * g.source.w] *
                           weight[(t.d.filter_first + i * t.d.filter_step) * g.weight.d +
                                  (t.h.filter_first + j * t.h.filter_step) * g.weight.h +
                                  (t.w.filter_first + k * t.w.filter_step) * g.weight.w];
                }
            }
        }
        return sum;
    }

    void grad_weight(const ConvArguments& a) const {
        if (p_.groups <= 0) return;
        const int64_t c = p_.c / p_.groups, k = p_.k / p_.groups;
        const Gather t = gather_phase(ConvProblem{Pass::forward, p_.dtype, p_.n, p_.c, p_.k, p_.groups, p_.size, p_.filter, p_.out, p_.stride, p_.padding, p_.dilation, {}, {}, {}, {}, false, false, false}, 0);
        parallel_for(threads_, p_.k * c, [&](int64_t i) {
            const int64_t ko = i / c, ci = i % c, group = ko / k;
            T* out = static_cast<T*>(a.weight) + ko * p_.weight.n + ci * p_.weight.c;
            for (int64_t td = 0; td < p_.filter.d; ++td)
                for (int64_t th = 0; th < p_.filter.h; ++th)
                    for (int64_t tw = 0; tw < p_.filter.w; ++tw) {
                        T sum = 0;
                        for (int64_t n = 0; n < p_.n; ++n) {
                            const T* x = static_cast<const T*>(a.input) + n * p_.input.n + (group * c + ci) * p_.input.c;
                            const T* y = static_cast<const T*>(a.output) + n * p_.output.n + ko * p_.output.c;
                            for (int64_t d = 0; d < p_.out.d; ++d)
                                for (int64_t h = 0; h < p_.out.h; ++h)
                                    for (int64_t w = 0; w < p_.out.w; ++w) {
                                        const int64_t sd = t.d.source(d, td), sh = t.h.source(h, th), sw = t.w.source(w, tw);
                                        if (!t.d.inside(sd) || !t.h.inside(sh) || !t.w.inside(sw)) continue;
                                        sum += x[sd * p_.input.d + sh * p_.input.h + sw * p_.input.w] *
                                               y[d * p_.output.d + h * p_.output.h + w * p_.output.w];
                                    }
                        }
                        out[td * p_.weight.d + th * p_.weight.h + tw * p_.weight.w] = sum;
                    }
        });
    }

    ConvProblem p_;
    int threads_;
};

}  // namespace pycv::cpu::PYCV_ISA
