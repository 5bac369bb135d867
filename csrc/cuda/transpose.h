// Transposes matrices in memory, as from nchw to nhwc and back: channels are the rows of one, positions of the other.
#pragma once

#include "plan.h"

namespace pycv::cuda {

// to[b][column][row] = from[b][row][column]; the elements of a row lie side by side on both sides.
struct Transposition {
    int64_t batch, rows, columns;
    int64_t from_batch, from_row;  // elements from one matrix to the next, from one row to the next
    int64_t to_batch, to_row;

    // Dense images of so many channels.
    static Transposition nchw_to_nhwc(int64_t n, int64_t channels, int64_t positions) {
        return {n, channels, positions, channels * positions, positions, channels * positions, channels};
    }
    static Transposition nhwc_to_nchw(int64_t n, int64_t channels, int64_t positions) {
        return nchw_to_nhwc(n, positions, channels);
    }
};

// Launches on the stream. The tensors do not overlap.
void transpose(const void* from, void* to, const Transposition&, DType, Stream);

}  // namespace pycv::cuda
