// GEMM and convolution kernels that have the choice how much of the result a block computes: what autotune may measure.
// A plan that is asked for no tile takes that of its kernel's own rule.
//
// Such a kernel registers PYCV_GEMM_TILES or PYCV_CONV_TILES(algorithm, offered, factory) beside its PYCV_KERNEL.
// offered(problem, limit of the workspace) names the tiles that are worth measuring, first the one of the rule;
// factory(problem, limit, tile) makes the plan that takes one of them.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "plan.h"

namespace pycv::cuda {

template <class Problem, class Plan>
struct TileEntry {
    using Offered = std::vector<std::string> (*)(const Problem&, int64_t workspace_limit);
    using Factory = Plan* (*)(const Problem&, int64_t workspace_limit, const std::string& tile);

    const char* algorithm;
    Offered offered;
    Factory factory;
    const TileEntry* next;
    static inline const TileEntry* first = nullptr;

    TileEntry(const char* a, Offered o, Factory f) : algorithm(a), offered(o), factory(f), next(first) { first = this; }
    TileEntry(const TileEntry&) = delete;
};
using GemmTileEntry = TileEntry<GemmProblem, GemmPlan>;
using ConvTileEntry = TileEntry<ConvProblem, ConvPlan>;

// The entry, or null.
template <class Entry>
const Entry* find_tiles(const char* algorithm) {
    for (const Entry* entry = Entry::first; entry; entry = entry->next)
        if (!std::strcmp(entry->algorithm, algorithm)) return entry;
    return nullptr;
}

// "128x256"
inline std::string tile_name(int rows, int columns) { return std::to_string(rows) + "x" + std::to_string(columns); }

}  // namespace pycv::cuda

#define PYCV_GEMM_TILES(algorithm, offered, factory) \
    static const pycv::cuda::GemmTileEntry PYCV_ENTRY_NAME { algorithm, offered, factory }
#define PYCV_CONV_TILES(algorithm, offered, factory) \
    static const pycv::cuda::ConvTileEntry PYCV_ENTRY_NAME { algorithm, offered, factory }
