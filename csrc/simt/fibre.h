// Fibres: stacks that code runs on, and the switch from one to another.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

#if defined(__x86_64__)
using Context = void*;  // the stack pointer, with the registers that a call preserves pushed above it
#else
using Context = ucontext_t*;
#endif

struct Fibre {
    Context context = nullptr;  // where it goes on; null: not started
    int stack = -1;             // of the pool below,
    char* bottom = nullptr;     // and its lowest address
};

// Leaves the running context, kept in `from`, for `to`.
void switch_context(Context& from, Context to);

// A context that calls `entry`, which never returns, on a stack of the pool.
Fibre new_fibre(void (*entry)());
void release_stack(int stack);  // may be the running one, until the next switch
void release_all_stacks();

constexpr size_t stack_bytes = 128 * 1024;
bool is_stack(const void*);  // whether it points into the pool

}  // namespace simt
