// A launch: refused if the device would refuse it, else one block after the other.
#include "launch.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "../cuda/device/error.h"
#include "execution.h"
#include "launched.h"

namespace pycv::simt {
namespace {

std::mutex mutex;                                // held by the launch that runs
std::map<std::string, std::size_t> most_blocks;  // of a launch, by kernel

const KernelSymbols& look_up(const void* kernel) {
    static std::unordered_map<const void*, KernelSymbols> known;
    const auto found = known.find(kernel);
    return found != known.end() ? found->second : known.emplace(kernel, find_kernel(kernel)).first->second;
}

std::string describe(dim3 shape) { return simt::describe(uint3{shape.x, shape.y, shape.z}); }

// What the device would refuse, in words; empty if nothing.
std::string exceeded_limit(const LaunchShape& shape, std::size_t static_bytes) {
    const auto [grid, block, dynamic_bytes] = shape;
    const std::size_t threads = std::size_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > max_threads || block.x > 1024 || block.y > 1024 || block.z > 64)
        return "a block of " + describe(block) + " threads: at most 1024, and (1024, 1024, 64)";
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return "a grid of " + describe(grid) + " blocks: at least one, at most (2147483647, 65535, 65535)";
    if (static_bytes > SharedMemory::max_static_bytes)
        return std::to_string(static_bytes) + " bytes of static shared memory: at most 49152";
    if (static_bytes + dynamic_bytes > SharedMemory::max_bytes)
        return std::to_string(static_bytes) + " + " + std::to_string(dynamic_bytes) +
               " bytes of shared memory: at most 232448";
    return "";
}

void check_limits() {
    std::size_t static_bytes = 0;
    for (const auto variable : execution.kernel->shared) static_bytes += variable.size();
    const std::string limit = exceeded_limit(execution.shape, static_bytes);
    if (!limit.empty()) throw cuda::CudaError(execution.kernel->name + ": launched with " + limit);
}

void run_blocks() {
    execution.fibers.begin_launch();
    const dim3 grid = execution.shape.grid;
    const Order order = execution.configuration.order;
    const std::size_t count = std::size_t{grid.x} * grid.y * grid.z;
    std::size_t& most = most_blocks[execution.kernel->name];
    most = std::max(most, count);
    std::vector<std::size_t> shuffled(order == Order::random ? count : 0);
    std::iota(shuffled.begin(), shuffled.end(), 0);
    std::shuffle(shuffled.begin(), shuffled.end(), execution.random);
    for (std::size_t i = 0; i < count && execution.failure.empty(); i++) {
        const std::size_t block = order == Order::forward ? i : order == Order::reverse ? count - 1 - i : shuffled[i];
        run_block({static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                   static_cast<unsigned>(block / grid.x / grid.y)});
    }
    races::acquire(&execution.end_clock);
}

}  // namespace

std::map<std::string, std::size_t> launched() {
    const std::lock_guard lock(mutex);
    return std::exchange(most_blocks, {});
}

void* dynamic_shared() { return execution.shared.dynamic(); }

void launch(const void* kernel, const LaunchShape& shape, void (*body)(const void*), const void* arguments) {
    const std::lock_guard lock(mutex);
    execution.kernel = &look_up(kernel);
    execution.shape = shape;
    check_limits();
    execution.body = body;
    execution.arguments = arguments;
    execution.configuration = configuration();
    execution.random.seed(execution.configuration.seed);
    execution.failure.clear();
    execution.threads.resize(std::size_t{shape.block.x} * shape.block.y * shape.block.z);
    execution.shared.begin_launch(execution.kernel->shared, shape.shared_bytes);
    block_shape = shape.block;
    grid_shape = shape.grid;
    run_blocks();
    if (!execution.failure.empty()) throw cuda::CudaError(execution.failure);
}

}  // namespace pycv::simt

long long pycv_simt_switches() { return pycv::simt::execution.switches; }
