// 2-D pooling, and its gradient. Images lie as [n, h, w, c] (NHWC); all arrays are contiguous.
#pragma once

#include "tilefuse/conv.h"

typedef enum tilefuse_pool_kind {
    TILEFUSE_POOL_MAX = 0,
    TILEFUSE_POOL_AVERAGE,
} tilefuse_pool_kind;

#define TILEFUSE_POOL_OF_BYTES 256  // the largest window, in elements, whose maxima have their places in bytes

// y[n, i, j, c]: the largest, or the mean, of the window x[n, i stride_h + p - pad_top, j stride_w + q - pad_left, c] for all p
// and q. Of the shape, f is c; dilation and groups are 1. Padding never is the largest: a window with nothing else gives
// minus infinity. One with a NaN gives NaN.
typedef struct tilefuse_pool2d_args {
    tilefuse_dtype dtype;
    tilefuse_pool_kind kind;
    tilefuse_conv2d_shape shape;
    int count_padding;  // of means: 1 divides by the window's size, 0 by how many of its elements are inside of x (if
                        // there is none, the mean is 0)
    const void* x;
    void* y;       // [n, out_h, out_w, c]; null, of maxima with argmax: nobody wants it
    void* argmax;  // as y, of maxima: where in its window the largest is, p * kernel_w + q, the first one (and a NaN is larger
                   // than all others); uint8, or int32 for windows beyond
                   // TILEFUSE_POOL_OF_BYTES; null: nobody wants it
} tilefuse_pool2d_args;

// dx from dy: of maxima by the argmax that they left, of means by the shape alone. Each element of dx adds up what it has in
// the windows that it is in, row by row.
typedef struct tilefuse_pool2d_backward_args {
    tilefuse_dtype dtype;
    tilefuse_pool_kind kind;
    tilefuse_conv2d_shape shape;
    int count_padding;
    const void* dy;
    const void* argmax;
    void* dx;
    tilefuse_epilogue epilogue;  // of dx: mask and derivative of what made x
} tilefuse_pool2d_backward_args;
