// The blocked matrix product that GEMM and the convolutions share.
//
// One operand, the stationary one (b, a convolution's weight, grad_output in grad_weight), is packed before or lies in
// panels by itself; the other, the streamed one, passes by a block of panels at a time, each read in place or packed
// by the thread that multiplies it, so that a block stays in its L2 cache while all stationary panels pass by. Either
// may be the side of the lanes. Partial sums over depth blocks live in the output; bias, residual and relu are applied
// with the last block.
//
// Cost: 2 * streamed * stationary * depth FLOPs; the streamed operand is read (and packed) once per thread column of
// the grid, the output is visited once per depth block.
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

// Where the elements along one index of a tile lie: evenly, or anywhere.
struct Axis {
    int64_t first, stride;
    const int64_t* offsets;  // of each element; null: first + i * stride

    int64_t at(int64_t i) const { return offsets ? offsets[i] : first + i * stride; }
    bool neighbours() const { return !offsets && stride == 1; }
};

inline Axis even_axis(int64_t first, int64_t stride, int64_t count) { return {first, count > 1 ? stride : 1, nullptr}; }

// The axis of these offsets: the even one where they are evenly spaced.
inline Axis axis_of(const int64_t* offsets, int64_t count) {
    const int64_t stride = count > 1 ? offsets[1] - offsets[0] : 1;
    for (int64_t i = 2; i < count; ++i)
        if (offsets[i] - offsets[i - 1] != stride) return {0, 0, offsets};
    return {offsets[0], stride, nullptr};
}

// A streamed panel: its operand, and where its results go.
template <class T>
struct StreamedPanel {
    PanelView<T> view;
    Range index;
    Axis out, residual;
};

// A tile's place in the output and the residual, as the sum of a row's and a column's offset.
template <class T>
struct Tile {
    int64_t rows, columns;
    Axis row_out, column_out, row_residual, column_residual;
    const T *row_bias, *column_bias;  // of the tile's first row or column; null if none
    bool add, last;
};

// A tile of sums that could not go straight to the output lies in rows of this distance, in a square of as many.
template <class T>
inline constexpr int64_t kSumsStride = kTileWidth<T> > (kTileHeight + lanes<T> - 1) / lanes<T>* lanes<T>
                                           ? kTileWidth<T>
                                           : (kTileHeight + lanes<T> - 1) / lanes<T> * lanes<T>;

// Rows of sums that lie side by side in the output, `count` long.
template <class T>
void write_rows(const Sink<T>& sink, const Tile<T>& tile, const T* sums, int64_t first_column, int64_t count) {
    for (int64_t i = 0; i < tile.rows; ++i) {
        T* const out = sink.out + tile.row_out.at(i) + tile.column_out.at(first_column);
        const T* const residual =
            sink.residual ? sink.residual + tile.row_residual.at(i) + tile.column_residual.at(first_column) : nullptr;
        const T* const from = sums + i * kSumsStride<T> + first_column;
        for (int64_t j = 0; j < count; j += lanes<T>) {
            const int64_t part = smaller(lanes<T>, count - j);
            Vec<T> v = load_partial<T>(from + j, part);
            if (tile.add) v += load_partial<T>(out + j, part);
            if (tile.last) {
                if (sink.alpha != T(1)) v = v * sink.alpha;
                if (residual) v += sink.beta * load_partial<T>(residual + j, part);
                if (tile.row_bias) v += broadcast<T>(tile.row_bias[i]);
                if (tile.column_bias) v += load_partial<T>(tile.column_bias + first_column + j, part);
                if (sink.relu) v = relu<T>(v);
            }
            store_partial<T>(out + j, v, part);
        }
    }
}

// Sums whose neighbours in the output, if any, are those of a column: rows are exchanged with columns first.
template <class T>
void write_transposed(const Sink<T>& sink, const Tile<T>& tile, const T* sums) {
    alignas(64) T turned[kSumsStride<T> * kSumsStride<T>];
    for (int64_t i = 0; i < tile.rows; i += lanes<T>)
        for (int64_t j = 0; j < tile.columns; j += lanes<T>)
            transpose_block<T>(sums + i * kSumsStride<T> + j, kSumsStride<T>, turned + j * kSumsStride<T> + i,
                               kSumsStride<T>);
    const Tile<T> other{tile.columns,      tile.rows,        tile.column_out, tile.row_out, tile.column_residual,
                        tile.row_residual, tile.column_bias, tile.row_bias,   tile.add,     tile.last};
    write_rows<T>(sink, other, turned, 0, tile.rows);
}

// How many columns from j on are neighbours in memory.
template <class T>
int64_t neighbours_from(const Sink<T>& sink, const Tile<T>& tile, int64_t j) {
    int64_t end = j + 1;
    while (end < tile.columns && tile.column_out.at(end) == tile.column_out.at(end - 1) + 1 &&
           (!sink.residual || tile.column_residual.at(end) == tile.column_residual.at(end - 1) + 1))
        ++end;
    return end - j;
}

// Sums of some columns that have no neighbours in the output.
template <class T>
void write_scattered(const Sink<T>& sink, const Tile<T>& tile, const T* sums, Range columns) {
    const bool plain = !tile.add && !(tile.last && (sink.residual || sink.bias || sink.relu || sink.alpha != T(1)));
    for (int64_t i = 0; i < tile.rows; ++i) {
        T* const out = sink.out + tile.row_out.at(i);
        const T* const from = sums + i * kSumsStride<T>;
        if (plain) {
            for (int64_t j = columns.begin; j < columns.end; ++j) out[tile.column_out.at(j)] = from[j];
            continue;
        }
        for (int64_t j = columns.begin; j < columns.end; ++j) {
            T& to = out[tile.column_out.at(j)];
            T v = from[j] + (tile.add ? to : T(0));
            if (tile.last) {
                v *= sink.alpha;
                if (sink.residual) v += sink.beta * sink.residual[tile.row_residual.at(i) + tile.column_residual.at(j)];
                if (tile.row_bias) v += tile.row_bias[i];
                if (tile.column_bias) v += tile.column_bias[j];
                if (sink.relu) v = relu<T>(v);
            }
            to = v;
        }
    }
}

// Adds a tile to the output (`add`) or starts it, and with the last depth block applies the epilogue.
template <class T>
void write_tile(const Sink<T>& sink, const Tile<T>& tile, const T* sums) {
    const bool along_rows = tile.row_out.neighbours() && (!sink.residual || tile.row_residual.neighbours());
    if (along_rows && !tile.column_out.neighbours()) return write_transposed<T>(sink, tile, sums);
    for (int64_t j = 0; j < tile.columns;) {
        int64_t end = j + neighbours_from(sink, tile, j);
        if (end > j + 1) {
            write_rows<T>(sink, tile, sums, j, end - j);
        } else {
            while (end < tile.columns && neighbours_from(sink, tile, end) == 1) ++end;
            write_scattered<T>(sink, tile, sums, {j, end});
        }
        j = end;
    }
}

// The shape of a product and its blocking. The streamed index falls into segments (images, say) that are cut into
// panels one by one.
template <class T>
struct Product {
    Depth depth;
    Side<T> streamed, stationary;
    int64_t groups;                    // independent products
    int64_t segments = 1;              // per group
    int64_t block_panels = 1;          // streamed panels that pass by at a time
    bool streamed_neighbours = false;  // neighbours in memory lie along streamed rows: see choose_grid()
    bool streams = false;              // the output, past the caches
    bool packs_stationary = false;     // by the same team, each thread its share of the panels: see choose_grid()
    // Where stationary panels lie that are read in place: elements between groups, depth blocks and panels.
    struct Place {
        int64_t group, block, panel;
    };
    bool stationary_in_place = false;
    Place stationary_place{};

    int64_t streamed_panels() const { return groups * segments * streamed.panels(); }
    int64_t stationary_elements() const {  // packed, all groups
        return stationary_in_place ? 0 : groups * packed_place().group;
    }
    Place packed_place() const {
        const int64_t block = stationary.panels() * stationary.panel_elements;
        return {depth.blocks() * block, block, stationary.panel_elements};
    }
    Place place() const { return stationary_in_place ? stationary_place : packed_place(); }
    int64_t stationary_panel(int64_t group, int64_t block, int64_t panel) const {
        const Place at = place();
        return group * at.group + block * at.block + panel * at.panel;
    }
    int64_t block_elements() const { return block_panels * streamed.panel_elements; }
};

// What one thread works with; carved out of the plan's workspace.
template <class T>
struct ThreadSpace {
    T* packed;
    T* scratch;
    StreamedPanel<T>* panels;
    int64_t *out, *residual;  // offsets of a block's streamed indices
};

inline int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

template <class T>
int64_t thread_space_bytes(const Product<T>& p) {
    return aligned(p.block_elements() * static_cast<int64_t>(sizeof(T))) +
           aligned(kScratchElements<T> * static_cast<int64_t>(sizeof(T))) +
           aligned(p.block_panels * static_cast<int64_t>(sizeof(StreamedPanel<T>))) +
           2 * aligned(p.block_panels * p.streamed.width * 8);
}

template <class T>
ThreadSpace<T> thread_space(const Product<T>& p, void* workspace, int thread) {
    char* at = static_cast<char*>(workspace) + thread * thread_space_bytes(p);
    ThreadSpace<T> space;
    space.packed = reinterpret_cast<T*>(at);
    at += aligned(p.block_elements() * static_cast<int64_t>(sizeof(T)));
    space.scratch = reinterpret_cast<T*>(at);
    at += aligned(kScratchElements<T> * static_cast<int64_t>(sizeof(T)));
    space.panels = reinterpret_cast<StreamedPanel<T>*>(at);
    at += aligned(p.block_panels * static_cast<int64_t>(sizeof(StreamedPanel<T>)));
    space.out = reinterpret_cast<int64_t*>(at);
    space.residual = reinterpret_cast<int64_t*>(at + aligned(p.block_panels * p.streamed.width * 8));
    return space;
}

// Streamed panels per block: about half of an L2 cache, and within the workspace limit.
template <class T>
int64_t choose_block_panels(const Product<T>& p, int threads, int64_t workspace_limit) {
    constexpr int64_t kBlockBytes = 384 * 1024;
    const int64_t bytes = p.streamed.panel_elements * static_cast<int64_t>(sizeof(T));
    const int64_t budget = smaller(kBlockBytes, workspace_limit / larger(threads, 1));
    return larger(1, smaller(budget / larger(bytes, 1), p.streamed.panels() * p.segments));
}

// The tiles of one stationary panel with a block of streamed panels, one depth block.
template <class T>
class TileRow {
public:
    TileRow(const Product<T>& p, const Sink<T>& sink, const T* bias, int64_t depth, bool add, bool last)
        : p_(p), sink_(sink), bias_(bias), depth_(depth), add_(add), last_(last) {
        epilogue_ = {sink.alpha, sink.beta, nullptr, 0, nullptr, nullptr, sink.relu};
        direct_residual_ = !sink.residual || !last;
    }

    void multiply(const PanelView<T>& fixed, Range index, const StreamedPanel<T>* panels, int64_t count) const {
        const Axis out{index.begin * sink_.stationary_out, sink_.stationary_out, nullptr};
        const Axis residual{index.begin * sink_.stationary_residual, sink_.stationary_residual, nullptr};
        const int64_t size = index.end - index.begin;
        const T* bias = bias_ ? bias_ + index.begin : nullptr;
        for (int64_t s = 0; s < count; ++s) {
            const StreamedPanel<T>& panel = panels[s];
            const int64_t width = panel.index.end - panel.index.begin;
            if (p_.streamed.is_lanes) {
                multiply_tile(p_.stationary.format, fixed, panel.view,
                              {size, width, out, panel.out, residual, panel.residual, bias, nullptr, add_, last_});
            } else {
                multiply_tile(p_.streamed.format, panel.view, fixed,
                              {width, size, panel.out, out, panel.residual, residual, nullptr, bias, add_, last_});
            }
        }
    }

private:
    void multiply_tile(RowFormat format, const PanelView<T>& rows, const PanelView<T>& from,
                       const Tile<T>& tile) const {
        const Microkernel<T> kernel =
            microkernel<T>(format, static_cast<int>(tile.rows), tile.columns <= lanes<T> ? 1 : 2);
        const TileOperands<T> operands{rows.data, rows.stride, from.data, from.stride, depth_, rows.next};
        const bool direct = tile.column_out.neighbours() && !tile.row_out.offsets &&
                            (direct_residual_ || (tile.column_residual.neighbours() && !tile.row_residual.offsets));
        if (!direct) {
            alignas(64) T sums[kSumsStride<T> * kSumsStride<T>];
            const int64_t whole = tile.columns <= lanes<T> ? lanes<T> : kTileWidth<T>;
            kernel(operands, {sums, kSumsStride<T>, whole, false, nullptr});
            return write_tile<T>(sink_, tile, sums);
        }
        TileEpilogue<T> epilogue = epilogue_;
        if (!direct_residual_) {
            epilogue.residual = sink_.residual + tile.row_residual.first + tile.column_residual.first;
            epilogue.residual_stride = tile.row_residual.stride;
        }
        epilogue.row_bias = tile.row_bias;
        epilogue.column_bias = tile.column_bias;
        T* const out = sink_.out + tile.row_out.first + tile.column_out.first;
        const bool streamed = p_.streams && !add_ && last_ && is_streamable<T>(out, tile.row_out.stride, tile.columns);
        kernel(operands, {out, tile.row_out.stride, tile.columns, add_, last_ ? &epilogue : nullptr, streamed});
    }

    const Product<T>& p_;
    const Sink<T>& sink_;
    const T* bias_;  // of the group
    int64_t depth_;
    bool add_, last_, direct_residual_;
    TileEpilogue<T> epilogue_;
};

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
// along the streamed side, and it is short, splitting that makes threads write to the same cache lines. Stationary
// panels that another thread has just packed lie in its cache: fetching one costs as much as kFetch halves of a tile.
template <class T>
Grid choose_grid(const Product<T>& p, int threads) {
    constexpr int64_t kPackCost = 2, kShort = 16, kFetch = 6;
    const int64_t streamed_panels = p.streamed_panels(), stationary_panels = p.stationary.panels();
    const bool collide = p.streamed_neighbours && streamed_panels < kShort * threads;
    Grid best{threads, 1};
    int64_t best_cost = -1;
    for (int split = 1; split <= threads; ++split) {
        if (threads % split != 0) continue;
        const int64_t panels = divide_up(streamed_panels, threads / split);
        const int64_t fetched =
            p.packs_stationary ? divide_up(stationary_panels, split) * (threads - split) / threads : 0;
        const int64_t cost =
            panels * (divide_up(stationary_panels, split) + kPackCost) * (collide && split < threads ? 3 : 2) +
            fetched * kFetch;
        if (best_cost >= 0 && cost >= best_cost) continue;
        best = {threads / split, split};
        best_cost = cost;
    }
    return best;
}

// A thread's share of a product: streamed panels of all groups and segments, and stationary panels.
struct Share {
    Range streamed, stationary;
    bool empty() const { return streamed.begin == streamed.end || stationary.begin == stationary.end; }
};

template <class T>
Share product_share(const Product<T>& p, int thread, int threads) {
    const Grid grid = choose_grid(p, threads);
    return {share(p.streamed_panels(), thread / grid.stationary, grid.streamed),
            share(p.stationary.panels(), thread % grid.stationary, grid.stationary)};
}

// multiply_adds and vector_elements of multiply_share() for its busiest thread: full tiles, the panels that it packs if
// they are not read in place, and the visits of its outputs.
template <class T>
Cost share_cost(const Product<T>& p, int threads, bool in_place) {
    const int64_t streamed_panels = p.streamed_panels();
    if (streamed_panels == 0 || p.stationary.panels() == 0) return {};
    const Grid grid = choose_grid(p, threads);
    const double streamed = static_cast<double>(divide_up(streamed_panels, grid.streamed) * p.streamed.width);
    const double fixed = static_cast<double>(divide_up(p.stationary.panels(), grid.stationary) * p.stationary.width);
    const double depth = static_cast<double>(p.depth.size);
    return {streamed * fixed * depth,
            (in_place ? 0 : streamed * depth) + streamed * fixed * static_cast<double>(p.depth.blocks()), 0, 0};
}

// All tiles of some stationary with some streamed panels. Tiles that follow each other are neighbours along the lanes,
// so that they write to the same pages of the output: where the lanes are stationary, as many of their panels as stay
// in the L2 cache pass by each streamed panel.
template <class T>
void multiply_panels(const Product<T>& p, const TileRow<T>& tiles, const T* stationary, Range fixed,
                     const StreamedPanel<T>* panels, int64_t count) {
    constexpr int64_t kAcross = 8;
    const int64_t panel = p.place().panel;
    const int64_t across = p.streamed.is_lanes ? 1 : kAcross, along = p.streamed.is_lanes ? count : 1;
    for (int64_t first = fixed.begin; first < fixed.end; first += across)
        for (int64_t i = 0; i < count; i += along)
            for (int64_t q = first; q < smaller(first + across, fixed.end); ++q)
                tiles.multiply({stationary + q * panel, p.stationary.stride}, p.stationary.range(q), panels + i, along);
}

// One thread's share of a product whose stationary side lies in panels. `source.place(group, segment, index, out,
// residual, panel)` tells where the results of a streamed panel go (out and residual have room for their offsets),
// `source.view(group, segment, index, depth, to, scratch)` shows it, packed into `to` or in place. `bias_group` is the
// distance between the biases of two groups.
template <class T, class Source>
void multiply_share(const Product<T>& p, const Source& source, const T* stationary, const Sink<T>& sink,
                    int64_t bias_group, const ThreadSpace<T>& space, const Share& mine) {
    if (mine.empty()) return;
    const int64_t panels = p.streamed.panels(), group_panels = p.segments * panels;
    for (int64_t first = mine.streamed.begin; first < mine.streamed.end;) {
        const int64_t group = first / group_panels;
        const int64_t end = smaller(smaller(first + p.block_panels, mine.streamed.end), (group + 1) * group_panels);
        const int64_t count = end - first;
        for (int64_t i = 0; i < count; ++i) {
            StreamedPanel<T>& panel = space.panels[i];
            panel.index = p.streamed.range((first + i) % panels);
            source.place(group, (first + i) / panels % p.segments, panel.index, space.out + i * p.streamed.width,
                         space.residual + i * p.streamed.width, panel);
        }
        for (int64_t block = 0; block < p.depth.blocks(); ++block) {
            const Range depth = p.depth.range(block);
            for (int64_t i = 0; i < count; ++i)
                space.panels[i].view =
                    p.depth.size > 0 ? source.view(group, (first + i) / panels % p.segments, space.panels[i].index,
                                                   depth, space.packed + i * p.streamed.panel_elements, space.scratch)
                                     : PanelView<T>{};
            for (int64_t i = 0; i + 1 < count && p.streamed.format == RowFormat::k_contiguous; ++i)
                space.panels[i].view.next = space.panels[i + 1].view.data;
            const TileRow<T> tiles(p, sink, sink.bias ? sink.bias + group * bias_group : nullptr,
                                   depth.end - depth.begin, block > 0, block + 1 == p.depth.blocks());
            multiply_panels(p, tiles, stationary + p.stationary_panel(group, block, 0), mine.stationary, space.panels,
                            count);
        }
        first = end;
    }
}

// Packs some panels of one depth block, which follow each other from `to` on: one panel after the other where the
// operand's memory runs along the depth, else a few depth steps of all panels, which lie side by side there.
template <class T, class Operand>
void pack_panels(const Side<T>& side, const Operand& operand, Range panels, Range depth, T* to, T* scratch) {
    constexpr int64_t kSteps = 16;
    const int64_t together = operand.k_contiguous() ? larger(depth.end - depth.begin, 1) : kSteps;
    for (int64_t k = depth.begin; k < depth.end; k += together)
        for (int64_t panel = panels.begin; panel < panels.end; ++panel)
            pack_panel<T>(side, operand, side.range(panel), {k, smaller(depth.end, k + together)},
                          to + (panel - panels.begin) * side.panel_elements + (k - depth.begin) * side.stride, scratch);
}

// Packs all depth blocks of some stationary panels of one group.
template <class T, class Operand>
void pack_stationary(const Product<T>& p, const Operand& operand, int64_t group, Range panels, T* to, T* scratch) {
    for (int64_t block = 0; block < p.depth.blocks() && p.depth.size > 0; ++block)
        pack_panels<T>(p.stationary, operand, panels, p.depth.range(block),
                       to + p.stationary_panel(group, block, panels.begin), scratch);
}

}  // namespace pycv::cpu::PYCV_ISA
