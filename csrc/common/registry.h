// The registry: every kernel of the library by its name. Nowhere else is a list.
#pragma once

#include "tilefuse/activation.h"
#include "tilefuse/add.h"
#include "tilefuse/conv.h"
#include "tilefuse/data.h"
#include "tilefuse/dropout.h"
#include "tilefuse/loss.h"
#include "tilefuse/matmul.h"
#include "tilefuse/mlp.h"
#include "tilefuse/norm.h"
#include "tilefuse/optimizer.h"
#include "tilefuse/pool.h"
#include "tilefuse/softmax.h"

// `name` has arguments tilefuse_<name>_args, declared in include/tilefuse/<family>.h.
#define TILEFUSE_KERNELS(kernel)      \
    TILEFUSE_PRODUCTS(kernel)         \
    kernel(column_sum)                \
    TILEFUSE_CONVOLUTIONS(kernel)     \
    kernel(pool2d)                    \
    kernel(pool2d_backward)           \
    kernel(activation)                \
    kernel(activation_backward)       \
    kernel(add)                       \
    kernel(softmax)                   \
    kernel(softmax_backward)          \
    kernel(batch_norm)                \
    kernel(batch_norm_backward)       \
    kernel(batch_norm_fold)           \
    kernel(layer_norm)                \
    kernel(layer_norm_backward)       \
    kernel(loss)                      \
    kernel(dropout_mask)              \
    kernel(dropout)                   \
    kernel(optimizer)                 \
    kernel(clip_norm)                 \
    kernel(penalty)                   \
    kernel(gather)                    \
    kernel(total)

#define TILEFUSE_PRODUCTS(kernel) kernel(matmul)

#define TILEFUSE_CONVOLUTIONS(kernel) \
    kernel(conv2d)                    \
    kernel(conv2d_backward_data)      \
    kernel(conv2d_backward_weights)

#define TILEFUSE_PRODUCTS_AND_CONVOLUTIONS(kernel) TILEFUSE_PRODUCTS(kernel) TILEFUSE_CONVOLUTIONS(kernel)

// Those that CUDA devices have, and the CPU has not.
#define TILEFUSE_CUDA_KERNELS(kernel) \
    TILEFUSE_KERNELS(kernel)          \
    kernel(mlp)
