#include "cpu/team.h"

#include <linux/futex.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <new>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tilefuse {
namespace {

std::atomic<int> requested_threads{0};
std::atomic<uint64_t> regions{0};
std::atomic<bool> forked_child{false};

#if defined(__x86_64__)
constexpr unsigned flush_to_zero = 0x8040;  // MXCSR: FTZ (bit 15) and DAZ (bit 6)
unsigned float_mode() { return _mm_getcsr(); }
void set_float_mode(unsigned mode) { _mm_setcsr(mode); }
void pause() { _mm_pause(); }
#elif defined(__aarch64__)
constexpr uint64_t flush_to_zero = 1u << 24;  // FPCR.FZ
uint64_t float_mode() {
    uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
void set_float_mode(uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
void pause() { asm volatile("yield"); }
#else
constexpr unsigned flush_to_zero = 0;
unsigned float_mode() { return 0; }
void set_float_mode(unsigned) {}
void pause() {}
#endif

class FlushDenormals {
public:
    FlushDenormals() : saved_(float_mode()) { set_float_mode(saved_ | flush_to_zero); }
    ~FlushDenormals() { set_float_mode(saved_); }

private:
    const decltype(float_mode()) saved_;
};

// The calling thread's memory for scratch and shared; grows, and is freed with the thread.
class Workspace {
public:
    ~Workspace() { std::free(data_); }

    char* reserve(size_t bytes) {
        if (bytes > size_) {
            std::free(data_);
            size_ = (bytes + 4095) / 4096 * 4096;
            data_ = static_cast<char*>(std::aligned_alloc(4096, size_));
            if (data_ == nullptr) {
                size_ = 0;
                throw std::bad_alloc();
            }
        }
        return data_;
    }

private:
    char* data_ = nullptr;
    size_t size_ = 0;
};

thread_local Workspace workspace;

// The number of processors that a container's quota amounts to, or a large number.
int cgroup_limit() {
    long long quota = -1, period = 0;
    if (FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {  // cgroup v2: "max 100000" or "150000 100000"
        if (std::fscanf(f, "%lld %lld", &quota, &period) != 2) quota = -1;
        std::fclose(f);
    } else if (FILE* q = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r")) {  // v1
        if (std::fscanf(q, "%lld", &quota) != 1) quota = -1;
        std::fclose(q);
        if (FILE* p = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r")) {
            if (std::fscanf(p, "%lld", &period) != 1) period = 0;
            std::fclose(p);
        }
    }
    if (quota <= 0 || period <= 0) return 1 << 16;
    return static_cast<int>(std::max(1LL, (quota + period - 1) / period));
}

int default_threads() {
    static const int threads = [] {
        if (const char* text = std::getenv("OMP_NUM_THREADS")) {
            const int n = std::atoi(text);
            if (n > 0) return n;
        }
        cpu_set_t allowed;
        CPU_ZERO(&allowed);
        const int processors = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
        return std::max(1, std::min(processors, cgroup_limit()));
    }();
    return threads;
}

// OpenMP's thread pool does not survive fork: a child of a process that had one runs everything serially.
void watch_for_fork() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { forked_child = true; });
    (void)registered;
}

constexpr size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Returns when woken, when the word is no longer `value`, and after 20 ms at the latest: a wake-up that gets lost costs
// these and no more. (Seen on two virtual machines: std::atomic's wait slept for ever after its notify_all, until a debugger
// looked at the process.)
void sleep_while(const std::atomic<uint32_t>& word, uint32_t value) {
    constexpr timespec longest{.tv_sec = 0, .tv_nsec = 20'000'000};
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, &longest, nullptr, 0);
}

void wake_all(const std::atomic<uint32_t>& word) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

void Barrier::wait(int size) {
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size)) {
        arrived_.store(0, std::memory_order_relaxed);
        // Whoever goes to sleep is counted first and looks at the phase then, and here it is the other way round, all in
        // one order: one of the two sees the other.
        phase_.store(phase + 1, std::memory_order_seq_cst);
        if (sleepers_.load(std::memory_order_seq_cst) > 0) wake_all(phase_);
        return;
    }
    // 2000 pauses are some 25 to 90 microseconds: more than a stage of a small network differs between members. After
    // that somebody is late because other programs run: sleep, so that the scheduler can give this processor to who is late.
    for (int spin = 0; spin < 2000; ++spin) {
        if (phase_.load(std::memory_order_acquire) != phase) return;
        pause();
    }
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (phase_.load(std::memory_order_seq_cst) == phase) sleep_while(phase_, phase);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

size_t team_memory(int threads, const Cost& cost) {
    return aligned(cost.shared) + aligned(cost.scratch) * static_cast<size_t>(threads);
}

void run_team(int threads, const Cost& cost, void (*body)(void*, Team&), void* context, void* callers_memory) {
    if (forked_child.load(std::memory_order_relaxed) || omp_in_parallel()) threads = 1;
    const size_t scratch = aligned(cost.scratch), shared = aligned(cost.shared);
    char* const memory = callers_memory != nullptr ? static_cast<char*>(callers_memory) : workspace.reserve(team_memory(threads, cost));
    Barrier barrier;
    if (threads <= 1) {
        FlushDenormals flush;
        Team team(0, 1, &barrier, memory + shared, memory);
        body(context, team);
        return;
    }
    watch_for_fork();
    regions.fetch_add(1, std::memory_order_relaxed);
#pragma omp parallel num_threads(threads)
    {
        FlushDenormals flush;
        const int rank = omp_get_thread_num();
        Team team(rank, omp_get_num_threads(), &barrier, memory + shared + scratch * static_cast<size_t>(rank), memory);
        body(context, team);
    }
}

int num_threads() {
    const int n = requested_threads.load(std::memory_order_relaxed);
    return n > 0 ? n : default_threads();
}

void set_num_threads(int n) { requested_threads.store(n, std::memory_order_relaxed); }

int threads_for(double work) {
    // Opening a team of two costs 1 to 2 microseconds when its threads are awake, 10 to 50 when they sleep. (Zen 3, products
    // of 0.26, 0.52 and 1.05 million operations, one thread and two, medians: 5.8 and 5.9, 9.5 and 8.4, 17 and 14 us.)
    constexpr double work_worth_sharing = 5e5;
    return work < work_worth_sharing ? 1 : num_threads();
}

uint64_t parallel_regions() { return regions.load(std::memory_order_relaxed); }

}  // namespace tilefuse
