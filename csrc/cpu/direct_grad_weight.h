// grad_weight with output channels in lanes:
//
//     weight[k][c][tap] = sum over images and positions of output[n, k, position] * input[n, c, position at tap]
//
// A chunk of the weight, some channel blocks by some input channels, keeps its sums in the cache while blocks of
// positions pass by: each copies its input padded (direct_tile.h, split along w by the dilation, so that the taps of a
// filter row are neighbours) and its output gradients as vectors of lanes, and adds all their products in register
// tiles of input channels by taps (direct_microkernel.h). Threads share the chunks; where those are too few, they share
// the positions, and their sums are added in the order of the threads.
#pragma once

#include "conv_gather.h"
#include "cost.h"
#include "direct_microkernel.h"
#include "direct_tile.h"
#include "parallel.h"
#include "plan.h"

namespace pycv::cpu::PYCV_ISA {

template <class T>
class DirectGradWeight final : public ConvPlan {
public:
    DirectGradWeight(const ConvProblem& problem, int threads)
        : conv_(problem),
          threads_(threads > 1 ? threads : 1),
          groups_(larger(problem.groups, 1)),
          channels_(problem.c / groups_),
          outputs_(problem.k / groups_),
          filter_(problem.filter.count()) {
        choose_positions();
        choose_chunks();
    }

    int64_t workspace_bytes() const override { return threads_ * thread_elements() * kSize; }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}
    Cost cost() const override {
        const Work work = chunk_work();
        const double chunks = static_cast<double>(by_positions_ ? this->chunks() : divide_up(this->chunks(), threads_));
        const double blocks = static_cast<double>(by_positions_ ? divide_up(this->blocks(), threads_) : this->blocks());
        return {chunks * blocks * work.multiply_adds,
                chunks * (blocks * work.copies + static_cast<double>(sums_elements())), tensor_bytes(conv_),
                by_positions_ ? 1.0 + 2.0 * chunks : 1.0};
    }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& arguments) const override {
        if (chunks() == 0) return;
        parallel(threads_, [&](int thread, int team) {
            const Space space = carve(arguments, thread);
            if (by_positions_ && team > 1) return run_by_positions(arguments, thread, team, space);
            const Range mine = share(chunks(), thread, team);
            for (int64_t i = mine.begin; i < mine.end; ++i) {
                const Chunk c = chunk(i);
                add_blocks(arguments, c, {0, blocks()}, space);
                for (int64_t b = 0; b < c.lane_blocks; ++b) write(arguments, c, b, space.sums);
            }
        });
    }

private:
    static constexpr int64_t kSize = sizeof(T);
    static constexpr int64_t kPositions = 256;           // of a block
    static constexpr int64_t kSumsBytes = 384 << 10;     // of a chunk
    static constexpr int64_t kTileBytes = 256 << 10;     // the input of a block
    static constexpr int64_t kLanesBytes = 256 << 10;    // the output gradients of a block

    // Output channels [k, ..) in blocks of kTileWidth by input channels [c, c + count) of a group.
    struct Chunk {
        int64_t group, k, lane_blocks, c, count;
    };
    struct Block {
        int64_t n, images, d, h, w, rows, columns;
        int64_t positions() const { return images * rows * columns; }
    };
    struct Space {
        T* tile;
        T* outputs;
        T* sums;  // [lane block][filter row][input channel][filter column][kTileWidth]
        int32_t* offset;
    };
    struct Work {
        double multiply_adds, copies;
    };

    int64_t lane_blocks() const { return divide_up(outputs_, kTileWidth<T>); }
    int64_t chunks_k() const { return divide_up(lane_blocks(), chunk_blocks_); }
    int64_t chunks_c() const { return divide_up(channels_, chunk_channels_); }
    int64_t chunks() const { return groups_ * chunks_k() * chunks_c(); }
    int64_t blocks_h() const { return divide_up(conv_.out.h, block_h_); }
    int64_t blocks_w() const { return divide_up(conv_.out.w, block_w_); }
    int64_t blocks_n() const { return divide_up(conv_.n, block_n_); }
    int64_t blocks() const { return blocks_n() * conv_.out.d * blocks_h() * blocks_w(); }
    int64_t block_positions() const { return block_n_ * block_h_ * block_w_; }
    int64_t filter_rows() const { return conv_.filter.d * conv_.filter.h; }

    TileShape shape() const {
        return {TileAxis(1, 1, (conv_.filter.d - 1) * conv_.dilation.d),
                TileAxis(conv_.stride.h, block_h_, (conv_.filter.h - 1) * conv_.dilation.h),
                TileAxis(conv_.dilation.w, conv_.filter.w, (block_w_ - 1) * conv_.stride.w)};
    }
    // From one channel of a tile to the next: the planes of a block's images lie side by side.
    int64_t pitch(const TileShape& shape) const { return block_n_ * shape.template plane<T>(); }
    int64_t tile_elements() const { return round_up(chunk_channels_ * pitch(shape()) + lanes<T>, 64); }
    int64_t output_elements() const { return chunk_blocks_ * block_positions() * kTileWidth<T>; }
    int64_t block_sums() const { return chunk_channels_ * filter_ * kTileWidth<T>; }
    int64_t sums_elements() const { return chunk_blocks_ * block_sums(); }
    int64_t offset_elements() const {
        return round_up(divide_up(block_positions() * static_cast<int64_t>(sizeof(int32_t)), kSize), 64);
    }
    int64_t thread_elements() const {
        return round_up(tile_elements() + output_elements() + sums_elements() + offset_elements(), 64);
    }
    Space carve(const ConvArguments& arguments, int thread) const {
        T* tile = static_cast<T*>(arguments.workspace) + thread * thread_elements();
        T* outputs = tile + tile_elements();
        T* sums = outputs + output_elements();
        return {tile, outputs, sums, reinterpret_cast<int32_t*>(sums + sums_elements())};
    }

    void choose_positions() {
        const int64_t columns = larger(1, conv_.out.w), rows = larger(1, conv_.out.h);
        block_w_ = divide_up(columns, divide_up(columns, kPositions));
        const int64_t high = smaller(rows, larger(1, kPositions / block_w_));
        block_h_ = divide_up(rows, divide_up(rows, high));
        if (block_h_ < rows || conv_.out.d > 1 || conv_.n == 0) return;
        const int64_t images = smaller(conv_.n, larger(1, kPositions / (block_h_ * block_w_)));
        block_n_ = divide_up(conv_.n, divide_up(conv_.n, images));
    }

    // The sizes of a chunk with the least work for the busiest thread, by estimate.
    void choose_chunks() {
        double best = -1;
        int64_t best_blocks = 1, best_channels = 1;
        bool best_positions = false;
        for (int64_t split_k = 1; split_k <= lane_blocks(); split_k *= 2)
            for (int64_t split_c = 1; split_c <= channels_; split_c *= 2) {
                chunk_blocks_ = divide_up(lane_blocks(), split_k);
                chunk_channels_ = divide_up(channels_, split_c);
                const bool smallest = chunk_blocks_ == 1 && chunk_channels_ == 1;
                if (!smallest && (sums_elements() * kSize > kSumsBytes || tile_elements() * kSize > kTileBytes ||
                                  output_elements() * kSize > kLanesBytes))
                    continue;
                for (int by = 0; by < (threads_ > 1 ? 2 : 1); ++by) {
                    const bool positions = by == 1;
                    const double time = estimate(positions);
                    if (best >= 0 && time >= best) continue;
                    best = time;
                    best_blocks = chunk_blocks_, best_channels = chunk_channels_, best_positions = positions;
                }
            }
        chunk_blocks_ = best_blocks, chunk_channels_ = best_channels, by_positions_ = best_positions;
    }

    // Of one block of positions for one chunk.
    Work chunk_work() const {
        const double positions = static_cast<double>(block_positions());
        return {positions * static_cast<double>(block_sums() * chunk_blocks_),
                static_cast<double>(tile_elements() + 2 * output_elements() + sums_elements() / 14)};
    }
    double estimate(bool positions) const {
        const Work work = chunk_work();
        const double block = work.multiply_adds + 4 * work.copies;
        const double sums = static_cast<double>(sums_elements());
        const double all = static_cast<double>(chunks());
        if (!positions)
            return static_cast<double>(divide_up(chunks(), threads_)) *
                   (static_cast<double>(blocks()) * block + 8 * sums);
        return all * (static_cast<double>(divide_up(blocks(), threads_)) * block + 16 * sums + 100000);
    }

    Chunk chunk(int64_t index) const {
        const int64_t c = index % chunks_c() * chunk_channels_;
        index /= chunks_c();
        const int64_t block = index % chunks_k() * chunk_blocks_;
        return {index / chunks_k(), block * kTileWidth<T>, smaller(chunk_blocks_, lane_blocks() - block), c,
                smaller(chunk_channels_, channels_ - c)};
    }

    Block block(int64_t index) const {
        Block b;
        b.w = index % blocks_w() * block_w_;
        index /= blocks_w();
        b.h = index % blocks_h() * block_h_;
        index /= blocks_h();
        b.d = index % conv_.out.d;
        b.n = index / conv_.out.d * block_n_;
        b.images = smaller(block_n_, conv_.n - b.n);
        b.rows = smaller(block_h_, conv_.out.h - b.h);
        b.columns = smaller(block_w_, conv_.out.w - b.w);
        return b;
    }

    // Each thread sums its share of the positions; then it adds all threads' sums of its share of the chunk.
    void run_by_positions(const ConvArguments& arguments, int thread, int team, const Space& space) const {
        for (int64_t i = 0; i < chunks(); ++i) {
            const Chunk c = chunk(i);
            add_blocks(arguments, c, share(blocks(), thread, team), space);
            team_barrier(team);
            T* total = carve(arguments, 0).sums;
            const Range vectors = share(c.lane_blocks * block_sums() / lanes<T>, thread, team);
            for (int64_t v = vectors.begin * lanes<T>; v < vectors.end * lanes<T>; v += lanes<T>) {
                Vec<T> sum = load<T>(total + v);
                for (int t = 1; t < team; ++t) sum += load<T>(carve(arguments, t).sums + v);
                store<T>(total + v, sum);
            }
            team_barrier(team);
            const Range mine = share(c.lane_blocks, thread, team);
            for (int64_t b = mine.begin; b < mine.end; ++b) write(arguments, c, b, total);
            team_barrier(team);
        }
    }

    // The sums of a chunk over some blocks of positions.
    void add_blocks(const ConvArguments& arguments, const Chunk& c, Range blocks, const Space& space) const {
        if (blocks.begin == blocks.end) zero_run(space.sums, sums_elements());
        for (int64_t i = blocks.begin; i < blocks.end; ++i) {
            const Block b = block(i);
            const TileShape shape = this->shape();
            fill_tile(arguments, c, b, shape, space.tile);
            fill_outputs(arguments, c, b, space.outputs);
            place_positions(b, shape, space.offset);
            for (int64_t k = 0; k < c.lane_blocks; ++k) multiply(c, b, shape, k, space, i > blocks.begin);
        }
    }

    // The positions of a block in its tile, in the order of fill_outputs().
    void place_positions(const Block& b, const TileShape& shape, int32_t* offset) const {
        for (int64_t n = 0; n < b.images; ++n)
            for (int64_t h = 0; h < b.rows; ++h)
                for (int64_t w = 0; w < b.columns; ++w)
                    *offset++ = static_cast<int32_t>(n * shape.template plane<T>() + h * shape.row() +
                                                     shape.w.index(w * conv_.stride.w));
    }

    void multiply(const Chunk& c, const Block& b, const TileShape& shape, int64_t lane_block, const Space& space,
                  bool add) const {
        const int64_t width = conv_.filter.w * kTileWidth<T>, positions = b.positions();
        const TileGrid grid(c.count, conv_.filter.w);
        const int vectors = outputs_ - c.k - lane_block * kTileWidth<T> > lanes<T> ? 2 : 1;
        const T* outputs = space.outputs + lane_block * positions * kTileWidth<T>;
        for (int64_t r = 0; r < filter_rows(); ++r) {
            const int64_t d = r / conv_.filter.h * conv_.dilation.d, h = r % conv_.filter.h * conv_.dilation.h;
            const TileTerms<T> terms{space.tile + shape.index(d, h, 0), pitch(shape), space.offset, positions,
                                     outputs};
            T* data = space.sums + lane_block * block_sums() + r * chunk_channels_ * width;
            const TileSums<T> sums{data, width, kTileWidth<T>, lanes<T>};
            multiply_rectangle<T>(grid, vectors, terms, {add ? data : nullptr, width, kTileWidth<T>, lanes<T>}, sums,
                                  false);
        }
    }

    void fill_tile(const ConvArguments& arguments, const Chunk& c, const Block& b, const TileShape& shape,
                   T* tile) const {
        const T* data = static_cast<const T*>(arguments.input);
        const Spatial origin{b.d * conv_.stride.d - conv_.padding.d, b.h * conv_.stride.h - conv_.padding.h,
                             b.w * conv_.stride.w - conv_.padding.w};
        for (int64_t n = 0; n < b.images; ++n, tile += shape.template plane<T>()) {
            const TileSource<T> source{data + (b.n + n) * conv_.input.n,
                                       data + tensor_extent(conv_.input, conv_.n, conv_.c, conv_.size),
                                       conv_.input,
                                       conv_.size,
                                       nullptr,
                                       nullptr,
                                       false};
            TileFill<T>(shape, source, origin, pitch(shape)).fill(c.group * channels_ + c.c, c.count, tile);
        }
    }

    // [lane block][position][kTileWidth]
    void fill_outputs(const ConvArguments& arguments, const Chunk& c, const Block& b, T* to) const {
        const Strides& s = conv_.output;
        const T* all = static_cast<const T*>(arguments.output);
        const T* end = all + tensor_extent(s, conv_.n, conv_.k, conv_.out);
        const T* from = all + b.n * s.n + b.d * s.d + b.h * s.h + b.w * s.w;
        for (int64_t block = 0; block < c.lane_blocks; ++block, to += b.positions() * kTileWidth<T>) {
            const int64_t k = c.k + block * kTileWidth<T>, channels = smaller(kTileWidth<T>, outputs_ - k);
            for (int64_t first = 0; first < channels; first += lanes<T>) {
                const int64_t used = smaller(lanes<T>, channels - first);
                const T* start = from + (c.group * outputs_ + k + first) * s.c;
                for (int64_t h = 0; h < b.images * b.rows; ++h)
                    fill_lanes(start + h / b.rows * s.n + h % b.rows * s.h, used, b.columns, end,
                               to + h * b.columns * kTileWidth<T> + first);
            }
        }
    }

    // One vector of channels at each of `count` positions of a row.
    void fill_lanes(const T* from, int64_t used, int64_t count, const T* end, T* to) const {
        const Strides& s = conv_.output;
        if (s.c == 1 && used == lanes<T>) {
            for (int64_t i = 0; i < count; ++i) store<T>(to + i * kTileWidth<T>, load<T>(from + i * s.w));
            return;
        }
        int64_t i = 0;
        if (s.w == 1)
            for (; i < count && end - (from + (used - 1) * s.c + i) >= lanes<T>; i += lanes<T>)
                transpose_lanes(from + i, used, smaller(lanes<T>, count - i), to + i * kTileWidth<T>);
        for (; i < count; ++i)
            for (int64_t j = 0; j < lanes<T>; ++j) to[i * kTileWidth<T> + j] = j < used ? from[j * s.c + i * s.w] : T(0);
    }
    void transpose_lanes(const T* from, int64_t used, int64_t count, T* to) const {
        Vec<T> v[lanes<T>];
#pragma GCC unroll 16
        for (int j = 0; j < lanes<T>; ++j) v[j] = j < used ? load<T>(from + j * conv_.output.c) : Vec<T>{};
        shuffles::transpose_step<T, 1>(v);
        if (count == lanes<T>) {
#pragma GCC unroll 16
            for (int i = 0; i < lanes<T>; ++i) store<T>(to + i * kTileWidth<T>, v[i]);
        } else {
            for (int i = 0; i < count; ++i) store<T>(to + i * kTileWidth<T>, v[i]);
        }
    }

    // Writes the finished sums of a block of output channels to the weight.
    void write(const ConvArguments& arguments, const Chunk& c, int64_t lane_block, const T* all) const {
        const Strides& s = conv_.weight;
        const Spatial& f = conv_.filter;
        const int64_t k = c.k + lane_block * kTileWidth<T>, channels = smaller(kTileWidth<T>, outputs_ - k);
        const bool taps_contiguous =
            (f.w == 1 || s.w == 1) && (f.h == 1 || s.h == f.w) && (f.d == 1 || s.d == f.h * f.w);
        for (int64_t first = 0; first < channels; first += lanes<T>) {
            const int64_t used = smaller(lanes<T>, channels - first);
            const T* sums = all + lane_block * block_sums() + first;
            T* to = static_cast<T*>(arguments.weight) + (c.group * outputs_ + k + first) * s.n + c.c * s.c;
            const auto at = [&](int64_t channel, int64_t tap) {
                return sums + ((tap / f.w * chunk_channels_ + channel) * f.w + tap % f.w) * kTileWidth<T>;
            };
            if (taps_contiguous && s.c == filter_) {
                write_run(to, c.count * filter_, used, [&](int64_t i) { return at(i / filter_, i % filter_); });
            } else if (taps_contiguous) {
                for (int64_t i = 0; i < c.count; ++i)
                    write_run(to + i * s.c, filter_, used, [&](int64_t tap) { return at(i, tap); });
            } else if (s.c == 1) {
                for (int64_t tap = 0; tap < filter_; ++tap)
                    write_run(to + tap_offset(tap), c.count, used, [&](int64_t i) { return at(i, tap); });
            } else {
                for (int64_t i = 0; i < c.count; ++i)
                    for (int64_t tap = 0; tap < filter_; ++tap)
                        for (int64_t j = 0; j < used; ++j) to[i * s.c + tap_offset(tap) + j * s.n] = at(i, tap)[j];
            }
        }
    }
    int64_t tap_offset(int64_t tap) const {
        const Strides& s = conv_.weight;
        const Spatial& f = conv_.filter;
        return tap % f.w * s.w + tap / f.w % f.h * s.h + tap / f.w / f.h * s.d;
    }

    // Contiguous elements of `used` output channels; from(i) are all channels of the i-th.
    template <class From>
    void write_run(T* to, int64_t length, int64_t used, const From& from) const {
        const int64_t stride = conv_.weight.n;
        for (int64_t i = 0; i < length; i += lanes<T>) {
            const int64_t count = smaller(lanes<T>, length - i);
            Vec<T> v[lanes<T>];
            for (int j = 0; j < lanes<T>; ++j) v[j] = j < count ? load<T>(from(i + j)) : Vec<T>{};
            shuffles::transpose_step<T, 1>(v);
            if (count == lanes<T> && used == lanes<T>) {
#pragma GCC unroll 16
                for (int j = 0; j < lanes<T>; ++j) store<T>(to + j * stride + i, v[j]);
                continue;
            }
            for (int64_t j = 0; j < used; ++j) {
                alignas(64) T part[lanes<T>];
                store<T>(part, v[j]);
                copy_run<T>(to + j * stride + i, part, count);
            }
        }
    }

    ConvProblem conv_;
    int threads_;
    int64_t groups_, channels_, outputs_, filter_;  // channels per group
    int64_t block_n_ = 1, block_h_ = 1, block_w_ = 1;  // positions of a block: images, rows, columns
    int64_t chunk_blocks_ = 1, chunk_channels_ = 1;
    bool by_positions_ = false;
};

}  // namespace pycv::cpu::PYCV_ISA
