// Scheduling: the threads of a block take turns, each until it waits or ends.
#include "execution.h"

#include <exception>
#include <map>

#include "../cuda/device/error.h"

namespace pycv::simt {

Position* current = nullptr;
uint3 block_index{};
dim3 block_shape, grid_shape;
Execution execution;

std::string describe(uint3 index) {
    return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

std::string describe(Site site) {
    const std::string path = site.file_name();
    return path.substr(path.rfind('/') + 1) + ":" + std::to_string(site.line());
}

void fail_as(const Thread& thread, const std::string& what, Site site) {
    throw cuda::CudaError(execution.kernel->name + ": " + what + " (" + describe(site) + ", block " +
                          describe(block_index) + ", thread " + describe(thread.index) + ")");
}

void fail(const std::string& what, Site site) { fail_as(running(), what, site); }

namespace {

// No thread can go on, and some have not ended.
[[noreturn]] void fail_deadlocked() {
    std::map<std::string, int> places;
    const Thread* first = nullptr;
    for (const Thread& thread : execution.threads) {
        if (thread.state == State::ended) continue;
        if (first == nullptr) first = &thread;
        places[std::string(thread.wait.name) + " at " + describe(thread.wait.site)]++;
    }
    std::string what = "deadlock:";
    for (const auto& [place, count] : places) what += " " + std::to_string(count) + " threads wait in " + place + ",";
    what.pop_back();
    fail_as(*first, what, first->wait.site);
}

Thread& next_thread() {
    while (execution.ready.empty())
        if (!perform_oldest_load() && !complete_products()) fail_deadlocked();
    return execution.configuration.order == Order::random ? *execution.ready.pop_any(execution.random)
                                                          : *execution.ready.pop();
}

void run_threads();

// Goes on with `next`. `from` is where the leaving stack is kept, null if it has done its work.
void switch_to(Thread& next, Context* from) {
    if (next.context == nullptr) {
        next.stack = execution.stacks.take(execution.fibers.checks_block());
        next.context = new_context(next.stack->top, run_threads);
    }
    execution.switches++;
    current = &next;
    void* kept = nullptr;
    Context never_again;
    races::switch_to(next.fiber);
    addresses::leave_stack(from ? &kept : nullptr, {next.stack->bottom, next.stack->bytes()});
    pycv_simt_switch(from ? from : &never_again, next.context);
    addresses::enter_stack(kept, nullptr);
}

[[noreturn]] void return_to_host() {
    Context never_again;
    races::switch_to(execution.host_fiber);
    addresses::leave_stack(nullptr, execution.host_stack);
    pycv_simt_switch(&never_again, execution.host);
    std::terminate();
}

// The one that goes on, null after the last.
Thread* end_thread(Thread& self) {
    self.state = State::ended;
    execution.alive--;
    execution.warps[self.warp()].ended |= 1u << self.lane();
    races::release(&execution.end_clock);
    const GroupProducts& products = execution.warps[self.warp()].products;
    if (self.stores.performed < self.stores.issued.size())
        fail_as(self, "a thread ends before its stores of boxes have read shared memory",
                self.stores.issued.back().site);
    if (products.performed < products.issued.size())
        fail_as(self, "a thread ends before its products are done", products.issued.back().site);
    if (execution.barrier.arrived > 0)
        fail_as(self, "divergent barrier: this thread ends, others wait", execution.barrier.site);
    return execution.alive == 0 ? nullptr : &next_thread();
}

// What runs on every stack: a thread, and after it each thread that begins where another has ended.
void run_threads() {
    addresses::enter_stack(nullptr, execution.host_stack.bottom ? nullptr : &execution.host_stack);
    for (;;) {
        Thread& self = running();
        Thread* next = nullptr;
        try {
            races::acquire(&execution.begin_clock);
            execution.fibers.begin_thread();
            execution.body(execution.arguments);
            execution.fibers.end_thread();
            next = end_thread(self);
        } catch (const std::exception& error) {
            execution.failure = error.what();
            races::release(&execution.end_clock);
        }
        const bool begins = next != nullptr && next->context == nullptr;
        if (begins && !races::checked) {
            next->stack = self.stack;
            current = next;
            continue;
        }
        if (!begins) execution.stacks.give_back(self.stack);
        if (next == nullptr) return_to_host();
        switch_to(*next, nullptr);
    }
}

void begin_thread(Thread& thread, unsigned rank) {
    const dim3 shape = execution.shape.block;
    thread.index = {rank % shape.x, rank / shape.x % shape.y, rank / (shape.x * shape.y)};
    thread.rank = rank;
    thread.context = nullptr;
    thread.copies.clear();
    thread.stores.clear();
    thread.fiber = execution.fibers.of(rank);
    if (races::checked)
        execution.fibers.name(rank, "block " + describe(block_index) + " thread " + describe(thread.index));
}

}  // namespace

void suspend() {
    Thread& self = running();
    Thread& next = next_thread();
    if (&next != &self) switch_to(next, &self.context);
}

void run_block(uint3 index) {
    block_index = index;
    execution.fibers.begin_block(execution.threads.size());
    execution.shared.begin_block(execution.fibers.checks_block());
    execution.alive = static_cast<unsigned>(execution.threads.size());
    execution.barrier.arrived = 0;
    for (unsigned warp = 0; warp * warp_size < execution.alive; warp++)
        execution.warps[warp].waiting = execution.warps[warp].ended = 0, execution.warps[warp].products.clear();
    for (NamedBarrier& barrier : execution.named_barriers) barrier.arrived = 0;
    execution.loads.clear();
    for (unsigned rank = 0; rank < execution.alive; rank++) begin_thread(execution.threads[rank], rank);
    execution.ready.clear();
    make_ready(0, execution.alive, [](const Thread&) { return true; });

    execution.host_fiber = races::running();
    races::release(&execution.begin_clock);
    switch_to(next_thread(), &execution.host);

    if (races::checked || !execution.failure.empty()) execution.stacks.give_back_all();
    if (!execution.failure.empty()) {
        execution.fibers.discard();
    } else if (!execution.shared.intact()) {
        execution.failure = execution.kernel->name + ": wrote beyond its " +
                            std::to_string(execution.shared.dynamic_bytes()) +
                            " bytes of dynamic shared memory (block " + describe(index) + ")";
    }
}

}  // namespace pycv::simt
