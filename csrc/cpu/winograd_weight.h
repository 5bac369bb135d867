// A convolution weight's filters as vectors over `lanes` computed channels, ready to be transformed.
//
// Where the computed channels do not lie side by side, runs of contiguous elements of `lanes` of them are transposed:
// all taps of several source channels (k c r s, forward), the taps of one (the same weight in grad_input), or several
// source channels of one tap (k r s c). Anything else is gathered element by element.
#pragma once

#include "../common/problem.h"
#include "integers.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// One group's weight as [computed channel][source channel][tap row][tap column].
template <class T>
struct FilterSource {
    const T* data;
    const T* end;                           // no element of the weight lies here or beyond
    int64_t computed, source, row, column;  // strides
    int64_t channels, height, width;        // computed channels; the filter's size

    const T* at(int64_t channel, int64_t from, int64_t tap) const {
        return data + channel * computed + from * source + tap / width * row + tap % width * column;
    }
};

// to[i] = vector of the i-th elements of lanes runs, for i < length. Of runs of less than a vector, elements beyond
// their end are read (never at or beyond `end`) and written: `to` has room for lanes vectors.
template <class T>
void transpose_runs(const T* from, int64_t run, int64_t length, const T* end, T* to) {
    for (int64_t i = 0; i < length; i += lanes<T>) {
        const int64_t begin = length >= lanes<T> ? smaller(i, length - lanes<T>) : 0;
        const int64_t count = smaller(lanes<T>, length - begin);
        Vec<T> v[lanes<T>];
        if (end - (from + (lanes<T> - 1) * run + begin) >= lanes<T>) {
#pragma GCC unroll 16
            for (int j = 0; j < lanes<T>; ++j) v[j] = load<T>(from + j * run + begin);
        } else {
            for (int j = 0; j < lanes<T>; ++j) v[j] = load_partial<T>(from + j * run + begin, count);
        }
        shuffles::transpose_step<T, 1>(v);
#pragma GCC unroll 16
        for (int j = 0; j < lanes<T>; ++j) store<T>(to + (begin + j) * lanes<T>, v[j]);
    }
}

// Taps of the largest filter of stride 1, and with stride; source channels that are gathered at a time.
inline constexpr int64_t kMostTaps = 25;
inline constexpr int64_t kMostStridedTaps = 16 * 16;
inline constexpr int64_t kFilterChunk = 16;

// Elements that gather_filters() may write.
template <class T>
inline constexpr int64_t kGatheredElements = (kFilterChunk * kMostTaps + lanes<T>)*lanes<T>;

// to[source - sources.begin][tap] = vector of computed channels [channel, channel + lanes); those that do not exist
// are 0. At most kFilterChunk source channels.
template <class T>
void gather_filters(const FilterSource<T>& w, int64_t channel, int64_t source, int64_t sources, T* to) {
    const int64_t taps = w.height * w.width, count = smaller(lanes<T>, w.channels - channel);
    const bool dense_taps = w.column == 1 && w.row == w.width;
    if (count == lanes<T> && w.computed == 1) {
        for (int64_t c = 0; c < sources; ++c)
            for (int64_t tap = 0; tap < taps; ++tap)
                store<T>(to + (c * taps + tap) * lanes<T>, load<T>(w.at(channel, source + c, tap)));
    } else if (count == lanes<T> && dense_taps && w.source == taps) {
        transpose_runs<T>(w.at(channel, source, 0), w.computed, sources * taps, w.end, to);
    } else if (count == lanes<T> && dense_taps) {
        for (int64_t c = 0; c < sources; ++c)
            transpose_runs<T>(w.at(channel, source + c, 0), w.computed, taps, w.end, to + c * taps * lanes<T>);
    } else if (count == lanes<T> && w.source == 1) {
        alignas(64) T line[(kFilterChunk + lanes<T>)*lanes<T>];
        for (int64_t tap = 0; tap < taps; ++tap) {
            transpose_runs<T>(w.at(channel, source, tap), w.computed, sources, w.end, line);
            for (int64_t c = 0; c < sources; ++c)
                store<T>(to + (c * taps + tap) * lanes<T>, load<T>(line + c * lanes<T>));
        }
    } else {
        for (int64_t c = 0; c < sources; ++c)
            for (int64_t tap = 0; tap < taps; ++tap)
                for (int64_t i = 0; i < lanes<T>; ++i)
                    to[(c * taps + tap) * lanes<T> + i] = i < count ? *w.at(channel + i, source + c, tap) : T(0);
    }
}

}  // namespace pycv::cpu::PYCV_ISA
