// Lowering: dense layers whose weights are small, together in one kernel.
#include "program/lowering.h"

namespace tilefuse::program {

bool Lowering::fits_network(const Node& node) const {
    return node.kind == Layer::dense && node.addend == no_node && node.norm == nullptr && spec_.dtype == TILEFUSE_FLOAT32 && node.cols <= TILEFUSE_MLP_WIDTH;
}

// As many neighbours as one kernel can take; a layer by itself is better off with its own.
void Lowering::find_networks() {
    if (!machine_.networks || !spec_.networks.whole) return;
    for (size_t first = 0; first < nodes_.size();) {
        size_t end = first;
        const auto follows = [&](const Node& node) {
            return end == first || (node.source == static_cast<int>(end) - 1 && nodes_[end - 1].readers == 1 &&
                                    node.rows == nodes_[first].rows && node.inputs == nodes_[end - 1].cols);
        };
        while (end < nodes_.size() && end - first < TILEFUSE_MLP_LAYERS && fits_network(nodes_[end]) &&
               follows(nodes_[end])) {
            ++end;
        }
        if (end - first > 1) networks_.push_back({first, end});
        first = std::max(end, first + 1);
    }
}

const Network* Lowering::network_of(size_t node) const {
    for (const Network& network : networks_)
        if (network.first <= node && node < network.end) return &network;
    return nullptr;
}

// How a network in one kernel multiplies: it has no tf32, but what is more exact.
tilefuse_mlp_precision Lowering::network_precision() const {
    if (spec_.networks.precision) return *spec_.networks.precision;
    switch (spec_.precision) {
        case TILEFUSE_PRECISION_IEEE: return TILEFUSE_MLP_FMA;
        case TILEFUSE_PRECISION_BFLOAT16: return TILEFUSE_MLP_BFLOAT16;
        case TILEFUSE_PRECISION_FLOAT16: return TILEFUSE_MLP_FLOAT16;
        case TILEFUSE_PRECISION_SPLIT:
        case TILEFUSE_PRECISION_TF32: return TILEFUSE_MLP_SPLIT;
        case TILEFUSE_PRECISION_FLOAT32: break;
    }
    return *machine_.networks;
}

// What both directions say of the layers.
tilefuse_mlp_args Lowering::network_args(size_t first, size_t end) const {
    tilefuse_mlp_args args = {};
    args.precision = network_precision();
    args.batch = nodes_[first].rows;
    args.inputs = nodes_[first].inputs;
    args.layers = static_cast<int>(end - first);
    for (size_t i = first; i < end; ++i) {
        const Node& node = nodes_[i];
        tilefuse_mlp_layer& layer = args.layer[i - first];
        layer.outputs = static_cast<int>(node.cols);
        layer.activation = node.activation.function;
        layer.activation_alpha = node.activation.alpha;
        layer.w = static_cast<const float*>(node.layer->kernel.data);
        layer.b = static_cast<const float*>(node.layer->bias.data);
        if (node.drop) layer.mask_scale = node.mask_scale();
    }
    return args;
}

void Lowering::forward(const Network& network) {
    std::string text;
    for (size_t i = network.first; i < network.end; ++i) {
        if (nodes_[i].drop != nullptr) dropout_mask(nodes_[i]);
        text += (i > network.first ? ", " : "") + nodes_[i].layer->name;
    }
    const Node& last = nodes_[network.end - 1];
    text += ": forward in one kernel -> " + shape_text(last.rows, last.cols);
    auto& args = stage(text, network_args(network.first, network.end));
    for (size_t i = network.first; i < network.end; ++i) {
        Node& node = nodes_[i];
        tilefuse_mlp_layer& layer = args.layer[i - network.first];
        touches_kernel(*node.layer, false);
        touches_bias(*node.layer, false);
        if (node.drop != nullptr) reads(layer.mask, node.mask, anywhere);
        find_ends(node);
        if (i == network.first) reads(args.x, node.x, anywhere);
        if (training_ || i + 1 == network.end) writes(layer.y, node.y, anywhere);
        if (training_ && node.derivative_needs_input()) {
            node.z = floats("z of " + node.layer->name, node.rows * node.cols);
            writes(layer.z, node.z, anywhere);
        }
    }
}

// Down to the lowest layer that learns.
void Lowering::backward(const Network& network) {
    size_t first = network.first;
    while (!nodes_[first].learns) ++first;
    std::string text;
    for (size_t i = network.end; i-- > first;) text += nodes_[i].layer->name + (i > first ? ", " : "");
    auto& args = stage(text + ": backward in one kernel", network_args(first, network.end));
    args.backward = 1;
    reads(args.x, nodes_[first].x, anywhere);
    reads(args.dy, nodes_[network.end - 1].dy, anywhere);
    for (size_t i = first; i < network.end; ++i) {
        const Node& node = nodes_[i];
        tilefuse_mlp_layer& layer = args.layer[i - first];
        touches_kernel(*node.layer, false);
        reads(layer.y, node.y, anywhere);
        if (node.differentiated) {
            layer.activation = TILEFUSE_LINEAR;
        } else {
            if (node.drop != nullptr) reads(layer.mask, node.mask, anywhere);
            if (node.derivative_needs_input()) reads(layer.z, node.z, anywhere);
        }
        if (!node.layer->trainable) continue;
        writes(layer.dw, gradient(node.layer->kernel, "dw of " + node.layer->name), anywhere);
        if (node.layer->bias.data == nullptr) continue;
        writes(layer.db, gradient(node.layer->bias, "db of " + node.layer->name), anywhere);
    }
    if (!learns(nodes_[first].source)) return;
    const int dx = floats("gradient at the input of " + nodes_[first].layer->name, nodes_[first].rows * nodes_[first].inputs);
    writes(args.dx, dx, anywhere);
    lend(nodes_[first].source, dx, false);
}

}  // namespace tilefuse::program
