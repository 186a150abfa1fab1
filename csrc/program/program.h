// Program: a network compiled for training, evaluation and prediction. A step is one call, and one parallel region;
// it allocates nothing once a step of its batch size has run.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "program/plan.h"

namespace tilefuse::program {

// Samples in the caller's memory, contiguous, of the program's dtype (labels: int32 where the loss is sparse).
struct Data {
    const char *x = nullptr, *y = nullptr, *weight = nullptr;
    int64_t samples = 0;
    char* predictions = nullptr;  // receives what the last layer said, or null
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

class Program {
public:
    Program(Spec spec, int64_t batch);

    // One update with all of `data`.
    Totals train_step(const Data& data, double learning_rate);

    // One pass over the samples in the given order (null: as they lie), with one learning rate for each step. `poll` is
    // called between steps at most every `interval` seconds, and after the last; when it returns true the epoch ends there.
    using Poll = std::function<bool(const Totals&)>;
    Totals train_epoch(const Data& data, const int64_t* order, int64_t batch, const double* learning_rates,
                       double interval, const Poll& poll);

    Totals evaluate(const Data& data, double interval, const Poll& poll);
    void predict(const Data& data, double interval, const Poll& poll);

    const Spec& spec() const { return spec_; }
    int64_t batch() const { return batch_; }
    int64_t bytes();                   // of activations, gradients and workspaces, for the largest plan so far
    std::vector<std::string> stages(); // of a training step, or else of what the program can do
    std::string describe();

    // Times the stages of every training step from now on, or no longer; `timings` tells of the largest batch size since.
    void profile(bool on);
    std::vector<StageTime> timings();

    uint64_t iteration = 0;  // updates made so far

private:
    struct Span {
        double work = 0, wait = 0;
    };
    struct Ready {
        std::unique_ptr<Plan> plan;
        Cost cost;
        std::vector<Span> spans;  // [member, stage], where profiling
        int64_t timed_steps = 0;
    };

    Ready& ready(Mode mode, int64_t batch);
    Mode widest_mode() const;
    void run(Ready& ready);
    Totals step(Mode mode, const Data& data, int64_t first, int64_t count, const int64_t* order);
    Totals each_batch(Mode mode, const Data& data, double interval, const Poll& poll);

    const Spec spec_;
    const int64_t batch_;
    const int64_t x_bytes_, y_bytes_, output_bytes_;  // of one sample
    tilefuse_optimizer rule_ = {};
    int threads_ = 0;
    bool profiling_ = false;
    std::vector<Ready> plans_;
    std::mutex mutex_;  // a program runs one thing at a time
};

}  // namespace tilefuse::program
