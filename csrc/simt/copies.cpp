// Asynchronous copies. They happen when the thread waits for them, as late as they may, so that a kernel that reads too
// early reads what was there before.
#include <cstring>

#include "simt/checker.h"
#include "simt/executor.h"

namespace simt {

namespace {

constexpr size_t copy_bytes = 16;

void perform(Thread& thread, const Copy& copy) {
    std::memcpy(copy.to, copy.from, copy.bytes);
    std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy_bytes - copy.bytes);
    if constexpr (checked) check_copy_end(thread, copy);
}

void perform_first(Thread& thread, size_t count) {
    for (size_t i = 0; i < count; i++) perform(thread, thread.copies[i]);
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(count));
}

}  // namespace

void copy_async(void* to, const void* from, int bytes, Where where) {
    Thread& me = *block.running;
    if (reinterpret_cast<uintptr_t>(to) % copy_bytes != 0) misaligned(to, copy_bytes, where);
    if (bytes != 0 && reinterpret_cast<uintptr_t>(from) % copy_bytes != 0) misaligned(from, copy_bytes, where);
    if (!is_shared(to)) {
        fail({.kind = "out of bounds", .thread = me.index, .where = where},
             "copies asynchronously to %p, which is not in shared memory", to);
    }
    if (bytes < 0 || bytes > static_cast<int>(copy_bytes)) {
        fail({.kind = "out of bounds", .thread = me.index, .where = where}, "copies %d bytes asynchronously, of 16", bytes);
    }
    const Copy copy{to, from, static_cast<size_t>(bytes), me.groups, __builtin_return_address(0)};
    if constexpr (checked) check_copy_start(me, copy);
    me.copies.push_back(copy);
}

void copy_async_commit() { block.running->groups++; }

void copy_async_wait(int pending) {
    Thread& me = *block.running;
    size_t count = 0;
    while (count < me.copies.size() && static_cast<int>(me.groups - me.copies[count].group) > pending) count++;
    perform_first(me, count);
}

void finish_copies(Thread& thread) { perform_first(thread, thread.copies.size()); }

}  // namespace simt
