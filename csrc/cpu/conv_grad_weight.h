// grad_weight of a convolution as a matrix product:
//
//     weight[k][tap, c] = output[k][position] x source[position][tap, c]
//
// the depth being all n * positions. The lanes run along [tap, c], the rows along k. Panels are packed, one depth block
// at a time, or read in place where a 1x1 convolution's tensors allow it. Threads share the weight's elements, or the
// depth, with their sums added in the order of the threads.
#pragma once

#include "conv_product.h"

namespace pycv::cpu::PYCV_ISA {

template <class T>
class GradWeightConv final : public ConvPlan {
public:
    GradWeightConv(const ConvProblem& problem, int threads, int64_t workspace_limit, Access access)
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
        inputs_access_ = outputs_access_ = Access::packed;
        if (access == Access::in_place) choose_access();
        product_.streamed = lanes_side<T>(forward.taps() * channels_, product_.depth);
        product_.stationary = rows_side<T>(outputs_, product_.depth);
        if (outputs_access_ == Access::in_place && !output_channels_inside_)
            product_.stationary.format = RowFormat::k_contiguous;
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

    // Reads in place what lies evenly along all positions of a depth block, which must then not reach into the next
    // image unless that follows at the same distance: the inputs where their channels are neighbours, as the lanes must
    // be; the outputs either way, unless a block would be short. Planes or pixels at multiples of 4096 bytes would share
    // cache sets.
    void choose_access() {
        constexpr int64_t kPage = 4096 / static_cast<int64_t>(sizeof(T)), kShort = 128;
        const AxisGather& w = gather_.w;
        if (!is_plain(w) || gather_.h.count != 1 || gather_.d.count != 1 || !is_plain(gather_.h) ||
            !is_plain(gather_.d) || conv_.n == 0)
            return;
        const int64_t input_step = w.source_step * conv_.input.w, blocks = divide_up(w.count, kDepth<T>);
        const bool one_run = conv_.n == 1 || (dense(conv_.input.n, input_step, w.count) &&
                                              dense(conv_.output.n, conv_.output.w, w.count));
        if (!one_run) {
            if (w.count % blocks != 0 || w.count / blocks < kShort) return;
            product_.depth.block = w.count / blocks;
        }
        if (input_channels_inside_ && input_step % kPage != 0) inputs_access_ = Access::in_place;
        if (output_channels_inside_ ? conv_.output.w % kPage != 0 : conv_.output.w == 1 && conv_.output.c % kPage != 0)
            outputs_access_ = Access::in_place;
    }

    // The threads among which the depth is split: all of them where it is long and the weight has too few tiles to share
    // evenly, or is so small that adding up the threads' sums costs less than that each of them packs all outputs, else
    // 1. A question of the plan, which sized the workspace, not of the team that came.
    int depth_threads() const {
        constexpr int64_t kMuchLonger = 8;
        const int64_t tiles = product_.groups * product_.streamed.panels();
        const bool uneven = divide_up(tiles, threads_) * threads_ * 4 > tiles * 5;
        const bool small = kMuchLonger * product_.groups * product_.streamed.size <= product_.depth.size;
        return threads_ > 1 && (uneven || small) && product_.depth.blocks() >= 2 * threads_ ? threads_ : 1;
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
            if (outputs_access_ == Access::packed) pack_outputs(arguments, group, depth, stationary, space.scratch);
            const TileRow<T> tiles(product_, sink, nullptr, depth.end - depth.begin, block > blocks.begin, false);
            for (int64_t begin = panels.begin; begin < panels.end; begin += product_.block_panels) {
                const int64_t count = smaller(panels.end - begin, product_.block_panels);
                for (int64_t i = 0; i < count; ++i)
                    space.panels[i] = streamed_panel(arguments, group, begin + i, i, depth, partial, space);
                for (int64_t q = fixed.begin; q < fixed.end; ++q)
                    tiles.multiply(outputs_panel(arguments, group, q, depth, stationary),
                                   product_.stationary.range(q), space.panels, count);
            }
        }
    }

    PanelView<T> outputs_panel(const ConvArguments& arguments, int64_t group, int64_t panel, Range depth,
                               const T* packed) const {
        const Side<T>& side = product_.stationary;
        if (outputs_access_ == Access::packed) return {packed + panel * side.panel_elements, side.stride};
        const Strides& s = conv_.output;
        const T* const at = static_cast<const T*>(arguments.output) + position(s, depth.begin, s.w) +
                            (group * outputs_ + side.range(panel).begin) * s.c;
        return {at, side.format == RowFormat::k_contiguous ? s.c : s.w};
    }

    // Where a position lies in a tensor whose pixels of an image are `step` apart.
    int64_t position(const Strides& strides, int64_t index, int64_t step) const {
        return index / gather_.w.count * strides.n + index % gather_.w.count * step;
    }

    // As number `slot` of a block.
    StreamedPanel<T> streamed_panel(const ConvArguments& arguments, int64_t group, int64_t index, int64_t slot,
                                    Range depth, bool partial, const ThreadSpace<T>& space) const {
        T* const to = space.packed + slot * product_.streamed.panel_elements;
        int64_t* const out = space.out + slot * product_.streamed.width;
        const Range range = product_.streamed.range(index);
        place(group, range, partial, out);
        const Axis axis = axis_of(out, range.end - range.begin);
        if (inputs_access_ == Access::in_place && (range.end - range.begin) % lanes<T> == 0) {
            const Strides& s = conv_.input;
            const int64_t step = gather_.w.source_step * s.w;
            const T* const at = static_cast<const T*>(arguments.input) + group * channels_ * s.c +
                                gather_.d.offset_first * s.d + gather_.h.offset_first * s.h +
                                gather_.w.offset_first * s.w + position(s, depth.begin, step) + range.begin;
            return {{at, step}, range, axis, axis};
        }
        pack_inputs(arguments, group, range, depth, to, space.scratch);
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

    // Rows of the weight as the sums of all threads' parts.
    void add_partials(const ConvArguments& arguments, Range rows, int team) const {
        const T* partials = partial_sums(arguments);
        T* const weight = static_cast<T*>(arguments.weight);
        const int64_t stride = partial_bytes() / kSize, size = product_.streamed.size;
        const bool in_order = axes_.count == 1 && axes_.stride[0] == 1;
        for (int64_t row = rows.begin; row < rows.end; ++row) {
            const T* const from = partials + row * size;
            int64_t i = 0;
            for (T* const to = weight + row * conv_.weight.n; in_order && i + lanes<T> <= size; i += lanes<T>) {
                Vec<T> sum = load<T>(from + i);
                for (int thread = 1; thread < team; ++thread) sum += load<T>(from + thread * stride + i);
                store<T>(to + i, sum);
            }
            for (; i < size; ++i) {
                T sum = from[i];
                for (int thread = 1; thread < team; ++thread) sum += from[thread * stride + i];
                weight[weight_offset(0, row, i)] = sum;
            }
        }
    }

    ConvProblem conv_;
    int threads_;
    int64_t channels_, outputs_;  // per group
    bool input_channels_inside_, output_channels_inside_;
    Access inputs_access_, outputs_access_;
    Gather gather_, outputs_gather_;
    TapAxes axes_;
    Product<T> product_;
};

}  // namespace pycv::cpu::PYCV_ISA
