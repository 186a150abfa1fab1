// From layers to fused stages.
//
// Forward: bias, activation and dropout go into the matmul's epilogue; a last softmax or sigmoid goes into the loss.
// Backward: the loss gives its gradient in the same pass; the derivative of the layer below goes into the epilogue of
// the matmul that gives dx; the optimizer goes into the epilogue of the one that gives dw, after all dx have used the
// old weights. No dx below the lowest layer that learns.
#include <stdexcept>

#include "program/plan.h"

namespace tilefuse::program {
namespace {

// A layer as the stages see it: reshapes are gone, activations and dropouts fused where they can be.
struct Node {
    const Layer* layer = nullptr;
    enum Kind { dense, activate, dropout } kind = dense;
    Activation activation;       // of a dense or activate node
    const Layer* drop = nullptr; // the dropout of a dropout node, or fused into a dense node
    int64_t rows = 0, inputs = 0, cols = 0;  // x is [rows, inputs], y is [rows, cols]
    int x = -1, y = -1;          // buffers
    int z = -1;                  // the input of an activation whose derivative needs it
    int mask = -1;
    int dy = -1;                 // gradient at the output; at the pre-activation once `differentiated`
    bool differentiated = false;
};

bool derivative_needs_input(tilefuse_activation f) { return f >= TILEFUSE_SILU && f < TILEFUSE_ACTIVATION_COUNT; }

// Whether f'(x) can be told from a positive multiple of f(x): then dropout may scale y in place.
bool derivative_needs_sign_only(tilefuse_activation f) {
    return f == TILEFUSE_LINEAR || f == TILEFUSE_RELU || f == TILEFUSE_LEAKY_RELU;
}

std::string shape_text(int64_t rows, int64_t cols) { return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]"; }

class Lowering {
    struct VariableBuffer {
        const Variable* variable;
        int buffer;
    };

public:
    Lowering(const Spec& spec, Plan& plan, int members, StepState* state)
        : spec_(spec), plan_(plan), members_(members), state_(state), training_(plan.mode == Mode::train),
          team_memory_(buffer("memory of the team", 0, false)) {}

    void run() {
        make_nodes();
        add_inputs();
        add_penalty();
        for (Node& node : nodes_) forward(node);
        if (nodes_.empty() && plan_.mode == Mode::predict) {
            record(plan_.inputs[batch_x], plan_.batch, size_of(spec_.input_shape));
        }
        if (plan_.mode != Mode::predict) loss();
        if (training_) {
            for (size_t i = nodes_.size(); i-- > lowest_trained_;) backward(i);
            for (size_t i = nodes_.size(); i-- > lowest_trained_;) update(nodes_[i]);
            if (!fused_updates()) clip_and_update();
        }
    }

private:
    // ---- building blocks ----

    int buffer(std::string name, int64_t bytes, bool in_arena = true) {
        Buffer b;
        b.name = std::move(name);
        b.bytes = bytes;
        b.in_arena = in_arena;
        plan_.buffers.push_back(std::move(b));
        return static_cast<int>(plan_.buffers.size()) - 1;
    }

    int floats(std::string name, int64_t count) { return buffer(std::move(name), count * spec_.item_size()); }

    template <class A> A& stage(std::string text, const A& args) {
        plan_.stages.emplace_back();
        plan_.stages.back().text = std::move(text);
        plan_.stages.back().args = args;
        return std::get<A>(plan_.stages.back().args);
    }

    static constexpr int64_t anywhere = 0;

    // The newest stage uses `buffer` through `pointer`; `rows`: only its own share of so many rows in each member.
    template <class P> void reads(P*& pointer, int buffer, int64_t rows) { use(pointer, buffer, rows, false); }
    template <class P> void writes(P*& pointer, int buffer, int64_t rows) { use(pointer, buffer, rows, true); }
    template <class P> void use(P*& pointer, int buffer, int64_t rows, bool writes) {
        plan_.stages.back().uses.push_back({buffer, rows, writes, [&pointer](void* p) { pointer = static_cast<P*>(p); }});
    }
    void touches(int buffer, bool writes) {  // without a pointer to set: a variable
        plan_.stages.back().uses.push_back({buffer, anywhere, writes, [](void*) {}});
    }

    // ---- the network ----

    void make_nodes() {
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
    void fuse_last_activation_into_loss() {
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

    void add_inputs() {
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
    tilefuse_split split_of(const Node& node) const {
        constexpr int64_t large = 64 * 1024;  // bytes of weights
        constexpr int64_t wide = 1024;        // bytes of a row of y for each member
        const int64_t item = spec_.item_size(), weights = node.inputs * node.cols * item;
        if (node.cols * item >= wide * members_) return TILEFUSE_SPLIT_AUTO;
        if (weights >= large && node.inputs > node.rows) return TILEFUSE_SPLIT_SUM;
        return weights < 4 * large && node.rows >= 4 * members_ ? TILEFUSE_SPLIT_ROWS : TILEFUSE_SPLIT_AUTO;
    }

    // ---- forward ----

    void forward(Node& node) {
        const size_t index = static_cast<size_t>(&node - nodes_.data());
        node.x = index == 0 ? plan_.inputs[batch_x] : nodes_[index - 1].y;
        const bool last = index + 1 == nodes_.size();
        if (last && plan_.mode == Mode::predict) {
            node.y = plan_.inputs[predictions];
        } else {
            node.y = floats("y of " + node.layer->name, node.rows * node.cols);
        }
        const std::string shape = " -> " + shape_text(node.rows, node.cols);
        if (node.drop != nullptr) dropout_mask(node);
        if (node.kind == Node::dense) {
            forward_dense(node, shape);
        } else if (node.kind == Node::dropout) {
            tilefuse_dropout_args args = {};
            args.dtype = spec_.dtype;
            args.rows = node.rows;
            args.cols = node.cols;
            args.scale = 1 / (1 - node.drop->rate);
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

    void forward_dense(Node& node, const std::string& shape) {
        const Layer& layer = *node.layer;
        tilefuse_matmul_args args = {};
        args.dtype = spec_.dtype;
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
        if (training_ && derivative_needs_input(node.activation.function)) {
            node.z = floats("z of " + layer.name, node.rows * node.cols);
            writes(a.epilogue.preactivation, node.z, share);
        }
        if (node.drop) {
            a.epilogue.mask_scale = 1 / (1 - node.drop->rate);
            reads(a.epilogue.mask, node.mask, share);
        }
    }

    void dropout_mask(Node& node) {
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

    // ---- loss ----

    void loss() {
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
    void record(int y, int64_t rows, int64_t cols) {
        tilefuse_activation_args args = {};
        args.dtype = spec_.dtype;
        args.rows = rows;
        args.cols = cols;
        auto& a = stage("copy of the predictions", args);
        plan_.record_stage = static_cast<int>(plan_.stages.size()) - 1;
        reads(a.x, y, rows);
        writes(a.y, plan_.inputs[predictions], rows);
    }

    // ---- backward ----

    // Gives nodes_[i - 1] the gradient at its output from the one at nodes_[i]'s.
    void backward(size_t i) {
        Node& node = nodes_[i];
        to_input_of_activation(node);
        if (i == lowest_trained_) {
            late_totals_();  // the first stages that need every member's rows: beside the updates
            return;
        }
        Node& below = nodes_[i - 1];
        if (node.kind != Node::dense) {
            below.dy = node.dy;
            return;
        }
        const Layer& layer = *node.layer;
        tilefuse_matmul_args args = {};
        args.dtype = spec_.dtype;
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
        below.dy = floats("gradient of " + below.layer->name, node.rows * node.inputs);
        reads(a.a, node.dy, share);
        writes(a.c, below.dy, share);
        touches_kernel(layer, false);
        std::string& text = plan_.stages.back().text;
        // What lies below is elementwise (or a dense layer, which ends so): its derivative joins this epilogue.
        const bool same_view = below.cols == node.inputs;
        if (same_view && below.activation.kind == Activation::elementwise) {
            if (below.drop != nullptr) {
                a.epilogue.mask_scale = 1 / (1 - below.drop->rate);
                reads(a.epilogue.mask, below.mask, share);
                text += ", dropout";
            }
            if (!below.activation.linear()) {
                a.epilogue.derivative = below.activation.function;
                a.epilogue.derivative_alpha = below.activation.alpha;
                reads(a.epilogue.derivative_at, derivative_at(below), share);
                text += ", " + below.activation.name + "'";
            }
            below.differentiated = true;
        }
        text += " -> " + shape_text(node.rows, node.inputs);
    }

    int derivative_at(const Node& node) const { return derivative_needs_input(node.activation.function) ? node.z : node.y; }

    // Makes node.dy the gradient at the input of the node's activation (and before its dropout).
    void to_input_of_activation(Node& node) {
        if (node.differentiated) return;
        node.differentiated = true;
        const std::string shape = " -> " + shape_text(node.rows, node.cols);
        if (node.drop != nullptr) {
            tilefuse_dropout_args args = {};
            args.dtype = spec_.dtype;
            args.rows = node.rows;
            args.cols = node.cols;
            args.scale = 1 / (1 - node.drop->rate);
            auto& a = stage(node.drop->name + ": dropout of the gradient" + shape, args);
            reads(a.x, node.dy, node.rows);
            reads(a.mask, node.mask, node.rows);
            writes(a.y, node.dy, node.rows);
        }
        if (node.activation.linear()) return;
        if (node.activation.kind == Activation::elementwise) {
            tilefuse_activation_backward_args args = {};
            args.dtype = spec_.dtype;
            args.activation = node.activation.function;
            args.alpha = node.activation.alpha;
            args.rows = node.rows;
            args.cols = node.cols;
            auto& a = stage(node.layer->name + ": " + node.activation.name + "'" + shape, args);
            reads(a.dy, node.dy, node.rows);
            reads(a.at, derivative_at(node), node.rows);
            writes(a.dx, node.dy, node.rows);
        } else {
            tilefuse_softmax_backward_args args = {};
            args.dtype = spec_.dtype;
            args.log = node.activation.kind == Activation::log_softmax;
            args.rows = node.rows;
            args.cols = node.cols;
            auto& a = stage(node.layer->name + ": " + node.activation.name + "'" + shape, args);
            reads(a.dy, node.dy, node.rows);
            reads(a.y, node.y, node.rows);
            writes(a.dx, node.dy, node.rows);
        }
    }

    // ---- updates ----

    bool fused_updates() const {
        return spec_.optimizer->clip_norm == 0 && spec_.optimizer->global_clip_norm == 0;
    }

    static tilefuse_parameter parameter_of(const Variable& variable) {
        tilefuse_parameter p = {};
        p.n = variable.size;
        p.w = variable.data;
        for (int s = 0; s < TILEFUSE_MAX_SLOTS; ++s) p.slots[s] = variable.slots[s];
        p.l1 = variable.l1;
        p.l2 = variable.l2;
        return p;
    }

    void update(Node& node) {
        if (node.kind != Node::dense || !node.layer->trainable) return;
        const Layer& layer = *node.layer;
        const bool fused = fused_updates();
        const std::string with = fused ? ", update" : "";

        tilefuse_matmul_args args = {};
        args.dtype = spec_.dtype;
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

    int gradient(const Variable& variable, std::string name) {
        gradients_.push_back({&variable, floats(std::move(name), variable.size)});
        return gradients_.back().buffer;
    }

    // Clipping by norm needs whole gradients, so the updates can't be fused with what computes them.
    void clip_and_update() {
        const Optimizer& optimizer = *spec_.optimizer;
        const int64_t count = static_cast<int64_t>(gradients_.size());
        const int scales = buffer("gradient scales", count * static_cast<int64_t>(sizeof(double)));
        const size_t first = plan_.parameters.size();
        for (const VariableBuffer& g : gradients_) plan_.parameters.push_back(parameter_of(*g.variable));
        const auto uses_gradients = [&](bool with_pointers) {
            for (size_t i = 0; i < gradients_.size(); ++i) {
                tilefuse_parameter& p = plan_.parameters[first + i];
                if (with_pointers) {
                    reads(p.dw, gradients_[i].buffer, anywhere);
                } else {
                    touches(gradients_[i].buffer, false);
                }
            }
        };

        tilefuse_clip_norm_args clip = {};
        clip.dtype = spec_.dtype;
        clip.parameters = plan_.parameters.data() + first;
        clip.count = count;
        clip.global = optimizer.global_clip_norm > 0;
        clip.limit = clip.global ? optimizer.global_clip_norm : optimizer.clip_norm;
        auto& c = stage(clip.global ? "norm of all gradients" : "norms of the gradients", clip);
        uses_gradients(true);
        writes(c.scales, scales, anywhere);
        touches(team_memory_, true);

        tilefuse_optimizer_args args = {};
        args.dtype = spec_.dtype;
        args.rule = &state_->rule;
        args.parameters = clip.parameters;
        args.count = count;
        stage("update of " + std::to_string(count) + " variables", args);
        uses_gradients(false);
        for (size_t i = 0; i < gradients_.size(); ++i) {
            plan_.stages.back().uses.push_back({scales, anywhere, false, [this_p = &plan_.parameters[first + i], i](void* p) {
                                                    this_p->grad_scale = static_cast<const double*>(p) + i;
                                                }});
        }
        for (const Node& node : nodes_)
            if (node.kind == Node::dense && node.layer->trainable) {
                touches_kernel(*node.layer, true);
                touches_bias(*node.layer, true);
            }
    }

    void add_penalty() {
        if (plan_.mode == Mode::predict) return;
        size_t variables = 0;
        for (const Layer& layer : spec_.layers) variables += layer.kind == Layer::dense ? 2 : 0;
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
            touches_kernel(layer, false);
            touches_bias(layer, false);
        }
        touches(team_memory_, true);
    }

    int buffer_of(const Variable& variable, const std::string& name) {
        for (const VariableBuffer& known : variables_)
            if (known.variable == &variable) return known.buffer;
        variables_.push_back({&variable, buffer(name, 0, false)});
        return variables_.back().buffer;
    }

    void touches_kernel(const Layer& layer, bool writes) { touches(buffer_of(layer.kernel, "kernel of " + layer.name), writes); }
    void touches_bias(const Layer& layer, bool writes) {
        if (layer.bias.data) touches(buffer_of(layer.bias, "bias of " + layer.name), writes);
    }

    const Spec& spec_;
    Plan& plan_;
    const int members_;
    StepState* const state_;
    const bool training_;
    std::vector<Node> nodes_;
    size_t lowest_trained_ = 0;
    bool from_logits_ = false, softmax_in_loss_ = false;
    std::function<void()> late_totals_;
    std::vector<VariableBuffer> gradients_;
    std::vector<VariableBuffer> variables_;
    const int team_memory_;
};

}  // namespace

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

std::unique_ptr<Plan> lower(const Spec& spec, Mode mode, int64_t batch, int members, StepState* state) {
    auto plan = std::make_unique<Plan>();
    plan->mode = mode;
    plan->batch = batch;
    Lowering(spec, *plan, members, state).run();
    place(*plan);
    return plan;
}

}  // namespace tilefuse::program
