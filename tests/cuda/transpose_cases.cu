// transpose: tiles that are full and ragged, more matrices than one, rows with gaps, every width of elements, empty.
#include <cstdint>

#include "../simt/cases.h"
#include "transpose.h"

using namespace pycv;
using namespace pycv::cuda;

namespace {

// Gaps of both sides hold `outside`, before and after.
template <class Bits>
void check(Transposition t, DType dtype) {
    constexpr Bits outside = 0xfff;
    const auto value = [](int64_t b, int64_t row, int64_t column) {
        return static_cast<Bits>((b * 7 + row * 61 + column * 3) % 4093);
    };
    cases::Values<Bits> from(t.batch * t.from_batch + 1, outside), to(t.batch * t.to_batch + 1, outside);
    std::vector<Bits> expected(to.begin(), to.end());
    for (int64_t b = 0; b < t.batch; b++)
        for (int64_t row = 0; row < t.rows; row++)
            for (int64_t column = 0; column < t.columns; column++) {
                from[b * t.from_batch + row * t.from_row + column] = value(b, row, column);
                expected[b * t.to_batch + column * t.to_row + row] = value(b, row, column);
            }
    transpose(from.data(), to.data(), t, dtype, nullptr);
    cases::expect(to, expected);
}

CASE(transpose_layouts) {
    const int64_t channels[] = {1, 3, 32, 33, 70}, positions[] = {1, 31, 64, 65};
    for (const int64_t c : channels)
        for (const int64_t p : positions) {
            check<uint32_t>(Transposition::nchw_to_nhwc(2, c, p), DType::f32);
            check<uint64_t>(Transposition::nhwc_to_nchw(3, c, p), DType::f64);
            check<uint16_t>(Transposition::nhwc_to_nchw(1, c, p), DType::bf16);
        }
}

CASE(transpose_with_gaps) { check<uint16_t>({2, 40, 33, 40 * 35 + 4, 35, 33 * 47 + 1, 47}, DType::f16); }

CASE(transpose_nothing) {
    check<uint32_t>(Transposition::nchw_to_nhwc(0, 3, 5), DType::f32);
    check<uint32_t>(Transposition::nchw_to_nhwc(2, 0, 5), DType::f32);
}

}  // namespace
