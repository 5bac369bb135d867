// The windows of a convolution as im2col copies walk through them (device/tensor_copy.h).
//
// Copies begin at the lower end of a window; filter positions are shifts from there on, none below 0. Where taps go
// backwards, as in grad_input, the lower end is that of the last one.
#pragma once

#include "conv_gather.h"
#include "device/tensor_copy.h"

namespace pycv::cuda {

// One axis of the windows: of output or, in grad_input, input positions.
struct WindowAxis {
    int count;          // positions
    int first, step;    // of the windows in the source: its lower end, and from one to the next
    int taps;           // of the filter
    int shift, by_tap;  // of tap 0 from the lower end, and from one tap to the next

    // Of a gather whose taps are those of the filter (conv_gather.h).
    static WindowAxis of(const AxisGather& axis) {
        const int last = (axis.taps - 1) * axis.offset_step;
        const int lower = last < 0 ? axis.offset_first + last : axis.offset_first;
        return {axis.count, lower, axis.source_step, axis.taps, axis.offset_first - lower, axis.offset_step};
    }
    // Between them windows begin: the corners of im2col.
    int lower_corner() const { return first; }
    int upper_corner(int size) const { return first + (count - 1) * step + 1 - size; }
};

struct WindowPlace {
    int x, y, n;
};

// A filter position.
struct WindowTap {
    int r = 0, s = 0;
};

struct ConvWindows {
    WindowAxis h, w;

    ConvWindows() = default;
    explicit ConvWindows(const Gather& gather) : h(WindowAxis::of(gather.h)), w(WindowAxis::of(gather.w)) {}
    // One for each pixel of an image.
    static ConvWindows of_pixels(int height, int width) {
        ConvWindows windows;
        windows.h = {height, 0, 1, 1, 0, 0};
        windows.w = {width, 0, 1, 1, 0, 0};
        return windows;
    }

    __host__ __device__ int taps() const { return h.taps * w.taps; }

    // A position by its number along each axis; the image is beyond the last one where there is no such position.
    __device__ __forceinline__ WindowPlace counted(int position) const {
        const int row = position / w.count;
        return {position % w.count, row % h.count, row / h.count};
    }
    // Where the window of a position begins.
    __device__ __forceinline__ WindowPlace place(int position) const {
        const WindowPlace at = counted(position);
        return {at.x * w.step + w.first, at.y * h.step + h.first, at.n};
    }

    __device__ __forceinline__ WindowTap tap(int index) const { return {index / w.taps, index % w.taps}; }
    __device__ __forceinline__ int index(const WindowTap& tap) const { return tap.r * w.taps + tap.s; }
    // To the next filter position; after the last one to the first, and false.
    __device__ __forceinline__ bool advance(WindowTap& tap) const {
        if (++tap.s < w.taps) return true;
        tap.s = 0;
        if (++tap.r < h.taps) return true;
        tap.r = 0;
        return false;
    }

    // The elements of a filter position, for as many positions from there on as the map says.
    __device__ __forceinline__ void load(unsigned char* to, const TensorMap& source, Barrier* full, int channel,
                                         const WindowPlace& at, const WindowTap& tap) const {
        load_windows(to, source, full, channel, at.x, at.y, at.n, w.shift + tap.s * w.by_tap,
                     h.shift + tap.r * h.by_tap);
    }
};

// A tensor whose channels are contiguous.
struct ConvImages {
    const void* data;
    int64_t n, channels, height, width;
    Strides strides;
};

inline TensorMap windows_map(TensorElement element, const ConvImages& source, const ConvWindows& windows,
                             int positions) {
    const int bytes = bytes_of(element);
    // Of an axis of one element the stride has no meaning.
    const int64_t row = source.height > 1 ? source.strides.h : source.strides.w * source.width;
    const int64_t image = source.n > 1 ? source.strides.n : row * source.height;
    TensorMapFields fields{.base = source.data,
                           .element = element,
                           .rank = 4,
                           .sizes = {source.channels, source.width, source.height, source.n},
                           .strides = {bytes, source.strides.w * bytes, row * bytes, image * bytes},
                           .box = {128 / bytes},
                           .swizzle = Swizzle::bytes_128};
    fields.pixels = positions;
    const WindowAxis axes[] = {windows.w, windows.h};
    for (int axis = 0; axis < 2; ++axis) {
        fields.lower[axis] = axes[axis].lower_corner();
        fields.upper[axis] = axes[axis].upper_corner(static_cast<int>(fields.sizes[axis + 1]));
        fields.step[axis] = axes[axis].step;
    }
    return make_tensor_map(fields);
}

}  // namespace pycv::cuda
