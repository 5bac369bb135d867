// Convolution by Fourier transforms of overlapping tiles (overlap-save), all passes, for large filters.
// Tuned: no kernel of this file may spill registers.
//
// forward, grad_input: three launches for as many tiles as the workspace has room for:
//     to_spectra      the source's tiles into planes, one per frequency                                   (fft_tile.h)
//     product         at each frequency a complex matrix product over the channels             (batched_product.cu)
//     from_spectra    the sums' planes back into elements, + bias, + residual, relu
//   The weight's spectra are what prepare_weight() makes, conjugate ones in forward, which is a correlation.
// grad_weight: the same tiles of the input, multiplied with the conjugate spectra of tiles of gradients and summed over
//   all tiles and images at each frequency; one inverse transform per filter at the end gives the taps. Sums that
//   exceed half of the workspace are computed in parts, some channels at a time.
//
// Tiles are t_h x t_w, powers of two that fit into shared memory (48 KB): up to 64 x 64 or 32 x 128 in fp64, twice
// that in fp32. A stride or a dilation costs as much as the dense problem.
//
// Transforms: (c + k) * tiles * t^2 * 5 log2 t FLOPs; products: c / groups * k * tiles * t (t / 2 + 1) * 8 FLOPs. Bytes
// (fp32): per tile and channel 4 t^2 read and 4 t (t + 2) written, which the product reads; the transformed weight
// holds c / groups * k * t (t + 2) numbers. t is chosen by an estimate of all of this.
//
// f16 and bf16 are read and written; spectra, products and sums are fp32, and what is written is rounded once.
//
// conv3d has no fft: a tile of three axes that saves anything (16^3 in fp32) fills all of the 48 KB of shared memory
// with one channel, so that nothing would be written in whole sectors, and filters of networks are 3^3, for which
// direct sums take fewer FLOPs.
//
// A result depends on its whole tile: what is not finite makes every result NaN that shares a tile and group with it.
#include <stdexcept>

#include "device/launch.h"
#include "dtypes.h"
#include "fft_axes.h"
#include "plan.h"

namespace pycv::cuda {
namespace fft {
namespace {

// The spectra of some tensor: how its tiles are transformed, and the planes.
template <class T>
struct Spectra {
    Shape shape;
    Axis h, w;
    Planes planes;

    void fill(const Elements<const T>& from, const TileRange& range, bool conjugated, SpectrumNumber<T>* to,
              Stream stream) const {
        if (blocks(range) == 0) return;
        launch(to_spectra<T>, dim3(blocks(range)), dim3(kThreads), shared_bytes(), stream, shape, lanes(), h, w, from,
               range, planes, conjugated, to);
    }
    void read(const SpectrumNumber<T>* from, const TileRange& range, Finish<T> finish, const Elements<T>& to,
              Stream stream) const {
        if (blocks(range) == 0) return;
        finish.scale = 1 / static_cast<accumulator_t<T> >(4.0 * shape.height() * shape.width());
        launch(from_spectra<T>, dim3(blocks(range)), dim3(kThreads), shared_bytes(), stream, shape, lanes(), h, w, from,
               range, planes, finish, to);
    }

private:
    int lanes() const { return lanes_of<accumulator_t<T> >(shape, planes.channels); }
    size_t shared_bytes() const {
        return static_cast<size_t>(shape.shared_elements(lanes())) * sizeof(SpectrumNumber<T>);
    }
    unsigned blocks(const TileRange& range) const {
        return static_cast<unsigned>(planes.groups * range.count * ceil_div<int64_t>(planes.channels, lanes()));
    }
};

// A tensor's elements from the first channel on.
template <class T>
Elements<T> elements(T* data, const Strides& s, int64_t channels_per_group) {
    return {data, s.n, s.c, channels_per_group * s.c, s.h, s.w};
}

// Filters by [source channel][computed channel], as images are by [image][channel].
template <class T>
Elements<T> filters(T* data, const Strides& s, int64_t outputs_per_group, bool output_is_channel) {
    return {data, output_is_channel ? s.c : s.n, output_is_channel ? s.n : s.c, outputs_per_group * s.n, s.h, s.w};
}

// One tile per filter.
TileRange filter_range(int64_t count) { return TileRange({count, 1, 1}, 0, count); }

int64_t per_group(int64_t channels, const ConvProblem& p) { return channels / std::max<int64_t>(1, p.groups); }

template <class T>
Amounts amounts(const ConvProblem& p, int64_t limit) {
    const double inputs = static_cast<double>(p.c), outputs = static_cast<double>(p.k);
    return {inputs, outputs, outputs * static_cast<double>(per_group(p.c, p)), sizeof(accumulator_t<T>), limit};
}

// ------------------------------------------------------------------------------------------------ forward, grad_input

template <class T>
class FftGather final : public ConvPlan {
public:
    FftGather(const ConvProblem& problem, int64_t limit)
        : p_(problem),
          forward_(problem.pass == Pass::forward),
          groups_(std::max<int64_t>(1, problem.groups)),
          sources_(per_group(forward_ ? problem.c : problem.k, problem)),
          channels_(per_group(forward_ ? problem.k : problem.c, problem)),
          tiling_(choose_tiling<accumulator_t<T> >(problem, amounts<T>(problem, limit))),
          grid_(tiling_.grid(problem.n)),
          at_a_time_(tiles_at_a_time(
              grid_.count(), groups_ * std::max(sources_, channels_),
              groups_ * frequencies() * (line_elements(sources_) + line_elements(channels_)) * kSize, limit, 1)),
          source_{tiling_.shape(), tiling_.h.source(), tiling_.w.source(), planes(sources_, at_a_time_)},
          computed_{tiling_.shape(), tiling_.h.computed(), tiling_.w.computed(), planes(channels_, at_a_time_)},
          weight_{tiling_.shape(), tiling_.h.taps(), tiling_.w.taps(), planes(channels_, sources_)} {}

    int64_t workspace_bytes() const override {
        return (source_.planes.elements() + computed_.planes.elements()) * kSize;
    }
    int64_t prepared_weight_bytes() const override { return std::max<int64_t>(1, weight_.planes.elements()) * kSize; }

    void prepare_weight(const void* weight, void* prepared, Stream stream) const override {
        weight_.fill(filters(static_cast<const T*>(weight), p_.weight, p_.k / groups_, forward_),
                     filter_range(sources_), forward_, static_cast<SpectrumNumber<T>*>(prepared), stream);
    }

    void run(const ConvArguments& a, Stream stream) const override {
        const T* const source = static_cast<const T*>(forward_ ? a.input : a.output);
        T* const computed = static_cast<T*>(forward_ ? a.output : a.input);
        const Elements<const T> from = elements(source, forward_ ? p_.input : p_.output, sources_);
        const Elements<T> to = elements(computed, forward_ ? p_.output : p_.input, channels_);
        const T* const residual = p_.has_residual ? static_cast<const T*>(a.residual) : nullptr;
        const Finish<T> finish{1, p_.bias ? static_cast<const T*>(a.bias) : nullptr,
                               elements(residual, p_.residual, channels_), p_.relu};
        SpectrumNumber<T>* const spectra = static_cast<SpectrumNumber<T>*>(a.workspace);
        SpectrumNumber<T>* const sums = spectra + source_.planes.elements();
        for (int64_t begin = 0; begin < grid_.count(); begin += at_a_time_) {
            const TileRange range(grid_, begin, std::min(grid_.count(), begin + at_a_time_));
            source_.fill(from, range, false, spectra, stream);
            run_product(product(range.count, spectra, static_cast<const SpectrumNumber<T>*>(a.weight), sums), stream);
            computed_.read(sums, range, finish, to, stream);
        }
    }

private:
    static constexpr int64_t kSize = sizeof(SpectrumNumber<T>);

    int64_t frequencies() const { return tiling_.shape().frequencies(); }
    Planes planes(int64_t channels, int64_t tiles) const { return {groups_, frequencies(), channels, tiles, true}; }

    BatchedProduct<SpectrumNumber<T> > product(int64_t tiles, const SpectrumNumber<T>* spectra,
                                               const SpectrumNumber<T>* weight, SpectrumNumber<T>* sums) const {
        const Planes &s = source_.planes, &w = weight_.planes, &c = computed_.planes;
        return {groups_ * frequencies(),          tiles, channels_, sources_, {spectra, s.plane, s.line, true},
                {weight, w.plane, w.line, false}, sums,  c.plane,   c.line,   false};
    }

    ConvProblem p_;
    bool forward_;
    int64_t groups_, sources_, channels_;  // per group
    Tiling tiling_;
    TileGrid grid_;
    int64_t at_a_time_;
    Spectra<T> source_, computed_, weight_;  // of the workspace, but for the weight
};

// ------------------------------------------------------------------------------------------------ grad_weight

// Filters that are found together: groups, output and input channels of each.
struct Part {
    int64_t groups, outputs, inputs;
};

template <class T>
class FftGradWeight final : public ConvPlan {
public:
    FftGradWeight(const ConvProblem& problem, int64_t limit)
        : p_(problem),
          all_{std::max<int64_t>(1, problem.groups), per_group(problem.k, problem), per_group(problem.c, problem)},
          tiling_(choose_tiling<accumulator_t<T> >(problem, amounts<T>(problem, limit))),
          grid_(tiling_.grid(problem.n)),
          largest_(largest_part(limit / 2)),
          at_a_time_(tiles_at_a_time(grid_.count(), largest_.groups * std::max(largest_.outputs, largest_.inputs),
                                     largest_.groups * frequencies() *
                                         (line_elements(largest_.outputs) + line_elements(largest_.inputs)) * kSize,
                                     limit - sums_elements(largest_) * kSize, 1)) {}

    int64_t workspace_bytes() const override {
        return (sums_elements(largest_) + inputs(largest_).planes.elements() + outputs(largest_).planes.elements()) *
               kSize;
    }

    void run(const ConvArguments& a, Stream stream) const override {
        for (int64_t g = 0; g < all_.groups; g += largest_.groups)
            for (int64_t k = 0; k < all_.outputs; k += largest_.outputs)
                for (int64_t c = 0; c < all_.inputs; c += largest_.inputs)
                    find(a, {g, k, c},
                         {std::min(largest_.groups, all_.groups - g), std::min(largest_.outputs, all_.outputs - k),
                          std::min(largest_.inputs, all_.inputs - c)},
                         stream);
    }

private:
    static constexpr int64_t kSize = sizeof(SpectrumNumber<T>);

    int64_t frequencies() const { return tiling_.shape().frequencies(); }

    Spectra<T> inputs(const Part& part) const {
        return {tiling_.shape(),
                tiling_.h.input(),
                tiling_.w.input(),
                {part.groups, frequencies(), part.inputs, at_a_time_, true}};
    }
    Spectra<T> outputs(const Part& part) const {
        return {tiling_.shape(),
                tiling_.h.paired(),
                tiling_.w.paired(),
                {part.groups, frequencies(), part.outputs, at_a_time_, true}};
    }
    Spectra<T> sums(const Part& part) const {
        return {tiling_.shape(),
                tiling_.h.taps(),
                tiling_.w.taps(),
                {part.groups, frequencies(), part.inputs, part.outputs, true}};
    }
    int64_t sums_elements(const Part& part) const { return sums(part).planes.elements(); }

    Part largest_part(int64_t limit) const {
        Part part = all_;
        while (sums_elements(part) * kSize > limit) {
            int64_t& longest = part.groups > 1 ? part.groups : part.outputs > part.inputs ? part.outputs : part.inputs;
            if (longest <= 1) break;
            longest = ceil_div<int64_t>(longest, 2);
        }
        return {std::max<int64_t>(1, part.groups), std::max<int64_t>(1, part.outputs),
                std::max<int64_t>(1, part.inputs)};
    }

    // The filters of `part` from `first` on.
    void find(const ConvArguments& a, const Part& first, const Part& part, Stream stream) const {
        const Spectra<T> x = inputs(part), y = outputs(part), found = sums(part);
        SpectrumNumber<T>* const sums = static_cast<SpectrumNumber<T>*>(a.workspace);
        SpectrumNumber<T>* const tiles = sums + found.planes.elements();
        SpectrumNumber<T>* const gradients = tiles + x.planes.elements();
        const Strides &input = p_.input, &output = p_.output, &weight = p_.weight;
        const T* const from_x = static_cast<const T*>(a.input) + (first.groups * all_.inputs + first.inputs) * input.c;
        const T* const from_y =
            static_cast<const T*>(a.output) + (first.groups * all_.outputs + first.outputs) * output.c;
        T* const to = static_cast<T*>(a.weight) + (first.groups * all_.outputs + first.outputs) * weight.n +
                      first.inputs * weight.c;
        for (int64_t begin = 0; begin == 0 || begin < grid_.count(); begin += at_a_time_) {
            const TileRange range(grid_, begin, std::min(grid_.count(), begin + at_a_time_));
            x.fill(elements(from_x, input, all_.inputs), range, false, tiles, stream);
            y.fill(elements(from_y, output, all_.outputs), range, true, gradients, stream);
            run_product(product(x.planes, y.planes, found.planes, range.count, tiles, gradients, sums, begin > 0),
                        stream);
        }
        const Finish<T> finish{1, nullptr, {}, false};
        found.read(sums, filter_range(part.outputs), finish, filters(to, weight, all_.outputs, false), stream);
    }

    BatchedProduct<SpectrumNumber<T> > product(const Planes& x, const Planes& y, const Planes& found, int64_t tiles,
                                               const SpectrumNumber<T>* inputs, const SpectrumNumber<T>* outputs,
                                               SpectrumNumber<T>* sums, bool add) const {
        return {
            x.groups * frequencies(),         y.channels, x.channels,  tiles,      {outputs, y.plane, y.line, false},
            {inputs, x.plane, x.line, false}, sums,       found.plane, found.line, add};
    }

    ConvProblem p_;
    Part all_;
    Tiling tiling_;
    TileGrid grid_;
    Part largest_;
    int64_t at_a_time_;
};

template <class T>
ConvPlan* plan(const ConvProblem& problem, int64_t workspace_limit) {
    if (problem.pass == Pass::grad_weight) return new FftGradWeight<T>(problem, workspace_limit);
    return new FftGather<T>(problem, workspace_limit);
}

ConvPlan* plan_fft(const ConvProblem& problem, int64_t workspace_limit) {
    return of_dtype(problem.dtype, [&]<class T>() -> ConvPlan* { return plan<T>(problem, workspace_limit); });
}

}  // namespace
}  // namespace fft

PYCV_KERNEL("conv", "fft", fft::plan_fft);

}  // namespace pycv::cuda
