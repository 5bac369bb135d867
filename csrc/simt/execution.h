// The launch that is being executed: its block, whose threads take turns, and what they stand on.
#pragma once

#include <array>
#include <random>
#include <string>
#include <vector>

#include "configuration.h"
#include "launch.h"
#include "shared_memory.h"
#include "symbols.h"
#include "thread.h"

namespace pycv::simt {

// There is one, as launches come one after the other.
struct Execution {
    const KernelSymbols* kernel = nullptr;
    LaunchShape shape;
    void (*body)(const void*) = nullptr;
    const void* arguments = nullptr;
    Configuration configuration;
    std::mt19937_64 random;
    std::string failure;  // of the first thread that failed

    std::vector<Thread> threads;  // of the block
    unsigned alive = 0;           // threads that have not ended
    ReadyQueue ready;
    Barrier barrier;
    std::array<Warp, max_warps> warps;
    SharedMemory shared;

    Stacks stacks;
    Context host = nullptr;
    addresses::StackBounds host_stack;
    races::Fiber host_fiber = nullptr;
    char clock = 0;  // what the host comes after, once the launch is over
    long long switches = 0;
};
extern Execution execution;

inline Thread& running() { return *static_cast<Thread*>(current); }

std::string describe(uint3 index);
std::string describe(Site site);

// Ends the launch with a CudaError that names this thread. To be called on the stack of a thread.
[[noreturn]] void fail_as(const Thread& thread, const std::string& what, Site site);

// Lets other threads run until one of them makes this one ready.
void suspend();

// Makes those of the threads [begin, end) that `waits` accepts ready, in the order of the configuration.
template <class Waits>
void make_ready(unsigned begin, unsigned end, Waits waits) {
    const bool reverse = execution.configuration.order == Order::reverse;
    for (unsigned i = begin; i < end; i++) {
        Thread& thread = execution.threads[reverse ? end - 1 - (i - begin) : i];
        if (!waits(thread)) continue;
        thread.state = State::ready;
        execution.ready.push(&thread);
    }
}

// Runs the threads of a block from begin to end, or until one of them fails.
void run_block(uint3 index);

}  // namespace pycv::simt
