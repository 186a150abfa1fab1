// The running block, as the executor's own files see it. One launch runs at a time; `mutex` is held while it does.
#pragma once

#include <mutex>
#include <vector>

#include "simt/device.h"
#include "simt/fibre.h"
#include "simt/memory.h"

namespace simt {

constexpr unsigned warp_size = 32;
constexpr unsigned max_threads = 1024;
constexpr unsigned max_warps = max_threads / warp_size;
constexpr size_t max_static_shared = 48 * 1024;
constexpr size_t max_shared = 227 * 1024;  // a block's, from compute capability 9.0 on

extern std::recursive_mutex mutex;

// An asynchronous copy that has not happened yet.
struct Copy {
    void* to;
    const void* from;
    size_t bytes;      // of `from`; zeros follow
    unsigned group;
    const void* code;  // where it was asked for
};

enum class State : uint8_t { ready, at_barrier, meeting, exited };

// One CUDA thread of the running block.
struct Thread : ThreadPlace {
    unsigned index;  // in its block
    State state;
    Fibre fibre;     // not started: no context
    Where where;     // the last place where it waited,
    const void* code;  // and its address, if that was for lanes of its warp
    // at a meeting
    Operation operation;
    unsigned mask;
    void* data;
    // asynchronous copies
    std::vector<Copy> copies;
    unsigned groups;  // committed

    unsigned lane() const { return index % warp_size; }
    unsigned warp() const { return index / warp_size; }
};

struct Warp {
    unsigned ready;       // lanes that can run
    unsigned at_barrier;  // lanes that wait for the block
    unsigned meeting;     // lanes that wait for other lanes
    unsigned left;        // lanes that have exited, or never were
};

struct Block : BlockPlace {
    uint64_t serial;  // a different one for every block that ever ran, and
    uint64_t first_serial;  // of the launch's first one
    const Launch* launch;
    unsigned threads, warps;
    unsigned waiting, exited;  // threads at the barrier, threads that are done
    unsigned first_waiting;    // who came to the barrier first
    unsigned ready_warps;      // warps with lanes that can run
    Warp warp[max_warps];
    Thread thread[max_threads];
    Thread* running;
};
extern Block block;
uint3 block_of(uint64_t serial);  // of this launch

// The running thread's place; null while the host's own code runs on this operating-system thread.
extern thread_local const ThreadPlace* place __attribute__((tls_model("initial-exec")));

constexpr unsigned whole_block = ~0u;
// What a fibre has found; made into a Finding when the host's own stack runs again.
struct Report {
    const char* kind = nullptr;
    unsigned thread = 0;         // or whole_block: not known which
    const void* code = nullptr;  // where: an address, or else
    Where where = {};
    char text[512] = "";
    const void* other_code = nullptr;  // the other party's place: appended to the text
};
extern Report report;

// Ends the launch with a finding: `report`, filled in but for the text. Never returns to the fibre.
[[noreturn]] void fail(const Report&, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Runs a launch to its end; throws a Finding.
void run(const Launch&);

// The running thread waits until others have made it ready.
void wait();
void make_ready(unsigned warp, unsigned lanes);
uint64_t random_number();

// ---- warp.cpp, copies.cpp, matrix.cpp -------------------------------------------------------------------------------
void complete_meetings(unsigned warp);  // of lanes that waited only for one that has now exited
void multiply(Thread* warp);
void load_matrices(Thread* warp);
void finish_copies(Thread&);

// ---- memory.cpp -----------------------------------------------------------------------------------------------------
void start_shared(size_t dynamic_bytes);   // of a new block
void check_shared();                       // reports a write between its arrays
void check_red_zones(const char* kernel);  // throws a Finding

// ---- source.cpp -----------------------------------------------------------------------------------------------------
Source source_of(const void* code);  // the line of the kernel that this return address belongs to
Source source_of(Where);

}  // namespace simt
