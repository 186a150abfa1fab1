// Lowering: the forward stages.
#include "program/lowering.h"

namespace tilefuse::program {

// How the members of a team share out a dense layer's forward product.
//
// Small weights: by rows of the batch. Then a member goes through all such layers with its own rows and waits for
// nobody. Large weights: each member multiplies with the same rows of w (and columns of x) that it updates in the
// end, so that they stay in its own cache: a line that another core has read is slow to write.
// Wide outputs, and batches too small for the team: as suits the product.
// (Zen 3, two threads, 784-128-10, batch 32, best of 100 blocks in three interleaved runs: 192 to 213 us a step with
// the first layer by rows, 132 to 189 us by sums.)
tilefuse_split Lowering::split_of(const Node& node) const {
    constexpr int64_t large = 64 * 1024;  // bytes of weights
    constexpr int64_t wide = 2048;        // bytes of a row of y; however many members there are, as sums have other bits
    const int64_t item = spec_.item_size(), weights = node.inputs * node.cols * item;
    if (node.cols * item >= wide) return TILEFUSE_SPLIT_AUTO;
    if (weights >= large && node.inputs > node.rows) return TILEFUSE_SPLIT_SUM;
    return weights < 4 * large && node.rows >= 4 * machine_.members ? TILEFUSE_SPLIT_ROWS : TILEFUSE_SPLIT_AUTO;
}

// Where the node's x is, and where its y will be.
void Lowering::find_ends(Node& node) {
    node.x = y_of(node.source);
    if (&node == &nodes_.back() && plan_.mode == Mode::predict) {
        node.y = plan_.inputs[predictions];
    } else {
        node.y = floats("y of " + node.layer->name, node.rows * node.cols);
    }
}

void Lowering::forward(Node& node) {
    find_ends(node);
    const std::string shape = " -> " + shape_text(node.rows, node.cols);
    if (node.drop != nullptr) dropout_mask(node);
    if (node.kind == Layer::dense) {
        forward_dense(node, shape);
    } else if (node.kind == Layer::conv) {
        forward_conv(node, shape);
    } else if (node.kind == Layer::pool) {
        forward_pool(node, shape);
    } else if (node.kind == Layer::batch_norm) {
        forward_batch_norm(node, shape);
    } else if (node.kind == Layer::layer_norm || node.kind == Layer::rms_norm) {
        forward_layer_norm(node, shape);
    } else if (node.kind == Layer::add) {
        tilefuse_add_args args = {};
        args.dtype = spec_.dtype;
        args.rows = node.rows;
        args.cols = node.cols;
        auto& a = stage(node.layer->name + ": x", args);
        reads(a.x, node.x, node.rows);
        writes(a.y, node.y, node.rows);
        finish(node, a.epilogue, node.rows);
        plan_.stages.back().text += shape;
    } else if (node.kind == Layer::dropout) {
        tilefuse_dropout_args args = {};
        args.dtype = spec_.dtype;
        args.rows = node.rows;
        args.cols = node.cols;
        args.scale = node.mask_scale();
        auto& a = stage(node.layer->name + ": dropout" + shape, args);
        reads(a.x, node.x, node.rows);
        reads(a.mask, node.mask, node.rows);
        writes(a.y, node.y, node.rows);
    } else if (node.activation.kind == Activation::elementwise) {
        tilefuse_activation_args args = {};
        args.dtype = spec_.dtype;
        args.activation = node.activation.function;
        args.alpha = node.activation.alpha;
        args.rows = node.rows;
        args.cols = node.cols;
        auto& a = stage(node.layer->name + ": " + node.activation.name + shape, args);
        reads(a.x, node.x, node.rows);
        writes(a.y, node.y, node.rows);
        node.z = node.x;
    } else {
        tilefuse_softmax_args args = {};
        args.dtype = spec_.dtype;
        args.log = node.activation.kind == Activation::log_softmax;
        args.rows = node.rows;
        args.cols = node.cols;
        auto& a = stage(node.layer->name + ": " + node.activation.name + shape, args);
        reads(a.x, node.x, node.rows);
        writes(a.y, node.y, node.rows);
    }
}

void Lowering::forward_dense(Node& node, const std::string& shape) {
    fold(node);
    const Layer& layer = *node.layer;
    tilefuse_matmul_args args = {};
    args.dtype = spec_.dtype;
    args.precision = spec_.precision;
    args.split = split_of(node);
    args.m = node.rows;
    args.n = node.cols;
    args.k = node.inputs;
    args.a_row_stride = node.inputs;
    args.a_col_stride = 1;
    args.b = layer.kernel.data;
    args.b_row_stride = node.cols;
    args.b_col_stride = 1;
    args.c_row_stride = node.cols;
    auto& a = stage(layer.name + ": x w", args);
    const int64_t share = args.split == TILEFUSE_SPLIT_AUTO ? anywhere : node.rows;
    reads(a.a, node.x, args.split == TILEFUSE_SPLIT_ROWS ? share : anywhere);
    writes(a.c, node.y, share);
    touches_kernel(layer, false);
    touches_bias(layer, false);
    if (args.split == TILEFUSE_SPLIT_SUM) touches(team_memory_, true);
    finish(node, a.epilogue, share);
    plan_.stages.back().text += shape;
}

void Lowering::forward_conv(Node& node, const std::string& shape) {
    fold(node);
    const Layer& layer = *node.layer;
    tilefuse_conv2d_args args = {};
    args.dtype = spec_.dtype;
    args.precision = spec_.precision;
    args.shape = window_of(node, plan_.batch);
    args.w = layer.kernel.data;
    args.pool = pool_of(node);
    auto& a = stage(layer.name + ": convolution", args);
    reads(a.x, node.x, anywhere);
    writes(a.y, node.y, anywhere);
    touches_kernel(layer, false);
    touches(team_memory_, true);
    finish(node, a.epilogue, anywhere);
    plan_.stages.back().text += (node.pool ? ", max-pooling" : "") + shape;
    if (node.pool && training_ && node.learns) {
        node.argmax = buffer("maxima of " + node.pool->name, node.size());
        writes(a.argmax, node.argmax, anywhere);
    }
}

// The newest stage's epilogue, in its order: bias (or what a normalisation makes of it), addend, activation, dropout.
void Lowering::finish(Node& node, tilefuse_epilogue& epilogue, int64_t share) {
    std::string& text = plan_.stages.back().text;
    if (node.kind == Layer::dense || node.kind == Layer::conv) {
        if (node.norm == nullptr) {
            epilogue.bias = node.layer->bias.data;
            touches_bias(*node.layer, false);
            if (epilogue.bias) text += " + bias";
        } else {
            reads(epilogue.scale, node.scale, anywhere);
            reads(epilogue.bias, node.shift, anywhere);
            text += ", " + node.norm->name;
        }
    }
    if (node.addend != no_node) {
        reads(epilogue.addend, y_of(node.addend), share);
        text += " + " + (node.addend == network_input ? std::string("x") : "y of " + this->node(node.addend).layer->name);
    }
    epilogue.activation = node.activation.function;
    epilogue.activation_alpha = node.activation.alpha;
    if (!node.activation.linear()) text += ", " + node.activation.name;
    // What is kept for the gradient alone is not kept where nothing below learns.
    if (training_ && node.learns && node.derivative_needs_input()) {
        node.z = floats("z of " + node.layer->name, node.size());
        writes(epilogue.preactivation, node.z, share);
    }
    if (node.drop == nullptr) return;
    epilogue.mask_scale = node.mask_scale();
    reads(epilogue.mask, node.mask, share);
    text += ", dropout";
}

// A folded normalisation is a factor and a bias for each column, made anew each time: the moving averages may have changed.
void Lowering::fold(Node& node) {
    if (node.norm == nullptr) return;
    const Layer& norm = *node.norm;
    tilefuse_batch_norm_fold_args args = {};
    args.dtype = spec_.dtype;
    args.cols = node.cols;
    args.epsilon = norm.epsilon;
    args.gamma = norm.kernel.data;
    args.beta = norm.bias.data;
    args.mean = norm.mean.data;
    args.variance = norm.variance.data;
    args.bias = node.layer->bias.data;
    auto& a = stage(norm.name + ": scale and shift [" + std::to_string(node.cols) + "]", args);
    node.scale = floats("scale of " + norm.name, node.cols);
    node.shift = floats("shift of " + norm.name, node.cols);
    writes(a.scale, node.scale, node.cols);
    writes(a.shift, node.shift, node.cols);
}

void Lowering::forward_pool(Node& node, const std::string& shape) {
    tilefuse_pool2d_args args = {};
    args.dtype = spec_.dtype;
    args.kind = node.layer->pooling;
    args.shape = window_of(node, plan_.batch);
    const bool maxima = args.kind == TILEFUSE_POOL_MAX;
    auto& a = stage(node.layer->name + (maxima ? ": max-pooling" : ": average pooling") + shape, args);
    reads(a.x, node.x, anywhere);
    writes(a.y, node.y, anywhere);
    if (!maxima || !training_ || !node.learns) return;
    const bool bytes = args.shape.kernel_h * args.shape.kernel_w <= TILEFUSE_POOL_OF_BYTES;
    node.argmax = buffer("maxima of " + node.layer->name, node.size() * (bytes ? 1 : static_cast<int64_t>(sizeof(int32_t))));
    writes(a.argmax, node.argmax, anywhere);
}

void Lowering::forward_batch_norm(Node& node, const std::string& shape) {
    const Layer& layer = *node.layer;
    tilefuse_batch_norm_args args = {};
    args.dtype = spec_.dtype;
    args.training = training_ && layer.trainable;
    args.rows = node.rows;
    args.cols = node.cols;
    args.gamma = layer.kernel.data;
    args.beta = layer.bias.data;
    args.moving_mean = layer.mean.data;
    args.moving_variance = layer.variance.data;
    args.momentum = layer.momentum;
    args.epsilon = layer.epsilon;
    auto& a = stage(layer.name + (args.training ? ": normalisation" : ": normalisation by moving averages"), args);
    reads(a.x, node.x, anywhere);
    writes(a.y, node.y, anywhere);
    touches_kernel(layer, false);
    touches_bias(layer, false);
    touches(buffer_of(layer.mean, "moving mean of " + layer.name), args.training);
    touches(buffer_of(layer.variance, "moving variance of " + layer.name), args.training);
    touches(team_memory_, true);
    finish(node, a.epilogue, anywhere);
    plan_.stages.back().text += shape;
    keep_statistics(a, node, node.cols);
}

void Lowering::forward_layer_norm(Node& node, const std::string& shape) {
    const Layer& layer = *node.layer;
    tilefuse_layer_norm_args args = {};
    args.dtype = spec_.dtype;
    args.rms = layer.kind == Layer::rms_norm;
    args.rows = node.rows;
    args.cols = node.cols;
    args.gamma = layer.kernel.data;
    args.beta = layer.bias.data;
    args.epsilon = layer.epsilon;
    auto& a = stage(layer.name + (args.rms ? ": RMS normalisation" : ": normalisation") + shape, args);
    reads(a.x, node.x, node.rows);
    writes(a.y, node.y, node.rows);
    touches_kernel(layer, false);
    touches_bias(layer, false);
    keep_statistics(a, node, node.rows);
}

void Lowering::dropout_mask(Node& node) {
    node.mask = buffer("mask of " + node.drop->name, node.rows * node.cols);
    tilefuse_dropout_mask_args args = {};
    args.rows = node.rows;
    args.cols = node.cols;
    args.seed = node.drop->seed;
    args.step = &state_->iteration;
    args.rate = node.drop->rate;
    auto& a = stage(node.drop->name + ": mask " + shape_text(node.rows, node.cols), args);
    writes(a.mask, node.mask, node.rows);
}

}  // namespace tilefuse::program
