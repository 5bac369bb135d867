#include "barriers.h"

#include <bit>

#include "execution.h"

namespace pycv::simt {
namespace {

struct Phase {
    std::uint64_t parity : 1;
    std::uint64_t arrivals : 20;  // that a phase expects
    std::uint64_t pending : 20;   // that have not come yet
    std::int64_t bytes : 23;      // that have not come yet, less those that nobody expects yet
};
constexpr int max_arrivals = (1 << 20) - 2;  // poison is one more

Phase read(const std::uint64_t* barrier) { return std::bit_cast<Phase>(*barrier); }

void check(const std::uint64_t* barrier, Site site) {
    check_aligned(barrier, sizeof(*barrier), "barrier", site);
    if (!execution.shared.contains(barrier, sizeof(*barrier))) fail("a barrier outside shared memory", site);
    if (!is_barrier(barrier)) fail("a barrier that was not initialised", site);
}

void* clock_of(std::uint64_t* barrier, unsigned parity) { return reinterpret_cast<char*>(barrier) + parity; }

// Ends the phase if nothing is missing any more.
void update(std::uint64_t* barrier, Phase phase) {
    const bool ends = phase.pending == 0 && phase.bytes == 0;
    if (ends) {
        phase.parity ^= 1;
        phase.pending = phase.arrivals;
    }
    *barrier = std::bit_cast<std::uint64_t>(phase);
    if (!ends) return;
    make_ready(0, static_cast<unsigned>(execution.threads.size()), [&](const Thread& thread) {
        return thread.state == State::at_phase && thread.wait.operand == barrier && thread.wait.mask != phase.parity;
    });
}

}  // namespace

bool is_barrier(const std::uint64_t* barrier) { return read(barrier).arrivals <= max_arrivals; }

void* clock_of_barrier(std::uint64_t* barrier) { return clock_of(barrier, read(barrier).parity); }

void init_barrier(std::uint64_t* barrier, int arrivals, Site site) {
    check_aligned(barrier, sizeof(*barrier), "barrier", site);
    if (!execution.shared.contains(barrier, sizeof(*barrier))) fail("a barrier outside shared memory", site);
    if (arrivals < 1 || arrivals > max_arrivals)
        fail("a barrier of " + std::to_string(arrivals) + " arrivals: at least one", site);
    const auto count = static_cast<std::uint64_t>(arrivals);
    *barrier = std::bit_cast<std::uint64_t>(Phase{0, count, count, 0});
}

void arrive_at_barrier(std::uint64_t* barrier, int expected_bytes, Site site) {
    check(barrier, site);
    races::release(clock_of_barrier(barrier));
    Phase phase = read(barrier);
    if (phase.pending == 0) fail("one arrival more than the barrier expects", site);
    phase.pending--;
    phase.bytes += expected_bytes;
    update(barrier, phase);
}

void bring_to_barrier(std::uint64_t* barrier, int bytes, Site site) {
    if (!is_barrier(barrier)) fail("a copy ends at a barrier that was not initialised", site);
    Phase phase = read(barrier);
    phase.bytes -= bytes;
    update(barrier, phase);
}

void wait_at_barrier(std::uint64_t* barrier, unsigned parity, Site site) {
    check(barrier, site);
    if (parity > 1) fail("a parity of " + std::to_string(parity) + ": 0 or 1", site);
    if (read(barrier).parity == parity) {
        Thread& self = running();
        self.wait = {.name = "barrier_wait", .site = site, .mask = parity, .operand = barrier};
        self.state = State::at_phase;
        suspend();
    }
    races::acquire(clock_of(barrier, parity));
}

void named_barrier(int id, int threads, Site site) {
    Thread& self = running();
    if (id < 1 || id > 15) fail("named barrier " + std::to_string(id) + ": 1 to 15", site);
    if (threads < 1 || threads % warp_size != 0 || static_cast<std::size_t>(threads) > execution.threads.size())
        fail("a named barrier of " + std::to_string(threads) + " threads: whole warps of the block", site);
    NamedBarrier& barrier = execution.named_barriers[static_cast<std::size_t>(id)];
    if (barrier.arrived > 0 && barrier.threads != threads)
        fail("a named barrier of " + std::to_string(threads) + " threads, others wait for " +
                 std::to_string(barrier.threads),
             site);
    barrier.threads = threads;
    void* const clock = barrier.meeting.clock();
    races::release(clock);
    self.wait = {.name = "named_barrier", .site = site, .operand = &barrier};
    self.state = State::at_named_barrier;
    if (++barrier.arrived == threads) {
        barrier.arrived = 0;
        barrier.meeting.number++;
        make_ready(0, static_cast<unsigned>(execution.threads.size()), [&](const Thread& thread) {
            return thread.state == State::at_named_barrier && thread.wait.operand == &barrier;
        });
    }
    suspend();
    races::acquire(clock);
}

}  // namespace pycv::simt
