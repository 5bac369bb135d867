// The positions of a grad_input that no window reads: 0, where the stride is longer than the filter (a 1x1 convolution
// of stride 2 reads one pixel of four). They are written row by row and never multiplied.
#pragma once

#include "conv_gather.h"
#include "integers.h"
#include "parallel.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

// Which positions of an axis are read, by their phase.
class ReadPhases {
public:
    ReadPhases(int64_t stride, int64_t size, int64_t filter, int64_t out, int64_t padding, int64_t dilation)
        : count_(phases_of(stride, size)), read_(new bool[count_]) {
        for (int64_t phase = 0; phase < count_; ++phase)
            read_[phase] = grad_input_axis(phase, size, filter, out, stride, padding, dilation).taps > 0;
    }
    ~ReadPhases() { delete[] read_; }
    ReadPhases(const ReadPhases&) = delete;
    ReadPhases& operator=(const ReadPhases&) = delete;

    int64_t count() const { return count_; }
    bool operator[](int64_t phase) const { return read_[phase]; }
    double share() const {
        int64_t read = 0;
        for (int64_t phase = 0; phase < count_; ++phase) read += read_[phase];
        return static_cast<double>(read) / static_cast<double>(count_);
    }

private:
    int64_t count_;
    bool* read_;
};

template <class T>
class Gaps {
public:
    explicit Gaps(const ConvProblem& p)
        : p_(p),
          channels_inside_(p.input.c == 1 && p.c > 1),
          d_(p.stride.d, p.size.d, p.filter.d, p.out.d, p.padding.d, p.dilation.d),
          h_(p.stride.h, p.size.h, p.filter.h, p.out.h, p.padding.h, p.dilation.h),
          w_(p.stride.w, p.size.w, p.filter.w, p.out.w, p.padding.w, p.dilation.w) {}

    double elements() const {
        return static_cast<double>(p_.n) * static_cast<double>(p_.c * p_.size.count()) *
               (1 - d_.share() * h_.share() * w_.share());
    }

    // One thread's rows.
    void clear(T* computed, int thread, int team) const {
        const int64_t channels = channels_inside_ ? 1 : p_.c;
        const Range rows = share(p_.n * channels * p_.size.d * p_.size.h, thread, team);
        for (int64_t row = rows.begin; row < rows.end; ++row) {
            const int64_t h = row % p_.size.h, plane = row / p_.size.h;
            const int64_t d = plane % p_.size.d, image = plane / p_.size.d;
            T* const at = computed + image / channels * p_.input.n + image % channels * p_.input.c + d * p_.input.d +
                          h * p_.input.h;
            if (!d_[d % d_.count()] || !h_[h % h_.count()]) {
                clear_row(at, 0, 1);
            } else {
                for (int64_t phase = 0; phase < w_.count(); ++phase)
                    if (!w_[phase]) clear_row(at, phase, w_.count());
            }
        }
    }

private:
    // Every `step`th pixel from `first` on, of all channels or of one.
    void clear_row(T* row, int64_t first, int64_t step) const {
        const int64_t size = p_.size.w, w = p_.input.w;
        const int64_t run = channels_inside_ ? p_.c : 1;
        if (step == 1 && (w == run || size == 1)) return zero_run(row, size * run);
        for (int64_t i = first; i < size; i += step) {
            if (channels_inside_) {
                zero_run(row + i * w, run);
            } else {
                row[i * w] = T(0);
            }
        }
    }

    ConvProblem p_;
    bool channels_inside_;
    ReadPhases d_, h_, w_;
};

}  // namespace pycv::cpu::PYCV_ISA
