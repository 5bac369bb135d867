// Copies matrices of 16-bit elements so that their rows begin at multiples of 16 bytes, as boxes and vectors need them.
#pragma once

#include "integers.h"
#include "plan.h"

namespace pycv::cuda {

// to[b][row][column] = from[b][row][column]; the elements of a row lie side by side in `to`, rows and matrices too.
struct PaddedCopy {
    int64_t batch, rows, columns;
    int64_t from_batch, from_row, from_column;  // elements from one to the next

    int64_t pitch() const { return ceil_div<int64_t>(columns, 8) * 8; }
    int64_t bytes() const { return batch * rows * pitch() * 2; }
};

// Launches on the stream. `to` begins at a multiple of 16 bytes and overlaps nothing; what pads its rows is undefined.
void copy_padded(const void* from, void* to, const PaddedCopy&, Stream);

}  // namespace pycv::cuda
