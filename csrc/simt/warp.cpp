// Warp operations: the lanes of a mask meet, and the last to come does it for all.
#include <bit>

#include "simt/checker.h"
#include "simt/counter.h"
#include "simt/executor.h"

namespace simt {

namespace {

template <class F> void for_each_lane(unsigned warp, unsigned lanes, F f) {
    for (; lanes; lanes &= lanes - 1) {
        f(block.thread[warp * warp_size + static_cast<unsigned>(std::countr_zero(lanes))]);
    }
}

// Whether all of the mask's lanes that have not exited have come to this operation with this mask.
bool all_there(unsigned warp, unsigned mask, Operation operation) {
    const unsigned wanted = mask & ~block.warp[warp].left;
    if (wanted & ~block.warp[warp].meeting) return false;
    bool same = true;
    for_each_lane(warp, wanted, [&](const Thread& t) { same = same && t.mask == mask && t.operation == operation; });
    return same;
}

void shuffle(unsigned warp, unsigned lanes) {
    for_each_lane(warp, lanes, [&](Thread& t) {
        auto& data = *static_cast<ShuffleData*>(t.data);
        if (!(lanes >> data.lane & 1u)) {
            fail({.kind = "warp mask", .thread = t.index, .where = t.where},
                 "reads from lane %d, which %s: its value is undefined", data.lane,
                 t.mask >> data.lane & 1u ? "has exited" : "is not in the mask");
        }
        data.result = static_cast<ShuffleData*>(block.thread[warp * warp_size + data.lane].data)->value;
    });
}

void ballot(unsigned warp, unsigned lanes) {
    unsigned votes = 0;
    for_each_lane(warp, lanes, [&](Thread& t) {
        votes |= static_cast<unsigned>(static_cast<BallotData*>(t.data)->predicate) << t.lane();
    });
    for_each_lane(warp, lanes, [&](Thread& t) { static_cast<BallotData*>(t.data)->lanes = votes; });
}

// An operation that only a whole warp can do.
void whole_warp(unsigned warp, unsigned lanes, void (*operation)(Thread*)) {
    Thread* first = &block.thread[warp * warp_size];
    if (lanes != ~0u) {
        const Thread& t = block.thread[warp * warp_size + static_cast<unsigned>(std::countr_zero(lanes))];
        fail({.kind = "warp mask", .thread = t.index, .where = t.where},
             "a matrix operation needs all 32 lanes of the warp; here are 0x%08x", lanes);
    }
    operation(first);
}

void complete(unsigned warp, unsigned mask, Operation operation) {
    const unsigned lanes = mask & ~block.warp[warp].left;
    switch (operation) {
    case Operation::barrier:
        if constexpr (checked) warp_has_met(warp, lanes);
        break;
    case Operation::shuffle: shuffle(warp, lanes); break;
    case Operation::ballot: ballot(warp, lanes); break;
    case Operation::mma: whole_warp(warp, lanes, multiply); break;
    case Operation::load_matrices: whole_warp(warp, lanes, load_matrices); break;
    }
    if constexpr (checked) {
        if (mask == ~0u) end_warp_accesses(warp);
    }
    block.warp[warp].meeting &= ~lanes;
    for_each_lane(warp, lanes, [](Thread& t) { t.state = State::ready; });
    make_ready(warp, lanes);
}

}  // namespace

void meet(Operation operation, unsigned mask, void* data, Where where) {
    Thread& me = *block.running;
    if (!(mask >> me.lane() & 1u)) {
        fail({.kind = "warp mask", .thread = me.index, .where = where}, "lane %u is not in its own mask 0x%08x",
             me.lane(), mask);
    }
    me.code = __builtin_return_address(0);
    me.where = where;
    me.state = State::meeting;
    me.operation = operation;
    me.mask = mask;
    me.data = data;
    block.warp[me.warp()].meeting |= 1u << me.lane();
    if (all_there(me.warp(), mask, operation)) complete(me.warp(), mask, operation);
    wait();
}

void complete_meetings(unsigned warp) {
    for (unsigned lane = 0; lane < warp_size; lane++) {
        const Thread& t = block.thread[warp * warp_size + lane];
        if (!(block.warp[warp].meeting >> lane & 1u)) continue;
        if (all_there(warp, t.mask, t.operation)) complete(warp, t.mask, t.operation);
    }
}

}  // namespace simt
