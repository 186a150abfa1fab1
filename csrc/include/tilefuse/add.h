// Sums of two arrays, elementwise: where the branches of a network meet, and where their gradients do.
#pragma once

#include "tilefuse/matmul.h"

// y = epilogue(x), whose addend is the other array; y may be x.
typedef struct tilefuse_add_args {
    tilefuse_dtype dtype;
    int64_t rows, cols;  // contiguous [rows, cols]; members of the team share out the rows
    const void* x;
    void* y;
    tilefuse_epilogue epilogue;  // its addend, activation, preactivation, mask and derivative
} tilefuse_add_args;
