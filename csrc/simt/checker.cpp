// The checked build: kernels are compiled with -fsanitize=thread, and the hooks that the compiler then calls before
// every load and store are these, not libtsan's. They keep, beside each word of device and shared memory, who wrote and
// who read it last, and report what breaks a rule.
//
// What is ordered: everything before a block barrier with everything after it, for the threads of the block; the same
// for a warp barrier and the lanes of its mask; and one launch with the next. Each thread has a clock, which a barrier
// moves on; an access is stamped with it. (FastTrack: Flanagan and Freund, "Efficient and precise dynamic race
// detection", PLDI 2009, with barriers in place of locks.)
#include "simt/checker.h"

#if defined(TILEFUSE_SIMT_CHECKED)

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "simt/counter.h"

namespace simt {

uint3 thread_index() { return place->thread; }
uint3 block_index() { return place->block->block; }
dim3 block_size() { return place->block->block_size; }
dim3 grid_size() { return place->block->grid_size; }

namespace {

// ---- stamps and clocks ----------------------------------------------------------------------------------------------

struct Stamp {
    uint32_t block = 0;  // serial number; 0: nobody
    uint16_t thread = 0;
    Access access = Access::read;
    uint32_t clock = 0;
    uint32_t site = 0;
};

struct Clocks {
    uint32_t top = 0;   // the highest that any thread ever had
    uint32_t base = 0;  // every thread's at the last block barrier
    uint32_t of[max_threads];
    // [lane][other]: what other's clock was when it last met the lane, directly or through others
    uint32_t known[max_warps][warp_size][warp_size];
} clocks;

// Whether what was stamped happened before what the thread does now. Blocks before `since` have done with this memory.
bool is_ordered(const Stamp& stamp, const Thread& me, uint32_t since) {
    if (stamp.block < since) return true;
    if (stamp.block != static_cast<uint32_t>(block.serial)) return false;
    if (stamp.clock < clocks.base || stamp.thread == me.index) return true;
    return stamp.thread / warp_size == me.warp() &&
           stamp.clock < clocks.known[me.warp()][me.lane()][stamp.thread % warp_size];
}

Stamp stamp_of(const Thread& me, Access access, uint32_t site) {
    return {static_cast<uint32_t>(block.serial), static_cast<uint16_t>(me.index), access, clocks.of[me.index], site};
}

// ---- shadow memory --------------------------------------------------------------------------------------------------

// One for each word of 4 bytes, or, where someone has accessed a part of the word, one for each of its bytes.
struct Cell {
    Stamp write;
    // The last readers: of several concurrent ones two of different warps, where there are such. A writer races with
    // one of these if it races with any.
    Stamp reads[2];
    bool split = false;
};

enum Content : uint8_t { nothing, value, copy_under_way };

struct Shadow {
    char* begin;       // of the memory, a multiple of 4
    size_t bytes;      // of it
    Cell* words;       // all zero at first
    Cell* single;      // of split words
    uint8_t* content;  // a Content for each byte

    // Null: no memory.
    static Shadow* make(char* begin, size_t bytes) {
        const size_t whole = (bytes + 3) / 4 * 4;
        const size_t space = sizeof(Shadow) + whole / 4 * sizeof(Cell) + whole * sizeof(Cell) + whole;
        // Address space only: a page becomes memory when it is first touched.
        void* p = mmap(nullptr, space, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return nullptr;
        auto* shadow = static_cast<Shadow*>(p);
        auto* words = reinterpret_cast<Cell*>(shadow + 1);
        *shadow = {begin, bytes, words, words + whole / 4, reinterpret_cast<uint8_t*>(words + whole / 4 + whole)};
        return shadow;
    }
    static void drop(Shadow* shadow) {
        const size_t whole = (shadow->bytes + 3) / 4 * 4;
        munmap(shadow, sizeof(Shadow) + whole / 4 * sizeof(Cell) + whole * sizeof(Cell) + whole);
    }

    // The cells of [offset, offset + n).
    template <class F> void for_each_cell(size_t offset, size_t n, F f) {
        for (const size_t end = offset + n; offset < end;) {
            Cell& word = words[offset / 4];
            const size_t next = std::min(end, offset / 4 * 4 + 4);
            if (!word.split && next - offset == 4) {
                f(word);
            } else {
                Cell* bytes_of = single + offset / 4 * 4;
                if (!word.split) {
                    for (int i = 0; i < 4; i++) bytes_of[i] = word;
                    word.split = true;
                }
                for (size_t i = offset; i < next; i++) f(bytes_of[i % 4]);
            }
            offset = next;
        }
    }
};

Shadow* shared_shadow() {
    static Shadow* const shadow = Shadow::make(shared_begin(), shared_space);
    return shadow;
}

Shadow* shadow_of(Allocation& allocation) { return static_cast<Shadow*>(allocation.shadow); }

// The allocation that an address lies in, by its page: no two share one.
struct Recent {
    uintptr_t page;
    Allocation* allocation;
} recent[64];

Allocation* find_allocation(const void* p) {
    const uintptr_t page = reinterpret_cast<uintptr_t>(p) / 4096;
    Recent& r = recent[page % 64];
    if (r.page != page) {
        Allocation* found = allocation_at(p);
        if (!found) return nullptr;
        r = {page, found};
    }
    return r.allocation;
}

// ---- what is reported -----------------------------------------------------------------------------------------------

const char* verb(Access access) {
    return access == Access::read ? "reads" : access == Access::write ? "writes" : "atomically changes";
}
const char* past_verb(Access access) {
    return access == Access::read ? "has read" : access == Access::write ? "has written" : "has atomically changed";
}

struct Accessing {  // what a thread is about to do
    Thread& me;
    const void* p;
    size_t bytes;
    Access access;
    const void* code;

    Report report_as(const char* kind) const { return {.kind = kind, .thread = me.index, .code = code}; }
};

// Where the address is, in words.
struct Words {
    char text[128];
};
Words place_of(const void* p) {
    Words words;
    const auto* at = static_cast<const char*>(p);
    const char *begin = nullptr, *what = nullptr;
    size_t bytes = 0;
    if (is_shared(p)) {
        if (const SharedArray* array = shared_array_at(p)) {
            begin = array->begin, bytes = array->bytes;
            what = array->name ? array->name : "dynamic shared memory";
        }
    } else if (const Allocation* a = allocation_at(p)) {
        begin = a->begin, bytes = a->bytes, what = "an allocation";
    }
    const auto size = static_cast<std::ptrdiff_t>(bytes);
    if (!begin) {
        std::snprintf(words.text, sizeof words.text, p ? "address %p" : "the null pointer", p);
    } else if (at < begin) {
        std::snprintf(words.text, sizeof words.text, "%td bytes before %s of %zu bytes", begin - at, what, bytes);
    } else if (at - begin >= size) {
        std::snprintf(words.text, sizeof words.text, "%td bytes past the end of %s of %zu bytes", at - begin - size,
                      what, bytes);
    } else {
        std::snprintf(words.text, sizeof words.text, "byte %td of %s of %zu bytes", at - begin, what, bytes);
    }
    return words;
}

[[noreturn]] void fail_plainly(const Accessing& a, const char* kind, const char* why) {
    fail(a.report_as(kind), "%s %zu bytes at %s%s", verb(a.access), a.bytes, place_of(a.p).text, why);
}

[[noreturn]] void fail_race(const Accessing& a, const Stamp& other) {
    Report r = a.report_as("race");
    r.other_code = site_code(other.site);
    const uint3 thread = block.thread[other.thread].thread;
    if (other.block == static_cast<uint32_t>(block.serial)) {
        fail(r, "%s %zu bytes at %s, which thread (%u, %u, %u) %s, with no barrier between,", verb(a.access), a.bytes,
             place_of(a.p).text, thread.x, thread.y, thread.z, past_verb(other.access));
    }
    const uint3 b = block_of(block.serial - (static_cast<uint32_t>(block.serial) - other.block));
    fail(r, "%s %zu bytes at %s, which thread (%u, %u, %u) of block (%u, %u, %u) %s in the same launch", verb(a.access),
         a.bytes, place_of(a.p).text, thread.x, thread.y, thread.z, b.x, b.y, b.z, past_verb(other.access));
}

// ---- the rules ------------------------------------------------------------------------------------------------------

void note_read(Cell& cell, const Thread& me, const Stamp& stamp, uint32_t since) {
    for (Stamp& read : cell.reads) {
        if (is_ordered(read, me, since)) {  // whoever races with that read races with this one
            read = stamp;
            return;
        }
    }
    for (Stamp& read : cell.reads) {
        if (read.block == stamp.block && read.thread / warp_size == stamp.thread / warp_size) {
            read = stamp;
            return;
        }
    }
}

void check_cell(Cell& cell, const Accessing& a, uint32_t site, uint32_t since) {
    const bool both_atomic = a.access == Access::atomic && cell.write.access == Access::atomic;
    if (!both_atomic && !is_ordered(cell.write, a.me, since)) fail_race(a, cell.write);
    const Stamp stamp = stamp_of(a.me, a.access, site);
    if (a.access == Access::read) return note_read(cell, a.me, stamp, since);
    for (const Stamp& read : cell.reads) {
        if (!is_ordered(read, a.me, since)) fail_race(a, read);
    }
    if (a.access == Access::atomic) {
        // Other threads' atomics may still race with what was done before this one.
        if (cell.write.access == Access::write && cell.write.block) note_read(cell, a.me, cell.write, since);
    } else {
        cell.reads[0] = cell.reads[1] = {};
    }
    cell.write = stamp;
}

// Device memory may also have been written by the host, unseen: then it is not as it was at first.
bool looks_unwritten(const Shadow& shadow, size_t offset) {
    const size_t word = offset / 4 * 4;
    for (size_t i = word; i < word + 4; i++) {
        if (shadow.content[i] == nothing && first_written(shadow.begin + i, 1)) return false;
    }
    return true;
}

void check_content(Shadow& shadow, size_t offset, const Accessing& a, bool in_shared) {
    uint8_t* content = shadow.content + offset;
    for (size_t i = 0; i < a.bytes; i++) {
        if (content[i] == value) continue;
        if (content[i] == copy_under_way) {
            fail_plainly(a, "pending copy", ", to which an asynchronous copy is under way");
        }
        if (a.access != Access::write && (in_shared || looks_unwritten(shadow, offset + i))) {
            fail_plainly(a, "uninitialised", ", which nobody has written");
        }
        if (a.access == Access::write) break;
    }
    if (a.access == Access::write) {
        for (size_t i = 0; i < a.bytes; i++) {
            if (content[i] == copy_under_way) {
                fail_plainly(a, "pending copy", ", to which an asynchronous copy is under way");
            }
        }
    }
    std::memset(content, value, a.bytes);
}

// Constants of the program, which device code may read: they are in segments that nobody can write.
bool is_constant(const void* p) {
    struct Span {
        uintptr_t begin, bytes;
    };
    static std::vector<Span> spans;
    const auto inside = [&] {
        return std::any_of(spans.begin(), spans.end(),
                           [&](Span s) { return reinterpret_cast<uintptr_t>(p) - s.begin < s.bytes; });
    };
    if (inside()) return true;
    spans.clear();
    const auto add = [](dl_phdr_info* module, size_t, void*) {
        for (int i = 0; i < module->dlpi_phnum; i++) {
            const ElfW(Phdr)& h = module->dlpi_phdr[i];
            if ((h.p_type == PT_LOAD && !(h.p_flags & PF_W)) || h.p_type == PT_GNU_RELRO) {
                spans.push_back({module->dlpi_addr + h.p_vaddr, h.p_memsz});
            }
        }
        return 0;
    };
    dl_iterate_phdr(add, nullptr);
    return inside();
}

// The shadow of what is accessed, once it is known to be there; null for what needs none.
Shadow* checked_shadow(const Accessing& a) {
    const auto* at = static_cast<const char*>(a.p);
    if (is_shared(a.p)) {
        const SharedArray* array = shared_array_at(a.p);
        if (!array || at + a.bytes > array->begin + array->bytes) fail_plainly(a, "out of bounds", "");
        return shared_shadow();
    }
    if (Allocation* allocation = find_allocation(a.p)) {
        if (at < allocation->begin || at + a.bytes > allocation->begin + allocation->bytes) {
            fail_plainly(a, "out of bounds", "");
        }
        if (allocation->freed) fail_plainly(a, "use after free", ", which has been freed");
        return shadow_of(*allocation);
    }
    if (a.access == Access::read && is_constant(a.p)) return nullptr;
    if (is_stack(a.p)) fail_plainly(a, "out of bounds", ", which is another thread's local memory");
    fail_plainly(a, "host pointer", ", which is no memory of the device");
}

void check(const Accessing& a) {
    Shadow* shadow = checked_shadow(a);
    if (!shadow) return;
    const bool in_shared = shadow == shared_shadow();
    const auto offset = static_cast<size_t>(static_cast<const char*>(a.p) - shadow->begin);
    const uint32_t site = count_access(a.me, a.p, a.bytes, in_shared, a.access != Access::read, a.code);
    check_content(*shadow, offset, a, in_shared);
    const auto since = static_cast<uint32_t>(in_shared ? block.serial : block.first_serial);
    shadow->for_each_cell(offset, a.bytes, [&](Cell& cell) { check_cell(cell, a, site, since); });
}

// Every hook comes here. Local memory is the thread's own.
[[gnu::always_inline]] inline void seen(const void* p, size_t bytes, Access access, const void* code, bool aligned) {
    if (!place) return;
    Thread& me = *block.running;
    if (static_cast<size_t>(static_cast<const char*>(p) - me.fibre.bottom) < stack_bytes) return;
    const Accessing a{me, p, bytes, access, code};
    if (aligned && reinterpret_cast<uintptr_t>(p) % bytes != 0) {
        fail_plainly(a, "misaligned", ", which is not a multiple of the access's size");
    }
    check(a);
}

}  // namespace

void see(const void* p, size_t bytes, Access access) { seen(p, bytes, access, __builtin_return_address(0), false); }

void check_access(Thread& thread, const void* p, size_t bytes, Access access, const void* code) {
    check({thread, p, bytes, access, code});
}

// ---- what block.cpp, warp.cpp, copies.cpp and memory.cpp tell -------------------------------------------------------

void start_checking(const Launch& launch) {
    if (clocks.top > 1u << 31) clocks = {};
    start_counting(launch);
}

void start_checking_block(size_t shared_used) {
    std::memset(shared_shadow()->content, nothing, shared_used);
    block_has_met();
}

void finish_checking() { finish_counting(); }

void block_has_met() {
    clocks.base = ++clocks.top;
    std::fill_n(clocks.of, block.threads, clocks.base);
    end_warp_accesses();
}

void warp_has_met(unsigned warp, unsigned lanes) {
    auto& known = clocks.known[warp];
    uint32_t* of = clocks.of + warp * warp_size;
    uint32_t merged[warp_size] = {};
    for (unsigned i = 0; i < warp_size; i++) {
        if (!(lanes >> i & 1u)) continue;
        for (unsigned j = 0; j < warp_size; j++) merged[j] = std::max(merged[j], known[i][j]);
    }
    for (unsigned i = 0; i < warp_size; i++) {
        if (!(lanes >> i & 1u)) continue;
        merged[i] = ++of[i];
        clocks.top = std::max(clocks.top, of[i]);
    }
    for (unsigned i = 0; i < warp_size; i++) {
        if (lanes >> i & 1u) std::memcpy(known[i], merged, sizeof merged);
    }
}

void check_copy_start(Thread& me, const Copy& copy) {
    if (copy.bytes > 0) check({me, copy.from, copy.bytes, Access::read, copy.code});
    check({me, copy.to, 16, Access::write, copy.code});
    Shadow* shadow = shared_shadow();
    std::memset(shadow->content + (static_cast<char*>(copy.to) - shadow->begin), copy_under_way, 16);
}

void check_copy_end(Thread& me, const Copy& copy) {
    Shadow* shadow = shared_shadow();
    const auto offset = static_cast<size_t>(static_cast<char*>(copy.to) - shadow->begin);
    std::memset(shadow->content + offset, value, 16);
    shadow->for_each_cell(offset, 16, [&](Cell& cell) { cell.write.clock = clocks.of[me.index]; });
}

void mark_written(void* p, size_t bytes) {
    Allocation* allocation = allocation_at(p);
    if (!allocation) return;
    Shadow* shadow = shadow_of(*allocation);
    std::memset(shadow->content + (static_cast<char*>(p) - shadow->begin), value, bytes);
}

bool make_shadow(Allocation& allocation) {
    allocation.shadow = Shadow::make(allocation.begin, allocation.bytes);
    return allocation.shadow;
}

void drop_shadow(Allocation& allocation) {
    std::fill(std::begin(recent), std::end(recent), Recent{});
    Shadow::drop(shadow_of(allocation));
}

}  // namespace simt

// ---- the hooks ------------------------------------------------------------------------------------------------------

using simt::Access;
using simt::seen;

#define TILEFUSE_SIMT_HOOKS(n)                                                                                         \
    void __tsan_read##n(void* p) { seen(p, n, Access::read, __builtin_return_address(0), true); }                      \
    void __tsan_write##n(void* p) { seen(p, n, Access::write, __builtin_return_address(0), true); }                    \
    void __tsan_unaligned_read##n(void* p) { seen(p, n, Access::read, __builtin_return_address(0), false); }           \
    void __tsan_unaligned_write##n(void* p) { seen(p, n, Access::write, __builtin_return_address(0), false); }         \
    void __tsan_volatile_read##n(void* p) { seen(p, n, Access::read, __builtin_return_address(0), true); }             \
    void __tsan_volatile_write##n(void* p) { seen(p, n, Access::write, __builtin_return_address(0), true); }

// An aggregate: a GPU moves it in pieces of up to 16 bytes.
#define TILEFUSE_SIMT_RANGE(name, access)                                                                              \
    void name(void* p, size_t bytes) {                                                                                 \
        for (auto* at = static_cast<char*>(p); bytes;) {                                                               \
            const size_t n = std::min(bytes, 16 - reinterpret_cast<uintptr_t>(at) % 16);                               \
            seen(at, n, access, __builtin_return_address(0), false);                                                   \
            at += n;                                                                                                   \
            bytes -= n;                                                                                                \
        }                                                                                                              \
    }

// The host's own atomics (guards of static variables, shared pointers), of which these take the place: device code has
// other ones.
#define TILEFUSE_SIMT_ATOMICS(bits)                                                                                    \
    using Atomic##bits = volatile uint##bits##_t;                                                                      \
    using Value##bits = uint##bits##_t;                                                                                \
    Value##bits __tsan_atomic##bits##_load(Atomic##bits* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }      \
    void __tsan_atomic##bits##_store(Atomic##bits* p, Value##bits x, int) {                                            \
        __atomic_store_n(p, x, __ATOMIC_SEQ_CST);                                                                      \
    }                                                                                                                  \
    TILEFUSE_SIMT_ATOMIC(bits, exchange, __atomic_exchange_n)                                                          \
    TILEFUSE_SIMT_ATOMIC(bits, fetch_add, __atomic_fetch_add)                                                          \
    TILEFUSE_SIMT_ATOMIC(bits, fetch_sub, __atomic_fetch_sub)                                                          \
    TILEFUSE_SIMT_ATOMIC(bits, fetch_and, __atomic_fetch_and)                                                          \
    TILEFUSE_SIMT_ATOMIC(bits, fetch_or, __atomic_fetch_or)                                                            \
    TILEFUSE_SIMT_ATOMIC(bits, fetch_xor, __atomic_fetch_xor)                                                          \
    TILEFUSE_SIMT_COMPARE(bits, compare_exchange_strong)                                                               \
    TILEFUSE_SIMT_COMPARE(bits, compare_exchange_weak)
#define TILEFUSE_SIMT_ATOMIC(bits, name, builtin)                                                                      \
    Value##bits __tsan_atomic##bits##_##name(Atomic##bits* p, Value##bits x, int) {                                    \
        return builtin(p, x, __ATOMIC_SEQ_CST);                                                                        \
    }
#define TILEFUSE_SIMT_COMPARE(bits, name)                                                                              \
    int __tsan_atomic##bits##_##name(Atomic##bits* p, Value##bits* expected, Value##bits x, int, int) {                \
        return __atomic_compare_exchange_n(p, expected, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                 \
    }

extern "C" {
TILEFUSE_SIMT_HOOKS(1)
TILEFUSE_SIMT_HOOKS(2)
TILEFUSE_SIMT_HOOKS(4)
TILEFUSE_SIMT_HOOKS(8)
TILEFUSE_SIMT_HOOKS(16)
TILEFUSE_SIMT_RANGE(__tsan_read_range, Access::read)
TILEFUSE_SIMT_RANGE(__tsan_write_range, Access::write)
TILEFUSE_SIMT_ATOMICS(8)
TILEFUSE_SIMT_ATOMICS(16)
TILEFUSE_SIMT_ATOMICS(32)
TILEFUSE_SIMT_ATOMICS(64)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}

#endif
