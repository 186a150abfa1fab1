// Dropout. Element e of a tensor is kept or dropped by Philox4x32-10 at counter (e, step): see common/random.h.
#pragma once

#include "tilefuse/types.h"

typedef struct tilefuse_dropout_mask_args {
    int64_t rows, cols;   // mask is a contiguous [rows, cols]
    uint64_t seed;        // the key
    const uint64_t* step; // the counter's upper half; read when the kernel runs
    double rate;          // probability of being dropped, in [0, 1)
    uint8_t* mask;        // 1: kept, 0: dropped
} tilefuse_dropout_mask_args;

// y[i] = mask[i] ? x[i] * scale : 0. Serves the backward direction too.
typedef struct tilefuse_dropout_args {
    tilefuse_dtype dtype;
    int64_t rows, cols;
    const void* x;
    const uint8_t* mask;
    double scale;  // 1 / (1 - rate)
    void* y;       // may be x
} tilefuse_dropout_args;
