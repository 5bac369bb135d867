// What a CUDA call or launch that failed throws, on a GPU and under host execution alike.
#pragma once

#include <stdexcept>
#include <string>

namespace pycv::cuda {

class CudaError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

}  // namespace pycv::cuda
