// Memory between two inaccessible pages, so that a kernel that reads or writes outside its buffer dies at once.
//
// A buffer can be flush with one of the pages only: `Side` says which, and the tests run both ways. What alignment
// leaves over at the other side is filled with a pattern that must survive (and poisoned under AddressSanitizer).
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum class Side { front, back };

class Guarded {
public:
    // `bytes` of memory aligned to `alignment`, all bits set: NaN as float and double, -1 as integer.
    Guarded(int64_t bytes, Side side, int64_t alignment) : bytes_(bytes) {
        const int64_t page = sysconf(_SC_PAGESIZE);
        inner_ = (bytes + alignment + page - 1) / page * page;
        mapped_ = inner_ + 2 * page;
        void* base =
            mmap(nullptr, static_cast<size_t>(mapped_), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED || mprotect(static_cast<char*>(base) + page, inner_, PROT_READ | PROT_WRITE)) {
            std::perror("guarded memory");
            std::exit(2);
        }
        base_ = static_cast<char*>(base);
        open_ = base_ + page;
        std::memset(open_, 0xff, static_cast<size_t>(inner_));
        const int64_t slack = inner_ - bytes;
        data_ = open_ + (side == Side::front ? 0 : slack / alignment * alignment);
        poison(true);
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    ~Guarded() {
        poison(false);
        munmap(base_, static_cast<size_t>(mapped_));
    }

    void* data() const { return data_; }

    // Nothing around the buffer was written.
    bool intact() {
        poison(false);
        bool same = true;
        for (const char* p = open_; p < open_ + inner_; ++p)
            if (p < data_ || p >= data_ + bytes_) same = same && *p == '\xff';
        poison(true);
        return same;
    }

private:
    void poison([[maybe_unused]] bool on) {
#if defined(__SANITIZE_ADDRESS__)
        if (on) {
            ASAN_POISON_MEMORY_REGION(open_, data_ - open_);
            ASAN_POISON_MEMORY_REGION(data_ + bytes_, open_ + inner_ - data_ - bytes_);
        } else {
            ASAN_UNPOISON_MEMORY_REGION(open_, inner_);
        }
#endif
    }

    int64_t bytes_, inner_ = 0, mapped_ = 0;
    char *base_ = nullptr, *open_ = nullptr, *data_ = nullptr;
};
