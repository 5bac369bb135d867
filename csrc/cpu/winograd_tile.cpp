// The tiles of stride 1 (winograd_tile.h): F(2), F(4), F(5), F(6) of 3 x 3 and F(2), F(3), F(4) of 5 x 5 filters; for
// the phases of strided convolutions (winograd_phases.h) also F(3), F(5) of 2 x 2 and F(3), F(4) of 4 x 4 filters.
#include "winograd_passes.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <int M, int R>
struct PlainAxis {
    static constexpr int kPlanes = M + R - 1, kTaps = R, kOutputs = M, kFilters = kPlanes, kWindow = kPlanes, kStep = M;
    static constexpr bool kGradients = R % 2 == 1;

    template <class T, class V>
    [[gnu::always_inline]] static void input(V* in, V* out) {
        multiply_points_in_rows<InputMatrix<kPlanes>, T>(in, out);
    }
    template <class T, class V>
    [[gnu::always_inline]] static void output(V* in, V* out) {
        multiply_points_in_columns<OutputMatrix<M, R>, T>(in, out);
    }
    template <class T, class V>
    [[gnu::always_inline]] static void filter(V* in, V* out) {
        multiply_points_in_rows<FilterMatrix<M, R>, T>(in, out);
    }
    template <class T, class V>
    [[gnu::always_inline]] static void gradient(V* in, V* out) {
        multiply_points_in_rows<FilterMatrix<R, M>, T>(in, out);
    }
    template <class T, class V>
    [[gnu::always_inline]] static void taps(V* in, V* out) {
        multiply_points_in_columns<OutputMatrix<R, M>, T>(in, out);
    }
};

template <class T, int M, int R>
constexpr const TileTransforms<T>* kTile = &Tile<T, PlainAxis<M, R>>::kTable;

}  // namespace

template <class T>
const TileTransforms<T>* tile_transforms(int64_t m, int64_t r) {
    static constexpr const TileTransforms<T>* kAll[] = {kTile<T, 2, 3>, kTile<T, 4, 3>, kTile<T, 5, 3>, kTile<T, 6, 3>,
                                                        kTile<T, 2, 5>, kTile<T, 3, 5>, kTile<T, 4, 5>, kTile<T, 3, 2>,
                                                        kTile<T, 5, 2>, kTile<T, 3, 4>, kTile<T, 4, 4>};
    for (const TileTransforms<T>* tile : kAll)
        if (tile->m == m && tile->r == r) return tile;
    return nullptr;
}

template const TileTransforms<float>* tile_transforms<float>(int64_t, int64_t);
template const TileTransforms<double>* tile_transforms<double>(int64_t, int64_t);

}  // namespace pycv::cpu::PYCV_ISA
