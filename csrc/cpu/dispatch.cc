// Finds kernels and picks the instruction set. Compiled once, for the baseline: it must run anywhere.
#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "plan.h"

// The linker defines these around all entries of the section.
extern pycv::cpu::KernelEntry __start_pycv_kernels[];
extern pycv::cpu::KernelEntry __stop_pycv_kernels[];

namespace pycv::cpu {

ConvPlan::~ConvPlan() = default;
bool ConvPlan::takes_plain_weight() const { return false; }
GemmPlan::~GemmPlan() = default;
PoolPlan::~PoolPlan() = default;
NormPlan::~NormPlan() = default;
PointwisePlan::~PointwisePlan() = default;

namespace {

bool cpu_has(Isa isa) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == Isa::avx512) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
#endif
    return isa == Isa::baseline;
}

Isa choose_isa() {
    if (const char* name = std::getenv("PYCV_CPU_ISA"); name && *name) {
        for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
            if (std::strcmp(name, isa_name(isa)) != 0) continue;
            if (isa_compiled(isa) && cpu_has(isa)) return isa;
            throw std::runtime_error("PYCV_CPU_ISA=" + std::string(name) + ": this machine or this build has no " +
                                     name);
        }
        throw std::runtime_error("PYCV_CPU_ISA=" + std::string(name) + ": expected baseline, avx2 or avx512");
    }
    for (Isa isa : {Isa::avx512, Isa::avx2})
        if (isa_compiled(isa) && cpu_has(isa)) return isa;
    return Isa::baseline;
}

std::atomic<bool> forked{false};

}  // namespace

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        default: return "baseline";
    }
}

bool isa_compiled(Isa isa) {
    for (const KernelEntry* e = __start_pycv_kernels; e != __stop_pycv_kernels; ++e)
        if (e->isa == isa) return true;
    return false;
}

Isa current_isa() {
    static const Isa isa = choose_isa();
    return isa;
}

const KernelEntry* find_kernel(const char* op, const char* algorithm) {
    const Isa isa = current_isa();
    for (const KernelEntry* e = __start_pycv_kernels; e != __stop_pycv_kernels; ++e)
        if (e->isa == isa && !std::strcmp(e->op, op) && !std::strcmp(e->algorithm, algorithm)) return e;
    return nullptr;
}

void watch_forks() {
    pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });
}

int usable_threads(int wanted) { return forked.load(std::memory_order_relaxed) ? 1 : wanted; }

}  // namespace pycv::cpu
