// Losses, each with its gradient (and a row's correctness) in one pass over a contiguous [rows, cols] array.
#pragma once

#include "tilefuse/activation.h"
#include "tilefuse/types.h"

typedef enum tilefuse_loss_kind {
    TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY = 0,  // labels: int32 [rows]
    TILEFUSE_CATEGORICAL_CROSSENTROPY,             // labels: T [rows, cols]
    TILEFUSE_BINARY_CROSSENTROPY,                  // labels: T [rows, cols]; mean over cols
    TILEFUSE_MEAN_SQUARED_ERROR,                   // labels: T [rows, cols]; mean over cols
} tilefuse_loss_kind;

typedef struct tilefuse_loss_args {
    tilefuse_dtype dtype;
    tilefuse_loss_kind loss;
    int from_logits;  // cross-entropies: x holds logits; else probabilities, clipped to [1e-7, 1 - 1e-7]
    double label_smoothing;
    int64_t rows, cols;
    const void* x;
    const void* labels;
    const void* sample_weight;  // T [rows / rows_per_sample], or null
    int64_t rows_per_sample;
    double scale;         // multiplies dx; 1 / rows for the gradient of the mean
    void* dx;             // T [rows, cols], or null; may be x
    void* probabilities;  // T [rows, cols] softmax or sigmoid of the logits, or null; may be x
    double* row_loss;     // [rows], or null: the row's loss times its sample's weight
    double* row_correct;  // [rows], or null: fraction of the row predicted right, not weighted
} tilefuse_loss_args;
