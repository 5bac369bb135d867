// Plans as Python objects over raw pointers: pointers are integers (Tensor.data_ptr()), 0 is null; run() releases the
// GIL. Shared by the modules of all backends.
//
// `Stream...` is what run() and prepare_weight() of a plan take besides their arguments: nothing on the CPU, one
// stream (an integer as well, the last argument, 0 by default) on a GPU.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <exception>

#include "../common/arguments.h"

struct CUstream_st;

namespace pycv::bindings {

namespace py = pybind11;
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

inline CUstream_st* stream_of(Address stream) { return pointer<CUstream_st>(stream); }

template <class Stream>
py::arg_v stream_argument() {
    return py::arg("stream") = Stream{0};
}

// ------------------------------------------------------------------------------------------------ run()

template <class Plan, class... Stream>
void prepare_weight(const Plan& plan, Address weight, Address prepared, Stream... stream) {
    const WithoutGil release;
    plan.prepare_weight(pointer(weight), pointer(prepared), stream_of(stream)...);
}

template <class Plan, class... Stream>
void run_conv(const Plan& plan, Address input, Address weight, Address output, Address bias, Address residual,
              Address workspace, Address input_scale, Address input_shift, bool plain_weight, Stream... stream) {
    const ConvArguments arguments{pointer(input),       pointer(weight),      pointer(output),
                                  pointer(bias),        pointer(residual),    pointer(workspace),
                                  pointer(input_scale), pointer(input_shift), plain_weight};
    const WithoutGil release;
    plan.run(arguments, stream_of(stream)...);
}

template <class Plan, class... Stream>
void run_gemm(const Plan& plan, Address a, Address b, Address out, Address bias, Address residual, double alpha,
              double beta, Address workspace, bool b_prepared, Stream... stream) {
    const GemmArguments arguments{pointer(a), pointer(b), pointer(out),       pointer(bias), pointer(residual),
                                  alpha,      beta,       pointer(workspace), b_prepared};
    const WithoutGil release;
    plan.run(arguments, stream_of(stream)...);
}

template <class Plan, class... Stream>
void run_pool(const Plan& plan, Address input, Address output, Address indices, Stream... stream) {
    const PoolArguments arguments{pointer(input), pointer(output), pointer(indices)};
    const WithoutGil release;
    plan.run(arguments, stream_of(stream)...);
}

template <class Plan, class... Stream>
void run_norm(const Plan& plan, Address input, Address grad_output, Address output, Address weight, Address bias,
              Address running_mean, Address running_var, Address mean, Address invstd, Address grad_weight,
              Address grad_bias, double eps, double momentum, double alpha, double beta, double k, Address workspace,
              Address residual, Address forward_output, Address grad_residual, Stream... stream) {
    const NormArguments arguments{pointer(input),
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
    plan.run(arguments, stream_of(stream)...);
}

template <class Plan, class... Stream>
void run_pointwise(const Plan& plan, Address input, Address grad_output, Address output, Address mask,
                   Stream... stream) {
    const PointwiseArguments arguments{pointer(input), pointer(grad_output), pointer(output), pointer(mask)};
    const WithoutGil release;
    plan.run(arguments, stream_of(stream)...);
}

// ---------------------------------------------------------------------------------------------- launch()

// What an op calls on every run: `plan.launch(address, ...)`, positional, all arguments given but for the stream. A
// builtin bound to the plan costs a tenth of a microsecond, a pybind11 method with its keywords and casts about half
// of one.
template <class Plan>
const Plan& plan_of(PyObject* capsule) {
    return *static_cast<const Plan*>(PyCapsule_GetPointer(capsule, nullptr));
}

template <size_t Count, size_t Streams>
struct Addresses {
    std::array<Address, Count + Streams> values{};
    Address operator[](size_t i) const { return values[i]; }

    bool read(PyObject* const* arguments, Py_ssize_t given) {
        if (given < static_cast<Py_ssize_t>(Count) || given > static_cast<Py_ssize_t>(Count + Streams)) {
            PyErr_Format(PyExc_TypeError, "launch() takes %zu addresses, not %zd", Count, given);
            return false;
        }
        for (Py_ssize_t i = 0; i < given; ++i) values[i] = PyLong_AsSize_t(arguments[i]);
        return !PyErr_Occurred();
    }
};

// Calls a function that may throw, for Python.
template <class Function>
PyObject* none_or_error(Function function) {
    try {
        function();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
        return nullptr;
    }
    Py_RETURN_NONE;
}

template <bool Plain, class Plan, class... Stream>
PyObject* launch_conv(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    Addresses<6, sizeof...(Stream)> a;
    if (!a.read(arguments, given)) return nullptr;
    return none_or_error([&] {
        run_conv(plan_of<Plan>(capsule), a[0], a[1], a[2], a[3], a[4], a[5], 0, 0, Plain, static_cast<Stream>(a[6])...);
    });
}

// a, b, out, bias, residual, workspace, b_prepared; alpha and beta are 1.
template <class Plan, class... Stream>
PyObject* launch_gemm(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    Addresses<7, sizeof...(Stream)> a;
    if (!a.read(arguments, given)) return nullptr;
    return none_or_error([&] {
        run_gemm(plan_of<Plan>(capsule), a[0], a[1], a[2], a[3], a[4], 1.0, 1.0, a[5], a[6] != 0,
                 static_cast<Stream>(a[7])...);
    });
}

template <class Plan, class... Stream>
PyObject* launch_pool(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    Addresses<3, sizeof...(Stream)> a;
    if (!a.read(arguments, given)) return nullptr;
    return none_or_error([&] { run_pool(plan_of<Plan>(capsule), a[0], a[1], a[2], static_cast<Stream>(a[3])...); });
}

// The addresses of batch_norm, then eps and momentum.
template <class Plan, class... Stream>
PyObject* launch_norm(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    constexpr Py_ssize_t kAddresses = 15, kAll = kAddresses + 2;
    if (given != kAll && given != kAll + static_cast<Py_ssize_t>(sizeof...(Stream))) {
        PyErr_Format(PyExc_TypeError, "launch() takes %zd addresses and 2 numbers, not %zd", kAddresses, given);
        return nullptr;
    }
    Addresses<kAddresses, 0> a;
    Addresses<0, sizeof...(Stream)> stream;
    const double eps = PyFloat_AsDouble(arguments[kAddresses]), momentum = PyFloat_AsDouble(arguments[kAddresses + 1]);
    if (!a.read(arguments, kAddresses) || !stream.read(arguments + kAll, given - kAll)) return nullptr;
    return none_or_error([&] {
        run_norm(plan_of<Plan>(capsule), a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], eps,
                 momentum, 0, 0, 0, a[11], a[12], a[13], a[14], static_cast<Stream>(stream[0])...);
    });
}

template <class Plan, class... Stream>
PyObject* launch_pointwise(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    Addresses<3, sizeof...(Stream)> a;
    if (!a.read(arguments, given)) return nullptr;
    return none_or_error(
        [&] { run_pointwise(plan_of<Plan>(capsule), a[0], a[1], a[2], 0, static_cast<Stream>(a[3])...); });
}

// With the mask behind them.
template <class Plan, class... Stream>
PyObject* launch_masked(PyObject* capsule, PyObject* const* arguments, Py_ssize_t given) {
    Addresses<4, sizeof...(Stream)> a;
    if (!a.read(arguments, given)) return nullptr;
    return none_or_error(
        [&] { run_pointwise(plan_of<Plan>(capsule), a[0], a[1], a[2], a[3], static_cast<Stream>(a[4])...); });
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

// ----------------------------------------------------------------------------------------------- classes

// module_local: two modules of one process may hold the same plan class, each its own copy.
template <class Plan, class... Stream>
py::class_<Plan> define_conv_plan(py::module_& m) {
    return py::class_<Plan>(m, "ConvPlan", py::module_local())
        .def_property_readonly("workspace_bytes", &Plan::workspace_bytes)
        .def_property_readonly("prepared_weight_bytes", &Plan::prepared_weight_bytes)
        .def("prepare_weight", &prepare_weight<Plan, Stream...>, py::arg("weight"), py::arg("prepared"),
             stream_argument<Stream>()...)
        .def("run", &run_conv<Plan, Stream...>, py::arg("input"), py::arg("weight"), py::arg("output"),
             py::arg("bias") = 0, py::arg("residual") = 0, py::arg("workspace") = 0, py::arg("input_scale") = 0,
             py::arg("input_shift") = 0, py::arg("plain_weight") = false, stream_argument<Stream>()...)
        .def_property_readonly("launch", &bound_launch<Plan, launch_conv<false, Plan, Stream...>>);
}

template <class Plan, class... Stream>
py::class_<Plan> define_gemm_plan(py::module_& m) {
    return py::class_<Plan>(m, "GemmPlan", py::module_local())
        .def_property_readonly("workspace_bytes", &Plan::workspace_bytes)
        .def_property_readonly("prepared_weight_bytes", &Plan::prepared_weight_bytes)
        .def("prepare_weight", &prepare_weight<Plan, Stream...>, py::arg("b"), py::arg("prepared"),
             stream_argument<Stream>()...)
        .def("run", &run_gemm<Plan, Stream...>, py::arg("a"), py::arg("b"), py::arg("out"), py::arg("bias") = 0,
             py::arg("residual") = 0, py::arg("alpha") = 1.0, py::arg("beta") = 1.0, py::arg("workspace") = 0,
             py::arg("b_prepared") = false, stream_argument<Stream>()...)
        .def_property_readonly("launch", &bound_launch<Plan, launch_gemm<Plan, Stream...>>);
}

template <class Plan, class... Stream>
void define_pool_plan(py::module_& m) {
    py::class_<Plan>(m, "PoolPlan", py::module_local())
        .def("run", &run_pool<Plan, Stream...>, py::arg("input"), py::arg("output"), py::arg("indices") = 0,
             stream_argument<Stream>()...)
        .def_property_readonly("launch", &bound_launch<Plan, launch_pool<Plan, Stream...>>);
}

template <class Plan, class... Stream>
void define_norm_plan(py::module_& m) {
    py::class_<Plan>(m, "NormPlan", py::module_local())
        .def_property_readonly("workspace_bytes", &Plan::workspace_bytes)
        .def("run", &run_norm<Plan, Stream...>, py::arg("input") = 0, py::arg("grad_output") = 0, py::arg("output") = 0,
             py::arg("weight") = 0, py::arg("bias") = 0, py::arg("running_mean") = 0, py::arg("running_var") = 0,
             py::arg("mean") = 0, py::arg("invstd") = 0, py::arg("grad_weight") = 0, py::arg("grad_bias") = 0,
             py::arg("eps") = 0.0, py::arg("momentum") = 0.0, py::arg("alpha") = 0.0, py::arg("beta") = 0.0,
             py::arg("k") = 0.0, py::arg("workspace") = 0, py::arg("residual") = 0, py::arg("forward_output") = 0,
             py::arg("grad_residual") = 0, stream_argument<Stream>()...)
        .def_property_readonly("launch", &bound_launch<Plan, launch_norm<Plan, Stream...>>);
}

template <class Plan, class... Stream>
py::class_<Plan> define_pointwise_plan(py::module_& m) {
    return py::class_<Plan>(m, "PointwisePlan", py::module_local())
        .def("run", &run_pointwise<Plan, Stream...>, py::arg("input"), py::arg("grad_output"), py::arg("output"),
             py::arg("mask") = 0, stream_argument<Stream>()...)
        .def_property_readonly("launch", &bound_launch<Plan, launch_pointwise<Plan, Stream...>>);
}

}  // namespace pycv::bindings
