// The machine that a module's kernels run on. Implemented once a machine, csrc/cpu/backend.cpp and csrc/cuda/backend.cpp;
// a Python module (_core, _simt, _cuda) is the program and the bindings linked with one of them.
#pragma once

#include <cstddef>

#include "program/plan.h"

namespace tilefuse::backend {

const char* name();       // "cpu", "simt" or "cuda"
bool uses_host_memory();  // whether kernels take any pointer of the host's; else only memory from `allocate`

void* allocate(size_t bytes);  // not initialised, 64-byte aligned; throws std::bad_alloc
void release(void* memory) noexcept;
bool owns(const void* pointer);  // whether kernels may use it: always true where the host's memory will do
void copy_in(void* to, const void* from_host, size_t bytes);   // done when it returns
void copy_out(void* to_host, const void* from, size_t bytes);  // after everything queued before

// One kernel by itself; done when it returns.
void run(const program::Args& args);

}  // namespace tilefuse::backend
