// What the steps of a program are fed with, what changes from one to the next, and what they give.
#pragma once

#include <cstdint>
#include <string>

#include "tilefuse/optimizer.h"

namespace tilefuse::program {

// Samples, contiguous, of the program's dtype (labels: int32 where the loss is sparse).
struct Data {
    const char *x = nullptr, *y = nullptr, *weight = nullptr;
    int64_t samples = 0;
    char* predictions = nullptr;  // receives what the last layer said, or null
};

// Steps over the samples, batch by batch.
struct Run {
    Data data;
    bool training = false;
    int64_t batch = 0;
    const int64_t* order = nullptr;          // of the samples; null: as they lie
    const double* learning_rates = nullptr;  // one for each step that trains; may be changed between two steps
    uint64_t iteration = 0;                  // updates made before
};

// What stages look at and leave while they run: in the machine's memory, so that a step that is run again finds new
// values there.
struct StepState {
    tilefuse_optimizer_rule rule = {};  // with the running step's learning rate and number
    uint64_t iteration = 0;        // updates made before the running step
    double loss_sum = 0, correct_sum = 0, penalty = 0;  // of the newest step; sums over its rows
};

struct Totals {
    int64_t steps = 0, samples = 0;
    double loss = 0, accuracy = 0;  // sums over the samples

    double mean_loss() const { return samples ? loss / static_cast<double>(samples) : 0; }
    double mean_accuracy() const { return samples ? accuracy / static_cast<double>(samples) : 0; }
};

// How long a stage took, in seconds a step: its slowest member's work, and the mean wait at the barrier before it.
struct StageTime {
    std::string text;
    double work = 0, wait = 0;
};

}  // namespace tilefuse::program
