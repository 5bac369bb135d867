// Convolution as a matrix product with the im2col matrix, all passes: see conv_gather.h for forward and grad_input.
//
// forward, grad_input: computed[channel][position] = weight[channel][tap, c] x im2col[tap, c][position]. The weight is
//   the stationary operand, packed by prepare_weight(). The lanes run along positions where those are contiguous in
//   the computed tensor (nchw), else along channels (nhwc).
// grad_weight: weight[k][tap, c] = output[k][position] x im2col[position][tap, c], the depth being all n * positions.
//   Threads share the weight's elements; where those are too few, they share the depth, and their sums are added in the
//   order of the threads.
//
// The im2col matrix is materialised only in the packed panels of one block per thread (at most the workspace limit).
// 2 * n * k * out * (c / groups) * filter FLOPs; the im2col elements are written and read through L2 once per
// block, one copy for every k / groups multiply-adds.
#include "conv_product.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// ------------------------------------------------------------------------------------------------- grad_weight

template <class T>
class Im2colGradWeight final : public ConvPlan {
public:
    Im2colGradWeight(const ConvProblem& problem, int threads, int64_t workspace_limit)
        : conv_(problem), threads_(worthwhile_threads(threads, multiply_adds(problem))) {
        const int64_t groups = larger(problem.groups, 1);
        channels_ = problem.c / groups;
        outputs_ = problem.k / groups;
        input_channels_inside_ = channels_contiguous(problem.input, channels_);
        output_channels_inside_ = channels_contiguous(problem.output, outputs_);
        const Gather forward = forward_gather(problem);
        const MergedGather merged = merge_axes(forward, problem.output, problem.input, problem.output);
        gather_ = merged.gather;
        outputs_gather_ = {plain_axis(gather_.d.count), plain_axis(gather_.h.count), plain_axis(gather_.w.count)};
        axes_ = tap_axes(forward, problem.weight, channels_, input_channels_inside_);
        product_.depth = depth_in_blocks<T>(problem.n * gather_.positions());
        product_.streamed = lanes_side<T>(forward.taps() * channels_, product_.depth);
        product_.stationary = rows_side<T>(outputs_, product_.depth);
        product_.groups = groups;
        product_.block_panels = choose_block_panels<T>(product_, threads_, workspace_limit / 2);
    }

    int64_t workspace_bytes() const override {
        return threads_ * thread_bytes() + (threads_ > 1 ? threads_ * partial_bytes() : 0);
    }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}

    // Where the depth is split every thread packs both operands of its part, else each packs all outputs.
    Cost cost() const override {
        const int64_t split = depth_threads(), others = threads_ / split;
        const double inputs = static_cast<double>(product_.groups * product_.streamed.panels()) *
                              static_cast<double>(product_.streamed.width) / static_cast<double>(others);
        const double outputs = static_cast<double>(product_.stationary.panels() * product_.stationary.width);
        const double depth = static_cast<double>(product_.depth.size) / static_cast<double>(split);
        const double visits = static_cast<double>(product_.depth.blocks()) / static_cast<double>(split);
        return {inputs * outputs * depth,
                (inputs + static_cast<double>(product_.groups) * outputs) * depth + inputs * outputs * visits,
                tensor_bytes(conv_), split > 1 ? 2.0 : 1.0};
    }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& arguments) const override {
        const int64_t elements = product_.groups * outputs_ * product_.streamed.size;
        if (elements == 0) return;
        parallel(threads_, [&](int thread, int team) {
            char* mine = static_cast<char*>(arguments.workspace) + thread * thread_bytes();
            const Workspace space{thread_space(product_, mine, 0),
                                  reinterpret_cast<T*>(mine + thread_space_bytes(product_))};
            const int64_t panels = product_.groups * product_.streamed.panels();
            const Range blocks{0, product_.depth.blocks()};
            if (team == 1 || depth_threads() == 1) {
                const Sink<T> sink{static_cast<T*>(arguments.weight), nullptr, nullptr, conv_.weight.n, 0, 1, 1, false};
                multiply(arguments, sink, false, blocks, share(panels, thread, team), space);
                return;
            }
            T* sums = partial_sums(arguments) + thread * partial_bytes() / kSize;
            const Sink<T> sink{sums, nullptr, nullptr, product_.streamed.size, 0, 1, 1, false};
            multiply(arguments, sink, true, share(blocks.end, thread, team), {0, panels}, space);
            team_barrier(team);
            add_partials(arguments, share(product_.groups * outputs_, thread, team), team);
        });
    }

private:
    static constexpr int64_t kSize = sizeof(T);

    struct Workspace {
        ThreadSpace<T> streamed;
        T* stationary;  // all panels of one depth block
    };

    int64_t thread_bytes() const { return thread_space_bytes(product_) + stationary_bytes(); }
    int64_t stationary_bytes() const {
        return aligned(product_.stationary.panels() * product_.stationary.panel_elements * kSize);
    }
    int64_t partial_bytes() const { return aligned(product_.groups * outputs_ * product_.streamed.size * kSize); }

    // The threads among which the depth is split: all of them where the weight has too few tiles to share evenly and
    // the depth is long enough, else 1. A question of the plan, which sized the workspace, not of the team that came.
    int depth_threads() const {
        const int64_t tiles = product_.groups * product_.streamed.panels();
        const bool uneven = divide_up(tiles, threads_) * threads_ * 4 > tiles * 5;
        return threads_ > 1 && uneven && product_.depth.blocks() >= 2 * threads_ ? threads_ : 1;
    }

    T* partial_sums(const ConvArguments& arguments) const {
        return reinterpret_cast<T*>(static_cast<char*>(arguments.workspace) + threads_ * thread_bytes());
    }

    // The sums over some depth blocks for some of all groups' lane panels.
    void multiply(const ConvArguments& arguments, const Sink<T>& sink, bool partial, Range blocks, Range work,
                  const Workspace& space) const {
        const int64_t panels = product_.streamed.panels();
        for (int64_t first = work.begin; first < work.end;) {
            const int64_t group = first / panels, begin = first % panels;
            const int64_t end = smaller(panels, begin + work.end - first);
            first += end - begin;
            multiply_group(arguments, sink, partial, blocks, group, {begin, end}, space);
        }
    }

    void multiply_group(const ConvArguments& arguments, const Sink<T>& sink, bool partial, Range blocks, int64_t group,
                        Range panels, const Workspace& workspace) const {
        const ThreadSpace<T>& space = workspace.streamed;
        T* stationary = workspace.stationary;
        const Range fixed{0, product_.stationary.panels()};
        for (int64_t block = blocks.begin; block < blocks.end; ++block) {
            const Range depth = product_.depth.range(block);
            pack_outputs(arguments, group, depth, stationary, space.scratch);
            const TileRow<T> tiles(product_, sink, nullptr, depth.end - depth.begin, block > blocks.begin, false);
            for (int64_t begin = panels.begin; begin < panels.end; begin += product_.block_panels) {
                const int64_t count = smaller(panels.end - begin, product_.block_panels);
                for (int64_t i = 0; i < count; ++i)
                    space.panels[i] = streamed_panel(arguments, group, begin + i, i, depth, partial, space);
                for (int64_t q = fixed.begin; q < fixed.end; ++q)
                    tiles.multiply({stationary + q * product_.stationary.panel_elements, product_.stationary.stride},
                                   product_.stationary.range(q), space.panels, count);
            }
        }
    }

    // Packed as number `slot` of a block.
    StreamedPanel<T> streamed_panel(const ConvArguments& arguments, int64_t group, int64_t index, int64_t slot,
                                    Range depth, bool partial, const ThreadSpace<T>& space) const {
        T* const to = space.packed + slot * product_.streamed.panel_elements;
        int64_t* const out = space.out + slot * product_.streamed.width;
        const Range range = product_.streamed.range(index);
        pack_inputs(arguments, group, range, depth, to, space.scratch);
        place(group, range, partial, out);
        const Axis axis = axis_of(out, range.end - range.begin);
        return {{to, product_.streamed.stride}, range, axis, axis};
    }

    void pack_outputs(const ConvArguments& arguments, int64_t group, Range depth, T* to, T* scratch) const {
        const GatherSource<T> source{static_cast<const T*>(arguments.output) + group * outputs_ * conv_.output.c,
                                     conv_.output, outputs_, outputs_gather_};
        for (int64_t panel = 0; panel < product_.stationary.panels(); ++panel) {
            T* at = to + panel * product_.stationary.panel_elements;
            const Range index = product_.stationary.range(panel);
            if (output_channels_inside_) {
                pack_panel<T>(product_.stationary, ChannelRuns<T>{source, true}, index, depth, at, scratch);
            } else {
                pack_panel<T>(product_.stationary, PositionRuns<T>{source, true}, index, depth, at, scratch);
            }
        }
    }

    void pack_inputs(const ConvArguments& arguments, int64_t group, Range index, Range depth, T* to, T* scratch) const {
        const GatherSource<T> source{static_cast<const T*>(arguments.input) + group * channels_ * conv_.input.c,
                                     conv_.input, channels_, gather_};
        if (input_channels_inside_) {
            pack_panel<T>(product_.streamed, ChannelRuns<T>{source, true}, index, depth, to, scratch);
        } else {
            pack_panel<T>(product_.streamed, PositionRuns<T>{source, true}, index, depth, to, scratch);
        }
    }

    // Offsets of the weight's [c][tap] or [tap][c] elements, in the weight or in a thread's dense partial sums.
    void place(int64_t group, Range index, bool partial, int64_t* out) const {
        for (int64_t i = index.begin; i < index.end; ++i)
            *out++ = partial ? partial_offset(group, 0, i) : weight_offset(group, 0, i);
    }

    int64_t partial_offset(int64_t group, int64_t output, int64_t index) const {
        return (group * outputs_ + output) * product_.streamed.size + index;
    }

    int64_t weight_offset(int64_t group, int64_t output, int64_t index) const {
        int64_t at = (group * outputs_ + output) * conv_.weight.n;
        for (int axis = 0; axis < axes_.count; ++axis) {
            at += index % axes_.size[axis] * axes_.stride[axis];
            index /= axes_.size[axis];
        }
        return at;
    }

    void add_partials(const ConvArguments& arguments, Range rows, int team) const {
        const T* partials = partial_sums(arguments);
        const int64_t stride = partial_bytes() / kSize, size = product_.streamed.size;
        for (int64_t row = rows.begin; row < rows.end; ++row)
            for (int64_t i = 0; i < size; ++i) {
                T sum = partials[row * size + i];
                for (int thread = 1; thread < team; ++thread) sum += partials[thread * stride + row * size + i];
                static_cast<T*>(arguments.weight)[weight_offset(0, row, i)] = sum;
            }
    }

    ConvProblem conv_;
    int threads_;
    int64_t channels_, outputs_;  // per group
    bool input_channels_inside_, output_channels_inside_;
    Gather gather_, outputs_gather_;
    TapAxes axes_;
    Product<T> product_;
};

template <class T>
ConvPlan* plan(const ConvProblem& problem, int threads, int64_t workspace_limit) {
    if (problem.pass == Pass::grad_weight) return new Im2colGradWeight<T>(problem, threads, workspace_limit);
    return new GatherConv<T>(problem, threads, workspace_limit, Access::packed);
}

ConvPlan* plan_im2col(const ConvProblem& problem, int threads, int64_t workspace_limit) {
    if (problem.dtype == DType::f64) return plan<double>(problem, threads, workspace_limit);
    return plan<float>(problem, threads, workspace_limit);
}

}  // namespace

PYCV_KERNEL("conv", "im2col", plan_im2col);

}  // namespace pycv::cpu::PYCV_ISA
