// In which order threads run and when asynchronous copies happen: launch.h says how to choose.
#pragma once

#include <cstdint>

namespace pycv::simt {

enum class Order { forward, reverse, random };

struct Configuration {
    Order order = Order::forward;
    std::uint64_t seed = 0;
    bool lazy = true;
};

// The one in force. Throws CudaError if the environment says something that is none.
const Configuration& configuration();

}  // namespace pycv::simt
