// Winograd convolution F(m x m, r x r): forward and grad_input of 3 x 3 and 5 x 5 filters with stride and dilation 1.
//
// The output is cut into tiles of m x m pixels. Each needs a = m + r - 1 input pixels per side; both transforms
// (common/winograd_matrices.h) make a * a planes, in each of which the convolution is one matrix product over the
// channels:
//
//     sums[xi][tile][k] = sum over c of tiles[xi][c][tile] * weight[xi][c][k]
//
// a * a multiply-adds per tile and pair of channels instead of m * m * r * r: 2.25 (F2), 4 (F4), 5.06 (F6) times fewer
// for 3 x 3, 2.78 (F2), 4.59 (F3), 6.25 (F4) for 5 x 5. grad_input is the forward pass over grad_output with the
// filters turned by 180 degrees and their channels exchanged. grad_weight: winograd_grad_weight.cpp.
//
// A block of tiles is transformed, multiplied and transformed back at a time. Its tiles stay in the cache, and each of
// the weight's panels of kTileWidth output channels passes by once per block. Where there are many tiles, each thread
// works on blocks of its own, without a barrier. Where the weight is what has to be moved (few tiles, many channels),
// all threads share a block: each transforms some channels, and after a barrier multiplies some panels.
//
// prepare_weight() makes weight[panel][xi][c][kTileWidth]: a * a / (r * r) times the weight's size. Where grad_input
// would read that only once, from memory, it transforms each panel when it gets to it instead.
//
// Rounding: see common/winograd_matrices.h; an error is bounded by what the largest values of a tile allow, not those
// of one output. A NaN or an infinity reaches every output of the tiles that read it, mostly as NaN, and nothing
// beyond: whatever direct convolution would make non-finite is so here.
#include "cost.h"
#include "plan.h"
#include "winograd_blocks.h"
#include "winograd_grad_weight.h"
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
    Strides source, computed, residual;
    Strides weight;  // n: computed channel, c: source channel
    int64_t weight_group;
    bool turned;  // filters by 180 degrees
};

TileProblem tile_problem(const ConvProblem& p) {
    const int64_t groups = larger(p.groups, 1);
    const int64_t c = p.c / groups, k = p.k / groups;
    TileProblem t{};
    t.n = p.n;
    t.groups = groups;
    t.residual = p.residual;
    t.weight = p.weight;
    t.weight_group = k * p.weight.n;
    if (p.pass == Pass::forward) {
        t.source_channels = c, t.channels = k;
        t.source_height = p.size.h, t.source_width = p.size.w, t.height = p.out.h, t.width = p.out.w;
        t.top = p.padding.h, t.left = p.padding.w;
        t.source = p.input, t.computed = p.output;
    } else {
        t.source_channels = k, t.channels = c;
        t.source_height = p.out.h, t.source_width = p.out.w, t.height = p.size.h, t.width = p.size.w;
        t.top = p.filter.h - 1 - p.padding.h, t.left = p.filter.w - 1 - p.padding.w;
        t.source = p.output, t.computed = p.input;
        t.weight.n = p.weight.c, t.weight.c = p.weight.n;
        t.turned = true;
    }
    return t;
}

// How the work is cut.
struct Blocking {
    int64_t tiles;        // of a block
    int64_t panel_group;  // panels of output channels whose sums are held at a time
    bool shared;          // threads work on one block together
    bool fused;           // the weight is transformed within run(), a panel at a time
};

template <class T>
class Winograd final : public ConvPlan {
public:
    Winograd(const ConvProblem& problem, const TileTransforms<T>& tile, int threads, int64_t workspace_limit)
        : conv_(problem), p_(tile_problem(problem)), tile_(tile), planes_(tile.a * tile.a), threads_(threads) {
        source_vectors_ = divide_up(p_.source_channels, lanes<T>);
        filled_channels_ = round_up(p_.channels, p_.computed.block);
        panels_ = divide_up(filled_channels_, kTileWidth<T>);
        reader_.grid = tile_grid(p_.n, p_.height, p_.width, tile.m, tile.a);
        reader_.m = tile.m, reader_.window = tile.a;
        reader_.top = p_.top, reader_.left = p_.left;
        reader_.access = access_of(p_.source, p_.source_channels);
        reader_.transform = tile.input;
        reader_.relu = problem.relu_input;
        computed_access_ = access_of(p_.computed, p_.channels);
        residual_access_ = access_of(p_.residual, p_.channels);
        blocking_ = choose_blocking(workspace_limit);
    }

    int64_t workspace_bytes() const override {
        return (tile_buffers() * tiles_elements() + threads_ * own_elements()) * kSize;
    }

    int64_t prepared_weight_bytes() const override {
        return blocking_.fused ? 0 : p_.groups * panels_ * panel_elements() * kSize;
    }

    void prepare_weight(const void* weight, void* prepared) const override {
        const int64_t chunks = divide_up(p_.source_channels, kFilterChunk);
        const int64_t vectors = divide_up(filled_channels_, lanes<T>);
        parallel_for(threads_, p_.groups * vectors * chunks, [&](int64_t item) {
            const int64_t chunk = item % chunks, vector = item / chunks % vectors, group = item / chunks / vectors;
            prepare_filters(static_cast<const T*>(weight), group, vector, chunk * kFilterChunk,
                            static_cast<T*>(prepared) + (group * panels_ + vector / 2) * panel_elements());
        });
    }

    void run(const ConvArguments& arguments) const override {
        const int64_t tiles = reader_.grid.count();
        if (tiles == 0 || p_.channels == 0) return;
        parallel(threads_, [&](int thread, int team) {
            const Space space = space_of(arguments.workspace, thread);
            for (int64_t group = 0; group < p_.groups; ++group) {
                if (blocking_.shared) {
                    run_shared(operands(arguments, group), space, thread, team);
                } else {
                    run_alone(operands(arguments, group), space, share(tiles, thread, team));
                }
            }
        });
    }

    Cost cost() const override {
        const Blocking& b = blocking_;
        const int64_t tiles = reader_.grid.count(),
                      blocks = divide_up(b.shared ? tiles : divide_up(tiles, threads_), b.tiles);
        const double own = static_cast<double>(divide_up(tiles, b.shared ? 1 : threads_));
        // Of a shared block a thread has its part of the panels, and of the vectors of source channels.
        const double part = b.shared ? 1.0 / threads_ : 1, groups = static_cast<double>(p_.groups);
        const double planes = static_cast<double>(planes_), pixels = static_cast<double>(tile_.m * tile_.m);
        const double inputs = static_cast<double>(source_vectors_ * lanes<T>),
                     depth = static_cast<double>(p_.source_channels);
        const double outputs = static_cast<double>(panels_ * kTileWidth<T>), weight = groups * planes * depth * outputs;
        const double moved = groups * own * part * (inputs + outputs) * (planes + pixels);
        const double passes = static_cast<double>(b.shared ? blocks : blocks * threads_);
        Cost sum{own * part * weight, moved, activation_bytes(conv_) + weight * passes * kSize, 1};
        if (b.shared) {
            sum.bytes += 2 * groups * own * inputs * planes * kSize;
            sum.regions += 2 * groups * static_cast<double>(blocks);
        }
        if (b.fused) {
            sum.vector_elements += weight / threads_;
            sum.bytes += (weight_elements(conv_) - weight) * kSize;
        }
        return sum;
    }

    Cost prepare_cost() const override {
        if (blocking_.fused) return {};
        const double elements = static_cast<double>(p_.groups * panels_ * panel_elements());
        return {0, elements / threads_, (elements + weight_elements(conv_)) * kSize, 1};
    }

private:
    static constexpr int64_t kSize = sizeof(T);

    // One group's part of the arguments.
    struct Operands {
        Image<const T> source;
        TileReader<T> reader;
        Destination<T> destination;
        int64_t group;
        const T* weight;  // the group's, prepared; or everything, as it is
        const T* bias;
    };

    // What a thread works with; the tiles may be everybody's. `weight` is for one panel, where it is transformed late.
    struct Space {
        T *tiles, *sums, *patch, *weight;
    };

    // ------------------------------------------------------------------------------------------ blocking

    Blocking choose_blocking(int64_t workspace_limit) const {
        constexpr int64_t kSumsBytes = 256 * 1024;         // stay in the L2 cache with a panel of the weight
        constexpr int64_t kBlockBytes = 256 * 1024;        // the tiles of a block of one thread
        constexpr int64_t kSharedBytes = 8 * 1024 * 1024;  // the tiles of a block of all threads
        constexpr int64_t kLeast = 2 * kTileHeight;        // tiles that make reading the weight once more worth it
        Blocking b{};
        const int64_t tile_bytes = larger(1, planes_ * source_vectors_ * PYCV_VECTOR_BYTES);
        const int64_t tiles = larger(1, reader_.grid.count()), own = divide_up(tiles, threads_);
        const int64_t shareable = smaller(kSharedBytes, workspace_limit / 2) / tile_bytes;
        b.fused = p_.turned && tiles <= shareable && panels_ * panel_elements() * kSize > tiles * tile_bytes;
        b.shared = b.fused || (threads_ > 1 && own < 2 * kLeast);
        const int64_t wanted = b.shared ? shareable : larger(kLeast, kBlockBytes / tile_bytes);
        const int64_t limit = workspace_limit / tile_bytes / (b.shared ? 1 : threads_) / 2;
        const int64_t most = larger(1, smaller(wanted, limit)), available = b.shared ? tiles : own;
        b.tiles = divide_up(available, divide_up(available, most));
        const int64_t panel_bytes = planes_ * b.tiles * kTileWidth<T> * kSize;
        b.panel_group = b.fused ? 1 : larger(1, smaller(kSumsBytes / panel_bytes, panels_));
        return b;
    }

    int64_t tile_buffers() const { return blocking_.shared ? 1 : threads_; }
    int64_t tiles_plane() const { return plane_elements<T>(source_vectors_ * blocking_.tiles); }
    int64_t sums_plane() const { return plane_elements<T>(2 * blocking_.tiles); }
    int64_t tiles_elements() const { return planes_ * tiles_plane(); }
    int64_t sums_elements() const { return blocking_.panel_group * planes_ * sums_plane(); }
    int64_t patch_size() const { return patch_elements<T>(reader_.grid, tile_.m, tile_.a); }
    int64_t panel_elements() const { return planes_ * p_.source_channels * kTileWidth<T>; }
    int64_t own_elements() const { return sums_elements() + patch_size() + (blocking_.fused ? panel_elements() : 0); }

    Space space_of(void* workspace, int thread) const {
        T* const tiles = static_cast<T*>(workspace);
        T* const own = tiles + tile_buffers() * tiles_elements() + thread * own_elements();
        return {tiles + (blocking_.shared ? 0 : thread * tiles_elements()), own, own + sums_elements(),
                own + sums_elements() + patch_size()};
    }

    // ------------------------------------------------------------------------------------------ weight

    // Some source channels' filters of one vector of computed channels, into its panel.
    void prepare_filters(const T* weight, int64_t group, int64_t vector, int64_t source, T* panel) const {
        alignas(64) T filters[kGatheredElements<T>];
        const Strides& s = conv_.weight;
        const int64_t taps = tile_.r * tile_.r, count = smaller(kFilterChunk, p_.source_channels - source);
        const T* end = weight + 1 + (conv_.k - 1) * s.n + (conv_.c / p_.groups - 1) * s.c + (tile_.r - 1) * (s.h + s.w);
        const FilterSource<T> from{
            weight + group * p_.weight_group, end, p_.weight.n, p_.weight.c, s.h, s.w, p_.channels, tile_.r};
        gather_filters<T>(from, vector * lanes<T>, source, count, filters);
        const int64_t plane = p_.source_channels * kTileWidth<T>;
        T* to = panel + source * kTileWidth<T> + vector % 2 * lanes<T>;
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
        if (residual) residual += p_.residual.channel(to);
        Operands o{};
        o.source = {source + p_.source.channel(from), p_.source, p_.source_channels, p_.source_height, p_.source_width};
        o.reader = reader_;
        if (conv_.scale_input) {
            o.reader.scale = static_cast<const T*>(a.input_scale) + from;
            o.reader.shift = static_cast<const T*>(a.input_shift) + from;
        }
        o.destination.image = {computed + p_.computed.channel(to), p_.computed, p_.channels, p_.height, p_.width};
        o.destination.access = computed_access_;
        o.destination.residual = {residual, p_.residual, p_.channels, p_.height, p_.width};
        o.destination.residual_access = residual_access_;
        o.destination.floor = conv_.relu ? T(0) : kNoFloor;
        o.group = group;
        o.weight = static_cast<const T*>(a.weight) + (blocking_.fused ? 0 : group * panels_ * panel_elements());
        o.bias = conv_.bias ? static_cast<const T*>(a.bias) + to : nullptr;
        return o;
    }

    void run_alone(const Operands& o, const Space& space, Range tiles) const {
        const int64_t count = tiles.end - tiles.begin, blocks = divide_up(count, blocking_.tiles);
        for (int64_t i = 0; i < blocks; ++i) {
            const TileRange block{tiles.begin + count * i / blocks, tiles.begin + count * (i + 1) / blocks};
            o.reader.read(o.source, block, {0, source_vectors_}, {space.tiles, tiles_plane(), block}, space.patch);
            multiply(o, space, block, block, {0, panels_});
        }
    }

    void run_shared(const Operands& o, const Space& space, int thread, int team) const {
        const int64_t count = reader_.grid.count(), blocks = divide_up(count, blocking_.tiles);
        for (int64_t i = 0; i < blocks; ++i) {
            const TileRange block{count * i / blocks, count * (i + 1) / blocks};
            share_block(block, source_vectors_, thread, team, [&](TileRange part, Range vectors) {
                o.reader.read(o.source, part, vectors, {space.tiles, tiles_plane(), block}, space.patch);
            });
            team_barrier(team);
            share_block(block, panels_, thread, team,
                        [&](TileRange part, Range panels) { multiply(o, space, block, part, panels); });
            team_barrier(team);
        }
    }

    // ------------------------------------------------------------------------------------------ product, output

    // Some panels of output channels of `part` of a block, a group of panels at a time.
    void multiply(const Operands& o, const Space& space, TileRange block, TileRange part, Range panels) const {
        for (int64_t panel = panels.begin; panel < panels.end; panel += blocking_.panel_group) {
            const Range some{panel, smaller(panels.end, panel + blocking_.panel_group)};
            const T* weight = blocking_.fused ? panel_of_weight(o, space, panel) : o.weight + panel * panel_elements();
            for (int64_t plane = 0; plane < planes_; ++plane)
                for (int64_t i = some.begin; i < some.end; ++i)
                    multiply_panel(space, block, part, plane, vectors_of(i), weight + (i - panel) * panel_elements(),
                                   space.sums + sums_at(plane, i - panel));
            for (int64_t i = some.begin; i < some.end; ++i)
                write_panel(o, space, part, i, space.sums + sums_at(0, i - panel));
        }
    }

    const T* panel_of_weight(const Operands& o, const Space& space, int64_t panel) const {
        for (int64_t source = 0; source < p_.source_channels; source += kFilterChunk)
            for (int64_t half = 0; half < vectors_of(panel); ++half)
                prepare_filters(o.weight, o.group, 2 * panel + half, source, space.weight);
        return space.weight;
    }

    int64_t sums_at(int64_t plane, int64_t slot) const { return (slot * planes_ + plane) * sums_plane(); }

    int64_t vectors_of(int64_t panel) const {
        return smaller(2, divide_up(filled_channels_ - panel * kTileWidth<T>, lanes<T>));
    }

    void multiply_panel(const Space& space, TileRange block, TileRange part, int64_t plane, int64_t vectors,
                        const T* panel, T* sums) const {
        const int64_t depth = p_.source_channels, count = part.size(), pieces = divide_up(count, kTileHeight);
        const T* weight = panel + plane * depth * kTileWidth<T>;
        const T* tiles = space.tiles + plane * tiles_plane() + (part.begin - block.begin) * lanes<T>;
        for (int64_t i = 0; i < pieces; ++i) {
            const int64_t begin = count * i / pieces, end = count * (i + 1) / pieces;
            plane_product<T>(static_cast<int>(end - begin), static_cast<int>(vectors))(
                tiles + begin * lanes<T>, block.size() * lanes<T>, weight, depth, sums + begin * kTileWidth<T>);
        }
    }

    void write_panel(const Operands& o, const Space& space, TileRange part, int64_t panel, const T* sums) const {
        reader_.grid.for_each_rectangle(part, [&](const Rectangle& r, int64_t tile) {
            for (int64_t half = 0; half < vectors_of(panel); ++half)
                write_rectangle(o, space, r, panel * kTileWidth<T> + half * lanes<T>,
                                sums + (tile - part.begin) * kTileWidth<T> + half * lanes<T>);
        });
    }

    void write_rectangle(const Operands& o, const Space& space, const Rectangle& r, int64_t channel,
                         const T* sums) const {
        const Destination<T>& d = o.destination;
        const int64_t count = smaller(lanes<T>, p_.channels - channel);
        alignas(64) T bias[lanes<T>] = {};
        for (int64_t i = 0; i < (o.bias ? count : 0); ++i) bias[i] = o.bias[channel + i];
        const bool direct = takes_vectors<T>(d.access, p_.computed) && count == lanes<T> &&
                            (!d.residual.data || takes_vectors<T>(d.residual_access, p_.residual));
        if (!direct) return write_through_patch(o, space, r, channel, bias, sums);
        const int64_t m = tile_.m, whole = larger(0, smaller(p_.width / m - r.column, r.columns));
        for (int64_t row = r.row; row < r.row + r.rows; ++row, sums += r.columns * kTileWidth<T>) {
            const int64_t columns = (row + 1) * m <= p_.height ? whole : 0;
            if (columns > 0) {
                TileOutput<T> to{d.image.at(r.n, channel, row * m, r.column * m),
                                 p_.computed.h,
                                 p_.computed.w,
                                 nullptr,
                                 0,
                                 0,
                                 bias,
                                 d.floor};
                if (d.residual.data) {
                    to.residual = d.residual.at(r.n, channel, row * m, r.column * m);
                    to.residual_row = p_.residual.h;
                    to.residual_pixel = p_.residual.w;
                }
                tile_.output(sums, sums_plane(), kTileWidth<T>, columns, to);
            }
            if (columns < r.columns)
                write_through_patch(o, space, {r.n, row, r.column + columns, 1, r.columns - columns}, channel, bias,
                                    sums + columns * kTileWidth<T>);
        }
    }

    void write_through_patch(const Operands& o, const Space& space, const Rectangle& r, int64_t channel, const T* bias,
                             const T* sums) const {
        const int64_t m = tile_.m, line = r.columns * m * lanes<T>;
        for (int64_t row = 0; row < r.rows; ++row)
            tile_.output(sums + row * r.columns * kTileWidth<T>, sums_plane(), kTileWidth<T>, r.columns,
                         {space.patch + row * m * line, line, lanes<T>, nullptr, 0, 0, bias, kNoFloor});
        const Box all{r.row * m, (r.row + r.rows) * m, r.column * m, (r.column + r.columns) * m};
        write_patch<T>(o.destination, r.n, channel, all, all.within(p_.height, p_.width), space.patch);
    }

    static constexpr T kNoFloor = -static_cast<T>(__builtin_inf());

    ConvProblem conv_;
    TileProblem p_;
    const TileTransforms<T>& tile_;
    int64_t planes_;
    int threads_;
    int64_t source_vectors_, filled_channels_, panels_;
    TileReader<T> reader_{};
    Access computed_access_, residual_access_;
    Blocking blocking_;
};

template <class T>
ConvPlan* plan(const ConvProblem& problem, int64_t m, int threads, int64_t workspace_limit) {
    const TileTransforms<T>& tile = *tile_transforms<T>(m, problem.filter.h);
    if (problem.pass == Pass::grad_weight) return new_winograd_grad_weight<T>(problem, tile, threads, workspace_limit);
    return new Winograd<T>(problem, tile, threads, workspace_limit);
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
