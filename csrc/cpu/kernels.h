// The registry of CPU kernels. A kernel listed here is in the table of every instruction set, and nowhere else is a list.
#pragma once

#include <string>
#include <vector>

#include "cpu/team.h"
#include "tilefuse/activation.h"
#include "tilefuse/data.h"
#include "tilefuse/dropout.h"
#include "tilefuse/loss.h"
#include "tilefuse/matmul.h"
#include "tilefuse/optimizer.h"
#include "tilefuse/softmax.h"

// `name` has arguments tilefuse_<name>_args, and in csrc/cpu/<family>.cpp the functions
// void name(Team&, const tilefuse_name_args&) and Cost name_cost(const tilefuse_name_args&).
#define TILEFUSE_CPU_KERNELS(kernel) \
    kernel(matmul)                   \
    kernel(column_sum)               \
    kernel(activation)               \
    kernel(activation_backward)      \
    kernel(softmax)                  \
    kernel(softmax_backward)         \
    kernel(loss)                     \
    kernel(dropout_mask)             \
    kernel(dropout)                  \
    kernel(optimizer)                \
    kernel(clip_norm)                \
    kernel(penalty)                  \
    kernel(gather)                   \
    kernel(total)

namespace tilefuse {

template <class Args> struct Kernel {
    void (*run)(Team&, const Args&);
    Cost (*cost)(const Args&);
};

struct Kernels {
    const char* isa;
#define TILEFUSE_MEMBER(name) Kernel<tilefuse_##name##_args> name;
    TILEFUSE_CPU_KERNELS(TILEFUSE_MEMBER)
#undef TILEFUSE_MEMBER

    // The kernel of given arguments: for code that treats all kernels alike.
#define TILEFUSE_GETTER(name) \
    const Kernel<tilefuse_##name##_args>& of(const tilefuse_##name##_args&) const { return name; }
    TILEFUSE_CPU_KERNELS(TILEFUSE_GETTER)
#undef TILEFUSE_GETTER
};

// The table of the best instruction set that was built and that this processor has, or of TILEFUSE_ISA's.
// Throws std::runtime_error if TILEFUSE_ISA names another.
const Kernels& kernels();
std::vector<std::string> available_isas();

// One kernel by itself: opens a team, runs it, closes it.
template <class Args> void run(const Args& args) {
    const Kernel<Args>& kernel = kernels().of(args);
    const Cost cost = kernel.cost(args);
    run_team(threads_for(cost.work), cost, [&](Team& team) { kernel.run(team, args); });
}

}  // namespace tilefuse
