// local_response_norm: y[c] = x[c] * s[c]^-beta, s[c] = k + alpha / size * sum of x[j]^2 over the `size` channels
// c - size/2 <= j <= c + (size-1)/2 that exist. Its gradient:
//     grad_input[c] = g[c] * s[c]^-beta - 2 alpha beta / size * x[c] * sum over the j whose sums contain c of
//                     g[j] * x[j] * s[j]^(-beta-1)
//
// A block takes 32 positions of 32 channels, and what the windows of these reach beyond them. Squares lie in shared
// memory, a row per channel, where the sums are taken anew for each channel: `size` additions, and no cancellation. The
// gradient keeps the terms of its second sum in further rows.
// 8 (forward) or 12 (gradient) bytes per fp32 element, and (size - 1) / 32 of the reads once more (twice that in the
// gradient), mostly from cache; about size + 20 operations, three times that in the gradient: bound by memory
// bandwidth.
// Tuned: no kernel of this file may spill registers.
#include "dtypes.h"
#include "norm.h"

namespace pycv::cuda {
namespace {

constexpr int kTile = 32;          // positions of a block, and channels
constexpr int kPitch = kTile + 1;  // rows of shared memory begin in different banks

__device__ __forceinline__ float square_root(float s) { return sqrtf(s); }
__device__ __forceinline__ double square_root(double s) { return sqrt(s); }
__device__ __forceinline__ float power(float s, float exponent) { return powf(s, exponent); }
__device__ __forceinline__ double power(double s, double exponent) { return pow(s, exponent); }

template <class A>
struct LrnScalars {
    A k, factor, beta, slope;  // factor: alpha / size, slope: 2 alpha beta / size

    // s^-beta
    __device__ __forceinline__ A negative_power(A s) const {
        if (beta != A(0.75)) return power(s, -beta);
        const A root = square_root(s);
        return 1 / (root * square_root(root));
    }
};

// How the tensors are cut, how far windows reach, and where everything lies.
struct LrnTiles {
    int64_t channels, positions, channel_tiles, position_tiles, blocks;
    int before, after;  // of a channel, the others in its sum
    bool pixels;
    NormStrides x, y;

    explicit LrnTiles(const NormProblem& p)
        : channels(p.c),
          positions(p.size.count()),
          channel_tiles(ceil_div<int64_t>(p.c, kTile)),
          position_tiles(ceil_div<int64_t>(positions, kTile)),
          blocks(p.n * channel_tiles * position_tiles),
          before(static_cast<int>(p.window / 2)),
          after(static_cast<int>((p.window - 1) / 2)),
          pixels(norm_pixels(p, NormStrides(p.input), NormStrides(p.output))),
          x(p.input),
          y(p.output) {}

    // Rows of shared memory: squares, terms of the gradient's sum.
    __host__ __device__ int square_rows(bool gradient) const { return kTile + (gradient ? 2 : 1) * (before + after); }
    __host__ __device__ int term_rows() const { return kTile + before + after; }
};

// The tile of this block.
struct LrnTile {
    const LrnTiles& tiles;
    int64_t n, first_channel, first_position;

    __device__ __forceinline__ explicit LrnTile(const LrnTiles& t) : tiles(t) {
        const unsigned across = static_cast<unsigned>(t.position_tiles), down = static_cast<unsigned>(t.channel_tiles);
        const unsigned rows = blockIdx.x / across;
        first_position = static_cast<int64_t>(blockIdx.x % across) * kTile;
        first_channel = static_cast<int64_t>(rows % down) * kTile;
        n = rows / down;
    }

    // Calls body(row, place, channel, position, exists) for `count` rows of channels from `first` on, neighbouring
    // threads along what lies side by side.
    template <class Body>
    __device__ __forceinline__ void for_rows(int64_t first, int count, const Body& body) const {
        const int outer = tiles.pixels ? kTile : count, inner = tiles.pixels ? count : kTile;
        for (int i = warp_index(); i < outer; i += kNormThreads / warp_size)
            for (int j = lane_index(); j < inner; j += warp_size) {
                const int row = tiles.pixels ? j : i, place = tiles.pixels ? i : j;
                const int64_t channel = first + row, position = first_position + place;
                body(row, place, channel, position,
                     channel >= 0 && channel < tiles.channels && position < tiles.positions);
            }
    }

    template <class T>
    __device__ __forceinline__ accumulator_t<T> load(const T* from, const NormStrides& strides, int64_t channel,
                                                     int64_t position) const {
        return to_accumulator(__ldg(from + strides.at(n, channel, position)));
    }
};

// Squares of the channels from `first` on.
template <class T>
__device__ __forceinline__ void fill_squares(const LrnTile& tile, const T* x, int64_t first, int count,
                                             accumulator_t<T>* squares) {
    tile.for_rows(first, count, [&](int row, int place, int64_t channel, int64_t position, bool exists) {
        const accumulator_t<T> value = exists ? tile.load(x, tile.tiles.x, channel, position) : 0;
        squares[row * kPitch + place] = value * value;
    });
}

// The sum of rows first ... last at one place.
template <class A>
__device__ __forceinline__ A column_sum(const A* rows, int first, int last, int place) {
    A sum = 0;
    for (int row = first; row <= last; ++row) sum += rows[row * kPitch + place];
    return sum;
}

template <class T>
__global__ void forward_kernel(LrnTiles tiles, LrnScalars<accumulator_t<T>> scalars, const T* x, T* y) {
    using A = accumulator_t<T>;
    PYCV_SHARED(A, squares);
    const LrnTile tile(tiles);
    const int reach = tiles.before + tiles.after;
    fill_squares(tile, x, tile.first_channel - tiles.before, tiles.square_rows(false), squares);
    __syncthreads();
    tile.for_rows(tile.first_channel, kTile, [&](int row, int place, int64_t channel, int64_t position, bool exists) {
        if (!exists) return;
        const A s = scalars.k + scalars.factor * column_sum(squares, row, row + reach, place);
        const A value = tile.load(x, tiles.x, channel, position) * scalars.negative_power(s);
        y[tiles.y.at(tile.n, channel, position)] = from_accumulator<T>(value);
    });
}

template <class T>
__global__ void gradient_kernel(LrnTiles tiles, LrnScalars<accumulator_t<T>> scalars, const T* x, const T* grad_output,
                                T* grad_input) {
    using A = accumulator_t<T>;
    PYCV_SHARED(A, squares);
    A* const terms = squares + tiles.square_rows(true) * kPitch;
    const LrnTile tile(tiles);
    const int reach = tiles.before + tiles.after;
    fill_squares(tile, x, tile.first_channel - reach, tiles.square_rows(true), squares);
    __syncthreads();
    // The sum of channel j reaches c where j lies in c - after ... c + before: the mirrored window.
    tile.for_rows(tile.first_channel - tiles.after, tiles.term_rows(),
                  [&](int row, int place, int64_t channel, int64_t position, bool exists) {
                      A term = 0;
                      if (exists) {
                          const A s = scalars.k + scalars.factor * column_sum(squares, row, row + reach, place);
                          term = tile.load(grad_output, tiles.y, channel, position) *
                                 tile.load(x, tiles.x, channel, position) * scalars.negative_power(s) / s;
                      }
                      terms[row * kPitch + place] = term;
                  });
    __syncthreads();
    tile.for_rows(tile.first_channel, kTile, [&](int row, int place, int64_t channel, int64_t position, bool exists) {
        if (!exists) return;
        const int own = row + tiles.after;
        const A s = scalars.k + scalars.factor * column_sum(squares, own, own + reach, place);
        const A through = column_sum(terms, row, row + reach, place);
        A value = tile.load(grad_output, tiles.y, channel, position) * scalars.negative_power(s);
        if (scalars.beta != 0)  // else s is no part of it, even where it is 0
            value -= scalars.slope * tile.load(x, tiles.x, channel, position) * through;
        grad_input[tiles.x.at(tile.n, channel, position)] = from_accumulator<T>(value);
    });
}

template <class T>
class LocalResponseNorm final : public NormPlan {
public:
    explicit LocalResponseNorm(const NormProblem& problem)
        : window_(static_cast<double>(problem.window)), pass_(problem.pass), tiles_(problem) {}

    int64_t workspace_bytes() const override { return 0; }

    void run(const NormArguments& a, Stream stream) const override {
        if (tiles_.blocks == 0) return;
        const LrnScalars<A> scalars{static_cast<A>(a.k), static_cast<A>(a.alpha / window_), static_cast<A>(a.beta),
                                    static_cast<A>(2 * a.alpha * a.beta / window_)};
        const bool gradient = pass_ == Pass::grad_input;
        const int rows = tiles_.square_rows(gradient) + (gradient ? tiles_.term_rows() : 0);
        const std::size_t shared_bytes = sizeof(A) * rows * kPitch;
        const dim3 grid(static_cast<unsigned>(tiles_.blocks));
        const T* x = static_cast<const T*>(a.input);
        T* out = static_cast<T*>(a.output);
        if (gradient)
            launch(gradient_kernel<T>, grid, kNormThreads, shared_bytes, stream, tiles_, scalars, x,
                   static_cast<const T*>(a.grad_output), out);
        else
            launch(forward_kernel<T>, grid, kNormThreads, shared_bytes, stream, tiles_, scalars, x, out);
    }

private:
    using A = accumulator_t<T>;

    double window_;
    Pass pass_;
    LrnTiles tiles_;
};

NormPlan* plan_local_response_norm(const NormProblem& problem) {
    return of_dtype(problem.dtype, [&]<class T>() -> NormPlan* { return new LocalResponseNorm<T>(problem); });
}

}  // namespace

PYCV_KERNEL("local_response_norm", "direct", plan_local_response_norm);

}  // namespace pycv::cuda
