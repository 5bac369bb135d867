// Forward and grad_input of a convolution as matrix products (conv_gather.h), one for each phase of the gather:
//
//     computed[channel][position] = weight[channel][tap, c] x source[tap, c][position]
//
// The weight is the stationary operand, packed by prepare_weight(). The source is the streamed one: im2col panels that
// are packed a block at a time, or, where `in_place` and the positions of a one-tap filter lie evenly, the tensor
// itself (conv_implicit_gemm.cpp). The lanes run along positions or along channels, whichever costs less: fewer vectors
// that are partly empty, tiles that need no transposition on their way to the output, panels that need none on their
// way in.
#pragma once

#include "conv_gaps.h"
#include "conv_operands.h"
#include "cost.h"
#include "gemm_product.h"
#include "plan.h"

namespace pycv::cpu::PYCV_ISA {

// Whether neighbours along c are neighbours in memory, and those along w are not.
inline bool channels_contiguous(const Strides& strides, int64_t channels) {
    return strides.c == 1 && (strides.w != 1 || channels > 1);
}

// Merges h into w (and d into h) where a gather without padding, steps or taps makes them one axis in every tensor.
inline bool mergeable(const AxisGather& axis) {
    return is_plain(axis) && axis.source_step == 1 && axis.step == 1 && axis.first == 0 && axis.offset_first == 0 &&
           axis.count == axis.source_size;
}

inline int64_t multiply_adds(const ConvProblem& p) {
    return p.n * p.k * p.out.count() * (p.c / larger(p.groups, 1)) * p.filter.count();
}

inline bool dense(int64_t outer_stride, int64_t inner_stride, int64_t inner_size) {
    return outer_stride == inner_stride * inner_size;
}

struct MergedGather {
    Gather gather;
    Strides computed, source, residual;
};

inline MergedGather merge_axes(Gather g, Strides computed, Strides source, Strides residual) {
    const int64_t w = g.w.count, h = g.h.count;
    const bool rows = mergeable(g.h) && mergeable(g.w) && dense(computed.h, computed.w, w) &&
                      dense(source.h, source.w, w) && dense(residual.h, residual.w, w);
    if (!rows) return {g, computed, source, residual};
    const bool planes = mergeable(g.d) && dense(computed.d, computed.h, h) && dense(source.d, source.h, h) &&
                        dense(residual.d, residual.h, h);
    g.w = plain_axis(w * h * (planes ? g.d.count : 1));
    g.h = plain_axis(1);
    if (planes) g.d = plain_axis(1);
    return {g, computed, source, residual};
}

// How the panels of the streamed operand come about.
enum class Access { packed, in_place };

// One phase of a gather as a product.
template <class T>
struct GatherProduct {
    MergedGather merged;
    Product<T> product;
    TapAxes axes;
    int64_t filter_first;  // offset of the phase's first tap in the weight
    int64_t prepared;      // where its packed weight begins, in elements
    int64_t positions;     // of a segment
    bool channels_inside;
    Access access;

    int64_t elements() const {
        constexpr int64_t kSize = sizeof(T);
        return aligned(product.stationary_elements() * kSize) / kSize;
    }
};

// The streamed operand of a phase: panels of the source, and where their results belong.
template <class T>
struct GatherPanels {
    const GatherProblem& problem;
    const GatherProduct<T>& phase;
    const T* source;

    PanelView<T> view(int64_t group, int64_t segment, Range index, Range depth, T* to, T* scratch) const {
        const Side<T>& side = phase.product.streamed;
        const T* const data = source + group * problem.source_channels * phase.merged.source.c;
        const int64_t first = segment * phase.positions;
        const bool whole_vectors = !side.is_lanes || (index.end - index.begin) % lanes<T> == 0;
        if (phase.access == Access::in_place && whole_vectors) return in_place(data, segment, index.begin, depth);
        const GatherSource<T> from{data, phase.merged.source, problem.source_channels, phase.merged.gather};
        const Range positions{first + index.begin, first + index.end};
        if (phase.channels_inside) {
            pack_panel<T>(side, ChannelRuns<T>{from, false}, positions, depth, to, scratch);
        } else {
            pack_panel<T>(side, PositionRuns<T>{from, false}, positions, depth, to, scratch);
        }
        return {to, side.stride};
    }

    PanelView<T> in_place(const T* data, int64_t segment, int64_t position, Range depth) const {
        const Gather& g = phase.merged.gather;
        const Strides& s = phase.merged.source;
        const int64_t along = g.w.source_step * s.w;
        const T* const at = data + segment * s.n + g.d.offset_first * s.d + g.h.offset_first * s.h +
                            g.w.offset_first * s.w + position * along + depth.begin * s.c;
        return {at, phase.product.streamed.format == RowFormat::k_contiguous ? along : s.c};
    }

    void place(int64_t group, int64_t segment, Range index, int64_t* out, int64_t* residual,
               StreamedPanel<T>& panel) const {
        const Gather& g = phase.merged.gather;
        const Strides &o = phase.merged.computed, &r = phase.merged.residual;
        const int64_t count = index.end - index.begin, channel = group * problem.channels;
        int64_t rest = segment * phase.positions + index.begin;
        int64_t w = rest % g.w.count;
        rest /= g.w.count;
        int64_t h = rest % g.h.count;
        rest /= g.h.count;
        int64_t d = rest % g.d.count;
        int64_t n = rest / g.d.count;
        const auto offset = [&](const Strides& s) {
            return n * s.n + channel * s.c + (g.d.first + d * g.d.step) * s.d + (g.h.first + h * g.h.step) * s.h +
                   (g.w.first + w * g.w.step) * s.w;
        };
        if (w + count <= g.w.count) {
            panel.out = even_axis(offset(o), g.w.step * o.w, count);
            panel.residual = even_axis(offset(r), g.w.step * r.w, count);
            return;
        }
        for (int64_t i = 0; i < count; ++i) {
            out[i] = offset(o);
            residual[i] = offset(r);
            if (++w < g.w.count) continue;
            w = 0;
            if (++h < g.h.count) continue;
            h = 0;
            if (++d < g.d.count) continue;
            d = 0;
            ++n;
        }
        panel.out = axis_of(out, count);
        panel.residual = axis_of(residual, count);
    }
};

template <class T>
class GatherConv final : public ConvPlan {
public:
    GatherConv(const ConvProblem& problem, int threads, int64_t workspace_limit, Access access)
        : conv_(problem),
          access_(access),
          problem_(gather_problem(problem)),
          threads_(worthwhile_threads(threads, multiply_adds(problem))),
          phases_(0),
          phase_(new GatherProduct<T>[problem_.phases.count()]),
          gaps_(nullptr) {
        prepared_ = thread_bytes_ = 0;
        const bool only_zeros = !problem.bias && !problem.has_residual;  // in positions that no window reads
        for (int64_t i = 0; i < problem_.phases.count(); ++i) {
            const Gather gather = gather_phase(conv_, i);
            if (gather.taps() == 0 && only_zeros) continue;
            GatherProduct<T>& phase = phase_[phases_++] = plan_phase(gather, workspace_limit);
            phase.prepared = prepared_;
            prepared_ += phase.elements();
            thread_bytes_ = larger(thread_bytes_, thread_space_bytes(phase.product));
        }
        if (phases_ < problem_.phases.count()) gaps_ = new Gaps<T>(problem);
    }
    ~GatherConv() override {
        delete[] phase_;
        delete gaps_;
    }
    GatherConv(const GatherConv&) = delete;
    GatherConv& operator=(const GatherConv&) = delete;

    int64_t workspace_bytes() const override { return threads_ * thread_bytes_; }
    int64_t prepared_weight_bytes() const override { return larger(prepared_ * kSize, kSize); }

    void prepare_weight(const void* weight, void* prepared) const override {
        parallel(threads_, [&](int thread, int team) {
            alignas(64) T scratch[kScratchElements<T>];
            for (int j = 0; j < phases_; ++j) {
                const Product<T>& product = phase_[j].product;
                const int64_t panels = product.stationary.panels();
                const Range mine = share(problem_.groups * panels, thread, team);
                for (int64_t first = mine.begin, end; first < mine.end; first = end) {
                    const int64_t group = first / panels;
                    end = smaller(mine.end, (group + 1) * panels);
                    const T* from = static_cast<const T*>(weight) + group * problem_.weight_group;
                    pack_stationary<T>(product, weight_operand(phase_[j], from), group,
                                       {first - group * panels, end - group * panels},
                                       static_cast<T*>(prepared) + phase_[j].prepared, scratch);
                }
            }
        });
    }

    Cost cost() const override {
        Cost sum{0, 0, activation_bytes(conv_) + static_cast<double>(prepared_ * kSize), 1};
        for (int i = 0; i < phases_; ++i) {
            const Cost phase = share_cost(phase_[i].product, threads_, phase_[i].access == Access::in_place);
            sum.multiply_adds += phase.multiply_adds;
            sum.vector_elements += phase.vector_elements;
        }
        if (gaps_) sum.vector_elements += gaps_->elements() / threads_;
        return sum;
    }

    Cost prepare_cost() const override {
        const double elements = static_cast<double>(prepared_);
        return {0, elements / threads_, (elements + weight_elements(conv_)) * kSize, 1};
    }

    void run(const ConvArguments& arguments) const override {
        const bool forward = conv_.pass == Pass::forward;
        const T* source = static_cast<const T*>(forward ? arguments.input : arguments.output);
        const Sink<T> sink{static_cast<T*>(forward ? arguments.output : arguments.input),
                           problem_.has_residual ? static_cast<const T*>(arguments.residual) : nullptr,
                           problem_.bias ? static_cast<const T*>(arguments.bias) : nullptr,
                           problem_.computed.c,
                           problem_.residual.c,
                           T(1),
                           T(1),
                           problem_.relu};
        parallel(threads_, [&](int thread, int team) {
            void* workspace = static_cast<char*>(arguments.workspace) + thread * thread_bytes_;
            if (gaps_) gaps_->clear(sink.out, thread, team);
            for (int i = 0; i < phases_; ++i) {
                const GatherProduct<T>& phase = phase_[i];
                multiply_share<T>(phase.product, GatherPanels<T>{problem_, phase, source},
                                  static_cast<const T*>(arguments.weight) + phase.prepared, sink, problem_.channels,
                                  thread_space(phase.product, workspace, 0),
                                  product_share(phase.product, thread, team));
            }
        });
    }

private:
    static constexpr int64_t kSize = sizeof(T);

    GatherProduct<T> plan_phase(const Gather& gather, int64_t workspace_limit) const {
        GatherProduct<T> phase{};
        const Strides residual = problem_.has_residual ? problem_.residual : problem_.computed;
        phase.merged = merge_axes(gather, problem_.computed, problem_.source, residual);
        const Gather& g = phase.merged.gather;
        phase.channels_inside = channels_contiguous(problem_.source, problem_.source_channels);
        phase.axes = tap_axes(gather, problem_.weight, problem_.source_channels, phase.channels_inside);
        phase.filter_first = gather.d.filter_first * problem_.weight.d + gather.h.filter_first * problem_.weight.h +
                             gather.w.filter_first * problem_.weight.w;
        phase.access = access_ == Access::in_place ? source_access(phase) : Access::packed;
        Product<T>& product = phase.product;
        product.depth = depth_in_blocks<T>(gather.taps() * problem_.source_channels);
        product.groups = problem_.groups;
        product.segments = phase.access == Access::packed || one_segment(phase.merged) ? 1 : problem_.n;
        phase.positions = problem_.n * g.positions() / larger(product.segments, 1);
        if (lanes_along_channels(phase)) {
            product.streamed = rows_side<T>(phase.positions, product.depth);
            product.stationary = lanes_side<T>(problem_.channels, product.depth);
            if (phase.access == Access::in_place && phase.channels_inside)
                product.streamed.format = RowFormat::k_contiguous;
        } else {
            product.streamed = lanes_side<T>(phase.positions, product.depth);
            product.stationary = rows_side<T>(problem_.channels, product.depth);
            if (phase.channels_inside) phase.access = Access::packed;
        }
        product.streamed_neighbours =
            !product.streamed.is_lanes && !channels_contiguous(problem_.computed, problem_.channels);
        product.streams = computed_bytes(conv_) > kStreamedBytes;
        product.block_panels = choose_block_panels<T>(product, threads_, workspace_limit);
        return phase;
    }

    // Whether the positions of a phase lie evenly, so that its panels can be read where they are: neighbours of each
    // other, or pixels at a distance that does not put the rows of a tile into the same cache sets.
    Access source_access(const GatherProduct<T>& phase) const {
        constexpr int64_t kPage = 4096 / static_cast<int64_t>(sizeof(T));
        const Gather& g = phase.merged.gather;
        const Strides& s = phase.merged.source;
        const int64_t along = g.w.source_step * s.w;
        const bool even = is_plain(g.d) && is_plain(g.h) && is_plain(g.w) && g.d.count == 1 && g.h.count == 1;
        const bool readable = phase.channels_inside ? along % kPage != 0 : along == 1 && s.c % kPage != 0;
        return even && readable ? Access::in_place : Access::packed;
    }

    // Whether the positions of all images are evenly spaced, in every tensor.
    bool one_segment(const MergedGather& merged) const {
        const AxisGather& w = merged.gather.w;
        return problem_.n == 1 || (dense(merged.source.n, w.source_step * merged.source.w, w.count) &&
                                   dense(merged.computed.n, w.step * merged.computed.w, w.count) &&
                                   dense(merged.residual.n, w.step * merged.residual.w, w.count));
    }

    // Whichever way costs less vectors of multiply-adds. A visit of a tile costs as much as a few steps of its depth,
    // more where it must be transposed; so does a packed panel for each of its steps.
    bool lanes_along_channels(const GatherProduct<T>& phase) const {
        constexpr double kVisit = 3, kTurnedVisit = 14, kTurnedPanel = 10;
        const Product<T>& p = phase.product;
        const double depth = static_cast<double>(p.depth.size), blocks = static_cast<double>(p.depth.blocks());
        const double segments = static_cast<double>(p.segments), positions = static_cast<double>(phase.positions);
        const double channels = static_cast<double>(problem_.channels);
        const bool channels_out = channels_contiguous(problem_.computed, problem_.channels);
        const double channel_vectors = static_cast<double>(divide_up(problem_.channels, lanes<T>));
        const double position_vectors = static_cast<double>(divide_up(phase.positions, lanes<T>));
        const double along_channels =
            segments * positions * channel_vectors * (depth + (channels_out ? kVisit : kTurnedVisit) * blocks);
        const double along_positions =
            segments * channels * position_vectors * (depth + (channels_out ? kTurnedVisit : kVisit) * blocks) +
            (phase.channels_inside ? segments * position_vectors * depth * kTurnedPanel : 0);
        return along_channels <= along_positions;
    }

    WeightOperand<T> weight_operand(const GatherProduct<T>& phase, const T* weight) const {
        return {weight + phase.filter_first, problem_.weight.n, phase.axes};
    }

    ConvProblem conv_;
    Access access_;
    GatherProblem problem_;
    int threads_, phases_;
    GatherProduct<T>* phase_;
    Gaps<T>* gaps_;  // null: none, or written like all other positions
    int64_t prepared_, thread_bytes_;
};

}  // namespace pycv::cpu::PYCV_ISA
