// How many multiprocessors the current device has: blocks that stay take one each; and how many a plan assumes.
#pragma once

#include <cstdint>

#include "launch.h"

namespace pycv::cuda {

// A plan knows no device: those of an H100, of which others have fewer or about as many.
constexpr int64_t kPlannedMultiprocessors = 132;

#if defined(PYCV_SIMT)
// Few, so that blocks that stay have several pieces of work each, as on a GPU.
inline int multiprocessor_count() { return 3; }
#else
inline int multiprocessor_count() {
    int device = 0, count = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
        throw CudaError("the number of multiprocessors is not known");
    return count;
}
#endif

}  // namespace pycv::cuda
