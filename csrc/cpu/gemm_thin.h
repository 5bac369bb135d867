// GEMM with at most kThin rows (or columns): every element of the large operand is used so few times that reading it is
// all the cost, and packing it would double that. gemm_packed.cpp chooses it.
//
// The large operand is seen as `wide` vectors of length k. Where those run along k, the results are dot products,
// four vectors at a time, whose lanes are added up for as many of them together as a vector has lanes. Where they lie
// side by side, rows of the large operand are added up, scaled, eight at a time, into sums that stay in cache. 2 * m *
// n * k FLOPs; the large operand is read once for every four thin vectors.
#pragma once

#include "gemm_product.h"
#include "plan.h"
#include "plane_sums.h"

namespace pycv::cpu::PYCV_ISA {

inline constexpr int64_t kThin = 8;

inline bool is_thin(const GemmProblem& p) {
    if (p.m <= kThin && p.m <= p.n) return p.b.row == 1 || p.b.column == 1;
    return p.n <= kThin && (p.a.row == 1 || p.a.column == 1);
}

template <class T>
class ThinGemm final : public GemmPlan {
public:
    ThinGemm(const GemmProblem& p, int threads)
        : p_(p),
          threads_(worthwhile_threads(threads, p.batch * p.m * p.n * p.k)),
          rows_thin_(p.m <= kThin && p.m <= p.n),
          thin_(rows_thin_ ? p.m : p.n),
          wide_(rows_thin_ ? p.n : p.m) {
        a_ = {p.a.row, p.a.column, p.a.batch};
        b_ = {p.b.column, p.b.row, p.b.batch};
        out_ = {p.out.row, p.out.column, p.out.batch};
        residual_ = {p.residual.row, p.residual.column, p.residual.batch};
        if (!rows_thin_) {
            swap(a_, b_);
            out_ = {out_.across, out_.along, out_.batch};
            residual_ = {residual_.across, residual_.along, residual_.batch};
        }
    }

    int64_t workspace_bytes() const override { return threads_ * space_elements() * kSize; }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}
    Cost cost() const override {
        const double elements = static_cast<double>(p_.batch) * static_cast<double>(wide_ * p_.k) / threads_;
        return {elements * static_cast<double>(thin_), elements, tensor_bytes(p_), 1};
    }

    void run(const GemmArguments& g) const override {
        if (thin_ == 0 || wide_ == 0) return;
        parallel(threads_, [&](int thread, int team) {
            T* space = static_cast<T*>(g.workspace) + thread * space_elements();
            const Range mine = share(p_.batch * wide_, thread, team);
            for (int64_t i = mine.begin; i < mine.end;) {
                const int64_t batch = i / wide_, begin = i % wide_;
                const Range range{begin, smaller(wide_, smaller(begin + mine.end - i, begin + kRange))};
                i += range.end - range.begin;
                const T* a = static_cast<const T*>(g.a) + batch * p_.a.batch;
                const T* b = static_cast<const T*>(g.b) + batch * p_.b.batch;
                const T* thin = rows_thin_ ? a : b;
                const T* wide = rows_thin_ ? b : a;
                T* sums = space + kThin * aligned_depth();
                if (b_.across == 1) {
                    dot_products(thin, wide, range, space, sums);
                } else {
                    add_rows(thin, wide, range, sums);
                }
                finish(g, batch, range, sums);
            }
        });
    }

private:
    static constexpr int64_t kSize = sizeof(T);
    static constexpr int64_t kRange = 2048;  // wide vectors at a time: their sums stay in the L1 and L2 caches
    static constexpr int kRows = 8;          // rows of the large operand added at a time
    static constexpr int kDots = lanes<T> < 4 ? lanes<T> : 4;  // dot products of a thin vector at a time

    // Strides along the thin (a_) or wide (b_) index and across it, along k; of results along thin and across wide.
    struct Vectors {
        int64_t along, across, batch;
    };
    static void swap(Vectors& x, Vectors& y) {
        const Vectors old = x;
        x = y;
        y = old;
    }

    int64_t aligned_depth() const { return round_up(p_.k, lanes<T>); }
    int64_t space_elements() const { return kThin * (aligned_depth() + kRange); }

    // sums[t][w - range.begin] = thin[t] . wide[w]
    void dot_products(const T* thin, const T* wide, Range range, T* packed, T* sums) const {
        for (int64_t t = 0; t < thin_; ++t)
            copy_strided<T>(packed + t * aligned_depth(), thin + t * a_.along, p_.k, a_.across);
        for (int64_t w = range.begin; w < range.end; w += lanes<T>) {
            const int64_t count = smaller(lanes<T>, range.end - w);
            const T* from = wide + w * b_.along;
            T* to = sums + (w - range.begin);
            int64_t t = 0;
            for (; t + 4 <= thin_; t += 4) dot<4>(packed + t * aligned_depth(), from, count, to + t * kRange);
            for (; t + 2 <= thin_; t += 2) dot<2>(packed + t * aligned_depth(), from, count, to + t * kRange);
            for (; t < thin_; ++t) dot<1>(packed + t * aligned_depth(), from, count, to + t * kRange);
        }
    }

    // Of as many wide vectors as a vector has lanes, whose sums are then added up together (plane_sums.h).
    template <int Thin>
    void dot(const T* thin, const T* wide, int64_t count, T* to) const {
        Vec<T> sums[Thin][lanes<T>];
        for (int64_t first = 0; first < lanes<T>; first += kDots) {
            const T* from[kDots];
            for (int64_t i = 0; i < kDots; ++i) from[i] = wide + smaller(first + i, count - 1) * b_.along;
            Vec<T> sum[Thin][kDots] = {};
            add_products<Thin>(thin, from, sum);
            for (int t = 0; t < Thin; ++t)
                for (int i = 0; i < kDots; ++i) sums[t][first + i] = sum[t][i];
        }
        for (int t = 0; t < Thin; ++t) {
            const Vec<T> total = sum_lanes<T>(sums[t]);
            count == lanes<T> ? store<T>(to + t * kRange, total) : store_partial<T>(to + t * kRange, total, count);
        }
    }

    template <int Thin>
    void add_products(const T* thin, const T* const* wide, Vec<T> (&sum)[Thin][kDots]) const {
        const int64_t stride = aligned_depth(), rest = p_.k % lanes<T>, whole = p_.k - rest;
        const auto add = [&](int64_t k, const auto& load_at) {
            Vec<T> w[kDots];
#pragma GCC unroll 4
            for (int i = 0; i < kDots; ++i) w[i] = load_at(wide[i] + k);
#pragma GCC unroll 4
            for (int t = 0; t < Thin; ++t) {
                const Vec<T> x = load_at(thin + t * stride + k);
#pragma GCC unroll 4
                for (int i = 0; i < kDots; ++i) sum[t][i] += x * w[i];
            }
        };
        for (int64_t k = 0; k < whole; k += lanes<T>) add(k, [](const T* p) { return load<T>(p); });
        if (rest > 0) add(whole, [rest](const T* p) { return load_partial<T>(p, rest); });
    }

    // sums[t][w - range.begin] = sum over k of thin[t][k] * wide[k][w]
    void add_rows(const T* thin, const T* wide, Range range, T* sums) const {
        const int64_t count = range.end - range.begin;
        for (int64_t t = 0; t < thin_; ++t) zero_run(sums + t * kRange, count);
        for (int64_t k = 0; k < p_.k; k += kRows) {
            const int64_t rows = smaller(kRows, p_.k - k);
            const T* from = wide + k * b_.across + range.begin;
            for (int64_t t = 0; t < thin_; t += 2) {
                const T* scale = thin + t * a_.along + k * a_.across;
                if (rows == kRows && t + 2 <= thin_) {
                    add_eight<2>(scale, from, count, sums + t * kRange);
                } else if (rows == kRows) {
                    add_eight<1>(scale, from, count, sums + t * kRange);
                } else {
                    add_few(scale, from, rows, smaller(2, thin_ - t), count, sums + t * kRange);
                }
            }
        }
    }

    template <int Thin>
    void add_eight(const T* scale, const T* from, int64_t count, T* sums) const {
        T factor[Thin][kRows];
        for (int t = 0; t < Thin; ++t)
            for (int k = 0; k < kRows; ++k) factor[t][k] = scale[t * a_.along + k * a_.across];
        int64_t w = 0;
        for (; w + lanes<T> <= count; w += lanes<T>) {
            Vec<T> sum[Thin];
            for (int t = 0; t < Thin; ++t) sum[t] = load<T>(sums + t * kRange + w);
#pragma GCC unroll 8
            for (int k = 0; k < kRows; ++k) {
                const Vec<T> x = load<T>(from + k * b_.across + w);
#pragma GCC unroll 2
                for (int t = 0; t < Thin; ++t) sum[t] += x * broadcast<T>(factor[t][k]);
            }
            for (int t = 0; t < Thin; ++t) store<T>(sums + t * kRange + w, sum[t]);
        }
        for (; w < count; ++w)
            for (int t = 0; t < Thin; ++t)
                for (int k = 0; k < kRows; ++k) sums[t * kRange + w] += factor[t][k] * from[k * b_.across + w];
    }

    void add_few(const T* scale, const T* from, int64_t rows, int64_t thin, int64_t count, T* sums) const {
        for (int64_t t = 0; t < thin; ++t)
            for (int64_t k = 0; k < rows; ++k) {
                const T factor = scale[t * a_.along + k * a_.across];
                for (int64_t w = 0; w < count; ++w) sums[t * kRange + w] += factor * from[k * b_.across + w];
            }
    }

    void finish(const GemmArguments& g, int64_t batch, Range range, const T* sums) const {
        const T alpha = static_cast<T>(g.alpha), beta = static_cast<T>(g.beta);
        const T* residual =
            p_.has_residual && beta != 0 ? static_cast<const T*>(g.residual) + batch * residual_.batch : nullptr;
        const T* bias = p_.bias ? static_cast<const T*>(g.bias) : nullptr;
        T* out = static_cast<T*>(g.out) + batch * out_.batch;
        const bool vectors = out_.across == 1 && (!residual || residual_.across == 1);
        for (int64_t t = 0; t < thin_; ++t) {
            const T* from = sums + t * kRange - range.begin;
            int64_t w = range.begin;
            for (; vectors && w + lanes<T> <= range.end; w += lanes<T>) {
                Vec<T> v = broadcast<T>(alpha) * load<T>(from + w);
                if (residual) v += broadcast<T>(beta) * load<T>(residual + t * residual_.along + w);
                if (bias) v += rows_thin_ ? load<T>(bias + w) : broadcast<T>(bias[t]);
                store<T>(out + t * out_.along + w, p_.relu ? relu<T>(v) : v);
            }
            for (; w < range.end; ++w) {
                T v = alpha * from[w];
                if (residual) v += beta * residual[t * residual_.along + w * residual_.across];
                if (bias) v += bias[rows_thin_ ? w : t];
                out[t * out_.along + w * out_.across] = p_.relu ? relu<T>(v) : v;
            }
        }
    }

    GemmProblem p_;
    int threads_;
    bool rows_thin_;  // else the columns are
    int64_t thin_, wide_;
    Vectors a_, b_, out_, residual_;
};

}  // namespace pycv::cpu::PYCV_ISA
