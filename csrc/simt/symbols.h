// What the symbol table says of a kernel: its name, and the __shared__ variables that it declares.
//
// A static local variable `tile` of a function _ZL4gemmPKf is the symbol _ZZL4gemmPKfE4tile: so the runtime finds the
// static shared memory of a kernel without the kernel's help. In a library that has been stripped it finds none.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace pycv::simt {

struct KernelSymbols {
    std::string name;  // without namespaces, parameters and result
    std::vector<std::span<std::byte>> shared;
};

KernelSymbols find_kernel(const void* kernel);

}  // namespace pycv::simt
