#include "bindings/activation.h"

#include "bindings/arrays.h"

namespace tilefuse::bindings {
namespace {

constexpr struct {
    const char* name;
    tilefuse_activation activation;
} activations[] = {
    {"linear", TILEFUSE_LINEAR},
    {"relu", TILEFUSE_RELU},
    {"leaky_relu", TILEFUSE_LEAKY_RELU},
    {"elu", TILEFUSE_ELU},
    {"selu", TILEFUSE_SELU},
    {"sigmoid", TILEFUSE_SIGMOID},
    {"tanh", TILEFUSE_TANH},
    {"silu", TILEFUSE_SILU},
    {"softplus", TILEFUSE_SOFTPLUS},
    {"gelu_tanh", TILEFUSE_GELU_TANH},
    {"gelu", TILEFUSE_GELU},
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

tilefuse_activation activation_from(const std::string& name) {
    std::string known;
    for (const auto& entry : activations) {
        if (name == entry.name) return entry.activation;
        known += std::string(known.empty() ? "" : ", ") + entry.name;
    }
    throw py::value_error("unknown activation '" + name + "'; expected one of: " + known);
}

const Binding binding = [](py::module_& m) {
    m.def("activation", &activation, py::arg("x"), py::arg("y"), py::arg("name"), py::arg("alpha"),
          "y = f(x), elementwise.");
    m.def("activation_backward", &activation_backward, py::arg("dy"), py::arg("at"), py::arg("dx"),
          py::arg("name"), py::arg("alpha"),
          "dx = dy * f'(at), where `at` is the output of f; for silu, gelu and gelu_tanh its input.");
};

}  // namespace tilefuse::bindings
