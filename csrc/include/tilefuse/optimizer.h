// Optimizer updates, in place, over any number of tensors in one call.
#pragma once

#include "tilefuse/types.h"

typedef enum tilefuse_optimizer_kind {
    TILEFUSE_SGD = 0,   // slots: velocity, if momentum > 0
    TILEFUSE_ADAGRAD,   // slots: accumulator
    TILEFUSE_RMSPROP,   // slots: mean square; velocity, if momentum > 0; mean gradient, if centered
    TILEFUSE_ADAM,      // slots: m, v; v_hat, if amsgrad
} tilefuse_optimizer_kind;

// Whose numerics a rule has. PyTorch's: epsilon is added to the root (of Adam, of the unbiased v), not under it; a velocity
// adds up gradients, which are multiplied by 1 - dampening, and the learning rate multiplies what it adds to the weight.
typedef enum tilefuse_optimizer_convention {
    TILEFUSE_KERAS_OPTIMIZER = 0,
    TILEFUSE_TORCH_OPTIMIZER,
} tilefuse_optimizer_convention;

// What a step of an optimizer is; learning_rate and step change from one step to the next.
typedef struct tilefuse_optimizer_rule {
    tilefuse_optimizer_kind kind;
    tilefuse_optimizer_convention convention;
    int nesterov, centered, amsgrad;
    double learning_rate, momentum, rho, beta_1, beta_2, epsilon;
    double weight_decay;  // decoupled: w -= learning_rate * weight_decay * w, first
    double dampening;     // PyTorch's, of sgd with momentum
    double clip_value;    // gradients limited to [-clip_value, clip_value]; 0: not
    int64_t step;         // 1 for the first update
} tilefuse_optimizer_rule;

#define TILEFUSE_MAX_SLOTS 3

// One tensor to update: contiguous, n elements of T.
typedef struct tilefuse_parameter {
    int64_t n;
    void* w;
    const void* dw;  // not used when an update is fused into the kernel that computes dw
    void* slots[TILEFUSE_MAX_SLOTS];
    double l1, l2;             // penalties: dw += l1 * sign(w) + 2 * l2 * w
    const double* grad_scale;  // multiplies dw (clipping by norm); null: 1
} tilefuse_parameter;

typedef struct tilefuse_optimizer_args {
    tilefuse_dtype dtype;
    const tilefuse_optimizer_rule* rule;
    const tilefuse_parameter* parameters;
    int64_t count;
} tilefuse_optimizer_args;

// Clipping by norm: scales[i] = min(1, limit / norm) with the norm of tensor i's dw, or of all of them if `global`.
// penalties l1 and l2 are counted in. norms (or null) receives the norms themselves.
typedef struct tilefuse_clip_norm_args {
    tilefuse_dtype dtype;
    const tilefuse_parameter* parameters;
    int64_t count;
    double limit;
    int global;
    double* scales;  // [count]
    double* norms;   // [count], or null; all equal if `global`
} tilefuse_clip_norm_args;

// *value = sum over the parameters of l1 * sum|w| + l2 * sum(w * w)
typedef struct tilefuse_penalty_args {
    tilefuse_dtype dtype;
    const tilefuse_parameter* parameters;
    int64_t count;
    double* value;
} tilefuse_penalty_args;
