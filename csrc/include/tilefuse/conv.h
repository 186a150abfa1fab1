// 2-D convolution (cross-correlation, as in all frameworks) with groups, and its gradients. Images lie as [n, h, w, c]
// (NHWC), weights as [kernel_h, kernel_w, c / groups, f] (HWIO); all arrays are contiguous.
#pragma once

#include "tilefuse/matmul.h"
#include "tilefuse/optimizer.h"
#include "tilefuse/types.h"

// y[n, i, j, g f' + b] = sum over p, q and a of x[n, i stride_h + p dilation_h - pad_top, j stride_w + q dilation_w - pad_left,
// g c' + a] w[p, q, a, g f' + b], where c' = c / groups, f' = f / groups, and x is 0 outside. out_h and out_w may be
// anything: what they need after the last row and column of x is 0 too.
typedef struct tilefuse_conv2d_shape {
    int64_t n, h, w, c;
    int64_t kernel_h, kernel_w, f;
    int64_t out_h, out_w;
    int64_t stride_h, stride_w, dilation_h, dilation_w;
    int64_t pad_top, pad_left;
    int64_t groups;
} tilefuse_conv2d_shape;

// Max-pooling of the output with windows side by side: pooled[n, out_h / height, out_w / width, f], each the largest of its
// height x width values; rows and columns that fill no window are left out. The position of the largest value (of equal
// ones, any: an activation may have made them equal) is p * width + q, one byte. At most 256 values a window.
typedef struct tilefuse_conv2d_pool {
    int64_t height, width;  // 0: no pooling
} tilefuse_conv2d_pool;

// y = activation(conv(x, w) + bias), or the max-pooling of that, for which the activation must never fall.
typedef struct tilefuse_conv2d_args {
    tilefuse_dtype dtype;
    tilefuse_precision precision;
    tilefuse_conv2d_shape shape;
    const void* x;
    const void* w;
    void* y;                     // [n, out_h, out_w, f], or what pooling leaves of it
    tilefuse_epilogue epilogue;  // bias, activation; without pooling also scale, addend and preactivation
    tilefuse_conv2d_pool pool;
    uint8_t* argmax;             // with pooling, as y; null: nobody wants it
} tilefuse_conv2d_args;

// dx from the gradient before the activation, dy; with pooling dy and argmax are as the pooling left them.
typedef struct tilefuse_conv2d_backward_data_args {
    tilefuse_dtype dtype;
    tilefuse_precision precision;
    tilefuse_conv2d_shape shape;
    const void* dy;
    const void* w;
    void* dx;
    tilefuse_epilogue epilogue;  // of dx: addend, mask and derivative of what made x
    tilefuse_conv2d_pool pool;
    const uint8_t* argmax;
} tilefuse_conv2d_backward_data_args;

// dw and db from x and the gradient before the activation. With a rule they update their parameters instead, and dw and db
// are not written.
typedef struct tilefuse_conv2d_backward_weights_args {
    tilefuse_dtype dtype;
    tilefuse_precision precision;
    tilefuse_conv2d_shape shape;
    const void* x;
    const void* dy;
    void* dw;
    void* db;  // [f]; null: no bias
    tilefuse_conv2d_pool pool;
    const uint8_t* argmax;
    const tilefuse_optimizer_rule* rule;
    tilefuse_parameter kernel, bias;  // bias.w is null where there is none
} tilefuse_conv2d_backward_weights_args;
