// 1x1 convolution of images of one pixel, all passes: a matrix product whose rows are images (gemm_packed.cpp), such as
// the two of squeeze and excitation.
//
// 2 * n * c * k FLOPs. A few images take the plain weight, each element of it read once; packing it would double that.
// Only for kernel files (ISA namespace).
#pragma once

#include "gemm_plans.h"

namespace pycv::cpu::PYCV_ISA {

inline bool is_one_pixel(const ConvProblem& p) {
    return p.groups == 1 && p.size.count() == 1 && p.out.count() == 1 && p.filter.count() == 1 && p.padding.d == 0 &&
           p.padding.h == 0 && p.padding.w == 0;
}

class OnePixelConv final : public ConvPlan {
public:
    OnePixelConv(const ConvProblem& p, int threads, int64_t workspace_limit)
        : pass_(p.pass), gemm_(plan_packed_gemm(product(p), threads, workspace_limit)) {}
    ~OnePixelConv() override { delete gemm_; }
    OnePixelConv(const OnePixelConv&) = delete;
    OnePixelConv& operator=(const OnePixelConv&) = delete;

    int64_t workspace_bytes() const override { return gemm_->workspace_bytes(); }
    int64_t prepared_weight_bytes() const override {
        return pass_ == Pass::grad_weight ? 0 : gemm_->prepared_weight_bytes();
    }
    void prepare_weight(const void* weight, void* prepared) const override { gemm_->prepare_weight(weight, prepared); }
    bool takes_plain_weight() const override { return true; }
    // That of a product packs the weight, if it does, itself.
    Cost cost() const override { return gemm_->cost(); }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& a) const override {
        const bool prepared = prepared_weight_bytes() > 0 && !a.plain_weight;
        const auto multiply = [&](const void* left, const void* right, void* out) {
            gemm_->run({left, right, out, a.bias, a.residual, 1, 1, a.workspace, prepared});
        };
        switch (pass_) {
            case Pass::forward: return multiply(a.input, a.weight, a.output);
            case Pass::grad_input: return multiply(a.output, a.weight, a.input);
            case Pass::grad_weight: return multiply(a.output, a.input, a.weight);
        }
    }

private:
    static GemmProblem product(const ConvProblem& p) {
        GemmProblem g{};
        g.dtype = p.dtype;
        g.batch = 1;
        g.bias = p.bias;
        g.has_residual = p.has_residual;
        g.relu = p.relu;
        g.residual = {0, p.residual.n, p.residual.c};
        const MatrixStrides input{0, p.input.n, p.input.c}, output{0, p.output.n, p.output.c};
        const MatrixStrides weight{0, p.weight.n, p.weight.c};
        const auto transposed = [](MatrixStrides m) { return MatrixStrides{0, m.column, m.row}; };
        switch (p.pass) {
            case Pass::forward:
                g.m = p.n, g.n = p.k, g.k = p.c;
                g.a = input, g.b = transposed(weight), g.out = output;
                break;
            case Pass::grad_input:
                g.m = p.n, g.n = p.c, g.k = p.k;
                g.a = output, g.b = weight, g.out = input;
                break;
            case Pass::grad_weight:
                g.m = p.k, g.n = p.c, g.k = p.n;
                g.a = transposed(output), g.b = input, g.out = weight;
                break;
        }
        return g;
    }

    Pass pass_;
    const GemmPlan* gemm_;
};

}  // namespace pycv::cpu::PYCV_ISA
