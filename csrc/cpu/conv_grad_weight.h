// grad_weight of a convolution as a matrix product:
//
//     weight[k][tap, c] = output[k][position] x source[position][tap, c]
//
// the depth being all n * positions. The lanes run along [tap, c] and the rows along k, or the other way round. Panels
// are packed, one depth block at a time, or read in place where a 1x1 convolution's tensors allow it. Threads share the
// panels of either operand, or the depth, with their sums added in the order of the threads. Of all these ways the plan
// takes the one that costs the busiest thread the least.
#pragma once

#include "conv_product.h"

namespace pycv::cpu::PYCV_ISA {

template <class T>
class GradWeightConv final : public ConvPlan {
public:
    GradWeightConv(const ConvProblem& problem, int threads, int64_t workspace_limit, Access access)
        : conv_(problem), access_(access), threads_(worthwhile_threads(threads, multiply_adds(problem))) {
        const int64_t groups = larger(problem.groups, 1);
        channels_ = problem.c / groups;
        outputs_ = problem.k / groups;
        input_channels_inside_ = channels_contiguous(problem.input, channels_);
        output_channels_inside_ = channels_contiguous(problem.output, outputs_);
        const Gather forward = forward_gather(problem);
        gather_ = merge_axes(forward, problem.output, problem.input, problem.output).gather;
        outputs_gather_ = {plain_axis(gather_.d.count), plain_axis(gather_.h.count), plain_axis(gather_.w.count)};
        axes_ = tap_axes(forward, problem.weight, channels_, input_channels_inside_);
        product_.groups = groups;
        choose_way();
        product_.block_panels = choose_block_panels<T>(product_, threads_, workspace_limit / 2);
    }

    int64_t workspace_bytes() const override {
        return threads_ * thread_bytes() + (way_.split == Split::depth ? threads_ * partial_bytes() : 0);
    }
    int64_t prepared_weight_bytes() const override { return 0; }
    void prepare_weight(const void*, void*) const override {}

    Cost cost() const override {
        const Load load = busiest();
        const double sums = way_.split == Split::depth ? partial_visits() : 0;
        return {load.inputs * load.outputs * load.depth, load.packed_inputs + load.packed_outputs + load.visits + sums,
                tensor_bytes(conv_), way_.split == Split::depth ? 2.0 : 1.0};
    }
    Cost prepare_cost() const override { return {}; }

    void run(const ConvArguments& arguments) const override {
        const int64_t elements = product_.groups * outputs_ * product_.streamed.size;
        if (elements == 0) return;
        parallel(threads_, [&](int thread, int team) {
            char* mine = static_cast<char*>(arguments.workspace) + thread * thread_bytes();
            const Workspace space{thread_space(product_, mine, 0),
                                  reinterpret_cast<T*>(mine + thread_space_bytes(product_))};
            Part part{{0, product_.depth.blocks()},
                      {0, product_.groups * product_.streamed.panels()},
                      {0, product_.stationary.panels()}};
            Range& split = way_.split == Split::depth    ? part.blocks
                           : way_.split == Split::inputs ? part.inputs
                                                         : part.outputs;
            split = share(split.end, thread, team);
            if (team == 1 || way_.split != Split::depth) {
                const Sink<T> sink{static_cast<T*>(arguments.weight), nullptr, nullptr, conv_.weight.n, 0, 1, 1, false};
                multiply(arguments, sink, false, part, space);
                return;
            }
            T* sums = partial_sums(arguments) + thread * partial_bytes() / kSize;
            const Sink<T> sink{sums, nullptr, nullptr, product_.streamed.size, 0, 1, 1, false};
            multiply(arguments, sink, true, part, space);
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

    // What the threads share: panels of one operand (all groups), or the depth.
    enum class Split { inputs, outputs, depth };
    struct Way {
        bool outputs_in_lanes;
        Split split;
    };

    // One thread's part of the product.
    struct Part {
        Range blocks, inputs, outputs;
    };

    void choose_way() {
        constexpr Way ways[] = {{false, Split::inputs}, {true, Split::inputs}, {false, Split::outputs},
                                {true, Split::outputs}, {false, Split::depth}, {true, Split::depth}};
        Way best = ways[0];
        double best_cycles = -1;
        for (const Way& way : ways) {
            if (way.split != Split::inputs && threads_ == 1) continue;
            take(way);
            if (way.split == Split::depth && product_.depth.blocks() < threads_) continue;  // nobody may be left out
            const double cycles = estimated_cycles();
            if (best_cycles >= 0 && cycles >= best_cycles) continue;
            best = way;
            best_cycles = cycles;
        }
        take(best);
    }

    void take(Way way) {
        way_ = way;
        product_.depth = depth_in_blocks<T>(conv_.n * gather_.positions());
        if (way.split == Split::depth)
            product_.depth.block = larger(
                1, divide_up(product_.depth.size, round_up(product_.depth.blocks(), static_cast<int64_t>(threads_))));
        inputs_access_ = outputs_access_ = Access::packed;
        if (access_ == Access::in_place) choose_access();
        const int64_t inputs = gather_.taps() * channels_;
        product_.streamed =
            way.outputs_in_lanes ? rows_side<T>(inputs, product_.depth) : lanes_side<T>(inputs, product_.depth);
        product_.stationary =
            way.outputs_in_lanes ? lanes_side<T>(outputs_, product_.depth) : rows_side<T>(outputs_, product_.depth);
        if (inputs_access_ == Access::in_place && !input_channels_inside_)
            product_.streamed.format = RowFormat::k_contiguous;
        if (outputs_access_ == Access::in_place && !output_channels_inside_)
            product_.stationary.format = RowFormat::k_contiguous;
    }

    // Reads in place what lies evenly along all positions of a depth block, which must then not reach into the next
    // image unless that follows at the same distance: lanes where their channels are neighbours (whole vectors of them,
    // though of the inputs the last panel is packed); rows either way, unless a block would be short.
    void choose_access() {
        constexpr int64_t kShort = 128;
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
        const bool outputs_in_lanes = way_.outputs_in_lanes;
        if (readable(input_channels_inside_, !outputs_in_lanes, input_step, conv_.input.c))
            inputs_access_ = Access::in_place;
        if (readable(output_channels_inside_, outputs_in_lanes, conv_.output.w, conv_.output.c) &&
            (!outputs_in_lanes || outputs_ % lanes<T> == 0))
            outputs_access_ = Access::in_place;
    }

    // Planes or pixels at multiples of 4096 bytes would share cache sets.
    static bool readable(bool channels_inside, bool in_lanes, int64_t pixel, int64_t channel) {
        constexpr int64_t kPage = 4096 / kSize;
        if (channels_inside) return pixel % kPage != 0;
        return !in_lanes && pixel == 1 && channel % kPage != 0;
    }

    // Elements along each index that the busiest thread multiplies, full tiles; that it packs; and its visits of sums.
    struct Load {
        double inputs, outputs, depth, packed_inputs, packed_outputs, visits;
    };
    Load busiest() const {
        const auto part = [&](int64_t count, Split split) {
            return static_cast<double>(way_.split == split ? divide_up(count, threads_) : count);
        };
        const double blocks = part(product_.depth.blocks(), Split::depth);
        const double groups = part(product_.groups, Split::inputs);
        const double inputs =
            part(product_.groups * product_.streamed.panels(), Split::inputs) * padded_width(product_.streamed);
        const double outputs = part(product_.stationary.panels(), Split::outputs) * padded_width(product_.stationary);
        const double depth = blocks * static_cast<double>(product_.depth.block);
        return {inputs,
                outputs,
                depth,
                inputs_access_ == Access::packed ? inputs * depth : 0,
                outputs_access_ == Access::packed ? groups * outputs * depth : 0,
                inputs * outputs * blocks};
    }

    // Of an average panel.
    static double padded_width(const Side<T>& side) {
        if (!side.is_lanes || side.size == 0) return static_cast<double>(side.width);
        return static_cast<double>(round_up(side.size, lanes<T>)) / static_cast<double>(side.panels());
    }

    // Each thread writes its sums, and adds up its part of everybody's.
    double partial_visits() const {
        return static_cast<double>(product_.groups * outputs_ * product_.streamed.size) *
               static_cast<double>(threads_ + 1) / threads_;
    }

    // Multiply-adds, with the loads that a flat tile needs for each; packing, more where it transposes; reading what is
    // shared by no other thread; visits of sums, through a transposition where they lie along rows.
    double estimated_cycles() const {
        constexpr double kPack = 6, kTurnedPack = 12, kRead = 2, kVisit = 3, kTurnedVisit = 14, kLoad = 0.5;
        const Load load = busiest();
        const Side<T>& in_rows = way_.outputs_in_lanes ? product_.streamed : product_.stationary;
        const Side<T>& in_lanes = way_.outputs_in_lanes ? product_.stationary : product_.streamed;
        const double rows = static_cast<double>(in_rows.width), vectors = padded_width(in_lanes) / lanes<T>;
        const double multiplied =
            load.inputs * load.outputs * load.depth * (1 + kLoad * (rows + vectors) / (rows * vectors));
        const bool turned = way_.outputs_in_lanes && conv_.weight.n != 1;
        return (multiplied + load.packed_inputs * (input_channels_inside_ ? kPack : kTurnedPack) +
                load.packed_outputs * (output_channels_inside_ ? kPack : kTurnedPack) +
                (load.inputs + load.outputs) * load.depth * kRead + load.visits * (turned ? kTurnedVisit : kVisit) +
                (way_.split == Split::depth ? partial_visits() * kVisit : 0)) /
               lanes<T>;
    }

    T* partial_sums(const ConvArguments& arguments) const {
        return reinterpret_cast<T*>(static_cast<char*>(arguments.workspace) + threads_ * thread_bytes());
    }

    // The sums of a part.
    void multiply(const ConvArguments& arguments, const Sink<T>& sink, bool partial, const Part& part,
                  const Workspace& space) const {
        const int64_t panels = product_.streamed.panels();
        for (int64_t first = part.inputs.begin; first < part.inputs.end;) {
            const int64_t group = first / panels, begin = first % panels;
            const int64_t end = smaller(panels, begin + part.inputs.end - first);
            first += end - begin;
            multiply_group(arguments, sink, partial, {part.blocks, {begin, end}, part.outputs}, group, space);
        }
    }

    void multiply_group(const ConvArguments& arguments, const Sink<T>& sink, bool partial, const Part& part,
                        int64_t group, const Workspace& workspace) const {
        const ThreadSpace<T>& space = workspace.streamed;
        for (int64_t block = part.blocks.begin; block < part.blocks.end; ++block) {
            const Range depth = product_.depth.range(block);
            if (outputs_access_ == Access::packed)
                pack_outputs(arguments, group, part.outputs, depth, workspace.stationary, space.scratch);
            const TileRow<T> tiles(product_, sink, nullptr, depth.end - depth.begin, block > part.blocks.begin, false);
            for (int64_t begin = part.inputs.begin; begin < part.inputs.end; begin += product_.block_panels) {
                const Range panels{begin, smaller(part.inputs.end, begin + product_.block_panels)};
                show_inputs(arguments, group, panels, depth, partial, space);
                for (int64_t q = part.outputs.begin; q < part.outputs.end; ++q)
                    tiles.multiply(outputs_panel(arguments, group, q, depth, workspace.stationary),
                                   product_.stationary.range(q), space.panels, panels.end - panels.begin);
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

    // The input panels of a block, those packed that cannot be read in place.
    void show_inputs(const ConvArguments& arguments, int64_t group, Range panels, Range depth, bool partial,
                     const ThreadSpace<T>& space) const {
        const Side<T>& side = product_.streamed;
        const bool part_of_vector = side.is_lanes && side.size % lanes<T> != 0;
        const int64_t in_place = inputs_access_ == Access::packed ? 0 : side.panels() - (part_of_vector ? 1 : 0);
        const Range packed{smaller(larger(panels.begin, in_place), panels.end), panels.end};
        pack_inputs(arguments, group, packed, depth, space.packed + (packed.begin - panels.begin) * side.panel_elements,
                    space.scratch);
        for (int64_t index = panels.begin; index < panels.end; ++index) {
            const int64_t slot = index - panels.begin;
            StreamedPanel<T>& panel = space.panels[slot];
            int64_t* const out = space.out + slot * side.width;
            panel.index = side.range(index);
            place(group, panel.index, partial, out);
            panel.out = panel.residual = axis_of(out, panel.index.end - panel.index.begin);
            panel.view = index < in_place ? input_in_place(arguments, group, panel.index, depth)
                                          : PanelView<T>{space.packed + slot * side.panel_elements, side.stride};
        }
    }

    PanelView<T> input_in_place(const ConvArguments& arguments, int64_t group, Range index, Range depth) const {
        const Strides& s = conv_.input;
        const int64_t step = gather_.w.source_step * s.w;
        const T* const at = static_cast<const T*>(arguments.input) + (group * channels_ + index.begin) * s.c +
                            gather_.d.offset_first * s.d + gather_.h.offset_first * s.h + gather_.w.offset_first * s.w +
                            position(s, depth.begin, step);
        return {at, product_.streamed.format == RowFormat::k_contiguous ? s.c : step};
    }

    void pack_outputs(const ConvArguments& arguments, int64_t group, Range panels, Range depth, T* to,
                      T* scratch) const {
        const GatherSource<T> source{static_cast<const T*>(arguments.output) + group * outputs_ * conv_.output.c,
                                     conv_.output, outputs_, outputs_gather_};
        to += panels.begin * product_.stationary.panel_elements;
        if (output_channels_inside_) {
            pack_panels<T>(product_.stationary, ChannelRuns<T>{source, true}, panels, depth, to, scratch);
        } else {
            pack_panels<T>(product_.stationary, PositionRuns<T>{source, true}, panels, depth, to, scratch);
        }
    }

    void pack_inputs(const ConvArguments& arguments, int64_t group, Range panels, Range depth, T* to,
                     T* scratch) const {
        const GatherSource<T> source{static_cast<const T*>(arguments.input) + group * channels_ * conv_.input.c,
                                     conv_.input, channels_, gather_};
        if (input_channels_inside_) {
            pack_panels<T>(product_.streamed, ChannelRuns<T>{source, true}, panels, depth, to, scratch);
        } else {
            pack_panels<T>(product_.streamed, PositionRuns<T>{source, true}, panels, depth, to, scratch);
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
    Access access_;
    int threads_;
    Way way_{};
    int64_t channels_, outputs_;  // per group
    bool input_channels_inside_, output_channels_inside_;
    Access inputs_access_, outputs_access_;
    Gather gather_, outputs_gather_;
    TapAxes axes_;
    Product<T> product_;
};

}  // namespace pycv::cpu::PYCV_ISA
