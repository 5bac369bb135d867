// The threads of the block that runs, and what they wait for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "context.h"
#include "runtime.h"
#include "sanitizer.h"
#include "stacks.h"
#include "tensor_copy.h"
#include "warp_group.h"

namespace pycv::simt {

inline constexpr int warp_size = 32;
inline constexpr unsigned max_threads = 1024;
inline constexpr unsigned max_warps = max_threads / warp_size;

// What orders the memory accesses of threads that meet, for the race check. Two clocks take turns, so that a thread
// that leaves late does not learn what others did on their way to the next meeting.
struct Meeting {
    std::array<char, 2> clocks;
    unsigned number = 0;

    void* clock() { return &clocks[number % 2]; }
};

// What a thread waits for: its side of a collective, or of the block's barrier (operation is null).
struct Wait {
    const char* name = nullptr;
    Site site;
    unsigned mask = 0;
    LaneOperation operation = nullptr;
    const void* operand = nullptr;
    void* result = nullptr;
    Meeting* meeting = nullptr;  // of a collective that orders memory
};

struct AsyncCopy {
    std::byte* target;
    const std::byte* source;
    int bytes, valid;
    races::Place place;
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

struct Thread;

// A copy of a box between global and shared memory, in either direction.
struct BoxCopy {
    TensorMap map;
    std::byte* shared;
    std::uint64_t* barrier;  // of a load
    int64_t at[5];
    int64_t shift[2];  // of im2col
    Thread* issuer;
    Site site;
    races::Place place;
    char* clock;  // of the race check: when it was issued
};

// The stores of one thread in the order of issue, in groups as those of AsyncCopies.
struct BoxStores {
    std::vector<BoxCopy> issued;
    std::vector<std::size_t> group_ends;
    std::size_t performed = 0;

    void clear() {
        issued.clear();
        group_ends.clear();
        performed = 0;
    }
};

// A product of a warp group as one of its warps has issued it, and where the lanes keep their sums.
struct IssuedProduct {
    GroupProduct product;
    std::array<float*, warp_size> sums;
    const Thread* issuer;
    Site site;
    races::Place place;
};

// Those of one warp in the order of issue, in groups.
struct GroupProducts {
    std::vector<IssuedProduct> issued;
    std::vector<std::size_t> group_ends;
    std::size_t performed = 0;
    bool fenced = false;

    void clear() {
        issued.clear();
        group_ends.clear();
        performed = 0;
        fenced = false;
    }
};

struct StoredFragments {
    void* row;
    unsigned registers[4];
};

enum class State : std::uint8_t { ready, at_barrier, at_named_barrier, at_phase, at_collective, at_products, ended };

struct Thread : Position {
    State state;
    Context context;  // null: has not begun
    Stack* stack;
    Wait wait;
    AsyncCopies copies;
    BoxStores stores;
    races::Fiber fiber;

    int lane() const { return static_cast<int>(rank % warp_size); }
    int warp() const { return static_cast<int>(rank / warp_size); }
};

struct Warp {
    unsigned waiting = 0, ended = 0;          // lanes
    std::array<Meeting, warp_size> meetings;  // by the first lane of the mask
    GroupProducts products;
    char product_clock = 0;  // of the race check: the products that have been issued
};

struct Barrier {
    unsigned arrived = 0;
    Site site;
    Meeting meeting;
};

struct NamedBarrier {
    int arrived = 0, threads = 0;
    Meeting meeting;
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

}  // namespace pycv::simt
