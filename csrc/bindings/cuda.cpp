// pycv._cuda: the CUDA kernels as plan objects over raw device pointers and a stream. Nothing here knows torch.
//
// Compiled with PYCV_SIMT it is pycv._simt: the same kernels, executed by this CPU on plain memory (csrc/simt), for
// tests. Importing the module needs neither a driver nor a device: device_error() says what is missing.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../cuda/plan.h"
#include "../cuda/tile_entry.h"
#include "plans.h"
#include "problems.h"

#ifdef PYCV_SIMT
#include "../simt/launch.h"
#include "../simt/launched.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace py = pybind11;
using namespace pycv;
using namespace pycv::bindings;

namespace {

template <class Problem>
const cuda::KernelEntry& entry_of(const std::string& algorithm, const Problem& problem) {
    const cuda::KernelEntry* found = cuda::find_kernel(op_of(problem), algorithm.c_str());
    if (!found) throw std::invalid_argument(std::string("no CUDA kernel for op ") + op_of(problem) + ", " + algorithm);
    return *found;
}

using std::string;
using std::unique_ptr;

using TileNames = std::vector<string>;

// Of a kernel that has no choice, none.
template <class Entry, class Problem>
TileNames tiles(const string& algorithm, const Problem& problem, int64_t workspace_limit) {
    const Entry* entry = cuda::find_tiles<Entry>(algorithm.c_str());
    return entry ? entry->offered(problem, workspace_limit) : TileNames{};
}

// The factory of a tile that is offered.
template <class Entry, class Problem>
typename Entry::Factory in_tiles(const string& algorithm, const Problem& problem, int64_t workspace_limit,
                                 const string& tile) {
    const TileNames offered = tiles<Entry>(algorithm, problem, workspace_limit);
    if (std::find(offered.begin(), offered.end(), tile) == offered.end())
        throw std::invalid_argument(algorithm + " offers no tile " + tile + " for this problem");
    return cuda::find_tiles<Entry>(algorithm.c_str())->factory;
}

// The tile "" is that of the rule, here and for products.
unique_ptr<cuda::ConvPlan> conv_plan(const string& algorithm, const ConvProblem& problem, int64_t workspace_limit,
                                     const string& tile) {
    if (tile.empty()) return unique_ptr<cuda::ConvPlan>(entry_of(algorithm, problem).conv(problem, workspace_limit));
    const auto factory = in_tiles<cuda::ConvTileEntry>(algorithm, problem, workspace_limit, tile);
    return unique_ptr<cuda::ConvPlan>(factory(problem, workspace_limit, tile));
}

unique_ptr<cuda::GemmPlan> gemm_plan(const string& algorithm, const GemmProblem& problem, int64_t workspace_limit,
                                     const string& tile) {
    if (tile.empty()) return unique_ptr<cuda::GemmPlan>(entry_of(algorithm, problem).gemm(problem, workspace_limit));
    const auto factory = in_tiles<cuda::GemmTileEntry>(algorithm, problem, workspace_limit, tile);
    return unique_ptr<cuda::GemmPlan>(factory(problem, workspace_limit, tile));
}

unique_ptr<cuda::PoolPlan> pool_plan(const string& algorithm, const PoolProblem& problem) {
    return unique_ptr<cuda::PoolPlan>(entry_of(algorithm, problem).pool(problem));
}

unique_ptr<cuda::NormPlan> norm_plan(const string& algorithm, const NormProblem& problem) {
    return unique_ptr<cuda::NormPlan>(entry_of(algorithm, problem).norm(problem));
}

unique_ptr<cuda::PointwisePlan> pointwise_plan(const string& algorithm, const PointwiseProblem& problem) {
    return unique_ptr<cuda::PointwisePlan>(entry_of(algorithm, problem).pointwise(problem));
}

std::vector<std::pair<string, string>> kernels() {
    std::vector<std::pair<string, string>> names;
    for (const cuda::KernelEntry* entry = cuda::KernelEntry::first; entry; entry = entry->next)
        names.emplace_back(entry->op, entry->algorithm);
    return names;
}

#ifdef PYCV_SIMT
void configure(const char* order, const char* asynchronous) {
    if (const char* wrong = pycv_simt_configure(order, asynchronous)) throw std::invalid_argument(wrong);
}
#else
int device_count() {
    int count = 0;  // left unwritten where there is no driver
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

string device_error() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    return status == cudaSuccess ? "" : cudaGetErrorString(status);
}

std::tuple<int, int> capability(int device) {
    int major = 0, minor = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
        throw std::invalid_argument("there is no CUDA device " + std::to_string(device));
    return {major, minor};
}

// The device of a pointer; -1 of memory that belongs to none.
int device_of(Address address) {
    cudaPointerAttributes attributes{};
    const bool known = cudaPointerGetAttributes(&attributes, pointer(address)) == cudaSuccess;
    if (!known) static_cast<void>(cudaGetLastError());  // the next launch would report it
    return known && attributes.type == cudaMemoryTypeDevice ? attributes.device : -1;
}
#endif

void define(py::module_& m) {
    define_conv_plan<cuda::ConvPlan, Address>(m);
    define_gemm_plan<cuda::GemmPlan, Address>(m);
    define_pool_plan<cuda::PoolPlan, Address>(m);
    define_norm_plan<cuda::NormPlan, Address>(m);
    define_pointwise_plan<cuda::PointwisePlan, Address>(m).def_property_readonly(
        "launch_masked", &bound_launch<cuda::PointwisePlan, launch_masked<cuda::PointwisePlan, Address>>);

    define_planner(m, "conv_plan", conv_problem, conv_plan);
    define_planner(m, "gemm_plan", gemm_problem, gemm_plan);
    define_planner(m, "conv_tiles", conv_problem, tiles<cuda::ConvTileEntry, ConvProblem>);
    define_planner(m, "gemm_tiles", gemm_problem, tiles<cuda::GemmTileEntry, GemmProblem>);
    define_planner(m, "pool_plan", pool_problem, pool_plan);
    define_planner(m, "norm_plan", norm_problem, norm_plan);
    define_planner(m, "pointwise_plan", pointwise_problem, pointwise_plan);
    m.def("kernels", &kernels, "(op, algorithm) of every kernel in this module.");
}

}  // namespace

#ifdef PYCV_SIMT
PYBIND11_MODULE(_simt, m) {
    m.doc() = "CUDA kernels of pycv, executed by the CPU.";
    define(m);
    m.def("configure", &configure, py::arg("order"), py::arg("asynchronous"),
          "In which order threads run, and when asynchronous copies happen: csrc/simt/launch.h.");
    m.def("launched", &simt::launched,
          "The most blocks of a launch since this was last asked, by the name of the kernel.");
}
#else
PYBIND11_MODULE(_cuda, m) {
    m.doc() = "CUDA kernels of pycv: plans over raw device pointers and a stream.";
    define(m);
    m.attr("architectures") = PYCV_CUDA_ARCHITECTURES;
    m.attr("runtime_version") = CUDART_VERSION;
    m.def("device_count", &device_count, "How many devices there are; 0 without a driver.");
    m.def("device_error", &device_error, "Why there is no device, as the driver says it; empty if nothing is wrong.");
    m.def("capability", &capability, py::arg("device"), "(major, minor) of a device.");
    m.def("device_of", &device_of, py::arg("address"), "The device of a pointer, -1 if it is on none.");
}
#endif
