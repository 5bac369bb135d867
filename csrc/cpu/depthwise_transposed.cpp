// Depthwise forward and grad_input of planes whose rows are shorter than vectors are worth (nchw): with channels in the
// lanes all the same.
//
// A work item is a vector of channels of one image: its planes are transposed into scratch that stays in cache, the
// scheme of depthwise_channels.cpp runs on them, and the result is transposed back. Two transpositions more than in
// nhwc: 2 * (source + computed) elements moved.
#include "channel_planes.h"
#include "cost.h"
#include "depthwise.h"
#include "depthwise_plans.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// The part of a problem that a vector of `channels` channels of one image is.
ConvProblem of_vector(ConvProblem p, int64_t channels, int64_t lanes) {
    p.n = 1;
    p.c = p.k = p.groups = channels;
    p.input = in_lanes(p.size, lanes);
    p.output = in_lanes(p.out, lanes);
    return p;
}

template <class T>
class TransposedGather final : public ConvPlan {
public:
    TransposedGather(const ConvProblem& problem, int threads)
        : conv_(problem),
          problem_(gather_problem(problem)),
          threads_(threads > 1 ? threads : 1),
          streams_(computed_bytes(problem) > kStreamedBytes) {
        const int64_t rest = problem.c % kLanes;
        whole_ = plan_channel_gather(of_vector(problem, kLanes, kLanes), 1);
        last_ = rest > 0 ? plan_channel_gather(of_vector(problem, rest, kLanes), 1) : nullptr;
    }
    ~TransposedGather() override {
        delete whole_;
        delete last_;
    }

    int64_t workspace_bytes() const override { return threads_ * scratch_bytes(); }
    int64_t prepared_weight_bytes() const override { return vectors() * whole_->prepared_weight_bytes(); }
    void prepare_weight(const void* weight, void* prepared) const override {
        for (int64_t v = 0; v < vectors(); ++v)
            plan(v).prepare_weight(static_cast<const T*>(weight) + v * kLanes * problem_.weight_group,
                                   static_cast<char*>(prepared) + v * whole_->prepared_weight_bytes());
    }
    Cost cost() const override {
        const double items = static_cast<double>(problem_.n * vectors()) / threads_;
        const double moved = 2 * static_cast<double>((source_size().count() + problem_.size.count()) * kLanes);
        return {items * whole_->cost().multiply_adds, items * moved, tensor_bytes(conv_), 1};
    }
    Cost prepare_cost() const override {
        return {0, weight_elements(conv_), 2 * weight_elements(conv_) * element_bytes(conv_.dtype), 0};
    }

    void run(const ConvArguments& arguments) const override {
        const GatherTensors<T> tensors(conv_, arguments);
        parallel(threads_, [&](int thread, int team) {
            char* scratch = static_cast<char*>(arguments.workspace) + thread * scratch_bytes();
            const Range mine = share(problem_.n * vectors(), thread, team);
            for (int64_t i = mine.begin; i < mine.end; ++i)
                item(tensors, static_cast<const char*>(arguments.weight), i / vectors(), i % vectors(), scratch);
        });
    }

private:
    static constexpr int64_t kLanes = lanes<T>;

    Spatial source_size() const { return conv_.pass == Pass::forward ? conv_.size : conv_.out; }
    int64_t vectors() const { return divide_up(conv_.c, kLanes); }
    const ConvPlan& plan(int64_t v) const { return conv_.c - v * kLanes < kLanes ? *last_ : *whole_; }
    static int64_t block_bytes(Spatial size) { return size.count() * kLanes * static_cast<int64_t>(sizeof(T)); }
    int64_t scratch_bytes() const {
        return block_bytes(source_size()) + block_bytes(problem_.size) + round_up(whole_->workspace_bytes(), 64);
    }

    void item(const GatherTensors<T>& tensors, const char* weight, int64_t n, int64_t v, char* scratch) const {
        const Strides &from = problem_.source, &to = problem_.computed;
        const int64_t c = v * kLanes, channels = smaller(kLanes, conv_.c - c);
        char* computed = scratch + block_bytes(source_size());
        planes_to_lanes<T>(tensors.source + n * from.n + c * from.c, {from.c, channels, source_size().count()},
                           reinterpret_cast<T*>(scratch));
        ConvArguments of{};
        (conv_.pass == Pass::forward ? of.input : of.output) = scratch;
        (conv_.pass == Pass::forward ? of.output : of.input) = computed;
        of.weight = const_cast<char*>(weight) + v * whole_->prepared_weight_bytes();
        of.bias = tensors.bias ? tensors.bias + c : nullptr;
        of.input_scale = tensors.scale ? tensors.scale + c : nullptr;
        of.input_shift = tensors.shift ? tensors.shift + c : nullptr;
        of.workspace = computed + block_bytes(problem_.size);
        plan(v).run(of);
        lanes_to_planes<T>(reinterpret_cast<const T*>(computed), {to.c, channels, problem_.size.count()},
                           tensors.computed + n * to.n + c * to.c, streams_);
    }

    ConvProblem conv_;
    GatherProblem problem_;
    int threads_;
    bool streams_;                   // the computed tensor, past the caches
    const ConvPlan *whole_, *last_;  // of a vector of channels, and of fewer
};

}  // namespace

ConvPlan* plan_transposed_gather(const ConvProblem& problem, int threads) {
    if (problem.dtype == DType::f64) return new TransposedGather<double>(problem, threads);
    return new TransposedGather<float>(problem, threads);
}

}  // namespace pycv::cpu::PYCV_ISA
