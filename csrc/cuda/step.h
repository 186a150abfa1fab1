// What the steps of a program share on the device, so that a captured step can be launched again and again.
#pragma once

#include "cuda/launch.h"
#include "program/steps.h"

namespace tilefuse::cuda {

struct StepQueue {
    program::StepState step;
    double loss, accuracy;  // of the run so far: sums over the samples
    int64_t steps, position;  // done in the run so far; samples

    // The run: see program::Run.
    int64_t training, samples, batch;
    const int64_t* order;
    const double* learning_rates;
    int64_t* batch_order;  // [batch]: receives the next step's part of `order`
};

// Queues the end of a step with so many samples, whose loss is a sum over `rows` (0: it has none), and the beginning of
// the next. With no samples: the beginning of the run's first step.
void next_step(cudaStream_t stream, StepQueue* queue, int64_t samples, int64_t rows);

}  // namespace tilefuse::cuda
