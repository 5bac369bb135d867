// Products of many small matrices, c[i] = a[i] b[i], of real or complex elements in plain memory: the middle of the
// algorithms that transform tiles (Winograd, FFT). batched_product.cu says how.
#pragma once

#include <cstdint>

#include "complex.h"
#include "plan.h"

namespace pycv::cuda {

// Elements (float, double, Complex of either) that lines and batches are multiples of, so that 16 bytes can be read at
// a time. All three matrices begin at a multiple of 16 bytes.
inline constexpr int64_t kLineElements = 4;

inline int64_t line_elements(int64_t count) { return (count + kLineElements - 1) / kLineElements * kLineElements; }

// One operand, lines of elements along k (element (row, k) at row * line + k) or across it (at k * line + row). Of b,
// rows are columns.
template <class E>
struct ProductOperand {
    const E* data;
    int64_t batch, line;
    bool along_k;
};

// c is m x n, row by row. Split s of `splits` sums its share of k alone, into c + s * split.
template <class E>
struct BatchedProduct {
    int64_t batches, m, n, k;
    ProductOperand<E> a, b;
    E* c;
    int64_t c_batch, c_line;
    bool add;  // to what c holds
    int64_t splits = 1, split = 0;
};

template <class E>
void run_product(const BatchedProduct<E>& product, Stream stream);

// Splits that keep a large GPU busy, where k is long enough for them; at most `most`.
int64_t product_splits(int64_t batches, int64_t m, int64_t n, int64_t k, int64_t most);

}  // namespace pycv::cuda
