// The blocked matrix product that GEMM and im2col convolution share.
//
// One operand, the stationary one (b, a convolution's weight, grad_output in grad_weight), is packed before; the
// other, the streamed one, is packed by each thread for itself, a block of panels at a time that stays in its L2 cache
// while all stationary panels pass by. Either may be the side of the lanes. Partial sums over depth blocks live in the
// output; bias, residual and relu are applied with the last block.
//
// Cost: 2 * streamed * stationary * depth FLOPs; the streamed operand is packed once per thread column of the grid, the
// output is visited once per depth block.
#pragma once

#include "cost.h"
#include "gemm_panels.h"

namespace pycv::cpu::PYCV_ISA {

// What happens to a finished sum: out = relu(alpha * sum + beta * residual + bias[stationary index]).
template <class T>
struct Sink {
    T* out;
    const T* residual;                            // null if none
    const T* bias;                                // null if none
    int64_t stationary_out, stationary_residual;  // strides along the stationary index
    T alpha, beta;
    bool relu;
};

// Where the elements of a tile lie in the output and the residual: row offset + column offset.
struct Offsets {
    const int64_t *out, *residual;
};

template <class T>
struct Tile {
    const T* sums;  // rows of kTileWidth
    int64_t rows, columns;
    Offsets row, column;
    const T* bias;  // of the tile's first row or column; null if none
    bool bias_on_rows;
};

// How many columns from j on are neighbours in memory.
inline int64_t contiguous_columns(const Offsets& column, int64_t j, int64_t columns, bool residual) {
    int64_t end = j + 1;
    while (end < columns && column.out[end] == column.out[end - 1] + 1 &&
           (!residual || column.residual[end] == column.residual[end - 1] + 1))
        ++end;
    return end - j;
}

template <class T>
inline void store_sums(const T* sums, T* out, int64_t count, bool add) {
    int64_t j = 0;
    for (; j + lanes<T> <= count; j += lanes<T>) {
        const Vec<T> v = load<T>(sums + j);
        store<T>(out + j, add ? load<T>(out + j) + v : v);
    }
    for (; j < count; ++j) out[j] = add ? out[j] + sums[j] : sums[j];
}

template <class T>
inline void finish_sums(const Sink<T>& sink, const T* sums, T* out, const T* residual, const T* bias, T row_bias,
                        int64_t count, bool add) {
    int64_t j = 0;
    for (; j + lanes<T> <= count; j += lanes<T>) {
        Vec<T> v = load<T>(sums + j);
        if (add) v += load<T>(out + j);
        v = v * sink.alpha;
        if (residual) v += sink.beta * load<T>(residual + j);
        v += bias ? load<T>(bias + j) : broadcast<T>(row_bias);
        store<T>(out + j, sink.relu ? relu<T>(v) : v);
    }
    for (; j < count; ++j) {
        T v = sums[j];
        if (add) v += out[j];
        v = v * sink.alpha;
        if (residual) v += sink.beta * residual[j];
        v += bias ? bias[j] : row_bias;
        out[j] = sink.relu ? relu<T>(v) : v;
    }
}

// A row of a tile whose columns lie anywhere.
template <class T>
inline void scatter_row(const Sink<T>& sink, const Tile<T>& tile, int64_t i, bool add, bool last) {
    const T* sums = tile.sums + i * kTileWidth<T>;
    T* out = sink.out + tile.row.out[i];
    const T* residual = sink.residual && last ? sink.residual + tile.row.residual[i] : nullptr;
    for (int64_t j = 0; j < tile.columns; ++j) {
        T v = sums[j];
        if (add) v += out[tile.column.out[j]];
        if (last) v = v * sink.alpha;
        if (residual) v += sink.beta * residual[tile.column.residual[j]];
        if (last && tile.bias) v += tile.bias[tile.bias_on_rows ? i : j];
        out[tile.column.out[j]] = last && sink.relu ? relu<T>(v) : v;
    }
}

// Adds a tile to the output (`add`) or starts it, and with the last depth block applies the epilogue.
template <class T>
void write_tile(const Sink<T>& sink, const Tile<T>& tile, bool add, bool last) {
    const bool residual_read = sink.residual != nullptr && last;
    if (tile.columns > 1 && contiguous_columns(tile.column, 0, tile.columns, residual_read) == 1) {
        for (int64_t i = 0; i < tile.rows; ++i) scatter_row<T>(sink, tile, i, add, last);
        return;
    }
    for (int64_t j = 0; j < tile.columns;) {
        const int64_t count = contiguous_columns(tile.column, j, tile.columns, residual_read);
        for (int64_t i = 0; i < tile.rows; ++i) {
            const T* sums = tile.sums + i * kTileWidth<T> + j;
            T* out = sink.out + tile.row.out[i] + tile.column.out[j];
            if (!last) {
                store_sums<T>(sums, out, count, add);
                continue;
            }
            const T* residual =
                residual_read ? sink.residual + tile.row.residual[i] + tile.column.residual[j] : nullptr;
            const T* bias = tile.bias && !tile.bias_on_rows ? tile.bias + j : nullptr;
            // -0 is what adding no bias must add.
            const T row_bias = tile.bias && tile.bias_on_rows ? tile.bias[i] : T(-0.0);
            finish_sums<T>(sink, sums, out, residual, bias, row_bias, count, add);
        }
        j += count;
    }
}

// The shape of a product and its blocking.
template <class T>
struct Product {
    Side<T> streamed, stationary;
    Depth depth;
    int64_t groups;                    // independent products
    int64_t block_panels;              // streamed panels that are packed at a time
    bool streamed_neighbours = false;  // neighbours in memory lie along streamed rows: see choose_grid()

    int64_t stationary_elements() const {  // packed, all groups
        return groups * depth.blocks() * stationary.panels() * stationary.panel_elements(depth.block);
    }
    int64_t stationary_panel(int64_t group, int64_t block, int64_t panel) const {
        return ((group * depth.blocks() + block) * stationary.panels() + panel) *
               stationary.panel_elements(depth.block);
    }
    int64_t block_elements() const { return block_panels * streamed.panel_elements(depth.block); }
};

// What one thread works with; carved out of the plan's workspace.
template <class T>
struct ThreadSpace {
    T* panels;
    T* scratch;
    int64_t *out, *residual;  // offsets of a block's streamed indices
};

inline int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

template <class T>
int64_t thread_space_bytes(const Product<T>& p) {
    return aligned(p.block_elements() * static_cast<int64_t>(sizeof(T))) +
           aligned(kScratchElements<T> * static_cast<int64_t>(sizeof(T))) +
           2 * aligned(p.block_panels * p.streamed.width * 8);
}

template <class T>
ThreadSpace<T> thread_space(const Product<T>& p, void* workspace, int thread) {
    char* at = static_cast<char*>(workspace) + thread * thread_space_bytes(p);
    ThreadSpace<T> space;
    space.panels = reinterpret_cast<T*>(at);
    at += aligned(p.block_elements() * static_cast<int64_t>(sizeof(T)));
    space.scratch = reinterpret_cast<T*>(at);
    at += aligned(kScratchElements<T> * static_cast<int64_t>(sizeof(T)));
    space.out = reinterpret_cast<int64_t*>(at);
    space.residual = reinterpret_cast<int64_t*>(at + aligned(p.block_panels * p.streamed.width * 8));
    return space;
}

// Streamed panels per block: about half of an L2 cache, and within the workspace limit.
template <class T>
int64_t choose_block_panels(const Side<T>& streamed, const Depth& depth, int threads, int64_t workspace_limit) {
    constexpr int64_t kBlockBytes = 384 * 1024;
    const int64_t bytes = streamed.panel_elements(depth.block) * static_cast<int64_t>(sizeof(T));
    // Of rows with their fixed distance a shallow depth touches only a part; the rest would cost TLB entries.
    const int64_t touched = kBlockBytes * depth.block / kDepth<T>;
    const int64_t budget = smaller(streamed.is_lanes ? kBlockBytes : touched, workspace_limit / larger(threads, 1));
    return larger(1, smaller(budget / larger(bytes, 1), streamed.panels()));
}

// Multiplies packed streamed panels with stationary panels, one depth block.
template <class T>
void multiply_block(const Product<T>& p, const Sink<T>& sink, const T* bias, const T* stationary, const T* panels,
                    Range streamed_range, Range stationary_panels, int64_t depth, const Offsets& offsets, bool add,
                    bool last) {
    alignas(64) T sums[kTileHeight * kTileWidth<T>];
    constexpr int kLongest = kTileHeight > kTileWidth<T> ? kTileHeight : kTileWidth<T>;
    int64_t out[kLongest], residual[kLongest];
    const int64_t width = p.streamed.width;
    const RowFormat format = p.streamed.is_lanes ? p.stationary.format : p.streamed.format;
    for (int64_t q = stationary_panels.begin; q < stationary_panels.end; ++q) {
        const Range fixed = p.stationary.range(q);
        const int64_t fixed_count = fixed.end - fixed.begin;
        for (int64_t i = 0; i < fixed_count; ++i) {
            out[i] = (fixed.begin + i) * sink.stationary_out;
            residual[i] = (fixed.begin + i) * sink.stationary_residual;
        }
        const T* fixed_panel = stationary + q * p.stationary.panel_elements(p.depth.block);
        const T* fixed_bias = bias ? bias + fixed.begin : nullptr;
        for (int64_t s = streamed_range.begin; s < streamed_range.end; s += width) {
            const int64_t count = smaller(width, streamed_range.end - s);
            const int64_t at = s - streamed_range.begin;
            const T* panel = panels + at / width * p.streamed.panel_elements(p.depth.block);
            const Offsets moving{offsets.out + at, offsets.residual + at};
            if (p.streamed.is_lanes) {
                const int vectors = count <= lanes<T> ? 1 : 2;
                microkernel<T>(format, static_cast<int>(fixed_count), vectors)(fixed_panel, panel, depth, sums);
                write_tile<T>(sink, {sums, fixed_count, count, {out, residual}, moving, fixed_bias, true}, add, last);
            } else {
                const int vectors = fixed_count <= lanes<T> ? 1 : 2;
                microkernel<T>(format, static_cast<int>(count), vectors)(panel, fixed_panel, depth, sums);
                write_tile<T>(sink, {sums, count, fixed_count, moving, {out, residual}, fixed_bias, false}, add, last);
            }
        }
    }
}

// Threads that a product keeps busy for longer than it takes to wake them (some microseconds).
inline int worthwhile_threads(int threads, int64_t multiply_adds) {
    constexpr int64_t kWorth = 200000;
    return static_cast<int>(larger(1, smaller(threads, multiply_adds / kWorth)));
}

// How a team shares a product: `streamed` x `stationary` threads.
struct Grid {
    int streamed, stationary;
};

// The grid with the least work for its busiest thread. A thread packs the streamed panels that it multiplies, so that
// splitting the stationary side packs them again: kPackCost stationary panels' worth. Where neighbours in memory lie
// along the streamed side, and it is short, splitting that makes threads write to the same cache lines.
inline Grid choose_grid(int threads, int64_t streamed_panels, int64_t stationary_panels, bool streamed_neighbours) {
    constexpr int64_t kPackCost = 2, kShort = 16;
    const bool collide = streamed_neighbours && streamed_panels < kShort * threads;
    Grid best{threads, 1};
    int64_t best_cost = -1;
    for (int split = 1; split <= threads; ++split) {
        if (threads % split != 0) continue;
        const int64_t panels = divide_up(streamed_panels, threads / split);
        const int64_t cost =
            panels * (divide_up(stationary_panels, split) + kPackCost) * (collide && split < threads ? 3 : 2);
        if (best_cost >= 0 && cost >= best_cost) continue;
        best = {threads / split, split};
        best_cost = cost;
    }
    return best;
}

// multiply_adds and vector_elements of multiply_share() for its busiest thread: full tiles, the panels that it packs,
// and the visits of its outputs.
template <class T>
Cost share_cost(const Product<T>& p, int threads) {
    const int64_t streamed_panels = p.groups * p.streamed.panels();
    if (streamed_panels == 0 || p.stationary.panels() == 0) return {};
    const Grid grid = choose_grid(threads, streamed_panels, p.stationary.panels(), p.streamed_neighbours);
    const double streamed = static_cast<double>(divide_up(streamed_panels, grid.streamed) * p.streamed.width);
    const double fixed = static_cast<double>(divide_up(p.stationary.panels(), grid.stationary) * p.stationary.width);
    const double depth = static_cast<double>(p.depth.size);
    return {streamed * fixed * depth, streamed * depth + streamed * fixed * static_cast<double>(p.depth.blocks()), 0,
            0};
}

// One thread's part of a product whose stationary side is packed. `source.pack(group, index, depth, to, scratch)`
// packs a streamed panel, `source.place(group, index, out, residual)` tells where its results go, `bias_group` is the
// distance between the biases of two groups.
template <class T, class Source>
void multiply_share(const Product<T>& p, const Source& source, const T* stationary, const Sink<T>& sink,
                    int64_t bias_group, const ThreadSpace<T>& space, int thread, int threads) {
    const int64_t panels = p.streamed.panels();
    if (panels == 0 || p.stationary.panels() == 0 || p.groups == 0) return;
    const Grid grid = choose_grid(threads, p.groups * panels, p.stationary.panels(), p.streamed_neighbours);
    const Range mine = share(p.groups * panels, thread / grid.stationary, grid.streamed);
    const Range fixed = share(p.stationary.panels(), thread % grid.stationary, grid.stationary);
    if (fixed.begin == fixed.end) return;
    for (int64_t first = mine.begin; first < mine.end;) {
        const int64_t group = first / panels;
        const int64_t begin = first % panels;
        const int64_t end = smaller(begin + smaller(mine.end - first, p.block_panels), panels);
        first += end - begin;
        const Range range{begin * p.streamed.width, smaller(end * p.streamed.width, p.streamed.size)};
        source.place(group, range, space.out, space.residual);
        for (int64_t block = 0; block < p.depth.blocks(); ++block) {
            const Range depth = p.depth.range(block);
            for (int64_t panel = begin; panel < end; ++panel) {
                T* to = space.panels + (panel - begin) * p.streamed.panel_elements(p.depth.block);
                if (p.depth.size > 0) source.pack(group, p.streamed.range(panel), depth, to, space.scratch);
            }
            multiply_block<T>(p, sink, sink.bias ? sink.bias + group * bias_group : nullptr,
                              stationary + p.stationary_panel(group, block, 0), space.panels, range, fixed,
                              depth.end - depth.begin, {space.out, space.residual}, block > 0,
                              block + 1 == p.depth.blocks());
        }
    }
}

// Packs all depth blocks of one stationary panel of one group.
template <class T, class Operand>
void pack_stationary_panel(const Product<T>& p, const Operand& operand, int64_t group, int64_t panel, T* to,
                           T* scratch) {
    if (p.depth.size == 0) return;
    for (int64_t block = 0; block < p.depth.blocks(); ++block)
        pack_panel<T>(p.stationary, operand, p.stationary.range(panel), p.depth.range(block),
                      to + p.stationary_panel(group, block, panel), scratch);
}

}  // namespace pycv::cpu::PYCV_ISA
