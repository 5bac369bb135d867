// Products of warp groups (wgmma) on the host: cuda/device/wgmma.h says what they do.
//
// Eager, a product happens when it is issued. Lazy, it happens when its warp waits for it and no thread can go on, no
// load is under way either: the latest moment that the device may choose. Sums are added up as tensor_core.h says.
#pragma once

#include "tensor_core.h"

namespace pycv::simt {

// 64 x columns sums, 32 bytes of k. Operands are descriptors of dynamic shared memory; `by_lines`: what neighbours in
// memory are lines, not k.
struct GroupProduct {
    MatrixType type;
    int columns;
    bool a_by_lines, b_by_lines;
    std::uint64_t a, b;
};

std::uint64_t describe_matrix(const void* shared, unsigned leading_bytes, unsigned stride_bytes, unsigned span,
                              Site site);
void fence_products(Site site);
void multiply_async(const GroupProduct& product, float* sums, Site site);
void commit_products(Site site);
void wait_for_products(int allowed, Site site);

// By stmatrix: the other way round of load_fragments.
void store_fragments(void* row, const unsigned (&registers)[4], Site site);

}  // namespace pycv::simt
