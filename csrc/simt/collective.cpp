// Where threads meet: the block's barrier, and the collectives of a warp.
#include <algorithm>
#include <bit>
#include <cstring>

#include "execution.h"

namespace pycv::simt {
namespace {

bool same_place(Site one, Site other) {
    return one.line() == other.line() && one.column() == other.column() &&
           std::strcmp(one.file_name(), other.file_name()) == 0;
}

std::string in_hexadecimal(unsigned mask) {
    std::string text = "0x00000000";
    for (std::size_t digit = 9; mask != 0; digit--, mask >>= 4) text[digit] = "0123456789abcdef"[mask & 15];
    return text;
}

// Those of the thread's warp: the last one of a block may be short.
unsigned existing_lanes(const Thread& thread) {
    const unsigned first = thread.rank - static_cast<unsigned>(thread.lane());
    const unsigned count = std::min<unsigned>(warp_size, static_cast<unsigned>(execution.threads.size()) - first);
    return 0xffffffffu >> (warp_size - count);
}

bool match(const Wait& one, const Wait& other) { return one.mask == other.mask && one.operation == other.operation; }

void check_arrival(const Thread& self, const Thread* lanes, const Warp& warp) {
    const Wait& wait = self.wait;
    const auto refuse = [&](const std::string& why) { fail_as(self, std::string(wait.name) + why, wait.site); };
    if ((wait.mask >> self.lane() & 1u) == 0) refuse(": own lane is not in the mask " + in_hexadecimal(wait.mask));
    if (const unsigned gone = warp.ended & wait.mask; gone != 0)
        refuse(": lane " + std::to_string(std::countr_zero(gone)) + " of the mask has ended");
    const unsigned there = warp.waiting & wait.mask;
    if (there == 0) return;
    // Two lanes that name each other, but wait for different things, would wait for ever.
    const Thread& partner = lanes[std::countr_zero(there)];
    const Wait& other = partner.wait;
    if (match(wait, other) || (other.mask >> self.lane() & 1u) == 0) return;
    refuse(" with mask " + in_hexadecimal(wait.mask) + " meets " + other.name + " with mask " +
           in_hexadecimal(other.mask) + " of lane " + std::to_string(partner.lane()) + " at " + describe(other.site));
}

bool all_wait_for(const Wait& wait, const Thread* lanes, const Warp& warp) {
    if ((warp.waiting & wait.mask) != wait.mask) return false;
    for (unsigned rest = wait.mask; rest != 0; rest &= rest - 1)
        if (!match(lanes[std::countr_zero(rest)].wait, wait)) return false;
    return true;
}

void complete(const Wait& wait, Thread* lanes, Warp& warp) {
    Lanes all{};
    for (unsigned rest = wait.mask; rest != 0; rest &= rest - 1) {
        const int lane = std::countr_zero(rest);
        all.operands[lane] = lanes[lane].wait.operand;
        all.results[lane] = lanes[lane].wait.result;
    }
    wait.operation(all, wait.site);
    if (wait.meeting) wait.meeting->number++;
    warp.waiting &= ~wait.mask;
    const unsigned first = lanes->rank;
    make_ready(first, std::min(first + warp_size, static_cast<unsigned>(execution.threads.size())),
               [&](const Thread& thread) { return (wait.mask >> thread.lane() & 1u) != 0; });
}

void meet(const Wait& wait) {
    Thread& self = running();
    Warp& warp = execution.warps[self.warp()];
    Thread* const lanes = &self - self.lane();
    self.wait = wait;
    check_arrival(self, lanes, warp);
    void* const clock = wait.meeting ? wait.meeting->clock() : nullptr;
    if (clock) races::release(clock);
    warp.waiting |= 1u << self.lane();
    self.state = State::at_collective;
    if (all_wait_for(wait, lanes, warp)) complete(wait, lanes, warp);
    suspend();
    if (clock) races::acquire(clock);
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

void collective(unsigned mask, const char* name, LaneOperation operation, const void* operand, void* result,
                Site site) {
    meet({name, site, mask & existing_lanes(running()), operation, operand, result});
}

void warp_barrier(unsigned mask, Site site) {
    Thread& self = running();
    const unsigned lanes = mask & existing_lanes(self);
    // Masks that share their first lane come one after the other.
    Meeting& meeting = execution.warps[self.warp()].meetings[lanes == 0 ? 0 : std::countr_zero(lanes)];
    meet({"__syncwarp", site, lanes, no_operation, nullptr, nullptr, &meeting});
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
    unsigned votes;
    collective(mask, "vote", ballot_lanes, &predicate, &votes, site);
    return votes;
}

void block_barrier(Site site) {
    Thread& self = running();
    Barrier& barrier = execution.barrier;
    const auto threads = static_cast<unsigned>(execution.threads.size());
    if (barrier.arrived == 0) barrier.site = site;
    if (!same_place(barrier.site, site))
        fail_as(self, "divergent barrier: other threads wait in __syncthreads at " + describe(barrier.site), site);
    if (execution.alive < threads)
        fail_as(self, "divergent barrier: " + std::to_string(threads - execution.alive) + " threads have ended", site);
    void* const clock = barrier.meeting.clock();
    races::release(clock);
    self.wait = {.name = "__syncthreads", .site = site};
    self.state = State::at_barrier;
    if (++barrier.arrived == threads) {
        barrier.arrived = 0;
        barrier.meeting.number++;
        make_ready(0, threads, [](const Thread&) { return true; });
    }
    suspend();
    races::acquire(clock);
}

}  // namespace pycv::simt
