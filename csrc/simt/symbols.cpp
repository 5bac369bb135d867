#include "symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string_view>

namespace pycv::simt {
namespace {

struct Module {
    std::string path;
    std::uintptr_t base = 0;
};

// The program or library that an address belongs to.
Module find_module(std::uintptr_t address) {
    struct Search {
        std::uintptr_t address;
        Module found;
    } search{address, {}};
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* it) {
            Search& search = *static_cast<Search*>(it);
            for (int i = 0; i < info->dlpi_phnum; i++) {
                const std::uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
                if (info->dlpi_phdr[i].p_type != PT_LOAD || search.address < begin ||
                    search.address >= begin + info->dlpi_phdr[i].p_memsz)
                    continue;
                const std::string_view name = info->dlpi_name;
                search.found = {name.empty() ? "/proc/self/exe" : std::string(name), info->dlpi_addr};
                return 1;
            }
            return 0;
        },
        &search);
    return search.found;
}

// The functions of a module by address, and its static local variables by mangled name.
struct SymbolTable {
    std::map<std::uintptr_t, std::string> functions;
    std::map<std::string, std::span<std::byte>> variables;
};

template <class T>
std::vector<T> read_array(std::ifstream& file, std::uint64_t offset, std::uint64_t bytes) {
    std::vector<T> array(bytes / sizeof(T));
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char*>(array.data()), static_cast<std::streamsize>(bytes));
    return array;
}

SymbolTable read_symbols(const Module& module) {
    SymbolTable table;
    std::ifstream file(module.path, std::ios::binary);
    const auto header = read_array<ElfW(Ehdr)>(file, 0, sizeof(ElfW(Ehdr))).front();
    const auto sections = read_array<ElfW(Shdr)>(file, header.e_shoff, header.e_shnum * sizeof(ElfW(Shdr)));
    for (const auto& section : sections) {
        if (!file || section.sh_type != SHT_SYMTAB) continue;
        const auto names =
            read_array<char>(file, sections[section.sh_link].sh_offset, sections[section.sh_link].sh_size);
        for (const auto& symbol : read_array<ElfW(Sym)>(file, section.sh_offset, section.sh_size)) {
            const std::string name = names.data() + symbol.st_name;
            const std::uintptr_t address = module.base + symbol.st_value;
            const int type = ELF64_ST_TYPE(symbol.st_info);
            if (type == STT_FUNC && symbol.st_size > 0) table.functions.emplace(address, name);
            if (type == STT_OBJECT && name.starts_with("_ZZ"))
                table.variables.emplace(name, std::span(reinterpret_cast<std::byte*>(address), symbol.st_size));
        }
    }
    return table;
}

// All kernels are in the module of the runtime.
const SymbolTable& symbols() {
    static const SymbolTable table = read_symbols(find_module(reinterpret_cast<std::uintptr_t>(&find_kernel)));
    return table;
}

// "void pycv::cuda::(anonymous namespace)::gemm<float, 8>(float const*)" as "gemm<float, 8>".
std::string plain_name(const std::string& mangled) {
    int status = 0;
    char* demangled = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
    if (status != 0) return mangled;
    std::string name = demangled;
    std::free(demangled);
    for (const std::string_view noise : {"(anonymous namespace)::", "pycv::cuda::"})
        for (std::size_t at; (at = name.find(noise)) != std::string::npos;) name.erase(at, noise.size());
    int depth = 0;
    std::size_t begin = 0;
    for (std::size_t i = 0; i < name.size(); i++) {
        depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
        if (depth == 0 && name[i] == ' ') begin = i + 1;
        if (depth == 0 && name[i] == '(') return name.substr(begin, i - begin);
    }
    return name;
}

}  // namespace

KernelSymbols find_kernel(const void* kernel) {
    const SymbolTable& table = symbols();
    const auto function = table.functions.find(reinterpret_cast<std::uintptr_t>(kernel));
    if (function == table.functions.end() || !function->second.starts_with("_Z")) return {"kernel", {}};
    KernelSymbols found{plain_name(function->second), {}};
    const std::string prefix = "_ZZ" + function->second.substr(2) + "E";
    for (auto it = table.variables.lower_bound(prefix); it != table.variables.end(); ++it) {
        if (!it->first.starts_with(prefix)) break;
        found.shared.push_back(it->second);
    }
    return found;
}

}  // namespace pycv::simt
