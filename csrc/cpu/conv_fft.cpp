// Convolution by Fourier transforms of overlapping tiles (overlap-save), all passes, filters of any size.
//
// forward, grad_input: computed = source (*) weight. An axis is cut into tiles of m results, each from m + extent - 1
//   source elements, the extent being that of the (dilated) filter. A tile of t = m + extent - 1 is transformed, at
//   each frequency multiplied with the transformed filters and summed over the channels, and transformed back; the last
//   m elements of that cyclic convolution are results. The weight's transform is what prepare_weight() makes.
// grad_weight: the same tiles of the input, multiplied with tiles of m gradients lying backwards, summed over all tiles
//   and images at each frequency; one inverse transform per filter at the end gives the taps.
//
// A stride only leaves out results (forward) or puts zeros between the source's elements (grad_input, grad_weight), a
// dilation puts zeros between the taps: both cost as much as the dense problem.
//
// Three phases with a barrier between them: transforms (fft_tile.h) shared by tile and channel vector, products
// (fft_product.h) shared by frequency, inverse transforms by tile and channel vector; for as many tiles at a time as
// the workspace has room for. Sums have the same order for every number of threads. Lanes run along the channels of a
// group, or, where groups are thin (depthwise), across groups: then vectors of groups are independent problems, and
// each thread solves its own without barriers.
//
// Transforms: (c + k) * tiles * t^2 * (5 log2 t) FLOPs; products: c / groups * k * tiles * t * (t / 2 + 1) * 8 FLOPs;
// the transformed weight holds c / groups * k * t * (t + 2) numbers. t is chosen by an estimate of all of this.
//
// A result depends on its whole tile: what is not finite makes every result NaN that shares a tile and group with it.
#include "conv_gather.h"
#include "cost.h"
#include "fft_product.h"
#include "fft_tile.h"
#include "plan.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// ------------------------------------------------------------------------------------------------ geometry

inline int64_t divide_up_signed(int64_t a, int64_t b) { return a >= 0 ? divide_up(a, b) : -(-a / b); }

// The smallest range that holds all elements in use.
struct Hull {
    Range range{0, 0};

    void add(int64_t i) {
        if (range.begin == range.end) range = {i, i};
        range = {smaller(range.begin, i), larger(range.end, i + 1)};
    }
};

// One axis of a convolution without its tiling. `positions` results at distance 1 are computed, of which some may be
// left out; elements of input and output that meet nothing but padding are never looked at.
struct ConvAxis {
    int64_t size, filter, out, stride, padding, dilation;
    int64_t extent, positions;
    Range input, output;  // in use

    ConvAxis(Pass pass, int64_t size, int64_t filter, int64_t out, int64_t stride, int64_t padding, int64_t dilation)
        : size(size), filter(filter), out(out), stride(stride), padding(padding), dilation(dilation) {
        extent = (filter - 1) * dilation + 1;
        positions = pass == Pass::grad_input ? size : out > 0 ? (out - 1) * stride + 1 : 0;
        Hull inputs, outputs;
        for (int64_t o = 0; o < out; ++o) {
            const int64_t begin = o * stride - padding;  // of the window
            const int64_t first = larger(0, divide_up_signed(-begin, dilation));
            const int64_t last = smaller(filter, divide_up_signed(size - begin, dilation)) - 1;
            if (first > last) continue;
            inputs.add(begin + first * dilation);
            inputs.add(begin + last * dilation);
            outputs.add(o);
        }
        input = inputs.range, output = outputs.range;
    }
};

// Where the elements of a tensor that lie `step` apart on an axis fall into a tile that begins at `begin`.
struct Window {
    int64_t first;  // element
    Run run;
};

inline Window window(Range elements, int64_t step, int64_t begin, int64_t length) {
    const int64_t first = larger(elements.begin, divide_up_signed(begin, step));
    const int64_t end = smaller(elements.end, divide_up_signed(begin + length, step));
    return {first, {first * step - begin, step, larger(0, end - first)}};
}

// An axis in tiles of t = length.
struct TiledAxis {
    ConvAxis axis;
    int64_t length;

    int64_t results() const { return length - axis.extent + 1; }  // per tile
    int64_t tiles() const { return divide_up(axis.positions, results()); }
    int64_t results(int64_t tile) const { return smaller(results(), axis.positions - tile * results()); }

    Window input(int64_t tile) const {
        return window(axis.input, 1, tile * results() - axis.padding, results(tile) + axis.extent - 1);
    }
    // Of grad_input's source, the output gradient.
    Window gradient(int64_t tile) const {
        return window(axis.output, axis.stride, tile * results() + axis.padding - (axis.extent - 1),
                      results(tile) + axis.extent - 1);
    }
    Window source(int64_t tile, bool forward) const { return forward ? input(tile) : gradient(tile); }
    // Of grad_weight, where the gradient lies backwards: a product of spectra is a convolution, not a correlation.
    Window backwards(int64_t tile) const {
        Window w = window(axis.output, axis.stride, tile * results(), results(tile));
        w.run = {results() - 1 - w.run.first, -w.run.step, w.run.count};
        return w;
    }
    Window computed(int64_t tile, bool forward) const {
        Window w =
            window({0, forward ? axis.out : axis.size}, forward ? axis.stride : 1, tile * results(), results(tile));
        w.run.first += axis.extent - 1;
        return w;
    }
    // The taps that are multiplied with (forward: backwards, as above), and those that grad_weight finds.
    Run taps(bool forward) const {
        return forward ? Run{axis.extent - 1, -axis.dilation, axis.filter} : Run{0, axis.dilation, axis.filter};
    }
    Run found_taps() const { return {results() - 1, axis.dilation, axis.filter}; }
};

struct TileAt {
    int64_t n, y, x;
};

struct Tiling {
    int64_t n;
    TiledAxis h, w;

    int64_t tiles() const { return n * h.tiles() * w.tiles(); }
    TileAt at(int64_t tile) const {
        const int64_t x = tile % w.tiles(), rest = tile / w.tiles();
        return {rest / h.tiles(), rest % h.tiles(), x};
    }
};

// ------------------------------------------------------------------------------------------------ channels

// The channels of one vector: lane l is channel first + l * step.
struct ChannelVector {
    int64_t first, step, count;
};

// The channels of one tensor as vectors. A unit is what can be computed without the others: everything, or (across) a
// vector of groups.
template <class T>
struct ChannelVectors {
    int64_t groups, channels;  // per group
    bool across;

    int64_t per_group() const { return across ? channels : divide_up(channels, lanes<T>); }
    int64_t units() const { return across ? divide_up(groups, lanes<T>) : 1; }
    int64_t per_unit() const { return (across ? 1 : groups) * per_group(); }
    int64_t total() const { return units() * per_unit(); }
    ChannelVector at(int64_t unit, int64_t index) const {
        if (across) {
            const int64_t group = unit * lanes<T>;
            return {group * channels + index, channels, smaller(lanes<T>, groups - group)};
        }
        const int64_t group = index / per_group(), channel = index % per_group() * lanes<T>;
        return {group * channels + channel, 1, smaller(lanes<T>, channels - channel)};
    }
};

// Spectra of some tiles: at each frequency a row per tile, in it the real parts of all channels, then the imaginary
// ones. The distance of frequencies is an odd number of vectors, so that they fall into different cache sets.
template <class T>
struct SpectraLayout {
    int64_t vectors, tiles;

    int64_t im() const { return vectors * lanes<T>; }
    int64_t row() const { return 2 * im(); }
    int64_t frequency() const { return tiles * row() + lanes<T>; }
    Line<T> line(T* data, int64_t tile, int64_t vector) const {
        return {data + tile * row() + vector * lanes<T>, frequency(), im()};
    }
};

// Spectra of filters: at each frequency, group by group, panels of up to `panel` vectors of computed channels; in a
// panel a row per source channel: the real parts, then the imaginary ones. The order in which a product reads them.
template <class T>
struct FilterLayout {
    int64_t groups, vectors, channels;
    int64_t panel;

    int64_t frequency() const { return groups * vectors * channels * 2 * lanes<T> + lanes<T>; }
    int64_t width(int64_t vector) const { return smaller(panel, vectors - vector / panel * panel); }  // of its panel
    ComplexMatrix<T> matrix(T* data, int64_t group, int64_t vector) const {
        const int64_t before = (group * vectors + vector / panel * panel) * channels * 2;
        const int64_t row = width(vector) * 2 * lanes<T>;
        return {data + before * lanes<T> + vector % panel * lanes<T>, row, row, row / 2};
    }
    Line<T> line(T* data, int64_t group, int64_t vector, int64_t channel) const {
        const ComplexMatrix<T> m = matrix(data, group, vector);
        return {m.data + channel * m.index, frequency(), m.im};
    }
};

// ------------------------------------------------------------------------------------------------ choice of the tile

// What the choice of a tile depends on besides its size.
struct Amounts {
    double inputs, outputs, filters;  // vectors to transform: per tile, per tile, once
    double products;                  // vector multiply-adds per frequency and tile
    double element;                   // bytes of a vector
    double filter_share;              // of the filters' transforms that count: they may be prepared
    int64_t limit;                    // of the workspace, in bytes
    int threads;
};

// Cycles, about; only their ratios matter. The products overlap with reading the filters.
inline double estimate(const Tiling& t, const Amounts& a) {
    constexpr double kPerElement = 6, kPerStage = 4.5;  // of a transform, per vector
    constexpr double kPerByte = 0.08, kCached = 2.5e6;  // beyond the cache, shared by all threads
    const double elements = static_cast<double>(t.h.length * t.w.length);
    const double frequencies = static_cast<double>(t.h.length * (t.w.length / 2 + 1));
    const double tiles = static_cast<double>(t.tiles());
    const double transform = elements * (kPerElement + kPerStage * (fft_stages(t.h.length) + fft_stages(t.w.length)));
    const double filter_bytes = frequencies * a.filters * 2 * a.element;
    const double reading = filter_bytes > kCached ? (filter_bytes - kCached) * kPerByte : 0;
    const double products = tiles * frequencies * a.products * 4 / a.threads;
    const double filters = a.filters * transform / a.threads + 2 * reading;
    const double run =
        tiles * (a.inputs + a.outputs) * transform / a.threads + (products > reading ? products : reading);
    // What does not fit is all but excluded.
    const double least = frequencies * (a.inputs + a.outputs) * 2 * a.element;
    const double excess = larger(0, static_cast<int64_t>(least) - a.limit);
    return run + a.filter_share * filters + excess * 1e3;
}

// Lengths worth trying: from the extent to what takes the whole axis in one tile.
template <class Try>
void each_length(const ConvAxis& axis, bool even, const Try& attempt) {
    for (int64_t length = even ? larger(2, axis.extent) : axis.extent;; ++length) {
        if (!is_fft_size(length) || (even && length % 2 != 0)) continue;
        attempt(length);
        if (length >= axis.positions + axis.extent - 1) return;
    }
}

inline Tiling choose_tiling(const ConvProblem& p, const Amounts& amounts) {
    const ConvAxis h(p.pass, p.size.h, p.filter.h, p.out.h, p.stride.h, p.padding.h, p.dilation.h);
    const ConvAxis w(p.pass, p.size.w, p.filter.w, p.out.w, p.stride.w, p.padding.w, p.dilation.w);
    Tiling best{0, {h, 0}, {w, 0}};
    double least = -1;
    each_length(h, false, [&](int64_t height) {
        each_length(w, true, [&](int64_t width) {
            const Tiling tiling{p.n, {h, height}, {w, width}};
            const double cost = estimate(tiling, amounts);
            if (least >= 0 && cost >= least) return;
            least = cost;
            best = tiling;
        });
    });
    return best;
}

// Across groups where that needs fewer vectors to multiply.
template <class T>
bool lanes_across_groups(int64_t groups, int64_t channels, int64_t outputs) {
    if (channels == 0 || outputs == 0) return false;
    return divide_up(groups, lanes<T>) * channels * outputs < groups * channels * divide_up(outputs, lanes<T>);
}

// grad_weight pairs what forward gathers with what it computes.
inline ConvProblem sources_and_results(ConvProblem p) {
    if (p.pass == Pass::grad_weight) p.pass = Pass::forward;
    return p;
}

inline int64_t line_bytes(int64_t bytes) { return round_up(bytes, 64); }

// ------------------------------------------------------------------------------------------------ both kinds of plan

// The sides of a convolution as vectors, the tiles, and who does what: see the top.
template <class T>
class FftBase : public ConvPlan {
public:
    int64_t workspace_bytes() const override {
        const int64_t spaces = independent() ? threads_ : 1;
        return spaces * shared_bytes() + threads_ * scratch_bytes();
    }

protected:
    // `inputs` are summed over or paired with `outputs`; `filters`: vectors of filters. Where a filter is found
    // (grad_weight) it is transformed in each call.
    FftBase(const ConvProblem& problem, int threads, int64_t limit)
        : conv_(problem),
          gather_(gather_problem(sources_and_results(problem))),
          across_(lanes_across_groups<T>(gather_.groups, gather_.source_channels, gather_.channels)),
          sources_{gather_.groups, gather_.source_channels, across_},
          computed_{gather_.groups, gather_.channels, across_},
          threads_(threads),
          tiling_(choose_tiling(problem, amounts(limit))),
          fft_(tiling_.h.length, tiling_.w.length) {
        threads_ = worthwhile_threads(threads);
    }

    static constexpr int64_t kSize = sizeof(T);

    // Vectors of groups, each of which one thread computes by itself.
    bool independent() const { return across_ && computed_.units() >= threads_; }
    int64_t scratch_bytes() const { return line_bytes(fft_.scratch_elements() * kSize); }
    virtual int64_t shared_bytes() const = 0;

    double vector_products() const {  // per frequency and tile
        return static_cast<double>(computed_.total() * gather_.source_channels) * (across_ ? 2 : 1);
    }
    int64_t filters() const { return computed_.total() * gather_.source_channels; }
    // Where the filters between a vector of computed channels and a source channel lie in the weight.
    template <class Element>
    Patch<Element> filter_patch(Element* weight, int64_t unit, int64_t vector, int64_t channel) const {
        const ChannelVector v = computed_.at(unit, vector);
        const int64_t group = v.first / gather_.channels, in_group = v.first % gather_.channels;
        const Strides& w = gather_.weight;
        return {weight + group * gather_.weight_group + in_group * w.n + channel * w.c,
                across_ ? gather_.weight_group : w.n, w.h, w.w, v.count};
    }

    void transform_tile(const T* data, const Strides& s, int64_t n, ChannelVector v, const Window& h, const Window& w,
                        Line<T> to, T* scratch) const {
        const T* at = data + n * s.n + v.first * s.c + h.first * s.h + w.first * s.w;
        fft_.forward({at, v.step * s.c, s.h, s.w, v.count}, h.run, w.run, to, scratch);
    }

    T scale() const { return T(1) / static_cast<T>(4 * fft_.height() * fft_.width()); }

    // Elements that a transform moves, in vectors: once per stage, to and from the line, to and from the spectrum.
    double transform_vectors() const { return static_cast<double>(fft_.height() * fft_.width()) * (fft_.stages() + 3); }
    double busiest(double count) const { return std::ceil(count / threads_); }

    // Calls body(unit, thread, team, shared workspace, scratch).
    template <class Body>
    void each_unit(void* workspace, const Body& body) const {
        char* const base = static_cast<char*>(workspace);
        const int64_t spaces = independent() ? threads_ : 1;
        parallel(threads_, [&](int thread, int team) {
            T* scratch = reinterpret_cast<T*>(base + spaces * shared_bytes() + thread * scratch_bytes());
            const bool alone = independent();
            const Range units = alone ? share(computed_.units(), thread, team) : Range{0, computed_.units()};
            T* shared = reinterpret_cast<T*>(base + (alone ? thread * shared_bytes() : 0));
            for (int64_t unit = units.begin; unit < units.end; ++unit)
                body(unit, alone ? 0 : thread, alone ? 1 : team, shared, scratch);
        });
    }

    ConvProblem conv_;
    GatherProblem gather_;
    bool across_;
    ChannelVectors<T> sources_, computed_;
    int threads_;
    Tiling tiling_;
    TileFft<T> fft_;

private:
    Amounts amounts(int64_t limit) const {
        const bool found = conv_.pass == Pass::grad_weight;
        return {static_cast<double>(sources_.total()),
                static_cast<double>(computed_.total()),
                static_cast<double>(filters()),
                vector_products(),
                static_cast<double>(PYCV_VECTOR_BYTES),
                found ? 1.0 : 0.1,
                limit,
                threads_};
    }

    // Threads that are busy for longer than it takes to wake them.
    int worthwhile_threads(int threads) const {
        constexpr double kWorth = 30000;  // cycles
        const Amounts all = amounts(INT64_MAX);
        const double cycles = estimate(tiling_, all) * threads;
        return static_cast<int>(larger(1, smaller(threads, static_cast<int64_t>(cycles / kWorth))));
    }
};

// ------------------------------------------------------------------------------------------------ forward, grad_input

template <class T>
class FftGather final : public FftBase<T> {
public:
    FftGather(const ConvProblem& problem, int threads, int64_t limit)
        : FftBase<T>(problem, threads, limit),
          filters_{across_ ? 1 : gather_.groups, computed_.per_group(), gather_.source_channels,
                   across_ ? 1 : kComplexVectors} {
        // Spectra that stay in the cache, or at least within the limit.
        constexpr int64_t kCached = across_budget;
        const int64_t spaces = this->independent() ? threads_ : 1;
        const int64_t budget = smaller(limit / spaces, this->independent() ? kCached : kCached * 32);
        const int64_t per_tile =
            fft_.frequencies() * (sources_.per_unit() + computed_.per_unit()) * 2 * PYCV_VECTOR_BYTES;
        block_ = larger(1, smaller(tiling_.tiles(), budget / larger(per_tile, 1)));
        block_ = larger(1, divide_up(tiling_.tiles(), larger(1, divide_up(tiling_.tiles(), block_))));
    }

    int64_t prepared_weight_bytes() const override {
        return larger(unit_filters() * computed_.units() * kSize, 64) + threads_ * this->scratch_bytes();
    }

    // The last part of `prepared` is the threads' scratch.
    void prepare_weight(const void* weight, void* prepared) const override {
        T* const to = static_cast<T*>(prepared);
        const int64_t filters_bytes = prepared_weight_bytes() - threads_ * this->scratch_bytes();
        const int64_t channels = gather_.source_channels;
        parallel(threads_, [&](int thread, int team) {
            T* scratch =
                reinterpret_cast<T*>(static_cast<char*>(prepared) + filters_bytes + thread * this->scratch_bytes());
            const Range mine = share(computed_.total() * channels, thread, team);
            for (int64_t i = mine.begin; i < mine.end; ++i) {
                const int64_t channel = i % channels, vector = i / channels % computed_.per_unit();
                const int64_t unit = i / channels / computed_.per_unit();
                transform_filter(static_cast<const T*>(weight), unit, vector, channel, to + unit * unit_filters(),
                                 scratch);
            }
        });
    }

    void run(const ConvArguments& arguments) const override {
        const bool forward = conv_.pass == Pass::forward;
        const T* source = static_cast<const T*>(forward ? arguments.input : arguments.output);
        T* computed = static_cast<T*>(forward ? arguments.output : arguments.input);
        this->each_unit(arguments.workspace, [&](int64_t unit, int thread, int team, T* shared, T* scratch) {
            T* const from = shared;
            T* const to = shared + fft_.frequencies() * source_spectra().frequency();
            const T* filters = static_cast<const T*>(arguments.weight) + unit * unit_filters();
            for (int64_t first = 0; first < tiling_.tiles(); first += block_) {
                const Range tiles{first, smaller(first + block_, tiling_.tiles())};
                transform_sources(source, unit, tiles, from, scratch, thread, team);
                team_barrier(team);
                multiply(tiles.end - tiles.begin, from, filters, to, thread, team);
                team_barrier(team);
                transform_back(arguments, computed, unit, tiles, to, scratch, thread, team);
            }
        });
    }

    Cost cost() const override {
        const double tiles = static_cast<double>(tiling_.tiles()),
                     frequencies = static_cast<double>(fft_.frequencies());
        const double vectors = static_cast<double>(sources_.total() + computed_.total());
        const double blocks = std::ceil(tiles / static_cast<double>(block_));
        const double spectra = this->independent() ? 0 : tiles * frequencies * vectors * 4 * PYCV_VECTOR_BYTES;
        const double regions = this->independent() ? 1 : 1 + 2 * blocks * static_cast<double>(computed_.units());
        return {this->busiest(tiles * frequencies * this->vector_products()) * 4 * lanes<T>,
                this->busiest(tiles * vectors) * this->transform_vectors() * lanes<T>,
                activation_bytes(conv_) + blocks * static_cast<double>(unit_filters() * computed_.units() * kSize) +
                    spectra,
                regions};
    }

    Cost prepare_cost() const override {
        const double filters = static_cast<double>(this->filters());
        return {0, this->busiest(filters) * this->transform_vectors() * lanes<T>,
                static_cast<double>(2 * unit_filters() * computed_.units() * kSize) + weight_elements(conv_) * kSize,
                1};
    }

private:
    using FftBase<T>::conv_;
    using FftBase<T>::gather_;
    using FftBase<T>::across_;
    using FftBase<T>::sources_;
    using FftBase<T>::computed_;
    using FftBase<T>::threads_;
    using FftBase<T>::tiling_;
    using FftBase<T>::fft_;
    using FftBase<T>::kSize;
    static constexpr int64_t across_budget = 512 * 1024;

    SpectraLayout<T> source_spectra() const { return {sources_.per_unit(), block_}; }
    SpectraLayout<T> computed_spectra() const { return {computed_.per_unit(), block_}; }
    int64_t unit_filters() const { return fft_.frequencies() * filters_.frequency(); }
    int64_t shared_bytes() const override {
        return line_bytes(fft_.frequencies() * (source_spectra().frequency() + computed_spectra().frequency()) * kSize);
    }

    void transform_filter(const T* weight, int64_t unit, int64_t vector, int64_t channel, T* to, T* scratch) const {
        const bool forward = conv_.pass == Pass::forward;
        const int64_t per_group = computed_.per_group();
        fft_.forward(this->filter_patch(weight, unit, vector, channel), tiling_.h.taps(forward),
                     tiling_.w.taps(forward), filters_.line(to, vector / per_group, vector % per_group, channel),
                     scratch);
    }

    void transform_sources(const T* source, int64_t unit, Range tiles, T* to, T* scratch, int thread, int team) const {
        const bool forward = conv_.pass == Pass::forward;
        const int64_t vectors = sources_.per_unit();
        const Range mine = share((tiles.end - tiles.begin) * vectors, thread, team);
        for (int64_t i = mine.begin; i < mine.end; ++i) {
            const TileAt at = tiling_.at(tiles.begin + i / vectors);
            this->transform_tile(source, gather_.source, at.n, sources_.at(unit, i % vectors),
                                 tiling_.h.source(at.y, forward), tiling_.w.source(at.x, forward),
                                 source_spectra().line(to, i / vectors, i % vectors), scratch);
        }
    }

    void multiply(int64_t tiles, const T* from, const T* filters, T* to, int thread, int team) const {
        const Range mine = share(fft_.frequencies(), thread, team);
        for (int64_t f = mine.begin; f < mine.end; ++f) {
            T* sums = to + f * computed_spectra().frequency();
            const T* factors = from + f * source_spectra().frequency();
            // The layout only computes addresses.
            T* panels = const_cast<T*>(filters) + f * filters_.frequency();
            for (int64_t group = 0; group < filters_.groups; ++group)
                for (int64_t v = 0; v < filters_.vectors; v += filters_.panel)
                    multiply_panel(tiles, factors, filters_.matrix(panels, group, v), group, v, sums);
        }
    }

    void multiply_panel(int64_t tiles, const T* factors, ComplexMatrix<T> panel, int64_t group, int64_t vector,
                        T* sums) const {
        const SpectraLayout<T> source = source_spectra(), computed = computed_spectra();
        const ComplexMatrix<const T> filters{panel.data, panel.index, panel.depth, panel.im};
        const int64_t depth = gather_.source_channels;
        if (across_) {
            for (int64_t t = 0; t < tiles; ++t)
                lane_product<T>({factors + t * source.row(), 0, lanes<T>, source.im()}, filters, depth,
                                computed.line(sums, t, vector), false);
            return;
        }
        const int64_t first = group * sources_.per_group() * lanes<T>;
        const int64_t result = group * computed_.per_group() + vector;
        complex_product<T>(tiles, filters_.width(vector), {factors + first, source.row(), 1, source.im()}, filters,
                           depth, {sums + result * lanes<T>, computed.row(), 0, computed.im()}, false);
    }

    void transform_back(const ConvArguments& arguments, T* computed, int64_t unit, Range tiles, T* from, T* scratch,
                        int thread, int team) const {
        const bool forward = conv_.pass == Pass::forward;
        const int64_t vectors = computed_.per_unit();
        const Range mine = share((tiles.end - tiles.begin) * vectors, thread, team);
        for (int64_t i = mine.begin; i < mine.end; ++i) {
            const TileAt at = tiling_.at(tiles.begin + i / vectors);
            const Window h = tiling_.h.computed(at.y, forward), w = tiling_.w.computed(at.x, forward);
            const ChannelVector v = computed_.at(unit, i % vectors);
            const auto offset = [&](const Strides& s) {
                return at.n * s.n + v.first * s.c + h.first * s.h + w.first * s.w;
            };
            const Strides &s = gather_.computed, &r = gather_.residual;
            Finish<T> finish{this->scale(), {}, {}, gather_.relu};
            if (gather_.has_residual)
                finish.residual = {static_cast<const T*>(arguments.residual) + offset(r), v.step * r.c, r.h, r.w,
                                   v.count};
            if (gather_.bias)
                for (int64_t l = 0; l < v.count; ++l)
                    finish.bias[l] = static_cast<const T*>(arguments.bias)[v.first + l * v.step];
            fft_.inverse(computed_spectra().line(from, i / vectors, i % vectors), finish,
                         {computed + offset(s), v.step * s.c, s.h, s.w, v.count}, h.run, w.run, scratch);
        }
    }

    FilterLayout<T> filters_;
    int64_t block_;  // tiles at a time
};

// ------------------------------------------------------------------------------------------------ grad_weight

// Filters that are found together, of one unit: ranges of groups, of vectors of output channels and of vectors of input
// channels (across: of channels).
struct Part {
    Range groups, outputs, inputs;

    int64_t output_vectors() const { return (groups.end - groups.begin) * (outputs.end - outputs.begin); }
    int64_t input_vectors() const { return (groups.end - groups.begin) * (inputs.end - inputs.begin); }
};

template <class T>
class FftGradWeight final : public FftBase<T> {
public:
    FftGradWeight(const ConvProblem& problem, int threads, int64_t limit) : FftBase<T>(problem, threads, limit) {
        largest_ = {{0, across_ ? 1 : gather_.groups}, {0, computed_.per_group()}, {0, sources_.per_group()}};
        const int64_t space = this->independent() ? limit / threads_ : limit;
        while (!across_ && (filter_elements(largest_) + tile_elements(largest_)) * kSize > space) {
            int64_t& longest = largest_.groups.end > 1                      ? largest_.groups.end
                               : largest_.outputs.end > largest_.inputs.end ? largest_.outputs.end
                                                                            : largest_.inputs.end;
            if (longest <= 1) break;
            longest = divide_up(longest, 2);
        }
        // Each block of tiles visits all sums.
        constexpr int64_t kCached = 16 << 20;
        const int64_t sums = filter_elements(largest_) * kSize;
        const int64_t budget = smaller(space - sums, larger(kCached, 2 * sums));
        const int64_t at_once = larger(1, budget / larger(1, tile_elements(largest_) * kSize));
        block_ = larger(1, divide_up(tiling_.tiles(), larger(1, divide_up(tiling_.tiles(), at_once))));
    }

    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}

    void run(const ConvArguments& arguments) const override {
        this->each_unit(arguments.workspace, [&](int64_t unit, int thread, int team, T* shared, T* scratch) {
            each_part([&](const Part& part) { find(arguments, unit, part, thread, team, shared, scratch); });
        });
    }

    Cost cost() const override {
        const double tiles = static_cast<double>(tiling_.tiles()),
                     frequencies = static_cast<double>(fft_.frequencies());
        const double blocks = larger(1, divide_up(tiling_.tiles(), block_));
        double transforms = static_cast<double>(this->filters()), spectra = 0, sums = 0, regions = 1;
        each_part([&](const Part& part) {
            const double vectors =
                static_cast<double>((part.input_vectors() + part.output_vectors()) * sources_.units());
            transforms += tiles * vectors;
            if (this->independent()) return;
            spectra += tiles * frequencies * vectors * 4 * PYCV_VECTOR_BYTES;
            sums += 2 * blocks * static_cast<double>(filter_elements(part) * kSize * sources_.units());
            regions += 2 * blocks * static_cast<double>(sources_.units());
        });
        return {this->busiest(tiles * frequencies * this->vector_products()) * 4 * lanes<T>,
                this->busiest(transforms) * this->transform_vectors() * lanes<T>, tensor_bytes(conv_) + spectra + sums,
                regions};
    }
    Cost prepare_cost() const override { return {}; }

private:
    using FftBase<T>::conv_;
    using FftBase<T>::gather_;
    using FftBase<T>::across_;
    using FftBase<T>::sources_;
    using FftBase<T>::computed_;
    using FftBase<T>::threads_;
    using FftBase<T>::tiling_;
    using FftBase<T>::fft_;
    using FftBase<T>::kSize;

    SpectraLayout<T> inputs(const Part& part) const { return {part.input_vectors(), block_}; }
    SpectraLayout<T> outputs(const Part& part) const { return {part.output_vectors(), block_}; }
    // Source channels of each group in the part.
    int64_t channels(const Part& part) const {
        if (across_) return part.inputs.end - part.inputs.begin;
        return smaller(gather_.source_channels, part.inputs.end * lanes<T>) - part.inputs.begin * lanes<T>;
    }
    FilterLayout<T> found(const Part& part) const {
        return {part.groups.end - part.groups.begin, part.outputs.end - part.outputs.begin, channels(part),
                across_ ? 1 : kComplexVectors};
    }
    int64_t filter_elements(const Part& part) const { return fft_.frequencies() * found(part).frequency(); }
    int64_t tile_elements(const Part& part) const {
        return fft_.frequencies() * 2 * (part.input_vectors() + part.output_vectors()) * lanes<T>;
    }
    int64_t shared_bytes() const override {
        const int64_t spectra = inputs(largest_).frequency() + outputs(largest_).frequency();
        return line_bytes((filter_elements(largest_) + fft_.frequencies() * spectra) * kSize);
    }

    template <class Body>
    void each_part(const Body& body) const {
        const int64_t groups = across_ ? 1 : gather_.groups;
        const auto cut = [](int64_t first, const Range& length, int64_t end) {
            return Range{first, smaller(first + length.end, end)};
        };
        for (int64_t g = 0; g < groups; g += largest_.groups.end)
            for (int64_t o = 0; o < computed_.per_group(); o += largest_.outputs.end)
                for (int64_t i = 0; i < sources_.per_group(); i += largest_.inputs.end)
                    body(Part{cut(g, largest_.groups, groups), cut(o, largest_.outputs, computed_.per_group()),
                              cut(i, largest_.inputs, sources_.per_group())});
    }

    void find(const ConvArguments& arguments, int64_t unit, const Part& part, int thread, int team, T* shared,
              T* scratch) const {
        T* const sums = shared;
        T* const from = sums + filter_elements(largest_);
        T* const with = from + fft_.frequencies() * inputs(part).frequency();
        int64_t first = 0;
        do {  // without any tile the sums are 0
            const Range tiles{first, smaller(first + block_, tiling_.tiles())};
            transform(static_cast<const T*>(arguments.input), true, unit, part, tiles, from, scratch, thread, team);
            transform(static_cast<const T*>(arguments.output), false, unit, part, tiles, with, scratch, thread, team);
            team_barrier(team);
            multiply(part, tiles, from, with, sums, thread, team);
            team_barrier(team);
            first += block_;
        } while (first < tiling_.tiles());
        transform_back(static_cast<T*>(arguments.weight), unit, part, sums, scratch, thread, team);
    }

    void transform(const T* data, bool input, int64_t unit, const Part& part, Range tiles, T* to, T* scratch,
                   int thread, int team) const {
        const SpectraLayout<T> layout = input ? inputs(part) : outputs(part);
        const ChannelVectors<T>& side = input ? sources_ : computed_;
        const Range range = input ? part.inputs : part.outputs;
        const int64_t per_group = range.end - range.begin;
        const Range mine = share((tiles.end - tiles.begin) * layout.vectors, thread, team);
        for (int64_t i = mine.begin; i < mine.end; ++i) {
            const TileAt at = tiling_.at(tiles.begin + i / layout.vectors);
            const int64_t vector = i % layout.vectors, group = part.groups.begin + vector / per_group;
            const int64_t index = group * side.per_group() + range.begin + vector % per_group;
            this->transform_tile(data, input ? gather_.source : gather_.computed, at.n, side.at(unit, index),
                                 input ? tiling_.h.input(at.y) : tiling_.h.backwards(at.y),
                                 input ? tiling_.w.input(at.x) : tiling_.w.backwards(at.x),
                                 layout.line(to, i / layout.vectors, vector), scratch);
        }
    }

    void multiply(const Part& part, Range tiles, const T* from, const T* with, T* sums, int thread, int team) const {
        const SpectraLayout<T> source = inputs(part), computed = outputs(part);
        const FilterLayout<T> filters = found(part);
        const Range mine = share(fft_.frequencies(), thread, team);
        const int64_t depth = tiles.end - tiles.begin, per_group = part.inputs.end - part.inputs.begin;
        const bool add = tiles.begin > 0;
        for (int64_t f = mine.begin; f < mine.end; ++f) {
            const T* a = from + f * source.frequency();
            const T* b = with + f * computed.frequency();
            T* out = sums + f * filters.frequency();
            for (int64_t group = 0; group < filters.groups; ++group)
                for (int64_t v = 0; v < filters.vectors; v += filters.panel) {
                    const ComplexMatrix<const T> right{b + (group * filters.vectors + v) * lanes<T>, 0, computed.row(),
                                                       computed.im()};
                    if (across_) {
                        for (int64_t c = 0; c < filters.channels; ++c)
                            lane_product<T>({a + c * lanes<T>, 0, source.row(), source.im()}, right, depth,
                                            filters.line(out, 0, v, c), add);
                        continue;
                    }
                    complex_product<T>(filters.channels, filters.width(v),
                                       {a + group * per_group * lanes<T>, 1, source.row(), source.im()}, right, depth,
                                       filters.matrix(out, group, v), add);
                }
        }
    }

    void transform_back(T* weight, int64_t unit, const Part& part, T* sums, T* scratch, int thread, int team) const {
        const FilterLayout<T> filters = found(part);
        const Finish<T> finish{this->scale(), {}, {}, false};
        const Range mine = share(filters.groups * filters.vectors * filters.channels, thread, team);
        for (int64_t i = mine.begin; i < mine.end; ++i) {
            const int64_t channel = i % filters.channels, vector = i / filters.channels % filters.vectors;
            const int64_t group = i / filters.channels / filters.vectors;
            const int64_t index = (part.groups.begin + group) * computed_.per_group() + part.outputs.begin + vector;
            const int64_t first = part.inputs.begin * (across_ ? 1 : lanes<T>);
            fft_.inverse(filters.line(sums, group, vector, channel), finish,
                         this->filter_patch(weight, unit, index, first + channel), tiling_.h.found_taps(),
                         tiling_.w.found_taps(), scratch);
        }
    }

    Part largest_;
    int64_t block_;  // tiles at a time
};

template <class T>
ConvPlan* make(const ConvProblem& p, int threads, int64_t workspace_limit) {
    if (p.pass == Pass::grad_weight) return new FftGradWeight<T>(p, threads, workspace_limit);
    return new FftGather<T>(p, threads, workspace_limit);
}

ConvPlan* make_fft(const ConvProblem& p, int threads, int64_t workspace_limit) {
    return p.dtype == DType::f64 ? make<double>(p, threads, workspace_limit) : make<float>(p, threads, workspace_limit);
}

PYCV_KERNEL("conv", "fft", make_fft);

}  // namespace
}  // namespace pycv::cpu::PYCV_ISA
