// Barriers in shared memory (mbarrier) and named barriers on the host: cuda/device/barrier.h says what they do.
#pragma once

#include "runtime.h"

namespace pycv::simt {

// `barrier` is its 64 bits in shared memory.
void init_barrier(std::uint64_t* barrier, int arrivals, Site site);
void arrive_at_barrier(std::uint64_t* barrier, int expected_bytes, Site site);
void wait_at_barrier(std::uint64_t* barrier, unsigned parity, Site site);
// Bytes that a copy has brought; not before somebody expects them does a phase end.
void bring_to_barrier(std::uint64_t* barrier, int bytes, Site site);
// What orders memory between the arrivals of the phase that is under way and those who wait for it.
void* clock_of_barrier(std::uint64_t* barrier);
bool is_barrier(const std::uint64_t* barrier);

void named_barrier(int id, int threads, Site site);

}  // namespace pycv::simt
