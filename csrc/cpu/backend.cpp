// The CPU as the machine that a module's kernels run on.
#include "program/backend.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "cpu/kernels.h"

namespace tilefuse::backend {

const char* name() { return "cpu"; }
bool uses_host_memory() { return true; }

void* allocate(size_t bytes) {
    constexpr size_t huge_page = size_t{2} << 20;
    const size_t alignment = bytes >= huge_page ? huge_page : 64;
    const size_t size = (bytes + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, size);
    if (memory == nullptr && size > 0) throw std::bad_alloc();
    if (size >= huge_page) madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}
void* allocate_visible(size_t bytes) { return allocate(bytes); }
void release(void* memory) noexcept { std::free(memory); }
bool owns(const void*) { return true; }
void copy_in(void* to, const void* from_host, size_t bytes) { std::memcpy(to, from_host, bytes); }
void copy_out(void* to_host, const void* from, size_t bytes) { std::memcpy(to_host, from, bytes); }

void run(const program::Args& args) {
    std::visit([](const auto& a) { tilefuse::run(a); }, args);
}

}  // namespace tilefuse::backend
