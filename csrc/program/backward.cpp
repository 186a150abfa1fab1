// Lowering: gradients and updates.
#include "program/lowering.h"

namespace tilefuse::program {
namespace {

tilefuse_parameter parameter_of(const Variable& variable) {
    tilefuse_parameter p = {};
    p.n = variable.size;
    p.w = variable.data;
    for (int s = 0; s < TILEFUSE_MAX_SLOTS; ++s) p.slots[s] = variable.slots[s];
    p.l1 = variable.l1;
    p.l2 = variable.l2;
    return p;
}

}  // namespace

// Gives the nodes below the gradient at their outputs from the one at this node's.
void Lowering::backward(Node& node) {
    to_input_of_activation(node);
    if (learns(node.addend)) lend(node.addend, node.dy, true);
    if (node.kind == Layer::batch_norm) return backward_batch_norm(node);
    if (node.kind == Layer::layer_norm || node.kind == Layer::rms_norm) return backward_layer_norm(node);
    if (!learns(node.source)) return;
    Node& below = this->node(node.source);
    switch (node.kind) {
        case Layer::dense: return backward_dense(node, below);
        case Layer::conv: return backward_conv(node, below);
        case Layer::pool: return backward_pool(node, below);
        default: lend(node.source, node.dy, node.lent || node.kind == Layer::add);
    }
}

// The newest stage gives `below` its gradient, through dx: with what others of its readers gave, and from the last of them
// times the derivative.
void Lowering::give(Node& below, void*& dx, tilefuse_epilogue& epilogue, int64_t share) {
    const int before = below.dy;
    below.dy = floats("gradient of " + below.layer->name, below.size());
    below.lent = false;
    writes(dx, below.dy, share);
    if (before >= 0) {
        reads(epilogue.addend, before, share);
        plan_.stages.back().text += " + gradient of another branch";
    }
    if (--below.waits == 0) differentiate(epilogue, below, share);
}

// `dy` is the node's gradient, or what one of its readers gave; perhaps others', too.
void Lowering::lend(int number, int dy, bool shared) {
    Node& below = node(number);
    if (below.dy < 0) {
        --below.waits;
        below.dy = dy;
        below.lent = shared;
        return;
    }
    tilefuse_add_args args = {};
    args.dtype = spec_.dtype;
    args.rows = below.rows;
    args.cols = below.cols;
    auto& a = stage(below.layer->name + ": gradient of one branch", args);
    reads(a.x, dy, below.rows);
    give(below, a.y, a.epilogue, below.rows);
}

// What lies below ends elementwise (or there is a softmax): its derivative joins the epilogue of the stage that gives its dy.
void Lowering::differentiate(tilefuse_epilogue& epilogue, Node& below, int64_t share) {
    if (below.activation.kind != Activation::elementwise) return;
    std::string& text = plan_.stages.back().text;
    if (below.drop != nullptr) {
        epilogue.mask_scale = below.mask_scale();
        reads(epilogue.mask, below.mask, share);
        text += ", dropout";
    }
    if (!below.activation.linear()) {
        epilogue.derivative = below.activation.function;
        epilogue.derivative_alpha = below.activation.alpha;
        reads(epilogue.derivative_at, derivative_at(below), share);
        text += ", " + below.activation.name + "'";
    }
    below.differentiated = true;
}

void Lowering::backward_dense(Node& node, Node& below) {
    const Layer& layer = *node.layer;
    tilefuse_matmul_args args = {};
    args.dtype = spec_.dtype;
    args.precision = spec_.precision;
    args.split = split_of(node) == TILEFUSE_SPLIT_ROWS ? TILEFUSE_SPLIT_ROWS : TILEFUSE_SPLIT_AUTO;
    const int64_t share = args.split == TILEFUSE_SPLIT_ROWS ? node.rows : anywhere;
    args.m = node.rows;
    args.n = node.inputs;
    args.k = node.cols;
    args.a_row_stride = node.cols;
    args.a_col_stride = 1;
    args.b = layer.kernel.data;
    args.b_row_stride = 1;
    args.b_col_stride = node.cols;
    args.c_row_stride = node.inputs;
    auto& a = stage(layer.name + ": dx = dy w'", args);
    reads(a.a, node.dy, share);
    touches_kernel(layer, false);
    give(below, a.c, a.epilogue, share);
    plan_.stages.back().text += " -> " + shape_text(node.rows, node.inputs);
}

void Lowering::backward_conv(Node& node, Node& below) {
    const Layer& layer = *node.layer;
    tilefuse_conv2d_backward_data_args args = {};
    args.dtype = spec_.dtype;
    args.precision = spec_.precision;
    args.shape = window_of(node, plan_.batch);
    args.w = layer.kernel.data;
    args.pool = pool_of(node);
    auto& a = stage(layer.name + ": dx from dy", args);
    reads(a.dy, node.dy, anywhere);
    if (node.pool) reads(a.argmax, node.argmax, anywhere);
    touches_kernel(layer, false);
    touches(team_memory_, true);
    give(below, a.dx, a.epilogue, anywhere);
    plan_.stages.back().text += " -> " + shape_text(below.rows, below.cols);
}

void Lowering::backward_pool(Node& node, Node& below) {
    tilefuse_pool2d_backward_args args = {};
    args.dtype = spec_.dtype;
    args.kind = node.layer->pooling;
    args.shape = window_of(node, plan_.batch);
    auto& a = stage(node.layer->name + ": dx from dy", args);
    reads(a.dy, node.dy, anywhere);
    if (args.kind == TILEFUSE_POOL_MAX) reads(a.argmax, node.argmax, anywhere);
    give(below, a.dx, a.epilogue, anywhere);
    plan_.stages.back().text += " -> " + shape_text(below.rows, below.cols);
}

// With the update: one pass over x and dy finds all sums.
void Lowering::backward_batch_norm(Node& node) {
    tilefuse_batch_norm_backward_args args = {};
    args.training = node.layer->trainable;
    auto& a = normalisation_backward(node, args);
    touches(team_memory_, true);
    if (!learns(node.source)) return;
    give(this->node(node.source), a.dx, a.epilogue, anywhere);
}

void Lowering::backward_layer_norm(Node& node) {
    tilefuse_layer_norm_backward_args args = {};
    args.rms = node.kind == Layer::rms_norm;
    args.epsilon = node.layer->epsilon;
    auto& a = normalisation_backward(node, args);
    touches(team_memory_, true);
    if (!learns(node.source)) return;
    const int dx = floats("gradient at the input of " + node.layer->name, node.size());
    writes(a.dx, dx, anywhere);
    lend(node.source, dx, false);
}

// What both kinds of normalisation need, and their update.
template <class A> A& Lowering::normalisation_backward(const Node& node, A args) {
    const Layer& layer = *node.layer;
    args.dtype = spec_.dtype;
    args.rows = node.rows;
    args.cols = node.cols;
    args.gamma = layer.kernel.data;
    const bool updates = node.trained() && fused_updates();
    A& a = stage(layer.name + ": dx from dy" + (updates ? ", update" : "") + " -> " + shape_text(node.rows, node.cols), args);
    reads(a.dy, node.dy, anywhere);
    reads(a.x, node.x, anywhere);
    reads(a.mean, node.mean, anywhere);
    reads(a.inv_std, node.inv_std, anywhere);
    touches_kernel(layer, updates);
    if (!node.trained()) return a;
    if (updates) {
        a.rule = &state_->rule;
        a.gamma_parameter = parameter_of(layer.kernel);
        a.beta_parameter = parameter_of(layer.bias);
        touches_bias(layer, true);
    } else {
        if (layer.kernel.data) writes(a.dgamma, gradient(layer.kernel, "dgamma of " + layer.name), anywhere);
        if (layer.bias.data) writes(a.dbeta, gradient(layer.bias, "dbeta of " + layer.name), anywhere);
    }
    return a;
}

// Makes node.dy the gradient at the input of the node's activation (and before its dropout).
void Lowering::to_input_of_activation(Node& node) {
    if (node.differentiated) return;
    node.differentiated = true;
    if (node.drop == nullptr && node.activation.linear()) return;
    const std::string shape = " -> " + shape_text(node.rows, node.cols);
    const int dy = node.dy;
    if (node.lent) node.dy = floats("gradient at the input of " + node.layer->name, node.size());
    if (node.drop != nullptr) {
        tilefuse_dropout_args args = {};
        args.dtype = spec_.dtype;
        args.rows = node.rows;
        args.cols = node.cols;
        args.scale = node.mask_scale();
        auto& a = stage(node.drop->name + ": dropout of the gradient" + shape, args);
        reads(a.x, dy, node.rows);
        reads(a.mask, node.mask, node.rows);
        writes(a.y, node.dy, node.rows);
    }
    if (node.activation.linear()) return;
    const int after_dropout = node.drop ? node.dy : dy;
    if (node.activation.kind == Activation::elementwise) {
        tilefuse_activation_backward_args args = {};
        args.dtype = spec_.dtype;
        args.activation = node.activation.function;
        args.alpha = node.activation.alpha;
        args.rows = node.rows;
        args.cols = node.cols;
        auto& a = stage(node.layer->name + ": " + node.activation.name + "'" + shape, args);
        reads(a.dy, after_dropout, node.rows);
        reads(a.at, derivative_at(node), node.rows);
        writes(a.dx, node.dy, node.rows);
    } else {
        tilefuse_softmax_backward_args args = {};
        args.dtype = spec_.dtype;
        args.log = node.activation.kind == Activation::log_softmax;
        args.rows = node.rows;
        args.cols = node.cols;
        auto& a = stage(node.layer->name + ": " + node.activation.name + "'" + shape, args);
        reads(a.dy, after_dropout, node.rows);
        reads(a.y, node.y, node.rows);
        writes(a.dx, node.dy, node.rows);
    }
}

bool Lowering::fused_updates() const {
    return spec_.optimizer->clip_norm == 0 && spec_.optimizer->global_clip_norm == 0;
}

void Lowering::update(const Node& node) {
    if (!node.trained()) return;
    if (node.kind == Layer::conv) update_conv(node);
    if (node.kind == Layer::dense) update_dense(node);
}

void Lowering::update_conv(const Node& node) {
    const Layer& layer = *node.layer;
    tilefuse_conv2d_backward_weights_args args = {};
    args.dtype = spec_.dtype;
    args.precision = spec_.precision;
    args.shape = window_of(node, plan_.batch);
    args.pool = pool_of(node);
    auto& w = stage(layer.name + ": dw" + (layer.bias.data ? " and db" : "") + " from x and dy" + (fused_updates() ? ", update" : ""), args);
    reads(w.x, node.x, anywhere);
    reads(w.dy, node.dy, anywhere);
    if (node.pool) reads(w.argmax, node.argmax, anywhere);
    touches(team_memory_, true);
    if (fused_updates()) {
        w.rule = &state_->rule;
        w.kernel = parameter_of(layer.kernel);
        w.bias = parameter_of(layer.bias);
        touches_kernel(layer, true);
        touches_bias(layer, true);
    } else {
        writes(w.dw, gradient(layer.kernel, "dw of " + layer.name), anywhere);
        if (layer.bias.data) writes(w.db, gradient(layer.bias, "db of " + layer.name), anywhere);
    }
}

void Lowering::update_dense(const Node& node) {
    const Layer& layer = *node.layer;
    const bool fused = fused_updates();
    const std::string with = fused ? ", update" : "";

    tilefuse_matmul_args args = {};
    args.dtype = spec_.dtype;
    args.precision = spec_.precision;
    if (split_of(node) == TILEFUSE_SPLIT_SUM) args.split = TILEFUSE_SPLIT_ROWS;
    args.m = node.inputs;
    args.n = node.cols;
    args.k = node.rows;
    args.a_row_stride = 1;
    args.a_col_stride = node.inputs;
    args.b_row_stride = node.cols;
    args.b_col_stride = 1;
    args.c_row_stride = node.cols;
    auto& w = stage(layer.name + ": dw = x' dy" + with + " " + shape_text(node.inputs, node.cols), args);
    reads(w.a, node.x, anywhere);
    reads(w.b, node.dy, anywhere);
    if (fused) {
        w.epilogue.rule = &state_->rule;
        w.epilogue.parameter = parameter_of(layer.kernel);
        touches_kernel(layer, true);
    } else {
        writes(w.c, gradient(layer.kernel, "dw of " + layer.name), anywhere);
    }
    if (layer.bias.data == nullptr) return;

    tilefuse_column_sum_args sum = {};
    sum.dtype = spec_.dtype;
    sum.m = node.rows;
    sum.n = node.cols;
    auto& b = stage(layer.name + ": db = sum of dy" + with + " [" + std::to_string(node.cols) + "]", sum);
    reads(b.x, node.dy, anywhere);
    if (fused) {
        b.rule = &state_->rule;
        b.parameter = parameter_of(layer.bias);
        touches_bias(layer, true);
    } else {
        writes(b.y, gradient(layer.bias, "db of " + layer.name), anywhere);
    }
}

int Lowering::gradient(const Variable& variable, std::string name) {
    gradients_.push_back({&variable, floats(std::move(name), variable.size)});
    return gradients_.back().buffer;
}

// Of the variables whose whole gradients are there: clipping by norm needs them, and networks in one kernel give them.
void Lowering::clip_and_update() {
    const Optimizer& optimizer = *spec_.optimizer;
    const int64_t count = static_cast<int64_t>(gradients_.size());
    const size_t first = plan_.parameters.size();
    for (const VariableBuffer& g : gradients_) plan_.parameters.push_back(parameter_of(*g.variable));
    tilefuse_parameter* const parameters = plan_.parameters.data() + first;
    const auto points_to_gradients = [&] {
        for (size_t i = 0; i < gradients_.size(); ++i) reads(parameters[i].dw, gradients_[i].buffer, anywhere);
    };

    const int scales = buffer("gradient scales", count * static_cast<int64_t>(sizeof(double)));
    if (!fused_updates()) {
        tilefuse_clip_norm_args clip = {};
        clip.dtype = spec_.dtype;
        clip.parameters = parameters;
        clip.count = count;
        clip.global = optimizer.global_clip_norm > 0;
        clip.limit = clip.global ? optimizer.global_clip_norm : optimizer.clip_norm;
        auto& c = stage(clip.global ? "norm of all gradients" : "norms of the gradients", clip);
        points_to_gradients();
        writes(c.scales, scales, anywhere);
        touches(team_memory_, true);
    }

    tilefuse_optimizer_args args = {};
    args.dtype = spec_.dtype;
    args.rule = &state_->rule;
    args.parameters = parameters;
    args.count = count;
    stage("update of " + std::to_string(count) + " variables", args);
    points_to_gradients();
    for (size_t i = 0; i < gradients_.size(); ++i) {
        touches(buffer_of(*gradients_[i].variable, ""), true);
        if (fused_updates()) continue;
        plan_.stages.back().uses.push_back({scales, anywhere, false, [p = parameters + i, i](void* all) {
                                                p->grad_scale = static_cast<const double*>(all) + i;
                                            }});
    }
}

void Lowering::add_penalty() {
    if (plan_.mode == Mode::predict) return;
    size_t variables = 0;
    for (const Layer& layer : spec_.layers) variables += layer.has_weights() ? 2 : 0;
    plan_.parameters.reserve(2 * variables);  // stages keep pointers into it
    for (const Layer& layer : spec_.layers)
        for (const Variable* v : {&layer.kernel, &layer.bias})
            if (v->data && (v->l1 != 0 || v->l2 != 0)) plan_.parameters.push_back(parameter_of(*v));
    if (plan_.parameters.empty()) return;
    tilefuse_penalty_args args = {};
    args.dtype = spec_.dtype;
    args.parameters = plan_.parameters.data();
    args.count = static_cast<int64_t>(plan_.parameters.size());
    args.value = &state_->penalty;
    stage("penalty on the weights", args);
    for (const Layer& layer : spec_.layers) {
        if (layer.kernel.data) touches_kernel(layer, false);
        touches_bias(layer, false);
    }
    touches(team_memory_, true);
}

}  // namespace tilefuse::program
