// TeamSize on simulated machines. Usage: team_size CASE; prints what is wrong.
#include "cpu/team_size.h"

#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <random>

using tilefuse::TeamSize;

namespace {

bool failed = false;

#define EXPECT(...)                                                         \
    do {                                                                    \
        if (!(__VA_ARGS__)) {                                               \
            std::printf("line %d: %s\n", __LINE__, #__VA_ARGS__);           \
            failed = true;                                                  \
        }                                                                   \
    } while (0)

struct Seen {
    std::map<int, int> steps;  // by size
    double seconds = 0;
    double share(int size) const {
        int all = 0;
        for (const auto& [of, n] : steps) all += n;
        return static_cast<double>(steps.count(size) ? steps.at(size) : 0) / all;
    }
};

Seen run(TeamSize& size, int steps, const std::function<double(int)>& time_of) {
    Seen seen;
    for (int i = 0; i < steps; ++i) {
        const double seconds = time_of(size.now());
        ++seen.steps[size.now()];
        seen.seconds += seconds;
        if (!size.constant()) size.took(seconds);
    }
    return seen;
}

double ideal(int members) { return 1e-4 / members; }
double busy(int members) { return members > 1 ? 13e-3 : 1.2e-4; }  // every step waits for a time slice

void one() {
    TeamSize size(1);
    EXPECT(size.constant() && size.now() == 1 && size.most() == 1);
}

void ideal_machine() {
    TeamSize size(2);
    EXPECT(size.most() == 2);
    const Seen first = run(size, 16, ideal);
    EXPECT(first.share(2) == 1);
    const Seen seen = run(size, 100000, ideal);
    EXPECT(seen.share(2) > 0.99);
    EXPECT(seen.seconds < 1.01 * 100000 * ideal(2));
}

void useless() {  // a second member gains nothing: it may stay, but time is not lost
    TeamSize size(2);
    const auto time_of = [](int members) { return members == 2 ? 0.98e-4 : 1e-4; };
    EXPECT(run(size, 10000, time_of).share(2) > 0.9);
}

void peak() {  // a small network on a large machine
    TeamSize size(48);  // and 24, 12, 6, 3, 1
    const auto time_of = [](int members) { return 1e-4 / members + 1e-6 * members; };
    run(size, 500, time_of);
    EXPECT(run(size, 10000, time_of).share(12) > 0.95);
}

void busy_from_the_start() {
    TeamSize size(2);
    run(size, 100, busy);
    const Seen seen = run(size, 20000, busy);
    EXPECT(seen.share(1) > 0.999);
    EXPECT(seen.seconds < 1.1 * 20000 * busy(1));
}

void busy_for_a_while() {
    TeamSize size(2);
    run(size, 20000, ideal);
    EXPECT(size.now() == 2);
    EXPECT(run(size, 1000, busy).seconds < 0.35);  // 13 with both
    run(size, 10000, busy);
    EXPECT(run(size, 20000, ideal).share(2) > 0.7);
    EXPECT(size.now() == 2);
}

void noisy() {
    std::mt19937 random(1);
    std::lognormal_distribution<double> noise(0, 0.4);
    TeamSize size(2);
    run(size, 500, ideal);
    const auto time_of = [&](int members) { return ideal(members) * noise(random); };
    EXPECT(run(size, 100000, time_of).share(2) > 0.95);
}

}  // namespace

int main(int, char** arguments) {
    const std::map<std::string, void (*)()> cases = {{"one", one},
                                                     {"ideal", ideal_machine},
                                                     {"useless", useless},
                                                     {"peak", peak},
                                                     {"busy_from_the_start", busy_from_the_start},
                                                     {"busy_for_a_while", busy_for_a_while},
                                                     {"noisy", noisy}};
    cases.at(arguments[1])();
    return failed;
}
