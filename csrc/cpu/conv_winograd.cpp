// Winograd convolution F(m x m, r x r): forward and grad_input of 3 x 3 and 5 x 5 filters with stride and dilation 1.
//
// The output is cut into tiles of m x m pixels. Each needs a = m + r - 1 input pixels per side; both transforms
// (winograd_matrices.h) make a * a planes, in each of which the convolution is one matrix product over the channels:
//
//     sums[xi][tile][k] = sum over c of tiles[xi][c][tile] * weight[xi][c][k]
//
// a * a multiply-adds per tile and pair of channels instead of m * m * r * r: 2.25 (F2), 4 (F4), 5.06 (F6) times fewer
// for 3 x 3, 2.78 (F2), 4.59 (F3), 6.25 (F4) for 5 x 5. grad_input is the forward pass over grad_output with the filters
// turned by 180 degrees and their channels exchanged.
//
// A block of tiles is transformed, multiplied and transformed back at a time. Its tiles stay in the cache, and each of
// the weight's panels of kTileWidth output channels passes by once per block. Where there are many tiles, each thread
// works on blocks of its own, without a barrier. Where the weight is what has to be moved (few tiles, many channels),
// all threads share a block: each transforms some channels, and after a barrier multiplies some panels.
//
// prepare_weight() makes weight[panel][xi][c][kTileWidth]: a * a / (r * r) times the weight's size.
//
// Rounding: see winograd_matrices.h; an error is bounded by what the largest values of a tile allow, not those of one
// output. A NaN or an infinity reaches every output of the tiles that read it, mostly as NaN, and nothing beyond:
// whatever direct convolution would make non-finite is so here.
#include "cost.h"
#include "parallel.h"
#include "plan.h"
#include "winograd_image.h"
#include "winograd_product.h"
#include "winograd_tile.h"
#include "winograd_weight.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// What the forward and the grad_input pass have in common. "Source" is the tensor that is read.
struct TileProblem {
    int64_t n, groups, source_channels, channels;  // channels per group; `channels` are those computed
    int64_t source_height, source_width, height, width;
    int64_t top, left;  // the first tile reads from source row -top and column -left on
    Strides source, computed, residual, weight;  // weight: n = computed channel, c = source channel
    int64_t weight_group;
    bool turned;  // filters by 180 degrees
};

TileProblem tile_problem(const ConvProblem& p) {
    const int64_t groups = larger(p.groups, 1);
    const int64_t c = p.c / groups, k = p.k / groups;
    if (p.pass == Pass::forward)
        return {p.n,         groups,      c,       k,        p.size.h,   p.size.w, p.out.h,        p.out.w, p.padding.h,
                p.padding.w, p.input,     p.output, p.residual, p.weight, k * p.weight.n, false};
    const Strides weight{p.weight.c, p.weight.n, p.weight.d, p.weight.h, p.weight.w};
    return {p.n,
            groups,
            k,
            c,
            p.out.h,
            p.out.w,
            p.size.h,
            p.size.w,
            p.filter.h - 1 - p.padding.h,
            p.filter.w - 1 - p.padding.w,
            p.output,
            p.input,
            p.residual,
            weight,
            k * p.weight.n,
            true};
}

// How a problem is cut. Sizes in tiles.
struct Tiling {
    int64_t rows, columns, count;          // of an image; of the batch
    int64_t patch_rows, patch_columns;     // at most so many at a time between an image and its transform
    int64_t block;                         // multiplied at a time
    int64_t panel_group;                   // panels of output channels whose sums are held at a time
    bool shared;                           // threads work on one block together
};

constexpr int64_t kPatchBytes = 20 * 1024;        // stays in the L1 cache
constexpr int64_t kSumsBytes = 256 * 1024;        // stay in the L2 cache with one panel of the weight
constexpr int64_t kBlockBytes = 512 * 1024;       // the tiles of a block of one thread
constexpr int64_t kSharedBytes = 8 * 1024 * 1024;  // the tiles of a block of all threads

template <class T>
class Winograd final : public ConvPlan {
public:
    Winograd(const ConvProblem& problem, const TileTransforms<T>& tile, int threads, int64_t workspace_limit)
        : conv_(problem), p_(tile_problem(problem)), tile_(tile), planes_(tile.a * tile.a), threads_(threads) {
        source_vectors_ = divide_up(p_.source_channels, lanes<T>);
        panels_ = divide_up(round_up(p_.channels, p_.computed.block), kTileWidth<T>);
        source_access_ = access_of<T>(p_.source, p_.source_channels);
        computed_access_ = access_of<T>(p_.computed, p_.channels);
        residual_access_ = access_of<T>(p_.residual, p_.channels);
        choose_tiling(workspace_limit);
    }

    int64_t workspace_bytes() const override {
        return ((tiling_.shared ? 1 : threads_) * tiles_elements() + threads_ * (sums_elements() + patch_elements())) *
               kSize;
    }

    int64_t prepared_weight_bytes() const override {
        return p_.groups * panels_ * planes_ * p_.source_channels * kTileWidth<T> * kSize;
    }

    void prepare_weight(const void* weight, void* prepared) const override {
        const int64_t chunks = divide_up(p_.source_channels, kFilterChunk);
        const int64_t halves = divide_up(round_up(p_.channels, p_.computed.block), lanes<T>);
        parallel_for(threads_, p_.groups * halves * chunks, [&](int64_t item) {
            const int64_t chunk = item % chunks, half = item / chunks % halves, group = item / chunks / halves;
            prepare_filters(static_cast<const T*>(weight), group, half, chunk * kFilterChunk,
                            static_cast<T*>(prepared));
        });
    }

    void run(const ConvArguments& arguments) const override {
        if (tiling_.count == 0 || p_.channels == 0 || p_.groups == 0) return;
        parallel(threads_, [&](int thread, int team) {
            const Space space = space_of(arguments.workspace, thread);
            for (int64_t group = 0; group < p_.groups; ++group) {
                if (tiling_.shared) {
                    run_shared(operands(arguments, group), space, thread, team);
                } else {
                    run_alone(operands(arguments, group), space, share(tiling_.count, thread, team));
                }
            }
        });
    }

    Cost cost() const override { return {}; }
    Cost prepare_cost() const override { return {}; }

private:
    static constexpr int64_t kSize = sizeof(T);

    // One group's part of the arguments.
    struct Operands {
        Image<const T> source;
        Destination<T> destination;
        const T* weight;
        const T* bias;
        const T *scale, *shift;
    };

    struct Space {
        T *tiles, *sums, *patch;
    };

    // Tiles [begin, end) of the batch, `block` of which the transformed tiles and sums are made for.
    struct Block {
        int64_t begin, end;
        int64_t size() const { return end - begin; }
    };

    // ------------------------------------------------------------------------------------------ tiling

    void choose_tiling(int64_t workspace_limit) {
        const int64_t m = tile_.m, overlap = tile_.r - 1;
        Tiling& t = tiling_;
        t.rows = divide_up(p_.height, m);
        t.columns = divide_up(p_.width, m);
        t.count = p_.n * t.rows * t.columns;
        const auto fitting = [&](int64_t other) {
            return larger(1, (kPatchBytes / (other * PYCV_VECTOR_BYTES) - overlap) / m);
        };
        t.patch_columns = divide_up(t.columns, divide_up(larger(t.columns, 1), fitting(tile_.a)));
        t.patch_rows = t.patch_columns < t.columns ? 1 : smaller(larger(t.rows, 1), fitting(t.columns * m + overlap));

        const int64_t tile_bytes = larger(1, planes_ * source_vectors_ * PYCV_VECTOR_BYTES);
        const int64_t least = 2 * kTileHeight;
        const int64_t own = divide_up(larger(t.count, 1), threads_);
        t.shared = threads_ > 1 && own < 2 * least;
        int64_t block = t.shared ? kSharedBytes / tile_bytes : larger(least, kBlockBytes / tile_bytes);
        const int64_t limit = workspace_limit / tile_bytes / (t.shared ? 1 : threads_) / 2;
        block = larger(1, smaller(block, limit));
        const int64_t available = t.shared ? larger(t.count, 1) : own;
        t.block = divide_up(available, divide_up(available, block));
        const int64_t panel_bytes = planes_ * t.block * kTileWidth<T> * kSize;
        t.panel_group = larger(1, smaller(kSumsBytes / panel_bytes, panels_));
    }

    // The distance between planes: an odd number of cache lines, so that the planes of a tile fall into different sets.
    static int64_t plane_elements(int64_t vectors) { return (vectors | 1) * lanes<T>; }
    int64_t tiles_plane() const { return plane_elements(source_vectors_ * tiling_.block); }
    int64_t sums_plane() const { return plane_elements(2 * tiling_.block); }
    int64_t tiles_elements() const { return planes_ * tiles_plane(); }
    int64_t sums_elements() const { return tiling_.panel_group * planes_ * sums_plane(); }
    int64_t patch_elements() const {
        const int64_t m = tile_.m, overlap = tile_.r - 1;
        return (tiling_.patch_rows * m + overlap) * (tiling_.patch_columns * m + overlap) * lanes<T>;
    }

    Space space_of(void* workspace, int thread) const {
        T* at = static_cast<T*>(workspace);
        T* const tiles = at + (tiling_.shared ? 0 : thread * tiles_elements());
        at += (tiling_.shared ? 1 : threads_) * tiles_elements() + thread * (sums_elements() + patch_elements());
        return {tiles, at, at + sums_elements()};
    }

    // The largest rectangle that begins with a tile and ends before another.
    Rectangle next_rectangle(int64_t tile, int64_t end) const {
        const int64_t column = tile % tiling_.columns, row = tile / tiling_.columns % tiling_.rows;
        const int64_t n = tile / tiling_.columns / tiling_.rows;
        if (column == 0 && tiling_.patch_columns == tiling_.columns && end - tile >= tiling_.columns) {
            const int64_t rows = smaller(smaller(tiling_.patch_rows, tiling_.rows - row), (end - tile) / tiling_.columns);
            return {n, row, column, rows, tiling_.columns};
        }
        return {n, row, column, 1, smaller(smaller(tiling_.patch_columns, tiling_.columns - column), end - tile)};
    }

    template <class Body>
    void for_each_rectangle(Block block, const Body& body) const {
        for (int64_t tile = block.begin; tile < block.end;) {
            const Rectangle rectangle = next_rectangle(tile, block.end);
            body(rectangle, tile);
            tile += rectangle.rows * rectangle.columns;
        }
    }

    // ------------------------------------------------------------------------------------------ weight

    void prepare_filters(const T* weight, int64_t group, int64_t half, int64_t source, T* prepared) const {
        alignas(64) T filters[kFilterChunk * 25 * lanes<T>];
        const Strides& s = p_.weight;
        const int64_t r = tile_.r, taps = r * r, count = smaller(kFilterChunk, p_.source_channels - source);
        const int64_t whole = p_.channels * p_.groups;
        const T* end = weight + 1 + (r - 1) * (s.h + s.w) +
                       (p_.turned ? (p_.source_channels * p_.groups - 1) * s.c + (p_.channels - 1) * s.n
                                  : (whole - 1) * s.n + (p_.source_channels - 1) * s.c);
        const FilterSource<T> from{weight + group * p_.weight_group, end, s.n, s.c, s.h, s.w, p_.channels, r};
        gather_filters<T>(from, half * lanes<T>, source, count, filters);
        const int64_t plane = p_.source_channels * kTileWidth<T>;
        T* to = prepared + (group * panels_ + half / 2) * planes_ * plane + source * kTileWidth<T> + half % 2 * lanes<T>;
        for (int64_t c = 0; c < count; ++c) {
            const T* filter = filters + c * taps * lanes<T>;
            if (p_.turned) {
                tile_.filter(filter + (taps - 1) * lanes<T>, -lanes<T>, to + c * kTileWidth<T>, plane);
            } else {
                tile_.filter(filter, lanes<T>, to + c * kTileWidth<T>, plane);
            }
        }
    }

    // ------------------------------------------------------------------------------------------ run

    Operands operands(const ConvArguments& a, int64_t group) const {
        const bool forward = conv_.pass == Pass::forward;
        const T* source = static_cast<const T*>(forward ? a.input : a.output);
        T* computed = static_cast<T*>(forward ? a.output : a.input);
        const T* residual = conv_.has_residual ? static_cast<const T*>(a.residual) : nullptr;
        const int64_t from = group * p_.source_channels, to = group * p_.channels;
        Operands o{};
        o.source = {source + p_.source.channel(from), p_.source, p_.source_channels, p_.source_height,
                    p_.source_width};
        o.destination = {{computed + p_.computed.channel(to), p_.computed, p_.channels, p_.height, p_.width},
                         computed_access_,
                         {residual ? residual + p_.residual.channel(to) : nullptr, p_.residual, p_.channels, p_.height,
                          p_.width},
                         residual_access_,
                         conv_.relu ? T(0) : -static_cast<T>(__builtin_inf())};
        o.weight = static_cast<const T*>(a.weight) + group * panels_ * planes_ * p_.source_channels * kTileWidth<T>;
        o.bias = conv_.bias ? static_cast<const T*>(a.bias) + to : nullptr;
        if (conv_.scale_input) {
            o.scale = static_cast<const T*>(a.input_scale) + from;
            o.shift = static_cast<const T*>(a.input_shift) + from;
        }
        return o;
    }

    void run_alone(const Operands& o, const Space& space, Range tiles) const {
        const int64_t count = tiles.end - tiles.begin;
        const int64_t blocks = divide_up(count, tiling_.block);
        for (int64_t i = 0; i < blocks; ++i) {
            const Block block{tiles.begin + count * i / blocks, tiles.begin + count * (i + 1) / blocks};
            transform(o, space, block, block, {0, source_vectors_});
            multiply(o, space, block, block, {0, panels_});
        }
    }

    void run_shared(const Operands& o, const Space& space, int thread, int team) const {
        const int64_t blocks = divide_up(tiling_.count, tiling_.block);
        for (int64_t i = 0; i < blocks; ++i) {
            const Block block{tiling_.count * i / blocks, tiling_.count * (i + 1) / blocks};
            share_work(block, source_vectors_, thread, team,
                       [&](Block part, Range vectors) { transform(o, space, block, part, vectors); });
            team_barrier(team);
            share_work(block, panels_, thread, team,
                       [&](Block part, Range panels) { multiply(o, space, block, part, panels); });
            team_barrier(team);
        }
    }

    // Splits a block's `units` (vectors or panels of channels) over the team, and the block's tiles too where the units
    // alone would leave threads idle.
    template <class Body>
    static void share_work(Block block, int64_t units, int thread, int team, const Body& body) {
        int64_t pieces = 1;
        while (units * pieces % team != 0 && pieces < 2 * team && block.size() >= (pieces + 1) * kTileHeight / 2) ++pieces;
        const Range mine = share(units * pieces, thread, team);
        for (int64_t piece = 0; piece < pieces; ++piece) {
            const Range range{larger(0, mine.begin - piece * units), smaller(units, mine.end - piece * units)};
            const Block part{block.begin + block.size() * piece / pieces,
                             block.begin + block.size() * (piece + 1) / pieces};
            if (range.begin < range.end) body(part, range);
        }
    }

    // ------------------------------------------------------------------------------------------ input

    // The transformed tiles of `part` of a block, for some vectors of source channels: tiles[plane][vector][tile].
    void transform(const Operands& o, const Space& space, Block block, Block part, Range vectors) const {
        const bool prologue = conv_.scale_input || conv_.relu_input;
        const bool whole = source_access_ == Access::pixels && (p_.source.block == 1 || p_.source.block >= lanes<T>);
        const int64_t full = whole && !prologue ? p_.source_channels / lanes<T> : 0;
        const Range direct{vectors.begin, larger(vectors.begin, smaller(vectors.end, full))};
        const Range patched{direct.end, vectors.end};
        for_each_rectangle(part, [&](const Rectangle& rectangle, int64_t tile) {
            T* to = space.tiles + (tile - block.begin) * lanes<T>;
            if (direct.begin < direct.end) transform_pixels(o, space, rectangle, to, block.size(), direct);
            if (patched.begin < patched.end) transform_patch(o, space, rectangle, to, block.size(), patched);
        });
    }

    // Reads the tiles that lie within the image where they are.
    void transform_pixels(const Operands& o, const Space& space, const Rectangle& r, T* to, int64_t block,
                          Range vectors) const {
        const int64_t m = tile_.m, a = tile_.a, end = r.column + r.columns;
        const Strides& s = p_.source;
        for (int64_t row = r.row; row < r.row + r.rows; ++row, to += r.columns * lanes<T>) {
            const int64_t y = row * m - p_.top;
            const bool inside = y >= 0 && y + a <= p_.source_height;
            const int64_t first = inside ? within(divide_up(larger(p_.left, 0), m), r.column, end) : end;
            const int64_t last = inside ? within((p_.source_width + p_.left - a + m) / m, first, end) : end;
            const auto edge = [&](int64_t begin, int64_t stop) {
                if (begin < stop)
                    transform_patch(o, space, {r.n, row, begin, 1, stop - begin}, to + (begin - r.column) * lanes<T>, block,
                                    vectors);
            };
            edge(r.column, first);
            if (first < last)
                for (int64_t v = vectors.begin; v < vectors.end; ++v)
                    tile_.input(o.source.at(r.n, v * lanes<T>, y, first * m - p_.left), s.h, s.w, last - first,
                                to + (v * block + first - r.column) * lanes<T>, tiles_plane());
            edge(last, end);
        }
    }

    static int64_t within(int64_t value, int64_t low, int64_t high) { return larger(low, smaller(value, high)); }

    void transform_patch(const Operands& o, const Space& space, const Rectangle& r, T* to, int64_t block,
                         Range vectors) const {
        const int64_t m = tile_.m, overlap = tile_.r - 1, top = r.row * m - p_.top, left = r.column * m - p_.left;
        const Box all{top, top + r.rows * m + overlap, left, left + r.columns * m + overlap};
        const Box inside = all.within(p_.source_height, p_.source_width);
        const int64_t line = all.columns() * lanes<T>;
        zero_frame(space.patch, all, inside);
        for (int64_t v = vectors.begin; v < vectors.end; ++v) {
            read_patch<T>(o.source, source_access_, r.n, v * lanes<T>, all, inside, space.patch);
            if (conv_.scale_input || conv_.relu_input) apply_prologue(o, v, all, inside, space.patch);
            for (int64_t row = 0; row < r.rows; ++row)
                tile_.input(space.patch + row * m * line, line, lanes<T>, r.columns,
                            to + (v * block + row * r.columns) * lanes<T>, tiles_plane());
        }
    }

    void apply_prologue(const Operands& o, int64_t vector, const Box& all, const Box& inside, T* patch) const {
        const int64_t channel = vector * lanes<T>, count = smaller(lanes<T>, p_.source_channels - channel);
        Vec<T> scale = broadcast<T>(1), shift{};
        if (o.scale) {
            scale = load_partial<T>(o.scale + channel, count);
            shift = load_partial<T>(o.shift + channel, count);
        }
        const Vec<T> floor = broadcast<T>(conv_.relu_input ? T(0) : -static_cast<T>(__builtin_inf()));
        for (int64_t y = inside.top; y < inside.bottom; ++y)
            for (int64_t x = inside.left; x < inside.right; ++x) {
                T* at = patch + ((y - all.top) * all.columns() + (x - all.left)) * lanes<T>;
                store<T>(at, at_least<T>(load<T>(at) * scale + shift, floor));
            }
    }

    // ------------------------------------------------------------------------------------------ product, output

    // Some panels of output channels of `part` of a block, a group of panels at a time.
    void multiply(const Operands& o, const Space& space, Block block, Block part, Range panels) const {
        for (int64_t panel = panels.begin; panel < panels.end; panel += tiling_.panel_group) {
            const Range some{panel, smaller(panels.end, panel + tiling_.panel_group)};
            for (int64_t plane = 0; plane < planes_; ++plane)
                for (int64_t i = some.begin; i < some.end; ++i)
                    multiply_panel(o, space, block, part, plane, i, i - some.begin);
            for (int64_t i = some.begin; i < some.end; ++i) write_panel(o, space, part, i, i - some.begin);
        }
    }

    int64_t channels_left(int64_t panel) const {
        return smaller(kTileWidth<T>, round_up(p_.channels, p_.computed.block) - panel * kTileWidth<T>);
    }

    void multiply_panel(const Operands& o, const Space& space, Block block, Block part, int64_t plane, int64_t panel,
                        int64_t slot) const {
        const int64_t depth = p_.source_channels, count = part.size();
        const T* weight = o.weight + (panel * planes_ + plane) * depth * kTileWidth<T>;
        const T* tiles = space.tiles + plane * tiles_plane() + (part.begin - block.begin) * lanes<T>;
        T* sums = space.sums + (slot * planes_ + plane) * sums_plane();
        const int vectors = channels_left(panel) <= lanes<T> ? 1 : 2;
        const int64_t pieces = divide_up(count, kTileHeight);
        for (int64_t i = 0; i < pieces; ++i) {
            const int64_t begin = count * i / pieces, end = count * (i + 1) / pieces;
            plane_product<T>(static_cast<int>(end - begin), vectors)(
                tiles + begin * lanes<T>, block.size() * lanes<T>, weight, depth, sums + begin * kTileWidth<T>);
        }
    }

    void write_panel(const Operands& o, const Space& space, Block part, int64_t panel, int64_t slot) const {
        const int64_t vectors = divide_up(channels_left(panel), lanes<T>);
        for_each_rectangle(part, [&](const Rectangle& r, int64_t tile) {
            for (int64_t half = 0; half < vectors; ++half) {
                const T* sums = space.sums + slot * planes_ * sums_plane() + (tile - part.begin) * kTileWidth<T> +
                                half * lanes<T>;
                write_rectangle(o, space, r, panel * kTileWidth<T> + half * lanes<T>, sums);
            }
        });
    }

    // Whether a tensor takes whole vectors of channels.
    static bool takes_vectors(Access access, const Strides& s) {
        return access == Access::pixels && (s.block == 1 || s.block >= lanes<T>);
    }

    void write_rectangle(const Operands& o, const Space& space, const Rectangle& r, int64_t channel,
                         const T* sums) const {
        const Destination<T>& d = o.destination;
        alignas(64) T bias[lanes<T>] = {};
        const int64_t count = smaller(lanes<T>, p_.channels - channel);
        for (int64_t i = 0; i < (o.bias ? count : 0); ++i) bias[i] = o.bias[channel + i];
        const bool direct = takes_vectors(d.access, p_.computed) && count == lanes<T> &&
                            (!d.residual.data || takes_vectors(d.residual_access, p_.residual));
        if (!direct) return write_through_patch(o, space, r, channel, bias, sums);
        const int64_t m = tile_.m, whole = within(p_.width / m, r.column, r.column + r.columns) - r.column;
        for (int64_t row = 0; row < r.rows; ++row, sums += r.columns * kTileWidth<T>) {
            const int64_t y = (r.row + row) * m;
            const int64_t columns = y + m <= p_.height ? whole : 0;
            if (columns > 0) {
                TileOutput<T> to{d.image.at(r.n, channel, y, r.column * m), p_.computed.h, p_.computed.w, nullptr, 0, 0,
                                 bias, d.floor};
                if (d.residual.data) {
                    to.residual = d.residual.at(r.n, channel, y, r.column * m);
                    to.residual_row = p_.residual.h;
                    to.residual_pixel = p_.residual.w;
                }
                tile_.output(sums, sums_plane(), kTileWidth<T>, columns, to);
            }
            if (columns < r.columns)
                write_through_patch(o, space, {r.n, r.row + row, r.column + columns, 1, r.columns - columns}, channel,
                                    bias, sums + columns * kTileWidth<T>);
        }
    }

    void write_through_patch(const Operands& o, const Space& space, const Rectangle& r, int64_t channel, const T* bias,
                             const T* sums) const {
        const int64_t m = tile_.m, line = r.columns * m * lanes<T>;
        for (int64_t row = 0; row < r.rows; ++row)
            tile_.output(sums + row * r.columns * kTileWidth<T>, sums_plane(), kTileWidth<T>, r.columns,
                         {space.patch + row * m * line, line, lanes<T>, nullptr, 0, 0, bias,
                          -static_cast<T>(__builtin_inf())});
        const Box all{r.row * m, (r.row + r.rows) * m, r.column * m, (r.column + r.columns) * m};
        write_patch<T>(o.destination, r.n, channel, all, all.within(p_.height, p_.width), space.patch);
    }

    ConvProblem conv_;
    TileProblem p_;
    const TileTransforms<T>& tile_;
    int64_t planes_;
    int threads_;
    int64_t source_vectors_, panels_;
    Access source_access_, computed_access_, residual_access_;
    Tiling tiling_;
};

template <class T>
ConvPlan* plan(const ConvProblem& problem, int64_t m, int threads, int64_t workspace_limit) {
    return new Winograd<T>(problem, *tile_transforms<T>(m, problem.filter.h), threads, workspace_limit);
}

template <int M>
ConvPlan* plan_winograd(const ConvProblem& problem, int threads, int64_t workspace_limit) {
    if (problem.dtype == DType::f64) return plan<double>(problem, M, threads, workspace_limit);
    return plan<float>(problem, M, threads, workspace_limit);
}

}  // namespace

PYCV_KERNEL("conv", "winograd/f2", plan_winograd<2>);
PYCV_KERNEL("conv", "winograd/f3", plan_winograd<3>);
PYCV_KERNEL("conv", "winograd/f4", plan_winograd<4>);
PYCV_KERNEL("conv", "winograd/f6", plan_winograd<6>);

}  // namespace pycv::cpu::PYCV_ISA
