// pycv._cpu: the CPU kernels as plan objects over raw pointers.
//
// The one place where Python's problems become C++ structs. Each make_*_plan function takes the fields of the
// problem of pycv/problem.py in a fixed order; pointers are integers (Tensor.data_ptr()), 0 is null.
// run() releases the GIL. Nothing here knows torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../cpu/plan.h"

#ifdef __clang__
#define PYCV_COMPILER "clang " __clang_version__
#else
#define PYCV_COMPILER "GCC " __VERSION__
#endif

namespace py = pybind11;
using namespace pycv;

namespace {

using Address = uintptr_t;

// As py::gil_scoped_release, in half its time.
struct WithoutGil {
    PyThreadState* state = PyEval_SaveThread();
    WithoutGil() = default;
    WithoutGil(const WithoutGil&) = delete;
    ~WithoutGil() { PyEval_RestoreThread(state); }
};

template <class T = void>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

DType dtype_of(const std::string& name) {
    if (name == "f32") return DType::f32;
    if (name == "f64") return DType::f64;
    throw std::invalid_argument("dtype " + name + ": the CPU kernels take f32 and f64");
}

Pass pass_of(const std::string& name) {
    if (name == "forward") return Pass::forward;
    if (name == "grad_input") return Pass::grad_input;
    if (name == "grad_weight") return Pass::grad_weight;
    throw std::invalid_argument("pass " + name + ": expected forward, grad_input or grad_weight");
}

Spatial spatial(const std::array<int64_t, 3>& v) { return {v[0], v[1], v[2]}; }
Strides strides(const std::array<int64_t, 6>& v) { return {v[0], v[1], v[2], v[3], v[4], v[5]}; }
MatrixStrides matrix_strides(const std::array<int64_t, 3>& v) { return {v[0], v[1], v[2]}; }

const cpu::KernelEntry& entry(const std::string& op, const std::string& algorithm) {
    const cpu::KernelEntry* found = cpu::find_kernel(op.c_str(), algorithm.c_str());
    if (!found) throw std::invalid_argument("no CPU kernel for op " + op + ", algorithm " + algorithm);
    return *found;
}

using I3 = std::array<int64_t, 3>;
using I6 = std::array<int64_t, 6>;  // strides and block

std::unique_ptr<cpu::ConvPlan> make_conv_plan(const std::string& algorithm, const std::string& pass,
                                              const std::string& dtype, int64_t n, int64_t c, int64_t k, int64_t groups,
                                              const I3& size, const I3& filter, const I3& out, const I3& stride,
                                              const I3& padding, const I3& dilation, const I6& input, const I6& weight,
                                              const I6& output, const I6& residual, bool bias, bool has_residual,
                                              bool relu, bool scale_input, bool relu_input, int threads,
                                              int64_t workspace_limit) {
    const ConvProblem problem{pass_of(pass),
                              dtype_of(dtype),
                              n,
                              c,
                              k,
                              groups,
                              spatial(size),
                              spatial(filter),
                              spatial(out),
                              spatial(stride),
                              spatial(padding),
                              spatial(dilation),
                              strides(input),
                              strides(weight),
                              strides(output),
                              strides(residual),
                              bias,
                              has_residual,
                              relu,
                              scale_input,
                              relu_input};
    return std::unique_ptr<cpu::ConvPlan>(entry("conv", algorithm).conv(problem, threads, workspace_limit));
}

std::unique_ptr<cpu::GemmPlan> make_gemm_plan(const std::string& algorithm, const std::string& dtype, int64_t batch,
                                              int64_t m, int64_t n, int64_t k, const I3& a, const I3& b, const I3& out,
                                              const I3& residual, bool bias, bool has_residual, bool relu, int threads,
                                              int64_t workspace_limit) {
    const GemmProblem problem{dtype_of(dtype),
                              batch,
                              m,
                              n,
                              k,
                              matrix_strides(a),
                              matrix_strides(b),
                              matrix_strides(out),
                              matrix_strides(residual),
                              bias,
                              has_residual,
                              relu};
    return std::unique_ptr<cpu::GemmPlan>(entry("gemm", algorithm).gemm(problem, threads, workspace_limit));
}

std::unique_ptr<cpu::PoolPlan> make_pool_plan(const std::string& op, const std::string& algorithm,
                                              const std::string& pass, const std::string& dtype, int64_t n, int64_t c,
                                              const I3& size, const I3& filter, const I3& out, const I3& stride,
                                              const I3& padding, const I3& dilation, const I6& input, const I6& output,
                                              bool indices, bool count_include_pad, int64_t divisor, int threads) {
    const PoolKind kind = op == "max_pool"            ? PoolKind::max
                          : op == "avg_pool"          ? PoolKind::avg
                          : op == "adaptive_max_pool" ? PoolKind::adaptive_max
                                                      : PoolKind::adaptive_avg;
    const PoolProblem problem{kind,
                              pass_of(pass),
                              dtype_of(dtype),
                              n,
                              c,
                              spatial(size),
                              spatial(filter),
                              spatial(out),
                              spatial(stride),
                              spatial(padding),
                              spatial(dilation),
                              strides(input),
                              strides(output),
                              indices,
                              count_include_pad,
                              divisor};
    return std::unique_ptr<cpu::PoolPlan>(entry(op, algorithm).pool(problem, threads));
}

std::unique_ptr<cpu::NormPlan> make_norm_plan(const std::string& op, const std::string& algorithm,
                                              const std::string& pass, const std::string& dtype, int64_t n, int64_t c,
                                              const I3& size, const I6& input, const I6& output, bool training,
                                              int64_t window, const I6& residual, bool has_residual, bool relu,
                                              int threads) {
    const NormKind kind = op == "batch_norm"            ? NormKind::batch_norm
                          : op == "local_response_norm" ? NormKind::local_response_norm
                                                        : NormKind::channel_sum;
    const NormProblem problem{
        kind,   pass_of(pass),     dtype_of(dtype), n,   c, spatial(size), strides(input), strides(output), training,
        window, strides(residual), has_residual,    relu};
    return std::unique_ptr<cpu::NormPlan>(entry(op, algorithm).norm(problem, threads));
}

std::unique_ptr<cpu::PointwisePlan> make_pointwise_plan(const std::string& op, const std::string& algorithm,
                                                        const std::string& pass, const std::string& dtype,
                                                        int64_t count, int threads) {
    const PointwiseProblem problem{PointwiseKind::relu, pass_of(pass), dtype_of(dtype), count};
    return std::unique_ptr<cpu::PointwisePlan>(entry(op, algorithm).pointwise(problem, threads));
}

void run_conv(const cpu::ConvPlan& plan, Address input, Address weight, Address output, Address bias, Address residual,
              Address workspace, Address input_scale, Address input_shift, bool plain_weight) {
    const cpu::ConvArguments arguments{pointer(input),       pointer(weight),      pointer(output),
                                       pointer(bias),        pointer(residual),    pointer(workspace),
                                       pointer(input_scale), pointer(input_shift), plain_weight};
    const WithoutGil release;
    plan.run(arguments);
}

void run_gemm(const cpu::GemmPlan& plan, Address a, Address b, Address out, Address bias, Address residual,
              double alpha, double beta, Address workspace, bool b_prepared) {
    const cpu::GemmArguments arguments{pointer(a), pointer(b), pointer(out),       pointer(bias), pointer(residual),
                                       alpha,      beta,       pointer(workspace), b_prepared};
    const WithoutGil release;
    plan.run(arguments);
}

void run_pool(const cpu::PoolPlan& plan, Address input, Address output, Address indices) {
    const cpu::PoolArguments arguments{pointer(input), pointer(output), pointer<int64_t>(indices)};
    const WithoutGil release;
    plan.run(arguments);
}

void run_norm(const cpu::NormPlan& plan, Address input, Address grad_output, Address output, Address weight,
              Address bias, Address running_mean, Address running_var, Address mean, Address invstd,
              Address grad_weight, Address grad_bias, double eps, double momentum, double alpha, double beta, double k,
              Address workspace, Address residual, Address forward_output, Address grad_residual) {
    const cpu::NormArguments arguments{pointer(input),
                                       pointer(grad_output),
                                       pointer(output),
                                       pointer(weight),
                                       pointer(bias),
                                       pointer(running_mean),
                                       pointer(running_var),
                                       pointer(mean),
                                       pointer(invstd),
                                       pointer(grad_weight),
                                       pointer(grad_bias),
                                       eps,
                                       momentum,
                                       alpha,
                                       beta,
                                       k,
                                       pointer(workspace),
                                       pointer(residual),
                                       pointer(forward_output),
                                       pointer(grad_residual)};
    const WithoutGil release;
    plan.run(arguments);
}

void run_pointwise(const cpu::PointwisePlan& plan, Address input, Address grad_output, Address output) {
    const cpu::PointwiseArguments arguments{pointer(input), pointer(grad_output), pointer(output)};
    const WithoutGil release;
    plan.run(arguments);
}

// What an op calls on every run: `plan.launch(address, ...)`, positional, all arguments given. A builtin bound to the
// plan costs a tenth of a microsecond, a pybind11 method with its keywords and casts about half of one.
template <class Plan>
const Plan& plan_of(PyObject* capsule) {
    return *static_cast<const Plan*>(PyCapsule_GetPointer(capsule, nullptr));
}

template <size_t Count>
bool read_addresses(PyObject* const* arguments, Py_ssize_t given, std::array<Address, Count>& addresses) {
    if (given != static_cast<Py_ssize_t>(Count)) {
        PyErr_Format(PyExc_TypeError, "launch() takes %zu addresses, not %zd", Count, given);
        return false;
    }
    for (size_t i = 0; i < Count; ++i) addresses[i] = PyLong_AsSize_t(arguments[i]);
    return !PyErr_Occurred();
}

template <bool Plain>
PyObject* launch_conv(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    std::array<Address, 6> a;
    if (!read_addresses(arguments, given, a)) return nullptr;
    run_conv(plan_of<cpu::ConvPlan>(capsule), a[0], a[1], a[2], a[3], a[4], a[5], 0, 0, Plain);
    Py_RETURN_NONE;
}

// a, b, out, bias, residual, workspace, b_prepared; alpha and beta are 1.
PyObject* launch_gemm(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    std::array<Address, 7> a;
    if (!read_addresses(arguments, given, a)) return nullptr;
    run_gemm(plan_of<cpu::GemmPlan>(capsule), a[0], a[1], a[2], a[3], a[4], 1.0, 1.0, a[5], a[6] != 0);
    Py_RETURN_NONE;
}

PyObject* launch_pool(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    std::array<Address, 3> a;
    if (!read_addresses(arguments, given, a)) return nullptr;
    run_pool(plan_of<cpu::PoolPlan>(capsule), a[0], a[1], a[2]);
    Py_RETURN_NONE;
}

PyObject* launch_pointwise(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    std::array<Address, 3> a;
    if (!read_addresses(arguments, given, a)) return nullptr;
    run_pointwise(plan_of<cpu::PointwisePlan>(capsule), a[0], a[1], a[2]);
    Py_RETURN_NONE;
}

using Launch = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

// The builtin for a plan: its capsule keeps the plan's Python object alive.
template <class Plan, Launch launch>
py::object bound_launch(py::object plan) {
    static PyMethodDef definition{"launch", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(launch)),
                                  METH_FASTCALL, "Runs the plan: see run()."};
    py::object capsule =
        py::reinterpret_steal<py::object>(PyCapsule_New(plan.cast<Plan*>(), nullptr, [](PyObject* self) {
            Py_DECREF(static_cast<PyObject*>(PyCapsule_GetContext(self)));
        }));
    if (!capsule) throw py::error_already_set();
    PyCapsule_SetContext(capsule.ptr(), plan.inc_ref().ptr());
    return py::reinterpret_steal<py::object>(PyCFunction_New(&definition, capsule.ptr()));
}

double measure_peak(const char* what, const std::string& dtype, int64_t bytes, int threads, double seconds) {
    if (threads < 1) throw std::invalid_argument("threads must be 1 or more, not " + std::to_string(threads));
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

template <class Plan>
void prepare_weight(const Plan& plan, Address weight, Address prepared) {
    const WithoutGil release;
    plan.prepare_weight(pointer(weight), pointer(prepared));
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
    cpu::watch_forks();
    m.doc() = "CPU kernels of pycv: plans over raw pointers.";
    m.def("isa", [] { return cpu::isa_name(cpu::current_isa()); }, "The instruction set in use.");
    m.def("compiled_isas", &compiled_isas, "The instruction sets of this build.");
    m.attr("compiler") = PYCV_COMPILER;

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

    py::class_<cpu::Cost>(m, "Cost", "What a run of a plan costs: counts (csrc/cpu/plan.h).")
        .def_readonly("multiply_adds", &cpu::Cost::multiply_adds)
        .def_readonly("vector_elements", &cpu::Cost::vector_elements)
        .def_readonly("bytes", &cpu::Cost::bytes)
        .def_readonly("regions", &cpu::Cost::regions);
    py::class_<cpu::ConvPlan>(m, "ConvPlan")
        .def_property_readonly("workspace_bytes", &cpu::ConvPlan::workspace_bytes)
        .def_property_readonly("prepared_weight_bytes", &cpu::ConvPlan::prepared_weight_bytes)
        .def("prepare_weight", &prepare_weight<cpu::ConvPlan>, py::arg("weight"), py::arg("prepared"))
        .def("run", &run_conv, py::arg("input"), py::arg("weight"), py::arg("output"), py::arg("bias") = 0,
             py::arg("residual") = 0, py::arg("workspace") = 0, py::arg("input_scale") = 0, py::arg("input_shift") = 0,
             py::arg("plain_weight") = false)
        .def_property_readonly("takes_plain_weight", &cpu::ConvPlan::takes_plain_weight)
        .def_property_readonly("launch", &bound_launch<cpu::ConvPlan, launch_conv<false>>)
        .def_property_readonly("launch_plain", &bound_launch<cpu::ConvPlan, launch_conv<true>>)
        .def_property_readonly("cost", &cpu::ConvPlan::cost)
        .def_property_readonly("prepare_cost", &cpu::ConvPlan::prepare_cost);
    py::class_<cpu::GemmPlan>(m, "GemmPlan")
        .def_property_readonly("workspace_bytes", &cpu::GemmPlan::workspace_bytes)
        .def_property_readonly("prepared_weight_bytes", &cpu::GemmPlan::prepared_weight_bytes)
        .def("prepare_weight", &prepare_weight<cpu::GemmPlan>, py::arg("b"), py::arg("prepared"))
        .def("run", &run_gemm, py::arg("a"), py::arg("b"), py::arg("out"), py::arg("bias") = 0, py::arg("residual") = 0,
             py::arg("alpha") = 1.0, py::arg("beta") = 1.0, py::arg("workspace") = 0, py::arg("b_prepared") = false)
        .def_property_readonly("launch", &bound_launch<cpu::GemmPlan, launch_gemm>)
        .def_property_readonly("cost", &cpu::GemmPlan::cost);
    py::class_<cpu::PoolPlan>(m, "PoolPlan")
        .def("run", &run_pool, py::arg("input"), py::arg("output"), py::arg("indices") = 0)
        .def_property_readonly("launch", &bound_launch<cpu::PoolPlan, launch_pool>);
    py::class_<cpu::NormPlan>(m, "NormPlan")
        .def_property_readonly("workspace_bytes", &cpu::NormPlan::workspace_bytes)
        .def("run", &run_norm, py::arg("input") = 0, py::arg("grad_output") = 0, py::arg("output") = 0,
             py::arg("weight") = 0, py::arg("bias") = 0, py::arg("running_mean") = 0, py::arg("running_var") = 0,
             py::arg("mean") = 0, py::arg("invstd") = 0, py::arg("grad_weight") = 0, py::arg("grad_bias") = 0,
             py::arg("eps") = 0.0, py::arg("momentum") = 0.0, py::arg("alpha") = 0.0, py::arg("beta") = 0.0,
             py::arg("k") = 0.0, py::arg("workspace") = 0, py::arg("residual") = 0, py::arg("forward_output") = 0,
             py::arg("grad_residual") = 0);
    py::class_<cpu::PointwisePlan>(m, "PointwisePlan")
        .def("run", &run_pointwise, py::arg("input"), py::arg("grad_output"), py::arg("output"))
        .def_property_readonly("launch", &bound_launch<cpu::PointwisePlan, launch_pointwise>);

    m.def("conv_plan", &make_conv_plan, py::arg("algorithm"), py::arg("pass_"), py::arg("dtype"), py::arg("n"),
          py::arg("c"), py::arg("k"), py::arg("groups"), py::arg("size"), py::arg("filter"), py::arg("out"),
          py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("input"), py::arg("weight"),
          py::arg("output"), py::arg("residual"), py::arg("bias"), py::arg("has_residual"), py::arg("relu"),
          py::arg("scale_input"), py::arg("relu_input"), py::arg("threads"), py::arg("workspace_limit"));
    m.def("gemm_plan", &make_gemm_plan, py::arg("algorithm"), py::arg("dtype"), py::arg("batch"), py::arg("m"),
          py::arg("n"), py::arg("k"), py::arg("a"), py::arg("b"), py::arg("out"), py::arg("residual"), py::arg("bias"),
          py::arg("has_residual"), py::arg("relu"), py::arg("threads"), py::arg("workspace_limit"));
    m.def("pool_plan", &make_pool_plan, py::arg("op"), py::arg("algorithm"), py::arg("pass_"), py::arg("dtype"),
          py::arg("n"), py::arg("c"), py::arg("size"), py::arg("filter"), py::arg("out"), py::arg("stride"),
          py::arg("padding"), py::arg("dilation"), py::arg("input"), py::arg("output"), py::arg("indices"),
          py::arg("count_include_pad"), py::arg("divisor"), py::arg("threads"));
    m.def("norm_plan", &make_norm_plan, py::arg("op"), py::arg("algorithm"), py::arg("pass_"), py::arg("dtype"),
          py::arg("n"), py::arg("c"), py::arg("size"), py::arg("input"), py::arg("output"), py::arg("training"),
          py::arg("window"), py::arg("residual"), py::arg("has_residual"), py::arg("relu"), py::arg("threads"));
    m.def("pointwise_plan", &make_pointwise_plan, py::arg("op"), py::arg("algorithm"), py::arg("pass_"),
          py::arg("dtype"), py::arg("count"), py::arg("threads"));
}
