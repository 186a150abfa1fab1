#include "bindings/optimizer.h"

#include <pybind11/stl.h>

#include "bindings/arrays.h"

namespace tilefuse::bindings {
namespace {

using Arrays = std::vector<py::array>;

template <class V> V get(const py::dict& d, const char* key, V otherwise) {
    return d.contains(key) && !d[key].is_none() ? d[key].cast<V>() : otherwise;
}

void require_as_many(const char* name, size_t given, size_t expected) {
    if (given == expected) return;
    throw py::value_error(std::string(name) + " has " + std::to_string(given) + " arrays; expected " +
                          std::to_string(expected) + ", one for each parameter");
}

// One step of the rule on all parameters; slots[i] are the arrays of params[i]. "l2" adds l2 w w to what is minimised, or
// taken from what is to "maximize".
void optimizer_step(const py::dict& description, Arrays params, const Arrays& grads,
                    std::vector<Arrays> slots) {
    const tilefuse_optimizer_rule rule = optimizer_from(description);
    require_as_many("grads", grads.size(), params.size());
    require_as_many("slots", slots.size(), params.size());
    if (params.empty()) return;
    const size_t slot_arrays = static_cast<size_t>(slot_count(rule));
    std::vector<tilefuse_parameter> parameters(params.size());
    Call call;
    tilefuse_optimizer_args args = {};
    args.dtype = dtype_of(params[0], "params[0]");
    args.rule = static_cast<const tilefuse_optimizer_rule*>(call.read(&rule, sizeof rule));
    args.parameters = parameters.data();
    args.count = static_cast<int64_t>(params.size());
    const double sign = get(description, "maximize", false) ? -1 : 1;
    const double* const scale = sign < 0 ? static_cast<const double*>(call.read(&sign, sizeof sign)) : nullptr;
    const double l2 = get(description, "l2", 0.0);
    for (size_t i = 0; i < params.size(); ++i) {
        tilefuse_parameter& p = parameters[i];
        p = {};
        p.n = params[i].size();
        p.l2 = sign * l2;
        p.grad_scale = scale;
        p.w = call.in_out(params[i], "params", args.dtype, p.n);
        p.dw = call.input(grads[i], "grads", args.dtype, p.n);
        if (slots[i].size() != slot_arrays) {
            throw py::value_error("a parameter has " + std::to_string(slots[i].size()) + " slots; expected " +
                                  std::to_string(slot_arrays));
        }
        for (size_t s = 0; s < slot_arrays; ++s) p.slots[s] = call.in_out(slots[i][s], "slots", args.dtype, p.n);
    }
    call.run(args);
}

// (scales, norms): what each gradient is to be multiplied by, and the norms of the gradients.
std::pair<std::vector<double>, std::vector<double>> clip_norm(const Arrays& grads, double limit,
                                                              bool global) {
    std::vector<tilefuse_parameter> parameters(grads.size());
    std::vector<double> scales(grads.size()), norms(grads.size());
    if (grads.empty()) return {scales, norms};
    Call call;
    tilefuse_clip_norm_args args = {};
    args.dtype = dtype_of(grads[0], "grads[0]");
    args.parameters = parameters.data();
    args.count = static_cast<int64_t>(grads.size());
    const auto bytes = static_cast<py::ssize_t>(grads.size() * sizeof(double));
    args.limit = limit;
    args.global = global;
    args.scales = static_cast<double*>(call.write(scales.data(), bytes));
    args.norms = static_cast<double*>(call.write(norms.data(), bytes));
    for (size_t i = 0; i < grads.size(); ++i) {
        parameters[i] = {};
        parameters[i].n = grads[i].size();
        parameters[i].dw = call.input(grads[i], "grads", args.dtype, grads[i].size());
    }
    call.run(args);
    return {scales, norms};
}

}  // namespace

tilefuse_optimizer_rule optimizer_from(const py::dict& d) {
    tilefuse_optimizer_rule rule = {};
    const std::string kind = get<std::string>(d, "kind", "");
    if (kind == "sgd") rule.kind = TILEFUSE_SGD;
    else if (kind == "adagrad") rule.kind = TILEFUSE_ADAGRAD;
    else if (kind == "rmsprop") rule.kind = TILEFUSE_RMSPROP;
    else if (kind == "adam") rule.kind = TILEFUSE_ADAM;
    else
        throw py::value_error("unknown optimizer '" + kind +
                              "'; expected one of: sgd, adagrad, rmsprop, adam");
    if (get<std::string>(d, "convention", "keras") == "torch") rule.convention = TILEFUSE_TORCH_OPTIMIZER;
    if (rule.convention == TILEFUSE_TORCH_OPTIMIZER && !backend::uses_host_memory())
        throw py::value_error(std::string("PyTorch's convention is not known on ") + backend::name() + ": use device 'cpu'");
    rule.learning_rate = get(d, "learning_rate", 0.001);
    rule.momentum = get(d, "momentum", 0.0);
    rule.nesterov = get(d, "nesterov", false);
    rule.rho = get(d, "rho", 0.9);
    rule.centered = get(d, "centered", false);
    rule.beta_1 = get(d, "beta_1", 0.9);
    rule.beta_2 = get(d, "beta_2", 0.999);
    rule.epsilon = get(d, "epsilon", 1e-7);
    rule.amsgrad = get(d, "amsgrad", false);
    rule.weight_decay = get(d, "weight_decay", 0.0);
    rule.dampening = get(d, "dampening", 0.0);
    rule.clip_value = get(d, "clipvalue", 0.0);
    rule.step = get<int64_t>(d, "step", 1);
    return rule;
}

int slot_count(const tilefuse_optimizer_rule& rule) {
    switch (rule.kind) {
        case TILEFUSE_SGD: return rule.momentum > 0;
        case TILEFUSE_ADAGRAD: return 1;
        case TILEFUSE_RMSPROP: return 1 + (rule.momentum > 0) + (rule.centered != 0);
        case TILEFUSE_ADAM: return 2 + (rule.amsgrad != 0);
    }
    return 0;
}

const Binding binding = [](py::module_& m) {
    m.def("optimizer_step", &optimizer_step, py::arg("rule"), py::arg("params"), py::arg("grads"),
          py::arg("slots"), "One update of all params in place; slots[i] holds the arrays of params[i].");
    m.def("clip_norm", &clip_norm, py::arg("grads"), py::arg("limit"), py::arg("global_norm"),
          "(scales, norms): what each gradient is to be multiplied by, and the norms before that.");
};

}  // namespace tilefuse::bindings
