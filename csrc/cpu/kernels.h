// The CPU's kernels: a table of them for every instruction set.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/team.h"
#include "common/registry.h"

// csrc/cpu/<family>.cpp has, for each of them, void name(Team&, const tilefuse_name_args&) and
// Cost name_cost(const tilefuse_name_args&).
namespace tilefuse {

template <class Args> struct Kernel {
    void (*run)(Team&, const Args&);
    Cost (*cost)(const Args&);
};

constexpr size_t peak_scratch = 1024;  // bytes for each member

struct Kernels {
    const char* isa;
    // Does nothing but multiply-adds, to find out how fast they can be; returns how many operations all members did.
    double (*peak)(Team&, tilefuse_dtype, tilefuse_precision, int64_t turns);
#define TILEFUSE_MEMBER(name) Kernel<tilefuse_##name##_args> name;
    TILEFUSE_KERNELS(TILEFUSE_MEMBER)
#undef TILEFUSE_MEMBER

    // The kernel of given arguments: for code that treats all kernels alike.
#define TILEFUSE_GETTER(name) \
    const Kernel<tilefuse_##name##_args>& of(const tilefuse_##name##_args&) const { return name; }
    TILEFUSE_KERNELS(TILEFUSE_GETTER)
#undef TILEFUSE_GETTER
    // Of those that CUDA devices alone have: no plan for the CPU has one.
    template <class Args> const Kernel<Args>& of(const Args&) const {
        throw std::logic_error("the CPU has no such kernel");
    }
};

// The table of the best instruction set that was built and that this processor has, or of TILEFUSE_ISA's.
// Throws std::runtime_error if TILEFUSE_ISA names another.
const Kernels& kernels();
std::vector<std::string> available_isas();

#if defined(TILEFUSE_BASE_ISA)
namespace TILEFUSE_BASE_ISA {
const Kernels& table();
}
#endif

// One kernel by itself: opens a team, runs it, closes it.
template <class Args> void run(const Args& args) {
    const Kernel<Args>& kernel = kernels().of(args);
    const Cost cost = kernel.cost(args);
    run_team(threads_for(cost.work), cost, [&](Team& team) { kernel.run(team, args); });
}

}  // namespace tilefuse
