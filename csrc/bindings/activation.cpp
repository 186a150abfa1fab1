#include "bindings/activation.h"

#include "bindings/direct.h"

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

constexpr double operations = 8;  // for an element, about: what decides whether other threads may run meanwhile

py::object run_forward(Arguments& given, tilefuse_activation_kind f, double alpha) {
    View x;
    if (!given.packed(0, x)) return {};
    Result y = given.result(x);
    tilefuse_activation_args args = {};
    args.dtype = x.dtype;
    args.activation = f;
    args.alpha = alpha;
    args.rows = x.size;
    args.cols = 1;
    args.x = x.data;
    args.y = y.data;
    run_directly(operations * static_cast<double>(x.size), args);
    return y.take();
}

py::object run_backward(Arguments& given, tilefuse_activation_kind f, double alpha) {
    View dy, at;
    if (!given.packed(0, dy) || !given.packed(1, at) || !at.like(dy)) return {};
    Result dx = given.result(dy);
    tilefuse_activation_backward_args args = {};
    args.dtype = dy.dtype;
    args.activation = f;
    args.alpha = alpha;
    args.rows = dy.size;
    args.cols = 1;
    args.dy = dy.data;
    args.at = at.data;
    args.dx = dx.data;
    run_directly(operations * static_cast<double>(dy.size), args);
    return dx.take();
}

// An activation's two ops. The last parameter of some says which function it is.
struct DirectActivation {
    explicit DirectActivation(const Activation& entry, const char* parameter = nullptr)
        : forward(entry.name, parameter ? 2 : 1, names({"x"}, parameter), run(entry, 1, &run_forward)),
          backward(std::string(entry.name) + "_backward", parameter ? 3 : 2,
                   names({"dy", entry.activation < TILEFUSE_SILU ? "y" : "x"}, parameter), run(entry, 2, &run_backward)) {}

    static std::vector<const char*> names(std::vector<const char*> arrays, const char* parameter) {
        if (parameter != nullptr) arrays.push_back(parameter);
        return arrays;
    }

    static Direct::Run run(const Activation& entry, size_t place, py::object (*op)(Arguments&, tilefuse_activation_kind, double)) {
        if (entry.activation == TILEFUSE_GELU) {
            return [=](Arguments& given) -> py::object {
                bool approximate;
                return given.flag(place, approximate) ? op(given, approximate ? TILEFUSE_GELU_TANH : TILEFUSE_GELU, 0) : py::object();
            };
        }
        return [=, f = entry.activation, otherwise = entry.alpha](Arguments& given) -> py::object {
            double alpha = otherwise;
            return given.number(place, alpha) ? op(given, f, alpha) : py::object();
        };
    }

    Direct forward, backward;
};
const DirectActivation directs[] = {
    DirectActivation(activations[TILEFUSE_RELU]), DirectActivation(activations[TILEFUSE_LEAKY_RELU], "negative_slope"),
    DirectActivation(activations[TILEFUSE_ELU], "alpha"), DirectActivation(activations[TILEFUSE_SELU]),
    DirectActivation(activations[TILEFUSE_SIGMOID]), DirectActivation(activations[TILEFUSE_TANH]),
    DirectActivation(activations[TILEFUSE_SOFTPLUS]), DirectActivation(activations[TILEFUSE_SILU]),
    DirectActivation(activations[TILEFUSE_GELU], "approximate"),
};

}  // namespace

const Activation* find_activation(std::string_view name) {
    for (const Activation& entry : activations)
        if (name == entry.name) return &entry;
    return nullptr;
}

tilefuse_activation_kind activation_from(const std::string& name) {
    if (const Activation* found = find_activation(name)) return found->activation;
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
