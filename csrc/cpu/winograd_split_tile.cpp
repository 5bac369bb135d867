// The tiles of 3 x 3 filters with stride 2 (winograd_tile.h) whose phases are transformed apart.
//
// Along an axis, output o is w0 x[2o] + w2 x[2o + 2] of the even pixels, a filter of two taps, plus w1 x[2o + 1] of the
// odd ones, of one tap. The first is F(M, 2) with M + 1 multiplications, the second takes M: 2 M + 1 for M outputs,
// instead of 3 M, and (2 M + 1)^2 instead of 9 M^2 in two dimensions: 1.44 (M = 2), 1.78 (M = 4) times fewer. The odd
// planes all have the same filter element.
//
// The gradient of the input has the same phases: of its pixels, every second one is the sum of two taps, the others
// have one. From M + 1 pixels of grad_output, a tile makes 2 M pixels, the first of which has one tap.
#include "winograd_passes.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

template <int M>
struct SplitAxis {
    static constexpr int kPlanes = 2 * M + 1, kTaps = 3, kOutputs = M, kFilters = M + 2;
    static constexpr int kWindow = 2 * M + 1, kStep = 2 * M;
    static constexpr bool kGradients = true;

    template <class T, class V>
    [[gnu::always_inline]] static void input(V* in, V* out) {
        V even[M + 1];
#pragma GCC unroll 9
        for (int i = 0; i <= M; ++i) even[i] = in[2 * i];
        multiply_points_in_rows<InputMatrix<M + 1>, T>(even, out);
#pragma GCC unroll 9
        for (int i = 0; i < M; ++i) out[M + 1 + i] = in[2 * i + 1];
    }
    template <class T, class V>
    [[gnu::always_inline]] static void output(V* in, V* out) {
        multiply_points_in_columns<OutputMatrix<M, 2>, T>(in, out);
#pragma GCC unroll 9
        for (int i = 0; i < M; ++i) out[i] = out[i] + in[M + 1 + i];
    }
    template <class T, class V>
    [[gnu::always_inline]] static void filter(V* in, V* out) {
        V even[] = {in[0], in[2]};
        multiply_points_in_rows<FilterMatrix<M, 2>, T>(even, out);
        out[M + 1] = in[1];
    }
    template <class T, class V>
    [[gnu::always_inline]] static void gradient(V* in, V* out) {
        multiply_points_in_rows<FilterMatrix<2, M>, T>(in, out);
#pragma GCC unroll 9
        for (int i = 0; i < M; ++i) out[M + 1 + i] = in[i];
    }
    template <class T, class V>
    [[gnu::always_inline]] static void taps(V* in, V* out) {
        V even[2], odd = in[M + 1];
#pragma GCC unroll 9
        for (int i = 1; i < M; ++i) odd = odd + in[M + 1 + i];
        multiply_points_in_columns<OutputMatrix<2, M>, T>(in, even);
        out[0] = even[0], out[1] = odd, out[2] = even[1];
    }
};

template <int M>
struct SplitInputAxis {
    static constexpr int kPlanes = 2 * M + 1, kTaps = 3, kOutputs = 2 * M, kFilters = M + 2;
    static constexpr int kWindow = M + 1, kStep = M;
    static constexpr bool kGradients = false;

    template <class T, class V>
    [[gnu::always_inline]] static void input(V* in, V* out) {
        multiply_points_in_rows<InputMatrix<M + 1>, T>(in, out);
#pragma GCC unroll 9
        for (int i = 0; i < M; ++i) out[M + 1 + i] = in[i];
    }
    template <class T, class V>
    [[gnu::always_inline]] static void output(V* in, V* out) {
        V even[M];
        multiply_points_in_columns<OutputMatrix<M, 2>, T>(in, even);
#pragma GCC unroll 9
        for (int i = 0; i < M; ++i) {
            out[2 * i] = in[M + 1 + i];
            out[2 * i + 1] = even[i];
        }
    }
    template <class T, class V>
    [[gnu::always_inline]] static void filter(V* in, V* out) {
        SplitAxis<M>::template filter<T>(in, out);
    }
};

}  // namespace

template <class T>
const TileTransforms<T>* split_transforms(int64_t m, bool grad_input) {
    static constexpr const TileTransforms<T>* kForward[] = {&Tile<T, SplitAxis<2>>::kTable,
                                                            &Tile<T, SplitAxis<4>>::kTable};
    static constexpr const TileTransforms<T>* kGradInput[] = {&Tile<T, SplitInputAxis<2>>::kTable,
                                                              &Tile<T, SplitInputAxis<4>>::kTable};
    return (grad_input ? kGradInput : kForward)[m == 4];
}

template const TileTransforms<float>* split_transforms<float>(int64_t, bool);
template const TileTransforms<double>* split_transforms<double>(int64_t, bool);

}  // namespace pycv::cpu::PYCV_ISA
