// Softmax and log-softmax over the last axis of a contiguous [rows, cols] array.
#pragma once

#include "tilefuse/types.h"

typedef struct tilefuse_softmax_args {
    tilefuse_dtype dtype;
    int log;  // 1: log-softmax
    int64_t rows, cols;
    const void* x;
    void* y;  // may be x
} tilefuse_softmax_args;

// softmax: dx = y * (dy - sum(dy * y)); log-softmax: dx = dy - exp(y) * sum(dy)
typedef struct tilefuse_softmax_backward_args {
    tilefuse_dtype dtype;
    int log;
    int64_t rows, cols;
    const void* dy;
    const void* y;
    void* dx;  // may be dy
} tilefuse_softmax_backward_args;
