// forward and grad_input as gathers (conv_gather.h) with computed channels in lanes.
//
// A block of computed rows and columns copies the source that it sees (direct_tile.h), source channels by the block;
// every block of kTileWidth computed channels multiplies it with its packed weight (direct_weight.h) and adds to its
// sums. Where the channels of the computed tensor are contiguous the register tiles write it themselves; else the sums
// stay in the cache and reach the tensor once (direct_output.h). Where computed channels are too few to fill lanes, the
// lanes run along positions (direct_positions.h).
//
// A source element is copied once per block that sees it, which serves all taps and computed channels: one copy for
// taps / stride * channels multiply-adds.
#pragma once

#include "conv_gather.h"
#include "cost.h"
#include "direct_output.h"
#include "direct_positions.h"
#include "direct_tile.h"
#include "direct_weight.h"
#include "parallel.h"
#include "plan.h"

namespace pycv::cpu::PYCV_ISA {

// The longest sum between two visits of the sums, in steps: its packed weight stays in L2.
inline constexpr int64_t kSteps = 640;
// Bounds of a block: the padded source of one block of channels, and the positions.
inline constexpr int64_t kTileBytes = 256 << 10;
inline constexpr int64_t kBlockColumns = 128, kBlockPositions = 512;
// Positions whose sums stay in the L1 cache.
inline constexpr int64_t kPart = 128;
// The sums of all channel blocks that share a copy of the source.
inline constexpr int64_t kSumsBytes = 512 << 10;

// What the taps of all phases span along one axis: offsets low to low + reach, in source coordinates.
struct Reach {
    int64_t low = 0, reach = 0;
    bool any = false;

    void include(const AxisGather& axis) {
        if (axis.taps == 0) return;
        const int64_t last = axis.offset_first + (axis.taps - 1) * axis.offset_step;
        const int64_t begin = smaller(axis.offset_first, last), end = larger(axis.offset_first, last);
        const int64_t high = any ? larger(low + reach, end) : end;
        low = any ? smaller(low, begin) : begin;
        reach = high - low;
        any = true;
    }
};

inline int64_t round_offset(int64_t value) { return round_up(value, 64); }

// One phase of the gather in a plan: its taps as offsets in the tile.
struct DirectPhase {
    Gather gather;
    int64_t taps_before;  // of earlier phases
    int64_t offsets;      // where its [channel][tap] offsets begin
};

template <class T>
class DirectGather final : public ConvPlan {
public:
    DirectGather(const ConvProblem& problem, int threads)
        : conv_(problem),
          problem_(gather_problem(problem)),
          threads_(threads > 1 ? threads : 1),
          filter_(problem.filter.count()),
          blocks_{problem_.groups, problem_.channels, problem_.source_channels, filter_, 1},
          streams_(computed_bytes(problem) > kStreamedBytes),
          slots_(filter_),
          phases_(problem_.phases.count()),
          shape_(make_shape()),
          offsets_(blocks_.source_block * filter_) {
        place_taps();
    }

    int64_t workspace_bytes() const override { return threads_ * thread_bytes(); }
    int64_t prepared_weight_bytes() const override { return larger(1, blocks_.template elements<T>()) * kSize; }
    void prepare_weight(const void* weight, void* prepared) const override {
        WeightPacker<T>(blocks_, problem_, conv_.filter, slots_)
            .pack(static_cast<const T*>(weight), static_cast<T*>(prepared), threads_);
    }

    Cost cost() const override {
        const double units = static_cast<double>(divide_up(items() * lane_blocks(), threads_));
        const double fills = static_cast<double>(divide_up(items(), threads_));
        const double sums = static_cast<double>(vectors_of_block() * lanes<T>) * loads_per_multiply_add();
        const double terms = static_cast<double>(problem_.source_channels * filter_);
        const double tile = static_cast<double>(shape_.template plane<T>() * problem_.source_channels);
        const double outputs = static_cast<double>(problem_.phases.h * problem_.phases.w) * sums;
        return {units * sums * terms, fills * tile + units * outputs * static_cast<double>(blocks_.source_blocks()),
                tensor_bytes(conv_), 1};
    }
    Cost prepare_cost() const override {
        const double elements = static_cast<double>(blocks_.template elements<T>());
        return {0, elements / threads_, 2 * elements * kSize, 1};
    }

    void run(const ConvArguments& arguments) const override {
        const int64_t blocks = lane_blocks();
        parallel(threads_, [&](int thread, int team) {
            T* tile = reinterpret_cast<T*>(static_cast<char*>(arguments.workspace) + thread * thread_bytes());
            const Range mine = share(items() * blocks, thread, team);
            for (int64_t i = mine.begin; i < mine.end;) {
                const int64_t item = i / blocks, begin = i % blocks;
                const int64_t end = smaller(smaller(blocks, begin + sums_blocks()), begin + mine.end - i);
                compute(arguments, item, {begin, end}, tile, tile + tile_elements());
                i += end - begin;
            }
        });
    }

private:
    static constexpr int64_t kSize = sizeof(T);

    // A block of positions: one plane of the computed tensor, ranges of q along h and w (AxisGather).
    struct Block {
        int64_t group, n, d, h, w;
        int64_t rows, columns;     // q
        int64_t first_y, first_x;  // computed
        int64_t height, width;
    };

    int64_t lane_blocks() const { return blocks_.blocks(kTileWidth<T>); }
    int64_t items() const { return problem_.groups * problem_.n * problem_.size.d * blocks_h_ * blocks_w_; }
    int64_t tile_elements() const { return round_offset(blocks_.source_block * shape_.template plane<T>() + lanes<T>); }
    int64_t sums_elements() const {
        if (positions_in_lanes_) {
            const int64_t channels = smaller(problem_.channels, kTileWidth<T>);
            return problem_.phases.h * problem_.phases.w * channels * block_h_ * round_up(block_w_, lanes<T>);
        }
        return block_h_ * problem_.phases.h * block_w_ * problem_.phases.w * kTileWidth<T>;
    }
    int64_t sums_blocks() const {
        return larger(1, smaller(lane_blocks(), kSumsBytes / larger(1, sums_elements() * kSize)));
    }
    int64_t thread_bytes() const {
        return (tile_elements() + round_offset(sums_blocks() * sums_elements() + lanes<T> * kTileWidth<T>)) * kSize;
    }

    // Chooses the blocks and returns the tile that fits them.
    TileShape make_shape() {
        const Spatial phases = problem_.phases;
        int64_t most_taps = 1;
        for (int64_t i = 0; i < phases.count(); ++i) {
            phases_[i].gather = gather_phase(conv_, i);
            most_taps = larger(most_taps, phases_[i].gather.taps());
            reach_d_.include(phases_[i].gather.d);
            reach_h_.include(phases_[i].gather.h);
            reach_w_.include(phases_[i].gather.w);
        }
        const Gather& g = phases_[0].gather;
        blocks_.source_block = larger(1, kSteps / larger(1, most_taps));
        const int64_t source_blocks = larger(1, divide_up(problem_.source_channels, blocks_.source_block));
        blocks_.source_block = larger(1, divide_up(problem_.source_channels, source_blocks));
        rows_ = g.h.count, columns_ = g.w.count;
        blocks_w_ = divide_up(columns_, kBlockColumns);
        block_w_ = blocks_w_ > 1 ? round_up(divide_up(columns_, blocks_w_), kTileHeight) : columns_;
        blocks_w_ = block_w_ > 0 ? divide_up(columns_, block_w_) : 0;
        positions_in_lanes_ = prefers_positions();
        double best = 0;
        int64_t best_rows = 1;
        for (int64_t rows = 1; rows <= rows_; ++rows) {
            if (rows > 1 && (rows * block_w_ > kBlockPositions || tile_bytes(rows) > kTileBytes)) break;
            const double time = estimate(rows);
            if (rows > 1 && time >= best) continue;
            best = time;
            best_rows = rows;
        }
        set_rows(best_rows);
        return shape(block_h_);
    }
    // Whether vectors of positions carry less that does not count than vectors of channels.
    bool prefers_positions() const {
        if (problem_.computed.block > 1) return false;
        const int64_t channels = round_up(problem_.channels, lanes<T>) * block_w_;
        return problem_.channels * round_up(block_w_, lanes<T>) * 5 < channels * 4;
    }
    void set_rows(int64_t rows) {
        blocks_h_ = divide_up(rows_, rows);
        block_h_ = blocks_h_ > 0 ? divide_up(rows_, blocks_h_) : 1;
    }
    TileShape shape(int64_t rows) const {
        const Gather& g = phases_[0].gather;
        return {TileAxis(g.d.source_step, 1, reach_d_.reach), TileAxis(g.h.source_step, rows, reach_h_.reach),
                TileAxis(g.w.source_step, larger(block_w_, 1), reach_w_.reach)};
    }
    int64_t tile_bytes(int64_t rows) const { return blocks_.source_block * shape(rows).template plane<T>() * kSize; }

    // Vectors of sums of a block of positions and channels.
    int64_t vectors_of_block() const {
        const int64_t channels = smaller(problem_.channels, kTileWidth<T>);
        if (positions_in_lanes_) return block_h_ * divide_up(block_w_, lanes<T>) * channels;
        return block_h_ * block_w_ * divide_up(channels, lanes<T>);
    }

    // 1 where multiply-adds bound a step, as both take as long. Vectors of positions are loaded anew for each tap, most
    // of them from two cache lines, and one computed channel does not use them often enough.
    double loads_per_multiply_add() const {
        if (!positions_in_lanes_) return 1;
        const double channels = static_cast<double>(smaller(problem_.channels, kTileHeight));
        const double vectors = position_vectors(static_cast<int>(channels));
        constexpr double kLines = 1 + sizeof(Vec<T>) / 64.0;
        const double loads = (vectors * kLines + channels) / (vectors * channels);
        return loads > 1 ? loads : 1;
    }

    // Vector operations of the busiest thread with blocks of so many rows.
    double estimate(int64_t rows) {
        set_rows(rows);
        const int64_t all = items() * lane_blocks(), busiest = divide_up(all, threads_);
        const double sums = static_cast<double>(vectors_of_block() * problem_.source_channels * filter_);
        const double copies = static_cast<double>(shape(block_h_).template plane<T>() * problem_.source_channels);
        return static_cast<double>(busiest) * sums +
               static_cast<double>(divide_up(items(), threads_)) * copies * 4 / lanes<T>;
    }

    // Numbers the taps of every phase and finds them in the tile.
    void place_taps() {
        int64_t before = 0;
        for (int64_t i = 0; i < problem_.phases.count(); ++i) {
            DirectPhase& phase = phases_[i];
            const Gather& g = phase.gather;
            phase.taps_before = before;
            phase.offsets = before * blocks_.source_block;
            const int64_t taps = g.taps();
            int64_t index = 0;
            for (int64_t d = 0; d < g.d.taps; ++d)
                for (int64_t h = 0; h < g.h.taps; ++h)
                    for (int64_t w = 0; w < g.w.taps; ++w, ++index) place_tap(phase, d, h, w, {before, taps, index});
            before += taps;
        }
        for (int64_t position = 0; position < filter_; ++position)  // those that meet no position of the image
            if (slots_[position].taps == 0) slots_[position] = {before++, 1, 0};
    }
    void place_tap(const DirectPhase& phase, int64_t d, int64_t h, int64_t w, TapSlot slot) {
        const Gather& g = phase.gather;
        const int64_t position =
            ((g.d.filter_first + d * g.d.filter_step) * conv_.filter.h + g.h.filter_first + h * g.h.filter_step) *
                conv_.filter.w +
            g.w.filter_first + w * g.w.filter_step;
        slots_[position] = slot;
        const int64_t at = shape_.index(g.d.offset_first + d * g.d.offset_step - reach_d_.low,
                                        g.h.offset_first + h * g.h.offset_step - reach_h_.low,
                                        g.w.offset_first + w * g.w.offset_step - reach_w_.low);
        for (int64_t c = 0; c < blocks_.source_block; ++c)
            offsets_[phase.offsets + c * slot.taps + slot.index] =
                static_cast<int32_t>(c * shape_.template plane<T>() + at);
    }

    Block block(int64_t item) const {
        Block b;
        b.w = item % blocks_w_ * block_w_;
        item /= blocks_w_;
        b.h = item % blocks_h_ * block_h_;
        item /= blocks_h_;
        b.d = item % problem_.size.d;
        item /= problem_.size.d;
        b.n = item % problem_.n;
        b.group = item / problem_.n;
        b.rows = smaller(block_h_, rows_ - b.h);
        b.columns = smaller(block_w_, columns_ - b.w);
        b.first_y = b.h * problem_.phases.h;
        b.first_x = b.w * problem_.phases.w;
        b.height = smaller(b.rows * problem_.phases.h, problem_.size.h - b.first_y);
        b.width = smaller(b.columns * problem_.phases.w, problem_.size.w - b.first_x);
        return b;
    }

    void compute(const ConvArguments& arguments, int64_t item, Range lane_blocks, T* tile, T* sums) const {
        const Block b = block(item);
        if (blocks_.source_blocks() == 1) return compute_at_once(arguments, b, lane_blocks, tile, sums);
        for (int64_t s = 0; s < blocks_.source_blocks(); ++s) {
            const Range source = blocks_.source_range(s);
            fill(arguments, b, source, tile);
            for (int64_t i = lane_blocks.begin; i < lane_blocks.end; ++i)
                multiply(arguments, b, source, i, tile, sums + (i - lane_blocks.begin) * sums_elements());
        }
        for (int64_t i = lane_blocks.begin; i < lane_blocks.end; ++i)
            finish(arguments, b, i, sums + (i - lane_blocks.begin) * sums_elements());
    }

    // All source channels in one sum: it is finished, a few rows at a time, while it is in the L1 cache.
    void compute_at_once(const ConvArguments& arguments, const Block& b, Range lane_blocks, T* tile, T* sums) const {
        const Range source = blocks_.source_range(0);
        fill(arguments, b, source, tile);
        for (int64_t i = lane_blocks.begin; i < lane_blocks.end; ++i) {
            const int64_t step = stores_vectors(b, i) ? b.rows : larger(1, kPart / larger(1, b.width));
            for (int64_t row = 0; row < b.rows; row += step) {
                const Block part = rows_of(b, row, smaller(b.rows, row + step));
                multiply(arguments, part, source, i, tile + row * shape_.row(), sums);
                finish(arguments, part, i, sums);
            }
        }
    }

    Block rows_of(Block b, int64_t begin, int64_t end) const {
        b.h += begin;
        b.rows = end - begin;
        b.first_y = b.h * problem_.phases.h;
        b.height = smaller(b.rows * problem_.phases.h, problem_.size.h - b.first_y);
        return b;
    }

    void fill(const ConvArguments& arguments, const Block& b, Range source, T* tile) const {
        const bool forward = conv_.pass == Pass::forward;
        const Gather& g = phases_[0].gather;
        const T* source_data = static_cast<const T*>(forward ? arguments.input : arguments.output);
        const TileSource<T> from{
            source_data + b.n * problem_.source.n,
            source_data + tensor_extent(problem_.source, problem_.n, problem_.groups * problem_.source_channels,
                                        {g.d.source_size, g.h.source_size, g.w.source_size}),
            problem_.source,
            {g.d.source_size, g.h.source_size, g.w.source_size},
            conv_.scale_input ? static_cast<const T*>(arguments.input_scale) : nullptr,
            static_cast<const T*>(arguments.input_shift),
            conv_.relu_input};
        const Spatial origin{b.d / problem_.phases.d * g.d.source_step + reach_d_.low,
                             b.h * g.h.source_step + reach_h_.low, b.w * g.w.source_step + reach_w_.low};
        TileFill<T>(shape_, from, origin, shape_.template plane<T>())
            .fill(b.group * problem_.source_channels + source.begin, source.end - source.begin, tile);
    }

    int64_t first_channel(const Block& b, int64_t lane_block) const {
        return b.group * problem_.channels + lane_block * kTileWidth<T>;
    }
    int64_t channels_of(int64_t lane_block) const {
        return smaller(kTileWidth<T>, problem_.channels - lane_block * kTileWidth<T>);
    }

    // Whether a tensor takes and gives the vectors of a block of channels as they are, with no zeros to fill it up.
    bool has_vectors(const Strides& s, const Block& b, int64_t lane_block) const {
        if (channels_of(lane_block) % lanes<T> != 0) return false;
        if (s.block == 1) return s.c == 1;
        return s.block % lanes<T> == 0 && first_channel(b, lane_block) % lanes<T> == 0 &&
               problem_.groups * problem_.channels % s.block == 0;
    }

    // Whether the register tiles themselves write the computed tensor, epilogue included.
    bool stores_vectors(const Block& b, int64_t lane_block) const {
        if (positions_in_lanes_ || !has_vectors(problem_.computed, b, lane_block)) return false;
        return !problem_.has_residual || (!problem_.bias && has_vectors(problem_.residual, b, lane_block));
    }

    // Whether such vectors can go past the caches: they are final, and aligned.
    bool streams(const TileSums<T>& sums) const {
        return streams_ && blocks_.source_blocks() == 1 &&
               is_streamable<T>(sums.data, sums.row, sums.position, sums.vector);
    }

    // A block of channels of such a tensor.
    template <class E>
    TileSums<E> vectors_of(E* data, const Strides& s, const Block& b, int64_t lane_block) const {
        const int64_t c = first_channel(b, lane_block);
        return {data + b.n * s.n + s.channel(c) + b.d * s.d + b.first_y * s.h + b.first_x * s.w, s.h, s.w,
                s.channel(c + lanes<T>) - s.channel(c)};
    }

    TileSums<T> sums_of(const ConvArguments& arguments, const Block& b, int64_t lane_block, T* sums) const {
        if (!stores_vectors(b, lane_block)) return {sums, b.width * kTileWidth<T>, kTileWidth<T>, lanes<T>};
        T* data = static_cast<T*>(conv_.pass == Pass::forward ? arguments.output : arguments.input);
        TileSums<T> to = vectors_of(data, problem_.computed, b, lane_block);
        to.streamed = streams(to);
        return to;
    }

    // What the sum over a block of source channels is added to: earlier ones; at first, what of the epilogue is added.
    TileSums<const T> initial_of(const ConvArguments& arguments, const Block& b, bool first, int64_t lane_block,
                                 const TileSums<T>& sums) const {
        if (!first) return {sums.data, sums.row, sums.position, sums.vector};
        if (stores_vectors(b, lane_block) && problem_.has_residual)
            return vectors_of(static_cast<const T*>(arguments.residual), problem_.residual, b, lane_block);
        if (stores_vectors(b, lane_block) && problem_.bias)
            return {static_cast<const T*>(arguments.bias) + first_channel(b, lane_block), 0, 0, lanes<T>};
        return {nullptr, 0, 0, 0};
    }

    // Adds the products of a block of source channels to the sums of a block of computed channels.
    void multiply(const ConvArguments& arguments, const Block& b, Range source, int64_t lane_block, const T* tile,
                  T* buffer) const {
        const T* weight =
            static_cast<const T*>(arguments.weight) + blocks_.template offset<T>(b.group, source, lane_block);
        const int64_t count = source.end - source.begin;
        if (positions_in_lanes_) return multiply_positions(b, source, channels_of(lane_block), tile, weight, buffer);
        const int vectors = channels_of(lane_block) > lanes<T> ? 2 : 1;
        const TileSums<T> sums = sums_of(arguments, b, lane_block, buffer);
        const TileSums<const T> initial = initial_of(arguments, b, source.begin == 0, lane_block, sums);
        const bool relu = problem_.relu && source.end == problem_.source_channels && stores_vectors(b, lane_block);
        const int64_t phases = problem_.phases.h * problem_.phases.w;
        const int64_t first = b.d % problem_.phases.d * phases;
        for (int64_t i = first; i < first + phases; ++i) {
            const DirectPhase& phase = phases_[i];
            const Gather& g = phase.gather;
            const TileGrid grid(smaller(b.rows, g.h.count - b.h), smaller(b.columns, g.w.count - b.w));
            const TileTerms<T> terms{tile, shape_.row(), offsets_.data() + phase.offsets, count * g.taps(),
                                     weight + count * phase.taps_before * kTileWidth<T>};
            multiply_rectangle<T>(grid, vectors, terms, every(initial, g), every(sums, g), relu);
        }
    }

    // As [phase][channel][row][vectors of columns].
    void multiply_positions(const Block& b, Range source, int64_t channels, const T* tile, const T* weight,
                            T* sums) const {
        const int64_t count = source.end - source.begin, pitch = round_up(block_w_, lanes<T>);
        const int64_t phases = problem_.phases.h * problem_.phases.w;
        for (int64_t i = 0; i < phases; ++i) {
            const DirectPhase& phase = phases_[b.d % problem_.phases.d * phases + i];
            const Gather& g = phase.gather;
            const TileTerms<T> terms{tile, shape_.row(), offsets_.data() + phase.offsets, count * g.taps(),
                                     weight + count * phase.taps_before * kTileWidth<T>};
            multiply_vectors<T>(terms, smaller(b.rows, g.h.count - b.h),
                                divide_up(smaller(b.columns, g.w.count - b.w), lanes<T>), channels,
                                sums + i * channels * b.rows * pitch, pitch, b.rows * pitch, source.begin > 0);
        }
    }

    PositionsOutput<T> positions_output(const ConvArguments& arguments, const Block& b, int64_t channel) const {
        const Strides &o = problem_.computed, &r = problem_.residual;
        const int64_t at = b.n * o.n + o.channel(channel) + b.d * o.d + b.first_y * o.h + b.first_x * o.w;
        const int64_t residual = b.n * r.n + r.channel(channel) + b.d * r.d + b.first_y * r.h + b.first_x * r.w;
        return {b.height,
                b.width,
                problem_.phases.h,
                problem_.phases.w,
                static_cast<T*>(conv_.pass == Pass::forward ? arguments.output : arguments.input) + at,
                o.h,
                o.w,
                problem_.has_residual ? static_cast<const T*>(arguments.residual) + residual : nullptr,
                r.h,
                r.w,
                problem_.bias ? static_cast<const T*>(arguments.bias)[channel] : T(-0.0),
                problem_.relu};
    }
    void finish_positions(const ConvArguments& arguments, const Block& b, int64_t lane_block, const T* sums) const {
        const int64_t channels = channels_of(lane_block), pitch = round_up(block_w_, lanes<T>);
        for (int64_t c = 0; c < channels; ++c)
            positions_output(arguments, b, first_channel(b, lane_block) + c)
                .write(sums + c * b.rows * pitch, channels * b.rows * pitch, pitch);
    }

    // The positions of one phase.
    template <class E>
    static TileSums<E> every(const TileSums<E>& all, const Gather& g) {
        const TileSums<E> first = all.at(g.h.first, g.w.first);
        return {first.data, all.row * g.h.step, all.position * g.w.step, all.vector, all.streamed};
    }

    // Writes a block of computed channels, in pieces that do not cross the blocks of a layout.
    void finish(const ConvArguments& arguments, const Block& b, int64_t lane_block, T* sums) const {
        if (positions_in_lanes_) return finish_positions(arguments, b, lane_block, sums);
        if (stores_vectors(b, lane_block)) return;
        const Strides &o = problem_.computed, &r = problem_.residual;
        T* out = static_cast<T*>(conv_.pass == Pass::forward ? arguments.output : arguments.input) + b.n * o.n +
                 b.d * o.d + b.first_y * o.h + b.first_x * o.w;
        const T* residual = problem_.has_residual ? static_cast<const T*>(arguments.residual) + b.n * r.n + b.d * r.d +
                                                        b.first_y * r.h + b.first_x * r.w
                                                  : nullptr;
        const T* bias = problem_.bias ? static_cast<const T*>(arguments.bias) : nullptr;
        const int64_t all = problem_.groups * problem_.channels;
        const int64_t begin = first_channel(b, lane_block), end = begin + channels_of(lane_block);
        for (int64_t c = begin; c < end;) {
            const int64_t next = smaller(end, smaller(next_block(c, o.block), next_block(c, r.block)));
            const OutputBlock<T> block{b.height,
                                       b.width,
                                       b.width,
                                       next - c,
                                       next == all ? round_up(all, o.block) - all : 0,
                                       {out + o.channel(c), o.block > 1 ? 1 : o.c, o.h, o.w},
                                       {residual ? residual + r.channel(c) : nullptr, r.block > 1 ? 1 : r.c, r.h, r.w},
                                       bias ? bias + c : nullptr,
                                       problem_.relu,
                                       streams_};
            block.write(sums + (c - begin));
            c = next;
        }
    }
    static int64_t next_block(int64_t channel, int64_t block) {
        return block > 1 ? (channel / block + 1) * block : channel + kTileWidth<T>;
    }

    ConvProblem conv_;
    GatherProblem problem_;
    int threads_;
    int64_t filter_;
    WeightBlocks blocks_;
    Reach reach_d_, reach_h_, reach_w_;
    int64_t rows_, columns_;                           // q of the whole tensor
    int64_t block_h_, block_w_, blocks_h_, blocks_w_;  // q of a block, blocks
    bool positions_in_lanes_;
    bool streams_;  // the computed tensor, past the caches
    Table<TapSlot> slots_;
    Table<DirectPhase> phases_;
    TileShape shape_;
    Table<int32_t> offsets_;
};

}  // namespace pycv::cpu::PYCV_ISA
