// Counts that the plans' costs (plan.h) are made of, and what follows from them.
#pragma once

#include "integers.h"
#include "plan.h"

namespace pycv::cpu::PYCV_ISA {

// Bytes beyond which tensors come from memory: half of a usual last-level cache.
inline constexpr double kPastCaches = 16 << 20;

inline double element_bytes(DType dtype) { return dtype == DType::f64 ? 8 : 4; }

// The activations of a convolution, each moved once.
inline double activation_bytes(const ConvProblem& p) {
    const double inputs = static_cast<double>(p.n) * static_cast<double>(p.c * p.size.count());
    const double outputs = static_cast<double>(p.n) * static_cast<double>(p.k * p.out.count());
    const double residual = !p.has_residual ? 0 : p.pass == Pass::forward ? outputs : inputs;
    return (inputs + outputs + residual) * element_bytes(p.dtype);
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

inline double tensor_bytes(const GemmProblem& p) {
    const double out = static_cast<double>(p.m) * static_cast<double>(p.n) * (p.has_residual ? 2 : 1);
    const double operands = static_cast<double>(p.k) * static_cast<double>(p.m + p.n);
    return static_cast<double>(p.batch) * (operands + out) * element_bytes(p.dtype);
}

}  // namespace pycv::cpu::PYCV_ISA
