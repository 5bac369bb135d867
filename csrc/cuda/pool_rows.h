// Pooling of rows in vectors: windows along the width that the compiler knows, over rows without gaps (nchw).
//
// A thread computes V neighbouring outputs (16 bytes), in the gradient the V * stride inputs that they begin at, for
// max of 2 rows. It loads the segment of a row that these windows cover once, by vectors, and takes every element of
// every window from its registers, which is why filter, stride and padding along the width are compile-time constants.
// The other axes are as in pool.h. What a segment has before and behind the row is filled up with what changes no fold.
//
// Accesses of global memory per output (forward, offsets; all in fp32 / bf16), from the same bytes of memory:
//                      bytes         scalar, by columns      here
//     2x2 stride 2     21 / 11       6 loads and stores      1.5 / 0.75
//     3x3 stride 2     21 / 11       8.8                     2.8 / 1.4, of which 0.8 / 0.4 edges of segments
// Gradient of max, per input: 3x3 at stride 2 takes 3.3 scalar ones, here 0.75 / 0.38.
// A warp's scalar load at stride 2 uses half of each sector; a vector load uses all of it. Rows that windows of several
// outputs share come out of L1: two rows of outputs to a thread would save 0.4 accesses, for 40 registers.
//
// Rows begin at multiples of 8 bytes at least, or the plan takes the threads of pool.h; those that begin between
// multiples of 16 are moved in halves.
#pragma once

#include "pool.h"

namespace pycv::cuda {

// The windows along the width.
template <int Filter, int Stride, int Padding>
struct RowWindow {
    static constexpr int filter = Filter, stride = Stride, padding = Padding;
};

// What the outputs of a thread, from output o on, have to do with inputs, from o * stride on.
template <class W, int V>
struct RowReach {
    static constexpr int inputs = V * W::stride;
    // Inputs begin ... end - 1 are in windows 0 ... V - 1.
    static constexpr int begin = -W::padding, end = (V - 1) * W::stride + W::filter - W::padding;
    // Windows first ... last cover inputs 0 ... inputs - 1.
    static constexpr int first = -((W::filter - 1 - W::padding) / W::stride);
    static constexpr int last = V - 1 + (W::stride - 1 + W::padding) / W::stride;
};

// Calls use(window) if the windows of this axis are among those that are compiled.
template <class Use>
bool use_row_window(const PoolAxis& axis, const Use& use) {
    if (axis.adaptive || axis.all_cover || axis.dilation != 1) return false;
    const auto try_one = [&](auto window) {
        using W = decltype(window);
        if (axis.filter != W::filter || axis.stride != W::stride || axis.padding != W::padding) return false;
        use(window);
        return true;
    };
    return try_one(RowWindow<2, 2, 0>{}) || try_one(RowWindow<3, 2, 0>{}) || try_one(RowWindow<3, 2, 1>{}) ||
           try_one(RowWindow<3, 1, 1>{});
}

// Whether rows lie without gaps, and those of the larger tensor at multiples of 8 bytes, with a vector of outputs or
// more in each.
inline bool pool_rows(const PoolProblem& p, int vector, int64_t element_bytes, const void* input) {
    const int64_t N = 8 / element_bytes;
    const Strides& s = p.input;
    const bool whole = s.n % N == 0 && s.c % N == 0 && s.d % N == 0 && s.h % N == 0;
    return s.w == 1 && p.output.w == 1 && whole && reinterpret_cast<uintptr_t>(input) % 8 == 0 && p.out.w >= vector;
}

__device__ __forceinline__ int row_value(uint8_t name) { return name; }
__device__ __forceinline__ int row_value(int64_t name) { return static_cast<int>(name); }
template <class T>
__device__ __forceinline__ accumulator_t<T> row_value(T element) {
    return to_accumulator(element);
}

// Whether V elements at an address can be moved in accesses of so many bytes.
template <class T, int V, int Bytes>
__device__ __forceinline__ bool moves_by(const T* address) {
    return Bytes >= 4 && V * static_cast<int>(sizeof(T)) % Bytes == 0 &&
           reinterpret_cast<uintptr_t>(address) % Bytes == 0;
}

template <int V, int Bytes, class T, class Value>
__device__ __forceinline__ void load_row_by(const T* from, Value* to) {
    load_vectors_read_only<Bytes / static_cast<int>(sizeof(T)), V>(from, to, [](T value) { return row_value(value); });
}

template <int V, int Bytes, class T>
__device__ __forceinline__ void store_row_by(T* to, const T (&values)[V]) {
    store_vectors<Bytes / static_cast<int>(sizeof(T))>(to, values);
}

// The widest access for V elements of T, and what is tried next.
template <class T, int V>
inline constexpr int kWidest = V * sizeof(T) < 16 ? V * sizeof(T) : 16;
template <class T, int V>
inline constexpr int kHalf = kWidest<T, V> == 16 && sizeof(T) <= 8 ? 8 : kWidest<T, V>;

// Elements First ... Last of a row, counted from `at`, where its vectors begin.
template <int First, int Last, int V, class Value>
struct RowSegment {
    Value of[Last - First + 1];

    // `outside` stands for what is before the row or from `size` on.
    template <class T>
    __device__ __forceinline__ void load(const T* row, int at, int size, Value outside) {
        constexpr int kBegin = First < 0 ? -ceil_div(-First, V) * V : First / V * V;
#pragma unroll
        for (int begin = kBegin; begin <= Last; begin += V) {
            if (begin >= First && begin + V - 1 <= Last && load_whole(row, at + begin, size, begin - First)) continue;
#pragma unroll
            for (int v = 0; v < V; ++v) {
                if (begin + v < First || begin + v > Last) continue;
                const int position = at + begin + v;
                of[begin + v - First] = static_cast<unsigned>(position) < static_cast<unsigned>(size)
                                            ? row_value(__ldg(row + position))
                                            : outside;
            }
        }
    }

private:
    // V of them in vectors, if all are there and an access of several may begin at the first.
    template <class T>
    __device__ __forceinline__ bool load_whole(const T* row, int position, int size, int to) {
        if (position < 0 || position + V > size) return false;
        if constexpr (V * sizeof(T) >= 4) {
            if (moves_by<T, V, kWidest<T, V> >(row + position)) {
                load_row_by<V, kWidest<T, V> >(row + position, of + to);
                return true;
            }
            if (moves_by<T, V, kHalf<T, V> >(row + position)) {
                load_row_by<V, kHalf<T, V> >(row + position, of + to);
                return true;
            }
        }
        return false;
    }
};

// Writes the first `count` of V elements.
template <int V, class T>
__device__ __forceinline__ void store_row(T* to, const T (&values)[V], int count) {
    if constexpr (V * sizeof(T) >= 4) {
        if (count >= V && moves_by<T, V, kWidest<T, V> >(to)) return store_row_by<V, kWidest<T, V> >(to, values);
        if (count >= V && moves_by<T, V, kHalf<T, V> >(to)) return store_row_by<V, kHalf<T, V> >(to, values);
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
        if (v < count) to[v] = values[v];
}

// V sums or elements as they are stored.
template <int V, class T>
__device__ __forceinline__ void store_row_of(T* to, const accumulator_t<T>* values, int count) {
    T stored[V];
#pragma unroll
    for (int v = 0; v < V; ++v) stored[v] = from_accumulator<T>(values[v]);
    store_row(to, stored, count);
}

// As fold_windows, for the V outputs from at.w on. Names are those of the first of them; nothing of the others' that is
// before the row is left out of the count. Fold::outside() is what changes no fold.
template <class W, int V, class T, class Fold>
__device__ __forceinline__ void fold_row_windows(const PoolWindows& g, const T* image, const PoolPlace& at,
                                                 const PoolNames& names, Fold (&folds)[1]) {
    using Reach = RowReach<W, V>;
    fold_rows(g, at, names, folds, [&](int i, int j, int name) {
        RowSegment<Reach::begin, Reach::end - 1, V, accumulator_t<T> > segment;
        segment.load(image + pool_offset(g.input, i, j, 0), at.w * W::stride, g.w.size, Fold::outside());
        Fold along;
        along.start();
#pragma unroll
        for (int t = 0; t < W::filter; ++t) {
            Elements<T, V> elements;
#pragma unroll
            for (int v = 0; v < V; ++v) elements.of[v] = segment.of[v * W::stride + t];
            along.add(elements, name + t);
        }
        return along;
    });
}

}  // namespace pycv::cuda
