// Plan: one kind of step (train, evaluate, predict) for one batch size, lowered to a flat list of stages whose every
// buffer has its place. What it knows of the machine that will run it is in Machine.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "common/registry.h"
#include "program/spec.h"
#include "program/steps.h"

namespace tilefuse::program {

// The arguments of any kernel.
template <class First, class... Rest> using AllBut = std::variant<Rest...>;
#define TILEFUSE_ARGS(name) , tilefuse_##name##_args
using Args = AllBut<void TILEFUSE_CUDA_KERNELS(TILEFUSE_ARGS)>;
#undef TILEFUSE_ARGS

struct Buffer {
    std::string name;
    int64_t bytes = 0;
    bool in_arena = true;       // else the memory is somebody else's
    int first = -1, last = -1;  // the phases (stages between two barriers) in which it is alive
    int64_t offset = 0;         // in the arena
};

// A stage's use of a buffer, through one pointer of its arguments.
struct Use {
    int buffer;
    int64_t rows;  // > 0: each member of a team touches only its own share of so many rows
    bool writes;
    std::function<void(void*)> set;
};

struct Stage {
    std::string text;
    Args args;
    std::vector<Use> uses;
    bool barrier = false;  // members wait for each other before it
    bool enabled = true;   // gathering is off where a batch already lies in order
};

// What a step is fed with, bound before it runs.
enum Input { source_x, source_y, source_weight, order, batch_x, batch_y, batch_weight, predictions, input_count };

enum class Mode { train, evaluate, predict };

struct Plan {
    Mode mode = Mode::predict;
    int64_t batch = 0;
    std::deque<Stage> stages;  // a deque: uses point into the stages
    std::vector<Buffer> buffers;
    std::vector<tilefuse_parameter> parameters;  // for the stages that take all of them
    int inputs[input_count] = {};                // buffers
    int64_t row_bytes[input_count] = {};         // of a sample
    int record_stage = -1;                       // copies the predictions; enabled where they are wanted
    int64_t loss_rows = 0;                       // over which the step's state has sums
    int64_t arena_bytes = 0, unshared_bytes = 0;
    std::unique_ptr<char, void (*)(void*)> arena{nullptr, nullptr};

    Plan() = default;
    Plan(const Plan&) = delete;

    void lie_at(void* memory);  // takes it for the arena: arena_bytes from backend::allocate or Runner::allocate

    // The next step's samples: those that `order_of` names, gathered in a training step; or those from `first` on,
    // where they lie.
    void gather(const Data& data, const int64_t* order_of);
    void feed(const Data& data, int64_t first);
    void predict_to(char* all, int64_t first);  // where its predictions go: rows from `first` on, or nowhere if null

    void bind(Input input, const void* address);  // points every use of the input there
    void* place_of(Input input) const { return arena.get() + buffers[static_cast<size_t>(inputs[input])].offset; }

    std::vector<const Use*> input_uses[input_count];
    const void* bound[input_count] = {};
};

// What a plan depends on of the machine that will run it.
struct Machine {
    int members = 1;  // a kernel's work is divided among so many: the threads of a team; 1 where grids do it
    std::optional<tilefuse_mlp_precision> networks = {};  // its best for float32; none: it has no kernel mlp

    bool operator==(const Machine&) const = default;
};

// Lowers a network to stages. `state` is what the stages look at and leave while they run; only its address is used
// here.
std::unique_ptr<Plan> lower(const Spec& spec, Mode mode, int64_t batch, const Machine& machine, StepState* state);

// Puts barriers where one member needs what another wrote, and gives every buffer its offset in the arena.
void place(Plan& plan);

std::string describe(const Spec& spec, const Plan& plan);

}  // namespace tilefuse::program
