// Blocks of tiles: how an image is cut into tiles, how runs of tiles are read and transformed, and how a team shares a
// block. What the passes of Winograd convolution have in common.
#pragma once

#include "parallel.h"
#include "winograd_phases.h"

namespace pycv::cpu::PYCV_ISA {

// An axis' pixels up to the last one that a window reads, or that reads a window's: tiles may reach others.
inline int64_t pixels_read(int64_t size, int64_t out, int64_t filter, int64_t stride, int64_t padding) {
    return smaller(size, larger(0, (out - 1) * stride + filter - padding));
}
inline int64_t windows_reading(int64_t size, int64_t out, int64_t stride, int64_t padding) {
    return smaller(out, (size - 1 + padding) / stride + 1);
}

// Tiles [begin, end) of a batch.
struct TileRange {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
};

// The tiles of a batch of images, row by row, and the largest rectangle of them that is worked on through a patch.
struct TileGrid {
    int64_t n, rows, columns;
    int64_t patch_rows, patch_columns;

    int64_t count() const { return n * rows * columns; }

    // The largest rectangle that begins with a tile and ends before another.
    Rectangle rectangle(int64_t tile, int64_t end) const {
        const int64_t column = tile % columns, row = tile / columns % rows, image = tile / columns / rows;
        if (column == 0 && patch_columns == columns && end - tile >= columns)
            return {image, row, 0, smaller(smaller(patch_rows, rows - row), (end - tile) / columns), columns};
        return {image, row, column, 1, smaller(smaller(patch_columns, columns - column), end - tile)};
    }

    // body(rectangle, its first tile)
    template <class Body>
    void for_each_rectangle(TileRange range, const Body& body) const {
        for (int64_t tile = range.begin; tile < range.end;) {
            const Rectangle found = rectangle(tile, range.end);
            body(found, tile);
            tile += found.rows * found.columns;
        }
    }
};

// Tiles of m x m pixels with patches, for windows of step + overlap pixels per tile or for its m pixels, of the size of
// an L1 cache: smaller ones make shorter runs of pixels.
inline TileGrid tile_grid(int64_t n, int64_t height, int64_t width, int64_t m, int64_t step, int64_t window) {
    constexpr int64_t kPatchBytes = 30 * 1024;
    const int64_t overlap = window - step, pitch = larger(m, step);
    const auto fitting = [&](int64_t pixels) {
        return larger(1, (kPatchBytes / (pixels * PYCV_VECTOR_BYTES) - overlap) / pitch);
    };
    TileGrid grid{n, divide_up(height, m), divide_up(width, m), 1, 1};
    if (grid.columns > 0)
        grid.patch_columns = divide_up(grid.columns, divide_up(grid.columns, fitting(pitch + overlap)));
    if (grid.patch_columns == grid.columns)
        grid.patch_rows = larger(1, smaller(grid.rows, fitting(grid.columns * pitch + overlap)));
    return grid;
}

template <class T>
int64_t patch_elements(const TileGrid& grid, int64_t step, int64_t window) {
    const int64_t overlap = window - step;
    return (grid.patch_rows * step + overlap) * (grid.patch_columns * step + overlap) * lanes<T>;
}

// The distance between planes: an odd number of vectors, so that the planes of a tile fall into different cache sets.
template <class T>
int64_t plane_elements(int64_t vectors) {
    return (vectors | 1) * lanes<T>;
}

// Whether whole vectors of channels lie side by side.
template <class T>
bool takes_vectors(Access access, const Strides& s) {
    return access == Access::pixels && (s.block == 1 || s.block >= lanes<T>);
}

// Transformed tiles: planes[xi][vector of channels][tile of the block].
template <class T>
struct TilePlanes {
    T* data;
    int64_t plane;  // elements from one plane to the next
    TileRange block;

    T* at(int64_t vector, int64_t tile) const { return data + (vector * block.size() + tile - block.begin) * lanes<T>; }
};

// How a tensor's tiles are read and transformed.
template <class T>
struct TileReader {
    TileGrid grid;
    int64_t step, window;  // tiles lie step pixels apart and read window x window pixels
    int64_t top, left;     // the first tile begins at row -top and column -left
    Phases phases;         // of a strided convolution: tiles are those of the image of phases
    Access access;
    // `tiles` neighbours along a row, the first of which begins at `from`.
    void (*transform)(const T* from, int64_t row, int64_t pixel, int64_t tiles, T* to, int64_t plane);
    Prologue<T> prologue;

    // Some vectors of channels of some tiles of the planes' block.
    void read(const Image<const T>& image, TileRange part, Range vectors, const TilePlanes<T>& to, T* patch) const {
        const bool whole = takes_vectors<T>(access, image.strides) && !has_prologue() && phases.count() == 1;
        const int64_t full = whole ? image.channels / lanes<T> : 0;
        const Range direct{vectors.begin, larger(vectors.begin, smaller(vectors.end, full))};
        const Range patched{direct.end, vectors.end};
        grid.for_each_rectangle(part, [&](const Rectangle& rectangle, int64_t tile) {
            if (direct.begin < direct.end) read_pixels(image, rectangle, tile, direct, to, patch);
            if (patched.begin < patched.end) read_patches(image, rectangle, tile, patched, to, patch);
        });
    }

private:
    // Reads the tiles that lie within the image where they are.
    void read_pixels(const Image<const T>& image, const Rectangle& r, int64_t tile, Range vectors,
                     const TilePlanes<T>& to, T* patch) const {
        const int64_t end = r.column + r.columns;
        for (int64_t row = r.row; row < r.row + r.rows; ++row, tile += r.columns) {
            const int64_t y = row * step - top;
            const bool inside = y >= 0 && y + window <= image.height;
            const int64_t first = inside ? within(divide_up(larger(left, 0), step), r.column, end) : end;
            const int64_t last = inside ? within((image.width + left - window + step) / step, first, end) : end;
            const auto edge = [&](int64_t begin, int64_t stop) {
                if (begin >= stop) return;
                read_patches(image, {r.n, row, begin, 1, stop - begin}, tile + begin - r.column, vectors, to, patch);
            };
            edge(r.column, first);
            if (first < last)
                for (int64_t v = vectors.begin; v < vectors.end; ++v)
                    transform(image.at(r.n, v * lanes<T>, y, first * step - left), image.strides.h, image.strides.w,
                              last - first, to.at(v, tile + first - r.column), to.plane);
            edge(last, end);
        }
    }

    static int64_t within(int64_t value, int64_t low, int64_t high) { return larger(low, smaller(value, high)); }

    void read_patches(const Image<const T>& image, const Rectangle& r, int64_t tile, Range vectors,
                      const TilePlanes<T>& to, T* patch) const {
        const int64_t overlap = window - step, y = r.row * step - top, x = r.column * step - left;
        const Box all{y, y + r.rows * step + overlap, x, x + r.columns * step + overlap};
        const Box inside = all.within(image.height, image.width);
        const int64_t line = all.columns() * lanes<T>;
        if (phases.count() == 1) zero_frame(patch, all, inside);
        for (int64_t v = vectors.begin; v < vectors.end; ++v) {
            if (phases.count() > 1) {
                PhaseVector<T>(image, phases, v * lanes<T>, prologue).read(access, r.n, all, patch);
            } else {
                read_patch<T>(image, access, r.n, v * lanes<T>, all, inside, patch);
                if (has_prologue()) apply_prologue(image, v * lanes<T>, all, inside, patch);
            }
            for (int64_t row = 0; row < r.rows; ++row)
                transform(patch + row * step * line, line, lanes<T>, r.columns, to.at(v, tile + row * r.columns),
                          to.plane);
        }
    }

    bool has_prologue() const { return prologue.scale || prologue.relu; }

    void apply_prologue(const Image<const T>& image, int64_t channel, const Box& all, const Box& inside,
                        T* patch) const {
        const int64_t count = smaller(lanes<T>, image.channels - channel);
        Vec<T> factor = broadcast<T>(1), addend{};
        if (prologue.scale) {
            factor = load_partial<T>(prologue.scale + channel, count);
            addend = load_partial<T>(prologue.shift + channel, count);
        }
        const Vec<T> floor = broadcast<T>(prologue.relu ? T(0) : -static_cast<T>(__builtin_inf()));
        for (int64_t row = inside.top; row < inside.bottom; ++row)
            for (int64_t column = inside.left; column < inside.right; ++column) {
                T* at = patch + ((row - all.top) * all.columns() + (column - all.left)) * lanes<T>;
                store<T>(at, at_least<T>(load<T>(at) * factor + addend, floor));
            }
    }
};

// Splits a block's `units` (vectors or panels of channels) over a team, and the block's tiles too where the units alone
// would not be shared evenly.
template <class Body>
void share_block(TileRange block, int64_t units, int thread, int team, const Body& body) {
    constexpr int64_t kFewTiles = 7;
    int64_t pieces = 1;
    while (units * pieces % team != 0 && pieces < 2 * team && block.size() >= (pieces + 1) * kFewTiles) ++pieces;
    const Range mine = share(units * pieces, thread, team);
    for (int64_t piece = 0; piece < pieces; ++piece) {
        const Range range{larger(0, mine.begin - piece * units), smaller(units, mine.end - piece * units)};
        const TileRange part{block.begin + block.size() * piece / pieces,
                             block.begin + block.size() * (piece + 1) / pieces};
        if (range.begin < range.end) body(part, range);
    }
}

}  // namespace pycv::cpu::PYCV_ISA
