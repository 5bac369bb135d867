// grad_weight by Winograd's F(r x r, m x m): the filter's gradient is a convolution of the input with grad_output,
// whose tiles of m x m pixels take the part of the filters, with the points and the input transform of the forward
// pass.
//
//     sums[xi][k][c] = sum over the tiles of all images of gradients[xi][tile][k] * tiles[xi][tile][c]
//     weight[k][c]   = the inverse transform of sums[.][k][c]
//
// a * a multiply-adds per tile and pair of channels instead of m * m * r * r, as in the forward pass.
//
// The batch is cut into blocks whose transformed tiles fit the cache. The team transforms a block together; after a
// barrier each thread adds the block's products to those sums that are its own, a few channels by a few at a time, and
// with the last block turns them into the weight. A sum's order depends on the problem and the blocks only, never on
// the threads.
#include "winograd_grad_weight.h"

#include "cost.h"
#include "winograd_blocks.h"
#include "winograd_product.h"
#include "winograd_weight.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// How the work is cut.
struct SumBlocking {
    int64_t tiles, blocks;  // tiles of a block; blocks
    int64_t rows, columns;  // a part of the sums: vectors of channels k, pairs of vectors of channels c
    int64_t row_parts, column_parts;
    int64_t parts() const { return row_parts * column_parts; }
};

template <class T>
class WinogradGradWeight final : public ConvPlan {
public:
    WinogradGradWeight(const ConvProblem& p, const TileTransforms<T>& tile, int threads, int64_t workspace_limit)
        : p_(p), tile_(tile), planes_(tile.a * tile.a), threads_(threads) {
        groups_ = larger(1, p.groups);
        channels_ = p.c / groups_;
        outputs_ = p.k / groups_;
        input_vectors_ = divide_up(channels_, lanes<T>);
        output_vectors_ = divide_up(outputs_, lanes<T>);
        inputs_.grid = tile_grid(p.n, p.out.h, p.out.w, tile.m, tile.step, tile.window);
        inputs_.step = tile.step, inputs_.window = tile.window;
        inputs_.top = p.padding.h, inputs_.left = p.padding.w;
        inputs_.access = access_of(p.input, channels_);
        inputs_.transform = tile.input;
        gradients_ = inputs_;
        gradients_.step = gradients_.window = tile.m;
        gradients_.top = gradients_.left = 0;
        gradients_.access = access_of(p.output, outputs_);
        gradients_.transform = tile.gradient;
        blocking_ = choose_blocking(workspace_limit);
    }

    int64_t workspace_bytes() const override {
        return (input_elements() + gradient_elements() + sums_count() * sums_elements() + threads_ * patch_size()) *
               kSize;
    }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}

    void run(const ConvArguments& arguments) const override {
        if (channels_ == 0 || outputs_ == 0) return;
        parallel(threads_, [&](int thread, int team) {
            for (int64_t group = 0; group < groups_; ++group) run_group(arguments, group, thread, team);
        });
    }

    Cost cost() const override {
        const double tiles = static_cast<double>(inputs_.grid.count()), planes = static_cast<double>(planes_);
        const double groups = static_cast<double>(groups_), blocks = static_cast<double>(blocking_.blocks);
        const double vectors = static_cast<double>((input_vectors_ + output_vectors_) * lanes<T>);
        const double pixels = static_cast<double>(tile_.m * tile_.m);
        const double own = static_cast<double>(divide_up(blocking_.parts(), threads_));
        const double sums = planes * static_cast<double>(blocking_.rows * lanes<T> * blocking_.columns * kTileWidth<T>);
        const double transformed = tiles * vectors * planes;
        Cost sum{groups * own * sums * tiles, 0, 0, 1 + 2 * groups * blocks};
        sum.vector_elements = groups * (tiles * vectors * (planes + pixels) / threads_ + own * sums * blocks);
        sum.bytes = tensor_bytes(p_) + 2 * groups * transformed * kSize;
        if (blocking_.blocks > 1)
            sum.bytes += 2 * groups * blocks * sums * static_cast<double>(blocking_.parts()) * kSize;
        return sum;
    }
    Cost prepare_cost() const override { return {}; }

private:
    static constexpr int64_t kSize = sizeof(T);
    static constexpr int64_t kSubs = lanes<T> / kGradientRows<T>;  // register tiles per vector of channels k

    // ------------------------------------------------------------------------------------------ blocking

    SumBlocking choose_blocking(int64_t workspace_limit) const {
        constexpr int64_t kBlockBytes = 8 * 1024 * 1024;  // transformed tiles of both tensors
        constexpr int64_t kSumsBytes = 600 * 1024;        // stay in the L2 cache
        SumBlocking b{};
        const int64_t tile_bytes = larger(1, planes_ * (input_vectors_ + output_vectors_) * PYCV_VECTOR_BYTES);
        const int64_t tiles = larger(1, inputs_.grid.count());
        const int64_t most = larger(1, smaller(kBlockBytes, workspace_limit) / tile_bytes);
        b.blocks = divide_up(tiles, most);
        b.tiles = divide_up(tiles, b.blocks);
        const int64_t pairs = divide_up(input_vectors_, 2);
        b.rows = b.columns = 1;
        const auto parts = [&](int64_t rows, int64_t columns) {
            return divide_up(output_vectors_, rows) * divide_up(pairs, columns);
        };
        const auto worth = [&](int64_t rows, int64_t columns) {
            const int64_t bytes = planes_ * rows * columns * lanes<T> * kTileWidth<T> * kSize,
                          count = parts(rows, columns);
            const bool even = divide_up(count, threads_) * threads_ * 4 <= count * 5;
            return bytes <= kSumsBytes && even && rows <= output_vectors_ && columns <= pairs;
        };
        for (bool grown = true; grown;) {
            grown = false;
            if (b.rows <= 2 * b.columns && worth(b.rows * 2, b.columns)) b.rows *= 2, grown = true;
            if (2 * b.columns <= b.rows && worth(b.rows, b.columns * 2)) b.columns *= 2, grown = true;
        }
        b.row_parts = divide_up(output_vectors_, b.rows);
        b.column_parts = divide_up(pairs, b.columns);
        return b;
    }

    int64_t input_plane() const { return plane_elements<T>(input_vectors_ * blocking_.tiles); }
    int64_t gradient_plane() const { return plane_elements<T>(output_vectors_ * blocking_.tiles); }
    int64_t sums_plane() const { return plane_elements<T>(blocking_.rows * blocking_.columns * lanes<T> * 2); }
    int64_t input_elements() const { return planes_ * input_plane(); }
    int64_t gradient_elements() const { return planes_ * gradient_plane(); }
    int64_t sums_elements() const { return planes_ * sums_plane(); }
    // Of one block the sums are finished at once; of more they are all kept.
    int64_t sums_count() const { return blocking_.blocks > 1 ? blocking_.parts() : threads_; }
    int64_t patch_size() const {
        return larger(patch_elements<T>(inputs_.grid, tile_.step, tile_.window),
                      patch_elements<T>(gradients_.grid, tile_.m, tile_.m));
    }

    // ------------------------------------------------------------------------------------------ run

    void run_group(const ConvArguments& a, int64_t group, int thread, int team) const {
        const Image<const T> input{static_cast<const T*>(a.input) + p_.input.channel(group * channels_), p_.input,
                                   channels_, pixels_read(p_.size.h, p_.out.h, p_.filter.h, p_.stride.h, p_.padding.h),
                                   pixels_read(p_.size.w, p_.out.w, p_.filter.w, p_.stride.w, p_.padding.w)};
        const Image<const T> output{static_cast<const T*>(a.output) + p_.output.channel(group * outputs_), p_.output,
                                    outputs_, windows_reading(p_.size.h, p_.out.h, p_.stride.h, p_.padding.h),
                                    windows_reading(p_.size.w, p_.out.w, p_.stride.w, p_.padding.w)};
        T* const weight = static_cast<T*>(a.weight) + group * outputs_ * p_.weight.n;
        T* const tiles = static_cast<T*>(a.workspace);
        T* const gradients = tiles + input_elements();
        T* const sums = gradients + gradient_elements();
        T* const patch = sums + sums_count() * sums_elements() + thread * patch_size();
        const int64_t count = inputs_.grid.count();
        const Range parts = share(blocking_.parts(), thread, team);
        for (int64_t i = 0; i < blocking_.blocks; ++i) {
            const TileRange block{count * i / blocking_.blocks, count * (i + 1) / blocking_.blocks};
            const TilePlanes<T> x{tiles, input_plane(), block}, y{gradients, gradient_plane(), block};
            share_block(block, input_vectors_, thread, team,
                        [&](TileRange part, Range vectors) { inputs_.read(input, part, vectors, x, patch); });
            share_block(block, output_vectors_, thread, team,
                        [&](TileRange part, Range vectors) { gradients_.read(output, part, vectors, y, patch); });
            team_barrier(team);
            for (int64_t part = parts.begin; part < parts.end; ++part) {
                T* own = sums + (blocking_.blocks > 1 ? part : thread) * sums_elements();
                add_products(x, y, part, i > 0, own);
                if (i + 1 == blocking_.blocks) write_weight(own, part, weight);
            }
            team_barrier(team);
        }
    }

    // The vectors of channels k and the pairs of vectors of channels c of a part of the sums.
    Range rows_of(int64_t part) const {
        const int64_t index = part / blocking_.column_parts;
        return {index * blocking_.rows, smaller(output_vectors_, (index + 1) * blocking_.rows)};
    }
    Range pairs_of(int64_t part) const {
        const int64_t index = part % blocking_.column_parts;
        return {index * blocking_.columns, smaller(divide_up(input_vectors_, 2), (index + 1) * blocking_.columns)};
    }
    // Where row `row` of a vector of channels k begins within a part's plane.
    int64_t sums_at(int64_t vector, int64_t pair, int64_t row) const {
        return ((pair * blocking_.rows + vector) * lanes<T> + row) * kTileWidth<T>;
    }

    void add_products(const TilePlanes<T>& x, const TilePlanes<T>& y, int64_t part, bool add, T* sums) const {
        constexpr int64_t kChunk = 128;  // tiles of a pair of vectors stay in the L1 cache
        const Range rows = rows_of(part), pairs = pairs_of(part);
        const TileRange block = x.block;
        for (int64_t plane = 0; plane < planes_; ++plane) {
            const int64_t chunks = larger(1, divide_up(block.size(), kChunk));
            for (int64_t i = 0; i < chunks; ++i) {
                const TileRange chunk{block.begin + block.size() * i / chunks,
                                      block.begin + block.size() * (i + 1) / chunks};
                for (int64_t pair = pairs.begin; pair < pairs.end; ++pair)
                    for (int64_t row = rows.begin; row < rows.end; ++row)
                        add_chunk(x, y, plane, chunk, pair, row, add || i > 0,
                                  sums + plane * sums_plane() + sums_at(row - rows.begin, pair - pairs.begin, 0));
            }
        }
    }

    void add_chunk(const TilePlanes<T>& x, const TilePlanes<T>& y, int64_t plane, TileRange chunk, int64_t pair,
                   int64_t row, bool add, T* sums) const {
        const TileSum<T> kernel = tile_sum<T>(2 * pair + 1 < input_vectors_ ? 2 : 1);
        const T* tiles = x.at(2 * pair, chunk.begin) + plane * x.plane;
        const T* gradients = y.at(row, chunk.begin) + plane * y.plane;
        for (int64_t sub = 0; sub < kSubs; ++sub) {
            if (row * lanes<T> + sub * kGradientRows<T> >= outputs_) break;
            kernel(gradients + sub * kGradientRows<T>, tiles, x.block.size() * lanes<T>, chunk.size(), add,
                   sums + sub * kGradientRows<T> * kTileWidth<T>);
        }
    }

    // ------------------------------------------------------------------------------------------ weight

    void write_weight(const T* sums, int64_t part, T* weight) const {
        const Range rows = rows_of(part), pairs = pairs_of(part);
        alignas(64) T taps[kMostTaps * lanes<T>];
        for (int64_t k = rows.begin * lanes<T>; k < smaller(outputs_, rows.end * lanes<T>); ++k)
            for (int64_t c = pairs.begin * kTileWidth<T>; c < smaller(channels_, pairs.end * kTileWidth<T>);
                 c += lanes<T>) {
                const int64_t pair = c / kTileWidth<T> - pairs.begin, half = c / lanes<T> % 2;
                const int64_t vector = k / lanes<T> - rows.begin;
                tile_.taps(sums + sums_at(vector, pair, k % lanes<T>) + half * lanes<T>, sums_plane(), taps);
                write_filters(taps, weight + k * p_.weight.n + c * p_.weight.c, smaller(lanes<T>, channels_ - c));
            }
    }

    // One vector of filters [tap][channel] to where the weight has them.
    void write_filters(const T* taps, T* to, int64_t count) const {
        const Strides& s = p_.weight;
        const int64_t r = tile_.r;
        if (s.w == 1 && s.h == r && s.c == r * r && count == lanes<T>) return write_runs(taps, r * r, to);
        for (int64_t tap = 0; tap < r * r; ++tap) {
            T* at = to + tap / r * s.h + tap % r * s.w;
            if (s.c == 1) {
                copy_run<T>(at, taps + tap * lanes<T>, count);
            } else {
                for (int64_t i = 0; i < count; ++i) at[i * s.c] = taps[tap * lanes<T> + i];
            }
        }
    }

    // The transposition of [length][lanes] to runs of `length`, through a buffer that whole vectors may overrun.
    static void write_runs(const T* taps, int64_t length, T* to) {
        alignas(64) T runs[(kMostTaps + 1) * lanes<T>];
        for (int64_t first = (length - 1) / lanes<T> * lanes<T>; first >= 0; first -= lanes<T>) {
            Vec<T> v[lanes<T>];
            for (int i = 0; i < lanes<T>; ++i)
                v[i] = first + i < length ? load<T>(taps + (first + i) * lanes<T>) : Vec<T>{};
            shuffles::transpose_step<T, 1>(v);
            for (int i = 0; i < lanes<T>; ++i) store<T>(runs + i * length + first, v[i]);
        }
        for (int64_t i = 0; i < length; ++i) store<T>(to + i * lanes<T>, load<T>(runs + i * lanes<T>));
    }

    ConvProblem p_;
    const TileTransforms<T>& tile_;
    int64_t planes_;
    int threads_;
    int64_t groups_, channels_, outputs_;  // channels per group
    int64_t input_vectors_, output_vectors_;
    TileReader<T> inputs_{}, gradients_{};
    SumBlocking blocking_;
};

}  // namespace

template <class T>
ConvPlan* new_winograd_grad_weight(const ConvProblem& problem, const TileTransforms<T>& tile, int threads,
                                   int64_t workspace_limit) {
    return new WinogradGradWeight<T>(problem, tile, threads, workspace_limit);
}

template ConvPlan* new_winograd_grad_weight<float>(const ConvProblem&, const TileTransforms<float>&, int, int64_t);
template ConvPlan* new_winograd_grad_weight<double>(const ConvProblem&, const TileTransforms<double>&, int, int64_t);

}  // namespace pycv::cpu::PYCV_ISA
