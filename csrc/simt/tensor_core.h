// Tensor cores on the host: ldmatrix and mma.sync as collectives of a full warp (cuda/device/mma.h says who holds
// what).
//
// Products of two operands are exact; they are added to the sum one after the other, in the order of k, and what the
// sum has no bits for is cut off each time, towards zero: the device adds several at once before it cuts.
#pragma once

#include "runtime.h"

namespace pycv::simt {

enum class MatrixType { f16, bf16, tf32 };

// What a lane brings to a product and gets from it.
struct MatrixFragments {
    unsigned a[4], b[2];
    float sums[4];
};

// sums += a * b of a warp: 16 x 8 sums, over 16 k, of tf32 over 8. Of an operand in tf32 only the bits count that it
// has.
void multiply_fragments(MatrixType type, MatrixFragments& lane, Site site);

// Four 8 x 8 matrices of 16 bits: lane 8 * i + r brings the address of row r of matrix i, in shared memory.
void load_fragments(const void* row, bool transposed, unsigned (&registers)[4], Site site);

}  // namespace pycv::simt
