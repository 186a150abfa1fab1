// From layers to fused stages.
//
// Forward: bias, activation, dropout and the sum with another branch go into the matmul's or the convolution's epilogue, so
// does the max-pooling that follows; without training, batch normalisation too. A last softmax or sigmoid goes into the loss.
// Backward: the loss gives its gradient in the same pass; the derivative of the layer below goes into the epilogue of
// the matmul that gives dx; the optimizer goes into the epilogue of the one that gives dw, after dx has used the old
// weights. Where several layers take one's output, each adds its gradient to that of those before. No dx below the lowest layer that learns.
#include <algorithm>
#include <stdexcept>

#include "program/lowering.h"

namespace tilefuse::program {
namespace {

// Whether f'(x) can be told from a positive multiple of f(x): then dropout may scale y in place.
bool derivative_needs_sign_only(tilefuse_activation_kind f) {
    return f == TILEFUSE_LINEAR || f == TILEFUSE_RELU || f == TILEFUSE_LEAKY_RELU;
}

bool needs_input(tilefuse_activation_kind f) { return f >= TILEFUSE_SILU && f < TILEFUSE_ACTIVATION_COUNT; }

// Whether x <= y makes f(x) <= f(y): then it may change places with a maximum.
bool never_falls(const Activation& activation) {
    return activation.kind == Activation::elementwise && !needs_input(activation.function) && activation.alpha >= 0;
}

// Whether the windows lie side by side, all inside what the convolution gives, and are few enough for a byte.
bool pools_side_by_side(const Layer& pool, const Layer& conv) {
    const tilefuse_conv2d_shape &p = pool.window, &c = conv.window;
    return p.h == c.out_h && p.w == c.out_w && p.c == c.f && p.kernel_h == p.stride_h && p.kernel_w == p.stride_w &&
           p.pad_top == 0 && p.pad_left == 0 && p.out_h == p.h / p.kernel_h && p.out_w == p.w / p.kernel_w &&
           p.kernel_h * p.kernel_w <= 256;
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
    if (training_ && lowest_trained_ < nodes_.size()) {
        for (size_t i = nodes_.size(); i > lowest_trained_;) {
            if (const Network* network = network_of(i - 1)) {
                if (nodes_[i - 1].learns) backward(*network);
                i = network->first;
            } else if (Node& node = nodes_[--i]; node.learns) {
                backward(node);
                if (updates_at_once(node)) update(node);
            }
        }
        late_totals_();  // the first stages that need every member's rows: beside the updates
        for (size_t i = nodes_.size(); i-- > lowest_trained_;)
            if (network_of(i) == nullptr && !updates_at_once(nodes_[i])) update(nodes_[i]);
        if (!gradients_.empty()) clip_and_update();
    }
}

// Whether a layer's output is its input, in this plan.
bool Lowering::changes_nothing(const Layer& layer) const {
    switch (layer.kind) {
        case Layer::reshape: return true;
        case Layer::add: return layer.sources.size() == 1;
        case Layer::dropout: return !training_ || layer.rate == 0;
        case Layer::activate: return layer.activation.linear();
        default: return false;
    }
}

// Makes the layer part of the node whose y nobody else takes, if they can be one.
bool Lowering::fuse(const Layer& layer, Node& below) const {
    const Activation& activation = below.activation;
    const bool product = below.kind == Layer::dense || below.kind == Layer::conv;
    if (below.drop != nullptr) return false;
    switch (layer.kind) {
        case Layer::activate: {
            const bool takes = product || below.kind == Layer::batch_norm || below.kind == Layer::add;
            if (!takes || layer.activation.kind != Activation::elementwise || !activation.linear()) return false;
            if (below.cols != layer.shape.back() || (below.pool && needs_input(layer.activation.function))) return false;
            below.activation = layer.activation;
            return true;
        }
        case Layer::dropout:
            if (below.kind != Layer::dense || !derivative_needs_sign_only(activation.function)) return false;
            below.drop = &layer;
            return true;
        case Layer::batch_norm:
            if (training_ || !product || !activation.linear() || below.pool || below.norm || below.addend != no_node) return false;
            if (below.cols != layer.shape.back()) return false;  // a reshape lies between
            below.norm = &layer;
            return true;
        case Layer::pool:
            if (below.kind != Layer::conv || layer.pooling != TILEFUSE_POOL_MAX || below.pool || below.norm ||
                below.addend != no_node || !never_falls(activation) || !pools_side_by_side(layer, *below.layer)) {
                return false;
            }
            below.pool = &layer;
            below.rows = plan_.batch * layer.window.out_h * layer.window.out_w;
            return true;
        default: return false;
    }
}

// A node for a layer; a softmax is one of its own.
void Lowering::append(const Layer& layer, int source, const Shape& input) {
    Node node;
    node.layer = &layer;
    node.kind = layer.kind;
    node.source = source;
    node.drop = layer.kind == Layer::dropout ? &layer : nullptr;
    node.activation = layer.activation;
    node.inputs = input.back();
    node.cols = layer.shape.back();
    node.rows = plan_.batch * (size_of(layer.shape) / std::max<int64_t>(1, node.cols));
    const bool softmax_follows = layer.kind != Layer::activate && layer.activation.kind != Activation::elementwise;
    if (softmax_follows) node.activation = Activation{};
    nodes_.push_back(node);
    if (!softmax_follows) return;
    node.kind = Layer::activate;
    node.source = static_cast<int>(nodes_.size()) - 1;
    node.activation = layer.activation;
    node.inputs = node.cols;
    nodes_.back().readers = 1;
    nodes_.push_back(node);
}

// The sum of two: the later one adds the other to its own result, if it can.
Lowering::Feed Lowering::join(const Layer& layer, Feed one, Feed other) {
    if (other.node > one.node) std::swap(one, other);
    if (one.alone) {
        Node& later = node(one.node);
        const bool adds = later.kind == Layer::dense || later.kind == Layer::conv || later.kind == Layer::batch_norm;
        if (adds && later.activation.linear() && !later.drop && !later.pool && later.addend == no_node) {
            later.addend = other.node;
            return one;
        }
    }
    append(layer, one.node, layer.shape);
    nodes_.back().addend = other.node;
    nodes_.back().readers = 1;
    return {static_cast<int>(nodes_.size()) - 1, true};
}

void Lowering::make_nodes() {
    const std::vector<Layer>& layers = spec_.layers;
    const auto origin = [&](int layer) {  // the layer that computes what this one's output is
        while (layer != network_input && changes_nothing(layers[static_cast<size_t>(layer)]))
            layer = layers[static_cast<size_t>(layer)].sources.front();
        return layer;
    };
    std::vector<int> readers(layers.size()), node_of(layers.size(), network_input);
    const auto reads_from = [&](int layer) {
        if (origin(layer) != network_input) ++readers[static_cast<size_t>(origin(layer))];
    };
    for (const Layer& layer : layers)
        if (!changes_nothing(layer)) std::for_each(layer.sources.begin(), layer.sources.end(), reads_from);
    reads_from(static_cast<int>(layers.size()) - 1);

    const auto feed_of = [&](int layer) -> Feed {
        const int from = origin(layer);
        if (from == network_input) return {network_input, false};
        return {node_of[static_cast<size_t>(from)], readers[static_cast<size_t>(from)] == 1};
    };
    for (size_t i = 0; i < layers.size(); ++i) {
        const Layer& layer = layers[i];
        if (changes_nothing(layer)) continue;
        const int before = layer.sources.front();
        Feed feed = feed_of(before);
        if (layer.kind == Layer::add) {
            for (size_t s = 1; s < layer.sources.size(); ++s) feed = join(layer, feed, feed_of(layer.sources[s]));
            node_of[i] = feed.node;
        } else if (feed.alone && fuse(layer, node(feed.node))) {
            node_of[i] = feed.node;
        } else {
            append(layer, feed.node, before == network_input ? spec_.input_shape : layers[static_cast<size_t>(before)].shape);
            node_of[i] = static_cast<int>(nodes_.size()) - 1;
        }
        node(node_of[i]).readers = readers[i];
    }
    fuse_last_activation_into_loss();
    lowest_trained_ = nodes_.size();
    for (size_t i = nodes_.size(); i-- > 0;)
        if (nodes_[i].trained()) lowest_trained_ = i;
    for (Node& node : nodes_) {
        node.learns = node.trained() || learns(node.source) || learns(node.addend);
        node.waits = node.readers;
    }
}

// softmax before categorical cross-entropy, sigmoid before binary: the loss takes the logits.
void Lowering::fuse_last_activation_into_loss() {
    if (plan_.mode == Mode::predict || nodes_.empty()) return;
    Node& last = nodes_.back();
    const tilefuse_loss_kind kind = spec_.loss->kind;
    from_logits_ = spec_.loss->from_logits;
    if (from_logits_ || last.drop != nullptr) return;
    const bool categorical =
        kind == TILEFUSE_CATEGORICAL_CROSSENTROPY || kind == TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY;
    if (categorical && last.kind == Layer::activate && last.activation.kind == Activation::softmax) {
        softmax_in_loss_ = true;
        if (nodes_.size() > 1) {
            nodes_.pop_back();
        } else {
            last.activation = Activation{};  // nothing but a softmax: its input are the logits
        }
    } else if (kind == TILEFUSE_BINARY_CROSSENTROPY && last.kind != Layer::dropout &&
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
        nodes_.back().waits = 0;
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
