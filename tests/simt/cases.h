// A case is a small kernel with its launch and what must come out. Host execution ends it well, or by an exception.
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "device/launch.h"

namespace cases {

struct Case {
    const char* name;
    void (*run)();
};

inline std::vector<Case>& all() {
    static std::vector<Case> cases;
    return cases;
}

struct Register {
    Register(const char* name, void (*run)()) { all().push_back({name, run}); }
};

// What came out differs from what must.
struct WrongResult : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Defines and registers a case: CASE(name) { ... }
#define CASE(name)                                               \
    static void name();                                          \
    static const cases::Register registered_##name(#name, name); \
    static void name()

template <class T>
void expect(const std::vector<T>& values, const std::vector<T>& expected) {
    for (std::size_t i = 0; i < expected.size(); i++)
        if (!(values[i] == expected[i]))
            throw WrongResult("element " + std::to_string(i) + " is " + std::to_string(values[i]) + ", not " +
                              std::to_string(expected[i]));
}

// 0, 1, ...
template <class T>
std::vector<T> iota(int count) {
    std::vector<T> values(count);
    for (int i = 0; i < count; i++) values[i] = static_cast<T>(i);
    return values;
}

}  // namespace cases
