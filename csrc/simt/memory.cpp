#include "simt/memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>

#include "simt/checker.h"
#include "simt/executor.h"

namespace simt {

namespace {

constexpr size_t page_bytes = 4096;
constexpr size_t device_bytes = size_t{64} << 30;  // what the device says it has

// By the first byte of the left red zone. Allocations share no page.
std::map<uintptr_t, Allocation> allocations;
Usage usage;

constexpr size_t kept_count = 64, kept_bytes = size_t{64} << 20;  // freed allocations that are remembered
std::deque<Allocation*> kept;

void forget(Allocation& allocation) {
    if constexpr (checked) drop_shadow(allocation);
    char* base = allocation.base();
    allocations.erase(reinterpret_cast<uintptr_t>(base));
    std::free(base);
}

void keep_freed(Allocation& allocation) {
    allocation.freed = true;
    kept.push_back(&allocation);
    size_t bytes = 0;
    for (const Allocation* a : kept) bytes += a->bytes;
    while (kept.size() > kept_count || (bytes > kept_bytes && kept.size() > 1)) {
        bytes -= kept.front()->bytes;
        forget(*kept.front());
        kept.pop_front();
    }
}

}  // namespace

namespace {

constexpr size_t pattern_bytes = 1024;
const struct Pattern {
    uint32_t words[pattern_bytes / 4 + 1];
    Pattern() {
        for (uint32_t& word : words) word = unwritten;
    }
    const char* at(const void* p) const {  // the pattern as it is from that address on
        return reinterpret_cast<const char*>(words) + reinterpret_cast<uintptr_t>(p) % 4;
    }
} pattern;

}  // namespace

void fill_unwritten(void* p, size_t bytes) {
    auto* at = static_cast<char*>(p);
    for (size_t n; bytes; at += n, bytes -= n) {
        n = std::min(bytes, pattern_bytes);
        std::memcpy(at, pattern.at(at), n);
    }
}

const char* first_written(const void* p, size_t bytes) {
    const auto* at = static_cast<const char*>(p);
    for (size_t n; bytes; at += n, bytes -= n) {
        n = std::min(bytes, pattern_bytes);
        if (std::memcmp(at, pattern.at(at), n) == 0) continue;
        return std::mismatch(at, at + n, pattern.at(at)).first;
    }
    return nullptr;
}

// ---- device memory --------------------------------------------------------------------------------------------------

Allocation* allocation_at(const void* p) {
    auto next = allocations.upper_bound(reinterpret_cast<uintptr_t>(p));
    if (next == allocations.begin()) return nullptr;
    Allocation& allocation = std::prev(next)->second;
    return static_cast<const char*>(p) < allocation.base() + allocation.whole() ? &allocation : nullptr;
}

void* allocate(size_t bytes) {
    std::lock_guard lock(mutex);
    if (bytes > device_bytes - usage.bytes) return nullptr;
    Allocation allocation{nullptr, bytes};
    const size_t whole = (allocation.whole() + page_bytes - 1) / page_bytes * page_bytes;
    auto* base = static_cast<char*>(std::aligned_alloc(page_bytes, whole));
    if (!base) return nullptr;
    allocation.begin = base + red_zone_bytes;
    if constexpr (checked) {
        if (!make_shadow(allocation)) {
            std::free(base);
            return nullptr;
        }
    }
    fill_unwritten(base, allocation.whole());
    allocations.emplace(reinterpret_cast<uintptr_t>(base), allocation);
    usage.count++;
    usage.bytes += bytes;
    return allocation.begin;
}

bool release(void* p) {
    std::lock_guard lock(mutex);
    Allocation* allocation = allocation_at(p);
    if (!allocation || allocation->freed || allocation->begin != p) return false;
    usage.count--;
    usage.bytes -= allocation->bytes;
    if constexpr (checked) {
        keep_freed(*allocation);
    } else {
        forget(*allocation);
    }
    return true;
}

bool owns(const void* p) {
    std::lock_guard lock(mutex);
    const Allocation* allocation = allocation_at(p);
    const auto* at = static_cast<const char*>(p);
    return allocation && !allocation->freed && at >= allocation->begin && at < allocation->begin + allocation->bytes;
}

Usage live_allocations() {
    std::lock_guard lock(mutex);
    return usage;
}

size_t device_memory() { return device_bytes; }

void check_red_zones(const char* kernel) {
    for (auto& [key, a] : allocations) {
        if (a.freed) continue;
        const char* after = a.begin + a.bytes;
        const char* found = first_written(a.base(), red_zone_bytes);
        if (!found) found = first_written(after, static_cast<size_t>(a.base() + a.whole() - after));
        if (!found) continue;
        const std::ptrdiff_t offset = found - a.begin;
        fill_unwritten(a.base(), red_zone_bytes);  // so that the next launch isn't blamed for it
        fill_unwritten(a.begin + a.bytes, static_cast<size_t>(a.base() + a.whole() - after));
        const std::string where = offset < 0 ? std::to_string(-offset) + " bytes before its beginning"
                                             : std::to_string(offset - static_cast<std::ptrdiff_t>(a.bytes)) +
                                                   " bytes past its end";
        throw Finding("out of bounds", kernel,
                      "it has written outside an allocation of " + std::to_string(a.bytes) + " bytes, " + where);
    }
}

// ---- shared memory --------------------------------------------------------------------------------------------------

namespace {

// Arrays one after the other, each at a multiple of 128 bytes (where bank 0 is) and with a gap after it.
struct SharedMemory {
    alignas(page_bytes) char memory[shared_space];
    SharedArray arrays[256];
    int count;
    size_t used;          // of `memory`
    size_t static_bytes;  // as a GPU counts
} shared;

SharedArray* add_shared(const char* name, size_t bytes) {
    const size_t space = (bytes + gap_bytes + 127) / 128 * 128;
    if (shared.count == 256 || shared.used + space > shared_space) return nullptr;
    SharedArray& array = shared.arrays[shared.count++];
    array = {name, shared.memory + shared.used, bytes};
    shared.used += space;
    fill_unwritten(array.begin, space);
    return &array;
}

}  // namespace

void start_shared(size_t dynamic_bytes) {
    if constexpr (checked) start_checking_block(shared.used);
    shared.count = 0;
    shared.used = gap_bytes;
    shared.static_bytes = 0;
    fill_unwritten(shared.memory, gap_bytes);
    add_shared(nullptr, dynamic_bytes);
}

void* shared_array(SharedSite& site, size_t bytes, size_t alignment, Where where) {
    if (site.block == block.serial) return site.memory;
    shared.static_bytes = (shared.static_bytes + alignment - 1) / alignment * alignment + bytes;
    const SharedArray* array = nullptr;
    const size_t most = most_shared_bytes(block.launch->function);
    if (shared.static_bytes <= max_static_shared && shared.static_bytes + block.launch->shared_bytes <= most) {
        array = add_shared(site.name, bytes);
    }
    if (!array) {
        fail({.kind = "shared memory", .thread = block.running->index, .where = where},
             "with %s a block has %zu bytes of static and %zu of dynamic shared memory; it may have %zu and, together, "
             "%zu (more than 48 KB where cudaFuncSetAttribute has asked for more)",
             site.name, shared.static_bytes, block.launch->shared_bytes, max_static_shared, most);
    }
    site.memory = array->begin;
    site.block = block.serial;
    return site.memory;
}

void* dynamic_shared_memory() { return shared.arrays[0].begin; }

const SharedArray* shared_array_at(const void* p) {
    const auto* at = static_cast<const char*>(p);
    for (int i = shared.count; i-- > 0;) {
        if (at >= shared.arrays[i].begin) {
            return at < shared.memory + shared.used ? &shared.arrays[i] : nullptr;
        }
    }
    return nullptr;
}

bool is_shared(const void* p) {
    return reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(shared.memory) < shared_space;
}

char* shared_begin() { return shared.memory; }

void check_shared() {
    for (int i = -1; i < shared.count; i++) {
        const char* begin = i < 0 ? shared.memory : shared.arrays[i].begin + shared.arrays[i].bytes;
        const char* end = i + 1 < shared.count ? shared.arrays[i + 1].begin : shared.memory + shared.used;
        const char* found = first_written(begin, static_cast<size_t>(end - begin));
        if (!found) continue;
        report.kind = "out of bounds";
        report.thread = whole_block;
        char where[128] = "before its shared memory";
        if (i >= 0) {
            const SharedArray& array = shared.arrays[i];
            std::snprintf(where, sizeof where, "past the end of %s of %zu bytes",
                          array.name ? array.name : "dynamic shared memory", array.bytes);
        }
        const auto [x, y, z] = block.block;
        std::snprintf(report.text, sizeof report.text, "a thread of block (%u, %u, %u) has written %td bytes %s", x, y,
                      z, i < 0 ? end - found : found - begin, where);
        return;
    }
}

}  // namespace simt
