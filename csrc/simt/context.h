// Switches from one stack to another: about a nanosecond, where ucontext makes a system call.
//
// A context is the stack pointer of a suspended stack, which holds the registers that calls preserve.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pycv::simt {

using Context = void*;

// Suspends the running stack, saves its context in *from and goes on with `to`.
extern "C" __attribute__((visibility("hidden"))) void pycv_simt_switch(Context* from, Context to);

// A context that begins with entry(), which must not return, on the stack that ends at `top`.
Context new_context(std::byte* top, void (*entry)());

}  // namespace pycv::simt
