// Fourier transforms of complex lines, one transform per vector lane: an element is a vector of real and a vector of
// imaginary parts, so that nothing is ever shuffled.
//
// Mixed radix 2, 3, 4, 6, 8 (Cooley and Tukey 1965): forward by decimation in frequency, inverse by decimation in
// time, which is the same flow graph backwards. The forward transform therefore leaves frequency f at place(f), the
// inverse takes it from there, and no element is moved for the sake of order. Neither divides by the length.
// Every stage reads and writes each element once: 16 = 4 * 4, 48 = 6 * 8 and 64 = 8 * 8 are two stages.
#pragma once

#include <cmath>

#include "integers.h"
#include "simd.h"

namespace pycv::cpu::PYCV_ISA {

template <class T>
struct Complex {
    Vec<T> re, im;
};

template <class T>
inline Complex<T> operator+(Complex<T> a, Complex<T> b) {
    return {a.re + b.re, a.im + b.im};
}
template <class T>
inline Complex<T> operator-(Complex<T> a, Complex<T> b) {
    return {a.re - b.re, a.im - b.im};
}
template <class T>
inline Complex<T> scaled(Complex<T> a, T factor) {
    return {a.re * factor, a.im * factor};
}

// A line of complex elements: the real parts of element i at data + i * step, the imaginary ones `im` further.
template <class T>
struct Line {
    T* data;
    int64_t step, im;

    Complex<T> get(int64_t i) const { return {load<T>(data + i * step), load<T>(data + i * step + im)}; }
    void set(int64_t i, Complex<T> z) const {
        store<T>(data + i * step, z.re);
        store<T>(data + i * step + im, z.im);
    }
};

namespace fft {

// Times exp(-i pi / 2), inverse: exp(i pi / 2).
template <bool Inverse, class T>
inline Complex<T> quarter_turn(Complex<T> z) {
    return Inverse ? Complex<T>{-z.im, z.re} : Complex<T>{z.im, -z.re};
}

// Times the twiddle factor, inverse: its conjugate.
template <bool Inverse, class T>
inline Complex<T> twiddled(Complex<T> z, const T* factor) {
    const Vec<T> re = broadcast<T>(factor[0]), im = broadcast<T>(Inverse ? -factor[1] : factor[1]);
    return {z.re * re - z.im * im, z.re * im + z.im * re};
}

// The transform of R elements in registers, in place and in order.
template <int R, bool Inverse, class T>
inline void butterfly(Complex<T>* z);

template <bool Inverse, class T>
inline void butterfly2(Complex<T>& a, Complex<T>& b) {
    const Complex<T> difference = a - b;
    a = a + b;
    b = difference;
}

template <bool Inverse, class T>
inline void butterfly3(Complex<T>& a, Complex<T>& b, Complex<T>& c) {
    constexpr T kSin60 = T(0.866025403784438646763723170752936183);
    const Complex<T> sum = b + c, turned = quarter_turn<Inverse>(scaled(b - c, kSin60));
    const Complex<T> middle = a - scaled(sum, T(0.5));
    a = a + sum;
    b = middle + turned;
    c = middle - turned;
}

template <bool Inverse, class T>
inline void butterfly4(Complex<T>& a, Complex<T>& b, Complex<T>& c, Complex<T>& d) {
    const Complex<T> sum = a + c, difference = a - c, other = b + d, turned = quarter_turn<Inverse>(b - d);
    a = sum + other;
    b = difference + turned;
    c = sum - other;
    d = difference - turned;
}

template <int R, bool Inverse, class T>
inline void butterfly(Complex<T>* z) {
    if constexpr (R == 2) {
        butterfly2<Inverse>(z[0], z[1]);
    } else if constexpr (R == 3) {
        butterfly3<Inverse>(z[0], z[1], z[2]);
    } else if constexpr (R == 4) {
        butterfly4<Inverse>(z[0], z[1], z[2], z[3]);
    } else if constexpr (R == 6) {
        // 2 and 3 are coprime: no twiddle factors (Good 1958). Input (3 i + 2 j) % 6, output (3 i + 4 j) % 6.
        butterfly3<Inverse>(z[0], z[2], z[4]);
        butterfly3<Inverse>(z[3], z[5], z[1]);
        butterfly2<Inverse>(z[0], z[3]);
        butterfly2<Inverse>(z[2], z[5]);
        butterfly2<Inverse>(z[4], z[1]);
        const Complex<T> one = z[5], four = z[2], two = z[4], five = z[1];
        z[1] = one, z[2] = two, z[4] = four, z[5] = five;
    } else {
        static_assert(R == 8);
        constexpr T kSin45 = T(0.707106781186547524400844362104849039);
        butterfly4<Inverse>(z[0], z[2], z[4], z[6]);
        butterfly4<Inverse>(z[1], z[3], z[5], z[7]);
        z[3] = scaled(z[3] + quarter_turn<Inverse>(z[3]), kSin45);
        z[5] = quarter_turn<Inverse>(z[5]);
        z[7] = scaled(quarter_turn<Inverse>(z[7]) - z[7], kSin45);
        Complex<T> out[8];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            out[i] = z[2 * i] + z[2 * i + 1];
            out[i + 4] = z[2 * i] - z[2 * i + 1];
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) z[i] = out[i];
    }
}

// One stage: sub-transforms of length radix * rest, whose elements j + q * rest are combined over q.
struct Stage {
    int radix;
    int64_t rest;
    int64_t twiddles;  // where those of j = 0 begin: rest x (radix - 1) complex numbers
};

template <int R, bool Inverse, class T>
void run_radix(const Stage& stage, int64_t size, const T* twiddles, Line<T> from, Line<T> to) {
    for (int64_t j = 0; j < stage.rest; ++j) {
        const T* factors = twiddles + stage.twiddles + j * 2 * (R - 1);
        for (int64_t first = j; first < size; first += R * stage.rest) {
            Complex<T> z[R];
#pragma GCC unroll 8
            for (int q = 0; q < R; ++q) z[q] = from.get(first + q * stage.rest);
            if (Inverse && j > 0)
#pragma GCC unroll 8
                for (int q = 1; q < R; ++q) z[q] = twiddled<true>(z[q], factors + 2 * (q - 1));
            butterfly<R, Inverse>(z);
            if (!Inverse && j > 0)
#pragma GCC unroll 8
                for (int q = 1; q < R; ++q) z[q] = twiddled<false>(z[q], factors + 2 * (q - 1));
#pragma GCC unroll 8
            for (int q = 0; q < R; ++q) to.set(first + q * stage.rest, z[q]);
        }
    }
}

template <bool Inverse, class T>
void run_stage(const Stage& stage, int64_t size, const T* twiddles, Line<T> from, Line<T> to) {
    switch (stage.radix) {
        case 2: return run_radix<2, Inverse>(stage, size, twiddles, from, to);
        case 3: return run_radix<3, Inverse>(stage, size, twiddles, from, to);
        case 4: return run_radix<4, Inverse>(stage, size, twiddles, from, to);
        case 6: return run_radix<6, Inverse>(stage, size, twiddles, from, to);
        default: return run_radix<8, Inverse>(stage, size, twiddles, from, to);
    }
}

// The radix of the first stage of a length 2^a 3^b, so that there are few stages: 6 takes up what 8 leaves over.
inline int next_radix(int64_t size) {
    int twos = 0;
    for (int64_t rest = size; rest % 2 == 0; rest /= 2) ++twos;
    if (size % 3 == 0) return twos % 3 == 1 || (twos % 3 == 2 && size % 9 == 0) ? 6 : 3;
    return twos % 3 == 0 ? 8 : twos % 3 == 2 || twos > 1 ? 4 : 2;
}

}  // namespace fft

// Whether a line can have this length.
inline bool is_fft_size(int64_t size) {
    while (size > 1 && size % 2 == 0) size /= 2;
    while (size > 1 && size % 3 == 0) size /= 3;
    return size == 1;
}

inline int fft_stages(int64_t size) {
    int stages = 0;
    for (; size > 1; size /= fft::next_radix(size)) ++stages;
    return stages;
}

// The transform of one length.
template <class T>
class Fft {
public:
    explicit Fft(int64_t size) : size_(size), twiddles_(new T[2 * size]), places_(new int64_t[size]) {
        int64_t used = 0;
        for (int64_t length = size; length > 1;) {
            const int radix = fft::next_radix(length);
            const int64_t rest = length / radix;
            stage_[stages_++] = {radix, rest, used};
            for (int64_t j = 0; j < rest; ++j)
                for (int q = 1; q < radix; ++q) {
                    const double angle = -2 * kPi * static_cast<double>(j * q) / static_cast<double>(length);
                    twiddles_[used++] = static_cast<T>(std::cos(angle));
                    twiddles_[used++] = static_cast<T>(std::sin(angle));
                }
            length = rest;
        }
        for (int64_t f = 0; f < size; ++f) {
            int64_t place = 0, rest = f;
            for (int i = 0; i < stages_; ++i) {
                place += rest % stage_[i].radix * stage_[i].rest;
                rest /= stage_[i].radix;
            }
            places_[f] = place;
        }
    }
    ~Fft() {
        delete[] twiddles_;
        delete[] places_;
    }
    Fft(const Fft&) = delete;
    Fft& operator=(const Fft&) = delete;

    int64_t size() const { return size_; }
    int stages() const { return stages_; }
    int64_t place(int64_t frequency) const { return places_[frequency]; }

    // `scratch` is a line of this length; it, `from` and `to` may be the same.
    void forward(Line<T> from, Line<T> to, Line<T> scratch) const {
        for (int i = 0; i < stages_; ++i)
            fft::run_stage<false>(stage_[i], size_, twiddles_, i > 0 ? scratch : from, i + 1 < stages_ ? scratch : to);
        if (stages_ == 0) to.set(0, from.get(0));
    }
    void inverse(Line<T> from, Line<T> to, Line<T> scratch) const {
        for (int i = stages_ - 1; i >= 0; --i)
            fft::run_stage<true>(stage_[i], size_, twiddles_, i + 1 < stages_ ? scratch : from, i > 0 ? scratch : to);
        if (stages_ == 0) to.set(0, from.get(0));
    }

private:
    static constexpr double kPi = 3.14159265358979323846;
    static constexpr int kMostStages = 40;

    int64_t size_;
    int stages_ = 0;
    fft::Stage stage_[kMostStages];
    T* twiddles_;
    int64_t* places_;
};

}  // namespace pycv::cpu::PYCV_ISA
