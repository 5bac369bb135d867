// Which tiles of mma_sync autotune may measure for a product: the names of those of mma_tile_choice.h.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "mma_tile_choice.h"
#include "tile_entry.h"

namespace pycv::cuda {

using MmaTiles = std::initializer_list<MmaTileIndex>;

inline std::string name_of(MmaTileIndex tile) { return tile_name(kMmaTiles[tile].rows, kMmaTiles[tile].columns); }

// The one of a name that was offered.
inline MmaTileIndex tile_of(const std::string& name) {
    for (const MmaTileIndex tile : {kLargeTile, kTallTile, kWideTile})
        if (name == name_of(tile)) return tile;
    return kSmallTile;
}

// Whether no more tiles of one than of another, larger one cover a result.
inline bool does_as_well(MmaTileIndex one, MmaTileIndex other, int64_t rows, int64_t columns) {
    const MmaTileRow &small = kMmaTiles[one], &large = kMmaTiles[other];
    return one != other && small.rows <= large.rows && small.columns <= large.columns &&
           ceil_div<int64_t>(rows, small.rows) == ceil_div<int64_t>(rows, large.rows) &&
           ceil_div<int64_t>(columns, small.columns) == ceil_div<int64_t>(columns, large.columns);
}

// Of `tiles`, for a result of rows x columns: the rule's first, and none that a smaller one does as well as.
inline std::vector<std::string> offered_tiles(MmaTiles tiles, MmaTileIndex rule, int64_t rows, int64_t columns) {
    std::vector<std::string> names{name_of(rule)};
    for (const MmaTileIndex tile : tiles) {
        bool needed = tile != rule;
        for (const MmaTileIndex smaller : tiles) needed = needed && !does_as_well(smaller, tile, rows, columns);
        if (needed) names.push_back(name_of(tile));
    }
    return names;
}

}  // namespace pycv::cuda
