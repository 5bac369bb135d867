// Winograd convolution F(m x m, 3 x 3), m = 2 or 4: forward and grad_input with stride and dilation 1.
// Tuned: no kernel of this file may spill registers.
//
// The output is cut into tiles of m x m pixels, each of which needs (m + 2) x (m + 2) of the input. Three launches for
// as many tiles as the workspace has room for:
//     transform_tiles    the input's tiles into a * a planes, a = m + 2                                   (winograd.h)
//     product            in each plane a matrix product over the channels                        (batched_product.cu)
//     write_tiles        the sums' planes back into pixels, + bias, + residual, relu
// prepare_weight() makes the weight's planes, [group][plane][source channel][computed channel]. grad_input is the same
// over grad_output with the filters turned by 180 degrees and their channels exchanged; grad_weight has a file of its
// own (winograd_grad_weight.cu).
//
// Multiply-adds of the product: a * a per tile and pair of channels instead of 9 m * m, 2.25 (m = 2) and 4 (m = 4)
// times fewer. Bytes, in fp32, per pixel and channel: 4 read, 4 a * a / (m * m) = 16 (m = 2) and 9 (m = 4) written and
// read again on the side of the input and as many on the side of the output, and 4 written: with m = 4, 44 bytes per
// pixel where input and output have as many channels. So it pays from about 64 channels on.
//
// Never TF32. A NaN or an infinity reaches every output of the tiles that read it, as NaN, and nothing beyond. Where a
// transform overflows, the infinity may have the wrong sign: it becomes NaN, so that relu does not hide it.
#include "device/half.h"
#include "device/launch.h"
#include "dtypes.h"
#include "plan.h"
#include "winograd.h"
#include "winograd_grad_weight.h"

namespace pycv::cuda {
namespace winograd {
namespace {

// Where a weight's filters lie, as [computed channel][source channel][row][column] of one group.
struct Filters {
    int64_t group, computed, source, row, column;  // strides
    bool turned;
};

// One thread per filter: 9 elements read, a * a written, the computed channels side by side.
template <class T, int M>
__global__ void __launch_bounds__(kThreads)
    transform_filters(Filters filters, Planes planes, int64_t sources, const T* from, accumulator_t<T>* to) {
    using A = accumulator_t<T>;
    constexpr int N = M + kTaps - 1;
    int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t computed = index % planes.channels;
    index /= planes.channels;
    const int64_t source = index % sources, group = index / sources;
    if (group >= planes.groups) return;
    const T* const base = from + group * filters.group + computed * filters.computed + source * filters.source;
    A in[kTaps][kTaps], out[N][N];
#pragma unroll
    for (int i = 0; i < kTaps; ++i)
#pragma unroll
        for (int j = 0; j < kTaps; ++j) {
            const int row = filters.turned ? kTaps - 1 - i : i, column = filters.turned ? kTaps - 1 - j : j;
            in[i][j] = to_accumulator(base[row * filters.row + column * filters.column]);
        }
    transform_rows<FilterMatrix<M, kTaps> >(in, out);
    A* const at = to + group * planes.group + source * planes.line + computed;
#pragma unroll
    for (int i = 0; i < N; ++i)
#pragma unroll
        for (int j = 0; j < N; ++j) at[(i * N + j) * planes.plane] = out[i][j];
}

template <class T>
struct Epilogue {
    const T* bias;      // null if none, as residual
    const T* residual;  // laid out as `strides` say
    Strides strides;
    bool relu;
};

// One thread per tile and channel: a * a sums read, m * m pixels written.
template <class T, int M>
__global__ void __launch_bounds__(kThreads) write_tiles(TiledImage image, TileRange range, Planes planes,
                                                        const accumulator_t<T>* sums, Epilogue<T> epilogue, T* to) {
    using A = accumulator_t<T>;
    constexpr int N = M + kTaps - 1;
    const auto work = work_of_thread(range.count, planes);
    if (!work.inside) return;
    const TilePlace place = place_of(range, work.tile);
    const int64_t top = place.row * M, left = place.column * M;
    const A* const from = sums + planes.at(work.channel, work.tile);
    A out[M][M];
    transform_columns<OutputMatrix<M, kTaps> >([&](int i, int j) { return from[(i * N + j) * planes.plane]; }, out);

    const A bias = epilogue.bias ? to_accumulator(epilogue.bias[work.channel]) : A(0);
    T* const base = to + place.n * image.strides.n + work.channel * image.strides.c;
    const Strides& s = epilogue.strides;
    const T* const residual = epilogue.residual ? epilogue.residual + place.n * s.n + work.channel * s.c : nullptr;
#pragma unroll
    for (int i = 0; i < M; ++i) {
        if (top + i >= image.height) break;
#pragma unroll
        for (int j = 0; j < M; ++j) {
            if (left + j >= image.width) break;
            A value = out[i][j];
            value += value * A(0) + bias;  // an infinity becomes NaN
            if (residual) value += to_accumulator(residual[(top + i) * s.h + (left + j) * s.w]);
            if (epilogue.relu && value < 0) value = 0;
            base[(top + i) * image.strides.h + (left + j) * image.strides.w] = from_accumulator<T>(value);
        }
    }
}

// The two tensors of a pass: forward computes output from input, grad_input input from output.
struct Sides {
    Strides source, computed;
    int64_t sources, channels;  // per group
    Spatial source_size, size;
    int64_t top, left;  // where the source's first tile begins
    Filters filters;
};

Sides sides_of(const ConvProblem& p) {
    const int64_t groups = std::max<int64_t>(1, p.groups), c = p.c / groups, k = p.k / groups;
    const Strides& w = p.weight;
    if (p.pass == Pass::forward)
        return {
            p.input, p.output, c, k, p.size, p.out, -p.padding.h, -p.padding.w, {k * w.n, w.n, w.c, w.h, w.w, false}};
    return {p.output,
            p.input,
            k,
            c,
            p.out,
            p.size,
            p.padding.h - (kTaps - 1),
            p.padding.w - (kTaps - 1),
            {k * w.n, w.c, w.n, w.h, w.w, true}};
}

template <class T, int M>
class Winograd final : public ConvPlan {
public:
    Winograd(const ConvProblem& problem, int64_t workspace_limit)
        : p_(problem),
          sides_(sides_of(problem)),
          groups_(std::max<int64_t>(1, problem.groups)),
          grid_(tile_grid(problem.n, sides_.size, M)),
          at_a_time_(tiles_at_a_time(grid_.count(), groups_ * std::max(sides_.sources, sides_.channels),
                                     groups_ * kPlanes * line_elements(sides_.sources + sides_.channels) * kSize,
                                     workspace_limit, kLineElements)),
          tiles_(groups_, kPlanes, sides_.sources, at_a_time_, channels_along(sides_.source, sides_.sources)),
          sums_(groups_, kPlanes, sides_.channels, at_a_time_, channels_along(sides_.computed, sides_.channels)),
          weight_(groups_, kPlanes, sides_.channels, sides_.sources, true) {}

    int64_t workspace_bytes() const override { return (tiles_.elements() + sums_.elements()) * kSize; }
    int64_t prepared_weight_bytes() const override { return std::max<int64_t>(1, weight_.elements()) * kSize; }

    void prepare_weight(const void* weight, void* prepared, Stream stream) const override {
        const int64_t threads = groups_ * sides_.sources * sides_.channels;
        if (threads == 0) return;
        launch(transform_filters<T, M>, grid_of(threads), dim3(kThreads), 0, stream, sides_.filters, weight_,
               sides_.sources, static_cast<const T*>(weight), static_cast<A*>(prepared));
    }

    void run(const ConvArguments& a, Stream stream) const override {
        if (sides_.channels == 0) return;
        const bool forward = p_.pass == Pass::forward;
        const void* const source = forward ? a.input : a.output;
        T* const computed = static_cast<T*>(forward ? a.output : a.input);
        const TiledImage from = source_image(sides_.source, sides_.source_size, sides_.size, sides_.top, sides_.left);
        const TiledImage to{sides_.computed, sides_.size.h, sides_.size.w, 0, 0};
        const Epilogue<T> epilogue{p_.bias ? static_cast<const T*>(a.bias) : nullptr,
                                   p_.has_residual ? static_cast<const T*>(a.residual) : nullptr, p_.residual, p_.relu};
        A* const tiles = static_cast<A*>(a.workspace);
        A* const sums = tiles + tiles_.elements();
        for (int64_t begin = 0; begin < grid_.count(); begin += at_a_time_) {
            const TileRange range(grid_, begin, std::min(grid_.count(), begin + at_a_time_));
            launch_transform<T, InputMatrix<kSide> >(from, range, tiles_, M, source, tiles, stream);
            run_product(product(range.count, tiles, static_cast<const A*>(a.weight), sums), stream);
            launch(write_tiles<T, M>, grid_of(range.count * sums_.all_channels()), dim3(kThreads), 0, stream, to, range,
                   sums_, sums, epilogue, computed);
        }
    }

private:
    using A = accumulator_t<T>;
    static constexpr int kSide = M + kTaps - 1;
    static constexpr int64_t kPlanes = kSide * kSide, kSize = sizeof(A);

    // The sums as their planes lie: tiles by computed channels, or the other way round.
    BatchedProduct<A> product(int64_t count, const A* tiles, const A* weight, A* sums) const {
        const ProductOperand<A> of_tiles{tiles, tiles_.plane, tiles_.line, tiles_.channels_along};
        const ProductOperand<A> of_weight{weight, weight_.plane, weight_.line, false};
        const bool by_tile = sums_.channels_along;
        return {groups_ * kPlanes,
                by_tile ? count : sides_.channels,
                by_tile ? sides_.channels : count,
                sides_.sources,
                by_tile ? of_tiles : of_weight,
                by_tile ? of_weight : of_tiles,
                sums,
                sums_.plane,
                sums_.line,
                false};
    }

    ConvProblem p_;
    Sides sides_;
    int64_t groups_;
    TileGrid grid_;
    int64_t at_a_time_;
    Planes tiles_, sums_;  // of the workspace, each with the tiles that fit
    Planes weight_;        // its `tiles` are the source channels
};

template <class T, int M>
ConvPlan* plan(const ConvProblem& problem, int64_t workspace_limit) {
    if (problem.pass == Pass::grad_weight) return new_grad_weight<T, M>(problem, workspace_limit);
    return new Winograd<T, M>(problem, workspace_limit);
}

template <int M>
ConvPlan* plan_winograd(const ConvProblem& problem, int64_t workspace_limit) {
    return of_dtype(problem.dtype, [&]<class T>() -> ConvPlan* { return plan<T, M>(problem, workspace_limit); });
}

}  // namespace
}  // namespace winograd

PYCV_KERNEL("conv", "winograd/f2", winograd::plan_winograd<2>);
PYCV_KERNEL("conv", "winograd/f4", winograd::plan_winograd<4>);

}  // namespace pycv::cuda
