// Tiles that no copy of boxes can bring, for the rings of group_pipeline.h: all threads of the producer load elements,
// wherever they lie, and write them where products of warp groups read them.
//
// The tile is that of boxes along k: rows of 128 bytes of k, swizzled. A thread loads the elements of a vector of 16
// bytes of k one by one, and stores it at once. Where k runs fastest in memory, neighbouring lanes have neighbouring
// vectors of a line; elsewhere the same vector of neighbouring lines: so what lies along the lines, which tf32 cannot
// be multiplied from, is transposed in registers. Both ways a load reads whole sectors between its warp and the next
// few loads, and eight lanes store to all banks. tf32 is rounded here; tensor maps do that by themselves.
//
// What it costs, counted, not measured: a step of a wide tile, both operands loaded, takes a thread 96 loads and 24
// stores of tf32, 192 and 24 of 16 bits, while the tensor cores multiply for 1024 cycles. 32 loads are under way at a
// time, so that with some 300 cycles to L2 and 128 of issue a step takes 3 * 430 (6 * 430) cycles, and a third of that
// where only the 128 rows of a are loaded this way. A copy with padding instead would move 8 (tf32) or 4 bytes of
// memory for each element, once more read, and needs as much workspace; cp.async has no copies of 2 bytes, and none
// that rounds.
#pragma once

#include "group_pipeline.h"

namespace pycv::cuda {

// Groups (group_pipeline.h) whose producer is a whole warp group, with registers for what it loads.
template <class Groups>
struct Gathering : Groups {
    static constexpr int producers = warp_group_size;
    static constexpr int arrivals = 1 + producers / warp_size;  // of the thread that copies boxes, and of each warp
    // What the sums of a wide tile leave.
    static constexpr int producer_registers = Groups::columns > 128 ? 72 : 120;
    static constexpr int consumer_registers = Groups::columns > 128 ? 216 : 192;
    static_assert(producer_registers + Groups::groups * consumer_registers ==
                  Groups::producer_registers + Groups::groups * Groups::consumer_registers);
};

constexpr int kUnderWay = 32;  // elements that a thread loads before it needs the first one

// By all producers: the tile of so many lines whose vectors load(vector, line, k) gets, k within the tile.
template <int Lines, bool AlongK, class T, class Load>
__device__ __forceinline__ void gather_tile(unsigned char* tile, Load load) {
    constexpr int N = widest_vector<T>, together = kUnderWay / N;
    constexpr int of_line = 8, lines_at_once = warp_group_size / of_line;
    const auto thread = static_cast<int>(threadIdx.x);
#pragma unroll 1
    for (int first = 0; first < Lines * of_line / warp_group_size; first += together) {
        Vector<T, N> vectors[together];
        int places[together];
#pragma unroll
        for (int i = 0; i < together; ++i) {
            const int at = first + i;
            const int line = AlongK ? thread / of_line + at * lines_at_once : thread + at / of_line * warp_group_size;
            const int vector = AlongK ? thread % of_line : at % of_line;
            load(vectors[i], line, vector * N);
            places[i] = swizzled<Swizzle::bytes_128>(line * 128 + vector * 16);
        }
#pragma unroll
        for (int i = 0; i < together; ++i) {
            if constexpr (std::is_same_v<T, float>)
#pragma unroll
                for (int e = 0; e < N; ++e) vectors[i][e] = __uint_as_float(to_tf32_even(vectors[i][e]));
            store_vector(reinterpret_cast<T*>(tile + places[i]), vectors[i]);
        }
    }
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
            gather_tile<Lines, true, T>(tile, [&](auto& vector, int line, int k) { load(vector, line, k, 1); });
        else
            gather_tile<Lines, false, T>(tile, [&](auto& vector, int line, int k) { load(vector, line, k, k_stride); });
    }

private:
    template <int N>
    __device__ __forceinline__ void load(Vector<T, N>& vector, int line, int k, int64_t step) const {
        const T* const first = from + line * line_stride + k * step;
        const int valid = line < lines ? depth - k : 0;
#pragma unroll
        for (int e = 0; e < N; ++e) vector[e] = e < valid ? first[e * step] : from_accumulator<T>(0);
    }
};

}  // namespace pycv::cuda
