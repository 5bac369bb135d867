// Tiles that no copy of boxes can bring, for the rings of group_pipeline.h: all threads of the producer load elements,
// wherever they lie, and write them where products of warp groups read them.
//
// The tile is that of boxes along k: rows of 128 bytes of k, swizzled. A thread loads the elements of a vector of 16
// bytes of k one by one, and stores it at once. Where k runs fastest in memory, neighbouring lanes have neighbouring
// vectors of a line; elsewhere the same vector of neighbouring lines: so what lies along the lines, which tf32 cannot
// be multiplied from, is transposed in registers. Both ways a load reads whole sectors between its warp and the next
// few loads, and eight lanes store to all banks. tf32 is rounded here; tensor maps do that by themselves.
//
// What it costs, counted, not measured. A step of a wide tile multiplies for 1024 cycles. Loading both operands takes a
// thread 96 loads and 24 stores in tf32, 192 and 24 in 16 bits, 32 of the loads under way at a time: with some 300
// cycles to L2 and 128 of issue that is 3 (6) times 430 cycles, a third of it for the 128 rows of a alone, two thirds
// for the 256 columns of b. So products wait for what is transposed or off alignment little in tf32, not at all for a
// in 16 bits, and hold the pace of two fifths for both. GEMM in 16 bits copies into its workspace first what is faster
// brought from there (gemm_wgmma_3_copies.h has that count). cp.async is no third way: it has no copies of 2 bytes, and
// rounds nothing to tf32.
#pragma once

#include "group_pipeline.h"

namespace pycv::cuda {

// Groups (group_pipeline.h) whose producer is a whole warp group, with registers for what it loads. Boxes: a thread of
// it copies some, too, and arrives to say how many bytes they bring.
template <class Groups, bool Boxes>
struct Gathering : Groups {
    static constexpr int producers = warp_group_size;
    static constexpr int arrivals = producers / warp_size + (Boxes ? 1 : 0);
    static constexpr int producer_registers = 88, consumer_registers = 208;
    static_assert(producer_registers + Groups::groups * consumer_registers ==
                  Groups::producer_registers + Groups::groups * Groups::consumer_registers);
};

constexpr int kUnderWay = 32;  // elements that a thread loads before it needs the first one

// Loads some vectors by load(vector, i), then stores them where place(i) says.
template <class T, class Load, class Place>
__device__ __forceinline__ void gather_vectors(unsigned char* tile, Load load, Place place) {
    constexpr int N = widest_vector<T>, count = kUnderWay / N;
    Vector<T, N> vectors[count];
#pragma unroll
    for (int i = 0; i < count; ++i) load(vectors[i], i);
#pragma unroll
    for (int i = 0; i < count; ++i) {
        if constexpr (std::is_same_v<T, float>)
#pragma unroll
            for (int e = 0; e < N; ++e) vectors[i][e] = __uint_as_float(to_tf32_even(vectors[i][e]));
        store_vector(reinterpret_cast<T*>(tile + swizzled<Swizzle::bytes_128>(place(i))), vectors[i]);
    }
}

// By all producers, a tile of so many lines: source(line) gives what loads vectors of it, (vector, k), k within the
// tile. Here neighbouring lanes have neighbouring lines, and the same k.
template <int Lines, class T, class Source>
__device__ __forceinline__ void gather_by_lines(unsigned char* tile, Source source) {
    constexpr int N = widest_vector<T>;
#pragma unroll 1
    for (int line = static_cast<int>(threadIdx.x); line < Lines; line += warp_group_size) {
        const auto load = source(line);
#pragma unroll 1
        for (int first = 0; first < 8; first += kUnderWay / N)
            gather_vectors<T>(
                tile, [&](auto& vector, int i) { load(vector, (first + i) * N); },
                [&](int i) { return line * 128 + (first + i) * 16; });
    }
}

// The same; here neighbouring lanes have neighbouring vectors of a line.
template <int Lines, class T, class Source>
__device__ __forceinline__ void gather_along_k(unsigned char* tile, Source source) {
    constexpr int N = widest_vector<T>, step = warp_group_size / 8;
    const int vector_of_line = static_cast<int>(threadIdx.x) % 8;
#pragma unroll 1
    for (int first = static_cast<int>(threadIdx.x) / 8; first < Lines; first += kUnderWay / N * step)
        gather_vectors<T>(
            tile, [&](auto& vector, int i) { source(first + i * step)(vector, vector_of_line * N); },
            [&](int i) { return (first + i * step) * 128 + vector_of_line * 16; });
}

// Each warp for itself, when it has written its part of a stage.
__device__ __forceinline__ void arrive_with_tiles(Barrier* full) {
    fence_async_copies();
    sync_warp();
    if (lane_index() == 0) barrier_arrive(full);
}

// The lines of a matrix from some line and k on.
template <class T>
struct GatheredLines {
    const T* from;
    int64_t line_stride, k_stride;
    int lines, depth;  // that there are, at most those of a tile

    template <int Lines>
    __device__ __forceinline__ void gather(unsigned char* tile) const {
        if (k_stride == 1)
            gather_along_k<Lines, T>(tile, [this](int line) { return loader(line, 1); });
        else
            gather_by_lines<Lines, T>(tile, [this](int line) { return loader(line, k_stride); });
    }

private:
    __device__ __forceinline__ auto loader(int line, int64_t step) const {
        return [first = from + line * line_stride, valid = line < lines ? depth : 0, step](auto& vector, int k) {
#pragma unroll
            for (int e = 0; e < widest_vector<T>; ++e)
                vector[e] = k + e < valid ? first[(k + e) * step] : from_accumulator<T>(0);
        };
    }
};

}  // namespace pycv::cuda
