// Stacks for fibers, each between pages that may not be touched, reused last in, first out.
//
// The tops of neighbouring stacks lie in different cache sets: threads run in turns at the same depth, and equal
// distances would let them all fight for one set.
#pragma once

#include <cstddef>
#include <vector>

namespace pycv::simt {

struct Stack {
    std::byte *bottom, *top;
    std::size_t bytes() const { return static_cast<std::size_t>(top - bottom); }
};

class Stacks {
public:
    // In the race check, nothing that ran here before is known of one to be `checked`.
    Stack* take(bool checked);
    void give_back(Stack* stack) { free_.push_back(stack); }
    // All of them, whatever ran on them.
    void give_back_all();

private:
    void allocate();

    std::vector<Stack> stacks_;
    std::vector<Stack*> free_;
};

}  // namespace pycv::simt
