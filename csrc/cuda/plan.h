// What a CUDA kernel is: a factory that turns a problem into a plan, and the plan that runs it on a stream.
//
// A plan is immutable and shared between threads: it holds all that follows from the shapes (tiling, offsets, grids).
// run() and prepare_weight() allocate nothing, synchronise nothing and keep no state: they only launch kernels on the
// stream, so that they can be captured in a CUDA graph. The caller provides the output and workspace_bytes() of
// 256-byte aligned workspace, and makes the device of the tensors current. A launch that fails throws CudaError.
//
// A kernel file ends with PYCV_KERNEL("op", "algorithm", factory); whatever is linked in registers itself, so that
// adding an algorithm touches no list.
#pragma once

#include <cstring>

#include "../common/arguments.h"
#include "../common/problem.h"

struct CUstream_st;

namespace pycv::cuda {

using Stream = CUstream_st*;  // cudaStream_t; null is the default stream

class ConvPlan {
public:
    virtual ~ConvPlan() = default;
    virtual int64_t workspace_bytes() const = 0;
    virtual int64_t prepared_weight_bytes() const { return 0; }  // 0: run() takes the weight as it is
    virtual void prepare_weight(const void* weight, void* prepared, Stream) const {}
    virtual void run(const ConvArguments&, Stream) const = 0;
};

class GemmPlan {
public:
    virtual ~GemmPlan() = default;
    virtual int64_t workspace_bytes() const = 0;
    virtual int64_t prepared_weight_bytes() const { return 0; }
    virtual void prepare_weight(const void* b, void* prepared, Stream) const {}
    virtual void run(const GemmArguments&, Stream) const = 0;
};

class PoolPlan {
public:
    virtual ~PoolPlan() = default;
    virtual void run(const PoolArguments&, Stream) const = 0;
};

class NormPlan {
public:
    virtual ~NormPlan() = default;
    virtual int64_t workspace_bytes() const = 0;
    virtual void run(const NormArguments&, Stream) const = 0;
};

class PointwisePlan {
public:
    virtual ~PointwisePlan() = default;
    virtual void run(const PointwiseArguments&, Stream) const = 0;
};

// A factory returns a new plan that the caller owns. `workspace_limit` is in bytes; a plan exceeds it only where its
// algorithm cannot work in less.
using ConvFactory = ConvPlan* (*)(const ConvProblem&, int64_t workspace_limit);
using GemmFactory = GemmPlan* (*)(const GemmProblem&, int64_t workspace_limit);
using PoolFactory = PoolPlan* (*)(const PoolProblem&);
using NormFactory = NormPlan* (*)(const NormProblem&);
using PointwiseFactory = PointwisePlan* (*)(const PointwiseProblem&);

// A link of the list of all kernels.
struct KernelEntry {
    const char* op;
    const char* algorithm;
    union {
        ConvFactory conv;
        GemmFactory gemm;
        PoolFactory pool;
        NormFactory norm;
        PointwiseFactory pointwise;
    };
    const KernelEntry* next;
    static inline const KernelEntry* first = nullptr;

    KernelEntry(const char* o, const char* a, ConvFactory f) : KernelEntry(o, a) { conv = f; }
    KernelEntry(const char* o, const char* a, GemmFactory f) : KernelEntry(o, a) { gemm = f; }
    KernelEntry(const char* o, const char* a, PoolFactory f) : KernelEntry(o, a) { pool = f; }
    KernelEntry(const char* o, const char* a, NormFactory f) : KernelEntry(o, a) { norm = f; }
    KernelEntry(const char* o, const char* a, PointwiseFactory f) : KernelEntry(o, a) { pointwise = f; }
    KernelEntry(const KernelEntry&) = delete;

private:
    KernelEntry(const char* o, const char* a) : op(o), algorithm(a), conv(nullptr), next(first) { first = this; }
};

// The entry, or null.
inline const KernelEntry* find_kernel(const char* op, const char* algorithm) {
    for (const KernelEntry* entry = KernelEntry::first; entry; entry = entry->next)
        if (!std::strcmp(entry->op, op) && !std::strcmp(entry->algorithm, algorithm)) return entry;
    return nullptr;
}

}  // namespace pycv::cuda

#define PYCV_KERNEL(op, algorithm, factory) \
    static const pycv::cuda::KernelEntry PYCV_ENTRY_NAME { op, algorithm, factory }
#define PYCV_ENTRY_NAME PYCV_CONCAT(kernel_entry_, __COUNTER__)
#define PYCV_CONCAT(a, b) PYCV_CONCAT_(a, b)
#define PYCV_CONCAT_(a, b) a##b
