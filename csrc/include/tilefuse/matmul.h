// Matrix multiplication C = epilogue(A B + beta * C), batched, A and B of any strides.
#pragma once

#include "tilefuse/activation.h"
#include "tilefuse/optimizer.h"
#include "tilefuse/types.h"

#define TILEFUSE_MAX_BATCH_AXES 6

// How float32 operands are multiplied. Sums are float32.
typedef enum tilefuse_precision {
    TILEFUSE_PRECISION_FLOAT32 = 0,  // as exactly as float32 multiply-adds do: by these, or on matrix units, where
                                     // operands are split into parts
    TILEFUSE_PRECISION_IEEE,         // by float32 multiply-adds
    TILEFUSE_PRECISION_BFLOAT16,     // operands rounded to bfloat16
    TILEFUSE_PRECISION_SPLIT,        // these and the next on CUDA devices alone: on matrix units, split into parts
    TILEFUSE_PRECISION_TF32,         // operands rounded to tf32,
    TILEFUSE_PRECISION_FLOAT16,      // to float16
} tilefuse_precision;

// How float32 numbers lie in memory.
typedef enum tilefuse_storage {
    TILEFUSE_STORED_WHOLE = 0,
    TILEFUSE_STORED_BFLOAT16,
    TILEFUSE_STORED_FLOAT16,  // on CUDA devices alone
} tilefuse_storage;

// What happens to a tile of C, with value c at (i, j), before it is written; in this order. Zero means nothing.
typedef struct tilefuse_epilogue {
    const void* scale;               // T [n]: c *= scale[j]
    const void* bias;                // T [n]: c += bias[j]
    const void* addend;              // T, strides as C: c += addend
    tilefuse_activation_kind activation;  // c = f(c)
    double activation_alpha;
    void* preactivation;             // T, strides as C: receives c before the activation
    const void* derivative_at;       // T, strides as C: c *= g'(derivative_at), for `derivative`
    tilefuse_activation_kind derivative;
    double derivative_alpha;
    const uint8_t* mask;             // contiguous [m, n]: c = mask ? c * mask_scale : 0, before derivative_at
    double mask_scale;
    const tilefuse_optimizer_rule* rule;  // c is the gradient of `parameter`: update it; C itself is not written
    tilefuse_parameter parameter;    // contiguous [m, n]
} tilefuse_epilogue;

typedef struct tilefuse_matmul_args {
    tilefuse_dtype dtype;
    tilefuse_precision precision;  // of float32; float64 has but one
    tilefuse_storage operands;     // of A and B in float32: in 16 bits, they need no rounding
    tilefuse_storage result;       // of C in float32: if in 16 bits, A and B are, too
    tilefuse_split split;
    int64_t m, n, k;
    const void *a, *b;
    void* c;
    int64_t a_row_stride, a_col_stride;  // strides in elements; A is [m, k]
    int64_t b_row_stride, b_col_stride;  // B is [k, n]
    int64_t c_row_stride;                // C is [m, n], its columns are contiguous
    int batch_axes;  // 0: one product
    int64_t batch_shape[TILEFUSE_MAX_BATCH_AXES];
    int64_t a_batch_strides[TILEFUSE_MAX_BATCH_AXES];  // 0 broadcasts
    int64_t b_batch_strides[TILEFUSE_MAX_BATCH_AXES];
    int64_t c_batch_strides[TILEFUSE_MAX_BATCH_AXES];
    double beta;  // 0 never reads C
    tilefuse_epilogue epilogue;
} tilefuse_matmul_args;

// y[j] = sum over i of x[i, j], in the order of i; with a rule, y is the gradient of `parameter` instead (a bias).
typedef struct tilefuse_column_sum_args {
    tilefuse_dtype dtype;
    int64_t m, n;
    const void* x;  // contiguous [m, n]
    void* y;        // [n]
    const tilefuse_optimizer_rule* rule;
    tilefuse_parameter parameter;
} tilefuse_column_sum_args;
