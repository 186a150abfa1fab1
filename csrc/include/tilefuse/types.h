// Types that every kernel's arguments share. Plain C; a kernel's header adds `tilefuse_<kernel>_args`.
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef enum tilefuse_dtype {
    TILEFUSE_FLOAT32 = 0,
    TILEFUSE_FLOAT64 = 1,
} tilefuse_dtype;

// How a kernel divides its output among the members of a team. The result's bits never depend on it.
typedef enum tilefuse_split {
    TILEFUSE_SPLIT_AUTO = 0,  // as the shape suggests
    TILEFUSE_SPLIT_ROWS = 1,  // contiguous rows, the same ones for every kernel with as many rows
    TILEFUSE_SPLIT_SUM = 2,   // parts of each sum; the members then add them up by rows, as in TILEFUSE_SPLIT_ROWS
} tilefuse_split;
