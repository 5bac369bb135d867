// Counts that the plans' costs (plan.h) are made of, and what follows from them.
#pragma once

#include "integers.h"
#include "plan.h"

namespace pycv::cpu::PYCV_ISA {

// Bytes beyond which tensors come from memory: half of a usual last-level cache.
inline constexpr double kPastCaches = 16 << 20;
// Bytes beyond which a result is written past the caches (store_streaming()), a quarter of a usual last-level one: that
// saves reading its lines first, and leaves what is still to be read where it is.
inline constexpr double kStreamedBytes = 8 << 20;

inline double element_bytes(DType dtype) { return dtype == DType::f64 ? 8 : 4; }

inline double input_bytes(const ConvProblem& p) {
    return static_cast<double>(p.n) * static_cast<double>(p.c * p.size.count()) * element_bytes(p.dtype);
}
inline double output_bytes(const ConvProblem& p) {
    return static_cast<double>(p.n) * static_cast<double>(p.k * p.out.count()) * element_bytes(p.dtype);
}
// The activations that forward or grad_input computes.
inline double computed_bytes(const ConvProblem& p) {
    return p.pass == Pass::forward ? output_bytes(p) : input_bytes(p);
}

// The activations of a convolution, each moved once.
inline double activation_bytes(const ConvProblem& p) {
    return input_bytes(p) + output_bytes(p) + (p.has_residual ? computed_bytes(p) : 0);
}

inline double weight_elements(const ConvProblem& p) {
    return static_cast<double>(p.k) * static_cast<double>(p.c / larger(p.groups, 1) * p.filter.count());
}

// Everything a convolution reads and writes, with the weight as it is.
inline double tensor_bytes(const ConvProblem& p) {
    return activation_bytes(p) + weight_elements(p) * element_bytes(p.dtype);
}

inline double direct_multiply_adds(const ConvProblem& p) {
    return weight_elements(p) * static_cast<double>(p.n) * static_cast<double>(p.out.count());
}

inline double result_bytes(const GemmProblem& p) {
    return static_cast<double>(p.batch * p.m) * static_cast<double>(p.n) * element_bytes(p.dtype);
}
inline double tensor_bytes(const GemmProblem& p) {
    const double operands = static_cast<double>(p.batch * p.k) * static_cast<double>(p.m + p.n);
    return operands * element_bytes(p.dtype) + result_bytes(p) * (p.has_residual ? 2 : 1);
}

}  // namespace pycv::cpu::PYCV_ISA
