// Sums over a channel that stay accurate, and the walk through its elements.
//
// The elements of one channel are runs of `length` positions a fixed step apart. A work item is either one
// channel, or, where channels are contiguous, a group of V vectors of them that lie side by side at every
// position. Sums are taken over chunks in the dtype, in several independent lanes, and chunks are added in double:
// an fp32 partial sum never covers more than 128 terms, and the result does not depend on the number of threads.
// Only for kernel files (ISA namespace).
#pragma once

#include <utility>

#include "parallel.h"
#include "plan.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

constexpr int64_t kChunk = 1024;       // positions per chunk of a single channel
constexpr int64_t kGroupChunk = 128;   // positions per chunk of a channel group
constexpr int64_t kNormGrain = 32768;  // elements that are worth another thread
constexpr int kMaxVectors = 4;         // of a channel group

// The positions (n, d, h, w) of tensors x and y, axes that are contiguous in both merged; innermost first.
struct Walk {
    struct Axis {
        int64_t extent, x, y;
    } axes[4];

    int64_t runs() const { return axes[1].extent * axes[2].extent * axes[3].extent; }
    int64_t length() const { return axes[0].extent; }
    int64_t positions() const { return runs() * length(); }
};

inline Walk walk(int64_t n, Spatial size, Strides x, Strides y) {
    const Walk::Axis all[4] = {{size.w, x.w, y.w}, {size.h, x.h, y.h}, {size.d, x.d, y.d}, {n, x.n, y.n}};
    Walk result{{{1, 1, 1}, {1, 0, 0}, {1, 0, 0}, {1, 0, 0}}};
    int last = -1;
    for (const Walk::Axis& axis : all) {
        if (axis.extent == 1) continue;
        Walk::Axis* inner = last < 0 ? nullptr : &result.axes[last];
        if (inner && inner->x * inner->extent == axis.x && inner->y * inner->extent == axis.y) {
            inner->extent *= axis.extent;
        } else {
            result.axes[++last] = axis;
        }
    }
    return result;
}

// Calls visit(x offset, y offset, count) for consecutive chunks of at most `limit` positions.
template <class Visit>
inline void for_chunks(const Walk& walk, int64_t limit, const Visit& visit) {
    const auto& [inner, a, b, c] = walk.axes;
    for (int64_t k = 0; k < c.extent; ++k)
        for (int64_t j = 0; j < b.extent; ++j)
            for (int64_t i = 0; i < a.extent; ++i) {
                const int64_t x = k * c.x + j * b.x + i * a.x;
                const int64_t y = k * c.y + j * b.y + i * a.y;
                for (int64_t p = 0; p < inner.extent; p += limit)
                    visit(x + p * inner.x, y + p * inner.y, inner.extent - p < limit ? inner.extent - p : limit);
            }
}

// How the channels are cut into work items: groups of `vectors` vectors, then single vectors, then single channels.
struct ChannelItems {
    int64_t channels;
    int vectors, lanes;  // vectors 0: every item is one channel
    int64_t wide, narrow;

    struct Item {
        int64_t channel;
        int vectors;
    };
    int64_t count() const { return wide + narrow + channels - lanes * (vectors * wide + narrow); }
    Item item(int64_t i) const {
        if (i < wide) return {i * vectors * lanes, vectors};
        if (i < wide + narrow) return {(wide * vectors + i - wide) * lanes, 1};
        return {(wide * vectors + narrow) * lanes + (i - wide - narrow), 0};
    }
};

inline ChannelItems channel_items(int64_t channels, bool contiguous, int lanes, int threads) {
    if (!contiguous || channels < lanes) return {channels, 0, lanes, 0, 0};
    int vectors = kMaxVectors;
    while (vectors > 1 && channels / (vectors * lanes) < threads) vectors /= 2;
    const int64_t wide = channels / (vectors * lanes);
    return {channels, vectors, lanes, wide, (channels - wide * vectors * lanes) / lanes};
}

inline int worthwhile_threads(int64_t elements, int threads) {
    const int64_t grains = elements / kNormGrain + 1;
    return grains < threads ? static_cast<int>(grains) : threads;
}

// Calls body(first channel, std::integral_constant<int, V>) for each item; V = 0 is a single channel.
template <class Body>
inline void for_channel_items(const ChannelItems& items, int threads, const Body& body) {
    parallel_for(threads, items.count(), [&](int64_t i) {
        const ChannelItems::Item item = items.item(i);
        switch (item.vectors) {
            case 4: return body(item.channel, std::integral_constant<int, 4>{});
            case 2: return body(item.channel, std::integral_constant<int, 2>{});
            case 1: return body(item.channel, std::integral_constant<int, 1>{});
            default: return body(item.channel, std::integral_constant<int, 0>{});
        }
    });
}

// How many channels an item of V vectors has, and how many positions a chunk of it.
template <class T, int V>
inline constexpr int width = V == 0 ? 1 : V * lanes<T>;
template <int V>
inline constexpr int64_t chunk_limit = V == 0 ? kChunk : kGroupChunk;

// `count` elements `step` apart as a dense array: x itself, or copied to the buffer.
template <class T>
inline const T* dense(const T* x, int64_t step, int64_t count, T* buffer) {
    if (step == 1) return x;
    for (int64_t i = 0; i < count; ++i) buffer[i] = x[i * step];
    return buffer;
}

// The sum of L lanes, halves added to halves in registers.
template <class T, int L, class V>
inline T lane_sum(V v) {
    if constexpr (L == 1) {
        return v[0];
    } else {
        using Half __attribute__((vector_size(L / 2 * sizeof(T)))) = T;
        return [&]<int... I>(std::integer_sequence<int, I...>) {
            const Half low = __builtin_shufflevector(v, v, I...);
            const Half high = __builtin_shufflevector(v, v, (I + L / 2)...);
            return lane_sum<T, L / 2>(low + high);
        }(std::make_integer_sequence<int, L / 2>{});
    }
}

template <class T>
inline T horizontal_sum(Vec<T> v) {
    return lane_sum<T, lanes<T>>(v);
}

// Sum over i < count of term<Lane>(i), where Lane is Vec<T> (lanes i, i + 1, ...) or T.
template <class T, class Term>
inline T sum_terms(int64_t count, const Term& term) {
    constexpr int64_t step = lanes<T>;
    Vec<T> sum[4] = {};
    int64_t i = 0;
    for (; i + 4 * step <= count; i += 4 * step)
        for (int u = 0; u < 4; ++u) sum[u] += term.template operator()<Vec<T>>(i + u * step);
    for (; i + step <= count; i += step) sum[0] += term.template operator()<Vec<T>>(i);
    T rest = 0;
    for (; i < count; ++i) rest += term.template operator()<T>(i);
    return horizontal_sum<T>((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

template <class Lane, class T>
inline Lane get(const T* p) {
    Lane lane;
    std::memcpy(&lane, p, sizeof lane);
    return lane;
}

// Sum over positions p < count of term(p, v), for each of V vectors of channels, written to out.
template <class T, int V, class Term>
inline void sum_positions(int64_t count, T* out, const Term& term) {
    constexpr int unroll = 4 / V;
    Vec<T> sum[unroll][V] = {};
    int64_t p = 0;
    for (; p + unroll <= count; p += unroll)
        for (int u = 0; u < unroll; ++u)
            for (int v = 0; v < V; ++v) sum[u][v] += term(p + u, v);
    for (; p < count; ++p)
        for (int v = 0; v < V; ++v) sum[0][v] += term(p, v);
    for (int v = 0; v < V; ++v) {
        for (int u = 1; u < unroll; ++u) sum[0][v] += sum[u][v];
        store<T>(out + v * lanes<T>, sum[0][v]);
    }
}

}  // namespace pycv::cpu::PYCV_ISA
