// The machine that a module's kernels run on. Implemented once a machine, in csrc/cpu and csrc/cuda: backend.cpp has
// memory and single kernels, execution.cpp the steps of a program. A Python module (_core, _simt, _cuda) is the program
// and the bindings linked with one of them.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "program/plan.h"

namespace tilefuse::backend {

const char* name();       // "cpu", "simt" or "cuda"
bool uses_host_memory();  // whether kernels take any pointer of the host's; else only memory from `allocate`
program::Machine machine();

void* allocate(size_t bytes);  // not initialised, 64-byte aligned; throws std::bad_alloc
void* allocate_visible(size_t bytes);  // likewise, and the host reads and writes it too, while no kernel runs
void release(void* memory) noexcept;
bool owns(const void* pointer);  // whether kernels may use it: always true where the host's memory will do
void copy_in(void* to, const void* from_host, size_t bytes);   // done when it returns
void copy_out(void* to_host, const void* from, size_t bytes);  // after everything queued before

// One kernel by itself; done when it returns.
void run(const program::Args& args);

// A plan made ready to be run again and again. The plan outlives it.
class Execution {
public:
    virtual ~Execution() = default;
    virtual void profile(bool on) = 0;  // times the stages from now on, beginning anew, or no longer
    virtual std::vector<program::StageTime> timings() = 0;  // of the steps since; empty where there were none
};

// The steps of one program. They are done in the order in which they are asked for, at once or later: what they wrote
// is there when `totals` or `finish` has returned.
class Runner {
public:
    virtual ~Runner() = default;
    virtual program::StepState* state() = 0;  // in the machine's memory
    virtual void* allocate(size_t bytes) = 0;  // where this program runs: as backend::allocate did when it was made
    virtual std::unique_ptr<Execution> prepare(program::Plan& plan) = 0;

    // The data may be anywhere, and must stay as they are until the run's last step is done.
    virtual void begin(const program::Run& run) = 0;
    virtual void step(Execution& execution, int64_t first) = 0;  // with the plan's batch of samples, from `first` on
    virtual program::Totals totals() = 0;  // of the run so far
    virtual void finish() = 0;             // the predictions are where the caller wants them
};
std::unique_ptr<Runner> make_runner(const tilefuse_optimizer_rule& rule);

}  // namespace tilefuse::backend
