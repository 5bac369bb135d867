#include "runtime.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "../cuda/device/error.h"
#include "async_copy.h"
#include "configuration.h"
#include "context.h"
#include "launch.h"
#include "sanitizer.h"
#include "stacks.h"
#include "symbols.h"

namespace pycv::simt {

Position* current = nullptr;
uint3 block_index{};
dim3 block_shape, grid_shape;

namespace {

constexpr int warp_size = 32;
constexpr unsigned max_threads = 1024;
constexpr unsigned max_warps = max_threads / warp_size;

// ---------------------------------------------------------------------------------------------------------- threads

struct AsyncCopy {
    std::byte* target;
    const std::byte* source;
    int bytes, valid;
};

// The copies of one thread in the order of issue; group g ends before copy group_ends[g].
struct AsyncCopies {
    std::vector<AsyncCopy> issued;
    std::vector<std::size_t> group_ends;
    std::size_t performed = 0;

    void clear() {
        issued.clear();
        group_ends.clear();
        performed = 0;
    }
};

// What orders the memory accesses of threads that meet, for the race check. Two clocks take turns, so that a thread
// that leaves late does not learn what others did on their way to the next meeting.
struct Meeting {
    std::array<char, 2> clocks;
    unsigned number = 0;

    void* clock() { return &clocks[number % 2]; }
};

// What a thread waits for: its side of a collective, or the block's barrier (operation is null).
struct Wait {
    const char* name = nullptr;
    Site site;
    unsigned mask = 0;
    LaneOperation operation = nullptr;
    const void* operand = nullptr;
    void* result = nullptr;
    Meeting* meeting = nullptr;  // of a collective that orders memory
};

enum class State : std::uint8_t { ready, at_barrier, at_collective, ended };

struct Thread : Position {
    State state;
    Context context;  // null: has not begun
    Stack* stack;
    Wait wait;
    AsyncCopies copies;
    races::Fiber fiber;

    int lane() const { return static_cast<int>(rank % warp_size); }
    int warp() const { return static_cast<int>(rank / warp_size); }
};

// Threads that can go on, first come, first served: a thread is in it at most once.
class ReadyQueue {
public:
    void clear() { head_ = count_ = 0; }
    bool empty() const { return count_ == 0; }
    void push(Thread* thread) { slots_[(head_ + count_++) % max_threads] = thread; }
    Thread* pop() {
        count_--;
        return slots_[head_++ % max_threads];
    }
    Thread* pop_any(std::mt19937_64& random) {
        std::swap(slots_[head_ % max_threads], slots_[(head_ + random() % count_) % max_threads]);
        return pop();
    }

private:
    std::array<Thread*, max_threads> slots_;
    unsigned head_ = 0, count_ = 0;
};

struct Barrier {
    unsigned arrived = 0;
    Site site;
    Meeting meeting;
};

struct Warp {
    unsigned waiting = 0, ended = 0;          // lanes
    std::array<Meeting, warp_size> meetings;  // by the first lane of the mask
};

// ---------------------------------------------------------------------------------------------------- shared memory

constexpr std::byte poison{0xff};  // NaN in every floating-point type, -1 as an integer
constexpr std::byte canary{0xcd};
constexpr std::size_t canary_bytes = 1024;  // also the alignment of dynamic shared memory
constexpr std::size_t max_static_shared = 48 * 1024;
constexpr std::size_t max_shared = 227 * 1024;

struct alignas(canary_bytes) SharedMemory {
    std::byte before[canary_bytes];
    std::byte dynamic[max_shared + canary_bytes];
};

void fill(std::span<std::byte> bytes, std::byte value) {
    races::forget(bytes.data(), bytes.size());
    std::memset(bytes.data(), static_cast<int>(value), bytes.size());
}

bool all_equal(std::span<const std::byte> bytes, std::byte value) {
    return std::all_of(bytes.begin(), bytes.end(), [=](std::byte byte) { return byte == value; });
}

// ----------------------------------------------------------------------------------------------------------- launch

// The one launch that runs, or nothing.
struct Runtime {
    std::mutex mutex;  // held by whoever launches

    const KernelSymbols* kernel = nullptr;
    LaunchShape shape;
    void (*body)(const void*) = nullptr;
    const void* arguments = nullptr;
    Configuration configuration;
    std::mt19937_64 random;

    std::vector<Thread> threads;  // of the block
    unsigned alive = 0;
    ReadyQueue ready;
    Barrier barrier;
    std::array<Warp, max_warps> warps;
    std::unique_ptr<SharedMemory> shared;

    Stacks stacks;
    Context host = nullptr;
    addresses::StackBounds host_stack;
    races::Fiber host_fiber = nullptr;
    char launch_clock = 0;

    std::string failure;
    long long switches = 0;
    std::unordered_map<const void*, KernelSymbols> kernels;
};

Runtime runtime;

Thread& running() { return *static_cast<Thread*>(current); }

// ----------------------------------------------------------------------------------------------------------- errors

std::string describe(uint3 index) {
    return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

std::string describe(Site site) {
    const std::string path = site.file_name();
    return path.substr(path.rfind('/') + 1) + ":" + std::to_string(site.line());
}

bool same_place(Site one, Site other) {
    return one.line() == other.line() && one.column() == other.column() &&
           std::strcmp(one.file_name(), other.file_name()) == 0;
}

void switch_to_host() {
    races::switch_to(runtime.host_fiber);
    addresses::leave_stack(nullptr, runtime.host_stack);
    Context never_again;
    pycv_simt_switch(&never_again, runtime.host);
    std::terminate();
}

[[noreturn]] void fail_as(const Thread& thread, const std::string& what, Site site) {
    runtime.failure = runtime.kernel->name + ": " + what + " (" + describe(site) + ", block " + describe(block_index) +
                      ", thread " + describe(thread.index) + ")";
    switch_to_host();
    std::terminate();
}

// No thread can go on, and some have not ended.
[[noreturn]] void fail_deadlocked() {
    std::map<std::string, int> places;
    const Thread* first = nullptr;
    for (const Thread& thread : runtime.threads) {
        if (thread.state == State::ended) continue;
        if (first == nullptr) first = &thread;
        places[std::string(thread.wait.name) + " at " + describe(thread.wait.site)]++;
    }
    std::string what = "deadlock:";
    for (const auto& [place, count] : places) what += " " + std::to_string(count) + " threads wait in " + place + ",";
    what += " " + std::to_string(runtime.threads.size() - runtime.alive) + " have ended";
    fail_as(*first, what, first->wait.site);
}

// -------------------------------------------------------------------------------------------------------- scheduling

void run_thread();

Thread& next_thread() {
    if (runtime.ready.empty()) fail_deadlocked();
    return runtime.configuration.order == Order::random ? *runtime.ready.pop_any(runtime.random) : *runtime.ready.pop();
}

// Goes on with `next`. `from` is where the leaving stack is kept, null if it has done its work.
void switch_to(Thread& next, Context* from) {
    if (next.context == nullptr) {
        next.stack = runtime.stacks.take();
        next.context = new_context(next.stack->top, run_thread);
    }
    runtime.switches++;
    current = &next;
    void* kept = nullptr;
    Context never_again;
    races::switch_to(next.fiber);
    addresses::leave_stack(from ? &kept : nullptr, {next.stack->bottom, next.stack->bytes()});
    pycv_simt_switch(from ? from : &never_again, next.context);
    addresses::enter_stack(kept, nullptr);
}

// Lets others run until somebody makes this thread ready.
void suspend() {
    Thread& self = running();
    Thread& next = next_thread();
    if (&next != &self) switch_to(next, &self.context);
}

// Makes those of the threads [begin, end) that `waits` accepts ready, in the order of the configuration.
template <class Waits>
void make_ready(unsigned begin, unsigned end, Waits waits) {
    const bool reverse = runtime.configuration.order == Order::reverse;
    for (unsigned i = begin; i < end; i++) {
        Thread& thread = runtime.threads[reverse ? end - 1 - (i - begin) : i];
        if (!waits(thread)) continue;
        thread.state = State::ready;
        runtime.ready.push(&thread);
    }
}

void open_barrier() {
    runtime.barrier.arrived = 0;
    runtime.barrier.meeting.number++;
    make_ready(0, static_cast<unsigned>(runtime.threads.size()),
               [](const Thread& thread) { return thread.state == State::at_barrier; });
}

void end_thread(Thread& self) {
    self.state = State::ended;
    runtime.alive--;
    runtime.warps[self.warp()].ended |= 1u << self.lane();
    races::release(&runtime.launch_clock);
    // Those that have ended are not waited for.
    if (runtime.barrier.arrived > 0 && runtime.barrier.arrived == runtime.alive) open_barrier();
}

// What runs on every stack: a thread, and after it each thread that begins where another has ended.
void run_thread() {
    addresses::enter_stack(nullptr, runtime.host_stack.bottom ? nullptr : &runtime.host_stack);
    for (;;) {
        Thread& self = running();
        try {
            runtime.body(runtime.arguments);
        } catch (const std::exception& error) {
            fail_as(self, error.what(), Site::current());
        }
        end_thread(self);
        if (runtime.alive == 0) {
            runtime.stacks.give_back(self.stack);
            switch_to_host();
        }
        Thread& next = next_thread();
        if (next.context != nullptr || races::checked) {
            runtime.stacks.give_back(self.stack);
            switch_to(next, nullptr);
        }
        next.stack = self.stack;
        current = &next;
    }
}

void run_threads() {
    runtime.host_fiber = races::running();
    Thread& first = next_thread();
    switch_to(first, &runtime.host);
}

// ------------------------------------------------------------------------------------------------------------ blocks

void begin_thread(Thread& thread, unsigned rank) {
    const dim3 shape = runtime.shape.block;
    thread.index = {rank % shape.x, rank / shape.x % shape.y, rank / (shape.x * shape.y)};
    thread.rank = rank;
    thread.state = State::at_barrier;
    thread.context = nullptr;
    thread.copies.clear();
    thread.fiber = races::create();
}

void begin_block() {
    fill({runtime.shared->dynamic, runtime.shape.shared_bytes}, poison);
    for (const auto variable : runtime.kernel->shared) fill(variable, poison);
    runtime.alive = static_cast<unsigned>(runtime.threads.size());
    runtime.ready.clear();
    for (unsigned warp = 0; warp * warp_size < runtime.alive; warp++)
        runtime.warps[warp].waiting = runtime.warps[warp].ended = 0;
    for (unsigned rank = 0; rank < runtime.alive; rank++) begin_thread(runtime.threads[rank], rank);
    open_barrier();
}

void end_block() {
    for (Thread& thread : runtime.threads) races::destroy(thread.fiber);
    if (!runtime.failure.empty()) {
        runtime.stacks.give_back_all();
        return;
    }
    if (addresses::checked) return;  // what lies around shared memory could not have been written
    const SharedMemory& shared = *runtime.shared;
    if (!all_equal(shared.before, canary) ||
        !all_equal({shared.dynamic + runtime.shape.shared_bytes, canary_bytes}, canary))
        runtime.failure = runtime.kernel->name + ": wrote beyond its " + std::to_string(runtime.shape.shared_bytes) +
                          " bytes of dynamic shared memory (block " + describe(block_index) + ")";
}

void begin_launch() {
    if (!runtime.shared) runtime.shared = std::make_unique<SharedMemory>();
    SharedMemory& shared = *runtime.shared;
    addresses::allow(&shared, sizeof(shared));
    fill(shared.before, canary);
    fill({shared.dynamic + runtime.shape.shared_bytes, canary_bytes}, canary);
    addresses::forbid(&shared, sizeof(shared));
    addresses::allow(shared.dynamic, runtime.shape.shared_bytes);
    const dim3 block = runtime.shape.block;
    runtime.threads.resize(block.x * block.y * block.z);
    runtime.failure.clear();
    block_shape = block;
    grid_shape = runtime.shape.grid;
}

void run_blocks() {
    const dim3 grid = runtime.shape.grid;
    const std::size_t count = std::size_t{grid.x} * grid.y * grid.z;
    std::vector<std::size_t> shuffled;
    if (runtime.configuration.order == Order::random) {
        for (std::size_t i = 0; i < count; i++) shuffled.push_back(i);
        std::shuffle(shuffled.begin(), shuffled.end(), runtime.random);
    }
    for (std::size_t i = 0; i < count && runtime.failure.empty(); i++) {
        const std::size_t block = runtime.configuration.order == Order::forward   ? i
                                  : runtime.configuration.order == Order::reverse ? count - 1 - i
                                                                                  : shuffled[i];
        block_index = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                       static_cast<unsigned>(block / grid.x / grid.y)};
        begin_block();
        run_threads();
        end_block();
    }
    races::acquire(&runtime.launch_clock);
}

// ------------------------------------------------------------------------------------------------------------ limits

std::string describe(dim3 shape) { return describe(uint3{shape.x, shape.y, shape.z}); }

// What the device would refuse, in words; empty if it would not.
std::string exceeded_limit(const LaunchShape& shape, std::size_t static_bytes) {
    const auto [grid, block, dynamic_bytes] = shape;
    const std::size_t threads = std::size_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > max_threads || block.x > 1024 || block.y > 1024 || block.z > 64)
        return "a block of " + describe(block) + " threads: at most 1024, and (1024, 1024, 64)";
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return "a grid of " + describe(grid) + " blocks: at least one, at most (2147483647, 65535, 65535)";
    if (static_bytes > max_static_shared)
        return std::to_string(static_bytes) + " bytes of static shared memory: at most 49152";
    if (static_bytes + dynamic_bytes > max_shared)
        return std::to_string(static_bytes) + " + " + std::to_string(dynamic_bytes) +
               " bytes of shared memory: at most 232448";
    return "";
}

const KernelSymbols& look_up(const void* kernel) {
    const auto found = runtime.kernels.find(kernel);
    return found != runtime.kernels.end() ? found->second
                                          : runtime.kernels.emplace(kernel, find_kernel(kernel)).first->second;
}

void perform(const AsyncCopy& copy) {
    races::reads(copy.source, static_cast<std::size_t>(copy.valid));
    races::writes(copy.target, static_cast<std::size_t>(copy.bytes));
    std::memcpy(copy.target, copy.source, static_cast<std::size_t>(copy.valid));
    std::memset(copy.target + copy.valid, 0, static_cast<std::size_t>(copy.bytes - copy.valid));
}

std::string in_hexadecimal(unsigned mask) {
    std::string text = "0x00000000";
    for (std::size_t digit = 9; mask != 0; digit--, mask >>= 4) text[digit] = "0123456789abcdef"[mask & 15];
    return text;
}

// Whether the lanes of a mask, all of them waiting, wait for each other.
bool lanes_match(const Thread* lanes, const Wait& wait) {
    for (unsigned rest = wait.mask; rest != 0; rest &= rest - 1) {
        const Wait& other = lanes[std::countr_zero(rest)].wait;
        if (other.mask != wait.mask || other.operation != wait.operation) return false;
    }
    return true;
}

// Two lanes that name each other, but wait for different things, would wait for ever.
void check_partner(const Thread& self, const Thread& partner) {
    const Wait &wait = self.wait, &other = partner.wait;
    if ((other.mask >> self.lane() & 1u) == 0) return;  // it will come here after another collective
    if (other.mask == wait.mask && other.operation == wait.operation) return;
    fail_as(self,
            std::string(wait.name) + " with mask " + in_hexadecimal(wait.mask) + " meets " + other.name +
                " with mask " + in_hexadecimal(other.mask) + " of lane " + std::to_string(partner.lane()) + " at " +
                describe(other.site),
            wait.site);
}

// Waits until all lanes of the mask have come; the last one runs the operation for all.
void meet(const Wait& wait) {
    Thread& self = running();
    Warp& warp = runtime.warps[self.warp()];
    Thread* const lanes = &self - self.lane();
    self.wait = wait;
    void* const clock = wait.meeting ? wait.meeting->clock() : nullptr;
    if (clock) races::release(clock);
    if ((wait.mask >> self.lane() & 1u) == 0)
        fail_as(self, std::string(wait.name) + ": own lane is not in the mask " + in_hexadecimal(wait.mask), wait.site);
    if (const unsigned gone = warp.ended & wait.mask; gone != 0)
        fail_as(self,
                std::string(wait.name) + ": lane " + std::to_string(std::countr_zero(gone)) + " of the mask has ended",
                wait.site);
    if (const unsigned there = warp.waiting & wait.mask; there != 0)
        check_partner(self, lanes[std::countr_zero(there)]);
    warp.waiting |= 1u << self.lane();
    self.state = State::at_collective;
    if ((warp.waiting & wait.mask) == wait.mask && lanes_match(lanes, wait)) {
        Lanes all{};
        for (unsigned rest = wait.mask; rest != 0; rest &= rest - 1) {
            const int lane = std::countr_zero(rest);
            all.operands[lane] = lanes[lane].wait.operand;
            all.results[lane] = lanes[lane].wait.result;
        }
        wait.operation(all, wait.site);
        if (wait.meeting) wait.meeting->number++;
        warp.waiting &= ~wait.mask;
        const unsigned first = self.rank - static_cast<unsigned>(self.lane());
        make_ready(first, std::min(first + warp_size, static_cast<unsigned>(runtime.threads.size())),
                   [&](const Thread& thread) { return (wait.mask >> thread.lane() & 1u) != 0; });
    }
    suspend();
    if (clock) races::acquire(clock);
}

unsigned existing_lanes(const Thread& thread) {
    const unsigned first = thread.rank - static_cast<unsigned>(thread.lane());
    const unsigned count = std::min<unsigned>(warp_size, static_cast<unsigned>(runtime.threads.size()) - first);
    return 0xffffffffu >> (warp_size - count);
}

void no_operation(const Lanes&, Site) {}

void ballot_lanes(const Lanes& lanes, Site) {
    unsigned votes = 0;
    for (int lane = 0; lane < warp_size; lane++)
        if (lanes.operands[lane] != nullptr && *static_cast<const bool*>(lanes.operands[lane])) votes |= 1u << lane;
    for (void* result : lanes.results)
        if (result != nullptr) *static_cast<unsigned*>(result) = votes;
}

}  // namespace

// --------------------------------------------------------------------------------------------- what kernels call

void fail(const std::string& what, Site site) { fail_as(running(), what, site); }

void block_barrier(Site site) {
    Thread& self = running();
    Barrier& barrier = runtime.barrier;
    if (barrier.arrived == 0) barrier.site = site;
    if (!same_place(barrier.site, site))
        fail_as(self, "divergent barrier: other threads wait in __syncthreads at " + describe(barrier.site), site);
    void* const clock = barrier.meeting.clock();
    races::release(clock);
    self.wait = {.name = "__syncthreads", .site = site};
    self.state = State::at_barrier;
    if (++barrier.arrived == runtime.alive) open_barrier();
    suspend();
    races::acquire(clock);
}

void collective(unsigned mask, const char* name, LaneOperation operation, const void* operand, void* result,
                Site site) {
    meet({name, site, mask & existing_lanes(running()), operation, operand, result});
}

void warp_barrier(unsigned mask, Site site) {
    Thread& self = running();
    const unsigned lanes = mask & existing_lanes(self);
    // Masks that share their first lane come one after the other.
    Meeting& meeting = runtime.warps[self.warp()].meetings[lanes == 0 ? 0 : std::countr_zero(lanes)];
    meet({"__syncwarp", site, lanes, no_operation, nullptr, nullptr, &meeting});
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
    unsigned votes;
    collective(mask, "vote", ballot_lanes, &predicate, &votes, site);
    return votes;
}

void* dynamic_shared() { return runtime.shared->dynamic; }

bool is_shared(const void* address, std::size_t bytes) {
    const auto* begin = static_cast<const std::byte*>(address);
    const auto inside = [=](std::span<const std::byte> memory) {
        return begin >= memory.data() && begin + bytes <= memory.data() + memory.size();
    };
    return inside({runtime.shared->dynamic, runtime.shape.shared_bytes}) ||
           std::any_of(runtime.kernel->shared.begin(), runtime.kernel->shared.end(), inside);
}

void async_copy(void* shared, const void* global, int bytes, int valid, Site site) {
    check_aligned(shared, static_cast<std::size_t>(bytes), "target of an asynchronous copy", site);
    check_aligned(global, static_cast<std::size_t>(bytes), "source of an asynchronous copy", site);
    if (valid < 0 || valid > bytes) fail("an asynchronous copy of " + std::to_string(valid) + " valid bytes", site);
    if (!is_shared(shared, static_cast<std::size_t>(bytes)))
        fail("an asynchronous copy leads outside shared memory", site);
    if (!addresses::may_access(global, static_cast<std::size_t>(valid)))
        fail("an asynchronous copy reads out of bounds", site);
    const AsyncCopy copy{static_cast<std::byte*>(shared), static_cast<const std::byte*>(global), bytes, valid};
    if (runtime.configuration.lazy)
        running().copies.issued.push_back(copy);
    else
        perform(copy);
}

void commit_async_copies() {
    AsyncCopies& copies = running().copies;
    copies.group_ends.push_back(copies.issued.size());
}

void wait_async_copies(int allowed) {
    AsyncCopies& copies = running().copies;
    const auto groups = static_cast<std::ptrdiff_t>(copies.group_ends.size()) - allowed;
    if (groups <= 0) return;
    const std::size_t end = copies.group_ends[static_cast<std::size_t>(groups - 1)];
    while (copies.performed < end) perform(copies.issued[copies.performed++]);
    if (allowed == 0 && copies.performed == copies.issued.size()) copies.clear();
}

void launch(const void* kernel, const LaunchShape& shape, void (*body)(const void*), const void* arguments) {
    const std::lock_guard lock(runtime.mutex);
    runtime.kernel = &look_up(kernel);
    std::size_t static_bytes = 0;
    for (const auto variable : runtime.kernel->shared) static_bytes += variable.size();
    if (const std::string limit = exceeded_limit(shape, static_bytes); !limit.empty())
        throw cuda::CudaError(runtime.kernel->name + ": launched with " + limit);
    runtime.shape = shape;
    runtime.body = body;
    runtime.arguments = arguments;
    runtime.configuration = configuration();
    runtime.random.seed(runtime.configuration.seed);
    begin_launch();
    run_blocks();
    if (!runtime.failure.empty()) throw cuda::CudaError(runtime.failure);
}

}  // namespace pycv::simt

long long pycv_simt_switches() { return pycv::simt::runtime.switches; }
