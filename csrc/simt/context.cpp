#include "context.h"

namespace pycv::simt {

#if defined(__x86_64__)

asm(R"(
.text
.globl pycv_simt_switch
.hidden pycv_simt_switch
.type pycv_simt_switch, @function
pycv_simt_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size pycv_simt_switch, . - pycv_simt_switch
)");

Context new_context(std::byte* top, void (*entry)()) {
    constexpr int registers = 6;
    void** slot = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t{15});
    *--slot = nullptr;  // the return address of entry, which has the stack pointer as a call leaves it
    *--slot = reinterpret_cast<void*>(entry);
    for (int i = 0; i < registers; i++) *--slot = nullptr;
    return slot;
}

#elif defined(__aarch64__)

asm(R"(
.text
.globl pycv_simt_switch
.hidden pycv_simt_switch
.type pycv_simt_switch, %function
pycv_simt_switch:
    stp x19, x20, [sp, #-160]!
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x19, x20, [sp], #160
    ret
.size pycv_simt_switch, . - pycv_simt_switch
)");

Context new_context(std::byte* top, void (*entry)()) {
    constexpr int registers = 20, link = 11;  // link: x30, where the switch returns to
    void** slot = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t{15}) - registers;
    for (int i = 0; i < registers; i++) slot[i] = nullptr;
    slot[link] = reinterpret_cast<void*>(entry);
    return slot;
}

#else
#error "host execution has no context switch for this machine"
#endif

}  // namespace pycv::simt
