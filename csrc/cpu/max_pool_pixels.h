// The gradient of max_pool with offsets over pixels, lanes along the channels: every input pixel reads the windows that
// it lies in.
//
// A window's offsets say which of its elements its grad_output belongs to; the pixel takes what is its own and adds it
// up in the order of the windows: it is written once, and nobody else writes it. Which windows an axis' position lies
// in, and as which of their elements, is listed when the plan is made. Of windows of 3x3 at stride 2 a pixel lies in
// 2.25 on average, each of which costs two loads (5 bytes per element of f32), a conversion, a comparison and a sum.
// Only for kernel files (ISA namespace).
#pragma once

#include "byte_vectors.h"
#include "integers.h"
#include "pool.h"
#include "pool_windows.h"

namespace pycv::cpu::PYCV_ISA {

constexpr int64_t kMostElements = 256;  // of a window with offsets

template <class T>
class WindowsOfPixels {
public:
    WindowsOfPixels(const PoolProblem& p, const PoolAxes& axes) : p_(p), streams_(computed_bytes(p) > kStreamedBytes) {
        if (p.indices != Indices::offset || p.pass != Pass::grad_input) return;
        d_.list(axes.d, p.output.d, axes.h.filter * axes.w.filter);
        h_.list(axes.h, p.output.h, axes.w.filter);
        w_.list(axes.w, p.output.w, 1);
    }

    // A row of pixels of `channels` channels that lie side by side.
    void gather_row(int64_t d, int64_t h, int64_t channels, const T* grad, const uint8_t* offsets, T* to) const {
        const bool streamed = streams_ && is_streamable<T>(to, p_.input.w, channels);
        Reading rows[kMostElements], readings[kMostElements];
        int64_t row_count = 0;
        for (const Reading* i = d_.begin(d); i < d_.end(d); ++i)
            for (const Reading* j = h_.begin(h); j < h_.end(h); ++j)
                rows[row_count++] = {i->from + j->from, i->name + j->name};
        for (int64_t w = 0; w < p_.size.w; ++w, to += p_.input.w) {
            int64_t count = 0;
            for (int64_t r = 0; r < row_count; ++r)
                for (const Reading* k = w_.begin(w); k < w_.end(w); ++k)
                    readings[count++] = {rows[r].from + k->from, rows[r].name + k->name};
            gather(readings, count, channels, grad, offsets, to, streamed);
        }
    }

private:
    // A window: where it lies in grad_output and the offsets, and the offset that names the pixel.
    struct Reading {
        int64_t from;
        int64_t name;
    };

    // For every position of an axis the windows that it lies in.
    class Axis {
    public:
        Axis() = default;
        ~Axis() {
            delete[] readings_;
            delete[] first_;
        }
        Axis(const Axis&) = delete;
        Axis& operator=(const Axis&) = delete;

        void list(const PoolAxis& a, int64_t step, int64_t names) {
            readings_ = new Reading[static_cast<size_t>(a.out * a.filter)];
            first_ = new int64_t[static_cast<size_t>(a.size + 1)];
            int64_t count = 0;
            for (int64_t i = 0; i < a.size; ++i) {
                first_[i] = count;
                const int64_t beyond = i + a.padding - (a.filter - 1) * a.dilation;
                const int64_t last = smaller((i + a.padding) / a.stride + 1, a.out);
                for (int64_t o = beyond > 0 ? divide_up(beyond, a.stride) : 0; o < last; ++o) {
                    const int64_t distance = i + a.padding - o * a.stride;
                    if (distance % a.dilation == 0) readings_[count++] = {o * step, distance / a.dilation * names};
                }
            }
            first_[a.size] = count;
        }
        const Reading* begin(int64_t i) const { return readings_ + first_[i]; }
        const Reading* end(int64_t i) const { return readings_ + first_[i + 1]; }

    private:
        Reading* readings_ = nullptr;
        int64_t* first_ = nullptr;
    };

    static void gather(const Reading* readings, int64_t count, int64_t channels, const T* grad, const uint8_t* offsets,
                       T* to, bool streamed) {
        if (channels >= lanes<T>)
            return gather_vectors<lanes<T>>(readings, count, channels, grad, offsets, to, streamed);
        if (channels >= lanes<T> / 2)
            return gather_vectors<lanes<T> / 2>(readings, count, channels, grad, offsets, to, false);
        for (int64_t c = 0; c < channels; ++c) {
            T sum = 0;
            for (int64_t r = 0; r < count; ++r)
                if (offsets[readings[r].from + c] == readings[r].name) sum += grad[readings[r].from + c];
            to[c] = sum;
        }
    }

    template <int L>
    static void gather_vectors(const Reading* readings, int64_t count, int64_t channels, const T* grad,
                               const uint8_t* offsets, T* to, bool streamed) {
        using V = Row<T, L>;
        using I = Row<IndexOf<T>, L>;
        each_group<L>(channels, [&]<int N>(int64_t c) {
            V sum[N]{};
            for (int64_t r = 0; r < count; ++r) {
                const int64_t at = readings[r].from + c;
                const I name = static_cast<IndexOf<T>>(readings[r].name) - I{};
                for (int v = 0; v < N; ++v) {
                    const I found = load_bytes<IndexOf<T>, L>(offsets + at + v * L);
                    sum[v] += found == name ? load_row<V>(grad + at + v * L) : V{};
                }
            }
            for (int v = 0; v < N; ++v) put_row(to + c + v * L, sum[v], streamed);
        });
    }

    PoolProblem p_;
    bool streams_;  // the gradient, past the caches
    Axis d_, h_, w_;
};

}  // namespace pycv::cpu::PYCV_ISA
