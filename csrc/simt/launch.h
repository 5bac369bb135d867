// Launches a kernel on the CPU: runs all of its threads and returns when they have ended.
//
// Configuration, by pycv_simt_configure or, before the first launch, by the environment:
//     PYCV_SIMT_ORDER=forward|reverse|random[:SEED]   in which order blocks run, and threads between two waits
//     PYCV_SIMT_ASYNC=eager|lazy                      asynchronous copies run when issued, or not before the wait
// Defaults: forward, lazy. Launches of several host threads run one after the other.
#pragma once

#include <cstddef>
#include <tuple>

#include "types.h"

namespace pycv::simt {

struct LaunchShape {
    dim3 grid, block;
    std::size_t shared_bytes;
};

// Throws CudaError if the shape exceeds a limit or a thread fails.
void launch(const void* kernel, const LaunchShape& shape, void (*body)(const void*), const void* arguments);

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t,
            Arguments... arguments) {
    struct Call {
        void (*kernel)(Parameters...);
        std::tuple<Parameters...> arguments;
    };
    const Call call{kernel, {static_cast<Parameters>(arguments)...}};
    launch(
        reinterpret_cast<const void*>(kernel), {grid, block, shared_bytes},
        [](const void* it) {
            const Call& call = *static_cast<const Call*>(it);
            std::apply(call.kernel, call.arguments);
        },
        &call);
}

}  // namespace pycv::simt

extern "C" {
// Sets what the environment variables say, by the same words; null leaves a setting as it is. Returns null, or what is
// wrong with them. Not while a launch runs.
__attribute__((visibility("default"))) const char* pycv_simt_configure(const char* order, const char* async);
// Context switches since the program began: a measure of the cost of what has run.
__attribute__((visibility("default"))) long long pycv_simt_switches();
}
