#include "tensor_core.h"

#include <bit>
#include <cstring>

#include "execution.h"
#include "float16.h"

namespace pycv::simt {
namespace {

constexpr int rows = 16, columns = 8;

void need_all_lanes(const Lanes& lanes, const char* what, Site site) {
    for (const void* operand : lanes.operands)
        if (operand == nullptr) fail(std::string(what) + " needs all 32 lanes of a warp", site);
}

template <MatrixType type>
float element(unsigned bits, int half) {
    const auto part = static_cast<std::uint16_t>(bits >> 16 * half);
    if constexpr (type == MatrixType::f16) return __half2float({part});
    if constexpr (type == MatrixType::bf16) return __bfloat162float({part});
    return std::bit_cast<float>(bits & 0xffffe000u);
}

// The float next to a double, towards zero.
float cut(double value) {
    return static_cast<float>(std::bit_cast<double>(std::bit_cast<std::uint64_t>(value) & ~std::uint64_t{0x1fffffff}));
}

template <MatrixType type>
void multiply_lanes(const Lanes& lanes, Site site) {
    need_all_lanes(lanes, "mma.sync", site);
    constexpr int packed = type == MatrixType::tf32 ? 1 : 2;  // elements of a register
    constexpr int depth = 8 * packed;
    float a[rows][depth], b[depth][columns], sums[rows][columns];
    for (int lane = 0; lane < warp_size; lane++) {
        const auto& own = *static_cast<const MatrixFragments*>(lanes.operands[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int half = 0; half < packed; half++) {
            const int k = t * packed + half;
            for (int i = 0; i < 4; i++) a[g + 8 * (i % 2)][k + depth / 2 * (i / 2)] = element<type>(own.a[i], half);
            for (int i = 0; i < 2; i++) b[k + depth / 2 * i][g] = element<type>(own.b[i], half);
        }
        for (int i = 0; i < 4; i++) sums[g + 8 * (i / 2)][2 * t + i % 2] = own.sums[i];
    }
    for (int row = 0; row < rows; row++)
        for (int k = 0; k < depth; k++)
            for (int column = 0; column < columns; column++) {
                const double product = static_cast<double>(a[row][k]) * b[k][column];
                sums[row][column] = cut(sums[row][column] + product);
            }
    for (int lane = 0; lane < warp_size; lane++) {
        auto& own = *static_cast<MatrixFragments*>(lanes.results[lane]);
        for (int i = 0; i < 4; i++) own.sums[i] = sums[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    }
}

// Lane l gets elements 2 * (l % 4) and the next of row l / 4; transposed, of column l / 4.
template <bool transposed>
void load_lanes(const Lanes& lanes, Site site) {
    need_all_lanes(lanes, "ldmatrix", site);
    std::uint16_t matrices[4][8][8];
    for (int lane = 0; lane < warp_size; lane++)
        std::memcpy(matrices[lane / 8][lane % 8], *static_cast<const void* const*>(lanes.operands[lane]), 16);
    for (int lane = 0; lane < warp_size; lane++) {
        auto* registers = static_cast<unsigned*>(lanes.results[lane]);
        const int line = lane / 4, first = lane % 4 * 2;
        for (int i = 0; i < 4; i++) {
            const auto& m = matrices[i];
            const unsigned low = transposed ? m[first][line] : m[line][first];
            const unsigned high = transposed ? m[first + 1][line] : m[line][first + 1];
            registers[i] = low | high << 16;
        }
    }
}

}  // namespace

void multiply_fragments(MatrixType type, MatrixFragments& lane, Site site) {
    const LaneOperation operation = type == MatrixType::f16    ? multiply_lanes<MatrixType::f16>
                                    : type == MatrixType::bf16 ? multiply_lanes<MatrixType::bf16>
                                                               : multiply_lanes<MatrixType::tf32>;
    collective(0xffffffffu, "mma.sync", operation, &lane, &lane, site);
}

void load_fragments(const void* row, bool transposed, unsigned (&registers)[4], Site site) {
    constexpr std::size_t bytes = 16;
    check_aligned(row, bytes, "ldmatrix of a row", site);
    if (!execution.shared.contains(row, bytes)) fail("ldmatrix reads outside shared memory", site);
    races::reads(row, bytes, __builtin_return_address(0));
    collective(0xffffffffu, "ldmatrix", transposed ? load_lanes<true> : load_lanes<false>, &row, registers, site);
}

}  // namespace pycv::simt
