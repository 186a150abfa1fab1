// From layers to fused stages.
//
// Forward: bias, activation and dropout go into the matmul's epilogue; a last softmax or sigmoid goes into the loss.
// Backward: the loss gives its gradient in the same pass; the derivative of the layer below goes into the epilogue of
// the matmul that gives dx; the optimizer goes into the epilogue of the one that gives dw, after all dx have used the
// old weights. No dx below the lowest layer that learns.
#include <stdexcept>

#include "program/lowering.h"

namespace tilefuse::program {
namespace {

// Whether f'(x) can be told from a positive multiple of f(x): then dropout may scale y in place.
bool derivative_needs_sign_only(tilefuse_activation f) {
    return f == TILEFUSE_LINEAR || f == TILEFUSE_RELU || f == TILEFUSE_LEAKY_RELU;
}

}  // namespace

int Lowering::buffer(std::string name, int64_t bytes, bool in_arena) {
    Buffer b;
    b.name = std::move(name);
    b.bytes = bytes;
    b.in_arena = in_arena;
    plan_.buffers.push_back(std::move(b));
    return static_cast<int>(plan_.buffers.size()) - 1;
}

int Lowering::buffer_of(const Variable& variable, const std::string& name) {
    for (const VariableBuffer& known : variables_)
        if (known.variable == &variable) return known.buffer;
    variables_.push_back({&variable, buffer(name, 0, false)});
    return variables_.back().buffer;
}

void Lowering::run() {
    make_nodes();
    find_networks();
    add_inputs();
    add_penalty();
    for (size_t i = 0; i < nodes_.size();) {
        if (const Network* network = network_of(i)) {
            forward(*network);
            i = network->end;
        } else {
            forward(nodes_[i++]);
        }
    }
    if (nodes_.empty() && plan_.mode == Mode::predict) {
        record(plan_.inputs[batch_x], plan_.batch, size_of(spec_.input_shape));
    }
    if (plan_.mode != Mode::predict) loss();
    if (training_) {
        for (size_t i = nodes_.size(); i > lowest_trained_;) {
            if (const Network* network = network_of(i - 1)) {
                backward(*network);
                i = network->first;
            } else {
                backward(--i);
            }
        }
        for (size_t i = nodes_.size(); i-- > lowest_trained_;)
            if (network_of(i) == nullptr) update(nodes_[i]);
        if (!gradients_.empty()) clip_and_update();
    }
}

void Lowering::make_nodes() {
    Shape shape = spec_.input_shape;
    for (const Layer& layer : spec_.layers) {
        if (layer.kind == Layer::reshape) {
            shape = layer.shape;
            continue;
        }
        if (layer.kind == Layer::dropout && (!training_ || layer.rate == 0)) continue;
        if (layer.kind == Layer::activate && layer.activation.linear()) continue;
        Node* last = nodes_.empty() ? nullptr : &nodes_.back();
        const bool after_plain_dense = last && last->kind == Node::dense && last->drop == nullptr;
        if (layer.kind == Layer::activate && layer.activation.kind == Activation::elementwise && after_plain_dense &&
            last->activation.linear() && last->cols == shape.back()) {
            last->activation = layer.activation;
            continue;
        }
        if (layer.kind == Layer::dropout && after_plain_dense && derivative_needs_sign_only(last->activation.function)) {
            last->drop = &layer;
            continue;
        }
        Node node;
        node.layer = &layer;
        node.inputs = shape.back();
        node.rows = plan_.batch * (size_of(shape) / std::max<int64_t>(1, shape.back()));
        if (layer.kind == Layer::dense) {
            shape.back() = layer.units;
            node.activation = layer.activation;
            if (node.activation.kind != Activation::elementwise) node.activation = Activation{};
        } else if (layer.kind == Layer::activate) {
            node.kind = Node::activate;
            node.activation = layer.activation;
        } else {
            node.kind = Node::dropout;
            node.drop = &layer;
        }
        node.cols = shape.back();
        nodes_.push_back(node);
        if (layer.kind == Layer::dense && layer.activation.kind != Activation::elementwise) {  // a softmax of its own
            node.kind = Node::activate;
            node.activation = layer.activation;
            node.inputs = node.cols;
            nodes_.push_back(node);
        }
    }
    fuse_last_activation_into_loss();
    lowest_trained_ = nodes_.size();
    for (size_t i = nodes_.size(); i-- > 0;)
        if (nodes_[i].kind == Node::dense && nodes_[i].layer->trainable) lowest_trained_ = i;
}

// softmax before categorical cross-entropy, sigmoid before binary: the loss takes the logits.
void Lowering::fuse_last_activation_into_loss() {
    if (plan_.mode == Mode::predict || nodes_.empty()) return;
    Node& last = nodes_.back();
    const tilefuse_loss kind = spec_.loss->kind;
    from_logits_ = spec_.loss->from_logits;
    if (from_logits_ || last.drop != nullptr) return;
    const bool categorical =
        kind == TILEFUSE_CATEGORICAL_CROSSENTROPY || kind == TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY;
    if (categorical && last.kind == Node::activate && last.activation.kind == Activation::softmax) {
        softmax_in_loss_ = true;
        if (nodes_.size() > 1) {
            nodes_.pop_back();
        } else {
            last.activation = Activation{};  // nothing but a softmax: its input are the logits
        }
    } else if (kind == TILEFUSE_BINARY_CROSSENTROPY && last.kind != Node::dropout &&
               last.activation.kind == Activation::elementwise && last.activation.function == TILEFUSE_SIGMOID) {
        last.activation = Activation{};
    } else {
        return;
    }
    from_logits_ = true;
}

void Lowering::add_inputs() {
    const int64_t features = size_of(spec_.input_shape);
    const char* names[] = {"x", "y", "sample weights", "order", "batch of x", "batch of y", "batch of weights", "predictions"};
    for (int i = 0; i < input_count; ++i) plan_.inputs[i] = buffer(names[i], 0, false);
    plan_.row_bytes[source_x] = plan_.row_bytes[batch_x] = features * spec_.item_size();
    if (spec_.loss) plan_.row_bytes[source_y] = plan_.row_bytes[batch_y] = label_bytes(spec_);
    plan_.row_bytes[source_weight] = plan_.row_bytes[batch_weight] = spec_.item_size();
    plan_.row_bytes[order] = sizeof(int64_t);
    plan_.row_bytes[predictions] = size_of(output_shape(spec_)) * spec_.item_size();
    if (!training_) return;
    // A shuffled batch is gathered into the arena; one that lies in order is used where it is.
    const auto gather = [&](Input source, Input batch) {
        Buffer& b = plan_.buffers[static_cast<size_t>(plan_.inputs[batch])];
        b.bytes = plan_.batch * plan_.row_bytes[batch];
        b.in_arena = true;
        tilefuse_gather_args args = {};
        args.rows = plan_.batch;
        args.row_bytes = plan_.row_bytes[batch];
        auto& a = stage("gather " + b.name, args);
        reads(a.order, plan_.inputs[order], plan_.batch);
        reads(a.src, plan_.inputs[source], anywhere);
        writes(a.dst, plan_.inputs[batch], plan_.batch);
    };
    gather(source_x, batch_x);
    gather(source_y, batch_y);
    gather(source_weight, batch_weight);
}

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
    const size_t index = static_cast<size_t>(&node - nodes_.data());
    node.x = index == 0 ? plan_.inputs[batch_x] : nodes_[index - 1].y;
    const bool last = index + 1 == nodes_.size();
    if (last && plan_.mode == Mode::predict) {
        node.y = plan_.inputs[predictions];
    } else {
        node.y = floats("y of " + node.layer->name, node.rows * node.cols);
    }
}

void Lowering::forward(Node& node) {
    find_ends(node);
    const std::string shape = " -> " + shape_text(node.rows, node.cols);
    if (node.drop != nullptr) dropout_mask(node);
    if (node.kind == Node::dense) {
        forward_dense(node, shape);
    } else if (node.kind == Node::dropout) {
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

void Lowering::loss() {
    const Shape out = output_shape(spec_);
    const int64_t cols = out.back(), rows_per_sample = size_of(out) / std::max<int64_t>(1, cols);
    const int64_t rows = plan_.batch * rows_per_sample;
    const int logits = nodes_.empty() ? plan_.inputs[batch_x] : nodes_.back().y;
    const int row_loss = buffer("loss of rows", rows * static_cast<int64_t>(sizeof(double)));
    const int row_correct = buffer("correctness of rows", rows * static_cast<int64_t>(sizeof(double)));
    plan_.loss_rows = rows;

    tilefuse_loss_args args = {};
    args.dtype = spec_.dtype;
    args.loss = spec_.loss->kind;
    args.from_logits = from_logits_;
    args.label_smoothing = spec_.loss->label_smoothing;
    args.rows = rows;
    args.cols = cols;
    args.rows_per_sample = rows_per_sample;
    args.scale = 1.0 / static_cast<double>(std::max<int64_t>(1, rows));
    const bool gradient = training_ && lowest_trained_ < nodes_.size();
    std::string text = "loss";
    if (gradient) text += " and its gradient";
    const bool fused = from_logits_ && !spec_.loss->from_logits;
    if (fused) text += softmax_in_loss_ ? ", softmax fused" : ", sigmoid fused";
    auto& a = stage(text + " " + shape_text(rows, cols), args);
    reads(a.x, logits, rows);
    reads(a.labels, plan_.inputs[batch_y], rows);
    reads(a.sample_weight, plan_.inputs[batch_weight], rows_per_sample == 1 ? rows : anywhere);
    if (fused) writes(a.probabilities, plan_.inputs[predictions], rows);
    writes(a.row_loss, row_loss, rows);
    writes(a.row_correct, row_correct, rows);
    if (gradient) {
        nodes_.back().dy = floats("gradient of the loss", rows * cols);
        writes(a.dx, nodes_.back().dy, rows);
    }
    if (!fused) record(logits, rows, cols);
    const auto total = [rows, this](const char* name, int source, double* sum) {
        tilefuse_total_args t = {};
        t.n = rows;
        t.sum = sum;
        auto& s = stage(name, t);
        reads(s.x, source, anywhere);
    };
    late_totals_ = [=, this] {
        total("total of the loss", row_loss, &state_->loss_sum);
        total("total of correct rows", row_correct, &state_->correct_sum);
    };
    if (!gradient) late_totals_();
}

// Copies what the last layer said to where the caller wants predictions; off where it wants none.
void Lowering::record(int y, int64_t rows, int64_t cols) {
    tilefuse_activation_args args = {};
    args.dtype = spec_.dtype;
    args.rows = rows;
    args.cols = cols;
    auto& a = stage("copy of the predictions", args);
    plan_.record_stage = static_cast<int>(plan_.stages.size()) - 1;
    reads(a.x, y, rows);
    writes(a.y, plan_.inputs[predictions], rows);
}

Shape output_shape(const Spec& spec) {
    Shape shape = spec.input_shape;
    for (const Layer& layer : spec.layers) {
        if (layer.kind == Layer::reshape) shape = layer.shape;
        if (layer.kind == Layer::dense) shape.back() = layer.units;
    }
    return shape;
}

int64_t label_bytes(const Spec& spec) {
    const Shape out = output_shape(spec);
    const int64_t values = size_of(out);
    if (spec.loss->kind != TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY) return values * spec.item_size();
    return values / std::max<int64_t>(1, out.back()) * static_cast<int64_t>(sizeof(int32_t));
}

std::unique_ptr<Plan> lower(const Spec& spec, Mode mode, int64_t batch, const Machine& machine, StepState* state) {
    auto plan = std::make_unique<Plan>();
    plan->mode = mode;
    plan->batch = batch;
    Lowering(spec, *plan, machine, state).run();
    place(*plan);
    return plan;
}

}  // namespace tilefuse::program
