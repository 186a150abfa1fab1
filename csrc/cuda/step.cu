// Between two steps of a program: adds up the loss and accuracy of the one that ends, gives the next its learning rate
// and number, and the samples that it will gather. One block; the host need not know how far the device is.
#include "cuda/step.h"

#include "cuda/device.cuh"

namespace tilefuse::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads) next_step_kernel(StepQueue* queue, int64_t samples, int64_t rows) {
    const int64_t position = queue->position + samples;
    block_barrier();  // before it is changed
    if (threadIdx.x == 0) {
        program::StepState& step = queue->step;
        queue->position = position;
        if (samples > 0) {
            queue->steps += 1;
            step.iteration += static_cast<uint64_t>(queue->training);
        }
        if (rows > 0) {
            const double n = static_cast<double>(rows), weight = static_cast<double>(samples);
            queue->loss += (step.loss_sum / n + step.penalty) * weight;
            queue->accuracy += step.correct_sum / n * weight;
        }
        if (queue->training && position < queue->samples) {
            step.rule.learning_rate = queue->learning_rates[queue->steps];
            step.rule.step = static_cast<int64_t>(step.iteration) + 1;
        }
    }
    if (!queue->training) return;
    const int64_t left = queue->samples - position, count = left < queue->batch ? left : queue->batch;
    for (int64_t i = threadIdx.x; i < count; i += threads)
        queue->batch_order[i] = queue->order ? queue->order[position + i] : position + i;
}

}  // namespace

void next_step(cudaStream_t stream, StepQueue* queue, int64_t samples, int64_t rows) {
    launch(TILEFUSE_KERNEL(next_step_kernel), 1, threads, 0, stream, queue, samples, rows);
}

}  // namespace tilefuse::cuda
