// Padded copies: rows that begin anywhere in memory, written to rows that begin at multiples of 16 bytes.
//
// Of rows that lie side by side a thread loads 8 elements, one by one, and stores them as a vector; its neighbours have
// the next vectors, so that a warp reads and writes whole sectors. Where columns lie side by side instead, the matrix
// is transposed through shared memory (transpose.cu). Every element is read and written once: 4 bytes, bound by memory
// bandwidth. Bits are moved, whatever they mean.
// Tuned: no kernel of this file may spill registers.
#include "device/launch.h"
#include "device/vector.h"
#include "division.h"
#include "padded_copy.h"
#include "transpose.h"

namespace pycv::cuda {
namespace {

using Bits = uint16_t;
constexpr int kThreads = 256, kVector = widest_vector<Bits>;

__global__ void __launch_bounds__(kThreads)
    padded_copy_kernel(PaddedCopy c, int64_t vectors, Divider by_vectors, Divider by_rows, const Bits* from, Bits* to) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= vectors) return;
    int64_t batch = index;
    const int64_t column = by_vectors.split(batch) * kVector, row = by_rows.split(batch);
    from += batch * c.from_batch + row * c.from_row + column * c.from_column;
    Vector<Bits, kVector> vector;
#pragma unroll
    for (int i = 0; i < kVector; ++i) vector[i] = column + i < c.columns ? from[i * c.from_column] : Bits{0};
    store_vector(to + index * kVector, vector);
}

}  // namespace

void copy_padded(const void* from, void* to, const PaddedCopy& c, Stream stream) {
    if (c.from_row == 1 && c.from_column != 1) {
        const Transposition t{c.batch, c.columns, c.rows, c.from_batch, c.from_column, c.rows * c.pitch(), c.pitch()};
        transpose(from, to, t, DType::f16, stream);
        return;
    }
    const int64_t of_row = c.pitch() / kVector, vectors = c.batch * c.rows * of_row;
    if (vectors == 0) return;
    launch(padded_copy_kernel, dim3(static_cast<unsigned>(ceil_div<int64_t>(vectors, kThreads))), kThreads, 0, stream,
           c, vectors, Divider(of_row, vectors), Divider(c.rows, vectors), static_cast<const Bits*>(from),
           static_cast<Bits*>(to));
}

}  // namespace pycv::cuda
