// Runs the blocks of a launch one after another, the threads of each as fibres.
//
// A thread runs until it waits or ends; then the next of those that can run goes on, straight from fibre to fibre.
// Which one that is the order says: the first, the last or any. A thread that ends hands its stack on: threads that
// never wait all run on one stack, without a switch.
#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "simt/checker.h"
#include "simt/executor.h"

namespace simt {

std::recursive_mutex mutex;
Block block;
Report report;
thread_local const ThreadPlace* place = nullptr;

namespace {

Context host;  // the stack from which the launch was made

struct OrderSetting {
    Order order = Order::forward;
    uint64_t random = 1;
    OrderSetting() {
        if (const char* text = std::getenv("TILEFUSE_SIMT_ORDER")) set(text);
    }
    void set(Order o, uint64_t seed) {
        order = o;
        random = seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
        if (!random) random = 1;
    }
    void set(const std::string& text) {
        const std::string name = text.substr(0, text.find(':'));
        if (text == "forward") return set(Order::forward, 0);
        if (text == "reverse") return set(Order::reverse, 0);
        if (text == "random") return set(Order::random, 0);
        size_t end = 0;
        if (name == "random" && text.size() > 7 && text.find_first_not_of("0123456789", 7) == std::string::npos) {
            const uint64_t seed = std::stoull(text.substr(7), &end);
            return set(Order::random, seed);
        }
        throw std::invalid_argument("the order of threads is forward, reverse, random or random:<seed>, not '" + text +
                                    "'");
    }
};
OrderSetting& setting() {
    static OrderSetting the_setting;
    return the_setting;
}
Order order;  // of the running launch

// The blocks in the order in which they run: the i-th one is at (first + i * step) % blocks of the grid.
struct Sequence {
    uint64_t blocks = 1, first = 0, step = 1;
    Sequence() = default;
    explicit Sequence(uint64_t n) : blocks(n) {
        if (order == Order::reverse) first = step = n - 1;
        if (order == Order::random) {
            first = random_number() % n;
            do step = random_number() % n + 1;
            while (std::gcd(step, n) != 1);
        }
    }
} sequence;

// A set bit of a mask that is not zero: the one that the order takes next.
unsigned pick_bit(unsigned mask) {
    if (order == Order::forward) return static_cast<unsigned>(std::countr_zero(mask));
    if (order == Order::reverse) return 31u - static_cast<unsigned>(std::countl_zero(mask));
    const auto turn = static_cast<int>(random_number() >> 59);
    return static_cast<unsigned>(std::countr_zero(std::rotr(mask, turn)) + turn) % 32u;
}

// The thread that runs next, no longer marked as ready; null if there is none.
Thread* pick() {
    if (!block.ready_warps) return nullptr;
    const unsigned w = pick_bit(block.ready_warps);
    Warp& warp = block.warp[w];
    const unsigned lane = pick_bit(warp.ready);
    warp.ready &= ~(1u << lane);
    if (!warp.ready) block.ready_warps &= ~(1u << w);
    return &block.thread[w * warp_size + lane];
}

void make_running(Thread* thread) {
    block.running = thread;
    place = thread;
}

void run_threads();

// Leaves `from` for the thread, or for the host if that is null.
void go_on(Context& from, Thread* thread) {
    if (!thread) return switch_context(from, host);
    make_running(thread);
    if (!thread->fibre.context) thread->fibre = new_fibre(run_threads);
    switch_context(from, thread->fibre.context);
}

void end_thread(Thread& thread) {
    if (!thread.copies.empty()) finish_copies(thread);
    thread.groups = 0;
    thread.state = State::exited;
    block.exited++;
    Warp& warp = block.warp[thread.warp()];
    warp.left |= 1u << thread.lane();
    if (warp.meeting) complete_meetings(thread.warp());
}

// What a fibre does: runs threads, one after the other, until the next one has a fibre of its own.
void run_threads() {
    for (;;) {
        Thread& thread = *block.running;
        block.launch->call(block.launch->arguments);
        end_thread(thread);
        Thread* next = pick();
        const Fibre mine = thread.fibre;
        thread.fibre = {};
        if (next && !next->fibre.context) {
            next->fibre = mine;
            make_running(next);
        } else {
            Context nowhere;
            release_stack(mine.stack);
            go_on(nowhere, next);
        }
    }
}

std::string text_of(uint3 v) {
    return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

Finding finding_of(const Report& r) {
    const Source source = r.code ? source_of(r.code) : source_of(r.where);
    std::string text = r.text;
    if (r.other_code) text += " at " + source_of(r.other_code).text();
    if (r.thread == whole_block) return Finding(r.kind, block.launch->kernel, text);
    return Finding(r.kind, block.launch->kernel, block.block, block.thread[r.thread].thread, source, text);
}

// Nobody can run, and not everybody is done: who waits for whom?
void report_stuck() {
    report.kind = "deadlock";
    const auto describe = [](unsigned index, char* text, size_t size) {
        const Thread& t = block.thread[index];
        if (t.state == State::exited) {
            std::snprintf(text, size, "has exited");
        } else {
            std::snprintf(text, size, "waits at the %s at line %u",
                          t.state == State::at_barrier ? "barrier" : "warp operation",
                          static_cast<unsigned>(t.where.line()));
        }
    };
    char other[128];
    for (unsigned i = 0; i < block.threads; i++) {
        const Thread& t = block.thread[i];
        if (t.state != State::meeting) continue;
        const Warp& warp = block.warp[t.warp()];
        for (unsigned wanted = t.mask & ~warp.left; wanted; wanted &= wanted - 1) {
            const unsigned lane = static_cast<unsigned>(std::countr_zero(wanted));
            const Thread& w = block.thread[t.warp() * warp_size + lane];
            if (w.state == State::meeting && w.mask == t.mask && w.operation == t.operation) continue;
            describe(w.index, other, sizeof other);
            std::snprintf(report.text, sizeof report.text, "waits for lane %u of its mask 0x%08x, which %s", lane,
                          t.mask, other);
            report.thread = i;
            report.where = t.where;
            return;
        }
    }
    report.kind = "divergent barrier";
    unsigned waits = 0, missing = 0;
    while (block.thread[waits].state != State::at_barrier) waits++;
    while (block.thread[missing].state == State::at_barrier) missing++;
    describe(missing, other, sizeof other);
    const std::string who = text_of(block.thread[missing].thread);
    std::snprintf(report.text, sizeof report.text, "%u of %u threads wait at the barrier; thread %s %s", block.waiting,
                  block.threads, who.c_str(), other);
    report.thread = waits;
    report.where = block.thread[waits].where;
}

void start_block() {
    block.block = block_of(block.serial);
    block.waiting = block.exited = 0;
    for (unsigned w = 0; w < block.warps; w++) {
        const unsigned lanes = block.threads - w * warp_size;
        const unsigned mask = lanes < warp_size ? (1u << lanes) - 1 : ~0u;
        block.warp[w] = {mask, 0, 0, ~mask};
    }
    block.ready_warps = block.warps < 32 ? (1u << block.warps) - 1 : ~0u;
    start_shared(block.launch->shared_bytes);
}

void run_block() {
    start_block();
    go_on(host, pick());
    make_running(nullptr);
    if (!report.kind && block.exited != block.threads) report_stuck();
    if (!report.kind) check_shared();
    if (!report.kind) return;
    const Finding finding = finding_of(report);
    report = {};
    for (Thread& thread : block.thread) {
        thread.fibre = {};
        thread.copies.clear();
        thread.groups = 0;
    }
    release_all_stacks();
    throw finding;
}

}  // namespace

uint3 block_of(uint64_t serial) {
    const auto i = static_cast<unsigned __int128>(serial - block.first_serial);
    const auto at = static_cast<uint64_t>((sequence.first + i * sequence.step) % sequence.blocks);
    const dim3 grid = block.grid_size;
    return {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
            static_cast<unsigned>(at / grid.x / grid.y)};
}

// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016.
uint64_t random_number() {
    uint64_t& x = setting().random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return x * 0x2545f4914f6cdd1du;
}

void set_order(Order o, uint64_t seed) {
    std::lock_guard lock(mutex);
    setting().set(o, seed);
}
void set_order(const std::string& text) {
    std::lock_guard lock(mutex);
    setting().set(text);
}

void make_ready(unsigned warp, unsigned lanes) {
    block.warp[warp].ready |= lanes;
    block.ready_warps |= 1u << warp;
}

void wait() {
    Thread* me = block.running;
    Thread* next = pick();
    if (next != me) go_on(me->fibre.context, next);
}

void block_barrier(Where where) {
    Thread& me = *block.running;
    if (block.exited) {
        unsigned gone = 0;
        while (block.thread[gone].state != State::exited) gone++;
        const uint3 who = block.thread[gone].thread;
        fail({.kind = "divergent barrier", .thread = me.index, .where = where},
             "waits at a barrier to which thread (%u, %u, %u) cannot come: it has exited", who.x, who.y, who.z);
    }
    if (block.waiting) {
        const Thread& first = block.thread[block.first_waiting];
        if (first.where.line() != where.line() || first.where.column() != where.column()) {
            fail({.kind = "divergent barrier", .thread = me.index, .where = where},
                 "waits at this barrier while thread (%u, %u, %u) waits at the one at line %u", first.thread.x,
                 first.thread.y, first.thread.z, static_cast<unsigned>(first.where.line()));
        }
    } else {
        block.first_waiting = me.index;
    }
    me.where = where;
    me.state = State::at_barrier;
    block.warp[me.warp()].at_barrier |= 1u << me.lane();
    if (++block.waiting == block.threads) {
        block.waiting = 0;
        for (unsigned w = 0; w < block.warps; w++) {
            make_ready(w, block.warp[w].at_barrier);
            block.warp[w].at_barrier = 0;
        }
        for (unsigned i = 0; i < block.threads; i++) block.thread[i].state = State::ready;
        if constexpr (checked) block_has_met();
    }
    wait();
}

int lane_index() { return static_cast<int>(block.running->lane()); }

void fail(const Report& r, const char* format, ...) {
    report = r;
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(report.text, sizeof report.text, format, arguments);
    va_end(arguments);
    Context nowhere;
    switch_context(nowhere, host);
    __builtin_unreachable();
}

void misaligned(const void* p, size_t bytes, Where where) {
    if (!block.running) return;
    fail({.kind = "misaligned", .thread = block.running->index, .where = where},
         "accesses %zu bytes at %p, which is not a multiple of %zu", bytes, p, bytes);
}

void run(const Launch& launch) {
    std::lock_guard lock(mutex);
    order = setting().order;
    block.launch = &launch;
    block.block_size = launch.block;
    block.grid_size = launch.grid;
    block.threads = launch.block.x * launch.block.y * launch.block.z;
    block.warps = (block.threads + warp_size - 1) / warp_size;
    for (unsigned i = 0; i < block.threads; i++) {
        Thread& thread = block.thread[i];
        thread.thread = {i % launch.block.x, i / launch.block.x % launch.block.y, i / launch.block.x / launch.block.y};
        thread.block = &block;
        thread.index = i;
        thread.state = State::ready;
    }
    if constexpr (checked) start_checking(launch);

    sequence = Sequence(uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z);
    block.first_serial = block.serial + 1;
    for (uint64_t i = 0; i < sequence.blocks; i++) {
        block.serial++;
        run_block();
    }
    check_red_zones(launch.kernel);
    if constexpr (checked) finish_checking();
}

Finding::Finding(const std::string& kind_, const std::string& kernel_, const std::string& text)
    : std::runtime_error(kind_ + ": kernel " + kernel_ + ": " + text), kind(kind_), kernel(kernel_) {}

Finding::Finding(const std::string& kind_, const std::string& kernel_, uint3 block_, uint3 thread_,
                 const Source& source_, const std::string& text)
    : std::runtime_error(kind_ + ": kernel " + kernel_ + ", block " + text_of(block_) + ", thread " +
                         text_of(thread_) + ", " + source_.text() + ": " + text),
      kind(kind_), kernel(kernel_), block(block_), thread(thread_), source(source_) {}

}  // namespace simt
