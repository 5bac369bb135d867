// Division by a number that a plan knows: one multiplication and a shift on the device.
//
// Granlund and Montgomery 1994, "Division by invariant integers using multiplication", figure 4.1: with 2^shift the
// power of two not below the divisor, n / divisor = (mulhi(n, magic) + n) >> shift for every n < 2^31 (the sum does not
// overflow there). A plan whose numbers may be larger asks for the division of the machine instead.
#pragma once

#include <cstdint>

#include "device/launch.h"

namespace pycv::cuda {

class Divider {
public:
    // Divides what is at most `largest`. A divisor of 0, the extent of something empty, is one that nobody uses.
    Divider(int64_t divisor, int64_t largest)
        : divisor_(divisor > 0 ? divisor : 1), narrow_(divisor_ <= kNarrow && largest <= kNarrow) {
        if (!narrow_) return;
        while ((int64_t{1} << shift_) < divisor_) ++shift_;
        magic_ = static_cast<unsigned>((uint64_t{1} << 32) * ((uint64_t{1} << shift_) - divisor_) / divisor_ + 1);
    }

    __device__ __forceinline__ int64_t quotient(int64_t value) const {
        if (!narrow_) return value / divisor_;
        const unsigned n = static_cast<unsigned>(value);
        return (__umulhi(n, magic_) + n) >> shift_;
    }

    // Leaves the quotient in `value` and returns the remainder.
    __device__ __forceinline__ int64_t split(int64_t& value) const {
        const int64_t whole = quotient(value), rest = value - whole * divisor_;
        value = whole;
        return rest;
    }

private:
    static constexpr int64_t kNarrow = INT32_MAX;

    int64_t divisor_;
    unsigned magic_ = 0;
    int shift_ = 0;
    bool narrow_;
};

}  // namespace pycv::cuda
