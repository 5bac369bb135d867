// Logical tensors in float64, and their images in guarded memory in some dtype and layout.
#pragma once

#include <algorithm>
#include <cmath>
#include <ostream>
#include <random>
#include <vector>

#include "../../csrc/common/problem.h"
#include "guarded.h"

// A logical (n, c, d, h, w) tensor: dense float64, the side that the references compute on.
struct Tensor {
    int64_t n, c;
    pycv::Spatial size;
    std::vector<double> values;

    Tensor(int64_t n, int64_t c, pycv::Spatial size)
        : n(n), c(c), size(size), values(static_cast<size_t>(n * c * size.count())) {}

    size_t index(int64_t i, int64_t j, int64_t z, int64_t y, int64_t x) const {
        return static_cast<size_t>((((i * c + j) * size.d + z) * size.h + y) * size.w + x);
    }
    double& at(int64_t i, int64_t j, int64_t z, int64_t y, int64_t x) { return values[index(i, j, z, y, x)]; }
    double at(int64_t i, int64_t j, int64_t z, int64_t y, int64_t x) const { return values[index(i, j, z, y, x)]; }
};

// Small integers, many of them 0: their products and sums are exact in every order, in fp32 too.
inline void fill_integers(std::vector<double>& values, std::mt19937& random) {
    for (double& v : values) v = static_cast<int>(random() % 7) - 3;
}

enum class Layout { nchw, nhwc, nchw_slice, nhwc_slice };
constexpr Layout kLayouts[] = {Layout::nchw, Layout::nhwc, Layout::nchw_slice, Layout::nhwc_slice};

// NaN, both infinities and -0 in some places, where an op says what becomes of them.
inline void sprinkle_specials(std::vector<double>& values, std::mt19937& random) {
    const double specials[] = {NAN, INFINITY, -INFINITY, -INFINITY, -0.0};
    for (double& v : values)
        if (random() % 4 == 0) v = specials[random() % 5];
}

inline std::ostream& operator<<(std::ostream& out, Layout layout) {
    constexpr const char* kNames[] = {"nchw", "nhwc", "nchw_slice", "nhwc_slice"};
    return out << kNames[static_cast<int>(layout)];
}
inline std::ostream& operator<<(std::ostream& out, Side side) {
    return out << (side == Side::front ? "front" : "back");
}

// A slice is a range of the channels of a wider tensor.
inline pycv::Strides strides_of(Layout layout, int64_t c, pycv::Spatial s) {
    const int64_t wide = layout == Layout::nchw_slice || layout == Layout::nhwc_slice ? c + 3 : c;
    if (layout == Layout::nchw || layout == Layout::nchw_slice) return {wide * s.count(), s.count(), s.h * s.w, s.w, 1};
    return {wide * s.count(), 1, wide * s.h * s.w, wide * s.w, wide};
}

// A tensor as a kernel sees it. Elements that belong to no index keep their pattern; check() looks at them too.
template <class T>
class Image {
public:
    Image(const Tensor& like, pycv::Strides strides, Side side)
        : like_(like), strides_(strides), memory_(extent() * static_cast<int64_t>(sizeof(T)), side, sizeof(T)) {}

    T* data() const { return static_cast<T*>(memory_.data()); }

    void write(const Tensor& source) {
        for_each([&](size_t i, int64_t offset) { data()[offset] = static_cast<T>(source.values[i]); });
    }

    // The largest error in units of `scale` + |expected|; infinity if anything else was written.
    double error(const Tensor& expected, double scale) {
        std::vector<char> used(static_cast<size_t>(extent()), 0);
        double worst = 0;
        for_each([&](size_t i, int64_t offset) {
            used[static_cast<size_t>(offset)] = 1;
            const double want = expected.values[i], got = data()[offset];
            const bool same = got == want || (std::isnan(got) && std::isnan(want));
            const double difference = same ? 0 : std::abs(got - want) / (scale + std::abs(want));
            worst = std::max(worst, difference >= 0 ? difference : INFINITY);
        });
        const unsigned char* bytes = reinterpret_cast<const unsigned char*>(data());
        for (size_t i = 0; i < used.size(); ++i)
            for (size_t b = 0; b < sizeof(T); ++b)
                if (!used[i] && bytes[i * sizeof(T) + b] != 0xff) worst = INFINITY;
        return memory_.intact() ? worst : INFINITY;
    }

private:
    int64_t extent() const {
        const auto& s = like_.size;
        if (like_.values.empty()) return 0;
        return (like_.n - 1) * strides_.n + (like_.c - 1) * strides_.c + (s.d - 1) * strides_.d +
               (s.h - 1) * strides_.h + (s.w - 1) * strides_.w + 1;
    }

    template <class Body>
    void for_each(const Body& body) const {
        for (int64_t i = 0; i < like_.n; ++i)
            for (int64_t j = 0; j < like_.c; ++j)
                for (int64_t z = 0; z < like_.size.d; ++z)
                    for (int64_t y = 0; y < like_.size.h; ++y)
                        for (int64_t x = 0; x < like_.size.w; ++x)
                            body(like_.index(i, j, z, y, x),
                                 i * strides_.n + j * strides_.c + z * strides_.d + y * strides_.h + x * strides_.w);
    }

    Tensor like_;
    pycv::Strides strides_;
    Guarded memory_;
};
