// A whole multi-layer perceptron, forward or backward, in one kernel: what lies between its layers never leaves the
// block. On CUDA devices only. Arrays are float32 and contiguous.
#pragma once

#include "tilefuse/activation.h"
#include "tilefuse/types.h"

#define TILEFUSE_MLP_LAYERS 8   // the most that a network may have
#define TILEFUSE_MLP_WIDTH 128  // the most outputs that a layer may have

// How products are made; sums are float32.
typedef enum tilefuse_mlp_precision {
    TILEFUSE_MLP_FMA = 0,   // float32
    TILEFUSE_MLP_SPLIT,     // on matrix units, float32 operands in three tf32 parts: as accurate as FMA
    TILEFUSE_MLP_BFLOAT16,  // on matrix units, operands rounded to bfloat16
    TILEFUSE_MLP_FLOAT16,
} tilefuse_mlp_precision;  // GPUs without such matrix units (below sm_80) take TILEFUSE_MLP_FMA for any

// y = f(z), z = x w + b, where x is the y of the layer below. With a mask, y = mask ? f(z) * mask_scale : 0.
typedef struct tilefuse_mlp_layer {
    int outputs;  // 1 to TILEFUSE_MLP_WIDTH
    tilefuse_activation_kind activation;
    double activation_alpha;
    const float* w;  // [inputs, outputs]
    const float* b;  // [outputs], or null
    const uint8_t* mask;  // [batch, outputs], or null: of dropout; f' is then of y as it is
    double mask_scale;
    float* z;        // [batch, outputs], or null: written forward; read backward where f' needs the input
    float* y;        // [batch, outputs], or null: written forward; read backward by f', and for dw of the layer above
    float* dz;       // [batch, outputs], or null: receives the gradient of z
    float* dw;       // [inputs, outputs], or null: not wanted
    float* db;       // [outputs], or null
} tilefuse_mlp_layer;

// The last layer's y is the result. Most arguments serve both directions.
typedef struct tilefuse_mlp_args {
    int backward;  // 0: forward
    tilefuse_mlp_precision precision;
    int64_t batch;
    int64_t inputs;  // of the first layer: any number
    int layers;      // 1 to TILEFUSE_MLP_LAYERS
    tilefuse_mlp_layer layer[TILEFUSE_MLP_LAYERS];
    const float* x;   // [batch, inputs]
    const float* dy;  // [batch, outputs of the last layer]: backward
    float* dx;        // [batch, inputs], or null
} tilefuse_mlp_args;
