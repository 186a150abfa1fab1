#include "bindings/activation.h"

#include <cstring>

#include "bindings/arrays.h"

namespace tilefuse::bindings {
namespace {

constexpr Activation activations[] = {
    {"linear", TILEFUSE_LINEAR, 0},
    {"relu", TILEFUSE_RELU, 0},
    {"leaky_relu", TILEFUSE_LEAKY_RELU, 0.2},
    {"elu", TILEFUSE_ELU, 1},
    {"selu", TILEFUSE_SELU, 0},
    {"sigmoid", TILEFUSE_SIGMOID, 0},
    {"tanh", TILEFUSE_TANH, 0},
    {"softplus", TILEFUSE_SOFTPLUS, 0},
    {"silu", TILEFUSE_SILU, 0},
    {"gelu", TILEFUSE_GELU, 0},
    {"gelu_tanh", TILEFUSE_GELU_TANH, 0},
};
static_assert(std::size(activations) == TILEFUSE_ACTIVATION_COUNT);

// y = f(x)
void activation(const py::array& x, py::array& y, const std::string& name, double alpha) {
    tilefuse_activation_args args = {};
    args.dtype = dtype_of(x, "x");
    args.activation = activation_from(name);
    args.alpha = alpha;
    args.rows = x.size();
    args.cols = 1;
    Call call;
    args.x = call.input(x, "x", args.dtype, x.size());
    args.y = call.output(y, "y", args.dtype, x.size());
    call.run(args);
}

// dx = dy * f'(at)
void activation_backward(const py::array& dy, const py::array& at, py::array& dx, const std::string& name,
                         double alpha) {
    tilefuse_activation_backward_args args = {};
    args.dtype = dtype_of(dy, "dy");
    args.activation = activation_from(name);
    args.alpha = alpha;
    args.rows = dy.size();
    args.cols = 1;
    Call call;
    args.dy = call.input(dy, "dy", args.dtype, dy.size());
    args.at = call.input(at, "at", args.dtype, dy.size());
    args.dx = call.output(dx, "dx", args.dtype, dy.size());
    call.run(args);
}

}  // namespace

const Activation* find_activation(const char* name) {
    for (const Activation& entry : activations)
        if (std::strcmp(name, entry.name) == 0) return &entry;
    return nullptr;
}

tilefuse_activation activation_from(const std::string& name) {
    if (const Activation* found = find_activation(name.c_str())) return found->activation;
    std::string known;
    for (const Activation& entry : activations) known += std::string(known.empty() ? "" : ", ") + entry.name;
    throw py::value_error("unknown activation '" + name + "'; expected one of: " + known);
}

const Binding binding = [](py::module_& m) {
    m.def("activations", [] {
        py::dict alphas;
        for (const Activation& entry : activations) alphas[entry.name] = entry.alpha;
        return alphas;
    }, "The activations' names, each with its parameter where nobody says another.");
    m.def("activation", &activation, py::arg("x"), py::arg("y"), py::arg("name"), py::arg("alpha"),
          "y = f(x), elementwise.");
    m.def("activation_backward", &activation_backward, py::arg("dy"), py::arg("at"), py::arg("dx"),
          py::arg("name"), py::arg("alpha"),
          "dx = dy * f'(at), where `at` is the output of f; for silu, gelu and gelu_tanh its input.");
};

}  // namespace tilefuse::bindings
