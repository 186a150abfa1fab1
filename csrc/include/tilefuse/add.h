// Sums of two arrays, elementwise: where the branches of a network meet, and where their gradients do.
#pragma once

#include "tilefuse/matmul.h"

// y = epilogue(a + b); y may be a or b.
typedef struct tilefuse_add_args {
    tilefuse_dtype dtype;
    int64_t rows, cols;  // contiguous [rows, cols]; members of the team share out the rows
    const void *a, *b;
    void* y;
    tilefuse_epilogue epilogue;  // its activation, preactivation, mask and derivative
} tilefuse_add_args;
