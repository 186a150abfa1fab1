// Moving batches and adding up what they give.
#pragma once

#include "tilefuse/types.h"

// dst[i, :] = src[order[i], :] by bytes; order null: the rows as they are.
typedef struct tilefuse_gather_args {
    const int64_t* order;  // [rows]
    int64_t rows, row_bytes;
    const void* src;
    void* dst;
} tilefuse_gather_args;

// *sum = the sum of x[0..n), in order.
typedef struct tilefuse_total_args {
    int64_t n;
    const double* x;
    double* sum;
} tilefuse_total_args;
