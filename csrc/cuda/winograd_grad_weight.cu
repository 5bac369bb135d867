// grad_weight by Winograd's F(3 x 3, m x m), m = 2 or 4: the filter's gradient is a convolution of the input with
// grad_output, whose tiles of m x m pixels take the part of the filters, with the points and the input transform of the
// forward pass.
// Tuned: no kernel of this file may spill registers.
//
//     sums[plane][k][c] = sum over the tiles of all images of gradients[plane][tile][k] * tiles[plane][tile][c]
//     weight[k][c]      = the inverse transform of sums[.][k][c]
//
// For as many tiles as the workspace has room for, three launches: transform_tiles for input and grad_output
// (winograd.h), and the product, which adds to the sums; few channels leave too few blocks for a GPU, so the tiles are
// split among several sums. write_filters adds those up, in order, and turns them into the weight.
//
// Multiply-adds: a * a per tile and pair of channels instead of 9 m * m, a = m + 2. Bytes as in the forward pass, but
// for the output: a * a sums per filter.
#include "device/half.h"
#include "device/launch.h"
#include "winograd.h"
#include "winograd_grad_weight.h"

namespace pycv::cuda::winograd {
namespace {

// The sums: `splits` times the planes of a group, of k by c channels.
struct Sums {
    int64_t groups, outputs, channels, splits;
    int64_t line, plane, group, split;  // elements from one to the next

    Sums(int64_t groups, int64_t count, int64_t outputs, int64_t channels, int64_t splits)
        : groups(groups), outputs(outputs), channels(channels), splits(splits) {
        line = line_elements(channels);
        plane = line * outputs;
        group = plane * count;
        split = group * groups;
    }
    int64_t elements() const { return split * splits; }
};

// One thread per filter, c running fastest: a * a sums of each split read, 9 taps written.
template <class T, int M>
__global__ void __launch_bounds__(kThreads)
    write_filters(Sums s, Strides strides, const accumulator_t<T>* sums, T* weight) {
    using A = accumulator_t<T>;
    constexpr int N = M + kTaps - 1;
    int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t c = index % s.channels;
    index /= s.channels;
    const int64_t k = index % s.outputs, group = index / s.outputs;
    if (group >= s.groups) return;
    const A* const from = sums + group * s.group + k * s.line + c;
    const auto sum_of_splits = [&](int i, int j) {
        A sum = 0;
        for (int64_t split = 0; split < s.splits; ++split) sum += from[split * s.split + (i * N + j) * s.plane];
        return sum;
    };
    A taps[kTaps][kTaps];
    transform_columns<OutputMatrix<kTaps, M> >(sum_of_splits, taps);
    T* const to = weight + (group * s.outputs + k) * strides.n + c * strides.c;
#pragma unroll
    for (int i = 0; i < kTaps; ++i)
#pragma unroll
        for (int j = 0; j < kTaps; ++j) to[i * strides.h + j * strides.w] = from_accumulator<T>(taps[i][j]);
}

template <class T, int M>
class GradWeight final : public ConvPlan {
public:
    GradWeight(const ConvProblem& problem, int64_t limit)
        : p_(problem),
          groups_(std::max<int64_t>(1, problem.groups)),
          grid_(tile_grid(problem.n, problem.out, M)),
          sums_(groups_, kPlanes, problem.k / groups_, problem.c / groups_, splits(limit)),
          at_a_time_(tiles_at_a_time(grid_.count(), groups_ * std::max(sums_.outputs, sums_.channels),
                                     groups_ * kPlanes * line_elements(sums_.outputs + sums_.channels) * kSize,
                                     limit - sums_.elements() * kSize, kLineElements)),
          tiles_(groups_, kPlanes, sums_.channels, at_a_time_, channels_along(problem.input, sums_.channels)),
          gradients_(groups_, kPlanes, sums_.outputs, at_a_time_, channels_along(problem.output, sums_.outputs)) {}

    int64_t workspace_bytes() const override {
        return (sums_.elements() + tiles_.elements() + gradients_.elements()) * kSize;
    }

    void run(const ConvArguments& a, Stream stream) const override {
        const int64_t filters = groups_ * sums_.outputs * sums_.channels;
        if (filters == 0) return;
        const TiledImage input = source_image(p_.input, p_.size, p_.out, -p_.padding.h, -p_.padding.w);
        const TiledImage output{p_.output, p_.out.h, p_.out.w, 0, 0};
        A* const sums = static_cast<A*>(a.workspace);
        A* const tiles = sums + sums_.elements();
        A* const gradients = tiles + tiles_.elements();
        for (int64_t begin = 0; begin < grid_.count(); begin += at_a_time_) {
            const TileRange range(grid_, begin, std::min(grid_.count(), begin + at_a_time_));
            launch_transform<T, InputMatrix<kSide> >(input, range, tiles_, M, a.input, tiles, stream);
            launch_transform<T, FilterMatrix<kTaps, M> >(output, range, gradients_, M, a.output, gradients, stream);
            run_product(BatchedProduct<A>{groups_ * kPlanes,
                                          sums_.outputs,
                                          sums_.channels,
                                          range.count,
                                          {gradients, gradients_.plane, gradients_.line, !gradients_.channels_along},
                                          {tiles, tiles_.plane, tiles_.line, !tiles_.channels_along},
                                          sums,
                                          sums_.plane,
                                          sums_.line,
                                          begin > 0,
                                          sums_.splits,
                                          sums_.split},
                        stream);
        }
        Sums filled = sums_;
        if (grid_.count() == 0) filled.splits = 0;
        launch(write_filters<T, M>, grid_of(filters), dim3(kThreads), 0, stream, filled, p_.weight, sums,
               static_cast<T*>(a.weight));
    }

private:
    using A = accumulator_t<T>;
    static constexpr int kSide = M + kTaps - 1;
    static constexpr int64_t kPlanes = kSide * kSide, kSize = sizeof(A);

    // Sums may take a quarter of the workspace; one is needed in any case.
    int64_t splits(int64_t limit) const {
        const int64_t k = p_.k / groups_, c = p_.c / groups_;
        const int64_t bytes = Sums(groups_, kPlanes, k, c, 1).elements() * kSize;
        return product_splits(groups_ * kPlanes, k, c, grid_.count(), limit / 4 / std::max<int64_t>(1, bytes));
    }

    ConvProblem p_;
    int64_t groups_;
    TileGrid grid_;
    Sums sums_;
    int64_t at_a_time_;
    Planes tiles_, gradients_;
};

}  // namespace

template <class T, int M>
ConvPlan* new_grad_weight(const ConvProblem& problem, int64_t workspace_limit) {
    return new GradWeight<T, M>(problem, workspace_limit);
}

template ConvPlan* new_grad_weight<float, 2>(const ConvProblem&, int64_t);
template ConvPlan* new_grad_weight<float, 4>(const ConvProblem&, int64_t);
template ConvPlan* new_grad_weight<double, 2>(const ConvProblem&, int64_t);
template ConvPlan* new_grad_weight<double, 4>(const ConvProblem&, int64_t);
template ConvPlan* new_grad_weight<half, 2>(const ConvProblem&, int64_t);
template ConvPlan* new_grad_weight<half, 4>(const ConvProblem&, int64_t);
template ConvPlan* new_grad_weight<bfloat16, 2>(const ConvProblem&, int64_t);
template ConvPlan* new_grad_weight<bfloat16, 4>(const ConvProblem&, int64_t);

}  // namespace pycv::cuda::winograd
