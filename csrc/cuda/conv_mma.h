// What the convolution kernel on tensor cores (conv_mma_kernel.h) is told, and who launches it.
#pragma once

#include "conv_gather.h"
#include "conv_prologue.h"
#include "gemm_mma.h"

namespace pycv::cuda {

// As in conv_gather.h the im2col matrix has one index per position and one per tap. Taps come in vectors of 16 bytes of
// channels of one filter position, the last vector of a position filled up with zeros; channels are contiguous in both
// matrices.
template <class T>
struct ConvMma {
    Geometry geometry;
    int n, groups;
    int channels;      // of a group: what the plain matrix has beside its index along the depth
    int tap_channels;  // of a group
    // The im2col matrix.
    const T* source;
    Strides source_strides;
    int64_t source_group;  // elements from one group to the next
    bool source_vectors;   // copied by 16 bytes
    Prologue<T> prologue;  // forward
    // The plain matrix. forward and grad_input: the prepared weight [group][channel][filter][tap channels, filled up];
    // grad_weight: the output.
    const T* plain;
    Strides plain_strides;  // grad_weight
    int64_t plain_group;
    bool plain_vectors;
    // What is computed.
    T* computed;
    Strides computed_strides;
    int64_t computed_group;
    const T* bias;  // null where there is none, as residual
    const T* residual;
    Strides residual_strides;
    bool relu;
    // How the blocks share the work.
    int64_t down, across;  // tiles
    int64_t parts, part_depth;
    float* sums;  // of the parts; null where there is one

    static constexpr int vector = widest_vector<T>;
    __host__ __device__ int tap_vectors() const { return ceil_div(tap_channels, vector); }
    __host__ __device__ int64_t weight_pitch() const {  // from channel to channel of the prepared weight
        const Extent& f = geometry.filter;
        return static_cast<int64_t>(f.d) * f.h * f.w * tap_vectors() * vector;
    }
    __host__ __device__ int64_t tiles() const { return down * across * geometry.phase_count() * groups; }
};

// Launches the kernel, and where there are parts the one that adds them up.
template <class Arithmetic>
void launch_conv_mma(const ConvMma<typename Arithmetic::T>& problem, bool grad_weight, MmaTileIndex tile,
                     Stream stream);
template <>
void launch_conv_mma<HalfArithmetic>(const ConvMma<half>&, bool, MmaTileIndex, Stream);
template <>
void launch_conv_mma<BfloatArithmetic>(const ConvMma<bfloat16>&, bool, MmaTileIndex, Stream);
template <>
void launch_conv_mma<Tf32Arithmetic>(const ConvMma<float>&, bool, MmaTileIndex, Stream);
template <>
void launch_conv_mma<Tf32x3Arithmetic>(const ConvMma<float>&, bool, MmaTileIndex, Stream);

}  // namespace pycv::cuda
