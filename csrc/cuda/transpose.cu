// Layout transposes through shared memory.
//
// A block reads a tile of 32x32 elements by rows and writes it by columns, so that both accesses are coalesced; rows of
// the tile have one element of padding, so that a column of it lies in 32 different banks. Every element is read and
// written once: 8 bytes per fp32 element, bound by memory bandwidth. Bits are moved, whatever they mean.
// Tuned: no kernel of this file may spill registers.
#include "division.h"
#include "integers.h"
#include "transpose.h"

namespace pycv::cuda {
namespace {

constexpr int kTile = 32;
constexpr int kRows = 8;  // of a tile that a block reads at a time

template <class Bits>
__global__ void transpose_kernel(Transposition t, Divider by_column_tiles, Divider by_row_tiles, const Bits* from,
                                 Bits* to) {
    __shared__ Bits tile[kTile][kTile + 1];
    const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
    int64_t matrix = blockIdx.x;
    const int64_t first_column = by_column_tiles.split(matrix) * kTile, first_row = by_row_tiles.split(matrix) * kTile;
    from += matrix * t.from_batch;
    to += matrix * t.to_batch;
#pragma unroll
    for (int i = 0; i < kTile; i += kRows) {
        const int64_t row = first_row + y + i, column = first_column + x;
        if (row < t.rows && column < t.columns) tile[y + i][x] = from[row * t.from_row + column];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTile; i += kRows) {
        const int64_t row = first_row + x, column = first_column + y + i;
        if (row < t.rows && column < t.columns) to[column * t.to_row + row] = tile[x][y + i];
    }
}

template <class Bits>
void transpose_bits(const void* from, void* to, const Transposition& t, Stream stream) {
    const int64_t column_tiles = ceil_div<int64_t>(t.columns, kTile), row_tiles = ceil_div<int64_t>(t.rows, kTile);
    const int64_t blocks = t.batch * row_tiles * column_tiles;
    if (blocks == 0) return;
    launch(transpose_kernel<Bits>, dim3(static_cast<unsigned>(blocks)), dim3(kTile, kRows), 0, stream, t,
           Divider(column_tiles, blocks), Divider(row_tiles, blocks), static_cast<const Bits*>(from),
           static_cast<Bits*>(to));
}

}  // namespace

void transpose(const void* from, void* to, const Transposition& t, DType dtype, Stream stream) {
    switch (dtype) {
        case DType::f32: return transpose_bits<uint32_t>(from, to, t, stream);
        case DType::f64: return transpose_bits<uint64_t>(from, to, t, stream);
        case DType::f16:
        case DType::bf16: return transpose_bits<uint16_t>(from, to, t, stream);
    }
}

}  // namespace pycv::cuda
