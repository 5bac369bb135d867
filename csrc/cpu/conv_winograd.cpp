// Winograd convolution F(m x m, r x r): forward and grad_input of 3 x 3 and 5 x 5 filters with stride 1, and of strided
// convolutions over the phases of the image.
//
// The output is cut into tiles of m x m pixels. Each needs a = m + r - 1 input pixels per side; both transforms
// (common/winograd_matrices.h) make a * a planes, in each of which the convolution is one matrix product over the
// channels:
//
//     sums[xi][tile][k] = sum over c of tiles[xi][c][tile] * weight[xi][c][k]
//
// a * a multiply-adds per tile and pair of channels instead of m * m * r * r: 2.25 (F2), 4 (F4), 4.59 (F5), 5.06 (F6)
// times fewer for 3 x 3, 2.78 (F2), 4.59 (F3), 6.25 (F4) for 5 x 5. grad_input is the forward pass over grad_output
// with the filters turned by 180 degrees and their channels exchanged. grad_weight: winograd_grad_weight.cpp.
//
// A convolution of stride s is one of stride 1 over s * s phases per channel (winograd_phases.h), with filters of
// ceil(r / s) taps. "s2d" takes the phases for channels: (m + ceil(r / s) - 1)^2 s^2 / m^2 multiply-adds per output and
// channel, taps that do not exist among them: 12.25 of F4 for 7 x 7 with stride 2 (instead of 49), 36 of F4 for 11 x 11
// with stride 4 (121). It suits few channels: sums are s * s times longer, tiles have fewer planes. In grad_input the
// phases are those of the computed channels. "split" gives each phase of a 3 x 3 filter with stride 2 planes of its own
// (winograd_split_tile.cpp): 6.25 (F2), 5.06 (F4) instead of 9, without taps that do not exist.
//
// A block of tiles is transformed, multiplied and transformed back at a time. Its tiles stay in the cache, and each of
// the weight's panels of kTileWidth output channels passes by once per block. Where there are many tiles, each thread
// works on blocks of its own, without a barrier. Where the weight is what has to be moved (few tiles, many channels),
// all threads share a block: each transforms some channels, and after a barrier multiplies some panels.
//
// prepare_weight() makes weight[panel][xi][c][kTileWidth], one for all planes of the same filter elements: a * a / (r *
// r) times the weight's size. Where that is more than the tiles are and nobody keeps it, run() takes the plain weight
// instead, and transforms a part of a panel when it gets to it: what it makes of it is read once, from the cache.
//
// Rounding: see common/winograd_matrices.h; an error is bounded by what the largest values of a tile allow, not those
// of one output. A NaN or an infinity reaches every output of the tiles that read it, mostly as NaN, and nothing
// beyond: whatever direct convolution would make non-finite is so here. The taps that a phase's filter lacks read too;
// what no window reads is not read.
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
    Phases phases;      // of the source
    Phases written;     // of the computed tensor, whose size is then that of the image of phases
    Strides source, computed, residual;
    Strides weight;  // n: computed channel, c: source channel
    int64_t weight_group;
    bool turned;  // filters by 180 degrees
    // Rows and columns of the first tiles that lie before the computed tensor.
    int64_t before_rows, before_columns;
};

// How a stride is dealt with.
enum class Strided {
    no,     // it is 1
    depth,  // phases are channels (winograd_phases.h)
    split,  // phases have planes of their own (winograd_split_tile.cpp)
};

// The taps per side of a filter's phases.
int64_t phase_taps(const ConvProblem& p) {
    return larger(divide_up(p.filter.h, p.stride.h), divide_up(p.filter.w, p.stride.w));
}

// The source of a strided convolution becomes the image of its phases.
void take_phases(const ConvProblem& p, TileProblem& t) {
    t.phases = {p.stride.h, p.stride.w, p.padding.h, p.padding.w};
    t.top = t.left = 0;
    t.source_channels *= t.phases.count();
}

// ... and so does what is computed from the source with its padding of whole phase filters.
void write_phases(const ConvProblem& p, int64_t taps, TileProblem& t) {
    t.written = {p.stride.h, p.stride.w, p.padding.h, p.padding.w};
    t.top = t.left = taps - 1;
    t.channels *= t.written.count();
    t.height = divide_up(p.size.h + p.padding.h, p.stride.h);
    t.width = divide_up(p.size.w + p.padding.w, p.stride.w);
}

// The gradient of a strided convolution's input, in tiles that begin with a pixel of one tap.
void take_split_gradient(const ConvProblem& p, TileProblem& t) {
    t.before_rows = p.padding.h % 2 == 0, t.before_columns = p.padding.w % 2 == 0;
    t.top = t.before_rows - p.padding.h / 2, t.left = t.before_columns - p.padding.w / 2;
}

TileProblem tile_problem(const ConvProblem& p, Strided strided) {
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
        t.source_height = pixels_read(p.size.h, p.out.h, p.filter.h, p.stride.h, p.padding.h);
        t.source_width = pixels_read(p.size.w, p.out.w, p.filter.w, p.stride.w, p.padding.w);
        t.height = p.out.h, t.width = p.out.w;
        t.top = p.padding.h, t.left = p.padding.w;
        if (strided == Strided::depth) take_phases(p, t);
        t.source = p.input, t.computed = p.output;
    } else {
        t.source_channels = k, t.channels = c;
        t.source_height = windows_reading(p.size.h, p.out.h, p.stride.h, p.padding.h);
        t.source_width = windows_reading(p.size.w, p.out.w, p.stride.w, p.padding.w);
        t.height = p.size.h, t.width = p.size.w;
        t.top = p.filter.h - 1 - p.padding.h, t.left = p.filter.w - 1 - p.padding.w;
        if (strided == Strided::split) take_split_gradient(p, t);
        if (strided == Strided::depth) write_phases(p, phase_taps(p), t);
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
    bool late;            // run() takes the plain weight and transforms it
    int64_t depth;        // then: source channels at a time
};

template <class T>
class Winograd final : public ConvPlan {
public:
    Winograd(const ConvProblem& problem, Strided strided, const TileTransforms<T>& tile, int threads,
             int64_t workspace_limit)
        : conv_(problem),
          p_(tile_problem(problem, strided)),
          tile_(tile),
          planes_(tile.a * tile.a),
          threads_(threads),
          streams_(computed_bytes(problem) > kPastCaches) {
        source_vectors_ = divide_up(p_.source_channels, lanes<T>);
        filled_channels_ = round_up(p_.channels, p_.computed.block);
        panels_ = divide_up(filled_channels_, kTileWidth<T>);
        reader_.grid =
            tile_grid(p_.n, p_.before_rows + p_.height, p_.before_columns + p_.width, tile.m, tile.step, tile.window);
        reader_.step = tile.step, reader_.window = tile.window;
        reader_.top = p_.top, reader_.left = p_.left;
        reader_.phases = p_.phases;
        reader_.access = access_of(p_.source, image_channels());
        reader_.transform = tile.input;
        reader_.prologue.relu = problem.relu_input;
        computed_access_ = access_of(p_.computed, computed_channels());
        residual_access_ = access_of(p_.residual, computed_channels());
        blocking_ = choose_blocking(workspace_limit);
    }

    int64_t workspace_bytes() const override {
        return (tile_buffers() * tiles_elements() + threads_ * own_elements()) * kSize;
    }

    int64_t prepared_weight_bytes() const override { return p_.groups * panels_ * panel_elements() * kSize; }

    void prepare_weight(const void* weight, void* prepared) const override {
        const int64_t chunks = divide_up(image_channels(), kFilterChunk);
        const int64_t vectors = divide_up(filled_channels_, lanes<T>);
        parallel_for(threads_, p_.groups * vectors * chunks, [&](int64_t item) {
            const int64_t chunk = item % chunks, vector = item / chunks % vectors, group = item / chunks / vectors;
            prepare_filters(
                static_cast<const T*>(weight), group, vector, chunk * kFilterChunk,
                panel_of(static_cast<T*>(prepared), group, vector / 2) + chunk * kFilterChunk * kTileWidth<T>,
                weight_plane());
        });
    }

    bool takes_plain_weight() const override { return blocking_.late; }

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
        const double outputs = static_cast<double>(round_up(filled_channels_, lanes<T>));
        const double filters = static_cast<double>(tile_.u * tile_.u), weight = groups * filters * depth * outputs;
        const double moved =
            groups * own * part *
            (inputs * (planes + static_cast<double>(tile_.step * tile_.step)) + outputs * (planes + pixels));
        const double passes = static_cast<double>(b.shared ? blocks : blocks * threads_);
        Cost sum{own * part * groups * planes * depth * outputs, moved,
                 activation_bytes(conv_) + weight * passes * kSize, 1};
        if (b.shared) {
            sum.bytes += 2 * groups * own * inputs * planes * kSize;
            sum.regions += 2 * groups * static_cast<double>(blocks);
        }
        return sum;
    }

    Cost prepare_cost() const override {
        const double elements = static_cast<double>(p_.groups * panels_ * panel_elements());
        // A plain weight saves reading a prepared one, which cost() counts.
        if (blocking_.late) return {0, elements / threads_, (weight_elements(conv_) - elements) * kSize, 0};
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
        const T* weight;  // of all groups
        bool plain;       // not prepared
        const T* bias;
    };

    // What a thread works with; the tiles may be everybody's. `weight` is for a part of a panel that is transformed
    // late.
    struct Space {
        T *tiles, *sums, *patch, *weight;
    };

    // ------------------------------------------------------------------------------------------ blocking

    Blocking choose_blocking(int64_t workspace_limit) const {
        constexpr int64_t kSumsBytes = 256 * 1024;         // stay in the L2 cache with a panel of the weight
        constexpr int64_t kBlockBytes = 384 * 1024;        // the tiles of a block of one thread
        constexpr int64_t kSharedBytes = 8 * 1024 * 1024;  // the tiles of a block of all threads
        constexpr int64_t kLateBytes = 256 * 1024;         // of a panel, transformed and read again
        constexpr int64_t kLeast = 2 * kTileHeight;        // tiles that make reading the weight once more worth it
        Blocking b{};
        const int64_t tile_bytes = larger(1, planes_ * source_vectors_ * PYCV_VECTOR_BYTES);
        const int64_t tiles = larger(1, reader_.grid.count()), own = divide_up(tiles, threads_);
        const int64_t shareable = smaller(kSharedBytes, workspace_limit / 2) / tile_bytes;
        const bool few = own < 2 * kLeast;
        b.late = (few || p_.turned) && p_.phases.count() == 1 && tiles <= shareable &&
                 panels_ * panel_elements() * kSize > tiles * tile_bytes;
        b.depth = smaller(p_.source_channels, round_up(kLateBytes / (filters() * kTileWidth<T> * kSize), kFilterChunk));
        b.shared = b.late || (threads_ > 1 && few);
        const int64_t wanted = b.shared ? shareable : larger(kLeast, kBlockBytes / tile_bytes);
        const int64_t limit = workspace_limit / tile_bytes / (b.shared ? 1 : threads_) / 2;
        const int64_t most = larger(1, smaller(wanted, limit)), available = b.shared ? tiles : own;
        b.tiles = divide_up(available, divide_up(available, most));
        const int64_t panel_bytes = planes_ * b.tiles * kTileWidth<T> * kSize;
        b.panel_group = larger(1, smaller(kSumsBytes / panel_bytes, panels_));
        return b;
    }

    // Channels per group of the tensors themselves: those of the problem may be of their phases.
    int64_t image_channels() const { return p_.source_channels / p_.phases.count(); }
    int64_t computed_channels() const { return p_.channels / p_.written.count(); }
    int64_t tile_buffers() const { return blocking_.shared ? 1 : threads_; }
    int64_t tiles_plane() const { return plane_elements<T>(source_vectors_ * blocking_.tiles); }
    int64_t sums_plane() const { return plane_elements<T>(2 * blocking_.tiles); }
    int64_t tiles_elements() const { return planes_ * tiles_plane(); }
    int64_t sums_elements() const { return blocking_.panel_group * planes_ * sums_plane(); }
    int64_t patch_size() const {
        return larger(patch_elements<T>(reader_.grid, tile_.step, tile_.window),
                      patch_elements<T>(reader_.grid, tile_.m, tile_.m));
    }
    // Planes of the weight, and which of them a plane of the tiles is multiplied with.
    int64_t filters() const { return tile_.u * tile_.u; }
    int64_t filter_of(int64_t plane) const {
        const int64_t last = tile_.u - 1;
        return smaller(plane / tile_.a, last) * tile_.u + smaller(plane % tile_.a, last);
    }
    int64_t weight_plane() const { return plane_elements<T>(2 * p_.source_channels); }
    int64_t panel_elements() const { return filters() * weight_plane(); }
    int64_t late_plane() const { return plane_elements<T>(2 * blocking_.depth); }
    int64_t late_elements() const { return blocking_.late ? filters() * late_plane() : 0; }
    int64_t own_elements() const { return sums_elements() + patch_size() + late_elements(); }
    template <class Element>
    Element* panel_of(Element* prepared, int64_t group, int64_t panel) const {
        return prepared + (group * panels_ + panel) * panel_elements();
    }

    Space space_of(void* workspace, int thread) const {
        T* const tiles = static_cast<T*>(workspace);
        T* const own = tiles + tile_buffers() * tiles_elements() + thread * own_elements();
        return {tiles + (blocking_.shared ? 0 : thread * tiles_elements()), own, own + sums_elements(),
                own + sums_elements() + patch_size()};
    }

    // ------------------------------------------------------------------------------------------ weight

    FilterSource<T> filter_source(const T* weight, int64_t group) const {
        const Strides& s = conv_.weight;
        const int64_t rows = conv_.filter.h, columns = conv_.filter.w;
        const T* end =
            weight + 1 + (conv_.k - 1) * s.n + (conv_.c / p_.groups - 1) * s.c + (rows - 1) * s.h + (columns - 1) * s.w;
        return {weight + group * p_.weight_group,
                end,
                p_.weight.n,
                p_.weight.c,
                s.h,
                s.w,
                computed_channels(),
                rows,
                columns};
    }

    // Some source channels' filters of one vector of computed channels, into their rows of its panel.
    void prepare_filters(const T* weight, int64_t group, int64_t vector, int64_t source, T* rows, int64_t plane) const {
        const FilterSource<T> from = filter_source(weight, group);
        const int64_t count = smaller(kFilterChunk, image_channels() - source);
        T* to = rows + vector % 2 * lanes<T>;
        if (p_.phases.count() > 1) {
            for (int64_t c = 0; c < count; ++c) prepare_phases(from, vector, source + c, to + c * kTileWidth<T>, plane);
            return;
        }
        if (p_.written.count() > 1) {
            for (int64_t c = 0; c < count; ++c)
                prepare_written(from, vector, source + c, to + c * kTileWidth<T>, plane);
            return;
        }
        alignas(64) T filters[kGatheredElements<T>];
        gather_filters<T>(from, vector * lanes<T>, source, count, filters);
        const int64_t taps = tile_.r * tile_.r;
        for (int64_t c = 0; c < count; ++c) {
            const T* filter = filters + c * taps * lanes<T>;
            if (p_.turned) {
                tile_.filter(filter + (taps - 1) * lanes<T>, -lanes<T>, to + c * kTileWidth<T>, plane);
            } else {
                tile_.filter(filter, lanes<T>, to + c * kTileWidth<T>, plane);
            }
        }
    }

    // All phases of one source channel's filters; `to`: that of the first one.
    void prepare_phases(const FilterSource<T>& from, int64_t vector, int64_t source, T* to, int64_t plane) const {
        alignas(64) T filter[(kMostStridedTaps + lanes<T>)*lanes<T>], phase[kMostTaps * lanes<T>];
        gather_filters<T>(from, vector * lanes<T>, source, 1, filter);
        const int64_t r = tile_.r;
        for (int64_t i = 0; i < p_.phases.count(); ++i, to += image_channels() * kTileWidth<T>) {
            for (int64_t tap = 0; tap < r * r; ++tap) {
                const int64_t y = tap / r * p_.phases.rows + i / p_.phases.columns;
                const int64_t x = tap % r * p_.phases.columns + i % p_.phases.columns;
                const bool exists = y < from.height && x < from.width;
                store<T>(phase + tap * lanes<T>, exists ? load<T>(filter + (y * from.width + x) * lanes<T>) : Vec<T>{});
            }
            tile_.filter(phase, lanes<T>, to, plane);
        }
    }

    // One source channel's turned filters of a vector of the computed channels' phases.
    void prepare_written(const FilterSource<T>& from, int64_t vector, int64_t source, T* to, int64_t plane) const {
        alignas(64) T phase[kMostTaps * lanes<T>];
        const int64_t taps = tile_.r * tile_.r;
        for (int64_t tap = 0; tap < taps; ++tap)
            for (int64_t i = 0; i < lanes<T>; ++i) {
                const int64_t channel = vector * lanes<T> + i, lane = channel / from.channels;
                const int64_t y = tap / tile_.r * p_.written.rows + lane / p_.written.columns;
                const int64_t x = tap % tile_.r * p_.written.columns + lane % p_.written.columns;
                const bool exists = channel < p_.channels && y < from.height && x < from.width;
                T* const at = phase + (taps - 1 - tap) * lanes<T> + i;
                *at = exists ? *from.at(channel % from.channels, source, y * from.width + x) : T(0);
            }
        tile_.filter(phase, lanes<T>, to, plane);
    }

    // ------------------------------------------------------------------------------------------ run

    Operands operands(const ConvArguments& a, int64_t group) const {
        const bool forward = conv_.pass == Pass::forward;
        const T* source = static_cast<const T*>(forward ? a.input : a.output);
        T* computed = static_cast<T*>(forward ? a.output : a.input);
        const T* residual = conv_.has_residual ? static_cast<const T*>(a.residual) : nullptr;
        const int64_t from = group * image_channels(), to = group * computed_channels();
        if (residual) residual += p_.residual.channel(to);
        Operands o{};
        o.source = {source + p_.source.channel(from), p_.source, image_channels(), p_.source_height, p_.source_width};
        o.reader = reader_;
        if (conv_.scale_input) {
            o.reader.prologue.scale = static_cast<const T*>(a.input_scale) + from;
            o.reader.prologue.shift = static_cast<const T*>(a.input_shift) + from;
        }
        const Spatial& size = forward ? conv_.out : conv_.size;
        o.destination.image = {computed + p_.computed.channel(to), p_.computed, computed_channels(), size.h, size.w};
        o.destination.access = computed_access_;
        o.destination.residual = {residual, p_.residual, computed_channels(), size.h, size.w};
        o.destination.residual_access = residual_access_;
        o.destination.floor = conv_.relu ? T(0) : kNoFloor;
        o.group = group;
        o.weight = static_cast<const T*>(a.weight);
        o.plain = a.plain_weight;
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
        const int64_t group = o.plain ? 1 : blocking_.panel_group;
        for (int64_t panel = panels.begin; panel < panels.end; panel += group) {
            const Range some{panel, smaller(panels.end, panel + group)};
            if (o.plain) {
                multiply_late(o, space, block, part, panel);
            } else {
                for (int64_t plane = 0; plane < planes_; ++plane)
                    for (int64_t i = some.begin; i < some.end; ++i)
                        multiply_panel(space, block, part, plane, vectors_of(i), {0, p_.source_channels},
                                       panel_of(o.weight, o.group, i) + filter_of(plane) * weight_plane(),
                                       weight_plane(), space.sums + sums_at(plane, i - panel));
            }
            for (int64_t i = some.begin; i < some.end; ++i)
                write_panel(o, space, part, i, space.sums + sums_at(0, i - panel));
        }
    }

    // One panel with the plain weight, some source channels at a time.
    void multiply_late(const Operands& o, const Space& space, TileRange block, TileRange part, int64_t panel) const {
        const int64_t vectors = vectors_of(panel);
        int64_t source = 0;
        do {  // without any source channel the sums are 0
            const Range some{source, smaller(p_.source_channels, source + blocking_.depth)};
            for (int64_t from = some.begin; from < some.end; from += kFilterChunk)
                for (int64_t half = 0; half < vectors; ++half)
                    prepare_filters(o.weight, o.group, 2 * panel + half, from,
                                    space.weight + (from - source) * kTileWidth<T>, late_plane());
            for (int64_t plane = 0; plane < planes_; ++plane)
                multiply_panel(space, block, part, plane, vectors, some, space.weight + filter_of(plane) * late_plane(),
                               0, space.sums + sums_at(plane, 0));
            source += blocking_.depth;
        } while (source < p_.source_channels);
    }

    int64_t sums_at(int64_t plane, int64_t slot) const { return (slot * planes_ + plane) * sums_plane(); }

    int64_t vectors_of(int64_t panel) const {
        return smaller(2, divide_up(filled_channels_ - panel * kTileWidth<T>, lanes<T>));
    }

    // The products of some source channels (the first one of a vector), whose rows of the weight are given.
    void multiply_panel(const Space& space, TileRange block, TileRange part, int64_t plane, int64_t vectors,
                        Range sources, const T* weight, int64_t ahead, T* sums) const {
        const int64_t count = part.size(), pieces = divide_up(count, kTileHeight);
        const T* tiles =
            space.tiles + plane * tiles_plane() + sources.begin * block.size() + (part.begin - block.begin) * lanes<T>;
        for (int64_t i = 0; i < pieces; ++i) {
            const int64_t begin = count * i / pieces, end = count * (i + 1) / pieces;
            plane_product<T>(static_cast<int>(end - begin), static_cast<int>(vectors))(
                tiles + begin * lanes<T>, block.size() * lanes<T>, weight, i == 0 ? ahead : 0,
                sources.end - sources.begin, sources.begin > 0, sums + begin * kTileWidth<T>);
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
        for (int64_t i = 0; i < (o.bias ? count : 0); ++i) bias[i] = o.bias[(channel + i) % computed_channels()];
        const bool direct = p_.written.count() == 1 && takes_vectors<T>(d.access, p_.computed) && count == lanes<T> &&
                            (!d.residual.data || takes_vectors<T>(d.residual_access, p_.residual));
        if (!direct) return write_through_patch(o, space, r, channel, bias, sums);
        const int64_t m = tile_.m, end = r.column + r.columns;
        const int64_t first_whole = smaller(larger(r.column, p_.before_columns), end);
        const int64_t end_whole = larger(first_whole, smaller((p_.before_columns + p_.width) / m, end));
        for (int64_t row = r.row; row < r.row + r.rows; ++row, sums += r.columns * kTileWidth<T>) {
            const bool whole = row >= p_.before_rows && (row + 1) * m <= p_.before_rows + p_.height;
            const int64_t first = whole ? first_whole : end, last = whole ? end_whole : end;
            const auto edge = [&](int64_t begin, int64_t stop) {
                if (begin < stop)
                    write_through_patch(o, space, {r.n, row, begin, 1, stop - begin}, channel, bias,
                                        sums + (begin - r.column) * kTileWidth<T>);
            };
            edge(r.column, first);
            if (first < last)
                write_tiles(o, r.n, row, {first, last}, channel, bias, sums + (first - r.column) * kTileWidth<T>);
            edge(last, end);
        }
    }

    // Tiles [begin, end) of a row, all of whose pixels exist, straight to where their channels lie side by side.
    void write_tiles(const Operands& o, int64_t n, int64_t row, Range columns, int64_t channel, const T* bias,
                     const T* sums) const {
        const Destination<T>& d = o.destination;
        const int64_t y = row * tile_.m - p_.before_rows, x = columns.begin * tile_.m - p_.before_columns;
        TileOutput<T> to{
            d.image.at(n, channel, y, x), p_.computed.h, p_.computed.w, nullptr, 0, 0, bias, d.floor, false};
        to.streamed = streams_ && is_streamable<T>(to.to, to.row, to.pixel);
        if (d.residual.data) {
            to.residual = d.residual.at(n, channel, y, x);
            to.residual_row = p_.residual.h;
            to.residual_pixel = p_.residual.w;
        }
        tile_.output(sums, sums_plane(), kTileWidth<T>, columns.end - columns.begin, to);
    }

    void write_through_patch(const Operands& o, const Space& space, const Rectangle& r, int64_t channel, const T* bias,
                             const T* sums) const {
        const int64_t m = tile_.m, line = r.columns * m * lanes<T>;
        for (int64_t row = 0; row < r.rows; ++row)
            tile_.output(sums + row * r.columns * kTileWidth<T>, sums_plane(), kTileWidth<T>, r.columns,
                         {space.patch + row * m * line, line, lanes<T>, nullptr, 0, 0, bias, kNoFloor, false});
        const int64_t top = r.row * m - p_.before_rows, left = r.column * m - p_.before_columns;
        const Box all{top, top + r.rows * m, left, left + r.columns * m};
        if (p_.written.count() > 1) {
            write_phase_patch<T>(o.destination, p_.written, r.n, channel, all, space.patch);
        } else {
            write_patch<T>(o.destination, r.n, channel, all, all.within(p_.height, p_.width), space.patch);
        }
    }

    static constexpr T kNoFloor = -static_cast<T>(__builtin_inf());

    ConvProblem conv_;
    TileProblem p_;
    const TileTransforms<T>& tile_;
    int64_t planes_;
    int threads_;
    bool streams_;  // the computed tensor, past the caches
    int64_t source_vectors_, filled_channels_, panels_;
    TileReader<T> reader_{};
    Access computed_access_, residual_access_;
    Blocking blocking_;
};

template <class T>
const TileTransforms<T>& transforms(const ConvProblem& p, int64_t m, Strided strided) {
    if (strided == Strided::split) return *split_transforms<T>(m, p.pass == Pass::grad_input);
    return *tile_transforms<T>(m, phase_taps(p));
}

template <class T>
ConvPlan* plan(const ConvProblem& problem, int64_t m, Strided strided, int threads, int64_t workspace_limit) {
    const TileTransforms<T>& tile = transforms<T>(problem, m, strided);
    if (problem.pass == Pass::grad_weight) return new_winograd_grad_weight<T>(problem, tile, threads, workspace_limit);
    return new Winograd<T>(problem, strided, tile, threads, workspace_limit);
}

template <int M, Strided S = Strided::no>
ConvPlan* plan_winograd(const ConvProblem& problem, int threads, int64_t workspace_limit) {
    if (problem.dtype == DType::f64) return plan<double>(problem, M, S, threads, workspace_limit);
    return plan<float>(problem, M, S, threads, workspace_limit);
}

}  // namespace

PYCV_KERNEL("conv", "winograd/f2", plan_winograd<2>);
PYCV_KERNEL("conv", "winograd/f3", plan_winograd<3>);
PYCV_KERNEL("conv", "winograd/f4", plan_winograd<4>);
PYCV_KERNEL("conv", "winograd/f5", plan_winograd<5>);
PYCV_KERNEL("conv", "winograd/f6", plan_winograd<6>);
PYCV_KERNEL("conv", "winograd/s2d-f2", (plan_winograd<2, Strided::depth>));
PYCV_KERNEL("conv", "winograd/s2d-f3", (plan_winograd<3, Strided::depth>));
PYCV_KERNEL("conv", "winograd/s2d-f4", (plan_winograd<4, Strided::depth>));
PYCV_KERNEL("conv", "winograd/s2d-f5", (plan_winograd<5, Strided::depth>));
PYCV_KERNEL("conv", "winograd/split-f2", (plan_winograd<2, Strided::split>));
PYCV_KERNEL("conv", "winograd/split-f4", (plan_winograd<4, Strided::split>));

}  // namespace pycv::cpu::PYCV_ISA
