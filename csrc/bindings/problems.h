// The one place where Python's problems become C++ structs: each function takes the fields of a problem of
// pycv/problem.py in a fixed order. Shared by the modules of all backends.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>

#include "../common/problem.h"

namespace pycv::bindings {

using I3 = std::array<int64_t, 3>;
using I6 = std::array<int64_t, 6>;  // strides and block

inline DType dtype_of(const std::string& name) {
    if (name == "f32") return DType::f32;
    if (name == "f64") return DType::f64;
    if (name == "f16") return DType::f16;
    if (name == "bf16") return DType::bf16;
    throw std::invalid_argument("dtype " + name + ": no C++ kernel takes it");
}

inline Pass pass_of(const std::string& name) {
    if (name == "forward") return Pass::forward;
    if (name == "grad_input") return Pass::grad_input;
    if (name == "grad_weight") return Pass::grad_weight;
    throw std::invalid_argument("pass " + name + ": expected forward, grad_input or grad_weight");
}

inline Indices indices_of(const std::string& name) {
    if (name.empty()) return Indices::none;
    if (name == "int64") return Indices::int64;
    if (name == "offset") return Indices::offset;
    throw std::invalid_argument("indices " + name + ": expected int64 or offset");
}

inline Spatial spatial(const I3& v) { return {v[0], v[1], v[2]}; }
inline Strides strides(const I6& v) { return {v[0], v[1], v[2], v[3], v[4], v[5]}; }
inline MatrixStrides matrix_strides(const I3& v) { return {v[0], v[1], v[2]}; }

inline ConvProblem conv_problem(const std::string& pass, const std::string& dtype, int64_t n, int64_t c, int64_t k,
                                int64_t groups, const I3& size, const I3& filter, const I3& out, const I3& stride,
                                const I3& padding, const I3& dilation, const I6& input, const I6& weight,
                                const I6& output, const I6& residual, bool bias, bool has_residual, bool relu,
                                bool scale_input, bool relu_input) {
    return {pass_of(pass),
            dtype_of(dtype),
            n,
            c,
            k,
            groups,
            spatial(size),
            spatial(filter),
            spatial(out),
            spatial(stride),
            spatial(padding),
            spatial(dilation),
            strides(input),
            strides(weight),
            strides(output),
            strides(residual),
            bias,
            has_residual,
            relu,
            scale_input,
            relu_input};
}

inline GemmProblem gemm_problem(const std::string& dtype, int64_t batch, int64_t m, int64_t n, int64_t k, const I3& a,
                                const I3& b, const I3& out, const I3& residual, bool bias, bool has_residual,
                                bool relu) {
    return {dtype_of(dtype),
            batch,
            m,
            n,
            k,
            matrix_strides(a),
            matrix_strides(b),
            matrix_strides(out),
            matrix_strides(residual),
            bias,
            has_residual,
            relu};
}

// The kinds of a family by the names of their ops.
struct PoolName {
    PoolKind kind;
    const char* op;
};
constexpr PoolName kPools[] = {{PoolKind::max, "max_pool"},
                               {PoolKind::avg, "avg_pool"},
                               {PoolKind::adaptive_max, "adaptive_max_pool"},
                               {PoolKind::adaptive_avg, "adaptive_avg_pool"}};
struct NormName {
    NormKind kind;
    const char* op;
};
constexpr NormName kNorms[] = {{NormKind::batch_norm, "batch_norm"},
                               {NormKind::local_response_norm, "local_response_norm"},
                               {NormKind::channel_sum, "channel_sum"}};
struct PointwiseName {
    PointwiseKind kind;
    const char* op;
};
constexpr PointwiseName kPointwise[] = {{PointwiseKind::relu, "relu"}};

template <class Name, size_t N>
auto kind_of(const Name (&names)[N], const std::string& op) {
    for (const Name& name : names)
        if (op == name.op) return name.kind;
    throw std::invalid_argument("op " + op + " has no C++ kernels");
}

template <class Name, size_t N, class Kind>
const char* name_of(const Name (&names)[N], Kind kind) {
    for (const Name& name : names)
        if (kind == name.kind) return name.op;
    return "";
}

inline const char* op_of(const ConvProblem&) { return "conv"; }
inline const char* op_of(const GemmProblem&) { return "gemm"; }
inline const char* op_of(const PoolProblem& problem) { return name_of(kPools, problem.kind); }
inline const char* op_of(const NormProblem& problem) { return name_of(kNorms, problem.kind); }
inline const char* op_of(const PointwiseProblem& problem) { return name_of(kPointwise, problem.kind); }

inline PoolProblem pool_problem(const std::string& op, const std::string& pass, const std::string& dtype, int64_t n,
                                int64_t c, const I3& size, const I3& filter, const I3& out, const I3& stride,
                                const I3& padding, const I3& dilation, const I6& input, const I6& output,
                                const std::string& indices, bool count_include_pad, int64_t divisor) {
    return {kind_of(kPools, op),
            pass_of(pass),
            dtype_of(dtype),
            n,
            c,
            spatial(size),
            spatial(filter),
            spatial(out),
            spatial(stride),
            spatial(padding),
            spatial(dilation),
            strides(input),
            strides(output),
            indices_of(indices),
            count_include_pad,
            divisor};
}

inline NormProblem norm_problem(const std::string& op, const std::string& pass, const std::string& dtype, int64_t n,
                                int64_t c, const I3& size, const I6& input, const I6& output, bool training,
                                int64_t window, const I6& residual, bool has_residual, bool relu) {
    return {kind_of(kNorms, op),
            pass_of(pass),
            dtype_of(dtype),
            n,
            c,
            spatial(size),
            strides(input),
            strides(output),
            training,
            window,
            strides(residual),
            has_residual,
            relu};
}

inline PointwiseProblem pointwise_problem(const std::string& op, const std::string& pass, const std::string& dtype,
                                          int64_t count, bool mask) {
    return {kind_of(kPointwise, op), pass_of(pass), dtype_of(dtype), count, mask};
}

// A function of the module: name(algorithm, fields of the problem..., others...) -> what `make` returns, a plan mostly.
template <class Made, class Problem, class... Fields, class... Others>
void define_planner(pybind11::module_& m, const char* name, Problem (*problem_of)(Fields...),
                    Made (*make)(const std::string& algorithm, const Problem&, Others...)) {
    m.def(name, [=](const std::string& algorithm, Fields... fields, Others... others) {
        return make(algorithm, problem_of(fields...), others...);
    });
}

}  // namespace pycv::bindings
