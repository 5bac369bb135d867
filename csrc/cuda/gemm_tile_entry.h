// GEMM kernels that have the choice how much of the result a block computes: what autotune may measure. A plan that is
// asked for no tile takes that of its kernel's own rule.
//
// Such a kernel registers PYCV_GEMM_TILES(algorithm, offered, factory) beside its PYCV_KERNEL. offered(problem, limit
// of the workspace) names the tiles that are worth measuring, first the one of the rule; factory(problem, limit, tile)
// makes the plan that takes one of them.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "plan.h"

namespace pycv::cuda {

struct GemmTileEntry {
    using Offered = std::vector<std::string> (*)(const GemmProblem&, int64_t workspace_limit);
    using Factory = GemmPlan* (*)(const GemmProblem&, int64_t workspace_limit, const std::string& tile);

    const char* algorithm;
    Offered offered;
    Factory factory;
    const GemmTileEntry* next;
    static inline const GemmTileEntry* first = nullptr;

    GemmTileEntry(const char* a, Offered o, Factory f) : algorithm(a), offered(o), factory(f), next(first) {
        first = this;
    }
    GemmTileEntry(const GemmTileEntry&) = delete;
};

// The entry, or null.
inline const GemmTileEntry* find_tiles(const char* algorithm) {
    for (const GemmTileEntry* entry = GemmTileEntry::first; entry; entry = entry->next)
        if (!std::strcmp(entry->algorithm, algorithm)) return entry;
    return nullptr;
}

// "128x256"
inline std::string tile_name(int rows, int columns) { return std::to_string(rows) + "x" + std::to_string(columns); }

}  // namespace pycv::cuda

#define PYCV_GEMM_TILES(algorithm, offered, factory) \
    static const pycv::cuda::GemmTileEntry PYCV_ENTRY_NAME { algorithm, offered, factory }
