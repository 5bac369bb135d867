// Vectors of bytes from and to vectors of wider integers, doubling or halving at each step: the compiler has an
// instruction for each of these, and converts lane by lane in one step. Only for kernel files (ISA namespace).
#pragma once

#include "row_vectors.h"

namespace pycv::cpu::PYCV_ISA {

// L bytes at p as integers of 4 or 8 bytes.
template <class I, int L>
inline Row<I, L> load_bytes(const uint8_t* p) {
    const Row<uint16_t, L> two = __builtin_convertvector((load_row<Row<uint8_t, L>>(p)), Row<uint16_t, L>);
    if constexpr (sizeof(I) == 4) {
        return __builtin_convertvector(two, Row<I, L>);
    } else {
        return __builtin_convertvector(__builtin_convertvector(two, Row<uint32_t, L>), Row<I, L>);
    }
}

// The lowest byte of each of L integers of 4 or 8 bytes.
template <class I, int L>
inline void store_bytes(uint8_t* p, Row<I, L> v) {
    Row<uint16_t, L> two;
    if constexpr (sizeof(I) == 4) {
        two = __builtin_convertvector(v, Row<uint16_t, L>);
    } else {
        two = __builtin_convertvector(__builtin_convertvector(v, Row<uint32_t, L>), Row<uint16_t, L>);
    }
    store_row(p, __builtin_convertvector(two, Row<uint8_t, L>));
}

}  // namespace pycv::cpu::PYCV_ISA
