// Tiles: how a kernel that has one set of numbers per channel (sums, scales) goes through the elements of all channels.
//
// The positions (n, d, h, w) of a channel are runs a fixed step apart. A tile is some consecutive rows (positions) of a
// run; a part is what one loop does of it, with the tensors' offsets and steps spelled out:
// - planar: the elements of one channel lie side by side. Its rows are vectors of them; the rest is one more vector
// that
//   reaches back over elements already seen. Where there is not one whole vector, or the elements do not lie side by
//   side (tensors of unlike layouts), rows are single elements.
// - interleaved: channels lie side by side (nhwc, blocked layouts). Rows are positions, and each part is a group of
//   channels: four vectors of them, one, or the halves of one down to single channels.
// Either way a part has `vectors` vectors of lanes in each row, every one with its own parameters, so that the same
// loops serve all layouts.
// Only for kernel files (ISA namespace).
#pragma once

#include "integers.h"
#include "norm.h"

namespace pycv::cpu::PYCV_ISA {

// Elements into up to three tensors.
struct Offsets {
    int64_t x, y, z;

    Offsets operator+(Offsets o) const { return {x + o.x, y + o.y, z + o.z}; }
    Offsets operator*(int64_t k) const { return {x * k, y * k, z * k}; }
    bool operator==(const Offsets&) const = default;
};

// The positions of a channel, axes that are contiguous in all three tensors merged; innermost first.
struct Positions {
    struct Axis {
        int64_t extent = 1;
        Offsets step{1, 1, 1};
    } axes[4];

    int64_t length() const { return axes[0].extent; }  // of a run
    int64_t runs() const { return axes[1].extent * axes[2].extent * axes[3].extent; }
    int64_t count() const { return length() * runs(); }

    Offsets run(int64_t index) const {
        if (axes[2].extent * axes[3].extent == 1) return axes[1].step * index;
        const int64_t outer = index / axes[1].extent;
        return axes[1].step * (index % axes[1].extent) + axes[2].step * (outer % axes[2].extent) +
               axes[3].step * (outer / axes[2].extent);
    }
    Offsets at(int64_t position) const { return run(position / length()) + axes[0].step * (position % length()); }
};

inline Positions positions(int64_t n, Spatial size, Strides x, Strides y, Strides z) {
    const Positions::Axis all[4] = {
        {size.w, {x.w, y.w, z.w}}, {size.h, {x.h, y.h, z.h}}, {size.d, {x.d, y.d, z.d}}, {n, {x.n, y.n, z.n}}};
    Positions result;
    int last = -1;
    for (const Positions::Axis& axis : all) {
        if (axis.extent == 1) continue;
        Positions::Axis* inner = last < 0 ? nullptr : &result.axes[last];
        if (inner && inner->step * inner->extent == axis.step) {
            inner->extent *= axis.extent;
        } else {
            result.axes[++last] = axis;
        }
    }
    return result;
}

enum class Direction { forwards, backwards };

// Calls visit(offsets, rows) for the tiles of at most `limit` positions of [begin, end), from either end: a second pass
// goes backwards, so that it begins with what the first one has just left in the cache.
template <class Visit>
inline void for_tiles(const Positions& p, Range range, int64_t limit, Direction direction, const Visit& visit) {
    if (range.begin >= range.end) return;
    const bool backwards = direction == Direction::backwards;
    const int64_t length = p.length(), first = range.begin == 0 ? 0 : range.begin / length;
    const int64_t last = range.end == p.count() ? p.runs() - 1 : (range.end - 1) / length;
    for (int64_t i = 0; i <= last - first; ++i) {
        const int64_t run = backwards ? last - i : first + i;
        const int64_t begin = larger(range.begin - run * length, 0), end = smaller(range.end - run * length, length);
        const Offsets start = p.run(run);
        const int64_t tiles = end - begin <= limit ? 1 : divide_up(end - begin, limit);
        for (int64_t j = 0; j < tiles; ++j) {
            const int64_t at = begin + (backwards ? tiles - 1 - j : j) * limit;
            visit(start + p.axes[0].step * at, smaller(limit, end - at));
        }
    }
}

struct Part {
    int64_t rows;
    Offsets at, step;
    int64_t parameter;  // index of the first per-channel number
    int64_t rest = 0;   // elements after the last row (planar vectors)

    // The vector that ends with the rest.
    Part last(int64_t lanes) const {
        return {1, at + Offsets{1, 1, 1} * (rows * lanes + rest - lanes), step, parameter};
    }
};

// A vector of L elements, or a single one. (As a template argument Vec<T> would lose its attribute, and its lanes.)
template <class T, int L>
struct LaneOf {
    typedef T type __attribute__((vector_size(L * sizeof(T))));
};
template <class T>
struct LaneOf<T, 1> {
    using type = T;
};

// V vectors of L lanes side by side.
template <class T, int L, int V>
struct Group {
    using Lane = typename LaneOf<T, L>::type;
    static constexpr int vectors = V, lane = L;
};

template <class Lane, class T>
inline void put(T* p, Lane lane) {
    std::memcpy(p, &lane, sizeof lane);
}

// Calls body(group, part) for a tile of one channel. All lanes of a vector belong to it, so that there are `lanes` sets
// of parameters, all alike.
template <class T, class Body>
inline void planar_parts(const Positions& p, Offsets at, int64_t rows, const Body& body) {
    const Offsets step = p.axes[0].step;
    if (rows >= lanes<T> && step == Offsets{1, 1, 1}) {
        body(Group<T, lanes<T>, 1>{}, Part{rows / lanes<T>, at, step * lanes<T>, 0, rows % lanes<T>});
    } else {
        body(Group<T, 1, 1>{}, Part{rows, at, step, 0});
    }
}

namespace interleaved {

template <class T, int L, class Body>
inline void narrow(Range channels, const Body& body) {
    if constexpr (L >= 1) {
        for (; channels.begin + L <= channels.end; channels.begin += L) body(Group<T, L, 1>{}, channels.begin);
        narrow<T, L / 2>(channels, body);
    }
}

}  // namespace interleaved

// The channels that lie side by side in all tensors: everything (nhwc), or a block.
struct Interleaving {
    int64_t block;  // 0: all channels
    Offsets step;   // from one block to the next

    Offsets channel(int64_t c) const {
        if (block == 0) return {c, c, c};
        return step * (c / block) + Offsets{1, 1, 1} * (c % block);
    }
};

// Calls body(group, part) for a tile of the channels of a range, which begins and ends where blocks do.
template <class T, class Body>
inline void interleaved_parts(const Positions& p, const Interleaving& how, Range channels, Offsets at, int64_t rows,
                              const Body& body) {
    const auto part = [&](auto group, int64_t c) { body(group, Part{rows, at + how.channel(c), p.axes[0].step, c}); };
    if (how.block == 0)
        for (; channels.begin + 4 * lanes<T> <= channels.end; channels.begin += 4 * lanes<T>)
            part(Group<T, lanes<T>, 4>{}, channels.begin);
    if constexpr (lanes<T> > 8)
        if (how.block == 8) return interleaved::narrow<T, 8>(channels, part);
    interleaved::narrow<T, lanes<T>>(channels, part);
}

// Calls body(part, row, vector) for all of a part. Elements of the rest's vector that were seen before are seen again.
template <class G, class Body>
inline void each_row(const Part& part, const Body& body) {
    for (int64_t row = 0; row < part.rows; ++row)
        for (int v = 0; v < G::vectors; ++v) body(part, row, v);
    if constexpr (G::vectors == 1 && G::lane > 1)
        if (part.rest) body(part.last(G::lane), 0, 0);
}

// The value in the last `count` lanes, 0 in the others.
template <class T, int L>
inline typename LaneOf<T, L>::type last_lanes(typename LaneOf<T, L>::type value, int64_t count) {
    using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    typename LaneOf<Integer, L>::type index;
    for (int i = 0; i < L; ++i) index[i] = i;
    return index >= static_cast<Integer>(L - count) ? value : typename LaneOf<T, L>::type{};
}

// totals[s * stride + i] += sum over rows of the terms, in double. `terms(part, row, vector, add)` calls add(s, value)
// once for each of the Sums sums. In the dtype no partial sum covers more than the rows of a tile.
template <int Sums, class T, class G, class Terms>
inline void add_rows(G, const Part& part, double* totals, int64_t stride, const Terms& terms) {
    using Lane = typename G::Lane;
    constexpr int V = G::vectors, unroll = 4 / V;
    Lane sum[unroll][Sums][V] = {};
    int64_t row = 0;
    for (; row + unroll <= part.rows; row += unroll)
        for (int u = 0; u < unroll; ++u)
            for (int v = 0; v < V; ++v) terms(part, row + u, v, [&](int s, Lane value) { sum[u][s][v] += value; });
    for (; row < part.rows; ++row)
        for (int v = 0; v < V; ++v) terms(part, row, v, [&](int s, Lane value) { sum[0][s][v] += value; });
    if constexpr (V == 1 && G::lane > 1)
        if (part.rest)
            terms(part.last(G::lane), 0, 0,
                  [&](int s, Lane value) { sum[0][s][0] += last_lanes<T, G::lane>(value, part.rest); });
    for (int s = 0; s < Sums; ++s)
        for (int v = 0; v < V; ++v) {
            for (int u = 1; u < unroll; ++u) sum[0][s][v] += sum[u][s][v];
            T values[G::lane];
            put(values, sum[0][s][v]);
            double* total = totals + s * stride + part.parameter + v * G::lane;
            for (int i = 0; i < G::lane; ++i) total[i] += values[i];
        }
}

// The sum of lanes<T> values.
template <class T>
inline double fold(const double* values) {
    Vec<double> sum = load<double>(values);
    for (int i = lanes<double>; i < lanes<T>; i += lanes<double>) sum += load<double>(values + i);
    return horizontal_sum<double>(sum);
}

}  // namespace pycv::cpu::PYCV_ISA
