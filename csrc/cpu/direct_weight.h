// The packed weight of a direct gather: for every block of kTileWidth computed channels the vectors that the register
// tile multiplies with, in the order in which it reads them:
//
//     [group][block of source channels][block of computed channels][phase][source channel][tap][kTileWidth]
//
// A weight whose memory runs along taps or along source channels is transposed in registers; one that runs along the
// computed channels is copied.
#pragma once

#include "conv_gather.h"
#include "direct_microkernel.h"
#include "integers.h"
#include "parallel.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// An array that belongs to a plan.
template <class E>
class Table {
public:
    explicit Table(int64_t count) : data_(new E[static_cast<size_t>(count)]{}) {}
    ~Table() { delete[] data_; }
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;
    E& operator[](int64_t i) { return data_[i]; }
    const E& operator[](int64_t i) const { return data_[i]; }
    const E* data() const { return data_; }

private:
    E* data_;
};

// Where a filter position goes: the taps of the phases before its own, the taps of its phase, its number among them.
struct TapSlot {
    int64_t before, taps, index;
};

struct WeightBlocks {
    int64_t groups, channels, source_channels, filter;  // per group; filter positions
    int64_t source_block;                               // source channels of a block, the last may have fewer

    int64_t blocks(int64_t lanes) const { return divide_up(channels, lanes); }
    int64_t source_blocks() const { return larger(1, divide_up(source_channels, source_block)); }
    Range source_range(int64_t block) const {
        return {block * source_block, smaller(source_channels, (block + 1) * source_block)};
    }
    template <class T>
    int64_t elements() const {
        return groups * blocks(kTileWidth<T>) * kTileWidth<T> * source_channels * filter;
    }
    // The first phase of a block; phases follow each other.
    template <class T>
    int64_t offset(int64_t group, Range source, int64_t block) const {
        const int64_t all = blocks(kTileWidth<T>);
        const int64_t before = (group * source_channels + source.begin) * all + block * (source.end - source.begin);
        return before * filter * kTileWidth<T>;
    }
};

template <class T>
class WeightPacker {
public:
    WeightPacker(const WeightBlocks& blocks, const GatherProblem& problem, Spatial filter, const Table<TapSlot>& slots)
        : blocks_(blocks), problem_(problem), filter_(filter), slots_(slots) {}

    void pack(const T* weight, T* prepared, int threads) const {
        const int64_t all = blocks_.blocks(kTileWidth<T>), sources = blocks_.source_blocks();
        parallel_for(threads, blocks_.groups * sources * all, [&](int64_t i) {
            const int64_t block = i % all, source = i / all % sources, group = i / all / sources;
            const Range range = blocks_.source_range(source);
            pack_block(weight + group * problem_.weight_group, weight + extent(), block * kTileWidth<T>, range,
                       prepared + blocks_.template offset<T>(group, range, block));
        });
    }

private:
    // Elements from the first to behind the last one of the weight.
    int64_t extent() const {
        const Strides& s = problem_.weight;
        if (blocks_.elements<T>() == 0) return 0;
        return (problem_.groups - 1) * problem_.weight_group + (blocks_.channels - 1) * s.n +
               (blocks_.source_channels - 1) * s.c + (filter_.d - 1) * s.d + (filter_.h - 1) * s.h +
               (filter_.w - 1) * s.w + 1;
    }

    bool taps_contiguous() const {
        const Strides& s = problem_.weight;
        return (filter_.w == 1 || s.w == 1) && (filter_.h == 1 || s.h == filter_.w) &&
               (filter_.d == 1 || s.d == filter_.h * filter_.w);
    }
    int64_t tap_offset(int64_t position) const {
        const Strides& s = problem_.weight;
        return position % filter_.w * s.w + position / filter_.w % filter_.h * s.h +
               position / filter_.w / filter_.h * s.d;
    }
    int64_t target(int64_t position, int64_t c, Range source) const {
        const TapSlot& slot = slots_[position];
        return ((source.end - source.begin) * slot.before + c * slot.taps + slot.index) * kTileWidth<T>;
    }

    void pack_block(const T* weight, const T* end, int64_t channel, Range source, T* to) const {
        const Strides& s = problem_.weight;
        const int64_t channels = smaller(kTileWidth<T>, blocks_.channels - channel);
        const int64_t count = source.end - source.begin, filter = blocks_.filter;
        // A block of at most lanes<T> channels is multiplied with one vector: its second half is never read.
        for (int64_t first = 0; first < channels; first += lanes<T>, to += lanes<T>) {
            const T* from = weight + (channel + first) * s.n + source.begin * s.c;
            const int64_t used = smaller(lanes<T>, channels - first);
            if (s.n == 1) {
                for (int64_t c = 0; c < count; ++c)
                    for (int64_t f = 0; f < filter; ++f)
                        store<T>(to + target(f, c, source), bounded(from + c * s.c + tap_offset(f), used, end));
            } else if (taps_contiguous() && s.c == filter) {
                transpose_run(from, count * filter, used, end,
                              [&](int64_t i) { return to + target(i % filter, i / filter, source); });
            } else if (taps_contiguous()) {
                for (int64_t c = 0; c < count; ++c)
                    transpose_run(from + c * s.c, filter, used, end,
                                  [&](int64_t i) { return to + target(i, c, source); });
            } else if (s.c == 1) {
                for (int64_t f = 0; f < filter; ++f)
                    transpose_run(from + tap_offset(f), count, used, end,
                                  [&](int64_t i) { return to + target(f, i, source); });
            } else {
                for (int64_t c = 0; c < count; ++c)
                    for (int64_t f = 0; f < filter; ++f)
                        for (int64_t j = 0; j < lanes<T>; ++j)
                            to[target(f, c, source) + j] = j < used ? from[c * s.c + tap_offset(f) + j * s.n] : T(0);
            }
        }
    }

    // The first `count` lanes from p, without reading at or behind `end`; the others carry nothing.
    static Vec<T> bounded(const T* p, int64_t count, const T* end) {
        return end - p >= lanes<T> ? load<T>(p) : load_partial<T>(p, smaller(count, end - p));
    }

    // `length` elements of each of `used` channels, those of one element side by side at place(element).
    template <class Place>
    void transpose_run(const T* from, int64_t length, int64_t used, const T* end, const Place& place) const {
        const int64_t stride = problem_.weight.n;
        for (int64_t i = 0; i < length; i += lanes<T>) {
            Vec<T> v[lanes<T>];
            if (used == lanes<T> && end - (from + i + (lanes<T> - 1) * stride) >= lanes<T>) {
#pragma GCC unroll 16
                for (int j = 0; j < lanes<T>; ++j) v[j] = load<T>(from + i + j * stride);
            } else {
                const int64_t count = smaller(lanes<T>, length - i);
                for (int j = 0; j < lanes<T>; ++j)
                    v[j] = j < used ? load_partial<T>(from + i + j * stride, count) : Vec<T>{};
            }
            shuffles::transpose_step<T, 1>(v);
            for (int j = 0; j < lanes<T> && i + j < length; ++j) store<T>(place(i + j), v[j]);
        }
    }

    const WeightBlocks& blocks_;
    const GatherProblem& problem_;
    Spatial filter_;
    const Table<TapSlot>& slots_;
};

}  // namespace pycv::cpu::PYCV_ISA
