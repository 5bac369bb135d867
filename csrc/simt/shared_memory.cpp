#include "shared_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "sanitizer.h"

namespace pycv::simt {
namespace {

constexpr std::byte poison{0xff};
constexpr std::byte canary{0xcd};

void fill(std::span<std::byte> bytes, std::byte value) {
    std::memset(bytes.data(), static_cast<int>(value), bytes.size());
}

bool all_equal(std::span<const std::byte> bytes, std::byte value) {
    return std::all_of(bytes.begin(), bytes.end(), [=](std::byte byte) { return byte == value; });
}

}  // namespace

void SharedMemory::begin_launch(std::span<const std::span<std::byte>> variables, std::size_t dynamic_bytes) {
    if (memory_ == nullptr) {
        void* memory = mmap(nullptr, sizeof(Memory), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        memory_ = static_cast<Memory*>(memory);
    }
    variables_ = variables;
    dynamic_bytes_ = dynamic_bytes;
    addresses::forbid(memory_, sizeof(Memory));
    addresses::allow(memory_->dynamic, dynamic_bytes);
    addresses::allow(memory_->seen_by_copies, dynamic_bytes);
}

void SharedMemory::begin_block(bool checked) {
    const races::Unseen unseen;
    if (checked && dynamic_bytes_ > 0) races::forget_pages(memory_, sizeof(Memory));
    fill({memory_->dynamic, dynamic_bytes_}, poison);
    fill({memory_->seen_by_copies, dynamic_bytes_}, poison);
    if (!addresses::checked) {
        fill(lower_canary(), canary);
        fill(upper_canary(), canary);
    }
    for (const auto variable : variables_) {
        if (checked) races::forget_variable(variable.data(), variable.size());
        fill(variable, poison);
    }
}

bool SharedMemory::intact() const {
    return addresses::checked || (all_equal(lower_canary(), canary) && all_equal(upper_canary(), canary));
}

bool SharedMemory::dynamic_contains(const void* address, std::size_t bytes) const {
    const auto* begin = static_cast<const std::byte*>(address);
    return begin >= memory_->dynamic && begin + bytes <= memory_->dynamic + dynamic_bytes_;
}

void SharedMemory::show_to_copies() const {
    const races::Unseen unseen;
    std::memcpy(memory_->seen_by_copies, memory_->dynamic, dynamic_bytes_);
}

bool SharedMemory::contains(const void* address, std::size_t bytes) const {
    const auto* begin = static_cast<const std::byte*>(address);
    const auto inside = [=](std::span<const std::byte> memory) {
        return begin >= memory.data() && begin + bytes <= memory.data() + memory.size();
    };
    return inside({memory_->dynamic, dynamic_bytes_}) || std::any_of(variables_.begin(), variables_.end(), inside);
}

}  // namespace pycv::simt
