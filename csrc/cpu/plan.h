// What a CPU kernel is: a factory that turns a problem into a plan, and the plan that runs it.
//
// A plan is immutable and shared between threads: it holds all that follows from the shapes (tiling,
// offsets, work split). run() allocates nothing, keeps no state and may be called concurrently; the
// caller provides the output and workspace_bytes() of 64-byte aligned workspace.
//
// A kernel file ends with PYCV_KERNEL("op", "algorithm", factory). Files are compiled once per
// instruction set (isa.h); the entries land in a linker section that find_kernel() searches, so that
// adding an algorithm touches no list and runs no static initialiser built for another machine.
#pragma once

#include "../common/arguments.h"
#include "../common/problem.h"
#include "isa.h"

namespace pycv::cpu {

// What a run costs, for the model that chooses among kernels: counts, not times. A thread's work is counted for the
// busiest thread, with whatever the tiling adds (padding of tiles, lanes that carry nothing).
struct Cost {
    double multiply_adds = 0;    // of the busiest thread, in the innermost loops that multiply
    double vector_elements = 0;  // of the busiest thread: packed, transformed, gathered or stored through scratch
    double bytes = 0;            // of all threads, through memory: tensors, the (prepared) weight, large workspace
    double regions = 0;          // parallel regions and barriers
};

class ConvPlan {
public:
    virtual ~ConvPlan();
    virtual int64_t workspace_bytes() const = 0;
    virtual int64_t prepared_weight_bytes() const = 0;
    virtual void prepare_weight(const void* weight, void* prepared) const = 0;
    virtual void run(const ConvArguments&) const = 0;
    virtual Cost cost() const = 0;          // of run()
    virtual Cost prepare_cost() const = 0;  // of prepare_weight(): part of every call where nobody keeps its result
};

class GemmPlan {
public:
    virtual ~GemmPlan();
    virtual int64_t workspace_bytes() const = 0;
    virtual int64_t prepared_weight_bytes() const = 0;
    virtual void prepare_weight(const void* b, void* prepared) const = 0;
    virtual void run(const GemmArguments&) const = 0;
    virtual Cost cost() const = 0;  // of run() with b not prepared
};

class PoolPlan {
public:
    virtual ~PoolPlan();
    virtual void run(const PoolArguments&) const = 0;
};

class NormPlan {
public:
    virtual ~NormPlan();
    virtual int64_t workspace_bytes() const = 0;
    virtual void run(const NormArguments&) const = 0;
};

class PointwisePlan {
public:
    virtual ~PointwisePlan();
    virtual void run(const PointwiseArguments&) const = 0;
};

// A factory returns a new plan that the caller owns. `workspace_limit` is in bytes; a plan exceeds it
// only where its algorithm cannot work in less.
using ConvFactory = ConvPlan* (*)(const ConvProblem&, int threads, int64_t workspace_limit);
using GemmFactory = GemmPlan* (*)(const GemmProblem&, int threads, int64_t workspace_limit);
using PoolFactory = PoolPlan* (*)(const PoolProblem&, int threads);
using NormFactory = NormPlan* (*)(const NormProblem&, int threads);
using PointwiseFactory = PointwisePlan* (*)(const PointwiseProblem&, int threads);
// Measures a rate of the machine itself (peak.cpp) for about `seconds`: FLOP/s or bytes/s. No plan.
using PeakProbe = double (*)(const PeakProblem&, int threads, double seconds);

struct KernelEntry {
    const char* op;
    const char* algorithm;
    Isa isa;
    union {
        ConvFactory conv;
        GemmFactory gemm;
        PoolFactory pool;
        NormFactory norm;
        PointwiseFactory pointwise;
        PeakProbe peak;
    };
    constexpr KernelEntry(const char* o, const char* a, Isa i, ConvFactory f) : op(o), algorithm(a), isa(i), conv(f) {}
    constexpr KernelEntry(const char* o, const char* a, Isa i, GemmFactory f) : op(o), algorithm(a), isa(i), gemm(f) {}
    constexpr KernelEntry(const char* o, const char* a, Isa i, PoolFactory f) : op(o), algorithm(a), isa(i), pool(f) {}
    constexpr KernelEntry(const char* o, const char* a, Isa i, NormFactory f) : op(o), algorithm(a), isa(i), norm(f) {}
    constexpr KernelEntry(const char* o, const char* a, Isa i, PointwiseFactory f)
        : op(o), algorithm(a), isa(i), pointwise(f) {}
    constexpr KernelEntry(const char* o, const char* a, Isa i, PeakProbe f) : op(o), algorithm(a), isa(i), peak(f) {}
};

// The entry for the instruction set in use, or null.
const KernelEntry* find_kernel(const char* op, const char* algorithm);

}  // namespace pycv::cpu

#define PYCV_KERNEL(op, algorithm, factory)                                                                  \
    __attribute__((section("pycv_kernels"), used)) static constinit pycv::cpu::KernelEntry PYCV_ENTRY_NAME { \
        op, algorithm, PYCV_ISA_LEVEL, factory                                                               \
    }
#define PYCV_ENTRY_NAME PYCV_CONCAT(kernel_entry_, __COUNTER__)
#define PYCV_CONCAT(a, b) PYCV_CONCAT_(a, b)
#define PYCV_CONCAT_(a, b) a##b
