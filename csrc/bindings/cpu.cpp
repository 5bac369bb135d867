// pycv._cpu: the CPU kernels as plan objects over raw pointers. Nothing here knows torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../cpu/plan.h"
#include "plans.h"
#include "problems.h"

#ifdef __clang__
#define PYCV_COMPILER "clang " __clang_version__
#else
#define PYCV_COMPILER "GCC " __VERSION__
#endif

namespace py = pybind11;
using namespace pycv;
using namespace pycv::bindings;

namespace {

const cpu::KernelEntry& entry(const std::string& op, const std::string& algorithm) {
    const cpu::KernelEntry* found = cpu::find_kernel(op.c_str(), algorithm.c_str());
    if (!found) throw std::invalid_argument("no CPU kernel for op " + op + ", algorithm " + algorithm);
    return *found;
}

// The factories' entry for a problem. Every file of csrc/cpu knows two dtypes.
template <class Problem>
const cpu::KernelEntry& entry_of(const std::string& algorithm, const Problem& problem) {
    if (problem.dtype != DType::f32 && problem.dtype != DType::f64)
        throw std::invalid_argument("the CPU kernels take f32 and f64");
    return entry(op_of(problem), algorithm);
}

// See kernels/large_results.py. Advice that cannot be followed is none.
void advise_huge_pages(Address address, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    constexpr Address kPage = 4096;
    const Address begin = (address + kPage - 1) / kPage * kPage;
    const Address end = (address + static_cast<Address>(bytes)) / kPage * kPage;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

using std::string;
using std::unique_ptr;

unique_ptr<cpu::ConvPlan> conv_plan(const string& algorithm, const ConvProblem& problem, int threads, int64_t limit) {
    return unique_ptr<cpu::ConvPlan>(entry_of(algorithm, problem).conv(problem, threads, limit));
}

unique_ptr<cpu::GemmPlan> gemm_plan(const string& algorithm, const GemmProblem& problem, int threads, int64_t limit) {
    return unique_ptr<cpu::GemmPlan>(entry_of(algorithm, problem).gemm(problem, threads, limit));
}

unique_ptr<cpu::PoolPlan> pool_plan(const string& algorithm, const PoolProblem& problem, int threads) {
    return unique_ptr<cpu::PoolPlan>(entry_of(algorithm, problem).pool(problem, threads));
}

unique_ptr<cpu::NormPlan> norm_plan(const string& algorithm, const NormProblem& problem, int threads) {
    return unique_ptr<cpu::NormPlan>(entry_of(algorithm, problem).norm(problem, threads));
}

unique_ptr<cpu::PointwisePlan> pointwise_plan(const string& algorithm, const PointwiseProblem& problem, int threads) {
    return unique_ptr<cpu::PointwisePlan>(entry_of(algorithm, problem).pointwise(problem, threads));
}

double measure_peak(const char* what, const std::string& dtype, int64_t bytes, int threads, double seconds) {
    if (threads < 1) throw std::invalid_argument("threads must be 1 or more, not " + std::to_string(threads));
    if (dtype != "f32" && dtype != "f64")
        throw std::invalid_argument("dtype " + dtype + ": the CPU kernels take f32 and f64");
    const cpu::PeakProbe probe = entry("peak", what).peak;
    const PeakProblem problem{dtype_of(dtype), bytes};
    const WithoutGil release;
    return probe(problem, threads, seconds);
}

std::vector<std::string> compiled_isas() {
    std::vector<std::string> names;
    for (cpu::Isa isa : {cpu::Isa::baseline, cpu::Isa::avx2, cpu::Isa::avx512})
        if (cpu::isa_compiled(isa)) names.push_back(cpu::isa_name(isa));
    return names;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
    cpu::watch_forks();
    m.doc() = "CPU kernels of pycv: plans over raw pointers.";
    m.def("isa", [] { return cpu::isa_name(cpu::current_isa()); }, "The instruction set in use.");
    m.def("compiled_isas", &compiled_isas, "The instruction sets of this build.");
    m.attr("compiler") = PYCV_COMPILER;

    m.def("advise_huge_pages", &advise_huge_pages, py::arg("address"), py::arg("bytes"),
          "Asks for the pages of this memory, not yet touched, to be huge ones.");
    m.def(
        "fma_flops",
        [](int threads, const std::string& dtype, double seconds) {
            return measure_peak("fma", dtype, 0, threads, seconds);
        },
        py::arg("threads"), py::arg("dtype"), py::arg("seconds"), "Measured multiply-add peak in FLOP/s.");
    m.def(
        "read_bandwidth",
        [](int threads, int64_t bytes, double seconds) { return measure_peak("read", "f32", bytes, threads, seconds); },
        py::arg("threads"), py::arg("bytes"), py::arg("seconds"),
        "Measured bytes/s of reading a buffer of this size, split over the threads; 0 if it cannot be allocated.");
    m.def(
        "copy_bandwidth",
        [](int threads, int64_t bytes, double seconds) { return measure_peak("copy", "f32", bytes, threads, seconds); },
        py::arg("threads"), py::arg("bytes"), py::arg("seconds"),
        "Measured bytes/s read and written by copying one half of a buffer of this size onto the other; 0 as above.");

    py::class_<cpu::Cost>(m, "Cost", "What a run of a plan costs: counts (csrc/cpu/plan.h).")
        .def_readonly("multiply_adds", &cpu::Cost::multiply_adds)
        .def_readonly("vector_elements", &cpu::Cost::vector_elements)
        .def_readonly("bytes", &cpu::Cost::bytes)
        .def_readonly("regions", &cpu::Cost::regions);
    define_conv_plan<cpu::ConvPlan>(m)
        .def_property_readonly("takes_plain_weight", &cpu::ConvPlan::takes_plain_weight)
        .def_property_readonly("launch_plain", &bound_launch<cpu::ConvPlan, launch_conv<true, cpu::ConvPlan>>)
        .def_property_readonly("cost", &cpu::ConvPlan::cost)
        .def_property_readonly("prepare_cost", &cpu::ConvPlan::prepare_cost);
    define_gemm_plan<cpu::GemmPlan>(m).def_property_readonly("cost", &cpu::GemmPlan::cost);
    define_pool_plan<cpu::PoolPlan>(m);
    define_norm_plan<cpu::NormPlan>(m);
    define_pointwise_plan<cpu::PointwisePlan>(m);

    define_planner(m, "conv_plan", conv_problem, conv_plan);
    define_planner(m, "gemm_plan", gemm_problem, gemm_plan);
    define_planner(m, "pool_plan", pool_problem, pool_plan);
    define_planner(m, "norm_plan", norm_problem, norm_plan);
    define_planner(m, "pointwise_plan", pointwise_problem, pointwise_plan);
}
