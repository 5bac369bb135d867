// A case is a small kernel with its launch and what must come out.
//
//     CASE(name) { ... }      one that must end well
//     TWINS(name) { ... }     a template on `bool Right`: `name` must end well, `name.wrong` has a planted bug
//
// Values<T> is a vector that kernels can read and write, so that cases also run on a GPU (tests/cuda/*_cases.cu).
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "device/launch.h"

namespace cases {

struct Case {
    std::string name;
    void (*run)();
};

inline std::vector<Case>& all() {
    static std::vector<Case> cases;
    return cases;
}

struct Register {
    Register(const std::string& name, void (*run)()) { all().push_back({name, run}); }
};

#define CASE(name)                                               \
    static void name();                                          \
    static const cases::Register registered_##name(#name, name); \
    static void name()

#define TWINS(name)                                                                      \
    template <bool Right>                                                                \
    static void name();                                                                  \
    static const cases::Register registered_##name(#name, name<true>);                   \
    static const cases::Register registered_##name##_wrong(#name ".wrong", name<false>); \
    template <bool Right>                                                                \
    static void name()

#if defined(PYCV_SIMT)
template <class T>
using Values = std::vector<T>;
inline void wait_for_device() {}
#else
inline void check(cudaError_t status) {
    if (status != cudaSuccess) throw pycv::cuda::CudaError(cudaGetErrorString(status));
}

template <class T>
struct Managed {
    using value_type = T;
    Managed() = default;
    template <class U>
    Managed(const Managed<U>&) {}
    T* allocate(std::size_t count) {
        void* address = nullptr;
        check(cudaMallocManaged(&address, count * sizeof(T)));
        return static_cast<T*>(address);
    }
    void deallocate(T* address, std::size_t) { cudaFree(address); }
    bool operator==(const Managed&) const { return true; }
};

template <class T>
using Values = std::vector<T, Managed<T>>;
inline void wait_for_device() { check(cudaDeviceSynchronize()); }
#endif

// What came out differs from what must.
struct WrongResult : std::runtime_error {
    using std::runtime_error::runtime_error;
};

template <class T, class Allocator = std::allocator<T>>
void expect(const std::vector<T, Allocator>& values, const std::vector<T>& expected) {
    wait_for_device();
    for (std::size_t i = 0; i < expected.size(); i++)
        if (!(values[i] == expected[i]))
            throw WrongResult("element " + std::to_string(i) + " is " + std::to_string(values[i]) + ", not " +
                              std::to_string(expected[i]));
}

// f(0), f(1), ... and no room for more.
template <class F>
auto table(int count, F f) {
    std::vector<decltype(f(0))> values;
    values.reserve(count);
    for (int i = 0; i < count; i++) values.push_back(f(i));
    return values;
}

}  // namespace cases
