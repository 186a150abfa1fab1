// Program: a network compiled for training, evaluation and prediction. A step is one parallel region, or a sequence of
// kernels on a GPU; it allocates nothing once a step of its batch size has run.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "program/backend.h"

namespace tilefuse::program {

class Program {
public:
    Program(Spec spec, int64_t batch);

    // One update with all of `data`.
    Totals train_step(const Data& data, double learning_rate);

    // One pass over the samples in the given order (null: as they lie), with one learning rate for each step. `poll` is
    // called between steps at most every `interval` seconds, and after the last; when it returns true the epoch ends
    // there.
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

    // Times the stages of every training step from now on, or no longer; `timings` tells of the largest batch size
    // since.
    void profile(bool on);
    std::vector<StageTime> timings();

    uint64_t iteration = 0;  // updates made so far

private:
    struct Ready {
        std::unique_ptr<Plan> plan;
        std::unique_ptr<backend::Execution> execution;
    };

    Ready& ready(Mode mode, int64_t batch);
    Mode widest_mode() const;
    Totals run(Mode mode, Run steps, double interval, const Poll& poll);
    Totals in_order(Mode mode, const Data& data, double interval, const Poll& poll);

    const Spec spec_;
    const int64_t batch_;
    const std::unique_ptr<backend::Runner> runner_;
    Machine machine_;
    bool profiling_ = false;
    std::vector<Ready> plans_;
    std::mutex mutex_;  // a program runs one thing at a time
};

}  // namespace tilefuse::program
