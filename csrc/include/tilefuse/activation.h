// Elementwise activations and their derivatives.
#pragma once

#include "tilefuse/types.h"

typedef enum tilefuse_activation_kind {
    TILEFUSE_LINEAR = 0,
    TILEFUSE_RELU,
    TILEFUSE_LEAKY_RELU,  // alpha: slope for x < 0
    TILEFUSE_ELU,         // alpha: -alpha is the limit for x -> -inf
    TILEFUSE_SELU,
    TILEFUSE_SIGMOID,
    TILEFUSE_TANH,
    TILEFUSE_SOFTPLUS,
    TILEFUSE_SILU,       // from here on the derivative needs the input, not the output
    TILEFUSE_GELU,       // x * Phi(x)
    TILEFUSE_GELU_TANH,  // the tanh approximation of gelu
    TILEFUSE_ACTIVATION_COUNT
} tilefuse_activation_kind;

// y[i] = f(x[i]); y may be x.
typedef struct tilefuse_activation_args {
    tilefuse_dtype dtype;
    tilefuse_activation_kind activation;
    double alpha;
    int64_t rows, cols;  // contiguous [rows, cols]; members of the team share out the rows
    const void* x;
    void* y;
} tilefuse_activation_args;

// dx[i] = dy[i] * f'(at[i]), where `at` is the output y (or the input x for silu and gelu); dx may be dy.
typedef struct tilefuse_activation_backward_args {
    tilefuse_dtype dtype;
    tilefuse_activation_kind activation;
    double alpha;
    int64_t rows, cols;
    const void* dy;
    const void* at;
    void* dx;
} tilefuse_activation_backward_args;
