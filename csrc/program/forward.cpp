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
    constexpr int64_t wide = 1024;        // bytes of a row of y for each member
    const int64_t item = spec_.item_size(), weights = node.inputs * node.cols * item;
    if (node.cols * item >= wide * machine_.members) return TILEFUSE_SPLIT_AUTO;
    if (weights >= large && node.inputs > node.rows) return TILEFUSE_SPLIT_SUM;
    return weights < 4 * large && node.rows >= 4 * machine_.members ? TILEFUSE_SPLIT_ROWS : TILEFUSE_SPLIT_AUTO;
}

// Where the node's x is, and where its y will be.
void Lowering::find_ends(Node& node) {
    node.x = node.source == network_input ? plan_.inputs[batch_x] : nodes_[static_cast<size_t>(node.source)].y;
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
    args.epilogue.bias = layer.bias.data;
    args.epilogue.activation = node.activation.function;
    args.epilogue.activation_alpha = node.activation.alpha;
    std::string text = layer.name + ": x w";
    if (layer.bias.data) text += " + bias";
    if (!node.activation.linear()) text += ", " + node.activation.name;
    if (node.drop) text += ", dropout";
    auto& a = stage(text + shape, args);
    const int64_t share = args.split == TILEFUSE_SPLIT_AUTO ? anywhere : node.rows;
    reads(a.a, node.x, args.split == TILEFUSE_SPLIT_ROWS ? share : anywhere);
    writes(a.c, node.y, share);
    touches_kernel(layer, false);
    touches_bias(layer, false);
    if (args.split == TILEFUSE_SPLIT_SUM) touches(team_memory_, true);
    if (training_ && node.derivative_needs_input()) {
        node.z = floats("z of " + layer.name, node.rows * node.cols);
        writes(a.epilogue.preactivation, node.z, share);
    }
    if (node.drop) {
        a.epilogue.mask_scale = node.mask_scale();
        reads(a.epilogue.mask, node.mask, share);
    }
}

// What is kept for the gradient alone is not kept where nothing below learns.
void Lowering::forward_conv(Node& node, const std::string& shape) {
    const Layer& layer = *node.layer;
    tilefuse_conv2d_args args = {};
    args.dtype = spec_.dtype;
    args.precision = spec_.precision;
    args.shape = window_of(node, plan_.batch);
    args.w = layer.kernel.data;
    args.epilogue.bias = layer.bias.data;
    args.epilogue.activation = node.activation.function;
    args.epilogue.activation_alpha = node.activation.alpha;
    args.pool = pool_of(node);
    std::string text = layer.name + ": convolution";
    if (layer.bias.data) text += " + bias";
    if (!node.activation.linear()) text += ", " + node.activation.name;
    if (node.pool) text += ", max-pooling";
    auto& a = stage(text + shape, args);
    reads(a.x, node.x, anywhere);
    writes(a.y, node.y, anywhere);
    touches_kernel(layer, false);
    touches_bias(layer, false);
    touches(team_memory_, true);
    if (!training_ || !node.learns) return;
    if (node.derivative_needs_input()) {
        node.z = floats("z of " + layer.name, node.size());
        writes(a.epilogue.preactivation, node.z, anywhere);
    }
    if (node.pool) {
        node.argmax = buffer("maxima of " + node.pool->name, node.size());
        writes(a.argmax, node.argmax, anywhere);
    }
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
