// Images in tiles, and where their transforms lie: what the algorithms that transform tiles (Winograd, FFT) share.
//
// A tensor's tiles are transformed into planes, one for each element of a transformed tile; a plane holds that element
// of every tile and channel of a group, either the tiles of a channel side by side or the channels of a tile. In each
// plane the convolution is a matrix product (batched_product.h).
#pragma once

#include <algorithm>

#include "../common/problem.h"
#include "batched_product.h"
#include "device/launch.h"
#include "integers.h"

namespace pycv::cuda {

// How many tiles there are per image. They are numbered along the rows, image by image.
struct TileGrid {
    int64_t images, rows, columns;

    int64_t count() const { return images * rows * columns; }
};

// Some neighbours among the tiles of all images. Within them, 32 bits suffice.
struct TileRange {
    int64_t image;    // of the first tile
    unsigned offset;  // of the first tile in its image
    unsigned count;
    unsigned rows, columns;  // per image

    TileRange(const TileGrid& grid, int64_t begin, int64_t end)
        : image(begin / std::max<int64_t>(1, grid.rows * grid.columns)),
          offset(static_cast<unsigned>(begin % std::max<int64_t>(1, grid.rows * grid.columns))),
          count(static_cast<unsigned>(end - begin)),
          rows(static_cast<unsigned>(grid.rows)),
          columns(static_cast<unsigned>(grid.columns)) {}
};

struct TilePlace {
    int64_t n, row, column;
};

__device__ __forceinline__ TilePlace place_of(const TileRange& range, unsigned tile) {
    const unsigned index = range.offset + tile, in_image = index % (range.rows * range.columns);
    return {range.image + index / (range.rows * range.columns), in_image / range.columns, in_image % range.columns};
}

// The planes of all groups: `count` of each group, one after the other, of `channels` (per group) by `tiles`.
struct Planes {
    int64_t groups, count, channels, tiles;
    bool channels_along;         // channels lie side by side, not tiles
    int64_t line, plane, group;  // elements from one to the next

    Planes(int64_t groups, int64_t count, int64_t channels, int64_t tiles, bool channels_along)
        : groups(groups), count(count), channels(channels), tiles(tiles), channels_along(channels_along) {
        line = line_elements(channels_along ? channels : tiles);
        plane = line * (channels_along ? tiles : channels);
        group = plane * count;
    }
    int64_t all_channels() const { return groups * channels; }
    int64_t elements() const { return groups * group; }

    // Of the first plane, for the channels of all groups.
    __device__ __forceinline__ int64_t at(unsigned channel, unsigned tile) const {
        const unsigned in_group = channel % static_cast<unsigned>(channels);
        const int64_t base = channel / static_cast<unsigned>(channels) * group;
        return base + (channels_along ? tile * line + in_group : in_group * line + tile);
    }
};

// Whether neighbouring threads should take neighbouring channels of a tensor, rather than tiles.
inline bool channels_along(const Strides& s, int64_t channels) { return s.c == 1 && (s.w != 1 || channels > 1); }

// Tiles at a time, for `limit` bytes at `per_tile` bytes each: equal shares of all, but for the last in multiples of
// `step`, and few enough for 32-bit counts of threads.
inline int64_t tiles_at_a_time(int64_t tiles, int64_t channels, int64_t per_tile, int64_t limit, int64_t step) {
    constexpr int64_t kMostThreads = int64_t{1} << 30;
    const int64_t fitting =
        std::min(limit / std::max<int64_t>(1, per_tile), kMostThreads / std::max<int64_t>(1, channels));
    const int64_t most = std::max(step, fitting / step * step);
    const int64_t parts = std::max<int64_t>(1, ceil_div(tiles, most));
    return std::max(step, std::min(most, ceil_div(ceil_div(tiles, parts), step) * step));
}

}  // namespace pycv::cuda
