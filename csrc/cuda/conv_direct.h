// What the direct kernels that gather share: a problem as they see it, vectors of channels, and the epilogue.
#pragma once

#include "conv_gather.h"
#include "conv_prologue.h"
#include "device/half.h"
#include "device/vector.h"

namespace pycv::cuda {

constexpr int kPositions = 4;  // of a thread

template <class T, int V>
constexpr int kPart = V < widest_vector<T> ? V : widest_vector<T>;

// V neighbours at an address that is aligned to as many of them as one access takes.
template <int V, class T>
__device__ __forceinline__ void load_values(accumulator_t<T>* values, const T* from) {
    constexpr int N = kPart<T, V>;
    if constexpr (N * sizeof(T) < 4) {
#pragma unroll
        for (int i = 0; i < V; ++i) values[i] = to_accumulator(__ldg(from + i));
    } else {
        load_vectors_read_only<N, V>(from, values, [](T element) { return to_accumulator(element); });
    }
}

template <class T>
struct DirectGather {
    Geometry geometry;
    int n, channels, source_channels;  // channels of a group
    int groups, group_pitch;           // channels of a group in the prepared weight
    const T* source;
    Strides source_strides;
    Prologue<T> prologue;  // forward
    const T* weight;
    T* computed;
    Strides computed_strides;
    const T* bias;  // null where there is none, as residual
    const T* residual;
    Strides residual_strides;
    bool relu;
    // The threads: units of V channels, slots of kPositions positions of the largest phase.
    bool units_fastest;
    int units;
    int64_t slots;
};

// Writes the sums of a thread at one position: `count` channels from `channel` on.
template <int V, class T>
__device__ __forceinline__ void write_channels(const DirectGather<T>& p, const Gather& g, const Digits& q, int channel,
                                               int count, const accumulator_t<T>* sums) {
    const int d = g.d.first + q.at[2] * g.d.step, h = g.h.first + q.at[1] * g.h.step,
              w = g.w.first + q.at[0] * g.w.step;
    const Strides &to = p.computed_strides, &from = p.residual_strides;
    T* out = p.computed + q.at[3] * to.n + offset_of(to, d, h, w) + channel * to.c;
    T values[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
        accumulator_t<T> value = sums[v];
        if (v < count) {
            if (p.bias) value += to_accumulator(p.bias[channel + v]);
            if (p.residual)
                value +=
                    to_accumulator(p.residual[q.at[3] * from.n + offset_of(from, d, h, w) + (channel + v) * from.c]);
        }
        values[v] = from_accumulator<T>(p.relu && value < 0 ? 0 : value);
    }
    constexpr int N = kPart<T, V>;
    if constexpr (N * sizeof(T) >= 4) {
        if (to.c == 1 && count == V && reinterpret_cast<uintptr_t>(out) % (N * sizeof(T)) == 0) {
            store_vectors<N>(out, values);
            return;
        }
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
        if (v < count) out[v * to.c] = values[v];
}

}  // namespace pycv::cuda
