// The shared memory of the block that runs: one dynamic piece, and the kernel's __shared__ variables.
//
// Every block finds it poisoned: what it reads before it has written is NaN in every floating-point type. Around the
// dynamic piece lie canaries; around the variables, which lie where the linker puts them, none. AddressSanitizer guards
// both kinds at every access.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace pycv::simt {

class SharedMemory {
public:
    static constexpr std::size_t max_static_bytes = 48 * 1024;
    static constexpr std::size_t max_bytes = 227 * 1024;  // of both kinds

    // For a kernel with these variables and so many bytes of dynamic shared memory.
    void begin_launch(std::span<const std::span<std::byte>> variables, std::size_t dynamic_bytes);
    // In the race check, a block that is `checked` knows nothing of what earlier ones did there.
    void begin_block(bool checked);
    // Whether nobody has written around the dynamic shared memory.
    bool intact() const;

    std::byte* dynamic() const { return memory_->dynamic; }
    std::size_t dynamic_bytes() const { return dynamic_bytes_; }
    bool contains(const void* address, std::size_t bytes) const;
    bool dynamic_contains(const void* address, std::size_t bytes) const;

    // Dynamic shared memory as asynchronous copies and products see it: threads' writes not before show_to_copies().
    std::byte* seen_by_copies(const std::byte* dynamic_address) const {
        return memory_->seen_by_copies + (dynamic_address - memory_->dynamic);
    }
    void show_to_copies() const;

private:
    static constexpr std::size_t alignment = 1024;
    static constexpr std::size_t canary_bytes = 256;

    struct Memory {
        std::byte before[alignment];
        std::byte dynamic[max_bytes + alignment];
        std::byte seen_by_copies[max_bytes];
    };

    std::span<std::byte> lower_canary() const { return {memory_->dynamic - canary_bytes, canary_bytes}; }
    std::span<std::byte> upper_canary() const { return {memory_->dynamic + dynamic_bytes_, canary_bytes}; }

    Memory* memory_ = nullptr;  // mapped once, for the life of the program
    std::span<const std::span<std::byte>> variables_;
    std::size_t dynamic_bytes_ = 0;
};

}  // namespace pycv::simt
