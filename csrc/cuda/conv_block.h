// Which tile a block of an implicit GEMM computes: blocks go through columns first, then lines, phases, groups and
// parts of the depth.
#pragma once

#include <cstdint>

#include "device/launch.h"

namespace pycv::cuda {

struct ConvBlock {
    int64_t part, line, column;  // line and column of the tile's corner
    int group, phase;

    // For tiles of this size, `down` x `across` of them in each phase of each group.
    template <int Lines, int Columns>
    static __device__ ConvBlock of(int64_t down, int64_t across, int phases, int groups) {
        ConvBlock block;
        int64_t rest = blockIdx.x;
        block.column = rest % across * Columns;
        rest /= across;
        block.line = rest % down * Lines;
        rest /= down;
        block.phase = static_cast<int>(rest % phases);
        rest /= phases;
        block.group = static_cast<int>(rest % groups);
        block.part = rest / groups;
        return block;
    }
};

}  // namespace pycv::cuda
