// Barriers and memory.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "program/plan.h"

namespace tilefuse::program {
namespace {

// Between two stages without a barrier a member may be ahead of another. That is safe where both touch only the same
// member's rows of what one of them writes.
bool conflict(const Use& a, const Use& b) {
    return a.buffer == b.buffer && (a.writes || b.writes) && !(a.rows > 0 && a.rows == b.rows);
}

void place_barriers(Plan& plan) {
    std::vector<const Use*> since_barrier;
    for (Stage& stage : plan.stages) {
        stage.barrier = false;
        for (const Use& use : stage.uses)
            for (const Use* earlier : since_barrier) stage.barrier |= conflict(*earlier, use);
        if (stage.barrier) since_barrier.clear();
        for (const Use& use : stage.uses) since_barrier.push_back(&use);
    }
}

// Buffers that are never alive in the same phase may share memory: the largest first, each at the lowest offset that
// is free all through its life.
void place_buffers(Plan& plan) {
    int phase = 0;
    for (const Stage& stage : plan.stages) {
        phase += stage.barrier;
        for (const Use& use : stage.uses) {
            Buffer& b = plan.buffers[static_cast<size_t>(use.buffer)];
            if (b.first < 0) b.first = phase;
            b.last = phase;
        }
    }
    std::vector<Buffer*> waiting, placed;
    for (Buffer& b : plan.buffers)
        if (b.in_arena && b.first >= 0) waiting.push_back(&b);
    std::stable_sort(waiting.begin(), waiting.end(), [](const Buffer* a, const Buffer* b) { return a->bytes > b->bytes; });
    constexpr int64_t alignment = 64;
    plan.arena_bytes = plan.unshared_bytes = 0;
    for (Buffer* b : waiting) {
        const int64_t size = (b->bytes + alignment - 1) / alignment * alignment;
        b->offset = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (const Buffer* other : placed) {
                const bool both_alive = b->first <= other->last && other->first <= b->last;
                const int64_t other_end = other->offset + (other->bytes + alignment - 1) / alignment * alignment;
                if (both_alive && b->offset < other_end && other->offset < b->offset + size) {
                    b->offset = other_end;
                    moved = true;
                }
            }
        }
        placed.push_back(b);
        plan.arena_bytes = std::max(plan.arena_bytes, b->offset + size);
        plan.unshared_bytes += size;
    }
}

void allocate(Plan& plan) {
    constexpr size_t huge_page = size_t{2} << 20;
    const size_t bytes = static_cast<size_t>(std::max<int64_t>(64, plan.arena_bytes));
    const size_t alignment = bytes >= huge_page ? huge_page : 64;
    const size_t size = (bytes + alignment - 1) / alignment * alignment;
    char* memory = static_cast<char*>(std::aligned_alloc(alignment, size));
    if (memory == nullptr) throw std::bad_alloc();
    if (size >= huge_page) madvise(memory, size, MADV_HUGEPAGE);
    plan.arena = {memory, std::free};
    for (const Stage& stage : plan.stages) {
        for (const Use& use : stage.uses) {
            const Buffer& b = plan.buffers[static_cast<size_t>(use.buffer)];
            if (b.in_arena) use.set(memory + b.offset);
            for (int input = 0; input < input_count; ++input)
                if (plan.inputs[input] == use.buffer) {
                    plan.input_uses[input].push_back(&use);
                    if (b.in_arena) plan.bound[input] = memory + b.offset;
                }
        }
    }
}

}  // namespace

void Plan::bind(Input input, const void* address) {
    if (bound[input] == address) return;
    bound[input] = address;
    for (const Use* use : input_uses[input]) use->set(const_cast<void*>(address));
}

void place(Plan& plan) {
    place_barriers(plan);
    place_buffers(plan);
    allocate(plan);
}

}  // namespace tilefuse::program
