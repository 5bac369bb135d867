// What a kernel under host execution asks of the runtime: where it is, barriers, collectives, errors.
//
// Every CUDA thread is a fiber; one runs at a time, until it waits. Blocks run one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

#include "types.h"

namespace pycv::simt {

using Site = std::source_location;

// The thread that runs, and the launch and block that it belongs to. Only the runtime writes them.
struct Position {
    uint3 index;    // threadIdx
    unsigned rank;  // in the block, x running fastest
};
extern Position* current;
extern uint3 block_index;
extern dim3 block_shape, grid_shape;

inline int lane_index() { return static_cast<int>(current->rank % 32); }

// Ends the launch with a CudaError that names the kernel, the site, the block and the thread.
[[noreturn]] void fail(const std::string& what, Site site);

void block_barrier(Site site);
void warp_barrier(unsigned mask, Site site);

void* dynamic_shared();

inline void check_aligned(const void* address, std::size_t bytes, const char* what, Site site) {
    const auto excess = reinterpret_cast<std::uintptr_t>(address) % bytes;
    if (excess != 0) [[unlikely]]
        fail(std::string(what) + " of " + std::to_string(bytes) + " bytes is misaligned by " + std::to_string(excess),
             site);
}

// --------------------------------------------------------------------------------------------------- collectives

// What the lanes of a mask bring and get: operands[l] and results[l] of lane l, null if it takes no part.
struct Lanes {
    const void* operands[32];
    void* results[32];
};
using LaneOperation = void (*)(const Lanes& lanes, Site site);

// Waits for all lanes of the mask; the last one to arrive runs the operation for all. Lanes match if they bring the
// same mask and operation. Lanes beyond the end of the block are taken out of the mask.
void collective(unsigned mask, const char* name, LaneOperation operation, const void* operand, void* result, Site site);

template <class T>
struct ShuffleOperand {
    T value;
    int source;
};

// Lanes read each other's operands, which is no race.
template <class T>
__attribute__((no_sanitize("thread"))) void shuffle_lanes(const Lanes& lanes, Site site) {
    for (int lane = 0; lane < 32; lane++) {
        if (lanes.results[lane] == nullptr) continue;
        const int source = static_cast<const ShuffleOperand<T>*>(lanes.operands[lane])->source;
        if (lanes.operands[source] == nullptr)
            fail("lane " + std::to_string(lane) + " reads lane " + std::to_string(source) + ", which takes no part",
                 site);
        *static_cast<T*>(lanes.results[lane]) = static_cast<const ShuffleOperand<T>*>(lanes.operands[source])->value;
    }
}

// The value of lane `source`.
template <class T>
T shuffle(unsigned mask, T value, int source, Site site) {
    const ShuffleOperand<T> operand{value, source};
    T result;
    collective(mask, "shuffle", shuffle_lanes<T>, &operand, &result, site);
    return result;
}

unsigned ballot(unsigned mask, bool predicate, Site site);

}  // namespace pycv::simt
