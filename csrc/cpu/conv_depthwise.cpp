// Depthwise convolution, all passes: sums over taps straight from the source, for convolutions whose groups are too
// thin for a matrix product, and for any other.
//
// 2 * n * k * out * (c / groups) * filter FLOPs, in three schemes: lanes along the channels where a vector of them is
// contiguous (depthwise_channels*.cpp), or is after a transposition in cache (depthwise_transposed.cpp: short rows), or
// along the rows of padded planes (depthwise_planes*.cpp).
#include "channel_planes.h"
#include "depthwise_channels.h"
#include "depthwise_plans.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// How many times more lanes than elements vectors of the positions of an axis have, each of its phases for itself.
double whole_vectors(int64_t extent, int64_t phases, int64_t lanes) {
    int64_t vectors = 0;
    for (int64_t i = 0; i < phases; ++i) vectors += divide_up(divide_up(extent - i, phases), lanes);
    return static_cast<double>(vectors * lanes) / static_cast<double>(larger(extent, 1));
}

// Whether vectors of channels, transposed there and back, are cheaper than vectors along the rows. Measured: the
// transpositions cost a tenth; splitting strided rows costs half as much again as plain ones, while the phases of a
// strided gradient are cheaper along the rows.
bool has_short_rows(const ConvProblem& p, int64_t lanes) {
    constexpr int64_t kInL2 = 1 << 20;
    if (p.groups != p.c || p.groups != p.k || p.c == 0 || p.has_residual) return false;
    if (!has_dense_planes(p.input, p.size) || !has_dense_planes(p.output, p.out)) return false;
    const int64_t bytes = p.dtype == DType::f64 ? 8 : 4;
    if ((p.size.count() + p.out.count()) * lanes * bytes > kInL2) return false;
    const bool forward = p.pass == Pass::forward, strided = p.stride.w > 1;
    const double rows =
        forward ? whole_vectors(p.out.w, 1, lanes) : whole_vectors(p.size.w, phases_of(p.stride.w, p.size.w), lanes);
    const double splitting = !strided ? 1 : forward ? 1.5 : 0.9;
    return rows * splitting > 1.1 * whole_vectors(p.c, 1, lanes);
}

ConvPlan* plan_depthwise(const ConvProblem& problem, int threads, int64_t) {
    const bool grad_weight = problem.pass == Pass::grad_weight;
    const int64_t vector_lanes = problem.dtype == DType::f64 ? lanes<double> : lanes<float>;
    if (channel_lanes(problem) > 0)
        return grad_weight ? plan_channel_grad_weight(problem, threads) : plan_channel_gather(problem, threads);
    if (!grad_weight && has_short_rows(problem, vector_lanes)) return plan_transposed_gather(problem, threads);
    return grad_weight ? plan_plane_grad_weight(problem, threads) : plan_plane_gather(problem, threads);
}

}  // namespace

PYCV_KERNEL("conv", "depthwise", plan_depthwise);

}  // namespace pycv::cpu::PYCV_ISA
