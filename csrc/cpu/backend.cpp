// The CPU as the machine that a module's kernels run on.
#include "program/backend.h"

#include <cstring>
#include <new>

#include "cpu/kernels.h"

namespace tilefuse::backend {
namespace {

constexpr std::align_val_t alignment{64};

}  // namespace

const char* name() { return "cpu"; }
bool uses_host_memory() { return true; }

void* allocate(size_t bytes) { return ::operator new(bytes, alignment); }
void release(void* memory) noexcept { ::operator delete(memory, alignment); }
bool owns(const void*) { return true; }
void copy_in(void* to, const void* from_host, size_t bytes) { std::memcpy(to, from_host, bytes); }
void copy_out(void* to_host, const void* from, size_t bytes) { std::memcpy(to_host, from, bytes); }

void run(const program::Args& args) {
    std::visit([](const auto& a) { tilefuse::run(a); }, args);
}

}  // namespace tilefuse::backend
