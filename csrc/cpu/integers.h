// Integer arithmetic of sizes, without the standard library's templates (isa.h says why).
#pragma once

#include <cstdint>

namespace pycv::cpu::PYCV_ISA {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t value, int64_t step) { return divide_up(value, step) * step; }

}  // namespace pycv::cpu::PYCV_ISA
