#include "stacks.h"

#include <sys/mman.h>

#include <new>

#include "sanitizer.h"

namespace pycv::simt {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t usable = (addresses::checked || races::checked ? 252 : 64) * 1024;
constexpr std::size_t stride = usable + page;  // an odd number of pages
constexpr std::size_t count = 1024;            // as many as a block has threads
constexpr std::size_t colours = 16, colour_bytes = 256;

}  // namespace

void Stacks::allocate() {
    void* memory =
        mmap(nullptr, count * stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    stacks_.reserve(count);
    for (std::size_t i = 0; i < count; i++) {
        std::byte* guard = static_cast<std::byte*>(memory) + i * stride;
        mprotect(guard, page, PROT_NONE);
        const std::size_t colour = (i + i / 32) % colours * colour_bytes;
        stacks_.push_back({guard + page, guard + stride - colour});
    }
    give_back_all();
}

Stack* Stacks::take(bool checked) {
    if (stacks_.empty()) allocate();
    Stack* stack = free_.back();
    free_.pop_back();
    addresses::allow(stack->bottom, stack->bytes());  // what ran here before has not returned
    if (checked) races::forget_pages(stack->bottom, usable);
    return stack;
}

void Stacks::give_back_all() {
    free_.clear();
    for (std::size_t i = stacks_.size(); i-- > 0;) free_.push_back(&stacks_[i]);
}

}  // namespace pycv::simt
