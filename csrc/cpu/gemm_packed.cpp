// GEMM: out = relu(alpha * a @ b + beta * residual + bias), batched, any strides.
//
// b is the stationary operand of a blocked product (gemm_product.h): packed once, by prepare_weight() or at the start
// of run(), in chunks of the batch where the workspace limit asks for it. Where an operand is used too few times to pay
// for packing it, and its strides allow it, it is read in place. The lanes run along whichever index of `out` is
// contiguous. Products with only a few rows or columns are left to gemm_thin.h. 2 * batch * m * n * k FLOPs; a and
// out are visited once per block of the other two indices (gemm_product.h), b once to be packed.
#include "gemm_plans.h"
#include "gemm_product.h"
#include "gemm_thin.h"
#include "plan.h"

namespace pycv::cpu::PYCV_ISA {
namespace {

// The streamed operand: rows of a, which are the product's rows or, for a row-major result of few columns, its lanes.
template <class T>
struct RowsOfA {
    const GemmProblem& problem;
    const Side<T>& side;
    const T* a;
    int64_t first_batch;
    bool in_place;

    PanelView<T> view(int64_t group, int64_t, Range index, Range depth, T* to, T* scratch) const {
        const T* data = a + (first_batch + group) * problem.a.batch;
        if (in_place) {
            const bool k_contiguous = side.format == RowFormat::k_contiguous;
            return {data + index.begin * problem.a.row + depth.begin * problem.a.column,
                    k_contiguous ? problem.a.row : problem.a.column};
        }
        pack_panel<T>(side, MatrixOperand<T>{data, problem.a.row, problem.a.column}, index, depth, to, scratch);
        return {to, side.stride};
    }
    void place(int64_t group, int64_t, Range index, int64_t*, int64_t*, StreamedPanel<T>& panel) const {
        const int64_t batch = first_batch + group;
        panel.out = {batch * problem.out.batch + index.begin * problem.out.row, problem.out.row, nullptr};
        panel.residual = {batch * problem.residual.batch + index.begin * problem.residual.row, problem.residual.row,
                          nullptr};
    }
};

template <class T>
class PackedGemm final : public GemmPlan {
public:
    PackedGemm(const GemmProblem& problem, int threads, int64_t workspace_limit)
        : problem_(problem), threads_(worthwhile_threads(threads, problem.batch * problem.m * problem.n * problem.k)) {
        const bool lanes_along_n = problem.out.column == 1 || problem.out.row != 1;
        const Depth depth = product_.depth = depth_in_blocks<T>(problem.k);
        product_.streamed = lanes_along_n ? rows_side<T>(problem.m, depth) : lanes_side<T>(problem.m, depth);
        product_.stationary = lanes_along_n ? lanes_side<T>(problem.n, depth) : rows_side<T>(problem.n, depth);
        product_.groups = problem.batch;
        product_.streams = result_bytes(problem) > kStreamedBytes;
        a_in_place_ = lanes_along_n && problem.n <= kFewUses && readable(problem.a.column, problem.a.row);
        if (a_in_place_ && problem.a.column == 1) product_.streamed.format = RowFormat::k_contiguous;
        if (lanes_along_n && problem.m <= kFewUses && problem.n % lanes<T> == 0 && problem.b.column == 1 &&
            spread(problem.b.row)) {
            product_.stationary_in_place = true;
            product_.stationary_place = {problem.b.batch, depth.block * problem.b.row, kTileWidth<T>};
            product_.stationary.stride = problem.b.row;
        }
        product_.packs_stationary = !product_.stationary_in_place;
        product_.block_panels = choose_block_panels<T>(product_, threads_, workspace_limit / 2);
        const int64_t per_batch = aligned(problem.batch > 0 ? packed_bytes() / problem.batch : 0);
        batch_chunk_ = smaller(larger(problem.batch, 1), larger(1, workspace_limit / 2 / larger(per_batch, 1)));
    }

    int64_t workspace_bytes() const override {
        return threads_ * thread_space_bytes(product_) + aligned(chunk(0, batch_chunk_).stationary_elements() * kSize);
    }
    int64_t prepared_weight_bytes() const override { return packed_bytes(); }

    Cost cost() const override {
        Cost sum = share_cost(product_, threads_, a_in_place_);
        sum.vector_elements += static_cast<double>(product_.stationary_elements()) / threads_;
        sum.bytes = tensor_bytes(problem_) + static_cast<double>(packed_bytes());
        sum.regions = 2 * static_cast<double>(divide_up(larger(problem_.batch, 1), batch_chunk_));
        return sum;
    }

    void prepare_weight(const void* b, void* prepared) const override {
        parallel(threads_, [&](int thread, int team) {
            alignas(64) T scratch[kScratchElements<T>];
            pack_b(product_, static_cast<const T*>(b), 0, static_cast<T*>(prepared), scratch, thread, team);
        });
    }

    void run(const GemmArguments& arguments) const override {
        if (problem_.batch == 0 || problem_.m == 0 || problem_.n == 0) return;
        const Sink<T> sink{
            static_cast<T*>(arguments.out),
            problem_.has_residual && arguments.beta != 0 ? static_cast<const T*>(arguments.residual) : nullptr,
            problem_.bias ? static_cast<const T*>(arguments.bias) : nullptr,
            problem_.out.column,
            problem_.residual.column,
            static_cast<T>(arguments.alpha),
            static_cast<T>(arguments.beta),
            problem_.relu};
        parallel(threads_, [&](int thread, int team) {
            const ThreadSpace<T> space = thread_space(product_, arguments.workspace, thread);
            if (arguments.b_prepared || product_.stationary_in_place) {
                multiply(product_, 0, arguments, static_cast<const T*>(arguments.b), sink, space, thread, team);
            } else {
                pack_and_multiply(arguments, sink, space, thread, team);
            }
        });
    }

private:
    static constexpr int64_t kSize = sizeof(T);
    static constexpr int64_t kFewUses = 256;  // of an element, for which packing it is not yet paid

    // Whether rows or steps at this distance do not all share the same cache sets.
    static bool spread(int64_t stride) { return stride % (4096 / kSize) != 0; }
    // Rows of a in place: along k, or side by side.
    static bool readable(int64_t along_k, int64_t along_rows) {
        return (along_k == 1 && spread(along_rows)) || (along_rows == 1 && spread(along_k));
    }

    int64_t packed_bytes() const { return product_.stationary_elements() * kSize; }

    Product<T> chunk(int64_t begin, int64_t end) const {
        Product<T> part = product_;
        part.groups = smaller(end, problem_.batch) - begin;
        return part;
    }

    void pack_b(const Product<T>& part, const T* b, int64_t first_batch, T* to, T* scratch, int thread,
                int team) const {
        const int64_t panels = part.stationary.panels();
        const Range mine = share(part.groups * panels, thread, team);
        for (int64_t first = mine.begin, end; first < mine.end; first = end) {
            const int64_t group = first / panels;
            end = smaller(mine.end, (group + 1) * panels);
            const T* data = b + (first_batch + group) * problem_.b.batch;
            pack_stationary<T>(part, MatrixOperand<T>{data, problem_.b.column, problem_.b.row}, group,
                               {first - group * panels, end - group * panels}, to, scratch);
        }
    }

    void pack_and_multiply(const GemmArguments& arguments, const Sink<T>& sink, const ThreadSpace<T>& space, int thread,
                           int team) const {
        T* packed =
            reinterpret_cast<T*>(static_cast<char*>(arguments.workspace) + threads_ * thread_space_bytes(product_));
        for (int64_t begin = 0; begin < problem_.batch; begin += batch_chunk_) {
            const Product<T> part = chunk(begin, begin + batch_chunk_);
            if (begin > 0) team_barrier(team);
            pack_b(part, static_cast<const T*>(arguments.b), begin, packed, space.scratch, thread, team);
            team_barrier(team);
            multiply(part, begin, arguments, packed, sink, space, thread, team);
        }
    }

    void multiply(const Product<T>& part, int64_t first_batch, const GemmArguments& arguments, const T* packed,
                  const Sink<T>& sink, const ThreadSpace<T>& space, int thread, int team) const {
        const RowsOfA<T> rows{problem_, product_.streamed, static_cast<const T*>(arguments.a), first_batch,
                              a_in_place_};
        multiply_share<T>(part, rows, packed, sink, 0, space, product_share(part, thread, team));
    }

    GemmProblem problem_;
    int threads_;
    bool a_in_place_;
    Product<T> product_;
    int64_t batch_chunk_;  // products whose b is packed at a time
};

template <class T>
GemmPlan* plan(const GemmProblem& problem, int threads, int64_t workspace_limit) {
    if (is_thin(problem)) return new ThinGemm<T>(problem, threads);
    return new PackedGemm<T>(problem, threads, workspace_limit);
}

}  // namespace

GemmPlan* plan_packed_gemm(const GemmProblem& problem, int threads, int64_t workspace_limit) {
    if (problem.dtype == DType::f64) return plan<double>(problem, threads, workspace_limit);
    return plan<float>(problem, threads, workspace_limit);
}

PYCV_KERNEL("gemm", "packed", plan_packed_gemm);

}  // namespace pycv::cpu::PYCV_ISA
