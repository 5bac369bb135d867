// What max and average pooling share: windows, and vectors that read a row at a stride.
//
// Both poolings run in one of two ways. `pixels`: channels are contiguous, vectors lie along them, and every output
// pixel walks its own window, whatever its shape; small planes are made into such pixels (pool_transposed.h).
// `rows`: planes, vectors lie along the output row, over the interior outputs whose windows are complete along the
// width; the others, and rows of any other stride, one by one.
// Only for kernel files (ISA namespace).
#pragma once

#include "cost.h"
#include "integers.h"
#include "parallel.h"
#include "plan.h"
#include "row_vectors.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

constexpr int64_t kPoolGrain = 32768;  // window elements that are worth another thread

// One axis of the windows. Adaptive windows are given by size and out alone.
struct PoolAxis {
    int64_t size, filter, stride, padding, dilation, out;
    bool adaptive;
};

// The positions begin, begin + dilation, ... < end of the input that a window covers.
struct Span {
    int64_t begin, end;
};

inline Span span(const PoolAxis& a, int64_t o) {
    if (a.adaptive) return {o * a.size / a.out, ((o + 1) * a.size + a.out - 1) / a.out};
    int64_t begin = o * a.stride - a.padding;
    const int64_t last = begin + (a.filter - 1) * a.dilation + 1;
    if (begin < 0) begin += (-begin + a.dilation - 1) / a.dilation * a.dilation;
    return {begin, last < a.size ? last : a.size};
}

// The outputs whose windows lie inside the input along this axis; none for adaptive windows.
inline Span interior(const PoolAxis& a) {
    const int64_t room = a.size - 1 - (a.filter - 1) * a.dilation + a.padding;
    if (a.adaptive || room < 0) return {0, 0};
    const int64_t begin = (a.padding + a.stride - 1) / a.stride;
    const int64_t end = room / a.stride + 1 < a.out ? room / a.stride + 1 : a.out;
    return begin < end ? Span{begin, end} : Span{0, 0};
}

// The axes of a problem. Adaptive windows that are all alike (size a multiple of out) become ordinary ones.
struct PoolAxes {
    PoolAxis d, h, w;
};

inline PoolAxes pool_axes(const PoolProblem& p) {
    const bool adaptive = p.kind == PoolKind::adaptive_max || p.kind == PoolKind::adaptive_avg;
    const auto axis = [adaptive](int64_t size, int64_t filter, int64_t stride, int64_t padding, int64_t dilation,
                                 int64_t out) -> PoolAxis {
        if (!adaptive) return {size, filter, stride, padding, dilation, out, false};
        if (out > 0 && size % out == 0) return {size, size / out, size / out, 0, 1, out, false};
        return {size, 1, 1, 0, 1, out, true};
    };
    return {axis(p.size.d, p.filter.d, p.stride.d, p.padding.d, p.dilation.d, p.out.d),
            axis(p.size.h, p.filter.h, p.stride.h, p.padding.h, p.dilation.h, p.out.h),
            axis(p.size.w, p.filter.w, p.stride.w, p.padding.w, p.dilation.w, p.out.w)};
}

// Bytes of the tensor that a pass writes.
inline double computed_bytes(const PoolProblem& p) {
    const Spatial& size = p.pass == Pass::forward ? p.out : p.size;
    return static_cast<double>(p.n * p.c * size.count()) * element_bytes(p.dtype);
}

inline int64_t offset(const Strides& s, int64_t d, int64_t h, int64_t w) { return d * s.d + h * s.h + w * s.w; }

inline int pool_threads(const PoolProblem& p, const PoolAxes& axes, int threads) {
    const auto reach = [](const PoolAxis& a) { return a.adaptive ? a.size / (a.out ? a.out : 1) + 1 : a.filter; };
    const int64_t work = p.n * p.c * p.out.count() * reach(axes.d) * reach(axes.h) * reach(axes.w);
    const int64_t grains = work / kPoolGrain + 1;
    return grains < threads ? static_cast<int>(grains) : threads;
}

// How the channels of one image are shared out where the gradient is scattered into it.
struct ChannelShare {
    int64_t channels, step;  // per item, the last one may be shorter

    int64_t items() const { return channels == 0 ? 0 : (channels + step - 1) / step; }
    Span item(int64_t i) const { return {i * step, (i + 1) * step < channels ? (i + 1) * step : channels}; }
};

// Planes one by one; pixels by whole cache lines of channels, all of them where there are images enough.
inline ChannelShare channel_share(const PoolProblem& p, bool pixels, int threads) {
    if (!pixels) return {p.c, 1};
    const int64_t line = p.dtype == DType::f32 ? 16 : 8;
    const int64_t parts = p.n >= threads || p.n == 0 ? 1 : (threads + p.n - 1) / p.n;
    const int64_t step = (p.c / parts + line - 1) / line * line;
    return {p.c, step < 1 ? 1 : step};
}

// Whether (d, h, w) of these sizes lie one after the other, w.stride apart.
inline bool is_dense(const Strides& s, Spatial size) {
    return (size.h == 1 || s.h == size.w * s.w) && (size.d == 1 || s.d == size.h * size.w * s.w);
}

// Writes 0 to channels [share.begin, share.end), which lie side by side, of every pixel of one image.
template <class T>
inline void clear_pixels(T* image, const Strides& s, Spatial size, Span share) {
    const size_t bytes = static_cast<size_t>(share.end - share.begin) * sizeof(T);
    for (int64_t r = 0; r < size.d * size.h; ++r) {
        T* row = image + offset(s, r / size.h, r % size.h, 0) + share.begin;
        for (int64_t i = 0; i < size.w; ++i) std::memset(row + i * s.w, 0, bytes);
    }
}

// Writes 0 to the whole of channels [share.begin, share.end) of one image.
template <class T>
inline void clear(T* image, const Strides& s, Spatial size, Span share) {
    const bool dense = is_dense(s, size);
    const int64_t length = dense ? size.count() : size.w, rows = dense ? 1 : size.d * size.h;
    for (int64_t r = 0; r < rows; ++r) {
        T* row = image + offset(s, r / size.h, r % size.h, 0);
        if (s.c == 1 && share.end - share.begin > 1) {
            const size_t bytes = static_cast<size_t>(share.end - share.begin) * sizeof(T);
            for (int64_t i = 0; i < length; ++i) std::memset(row + i * s.w + share.begin, 0, bytes);
        } else {
            for (int64_t c = share.begin; c < share.end; ++c) {
                T* at = row + c * s.c;
                if (s.w == 1) {
                    std::memset(at, 0, static_cast<size_t>(length) * sizeof(T));
                } else {
                    for (int64_t i = 0; i < length; ++i) at[i * s.w] = T(0);
                }
            }
        }
    }
}

}  // namespace pycv::cpu::PYCV_ISA
