// What every .cu file starts with: the CUDA language, and the one way to launch a kernel.
//
// The same sources compile twice. nvcc makes the GPU code. A host compiler with PYCV_SIMT defined (csrc/simt) makes
// code that executes the kernels on the CPU, one fiber per CUDA thread, so that they can be tested without a GPU.
// Rules that keep a kernel fit for both: docs/architecture.md, "How the CUDA kernels run without a GPU".
//
//     launch(kernel, grid, block, shared_bytes, stream, arguments...)   throws CudaError with the kernel's name
//     PYCV_SHARED(T, name)    in a kernel: `T* name`, the dynamic shared memory (shared_bytes of the launch)
//     PYCV_SITE, PYCV_SITE_ARGUMENT    of a wrapper: where its caller stands, which host execution reports
#pragma once

#include <cstddef>

#include "error.h"

#if defined(PYCV_SIMT)

#include "../../simt/cuda.h"
#include "../../simt/launch.h"

#define PYCV_SHARED(T, name) T* const name = static_cast<T*>(::pycv::simt::dynamic_shared())
#define PYCV_SITE , ::pycv::simt::Site site = ::pycv::simt::Site::current()
#define PYCV_SITE_ARGUMENT , site

namespace pycv::cuda {
using simt::launch;
}

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define PYCV_SHARED(T, name)                                               \
    extern __shared__ __align__(1024) unsigned char pycv_dynamic_shared[]; \
    T* const name = reinterpret_cast<T*>(pycv_dynamic_shared)
#define PYCV_SITE
#define PYCV_SITE_ARGUMENT

namespace pycv::cuda {

// Shared memory that a launch may ask for without the kernel having opted in to more.
inline constexpr std::size_t shared_bytes_without_opt_in = 48 * 1024;

inline void check_launch(cudaError_t status, const void* kernel) {
    if (status == cudaSuccess) return;
    const char* name = nullptr;
    if (cudaFuncGetName(&name, kernel) != cudaSuccess) name = "a kernel";
    static_cast<void>(cudaGetLastError());  // what is thrown here must not be met again after the next launch
    throw CudaError(std::string(name) + ": " + cudaGetErrorString(status));
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
            Arguments... arguments) {
    const void* address = reinterpret_cast<const void*>(kernel);
    if (shared_bytes > shared_bytes_without_opt_in)
        check_launch(
            cudaFuncSetAttribute(address, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
            address);
    // clang-format off: it takes the brackets of a launch for templates
    kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
    // clang-format on
    check_launch(cudaGetLastError(), address);
}

}  // namespace pycv::cuda

#endif
