// Lowering: from layers to fused stages. Its parts: lower.cpp (the nodes and the loss), forward.cpp, backward.cpp (gradients
// and updates) and networks.cpp (dense layers together in one kernel, where the machine has one).
#pragma once

#include "program/plan.h"

namespace tilefuse::program {

constexpr int no_node = -2;

// A layer as the stages see it: reshapes are gone, activations, dropouts, sums and poolings fused where they can be.
struct Node {
    const Layer* layer = nullptr;
    Layer::Kind kind = Layer::dense;
    int source = network_input;   // the node whose y is its x
    int addend = no_node;         // whose y is added before the activation
    int readers = 0;              // how many nodes take its y, the loss among them
    int waits = 0;                // how many of them have not given their gradient yet
    bool learns = false;          // whether it has weights that are trained, or one below it has
    Activation activation;        // of any but a pool or dropout node
    const Layer* drop = nullptr;  // the dropout of a dropout node, or fused into a dense node
    const Layer* pool = nullptr;  // a max-pooling fused into a conv node
    const Layer* norm = nullptr;  // a batch normalisation that does not learn, folded into a dense or conv node
    int64_t rows = 0, inputs = 0, cols = 0;  // x is [rows, inputs] but for a convolution, y is [rows, cols]
    int x = -1, y = -1;           // buffers
    int argmax = -1;              // where the maxima of a pooling were
    int mean = -1, inv_std = -1;  // that a normalisation found
    int scale = -1, shift = -1;   // that a folded one is
    int z = -1;                   // the input of an activation whose derivative needs it
    int mask = -1;
    int dy = -1;                  // gradient at the output; at the pre-activation once `differentiated`
    bool differentiated = false;
    bool lent = false;            // whether dy is others', too: not to be changed

    bool derivative_needs_input() const {
        return activation.function >= TILEFUSE_SILU && activation.function < TILEFUSE_ACTIVATION_COUNT;
    }
    double mask_scale() const { return 1 / (1 - drop->rate); }
    bool trained() const { return layer->has_weights() && layer->kind == kind && layer->trainable; }
    int64_t size() const { return rows * cols; }
};

// Nodes that one kernel takes together.
struct Network {
    size_t first, end;
};

inline std::string shape_text(int64_t rows, int64_t cols) {
    return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

// The convolution of a whole batch.
inline tilefuse_conv2d_shape window_of(const Node& node, int64_t batch) {
    tilefuse_conv2d_shape shape = node.layer->window;
    shape.n = batch;
    return shape;
}
inline tilefuse_conv2d_pool pool_of(const Node& node) {
    if (node.pool == nullptr) return {};
    return {node.pool->window.kernel_h, node.pool->window.kernel_w};
}

class Lowering {
public:
    Lowering(const Spec& spec, Plan& plan, const Machine& machine, StepState* state)
        : spec_(spec), plan_(plan), machine_(machine), state_(state), training_(plan.mode == Mode::train),
          team_memory_(buffer("memory of the team", 0, false)) {}

    void run();

private:
    struct VariableBuffer {
        const Variable* variable;
        int buffer;
    };

    // ---- building blocks ----

    int buffer(std::string name, int64_t bytes, bool in_arena = true);
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
        plan_.stages.back().uses.push_back(
            {buffer, rows, writes, [&pointer](void* p) { pointer = static_cast<P*>(p); }});
    }
    void touches(int buffer, bool writes) {  // without a pointer to set: a variable
        plan_.stages.back().uses.push_back({buffer, anywhere, writes, [](void*) {}});
    }

    int buffer_of(const Variable& variable, const std::string& name);
    void touches_kernel(const Layer& layer, bool writes) {
        touches(buffer_of(layer.kernel, "kernel of " + layer.name), writes);
    }
    void touches_bias(const Layer& layer, bool writes) {
        if (layer.bias.data) touches(buffer_of(layer.bias, "bias of " + layer.name), writes);
    }

    // ---- the network ----

    struct Feed {
        int node;
        bool alone;  // whether nobody else takes its y
    };

    void make_nodes();
    bool changes_nothing(const Layer& layer) const;
    bool fuse(const Layer& layer, Node& below) const;
    void append(const Layer& layer, int source, const Shape& input);
    Feed join(const Layer& layer, Feed one, Feed other);
    Node& node(int number) { return nodes_[static_cast<size_t>(number)]; }
    int y_of(int number) const {
        return number == network_input ? plan_.inputs[batch_x] : nodes_[static_cast<size_t>(number)].y;
    }
    void fuse_last_activation_into_loss();
    void add_inputs();
    void add_penalty();

    // ---- forward ----

    tilefuse_split split_of(const Node& node) const;
    void find_ends(Node& node);
    void forward(Node& node);
    void forward_dense(Node& node, const std::string& shape);
    void forward_conv(Node& node, const std::string& shape);
    void forward_pool(Node& node, const std::string& shape);
    void forward_batch_norm(Node& node, const std::string& shape);
    void forward_layer_norm(Node& node, const std::string& shape);
    void finish(Node& node, tilefuse_epilogue& epilogue, int64_t share);
    void fold(Node& node);
    // For the gradient: what a normalisation found, `size` numbers each.
    template <class A> void keep_statistics(A& args, Node& node, int64_t size) {
        if (!training_ || !node.learns) return;
        node.mean = floats("mean of " + node.layer->name, size);
        node.inv_std = floats("1 / deviation of " + node.layer->name, size);
        writes(args.mean, node.mean, anywhere);
        writes(args.inv_std, node.inv_std, anywhere);
    }
    void dropout_mask(Node& node);
    void loss();
    void record(int y, int64_t rows, int64_t cols);

    // ---- backward ----

    void backward(Node& node);
    void backward_dense(Node& node, Node& below);
    void backward_conv(Node& node, Node& below);
    void backward_pool(Node& node, Node& below);
    void backward_batch_norm(Node& node);
    void backward_layer_norm(Node& node);
    template <class A> A& normalisation_backward(const Node& node, A args);
    bool learns(int number) { return number >= 0 && node(number).learns; }
    void give(Node& below, void*& dx, tilefuse_epilogue& epilogue, int64_t share);
    void lend(int number, int dy, bool shared);
    void differentiate(tilefuse_epilogue& epilogue, Node& below, int64_t share);
    void to_input_of_activation(Node& node);
    int derivative_at(const Node& node) const { return node.derivative_needs_input() ? node.z : node.y; }

    // ---- updates ----

    bool fused_updates() const;
    void update(const Node& node);
    // Others' wait until all rows of dy are there anyway.
    static bool updates_at_once(const Node& node) { return node.kind == Layer::conv; }
    void update_dense(const Node& node);
    void update_conv(const Node& node);
    int gradient(const Variable& variable, std::string name);
    void clip_and_update();

    // ---- dense layers together in one kernel ----

    void find_networks();
    bool fits_network(const Node& node) const;
    const Network* network_of(size_t node) const;
    tilefuse_mlp_precision network_precision() const;
    tilefuse_mlp_args network_args(size_t first, size_t end) const;
    void forward(const Network& network);
    void backward(const Network& network);

    const Spec& spec_;
    Plan& plan_;
    const Machine machine_;
    StepState* const state_;
    const bool training_;
    std::vector<Node> nodes_;
    std::vector<Network> networks_;
    size_t lowest_trained_ = 0;
    bool from_logits_ = false, softmax_in_loss_ = false;
    std::function<void()> late_totals_;
    std::vector<VariableBuffer> gradients_;  // that are not updated by what computes them
    std::vector<VariableBuffer> variables_;
    const int team_memory_;
};

}  // namespace tilefuse::program
