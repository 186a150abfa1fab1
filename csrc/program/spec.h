// What a Program is made from: the layers, the loss and the optimizer, with their variables in place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tilefuse/activation.h"
#include "tilefuse/conv.h"
#include "tilefuse/loss.h"
#include "tilefuse/mlp.h"
#include "tilefuse/optimizer.h"
#include "tilefuse/pool.h"

namespace tilefuse::program {

using Shape = std::vector<int64_t>;  // of one sample, without the batch axis

// An activation function, or a softmax over the last axis.
struct Activation {
    enum Kind { elementwise, softmax, log_softmax } kind = elementwise;
    tilefuse_activation_kind function = TILEFUSE_LINEAR;
    double alpha = 0;
    std::string name = "linear";

    bool linear() const { return kind == elementwise && function == TILEFUSE_LINEAR; }
};

struct Variable {
    void* data = nullptr;  // null: there is none (a layer without bias)
    int64_t size = 0;
    void* slots[TILEFUSE_MAX_SLOTS] = {};
    double l1 = 0, l2 = 0;
};

constexpr int network_input = -1;

struct Layer {
    enum Kind { dense, conv, pool, batch_norm, layer_norm, rms_norm, add, activate, dropout, reshape } kind = dense;
    std::string name;
    std::vector<int> sources;        // the layers whose outputs it takes, earlier ones, or network_input; add: several
    Shape shape;                     // of its output
    Activation activation;           // dense, conv, activate
    int64_t inputs = 0;              // dense: the kernel is [inputs, units]
    tilefuse_conv2d_shape window = {};  // conv, pool (c = f): of one sample
    tilefuse_pool_kind pooling = TILEFUSE_POOL_MAX;  // pool; means are of what lies in the image
    Variable kernel, bias;           // dense, conv; normalisations: gamma and beta
    Variable mean, variance;         // batch_norm: the moving ones
    bool trainable = true;           // those
    double epsilon = 0, momentum = 0;  // normalisations
    double rate = 0;                 // dropout
    uint64_t seed = 0;               // dropout

    bool has_weights() const { return kernel.data != nullptr || bias.data != nullptr; }
};

struct Loss {
    tilefuse_loss_kind kind = TILEFUSE_MEAN_SQUARED_ERROR;
    bool from_logits = false;
    double label_smoothing = 0;
};

struct Optimizer {
    tilefuse_optimizer_rule rule = {};
    double clip_norm = 0, global_clip_norm = 0;  // 0: off
};

// Narrow dense layers go through one kernel together, where the machine has one.
struct Networks {
    bool whole = true;  // else each layer by itself
    std::optional<tilefuse_mlp_precision> precision;  // none: as the program's
};

struct Spec {
    tilefuse_dtype dtype = TILEFUSE_FLOAT32;
    tilefuse_precision precision = TILEFUSE_PRECISION_FLOAT32;  // of matmuls
    Shape input_shape;
    std::vector<Layer> layers;
    std::optional<Loss> loss;
    std::optional<Optimizer> optimizer;
    Networks networks;

    int64_t item_size() const { return dtype == TILEFUSE_FLOAT32 ? 4 : 8; }
};

inline int64_t size_of(const Shape& shape) {
    int64_t size = 1;
    for (int64_t n : shape) size *= n;
    return size;
}

inline Shape output_shape(const Spec& spec) { return spec.layers.empty() ? spec.input_shape : spec.layers.back().shape; }
int64_t label_bytes(const Spec& spec);  // of one sample

}  // namespace tilefuse::program
