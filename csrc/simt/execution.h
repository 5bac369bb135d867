// The launch that is being executed: its block, whose threads take turns, and what they stand on.
#pragma once

#include <array>
#include <deque>
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
    std::array<NamedBarrier, 16> named_barriers;
    std::array<Warp, max_warps> warps;
    std::deque<BoxCopy> loads;  // that have been issued and not performed
    SharedMemory shared;

    Stacks stacks;
    Context host = nullptr;
    addresses::StackBounds host_stack;
    races::Fiber host_fiber = nullptr;
    races::Fibers fibers;
    // Threads come after what the host did before their block, and the host comes after all of them.
    char begin_clock = 0, end_clock = 0;
    // A copy of a box comes after whoever issued it: each has a clock, as far as they go.
    std::array<char, 4096> copy_clocks{};
    unsigned copies = 0;
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

// What happens on its own when no thread can go on: the oldest load, or the products that a warp waits for. False:
// none.
bool perform_oldest_load();
bool complete_products();

// 16 bytes of dynamic shared memory, as copies and products see them; fails if threads see something else.
void read_as_copies_do(const std::byte* shared, std::byte* to, const Thread& reader, Site site);

// Runs the threads of a block from begin to end, or until one of them fails.
void run_block(uint3 index);

}  // namespace pycv::simt
