// Which shape of tile a product on tensor cores takes, and in how many parts its depth is shared among blocks.
//
// The shapes are data. A plan knows no device, so it assumes a large one and takes what such a one would be done with
// first: waves of blocks, each as long as its multiply-adds at the rate of its shape, and what it costs to write parts
// of sums and to read them again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "device/multiprocessors.h"
#include "integers.h"

namespace pycv::cuda {

// The blocks of a shape that a multiprocessor runs at a time, and the share of its peak that they reach together: not
// measured yet, what the shared memory that they read per multiply-add lets expect.
struct MmaTileRow {
    int rows, columns, blocks_together;
    double rate;
};
constexpr MmaTileRow kMmaTiles[] = {{128, 128, 2, 1.0}, {128, 64, 3, 0.85}, {64, 128, 3, 0.85}, {64, 64, 4, 0.6}};
enum MmaTileIndex : int { kLargeTile, kTallTile, kWideTile, kSmallTile };

struct MmaTileChoice {
    MmaTileIndex tile = kSmallTile;
    int64_t down = 0, across = 0;  // tiles
    int64_t parts = 1, part_depth = 0;

    int64_t tiles() const { return down * across; }
    int64_t tile_elements() const { return static_cast<int64_t>(kMmaTiles[tile].rows) * kMmaTiles[tile].columns; }
};

// For `count` products of rows x depth x columns, one of these tiles; depth in steps of `step`. Parts of sums in fp32
// fit into the limit.
inline MmaTileChoice choose_mma_tile(std::initializer_list<MmaTileIndex> tiles, int64_t count, int64_t rows,
                                     int64_t columns, int64_t depth, int64_t step, int64_t workspace_limit) {
    constexpr int64_t most_parts = 64;
    constexpr double begin_and_end = 6;                     // of a block, in steps
    constexpr double multiply_adds = 1024, kept_bytes = 8;  // of a multiprocessor in a cycle; written and read again
    MmaTileChoice best;
    double least = 0;
    const int64_t steps = ceil_div(depth, step);
    for (const MmaTileIndex index : tiles) {
        const MmaTileRow& tile = kMmaTiles[index];
        MmaTileChoice choice{index, ceil_div<int64_t>(rows, tile.rows), ceil_div<int64_t>(columns, tile.columns)};
        const int64_t blocks = count * choice.tiles();
        for (int64_t parts = 1; parts <= std::min(most_parts, std::max<int64_t>(steps, 1)); parts *= 2) {
            const int64_t part_steps = ceil_div(std::max<int64_t>(steps, 1), parts);
            choice.parts = ceil_div(std::max<int64_t>(steps, 1), part_steps);
            choice.part_depth = part_steps * step;
            const int64_t bytes = choice.parts * blocks * choice.tile_elements() * 4;
            if (choice.parts > 1 && bytes > workspace_limit) break;
            const auto area = static_cast<double>(choice.tile_elements());
            const int64_t waves = ceil_div(blocks * choice.parts, kPlannedMultiprocessors * tile.blocks_together);
            double time =
                waves * (part_steps + begin_and_end) * step * area * tile.blocks_together / (tile.rate * multiply_adds);
            if (choice.parts > 1) time += bytes / (kept_bytes * kPlannedMultiprocessors);
            if (least != 0 && time >= least) continue;
            least = time;
            best = choice;
        }
    }
    return best;
}

}  // namespace pycv::cuda
