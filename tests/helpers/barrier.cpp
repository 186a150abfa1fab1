// Members of a team that are late in turn: nobody passes a barrier before all have come, and nobody stays behind, whether
// or not wake-ups get lost. Usage: barrier woken|lost; prints what is wrong.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>

namespace {

std::atomic<bool> lose{false};
std::atomic<int> lost{0};
std::atomic<bool> wakes_few{false};
constexpr int members = 3, rounds = 100;

// The kernel's futex, which loses every second wake-up where `lose` says so.
template <class... Rest> long lossy_syscall(long number, const void* word, int operation, int value, Rest... rest) {
    static std::atomic<int> wakes{0};
    if (operation == FUTEX_WAKE_PRIVATE && value < members - 1) wakes_few = true;
    if (operation == FUTEX_WAKE_PRIVATE && lose && wakes++ % 2 == 0) return lost++, 0;
    return syscall(number, word, operation, value, rest...);
}

}  // namespace

#define syscall lossy_syscall
#include "cpu/team.cpp"
#undef syscall

int main(int, char** arguments) {
    lose = std::strcmp(arguments[1], "lost") == 0;
    std::atomic<int> come{0};
    std::atomic<bool> early{false};
    tilefuse::run_team(members, {}, [&](tilefuse::Team& team) {
        for (int round = 0; round < rounds; ++round) {
            if (round % team.size == team.rank) usleep(1000);  // the others go to sleep
            ++come;
            team.barrier();
            if (come < (round + 1) * team.size) early = true;
            team.barrier();
        }
    });
    if (come % rounds != 0 || come == 0) std::printf("%d arrivals in %d rounds\n", come.load(), rounds);
    if (wakes_few) std::printf("not all sleepers are woken\n");
    if (early) std::printf("a member passed a barrier before all had come\n");
    if (lose && lost == 0) std::printf("no wake-up was lost: nothing was tested\n");
}
