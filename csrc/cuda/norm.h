// What the kernels that reduce over a channel share: who goes through which of its elements, and sums over them.
//
// A tensor is (n, channel, position): the spatial axes of nchw and nhwc are one, however many there are. In `pixels`
// (nhwc) a block is `across` threads along vectors of V channels and the others down the positions; in planes (nchw)
// all threads go along the positions of one channel, in vectors where rows of V are aligned. What a channel has is cut
// into chunks, one block each.
//
// Sums are taken in two launches, deterministically: each thread in the accumulator's type over the elements of its
// chunk, the threads of a block as a tree in shared memory, then the chunks of a channel by one warp in double.
#pragma once

#include <algorithm>

#include "device/warp.h"
#include "division.h"
#include "elements.h"
#include "integers.h"
#include "plan.h"

namespace pycv::cuda {

inline constexpr int kNormThreads = 256;
inline constexpr int kNormBlocks = 2048;  // enough for every multiprocessor to have several
inline constexpr int kNormChunks = 128;   // of a channel, for one warp to add up
inline constexpr int64_t kMostChunks = 65535;

// Elements between neighbouring images, channels, positions.
struct NormStrides {
    int64_t n, c, p;

    NormStrides(const Strides& s) : n(s.n), c(s.c), p(s.w) {}
    __device__ __forceinline__ int64_t at(int64_t image, int64_t channel, int64_t position) const {
        return image * n + channel * c + position * p;
    }
    bool along(bool pixels) const { return (pixels ? c : p) == 1; }
    // Whether vectors start at multiples of their size, the neighbours' one after the other.
    bool whole(bool pixels, int vector) const {
        return along(pixels) && n % vector == 0 && (pixels ? p : c) % vector == 0;
    }
};

// The channels side by side in each of these tensors.
template <class... Tensor>
bool norm_pixels(const NormProblem& p, const Tensor&... strides) {
    return p.c > 1 && ((strides.c == 1) && ...);
}

class ChannelTiles {
public:
    // At most `most` chunks, as few as leave `rows` steps to every thread.
    ChannelTiles(const NormProblem& p, bool pixels, int vector, int64_t rows, int64_t most)
        : pixels_(pixels),
          vector_(vector),
          channels_(p.c),
          across_(1),
          units_(p.n * p.size.count() / (pixels ? 1 : vector)),
          by_image_(std::max<int64_t>(1, p.size.count() / (pixels ? 1 : vector)), units_) {
        const int64_t lanes = pixels ? ceil_div<int64_t>(channels_, vector) : 1;
        while (across_ < warp_size && across_ < lanes) across_ *= 2;
        tiles_ = pixels ? ceil_div<int64_t>(lanes, across_) : channels_;
        const int64_t block_rows = kNormThreads / across_;
        chunks_ = std::clamp<int64_t>(ceil_div(units_, block_rows * rows), 1, most);
        chunk_ = ceil_div(units_, chunks_);
    }

    dim3 grid() const { return dim3(static_cast<unsigned>(tiles_), static_cast<unsigned>(chunks_)); }
    dim3 block() const { return dim3(across_, kNormThreads / across_); }
    __host__ __device__ int64_t chunks() const { return chunks_; }
    __host__ __device__ int64_t channels() const { return channels_; }
    __device__ __forceinline__ bool pixels() const { return pixels_; }

    // The first channel of this thread; it may lie beyond the last one.
    __device__ __forceinline__ int64_t channel() const {
        const int64_t tile = blockIdx.x;
        return pixels_ ? (tile * across_ + threadIdx.x) * vector_ : tile;
    }

    // Calls body(image, position) for the first of each V elements of this thread.
    template <class Body>
    __device__ __forceinline__ void for_rows(const Body& body) const {
        const int64_t first = blockIdx.y * chunk_, end = min(first + chunk_, units_);
#pragma unroll 4
        for (int64_t unit = first + threadIdx.y; unit < end; unit += blockDim.y) {
            int64_t image = unit;
            const int64_t position = by_image_.split(image);
            body(image, pixels_ ? position : position * vector_);
        }
    }

private:
    bool pixels_;
    int vector_;
    int64_t channels_;
    int across_;              // threads along the channels
    int64_t units_, chunk_;   // vectors (planes) or positions (pixels): of a channel, of a chunk
    int64_t chunks_, tiles_;  // of a channel; of the channels
    Divider by_image_;
};

inline ChannelTiles sum_tiles(const NormProblem& p, bool pixels, int vector) {
    const int64_t channel_blocks = std::max<int64_t>(1, pixels ? p.c / (warp_size * vector) : p.c);
    return ChannelTiles(p, pixels, vector, 4, std::clamp<int64_t>(kNormBlocks / channel_blocks, 1, kNormChunks));
}
inline ChannelTiles element_tiles(const NormProblem& p, bool pixels, int vector) {
    return ChannelTiles(p, pixels, vector, 4, kMostChunks);
}

// One value per channel for each of V elements that start at channel c.
template <class T, int V>
__device__ __forceinline__ Elements<T, V> per_channel(const accumulator_t<T>* values, int64_t c, bool pixels) {
    Elements<T, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.of[v] = values[pixels ? c + v : c];
    return result;
}

// partial[k][channel][chunk] = sum of term k over a chunk of a channel. A Term has `sums`, how many, channel<V>(c,
// pixels), what it needs to know of V channels, and add(channel, image, c, position, sums).
template <class T, int V, class Term>
__global__ void channel_sums_kernel(ChannelTiles tiles, Term term, accumulator_t<T>* partial) {
    constexpr int K = Term::sums;
    __shared__ accumulator_t<T> shared[K][V][kNormThreads];
    accumulator_t<T> sums[K][V] = {};
    const int64_t c = tiles.channel();
    if (c < tiles.channels()) {
        const auto channel = term.template channel<V>(c, tiles.pixels());
        tiles.for_rows([&](int64_t n, int64_t p) { term.add(channel, n, c, p, sums); });
    }
    const int columns = tiles.pixels() ? V : 1;
    const int thread = thread_rank();
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
        for (int v = 0; v < V; ++v) {
            if (v > 0 && !tiles.pixels()) sums[k][0] += sums[k][v];
        }
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
        for (int v = 0; v < V; ++v) shared[k][v][thread] = sums[k][v];
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (static_cast<int>(threadIdx.y) < half)
            for (int k = 0; k < K; ++k)
                for (int v = 0; v < columns; ++v) shared[k][v][thread] += shared[k][v][thread + half * blockDim.x];
        __syncthreads();
    }
    if (threadIdx.y > 0 || c >= tiles.channels()) return;
    for (int k = 0; k < K; ++k)
        for (int v = 0; v < columns; ++v)
            partial[(k * tiles.channels() + c + v) * tiles.chunks() + blockIdx.y] = shared[k][v][thread];
}

// What this warp's channel adds up to, the same in every lane.
template <int K, class A>
__device__ __forceinline__ void channel_totals(const A* partial, int64_t c, int64_t channels, int64_t chunks,
                                               double (&totals)[K]) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
        double sum = 0;
        for (int64_t i = lane_index(); i < chunks; i += warp_size) sum += partial[(k * channels + c) * chunks + i];
        totals[k] = warp_sum(sum);
    }
}

// A warp for every channel.
inline constexpr int kChannelsPerBlock = kNormThreads / warp_size;
inline dim3 totals_grid(int64_t channels) {
    return dim3(static_cast<unsigned>(ceil_div<int64_t>(channels, kChannelsPerBlock)));
}
__device__ __forceinline__ int64_t channel_of_warp() {
    return static_cast<int64_t>(blockIdx.x) * kChannelsPerBlock + warp_index();
}

}  // namespace pycv::cuda
