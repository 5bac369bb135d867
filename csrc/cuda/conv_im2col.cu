// Convolution as a GEMM (the last step of gemm_simt_*.cu) with an im2col matrix that is written to the workspace, as
// many images or rows of one at a time as it has room for.
//
//     forward      output[position][k] = matrix[position][c, tap] x weight[c, tap][k], the epilogue in the GEMM
//     grad_weight  weight[k][c, tap] = output[position][k] x matrix[position][c, tap], added up over the pieces
//     grad_input   matrix[position][c, tap] = output[position][k] x weight[k][c, tap]; then every input element adds up
//                  the elements of the matrix that stand for it, without atomics, and the epilogue
//
// 2 * n * k * out * (c / groups) * filter FLOPs. The matrix is filter times as large as the input (over the strides):
// it is written and read once, which implicit_gemm saves. Forward keeps the storage type all along. Gradients of 16
// bits have sums between their steps, and those stay in fp32: so are the matrix, the prepared weight, a copy of the
// piece of the output that the GEMM reads, and the filters until the last piece; what is written is rounded once.
#include <algorithm>
#include <memory>
#include <type_traits>
#include <utility>

#include "conv_gather.h"
#include "dtypes.h"
#include "gemm.h"

namespace pycv::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks_of(int64_t threads) { return static_cast<unsigned>(ceil_div<int64_t>(threads, kThreads)); }

// An element of storage type T in the matrix, whose type M is T or its accumulator's.
template <class M, class T>
__device__ __forceinline__ M widened(T value) {
    if constexpr (std::is_same_v<M, T>)
        return value;
    else
        return to_accumulator(value);
}

// Some rows (positions) of some images of the matrix of one group: [image][tap][row], or [image][row][tap].
template <class M>
struct Columns {
    Geometry geometry;
    int channels;  // of a group
    int64_t taps;  // c and filter positions
    bool taps_fastest, channels_inside;
    M* matrix;
    int64_t image_rows;  // of all the matrix
    int64_t first_image, images, first_row, rows;

    __host__ __device__ int64_t count() const { return images * rows * taps; }
    __device__ int64_t at(int64_t image, int64_t row, int64_t tap) const {
        return image * rows * taps + (taps_fastest ? row * taps + tap : tap * rows + row);
    }
};

template <class T, class M>
__global__ void __launch_bounds__(kThreads) gather_columns(const Columns<M> p, const T* source, const Strides strides) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= p.count()) return;
    const int64_t within = index % (p.rows * p.taps), image = index / (p.rows * p.taps);
    const int64_t row = p.taps_fastest ? within / p.taps : within % p.rows;
    const int64_t tap = p.taps_fastest ? within % p.taps : within / p.rows;
    const Gather gather = p.geometry.phase(0);
    const TapAxes axes(gather, p.channels, p.channels_inside);
    const Digits t = Digits::of(tap, axes.radices);
    const int64_t position = (p.first_image + image) * p.image_rows + p.first_row + row;
    const Digits q = Digits::of(position, position_radices(gather));
    const Point to = position_point(gather, strides, q.at[3], q.at[2], q.at[1], q.at[0]);
    const Point from = tap_point(gather, strides, axes.c(t), axes.d(t), axes.h(t), axes.w(t));
    p.matrix[index] =
        inside(to, from, p.geometry.size) ? widened<M>(source[to.offset + from.offset]) : from_accumulator<M>(0);
}

// What becomes of the sum of an input element.
template <class T>
struct InputEpilogue {
    T* input;
    Strides strides;
    const T* bias;  // null where there is none, as residual
    const T* residual;
    Strides residual_strides;
    bool relu;
};

// The output position that a tap of an input coordinate comes from, -1 if none.
__device__ __forceinline__ int output_at(int coordinate, int tap, int stride, int padding, int dilation, int out) {
    const int from = coordinate + padding - tap * dilation;
    return from >= 0 && from % stride == 0 && from / stride < out ? from / stride : -1;
}

// Adds up a group's whole images.
template <class T, class M>
__global__ void __launch_bounds__(kThreads)
    add_columns(const Columns<M> p, const InputEpilogue<T> epilogue, int first_channel) {
    const Geometry& g = p.geometry;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t plane = static_cast<int64_t>(g.size.d) * g.size.h * g.size.w;
    if (index >= p.images * p.channels * plane) return;
    const bool inside = p.channels_inside;
    const int c = static_cast<int>(inside ? index % p.channels : index / plane % p.channels);
    const int64_t pixel = inside ? index / p.channels % plane : index % plane;
    const int64_t image = index / (p.channels * plane);
    const int w = static_cast<int>(pixel % g.size.w), h = static_cast<int>(pixel / g.size.w % g.size.h);
    const int d = static_cast<int>(pixel / g.size.w / g.size.h);
    accumulator_t<T> sum = 0;
    for (int fd = 0; fd < g.filter.d; ++fd) {
        const int od = output_at(d, fd, g.stride.d, g.padding.d, g.dilation.d, g.out.d);
        for (int fh = 0; fh < g.filter.h && od >= 0; ++fh) {
            const int oh = output_at(h, fh, g.stride.h, g.padding.h, g.dilation.h, g.out.h);
            for (int fw = 0; fw < g.filter.w && oh >= 0; ++fw) {
                const int ow = output_at(w, fw, g.stride.w, g.padding.w, g.dilation.w, g.out.w);
                if (ow < 0) continue;
                const int64_t row = (static_cast<int64_t>(od) * g.out.h + oh) * g.out.w + ow;
                const int64_t filter = (static_cast<int64_t>(fd) * g.filter.h + fh) * g.filter.w + fw;
                const int64_t filters = p.taps / p.channels;
                const int64_t tap = inside ? filter * p.channels + c : c * filters + filter;
                sum += to_accumulator(p.matrix[p.at(image, row, tap)]);
            }
        }
    }
    const int64_t n = p.first_image + image;
    const int channel = first_channel + c;
    const Strides &to = epilogue.strides, &from = epilogue.residual_strides;
    if (epilogue.bias) sum += to_accumulator(epilogue.bias[channel]);
    if (epilogue.residual)
        sum += to_accumulator(epilogue.residual[n * from.n + channel * from.c + offset_of(from, d, h, w)]);
    epilogue.input[n * to.n + channel * to.c + offset_of(to, d, h, w)] =
        from_accumulator<T>(epilogue.relu && sum < 0 ? 0 : sum);
}

// The weight as [group][tap][k], taps in the order of the matrix.
template <class T, class M>
__global__ void __launch_bounds__(kThreads)
    arrange_taps(const T* weight, M* prepared, const Strides strides, int64_t count, int64_t k, int64_t channels,
                 int64_t filters, bool channels_inside) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= count) return;
    const int64_t taps = channels * filters, tap = index / k % taps, group = index / k / taps;
    const int64_t c = channels_inside ? tap % channels : tap / filters;
    const int64_t filter = channels_inside ? tap / channels : tap % filters;
    prepared[index] = widened<M>(weight[(group * k + index % k) * strides.n + c * strides.c + filter * strides.w]);
}

// The rows of some images of a group's output: [image][row][k], or [image][k][row].
template <class M>
struct OutputRows {
    M* data;
    bool k_fastest;
    int64_t images, rows, k;

    __host__ __device__ int64_t count() const { return images * rows * k; }
};

template <class T, class M>
__global__ void __launch_bounds__(kThreads)
    widen_output(const OutputRows<M> p, const T* output, const Strides strides) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= p.count()) return;
    const int64_t within = index % (p.rows * p.k), image = index / (p.rows * p.k);
    const int64_t row = p.k_fastest ? within / p.k : within % p.rows;
    const int64_t k = p.k_fastest ? within % p.k : within / p.rows;
    p.data[index] = widened<M>(output[image * strides.n + row * strides.w + k * strides.c]);
}

// A group's filters of so many taps, which lie `pitch` apart.
template <class T, class M>
__global__ void __launch_bounds__(kThreads)
    round_filters(const M* sums, T* weight, int64_t count, int64_t taps, int64_t pitch) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index < count) weight[index / taps * pitch + index % taps] = from_accumulator<T>(sums[index]);
}

struct GemmOfRows {
    int64_t images, rows;
    std::unique_ptr<GemmPlan> plan;
};

// M: the type of the matrix and of all that is summed up in between.
template <class T, class M>
class Im2col final : public ConvPlan {
public:
    Im2col(const ConvProblem& problem, int64_t workspace_limit) : problem_(problem) {
        k_ = problem.k / problem.groups;
        columns_.geometry = geometry_of(problem);
        columns_.geometry.strided_source = true;  // the matrix is that of the input in every pass
        columns_.geometry.phases = {1, 1, 1};
        columns_.channels = static_cast<int>(problem.c / problem.groups);
        columns_.taps = columns_.channels * problem.filter.count();
        columns_.taps_fastest = problem.input.c == 1;
        columns_.channels_inside = problem.pass == Pass::grad_weight ? problem.weight.c == 1 : columns_.taps_fastest;
        images_ = problem.n;
        columns_.image_rows = problem.out.count();
        if (flat()) {
            columns_.image_rows *= images_;
            images_ = 1;
        }
        share(workspace_limit);
    }

    int64_t workspace_bytes() const override {
        int64_t gemm = 0;
        for (const GemmOfRows* piece : {&main_, &last_})
            if (piece->plan) gemm = std::max(gemm, piece->plan->workspace_bytes());
        return bytes_before_gemm() + gemm;
    }

    int64_t prepared_weight_bytes() const override {
        return problem_.pass == Pass::grad_weight ? 0 : weights() * kSize;
    }

    void prepare_weight(const void* weight, void* prepared, Stream stream) const override {
        if (weights() == 0) return;
        launch(arrange_taps<T, M>, dim3(blocks_of(weights())), kThreads, 0, stream, static_cast<const T*>(weight),
               static_cast<M*>(prepared), problem_.weight, weights(), k_, static_cast<int64_t>(columns_.channels),
               problem_.filter.count(), columns_.channels_inside);
    }

    void run(const ConvArguments& a, Stream stream) const override {
        for (int64_t group = 0; group < problem_.groups; ++group) {
            bool first = true;
            for (int64_t image = 0; image < images_ || first; image += main_.images)
                for (int64_t row = 0; row < columns_.image_rows || first; row += main_.rows, first = false)
                    run_piece(a, group, image, row, first, stream);
            if constexpr (kWidened)
                if (sums() > 0) round(a, group, stream);
        }
    }

private:
    static constexpr bool kWidened = !std::is_same_v<T, M>;
    static constexpr int64_t kSize = sizeof(M);

    // Whether the rows of all images follow each other in the matrix and in the tensors that the GEMM reads and writes.
    bool flat() const {
        const int64_t rows = columns_.image_rows;
        const bool residual = !problem_.has_residual || problem_.residual.n == rows * problem_.residual.w;
        return problem_.pass != Pass::grad_input && columns_.taps_fastest &&
               problem_.output.n == rows * problem_.output.w && residual;
    }

    int64_t weights() const { return problem_.groups * columns_.taps * k_; }

    static int64_t aligned(int64_t elements) { return ceil_div<int64_t>(elements * kSize, 256) * 256; }

    // Filters that are summed up before they are rounded.
    int64_t sums() const { return kWidened && problem_.pass == Pass::grad_weight ? k_ * columns_.taps : 0; }

    // The workspace: the matrix, then the copy of the output, the filters' sums, and what the GEMM wants.
    int64_t bytes_before_output() const { return aligned(main_.images * main_.rows * columns_.taps); }
    int64_t bytes_before_sums() const {
        return bytes_before_output() + (kWidened ? aligned(main_.images * main_.rows * k_) : 0);
    }
    int64_t bytes_before_gemm() const { return bytes_before_sums() + aligned(sums()); }

    // Pieces of whole images, or of rows of one where grad_input does not need all of them.
    void share(int64_t limit) {
        const int64_t row_bytes = std::max<int64_t>((columns_.taps + (kWidened ? k_ : 0)) * kSize, 1);
        limit = std::max<int64_t>(limit - sums() * kSize, 0);
        const int64_t rows_there = std::max<int64_t>(limit / 4 * 3 / row_bytes, 1);
        const int64_t image_rows = std::max<int64_t>(columns_.image_rows, 1), images = std::max<int64_t>(images_, 1);
        main_.images = std::clamp<int64_t>(rows_there / image_rows, 1, images);
        if (problem_.pass == Pass::grad_weight) main_.images = 1;  // the GEMM sums over the rows of one
        main_.rows = problem_.pass == Pass::grad_input ? image_rows : std::min(rows_there, image_rows);
        last_.images = images % main_.images ? images % main_.images : main_.images;
        last_.rows = image_rows % main_.rows ? image_rows % main_.rows : main_.rows;
        main_.plan = gemm(main_, limit / 4);
        last_.plan = gemm(last_, limit / 4);
    }

    std::unique_ptr<GemmPlan> gemm(const GemmOfRows& piece, int64_t limit) const {
        const int64_t taps = columns_.taps, rows = std::min(piece.rows, columns_.image_rows);
        const bool fast = columns_.taps_fastest;
        const MatrixStrides matrix{rows * taps, fast ? taps : 1, fast ? 1 : rows};
        const Strides &y = problem_.output, &w = problem_.weight, &r = problem_.residual;
        const bool k_fastest = y.c == 1;
        const MatrixStrides output = kWidened ? MatrixStrides{rows * k_, k_fastest ? k_ : 1, k_fastest ? 1 : rows}
                                              : MatrixStrides{y.n, y.w, y.c};
        const MatrixStrides residual{r.n, r.w, r.c};
        const DType dtype = kWidened ? DType::f32 : problem_.dtype;
        const int64_t images = std::min(piece.images, images_);
        GemmProblem g{dtype,
                      images,
                      rows,
                      k_,
                      taps,
                      matrix,
                      {0, k_, 1},
                      output,
                      residual,
                      problem_.bias,
                      problem_.has_residual,
                      problem_.relu};
        if (problem_.pass == Pass::grad_input)
            g = {dtype, images, rows, taps, k_, output, {0, 1, k_}, matrix, {}, false, false, false};
        if (problem_.pass == Pass::grad_weight) {
            const MatrixStrides weight{0, kWidened ? taps : w.n, 1};
            g = {dtype,
                 1,
                 k_,
                 taps,
                 images == 0 ? 0 : rows,
                 {0, output.column, output.row},
                 {0, matrix.row, matrix.column},
                 weight,
                 weight,
                 false,
                 true,
                 false};
        }
        return std::unique_ptr<GemmPlan>(plan_gemm(g, limit));
    }

    void run_piece(const ConvArguments& a, int64_t group, int64_t image, int64_t row, bool first, Stream stream) const {
        Columns<M> p = columns_;
        char* const workspace = static_cast<char*>(a.workspace);
        p.matrix = reinterpret_cast<M*>(workspace);
        p.first_image = image;
        p.first_row = row;
        p.images = std::min(main_.images, images_ - image);
        p.rows = std::min(main_.rows, columns_.image_rows - row);
        const bool main = p.images == main_.images && p.rows == main_.rows;
        const GemmPlan& gemm = *(main ? main_ : last_).plan;
        const Strides &x = problem_.input, &y = problem_.output;
        T* const output = static_cast<T*>(a.output) + image * y.n + row * y.w + group * k_ * y.c;
        T* const input = static_cast<T*>(a.input) + group * p.channels * x.c;
        const void* weight = static_cast<const M*>(a.weight) + group * p.taps * k_;  // prepared
        const void* gradients = output;
        if constexpr (kWidened) {
            const OutputRows<M> rows{reinterpret_cast<M*>(workspace + bytes_before_output()), y.c == 1, p.images,
                                     p.rows, k_};
            if (rows.count() > 0)
                launch(widen_output<T, M>, dim3(blocks_of(rows.count())), kThreads, 0, stream, rows,
                       static_cast<const T*>(output), y);
            gradients = rows.data;
        }
        GemmArguments g{p.matrix, weight, output, nullptr, nullptr, 1, 1, workspace + bytes_before_gemm(), false};
        if (problem_.pass == Pass::grad_input) {
            g.a = gradients;
            g.out = p.matrix;
            gemm.run(g, stream);
            add(a, p, static_cast<int>(group), stream);
            return;
        }
        if (p.count() > 0)
            launch(gather_columns<T, M>, dim3(blocks_of(p.count())), kThreads, 0, stream, p,
                   static_cast<const T*>(input), x);
        if (problem_.pass == Pass::grad_weight) {
            T* const filters = static_cast<T*>(a.weight) + group * k_ * problem_.weight.n;
            g.a = gradients;
            g.b = p.matrix;
            g.out = kWidened ? static_cast<void*>(workspace + bytes_before_sums()) : filters;
            g.residual = g.out;
            g.beta = first ? 0 : 1;
        } else {
            const Strides& r = problem_.residual;
            const auto* residual = static_cast<const T*>(a.residual);
            if (problem_.bias) g.bias = static_cast<const T*>(a.bias) + group * k_;
            if (problem_.has_residual) g.residual = residual + image * r.n + row * r.w + group * k_ * r.c;
        }
        gemm.run(g, stream);
    }

    // Once the sums of a group are there.
    void round(const ConvArguments& a, int64_t group, Stream stream) const {
        const auto* from = reinterpret_cast<const M*>(static_cast<char*>(a.workspace) + bytes_before_sums());
        launch(round_filters<T, M>, dim3(blocks_of(sums())), kThreads, 0, stream, from,
               static_cast<T*>(a.weight) + group * k_ * problem_.weight.n, sums(), columns_.taps, problem_.weight.n);
    }

    void add(const ConvArguments& a, const Columns<M>& p, int group, Stream stream) const {
        const int64_t elements = p.images * p.channels * problem_.size.count();
        if (elements == 0) return;
        const InputEpilogue<T> epilogue{static_cast<T*>(a.input),
                                        problem_.input,
                                        static_cast<const T*>(problem_.bias ? a.bias : nullptr),
                                        static_cast<const T*>(problem_.has_residual ? a.residual : nullptr),
                                        problem_.residual,
                                        problem_.relu};
        launch(add_columns<T, M>, dim3(blocks_of(elements)), kThreads, 0, stream, p, epilogue, group * p.channels);
    }

    ConvProblem problem_;
    int64_t k_, images_;
    Columns<M> columns_{};
    GemmOfRows main_, last_;
};

template <class T>
ConvPlan* plan(const ConvProblem& problem, int64_t workspace_limit) {
    if (problem.pass == Pass::forward) return new Im2col<T, T>(problem, workspace_limit);
    return new Im2col<T, accumulator_t<T> >(problem, workspace_limit);
}

ConvPlan* plan_im2col(const ConvProblem& problem, int64_t workspace_limit) {
    return of_dtype(problem.dtype, [&]<class T>() -> ConvPlan* { return plan<T>(problem, workspace_limit); });
}

}  // namespace

PYCV_KERNEL("conv", "im2col", plan_im2col);

}  // namespace pycv::cuda
