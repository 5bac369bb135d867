// Instruction sets. Every kernel file of this folder is compiled once for each one that the target
// has, with PYCV_ISA (the namespace), PYCV_ISA_LEVEL and PYCV_VECTOR_BYTES set by setup.py.
//
// All code of a kernel file lives in namespace pycv::cpu::PYCV_ISA. Nothing else may be instantiated
// there with external linkage (no std containers, no std::function): the linker would be free to keep
// the AVX-512 copy for everybody. tests/test_build.py checks the objects for it.
#pragma once

namespace pycv::cpu {

enum class Isa { baseline = 0, avx2 = 1, avx512 = 2 };

// The best instruction set of this machine that was compiled, or the one that PYCV_CPU_ISA names.
// It is looked up once. Throws std::runtime_error if PYCV_CPU_ISA names one that cannot run here.
Isa current_isa();
const char* isa_name(Isa);
bool isa_compiled(Isa);  // this build has kernels for it

// How many threads a parallel region may use: `wanted`, or 1 in a forked child: the OpenMP thread pool
// (torch's own, which may have been started by torch) does not survive a fork, and a region would wait
// for it for ever. watch_forks() is called once, when the extension is loaded.
int usable_threads(int wanted);
void watch_forks();

}  // namespace pycv::cpu
