// Runs every kernel of csrc/cpu on awkward problems, between guard pages, against plain loops. No torch, no Python.
//
// `python -m tests.native` builds and runs it: natively, with sanitizers, and for other machines under an emulator.
// It walks the table of kernels, so that a new algorithm of a known op is tested without an edit here. Each problem
// runs in a number of variants (dtype, layout, epilogue, threads, side of the guard page) drawn from a fixed seed.
//
//     selftest [variants per problem [failures to stop at [part parts]]]     PYCV_CPU_ISA picks the instruction set
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>

#include "../../csrc/cpu/plan.h"
#include "reference.h"

extern pycv::cpu::KernelEntry __start_pycv_kernels[];
extern pycv::cpu::KernelEntry __stop_pycv_kernels[];

using namespace pycv;
using namespace pycv::cpu;

namespace {

int runs = 0, failures = 0, failures_allowed = 10;
std::mt19937 random_bits(20240229);

template <class T>
T pick(std::initializer_list<T> values) {
    return values.begin()[random_bits() % values.size()];
}
bool coin() { return random_bits() % 2; }

// What runs now, told when a kernel leaves its buffers (under AddressSanitizer it tells the rest).
std::string current;

void tell_current() {
    const std::string line = "while running " + current + "\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

[[maybe_unused]] void crashed(int signal) {
    tell_current();
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

// Exact (allowed = 0) where the data are integers.
void report(double error, double allowed) {
    ++runs;
    if (error <= allowed) return;
    ++failures;
    std::printf("FAILED %s: error %g, allowed %g\n", current.c_str(), error, allowed);
    if (failures >= failures_allowed) {
        std::printf("too many failures\n");
        std::exit(1);
    }
}

template <class... Parts>
void describe(const Parts&... parts) {
    std::ostringstream line;
    ((line << parts << ' '), ...);
    current = line.str();
}

template <class T>
constexpr const char* dtype_name = sizeof(T) == 8 ? "f64" : "f32";
template <class T>
constexpr DType dtype_of = sizeof(T) == 8 ? DType::f64 : DType::f32;

std::string text(Spatial s) { return std::to_string(s.d) + "x" + std::to_string(s.h) + "x" + std::to_string(s.w); }
std::string text(Pass pass) {
    return pass == Pass::forward ? "forward" : pass == Pass::grad_input ? "grad_input" : "grad_weight";
}

// ------------------------------------------------------------------------------------------------ convolution

struct ConvCase {
    int64_t n, c, k, groups;
    Spatial size, filter, stride, padding, dilation;
    Spatial extra;  // outputs beyond the last complete window (a larger right padding)
};

constexpr Spatial kOne{1, 1, 1}, kZero{0, 0, 0};

const ConvCase kConvCases[] = {
    {1, 1, 1, 1, {1, 1, 1}, {1, 1, 1}, kOne, kZero, kOne, kZero},
    {3, 19, 33, 1, {1, 1, 1}, {1, 1, 1}, kOne, kZero, kOne, kZero},   // images of one pixel: thin products
    {21, 40, 23, 1, {1, 1, 1}, {1, 1, 1}, kOne, kZero, kOne, kZero},  // ... and others
    {2, 3, 5, 1, {1, 7, 9}, {1, 3, 3}, kOne, {0, 1, 1}, kOne, kZero},
    {1, 17, 33, 1, {1, 5, 19}, {1, 3, 3}, kOne, {0, 1, 1}, kOne, kZero},
    {2, 16, 64, 1, {1, 4, 16}, {1, 1, 1}, kOne, kZero, kOne, kZero},
    {1, 19, 31, 1, {1, 6, 6}, {1, 1, 1}, {1, 2, 2}, kZero, kOne, kZero},
    {2, 48, 16, 1, {1, 13, 13}, {1, 1, 1}, kOne, kZero, kOne, kZero},  // grad_weight: inputs in rows, read in place
    {1, 3, 18, 1, {1, 23, 21}, {1, 7, 7}, {1, 2, 2}, {0, 3, 3}, kOne, kZero},
    {1, 4, 6, 2, {1, 11, 8}, {1, 3, 2}, {1, 2, 1}, {0, 2, 0}, {1, 1, 3}, kZero},
    {2, 12, 12, 12, {1, 9, 9}, {1, 3, 3}, kOne, {0, 1, 1}, kOne, kZero},
    {1, 6, 18, 6, {1, 10, 5}, {1, 5, 1}, {1, 3, 1}, {0, 2, 2}, kOne, kZero},
    {1, 2, 3, 1, {4, 5, 6}, {3, 2, 3}, {1, 2, 2}, {1, 1, 1}, {1, 2, 1}, kZero},
    {3, 5, 4, 1, {1, 1, 37}, {1, 1, 5}, {1, 1, 2}, {0, 0, 4}, {1, 1, 3}, kZero},
    {1, 3, 4, 1, {1, 6, 6}, {1, 3, 3}, {1, 2, 2}, {0, 4, 4}, kOne, kZero},  // whole windows in the padding
    {1, 2, 3, 1, {1, 5, 5}, {1, 3, 3}, {1, 4, 4}, kZero, kOne, kZero},      // input that no window reaches
    {1, 2, 3, 1, {1, 5, 6}, {1, 4, 4}, kOne, {0, 1, 1}, kOne, {0, 1, 1}},   // "same" padding of an even filter
    {2, 65, 7, 1, {1, 3, 3}, {1, 3, 3}, kOne, {0, 1, 1}, kOne, kZero},
    {2, 6, 7, 1, {1, 39, 45}, {1, 3, 3}, kOne, {0, 1, 1}, kOne, kZero},  // grad_weight: long sums shared by threads
    {2, 24, 24, 24, {1, 5, 9}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, kOne, kZero},
    {1, 3, 20, 1, {1, 44, 70}, {1, 11, 11}, {1, 4, 4}, {0, 2, 2}, kOne, kZero},
    {1, 2, 19, 1, {1, 40, 33}, {1, 9, 8}, kOne, {0, 4, 3}, kOne, kZero},  // a large filter, several tiles
    {0, 3, 4, 1, {1, 5, 5}, {1, 3, 3}, kOne, {0, 1, 1}, kOne, kZero},     // empty batch
    {2, 0, 4, 1, {1, 5, 5}, {1, 3, 3}, kOne, {0, 1, 1}, kOne, kZero},     // no input channels
};

int64_t out_extent(int64_t size, int64_t filter, int64_t stride, int64_t padding, int64_t dilation, int64_t extra) {
    return (size + 2 * padding - dilation * (filter - 1) - 1) / stride + 1 + extra;
}

// Whether a name is among those of a list.
bool among(const std::string& list, const std::string& name) {
    return (' ' + list + ' ').find(' ' + name + ' ') != std::string::npos;
}

bool takes_winograd(const std::string& tile, const ConvProblem& p) {
    const Spatial f = p.filter, s = p.stride;
    if (p.dilation.count() != 1) return false;
    if (tile.rfind("split-", 0) == 0) return f.h == 3 && f.w == 3 && s.h == 2 && s.w == 2;
    if (tile.rfind("s2d-", 0) == 0) {
        if (p.pass == Pass::grad_weight || s.count() == 1 || s.h > f.h || s.w > f.w || s.h > 4 || s.w > 4) return false;
        if (p.pass == Pass::grad_input && (p.padding.h >= f.h || p.padding.w >= f.w)) return false;
        const int64_t taps = std::max((f.h + s.h - 1) / s.h, (f.w + s.w - 1) / s.w);
        return among(taps == 2 ? "f3 f5" : taps == 3 ? "f2 f4" : taps == 4 ? "f3 f4" : "", tile.substr(4));
    }
    return f.h == f.w && s.count() == 1 && among(f.h == 3 ? "f2 f4 f5 f6" : f.h == 5 ? "f2 f3 f4" : "", tile);
}

// The `supports` of kernels/cpu.py, as far as these cases need it.
bool takes(const std::string& algorithm, const ConvProblem& p) {
    if (algorithm == "implicit_gemm") return p.filter.count() == 1;
    const bool winograd = algorithm.rfind("winograd/", 0) == 0, fft = algorithm == "fft";
    if ((winograd || fft) && (p.size.d != 1 || p.filter.d != 1 || p.out.d != 1 || p.padding.d != 0)) return false;
    if (fft) return p.dilation.h == 1 && p.dilation.w == 1 && p.stride.h <= p.filter.h && p.stride.w <= p.filter.w;
    return !winograd || takes_winograd(algorithm.substr(9), p);
}

// Exact on integers, or (where transforms round) nearly so: errors as large as those of the largest sum anywhere.
template <class T>
double allowed(const std::string& algorithm) {
    const bool rounds = algorithm == "fft" || algorithm.rfind("winograd/", 0) == 0;
    return !rounds ? 0 : sizeof(T) == 8 ? 1e-12 : 1e-4;
}

double largest(const Tensor& tensor) {
    double found = 0;
    for (const double v : tensor.values) found = std::max(found, std::abs(v));
    return found;
}

template <class T>
void run_conv(const KernelEntry& entry, ConvProblem p, Tensor input, Tensor weight, Tensor output) {
    const Side side = coin() ? Side::front : Side::back;
    Tensor& computed = p.pass == Pass::forward ? output : p.pass == Pass::grad_input ? input : weight;
    const Layout layout = kLayouts[random_bits() % 4], output_layout = kLayouts[random_bits() % 4];
    const Layout weight_layout = coin() ? Layout::nchw : Layout::nhwc;
    p.dtype = dtype_of<T>;
    p.input = strides_of(layout, input.c, input.size);
    p.weight = strides_of(weight_layout, weight.c, weight.size);
    p.output = strides_of(output_layout, output.c, output.size);
    p.residual = strides_of(kLayouts[random_bits() % 4], computed.c, computed.size);
    const bool epilogue = p.pass != Pass::grad_weight;
    p.bias = epilogue && coin(), p.has_residual = epilogue && coin(), p.relu = epilogue && coin();
    const int threads = pick({1, 3});
    const int64_t limit = pick<int64_t>({0, 1 << 14, 1 << 28});

    Image<T> input_image(input, p.input, side), weight_image(weight, p.weight, side);
    Image<T> output_image(output, p.output, side), residual_image(computed, p.residual, side);
    if (p.pass != Pass::grad_input) input_image.write(input);
    if (p.pass != Pass::grad_weight) weight_image.write(weight);
    if (p.pass != Pass::forward) output_image.write(output);

    std::fill(computed.values.begin(), computed.values.end(), 0.0);
    reference::conv(p, input, weight, output);

    Tensor residual(computed.n, computed.c, computed.size), bias(1, computed.c, kOne);
    fill_integers(residual.values, random_bits);
    fill_integers(bias.values, random_bits);
    residual_image.write(residual);
    Image<T> bias_image(bias, {1, 1, 1, 1, 1}, side);
    bias_image.write(bias);
    const size_t plane = static_cast<size_t>(computed.size.count());
    for (size_t i = 0; i < computed.values.size(); ++i) {
        double& v = computed.values[i];
        if (p.bias) v += bias.values[i / plane % static_cast<size_t>(computed.c)];
        if (p.has_residual) v += residual.values[i];
        if (p.relu) v = std::max(v, 0.0);
    }

    describe("conv", entry.algorithm, text(p.pass), dtype_name<T>, "n", p.n, "c", p.c, "k", p.k, "g", p.groups, "size",
             text(p.size), "filter", text(p.filter), "layouts", layout, output_layout, weight_layout, "bias", p.bias,
             "residual", p.has_residual, "relu", p.relu, "threads", threads, "limit", limit, side);
    const std::unique_ptr<ConvPlan> plan(entry.conv(p, threads, limit));
    Guarded prepared(plan->prepared_weight_bytes(), side, 64), workspace(plan->workspace_bytes(), side, 64);
    void* used_weight = weight_image.data();
    const bool plain = plan->takes_plain_weight() && (threads == 1) != p.bias;
    if (p.pass != Pass::grad_weight && plan->prepared_weight_bytes() && !plain) {
        plan->prepare_weight(weight_image.data(), prepared.data());
        used_weight = prepared.data();
    }
    plan->run({input_image.data(), used_weight, output_image.data(), p.bias ? bias_image.data() : nullptr,
               p.has_residual ? residual_image.data() : nullptr, workspace.data(), nullptr, nullptr, plain});

    Image<T>& computed_image = p.pass == Pass::forward      ? output_image
                               : p.pass == Pass::grad_input ? input_image
                                                            : weight_image;
    double error = computed_image.error(computed, 1 + largest(computed));
    if (!prepared.intact() || !workspace.intact()) error = INFINITY;
    report(error, allowed<T>(entry.algorithm));
}

void test_conv(const KernelEntry& entry, int variants) {
    for (const ConvCase& k : kConvCases) {
        const Spatial out{out_extent(k.size.d, k.filter.d, k.stride.d, k.padding.d, k.dilation.d, k.extra.d),
                          out_extent(k.size.h, k.filter.h, k.stride.h, k.padding.h, k.dilation.h, k.extra.h),
                          out_extent(k.size.w, k.filter.w, k.stride.w, k.padding.w, k.dilation.w, k.extra.w)};
        for (Pass pass : {Pass::forward, Pass::grad_input, Pass::grad_weight})
            for (int v = 0; v < variants; ++v) {
                ConvProblem p{};
                p.pass = pass, p.n = k.n, p.c = k.c, p.k = k.k, p.groups = k.groups;
                p.size = k.size, p.filter = k.filter, p.out = out;
                p.stride = k.stride, p.padding = k.padding, p.dilation = k.dilation;
                if (!takes(entry.algorithm, p)) continue;
                Tensor input(k.n, k.c, k.size), weight(k.k, k.c / k.groups, k.filter), output(k.n, k.k, out);
                fill_integers(input.values, random_bits);
                fill_integers(weight.values, random_bits);
                fill_integers(output.values, random_bits);
                v % 4 == 3 ? run_conv<double>(entry, p, input, weight, output)
                           : run_conv<float>(entry, p, input, weight, output);
            }
    }
}

// ------------------------------------------------------------------------------------------------ GEMM

struct GemmCase {
    int64_t batch, m, n, k;
};

const GemmCase kGemmCases[] = {{1, 1, 1, 1},     {1, 1, 40, 33},  {1, 33, 1, 70},   {2, 5, 3, 0},    {1, 17, 65, 16},
                               {3, 7, 34, 129},  {1, 100, 49, 3}, {1, 64, 64, 64},  {1, 9, 130, 5},  {0, 4, 4, 4},
                               {1, 0, 5, 7},     {2, 29, 31, 37}, {1, 15, 17, 900}, {5, 20, 20, 10}, {1, 70, 90, 450},
                               {1, 2, 5000, 64}, {1, 700, 5, 330}};

// A matrix is a tensor of (batch, rows, columns); kinds: rows, columns, wider rows, no unit stride, one row for all.
MatrixStrides matrix_strides(int kind, int64_t rows, int64_t columns) {
    switch (kind) {
        case 0: return {rows * columns, columns, 1};
        case 1: return {rows * columns, 1, rows};
        case 2: return {rows * (columns + 5), columns + 5, 1};
        case 3: return {rows * columns * 2, columns * 2, 2};
        default: return {0, 0, 1};
    }
}

template <class T>
void run_gemm(const KernelEntry& entry, const GemmCase& k) {
    const Side side = coin() ? Side::front : Side::back;
    const int kinds[] = {pick({0, 1, 2, 3}), pick({0, 1, 2, 3}), pick({0, 1, 2}), pick({0, 1, 2, 4})};
    GemmProblem p{dtype_of<T>,
                  k.batch,
                  k.m,
                  k.n,
                  k.k,
                  matrix_strides(kinds[0], k.m, k.k),
                  matrix_strides(kinds[1], k.k, k.n),
                  matrix_strides(kinds[2], k.m, k.n),
                  matrix_strides(kinds[3], k.m, k.n),
                  coin(),
                  coin(),
                  coin()};
    const double alpha = pick({1.0, 1.0, 0.0, -2.0}), beta = pick({1.0, 3.0, 0.0, 3.0});
    const int threads = pick({1, 3});
    const auto spatial = [](MatrixStrides s) -> Strides { return {s.batch, s.row, s.column, 0, 0}; };
    Tensor a(k.batch, k.m, {k.k, 1, 1}), b(k.batch, k.k, {k.n, 1, 1}), out(k.batch, k.m, {k.n, 1, 1});
    Tensor residual(k.batch, k.m, {k.n, 1, 1}), bias(1, k.n, kOne);
    for (Tensor* t : {&a, &b, &residual, &bias}) fill_integers(t->values, random_bits);
    if (kinds[3] == 4)
        for (size_t i = 0; i < residual.values.size(); ++i) residual.values[i] = static_cast<double>(i % k.n % 5);
    for (int64_t g = 0; g < k.batch; ++g)
        for (int64_t i = 0; i < k.m; ++i)
            for (int64_t j = 0; j < k.n; ++j) {
                double sum = 0;
                for (int64_t l = 0; l < k.k; ++l) sum += a.at(g, i, l, 0, 0) * b.at(g, l, j, 0, 0);
                sum *= alpha;
                if (p.has_residual) sum += beta * residual.at(g, i, j, 0, 0);
                if (p.bias) sum += bias.values[static_cast<size_t>(j)];
                out.at(g, i, j, 0, 0) = p.relu ? std::max(sum, 0.0) : sum;
            }
    Image<T> a_image(a, spatial(p.a), side), b_image(b, spatial(p.b), side), out_image(out, spatial(p.out), side);
    Image<T> residual_image(residual, spatial(p.residual), side), bias_image(bias, {1, 1, 1, 1, 1}, side);
    a_image.write(a), b_image.write(b), residual_image.write(residual), bias_image.write(bias);

    const bool prepare = coin();
    describe("gemm", entry.algorithm, dtype_name<T>, "b", k.batch, "m", k.m, "n", k.n, "k", k.k, "layouts", kinds[0],
             kinds[1], kinds[2], kinds[3], "alpha", alpha, "beta", beta, "bias", p.bias, "residual", p.has_residual,
             "relu", p.relu, "threads", threads, "prepared", prepare, side);
    const std::unique_ptr<GemmPlan> plan(entry.gemm(p, threads, pick<int64_t>({0, 6000, 1 << 28})));
    Guarded prepared(plan->prepared_weight_bytes(), side, 64), workspace(plan->workspace_bytes(), side, 64);
    if (prepare && plan->prepared_weight_bytes()) plan->prepare_weight(b_image.data(), prepared.data());
    const bool use_prepared = prepare && plan->prepared_weight_bytes();
    plan->run({a_image.data(), use_prepared ? prepared.data() : b_image.data(), out_image.data(),
               p.bias ? bias_image.data() : nullptr, p.has_residual ? residual_image.data() : nullptr, alpha, beta,
               workspace.data(), use_prepared});
    double error = out_image.error(out, 1);
    if (!prepared.intact() || !workspace.intact()) error = INFINITY;
    report(error, 0);
}

void test_gemm(const KernelEntry& entry, int variants) {
    for (const GemmCase& k : kGemmCases)
        for (int v = 0; v < 4 * variants; ++v) v % 4 == 3 ? run_gemm<double>(entry, k) : run_gemm<float>(entry, k);
}

// ------------------------------------------------------------------------------------------------ pooling

struct PoolCase {
    int64_t n, c;
    Spatial size, filter, stride, padding, dilation, extra;
};

const PoolCase kPoolCases[] = {
    {1, 1, {1, 1, 1}, kOne, kOne, kZero, kOne, kZero},
    {2, 3, {1, 8, 9}, {1, 2, 2}, {1, 2, 2}, kZero, kOne, kZero},
    {2, 3, {1, 8, 8}, {1, 2, 2}, {1, 2, 2}, {0, 1, 1}, kOne, kZero},  // the last column of a window beyond the input
    {1, 17, {1, 11, 13}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, kOne, kZero},
    {1, 33, {1, 7, 40}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, kOne, kZero},
    {2, 5, {1, 9, 10}, {1, 3, 2}, {1, 2, 3}, {0, 1, 0}, {1, 2, 3}, kZero},
    {3, 70, {1, 5, 6}, {1, 3, 3}, kOne, {0, 1, 1}, kOne, kZero},          // several vectors of channels at a time
    {1, 4, {1, 6, 7}, {1, 3, 3}, {1, 2, 2}, {0, 0, 0}, kOne, {0, 1, 0}},  // ceil_mode
    {1, 2, {5, 6, 7}, {2, 3, 3}, {2, 1, 2}, {1, 1, 1}, kOne, kZero},
    {1, 3, {7, 8, 9}, {2, 3, 2}, {1, 2, 2}, {0, 1, 1}, {3, 1, 2}, kZero},
    {3, 16, {1, 1, 35}, {1, 1, 4}, {1, 1, 1}, {0, 0, 2}, kOne, kZero},
    {0, 3, {1, 4, 4}, {1, 2, 2}, {1, 2, 2}, kZero, kOne, kZero},
};

PoolKind pool_kind(const std::string& op) {
    if (op == "max_pool") return PoolKind::max;
    if (op == "avg_pool") return PoolKind::avg;
    return op == "adaptive_max_pool" ? PoolKind::adaptive_max : PoolKind::adaptive_avg;
}

Indices indices_to_test(PoolKind kind, Pass pass) {
    const bool max = kind == PoolKind::max || kind == PoolKind::adaptive_max;
    if (!max || (pass == Pass::forward && coin())) return Indices::none;
    return kind == PoolKind::max && coin() ? Indices::offset : Indices::int64;
}

template <class T>
void run_pool(const KernelEntry& entry, const PoolCase& k, Pass pass) {
    const Side side = coin() ? Side::front : Side::back;
    const PoolKind kind = pool_kind(entry.op);
    const bool adaptive = kind == PoolKind::adaptive_max || kind == PoolKind::adaptive_avg;
    const bool max = kind == PoolKind::max || kind == PoolKind::adaptive_max;
    const Spatial dilation = max ? k.dilation : kOne;
    Spatial out{out_extent(k.size.d, k.filter.d, k.stride.d, k.padding.d, dilation.d, k.extra.d),
                out_extent(k.size.h, k.filter.h, k.stride.h, k.padding.h, dilation.h, k.extra.h),
                out_extent(k.size.w, k.filter.w, k.stride.w, k.padding.w, dilation.w, k.extra.w)};
    if (adaptive) out = {pick<int64_t>({1, 2}), pick<int64_t>({1, 3, 7}), pick<int64_t>({1, 4, 5, 16})};
    const Layout layout = kLayouts[random_bits() % 4], output_layout = kLayouts[random_bits() % 4];
    Tensor input(k.n, k.c, k.size), output(k.n, k.c, out);
    const PoolProblem p{kind,
                        pass,
                        dtype_of<T>,
                        k.n,
                        k.c,
                        k.size,
                        k.filter,
                        out,
                        k.stride,
                        k.padding,
                        dilation,
                        strides_of(layout, k.c, k.size),
                        strides_of(output_layout, k.c, out),
                        indices_to_test(kind, pass),
                        coin(),
                        kind == PoolKind::avg ? pick<int64_t>({0, 0, 7}) : 0};
    const int threads = pick({1, 3});
    fill_integers(input.values, random_bits);
    if (max && pass == Pass::forward && coin()) sprinkle_specials(input.values, random_bits);
    std::vector<int64_t> expected_indices(output.values.size());
    PoolProblem forward = p;
    forward.pass = Pass::forward;
    reference::pool(forward, input, output, expected_indices);

    Image<T> input_image(input, p.input, side), output_image(output, p.output, side);
    Tensor indices(k.n, k.c, out);
    for (int64_t i = 0; i < std::ssize(indices.values); ++i) {
        const int64_t position = expected_indices[static_cast<size_t>(i)];
        const int64_t oz = i / (out.h * out.w) % out.d, oy = i / out.w % out.h, ox = i % out.w;
        const bool offset = p.indices == Indices::offset;
        indices.values[static_cast<size_t>(i)] =
            static_cast<double>(offset ? reference::number_in_window(p, oz, oy, ox, position) : position);
    }
    Image<int64_t> indices_image(indices, p.output, side);
    Image<uint8_t> offsets_image(indices, p.output, side);
    void* names = nullptr;
    if (p.indices == Indices::int64) names = indices_image.data();
    if (p.indices == Indices::offset) names = offsets_image.data();
    if (pass == Pass::forward) {
        input_image.write(input);
    } else {
        fill_integers(output.values, random_bits);
        output_image.write(output);
        if (p.indices == Indices::int64) indices_image.write(indices);
        if (p.indices == Indices::offset) offsets_image.write(indices);
        std::fill(input.values.begin(), input.values.end(), 0.0);
        reference::pool(p, input, output, expected_indices);
    }
    describe(entry.op, entry.algorithm, text(pass), dtype_name<T>, "n", k.n, "c", k.c, "size", text(k.size), "filter",
             text(k.filter), "out", text(out), "indices", static_cast<int>(p.indices), "layouts", layout, output_layout,
             "threads", threads, side);
    const std::unique_ptr<PoolPlan> plan(entry.pool(p, threads));
    plan->run({input_image.data(), output_image.data(), names});
    double error = pass == Pass::forward ? output_image.error(output, 1) : input_image.error(input, 1);
    if (pass == Pass::forward && p.indices == Indices::int64) error = std::max(error, indices_image.error(indices, 1));
    if (pass == Pass::forward && p.indices == Indices::offset) error = std::max(error, offsets_image.error(indices, 1));
    report(error, max ? 0 : 1e-6);
}

void test_pool(const KernelEntry& entry, int variants) {
    for (const PoolCase& k : kPoolCases)
        for (Pass pass : {Pass::forward, Pass::grad_input})
            for (int v = 0; v < 2 * variants; ++v)
                v % 4 == 3 ? run_pool<double>(entry, k, pass) : run_pool<float>(entry, k, pass);
}

// ------------------------------------------------------------------------------------------------ normalisation

struct NormCase {
    int64_t n, c;
    Spatial size;
};

const NormCase kNormCases[] = {{2, 1, kOne},   {3, 5, {1, 4, 5}},  {2, 17, {1, 7, 3}}, {1, 33, {2, 3, 17}},
                               {4, 130, kOne}, {2, 3, {1, 1, 70}}, {1, 64, {1, 5, 5}}, {2, 7, {1, 31, 33}}};

// A per-channel array of the kernel; null where the problem does without.
template <class T>
struct Channels {
    Tensor values;
    Image<T> image;
    bool used;

    Channels(int64_t c, Side side, bool used) : values(1, c, kOne), image(values, {c, 1, 1, 1, 1}, side), used(used) {}
    void set(std::mt19937& random, double low, double high) {
        for (double& v : values.values) v = static_cast<T>(std::uniform_real_distribution<double>(low, high)(random));
        image.write(values);
    }
    double& operator[](int64_t i) { return values.values[static_cast<size_t>(i)]; }
    T* data() const { return used ? image.data() : nullptr; }
    double error(double scale) { return used ? image.error(values, scale) : 0; }
};

template <class T>
void run_norm(const KernelEntry& entry, const NormCase& k, Pass pass) {
    const Side side = coin() ? Side::front : Side::back;
    const std::string op = entry.op;
    const bool training = op == "batch_norm" && coin(), affine = coin();
    const int64_t window = pick<int64_t>({1, 4, 5});
    const bool has_residual = op == "batch_norm" && coin(), relu = op == "batch_norm" && coin();
    const Layout layout = kLayouts[random_bits() % 4];
    const Layout output_layout = coin() ? layout : kLayouts[random_bits() % 4];
    const Layout residual_layout = coin() ? layout : kLayouts[random_bits() % 4];
    const NormKind kind = op == "batch_norm"            ? NormKind::batch_norm
                          : op == "local_response_norm" ? NormKind::local_response_norm
                                                        : NormKind::channel_sum;
    const NormProblem p{kind,
                        pass,
                        dtype_of<T>,
                        k.n,
                        k.c,
                        k.size,
                        strides_of(layout, k.c, k.size),
                        strides_of(output_layout, k.c, k.size),
                        training,
                        window,
                        strides_of(residual_layout, k.c, k.size),
                        has_residual,
                        relu};
    const int threads = pick({1, 3});
    describe(op, text(pass), dtype_name<T>, "n", k.n, "c", k.c, "size", text(k.size), "layouts", layout, output_layout,
             residual_layout, "training", training, "affine", affine, "residual", has_residual, "relu", relu, "window",
             window, "threads", threads, side);

    const bool backward = pass == Pass::grad_input;
    const Tensor zeros(k.n, k.c, k.size);
    reference::Norm r{p, zeros, zeros, zeros, zeros, zeros};
    for (Tensor* t : {&r.input, &r.grad_output, &r.residual})
        for (double& v : t->values) v = static_cast<T>(std::uniform_real_distribution<double>(-2, 3)(random_bits));
    Channels<T> weight(k.c, side, affine), bias(k.c, side, affine), running_mean(k.c, side, true),
        running_var(k.c, side, true), mean(k.c, side, training), invstd(k.c, side, training),
        grad_weight(k.c, side, backward && affine), grad_bias(k.c, side, backward && affine), sum(k.c, side, true);
    fill_integers(r.forward_output.values, random_bits);  // with zeros
    weight.set(random_bits, 0.5, 2), bias.set(random_bits, -1, 1);
    running_mean.set(random_bits, -1, 1), running_var.set(random_bits, 0.5, 2);
    r.weight = affine ? weight.values.values : std::vector<double>(static_cast<size_t>(k.c), 1.0);
    r.bias = affine ? bias.values.values : std::vector<double>(static_cast<size_t>(k.c), 0.0);
    r.running_mean = running_mean.values.values, r.running_var = running_var.values.values;
    r.run();
    if (training && backward) {
        mean.values.values = r.mean, invstd.values.values = r.invstd;
        mean.image.write(mean.values), invstd.image.write(invstd.values);
    }

    Image<T> residual(r.residual, p.residual, side), forward_output(r.forward_output, p.output, side);
    if (!backward) residual.write(r.residual);
    if (backward) forward_output.write(r.forward_output);
    Image<T> input(r.input, p.input, side), grad_output(r.input, p.output, side);
    Image<T> output(r.output, backward ? p.input : p.output, side);
    input.write(r.input), grad_output.write(r.grad_output);
    const std::unique_ptr<NormPlan> plan(entry.norm(p, threads));
    Guarded workspace(plan->workspace_bytes(), side, 64);
    const bool is_sum = kind == NormKind::channel_sum;
    plan->run({input.data(),
               backward ? grad_output.data() : nullptr,
               is_sum ? sum.data() : output.data(),
               weight.data(),
               bias.data(),
               running_mean.data(),
               running_var.data(),
               mean.data(),
               invstd.data(),
               grad_weight.data(),
               grad_bias.data(),
               r.eps,
               r.momentum,
               r.alpha,
               r.beta,
               r.k,
               workspace.data(),
               has_residual && !backward ? residual.data() : nullptr,
               relu && backward ? forward_output.data() : nullptr,
               has_residual && backward ? residual.data() : nullptr});

    const double scale = std::max(1.0, static_cast<double>(k.n * k.size.count()) / 8);
    double error = 0;
    if (is_sum) {
        sum.values.values = r.sums;
        error = sum.error(scale);
    } else {
        error = output.error(r.output, scale);
        running_mean.values.values = r.running_mean, running_var.values.values = r.running_var;
        mean.values.values = r.mean, invstd.values.values = r.invstd;
        grad_weight.values.values = r.grad_weight, grad_bias.values.values = r.grad_bias;
        if (has_residual && backward) error = std::max(error, residual.error(r.residual, 1));
        if (kind == NormKind::batch_norm)
            for (Channels<T>* c : {&running_mean, &running_var, &mean, &invstd, &grad_weight, &grad_bias})
                error = std::max(error, c->error(scale));
    }
    report(workspace.intact() ? error : INFINITY, sizeof(T) == 8 ? 1e-12 : 2e-5);
}

void test_norm(const KernelEntry& entry, int variants) {
    for (const NormCase& k : kNormCases)
        for (Pass pass : {Pass::forward, Pass::grad_input}) {
            if (std::string(entry.op) == "channel_sum" && pass != Pass::forward) continue;
            for (int v = 0; v < variants; ++v)
                v % 4 == 3 ? run_norm<double>(entry, k, pass) : run_norm<float>(entry, k, pass);
        }
}

// ------------------------------------------------------------------------------------------------ relu

template <class T>
void run_relu(const KernelEntry& entry, int64_t count, Pass pass) {
    const Side side = coin() ? Side::front : Side::back;
    Tensor x(1, count, kOne), grad(1, count, kOne), y(1, count, kOne);
    fill_integers(x.values, random_bits);
    if (coin()) sprinkle_specials(x.values, random_bits);
    fill_integers(grad.values, random_bits);
    const Strides dense{count, 1, 1, 1, 1};
    Image<T> x_image(x, dense, side), grad_image(grad, dense, side), y_image(y, dense, side);
    x_image.write(x), grad_image.write(grad);
    for (size_t i = 0; i < y.values.size(); ++i)
        y.values[i] = pass == Pass::forward ? (x.values[i] < 0 ? 0.0 : x.values[i])
                      : x.values[i] <= 0    ? 0.0
                                            : grad.values[i];
    const PointwiseProblem p{PointwiseKind::relu, pass, dtype_of<T>, count, false};
    describe("relu", text(pass), dtype_name<T>, "elements", count, side);
    const std::unique_ptr<PointwisePlan> plan(entry.pointwise(p, pick({1, 3})));
    plan->run({x_image.data(), pass == Pass::forward ? nullptr : grad_image.data(), y_image.data()});
    report(y_image.error(y, 1), 0);
}

void test_relu(const KernelEntry& entry, int) {
    for (int64_t count : {0, 1, 3, 15, 16, 17, 31, 100, 1023, 100003})
        for (Pass pass : {Pass::forward, Pass::grad_input}) {
            run_relu<float>(entry, count, pass);
            run_relu<double>(entry, count, pass);
        }
}

}  // namespace

int main(int count, char** arguments) {
    const int variants = count > 1 ? std::atoi(arguments[1]) : 12;
    if (count > 2) failures_allowed = std::atoi(arguments[2]);
    const int part = count > 4 ? std::atoi(arguments[3]) : 0, parts = count > 4 ? std::atoi(arguments[4]) : 1;
    int kernels = 0, seen = 0;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(tell_current);
#else
    std::signal(SIGSEGV, crashed);
    std::signal(SIGBUS, crashed);
#endif
    for (const KernelEntry* e = __start_pycv_kernels; e != __stop_pycv_kernels; ++e) {
        if (e->isa != current_isa() || seen++ % parts != part) continue;
        const std::string op = e->op;
        const int before = runs;
        if (op == "conv") test_conv(*e, variants);
        if (op == "gemm") test_gemm(*e, variants);
        if (op.ends_with("_pool")) test_pool(*e, variants);
        if (op.ends_with("_norm") || op == "channel_sum") test_norm(*e, variants);
        if (op == "relu") test_relu(*e, variants);
        kernels += runs > before;
        std::printf("  %-20s %-10s %-9s %6d runs\n", e->op, e->algorithm, isa_name(e->isa), runs - before);
        std::fflush(stdout);
    }
    std::printf("%s: %d kernels, %d runs, %d failures\n", isa_name(current_isa()), kernels, runs, failures);
    return failures || kernels == 0;
}
