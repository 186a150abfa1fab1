// Batch, layer and RMS normalisation of contiguous [rows, cols] arrays, and their gradients.
#pragma once

#include "tilefuse/matmul.h"
#include "tilefuse/optimizer.h"
#include "tilefuse/types.h"

// y = epilogue(gamma (x - mean) inv_std + beta) with the mean and 1 / sqrt(variance + epsilon) of each column
// (channel). Training: those of the rows of x (the variance is the biased one), and
// moving = momentum moving + (1 - momentum) batch; no rows at all have mean and variance 0 and move nothing.
// Else: the moving ones.
typedef struct tilefuse_batch_norm_args {
    tilefuse_dtype dtype;
    int training;
    int64_t rows, cols;
    const void* x;
    void* y;                                // may be x
    const void *gamma, *beta;               // [cols]; null: ones, zeros
    void *moving_mean, *moving_variance;    // [cols]; null, in training: nobody wants them
    void *mean, *inv_std;                   // [cols]: receive what x was normalised with; null: nobody wants them
    double momentum, epsilon;
    tilefuse_epilogue epilogue;             // addend, activation and preactivation
} tilefuse_batch_norm_args;

// With n = (x - mean) inv_std: dbeta = sum(dy), dgamma = sum(dy n), and in training
// dx = gamma inv_std (dy - dbeta / rows - n dgamma / rows), else dx = gamma inv_std dy. dy is the gradient before the
// activation, which is the addend's too. With a rule dgamma and dbeta update their parameters instead, after dx has been
// computed with gamma as it was, and are not written.
typedef struct tilefuse_batch_norm_backward_args {
    tilefuse_dtype dtype;
    int training;
    int64_t rows, cols;
    const void *dy, *x;
    const void* gamma;           // null: ones
    const void *mean, *inv_std;  // as the forward pass left them
    void* dx;                    // may be dy; null: nobody wants it
    void *dgamma, *dbeta;        // null: nobody wants them
    tilefuse_epilogue epilogue;  // of dx: addend, mask and derivative of what made x
    const tilefuse_optimizer_rule* rule;
    tilefuse_parameter gamma_parameter, beta_parameter;  // w is null where there is none
} tilefuse_batch_norm_backward_args;

// Batch normalisation by moving averages of x + bias as a factor and a shift for each column, for the epilogue of what makes
// x: scale = gamma / sqrt(variance + epsilon), shift = beta + (bias - mean) scale.
typedef struct tilefuse_batch_norm_fold_args {
    tilefuse_dtype dtype;
    int64_t cols;
    const void *gamma, *beta, *bias;  // [cols]; null: ones, zeros, zeros
    const void *mean, *variance;      // [cols]
    double epsilon;
    void *scale, *shift;              // [cols]
} tilefuse_batch_norm_fold_args;

// y = gamma (x - mean) inv_std + beta with the mean and 1 / sqrt(variance + epsilon) of each row; RMS: the mean is taken
// to be 0.
typedef struct tilefuse_layer_norm_args {
    tilefuse_dtype dtype;
    int rms;
    int64_t rows, cols;
    double epsilon;
    const void* x;
    const void *gamma, *beta;  // [cols]; null: ones, zeros
    void* y;                   // may be x
    void *mean, *inv_std;      // [rows]; null: nobody wants them
} tilefuse_layer_norm_args;

// With n = (x - mean) inv_std and g = gamma dy: dbeta = sum of dy's rows, dgamma = sum of dy n's rows, and
// dx = inv_std (g - sum(g) / cols - n sum(g n) / cols), RMS without the sum of g. With a rule: as for batch norm.
typedef struct tilefuse_layer_norm_backward_args {
    tilefuse_dtype dtype;
    int rms;
    int64_t rows, cols;
    double epsilon;
    const void *dy, *x;
    const void* gamma;           // null: ones
    const void *mean, *inv_std;  // as the forward pass left them; inv_std null: both are computed again
    void* dx;                    // may be dy; null: nobody wants it
    void *dgamma, *dbeta;        // null: nobody wants them
    const tilefuse_optimizer_rule* rule;
    tilefuse_parameter gamma_parameter, beta_parameter;  // w is null where there is none
} tilefuse_layer_norm_backward_args;
