// Barriers and memory.
#include <algorithm>

#include "program/backend.h"

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

}  // namespace

void Plan::lie_at(void* memory) {
    arena = {static_cast<char*>(memory), backend::release};
    for (const Stage& stage : stages) {
        for (const Use& use : stage.uses) {
            const Buffer& b = buffers[static_cast<size_t>(use.buffer)];
            if (b.in_arena) use.set(arena.get() + b.offset);
            for (int input = 0; input < input_count; ++input)
                if (inputs[input] == use.buffer) {
                    input_uses[input].push_back(&use);
                    if (b.in_arena) bound[input] = arena.get() + b.offset;
                }
        }
    }
}

void Plan::bind(Input input, const void* address) {
    if (bound[input] == address) return;
    bound[input] = address;
    for (const Use* use : input_uses[input]) use->set(const_cast<void*>(address));
}

void Plan::gather(const Data& data, const int64_t* order_of) {
    bind(source_x, data.x);
    bind(source_y, data.y);
    bind(source_weight, data.weight);
    bind(order, order_of);
    for (const Input input : {batch_x, batch_y, batch_weight}) {
        const bool given = input != batch_weight || data.weight != nullptr;
        bind(input, given ? place_of(input) : nullptr);
        stages[static_cast<size_t>(input - batch_x)].enabled = given;
    }
}

void Plan::feed(const Data& data, int64_t first) {
    const auto row = [&](const char* base, Input input) { return base ? base + first * row_bytes[input] : nullptr; };
    bind(batch_x, row(data.x, batch_x));
    bind(batch_y, row(data.y, batch_y));
    bind(batch_weight, row(data.weight, batch_weight));
    if (mode != Mode::train) return;
    for (size_t stage = 0; stage < 3; ++stage) stages[stage].enabled = false;
}

void Plan::predict_to(char* all, int64_t first) {
    bind(predictions, all ? all + first * row_bytes[predictions] : nullptr);
    if (record_stage >= 0) stages[static_cast<size_t>(record_stage)].enabled = all != nullptr;
}

void place(Plan& plan) {
    place_barriers(plan);
    place_buffers(plan);
}

}  // namespace tilefuse::program
