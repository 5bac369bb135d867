// The register tile of direct convolution where computed channels are few: vectors of neighbouring positions times
// channels,
//
//     sums[channel][i] (+)= sum over steps s of source[offset[s] + i] * weight[s][channel]
//
// Lanes of channels would be mostly empty. The padded copy (direct_tile.h), its offsets and the packed weight are those
// of the other tile (direct_microkernel.h); here the source is loaded and the weight broadcast.
#pragma once

#include "direct_microkernel.h"
#include "integers.h"
#include "parallel.h"
#include "vector_moves.h"

namespace pycv::cpu::PYCV_ISA {

#if PYCV_VECTOR_BYTES == 64 || defined(__aarch64__)
inline constexpr int kVectorRegisters = 32;
#else
inline constexpr int kVectorRegisters = 16;
#endif

// The most vectors of positions whose sums for so many channels fit the registers, beside the operands.
constexpr int position_vectors(int channels) {
    int vectors = 1;
    while (vectors < 8) {
        const int next = vectors + 1, operands = next < channels ? next : channels;
        if (next * channels + operands + 1 > kVectorRegisters) break;
        vectors = next;
    }
    return vectors;
}

// kTileWidth weights per step. Channels lie `pitch` elements apart in the sums, which are added to if `add`.
template <class T>
using PositionsMicrokernel = void (*)(const TileTerms<T>& terms, T* sums, int64_t pitch, bool add);

// For up to kTileHeight channels and position_vectors(channels) vectors.
template <class T>
PositionsMicrokernel<T> positions_microkernel(int64_t channels, int64_t vectors);

// Runs one sum over rows of vectors of positions, for any number of channels.
template <class T>
inline void multiply_vectors(const TileTerms<T>& terms, int64_t rows, int64_t vectors, int64_t channels, T* sums,
                             int64_t row_pitch, int64_t channel_pitch, bool add) {
    if (rows <= 0 || vectors <= 0) return;
    const int64_t groups = divide_up(channels, kTileHeight);
    const int64_t most = position_vectors(static_cast<int>(divide_up(channels, groups)));
    const int64_t across = divide_up(vectors, most);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < across; ++i) {
            const Range v = share(vectors, static_cast<int>(i), static_cast<int>(across));
            for (int64_t j = 0; j < groups; ++j) {
                const Range c = share(channels, static_cast<int>(j), static_cast<int>(groups));
                TileTerms<T> part = terms.at(r, v.begin * lanes<T>);
                part.lanes += c.begin;
                positions_microkernel<T>(c.end - c.begin, v.end - v.begin)(
                    part, sums + c.begin * channel_pitch + r * row_pitch + v.begin * lanes<T>, channel_pitch, add);
            }
        }
}

// From the sums of one channel, [phase][row][column], to the computed tensor.
template <class T>
struct PositionsOutput {
    int64_t height, width;        // computed
    int64_t phases_h, phases_w;   // position (y, x) is that of phase (y % phases_h, x % phases_w)
    T* out;
    int64_t out_row, out_column;
    const T* residual;  // or null
    int64_t residual_row, residual_column;
    T bias;
    bool relu;

    void write(const T* sums, int64_t phase, int64_t pitch) const {
        for (int64_t y = 0; y < height; ++y) {
            const T* row = sums + y % phases_h * phases_w * phase + y / phases_h * pitch;
            for (int64_t x = 0; x < width; x += lanes<T>) write_vector(values(row, phase, x), y, x);
        }
    }

private:
    // The sums at columns x and following, phases interleaved; what lies behind the last column is anything.
    Vec<T> values(const T* row, int64_t phase, int64_t x) const {
        if (phases_w == 1) return load<T>(row + x);
        Vec<T> v{};
        if (phases_w == 2) {
            Vec<shuffles::Index<T>> pick{};
            for (int i = 0; i < lanes<T>; ++i) pick[i] = i / 2 + i % 2 * lanes<T>;
            return __builtin_shuffle(load<T>(row + x / 2), load<T>(row + phase + x / 2), pick);
        }
        for (int64_t i = 0; i < smaller(lanes<T>, width - x); ++i)
            v[i] = row[(x + i) % phases_w * phase + (x + i) / phases_w];
        return v;
    }

    void write_vector(Vec<T> v, int64_t y, int64_t x) const {
        const int64_t count = smaller(lanes<T>, width - x);
        v += broadcast<T>(bias);
        if (residual) {
            const T* from = residual + y * residual_row + x * residual_column;
            for (int64_t i = 0; i < count; ++i) v[i] += from[i * residual_column];
        }
        if (relu) v = PYCV_ISA::relu<T>(v);
        T* to = out + y * out_row + x * out_column;
        if (out_column == 1 && count == lanes<T>) return store<T>(to, v);
        alignas(64) T part[lanes<T>];
        store<T>(part, v);
        for (int64_t i = 0; i < count; ++i) to[i * out_column] = part[i];
    }
};

}  // namespace pycv::cpu::PYCV_ISA
