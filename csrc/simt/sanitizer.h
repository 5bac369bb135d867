// What the sanitizers have to be told of fibers. Nothing without them.
//
// AddressSanitizer follows the stacks. ThreadSanitizer, in a build with PYCV_SIMT_RACES, serves as a race check: every
// CUDA thread is a thread to it, and nothing orders two of them but what the runtime says by release and acquire. The
// runtime itself, whose data all threads share, is compiled without -fsanitize=thread in that build.
#pragma once

#include <cstddef>
#include <string>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(PYCV_SIMT_RACES)
#include <sanitizer/tsan_interface.h>
#include <sys/mman.h>

#include <vector>

extern "C" {
void __tsan_read_range_pc(void* address, unsigned long bytes, void* place);
void __tsan_write_range_pc(void* address, unsigned long bytes, void* place);
void __tsan_java_init(unsigned long begin, unsigned long bytes);
void __tsan_java_alloc(unsigned long address, unsigned long bytes);
void __tsan_java_free(unsigned long address, unsigned long bytes);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
// Where the linker puts the variables of this program or library that begin as zeros.
extern __attribute__((visibility("hidden"))) char __bss_start[], _end[];
}
#endif

namespace pycv::simt::addresses {

struct StackBounds {
    const void* bottom = nullptr;
    std::size_t bytes = 0;
};

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool checked = true;

// Around a switch: `kept` holds what the leaving stack needs when it goes on; null: it never does.
inline void leave_stack(void** kept, const StackBounds& target) {
    __sanitizer_start_switch_fiber(kept, target.bottom, target.bytes);
}
inline void enter_stack(void* kept, StackBounds* origin) {
    __sanitizer_finish_switch_fiber(kept, origin ? &origin->bottom : nullptr, origin ? &origin->bytes : nullptr);
}
inline void forbid(const void* address, std::size_t bytes) { __asan_poison_memory_region(address, bytes); }
inline void allow(const void* address, std::size_t bytes) { __asan_unpoison_memory_region(address, bytes); }
inline bool may_access(const void* address, std::size_t bytes) {
    return bytes == 0 || __asan_region_is_poisoned(const_cast<void*>(address), bytes) == nullptr;
}
#else
inline constexpr bool checked = false;
inline void leave_stack(void**, const StackBounds&) {}
inline void enter_stack(void*, StackBounds*) {}
inline void forbid(const void*, std::size_t) {}
inline void allow(const void*, std::size_t) {}
inline bool may_access(const void*, std::size_t) { return true; }
#endif

}  // namespace pycv::simt::addresses

namespace pycv::simt::races {

using Fiber = void*;

// Where a kernel calls what the runtime does for it: the line that a report names. A function of the runtime that
// kernels call finds it by __builtin_return_address(0).
using Place = void*;

// What works on its own beside the threads: copies of boxes, one agent for each direction, and products of warp groups,
// one for each warp.
enum Agent : std::size_t { load_agent, store_agent, first_product_agent };

#if defined(PYCV_SIMT_RACES)
inline constexpr bool checked = true;

inline Fiber running() { return __tsan_get_current_fiber(); }
// Orders nothing.
inline void switch_to(Fiber fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }

// What the running thread does while there is one of these counts for nothing: the runtime copies data of its own,
// which ThreadSanitizer sees where that takes memcpy.
struct Unseen {
    Unseen() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__); }
    ~Unseen() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
    Unseen(const Unseen&) = delete;
};

// A fiber for every CUDA thread of a launch, as far as they go: to make one costs a millisecond and 800 KB, so that
// they serve each launch again (what they did in an earlier one comes before all of it), and blocks for which none are
// left run unchecked. Which blocks come first is a matter of the order that is configured.
class Fibers {
public:
    void begin_launch() {
        used_ = 0;
        // An agent comes after what the thread that makes it has seen: here, nothing of a launch.
        for (Fiber& agent : agents_)
            if (agent == nullptr) agent = __tsan_create_fiber(0);
    }
    void begin_block(std::size_t threads) {
        checked_ = used_ + threads <= max_count;
        first_ = checked_ ? used_ : 0;
        if (checked_) used_ += threads;
        while (all_.size() < first_ + threads) all_.push_back(__tsan_create_fiber(0));
    }
    bool checks_block() const { return checked_; }
    Fiber of(std::size_t rank) const { return all_[first_ + rank]; }
    // What a report calls this thread of the block.
    void name(std::size_t rank, const std::string& text) const {
        if (checked_) __tsan_set_fiber_name(of(rank), text.c_str());
    }

    // Around all that a thread does.
    void begin_thread() const {
        if (!checked_) AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    void end_thread() const {
        if (!checked_) AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }

    // Nothing orders an agent's accesses and those of a thread or of another agent but clocks.
    template <class Access>
    void by_agent(std::size_t which, Access access) {
        if (!checked_) {
            const Unseen unseen;  // a thread that has ended may have come to do this
            return access();
        }
        const Fiber self = races::running();
        races::switch_to(agents_[which]);
        access();
        races::switch_to(self);
    }

    // After threads that did not come to their end.
    void discard() {
        for (Fiber fiber : all_) __tsan_destroy_fiber(fiber);
        all_.clear();
    }

private:
    static constexpr std::size_t max_count = 1024;  // at least one block of any size
    std::vector<Fiber> all_;
    Fiber agents_[first_product_agent + 32] = {};
    std::size_t first_ = 0, used_ = 0;
    bool checked_ = true;
};

// Whoever acquires a clock comes after everybody who has released to it.
inline void release(void* clock) { __tsan_release(clock); }
inline void acquire(void* clock) { __tsan_acquire(clock); }

inline void reads(const void* address, std::size_t bytes, Place place) {
    __tsan_read_range_pc(const_cast<void*>(address), bytes, place);
}
inline void writes(void* address, std::size_t bytes, Place place) { __tsan_write_range_pc(address, bytes, place); }

// Earlier accesses to this memory race with nothing any more: it is about to be something else's. ThreadSanitizer
// forgets memory that is mapped anew, and variables when an interface for garbage collectors says they are allocated.
inline void forget_pages(void* address, std::size_t bytes) {
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);  // or else it would count as a write by this thread
    mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
}
inline void forget_variable(const void* address, std::size_t bytes) {
    constexpr unsigned long granule = 8;
    const auto down = [](const void* at) { return reinterpret_cast<unsigned long>(at) / granule * granule; };
    const auto up = [](const void* at) {
        return (reinterpret_cast<unsigned long>(at) + granule - 1) / granule * granule;
    };
    [[maybe_unused]] static const bool begun =
        (__tsan_java_init(down(__bss_start), up(_end) - down(__bss_start)), true);
    const unsigned long begin = down(address), end = up(static_cast<const std::byte*>(address) + bytes);
    __tsan_java_alloc(begin, end - begin);
    __tsan_java_free(begin, end - begin);
}
#else
inline constexpr bool checked = false;
class Fibers {
public:
    void begin_launch() {}
    void begin_block(std::size_t) {}
    bool checks_block() const { return false; }
    Fiber of(std::size_t) const { return nullptr; }
    void name(std::size_t, const std::string&) const {}
    void begin_thread() const {}
    void end_thread() const {}
    template <class Access>
    void by_agent(std::size_t, Access access) {
        access();
    }
    void discard() {}
};
struct Unseen {
    Unseen() {}
    ~Unseen() {}
};
inline Fiber running() { return nullptr; }
inline void switch_to(Fiber) {}
inline void release(void*) {}
inline void acquire(void*) {}
inline void reads(const void*, std::size_t, Place) {}
inline void writes(void*, std::size_t, Place) {}
inline void forget_pages(void*, std::size_t) {}
inline void forget_variable(const void*, std::size_t) {}
#endif

}  // namespace pycv::simt::races
