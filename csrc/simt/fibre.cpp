#include "simt/fibre.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

namespace simt {

namespace {

constexpr int max_stacks = 1024;  // a block's threads
constexpr size_t guard_bytes = 64 * 1024;  // a page on every system; an overrun is a fault, not a neighbour's data
constexpr size_t stride = stack_bytes + guard_bytes;

struct Pool {
    char* memory;
    int free[max_stacks], free_count = 0;
    int made = 0;
#if !defined(__x86_64__)
    ucontext_t contexts[max_stacks], host;
#endif

    // Address space only: a page becomes memory when it is first touched.
    Pool() {
        void* p = mmap(nullptr, stride * max_stacks, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) throw std::bad_alloc();
        memory = static_cast<char*>(p);
    }
    char* bottom(int stack) const { return memory + stack * stride + guard_bytes; }
    int take() {
        if (free_count) return free[--free_count];
        if (mprotect(bottom(made), stack_bytes, PROT_READ | PROT_WRITE) != 0) abort();
        return made++;
    }
};

Pool& pool() {
    static Pool the_pool;
    return the_pool;
}

}  // namespace

bool is_stack(const void* p) {
    return reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(pool().memory) < stride * max_stacks;
}

void release_stack(int stack) { pool().free[pool().free_count++] = stack; }

void release_all_stacks() {
    Pool& p = pool();
    p.free_count = 0;
    for (int i = p.made; i-- > 0;) p.free[p.free_count++] = i;
}

#if defined(__x86_64__)

// rdi: where to keep the old stack pointer, rsi: the new one.
asm(R"(
.text
.p2align 4
.type simt_switch, @function
simt_switch:
    .cfi_startproc
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .cfi_endproc
.size simt_switch, .-simt_switch
)");
extern "C" void simt_switch(void** from, void* to);

void switch_context(Context& from, Context to) { simt_switch(&from, to); }

Fibre new_fibre(void (*entry)()) {
    const int stack = pool().take();
    // Stacks start at different offsets in their pages, or all would share the same few sets of the cache.
    char* bottom = pool().bottom(stack);
    char* top = bottom + stack_bytes - 64 - stack % 16 * 256;
    auto* p = reinterpret_cast<void**>(top);
    *--p = nullptr;  // the return address of `entry`; at a function's first instruction rsp is 8 below a multiple of 16
    *--p = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) *--p = nullptr;
    return {p, stack, bottom};
}

#else

void switch_context(Context& from, Context to) {
    static Context running = &pool().host;
    from = running;
    running = to;
    swapcontext(from, to);
}

Fibre new_fibre(void (*entry)()) {
    const int stack = pool().take();
    ucontext_t* context = &pool().contexts[stack];
    getcontext(context);
    context->uc_stack.ss_sp = pool().bottom(stack);
    context->uc_stack.ss_size = stack_bytes;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    return {context, stack, pool().bottom(stack)};
}

#endif

}  // namespace simt
