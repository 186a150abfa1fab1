// Team: the threads that run kernels together. A kernel is an SPMD function of a Team, as a CUDA kernel is of a grid:
// every member calls it with its own rank, works on its share and meets the others at barriers.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tilefuse {

// What a kernel needs of a team. `work` is in floating-point operations or their like in time;
// it decides whether more than one thread pays.
struct Cost {
    double work = 0;
    size_t scratch = 0;  // bytes for each member
    size_t shared = 0;   // bytes for the team
};

class Barrier {
public:
    void wait(int size);

private:
    alignas(64) std::atomic<uint32_t> arrived_{0}, sleepers_{0};
    alignas(64) std::atomic<uint32_t> phase_{0};
};

struct Range {
    int64_t begin, end;
};

class Team {
public:
    Team(int member, int members, Barrier* barrier, char* scratch_memory, char* shared_memory)
        : rank(member), size(members), barrier_(barrier), scratch_(scratch_memory), shared_(shared_memory) {}

    void barrier() {
        if (size > 1) barrier_->wait(size);
    }

    // This member's share of [0, n): contiguous, in the order of the ranks.
    Range range(int64_t n) const {
        if (size == 1) return {0, n};  // to divide takes longer than a small kernel
        return {n * rank / size, n * (rank + 1) / size};
    }

    // The same with boundaries at multiples of `grain`.
    Range range(int64_t n, int64_t grain) const {
        const Range r = range((n + grain - 1) / grain);
        return {std::min(r.begin * grain, n), std::min(r.end * grain, n)};
    }

    // Memory of this member alone, and of the team; as many bytes as the kernel's Cost asked for, 64-byte aligned.
    template <class T> T* scratch() const { return reinterpret_cast<T*>(scratch_); }
    template <class T> T* shared() const { return reinterpret_cast<T*>(shared_); }

    const int rank, size;

private:
    Barrier* barrier_;
    char *scratch_, *shared_;
};

// Opens a team, calls body(context, team) on every member and closes it. Denormals count as zero inside.
// `threads` is an upper limit. The memory behind scratch and shared is the caller's, team_memory() bytes that are 64-byte
// aligned; if null, it belongs to the calling thread and is kept for its next call.
void run_team(int threads, const Cost& cost, void (*body)(void*, Team&), void* context, void* memory = nullptr);
size_t team_memory(int threads, const Cost& cost);

template <class Body> void run_team(int threads, const Cost& cost, const Body& body, void* memory = nullptr) {
    run_team(
        threads, cost, [](void* f, Team& team) { (*static_cast<const Body*>(f))(team); },
        const_cast<void*>(static_cast<const void*>(&body)), memory);
}

int num_threads();            // what set_num_threads said, else OMP_NUM_THREADS, else the processors allowed
void set_num_threads(int n);  // 0: back to the default
int threads_for(double work); // 1 for work too small to share
uint64_t parallel_regions();  // teams of more than one thread opened so far in this process

}  // namespace tilefuse
