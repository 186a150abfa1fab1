#include "tilefuse/norm.h"

#include <pybind11/stl.h>

#include <optional>

#include "bindings/activation.h"
#include "bindings/direct.h"
#include "bindings/optimizer.h"

namespace tilefuse::bindings {
namespace {

using Optional = std::optional<py::array>;

// The last axis has the columns; the others are rows.
template <class Args> void set_shape(Args& args, const py::array& x) {
    if (x.ndim() == 0) throw py::value_error("x has no axes; expected at least one");
    args.dtype = dtype_of(x, "x");
    args.cols = x.shape(x.ndim() - 1);
    args.rows = 1;
    for (py::ssize_t axis = 0; axis + 1 < x.ndim(); ++axis) args.rows *= x.shape(axis);
}

const void* input_or_null(Call& call, const Optional& a, const char* name, tilefuse_dtype dtype, py::ssize_t size) {
    return a ? call.input(*a, name, dtype, size) : nullptr;
}
void* output_or_null(Call& call, Optional& a, const char* name, tilefuse_dtype dtype, py::ssize_t size) {
    return a ? call.output(*a, name, dtype, size) : nullptr;
}

void batch_norm(const py::array& x, const Optional& gamma, const Optional& beta, Optional moving_mean, Optional moving_variance,
                py::array& y, bool training, double momentum, double epsilon, const std::string& activation, double alpha,
                const Optional& residual, Optional mean, Optional inv_std, Optional preactivation) {
    tilefuse_batch_norm_args args = {};
    set_shape(args, x);
    args.training = training;
    args.momentum = momentum;
    args.epsilon = epsilon;
    args.epilogue.activation = activation_from(activation);
    args.epilogue.activation_alpha = alpha;
    if (!training && !(moving_mean && moving_variance)) throw py::value_error("without training, moving_mean and moving_variance are needed");
    Call call;
    const auto moving = [&](Optional& a, const char* name) -> void* {
        if (!a) return nullptr;
        return training ? call.in_out(*a, name, args.dtype, args.cols) : const_cast<void*>(call.input(*a, name, args.dtype, args.cols));
    };
    args.x = call.input(x, "x", args.dtype, x.size());
    args.gamma = input_or_null(call, gamma, "gamma", args.dtype, args.cols);
    args.beta = input_or_null(call, beta, "beta", args.dtype, args.cols);
    args.epilogue.addend = input_or_null(call, residual, "residual", args.dtype, x.size());
    args.moving_mean = moving(moving_mean, "moving_mean");
    args.moving_variance = moving(moving_variance, "moving_variance");
    args.y = call.output(y, "y", args.dtype, x.size());
    args.mean = output_or_null(call, mean, "mean", args.dtype, args.cols);
    args.inv_std = output_or_null(call, inv_std, "inv_std", args.dtype, args.cols);
    args.epilogue.preactivation = output_or_null(call, preactivation, "z", args.dtype, x.size());
    call.run(args);
}

void batch_norm_backward(const py::array& dy, const py::array& x, const Optional& gamma, const py::array& mean, const py::array& inv_std,
                         Optional dx, Optional dgamma, Optional dbeta, bool training, const Optional& derivative_at,
                         const std::string& derivative, double alpha) {
    tilefuse_batch_norm_backward_args args = {};
    set_shape(args, x);
    args.training = training;
    args.epilogue.derivative = activation_from(derivative);
    args.epilogue.derivative_alpha = alpha;
    Call call;
    args.dy = call.input(dy, "dy", args.dtype, x.size());
    args.x = call.input(x, "x", args.dtype, x.size());
    args.gamma = input_or_null(call, gamma, "gamma", args.dtype, args.cols);
    args.mean = call.input(mean, "mean", args.dtype, args.cols);
    args.inv_std = call.input(inv_std, "inv_std", args.dtype, args.cols);
    args.epilogue.derivative_at = input_or_null(call, derivative_at, "derivative_at", args.dtype, x.size());
    args.dx = output_or_null(call, dx, "dx", args.dtype, x.size());
    args.dgamma = output_or_null(call, dgamma, "dgamma", args.dtype, args.cols);
    args.dbeta = output_or_null(call, dbeta, "dbeta", args.dtype, args.cols);
    call.run(args);
}

void layer_norm(const py::array& x, const Optional& gamma, const Optional& beta, py::array& y, bool rms, double epsilon, Optional mean,
                Optional inv_std) {
    tilefuse_layer_norm_args args = {};
    set_shape(args, x);
    args.rms = rms;
    args.epsilon = epsilon;
    Call call;
    args.x = call.input(x, "x", args.dtype, x.size());
    args.gamma = input_or_null(call, gamma, "gamma", args.dtype, args.cols);
    args.beta = input_or_null(call, beta, "beta", args.dtype, args.cols);
    args.y = call.output(y, "y", args.dtype, x.size());
    args.mean = output_or_null(call, mean, "mean", args.dtype, args.rows);
    args.inv_std = output_or_null(call, inv_std, "inv_std", args.dtype, args.rows);
    call.run(args);
}

void layer_norm_backward(const py::array& dy, const py::array& x, const Optional& gamma, Optional dx, Optional dgamma, Optional dbeta,
                         bool rms, double epsilon, const Optional& mean, const Optional& inv_std) {
    tilefuse_layer_norm_backward_args args = {};
    set_shape(args, x);
    args.rms = rms;
    args.epsilon = epsilon;
    if (inv_std && !rms && !mean) throw py::value_error("inv_std is given without mean: pass both, or none");
    Call call;
    args.dy = call.input(dy, "dy", args.dtype, x.size());
    args.x = call.input(x, "x", args.dtype, x.size());
    args.gamma = input_or_null(call, gamma, "gamma", args.dtype, args.cols);
    args.mean = input_or_null(call, mean, "mean", args.dtype, args.rows);
    args.inv_std = input_or_null(call, inv_std, "inv_std", args.dtype, args.rows);
    args.dx = output_or_null(call, dx, "dx", args.dtype, x.size());
    args.dgamma = output_or_null(call, dgamma, "dgamma", args.dtype, args.cols);
    args.dbeta = output_or_null(call, dbeta, "dbeta", args.dtype, args.cols);
    call.run(args);
}

template <class Args> bool set_shape(Args& args, const View& x, double epsilon) {
    args.dtype = x.dtype;
    args.cols = x.last();
    args.rows = x.rows();
    if constexpr (requires { args.epsilon; }) args.epsilon = epsilon;
    return x.axes > 0 && epsilon >= 0;
}

constexpr double operations = 10;  // for an element, about

void* data_or_null(const View& a) { return a ? a.data : nullptr; }

// (x, gamma, beta, moving_mean, moving_variance, *, training, momentum, epsilon, activation, residual)
py::object run_batch_norm(Arguments& given) {
    enum { X, GAMMA, BETA, MEAN, VARIANCE, TRAINING, MOMENTUM, EPSILON, ACTIVATION, RESIDUAL };
    tilefuse_batch_norm_args args = {};
    View x, gamma, beta, mean, variance, residual;
    bool training;
    double momentum = 0.99, epsilon = 1e-3;
    if (!given.packed(X, x) || !given.optional_array(GAMMA, gamma) || !given.optional_array(BETA, beta) || !given.flag(TRAINING, training) ||
        !given.number(MOMENTUM, momentum) || !given.number(EPSILON, epsilon) || !set_shape(args, x, epsilon) ||
        !given.activation(ACTIVATION, args.epilogue.activation, args.epilogue.activation_alpha) ||
        !given.optional_array(RESIDUAL, residual) || (residual && !(residual.like(x) && residual.packed)) || !(momentum >= 0 && momentum <= 1)) {
        return {};
    }
    const auto read_moving = [&](size_t i, View& a) {
        if (!given.has(i)) return given.given(i) && training;
        return training ? given.output(i, a) : given.array(i, a);
    };
    if (!given.given(GAMMA) || !given.given(BETA) || !read_moving(MEAN, mean) || !read_moving(VARIANCE, variance))
        return {};
    for (const View* a : {&gamma, &beta, &mean, &variance})
        if (*a && !a->is_row(x)) return {};
    Result y = given.result(x), batch_mean, inv_std;
    if (training) {
        batch_mean = given.result(x.dtype, 1, &args.cols);
        inv_std = given.result(x.dtype, 1, &args.cols);
        args.mean = batch_mean.data;
        args.inv_std = inv_std.data;
    }
    args.training = training;
    args.momentum = momentum;
    args.x = x.data;
    args.y = y.data;
    args.gamma = data_or_null(gamma);
    args.beta = data_or_null(beta);
    args.moving_mean = data_or_null(mean);
    args.moving_variance = data_or_null(variance);
    args.epilogue.addend = data_or_null(residual);
    run_directly(operations * static_cast<double>(x.size), args);
    return training ? py::object(py::make_tuple(y.take(), batch_mean.take(), inv_std.take())) : y.take();
}

// (dy, x, gamma, mean, inv_std, y, *, training, activation, z, residual)
py::object run_batch_norm_backward(Arguments& given) {
    enum { DY, X, GAMMA, MEAN, INV_STD, Y, TRAINING, ACTIVATION, Z, RESIDUAL };
    tilefuse_batch_norm_backward_args args = {};
    BeforeActivation before;
    View dy, x, gamma, mean, inv_std, y, z;
    bool training = true, residual;
    if (!given.packed(DY, dy) || !given.packed(X, x) || !dy.like(x) || !given.given(GAMMA) || !given.optional_array(GAMMA, gamma) ||
        !given.array(MEAN, mean) || !given.array(INV_STD, inv_std) || !given.optional_array(Y, y) || !given.optional_array(Z, z) ||
        (given.given(TRAINING) && !given.flag(TRAINING, training)) || !given.flag(RESIDUAL, residual) || residual ||
        !given.activation(ACTIVATION, before.args.activation, before.args.alpha) || !set_shape(args, x, 0) || !before.set(dy, y, z)) {
        return {};
    }
    for (const View* a : {&gamma, &mean, &inv_std})
        if (*a && !a->is_row(x)) return {};
    Result dx = given.result(x), dgamma = given.result(x.dtype, 1, &args.cols), dbeta = given.result(x.dtype, 1, &args.cols);
    args.training = training;
    args.dy = before.data();
    args.x = x.data;
    args.gamma = data_or_null(gamma);
    args.mean = mean.data;
    args.inv_std = inv_std.data;
    args.dx = dx.data;
    args.dgamma = dgamma.data;
    args.dbeta = dbeta.data;
    const double work = 2 * operations * static_cast<double>(x.size);
    before.run(work);
    run_directly(work, args);
    return py::make_tuple(dx.take(), dgamma.take(), dbeta.take());
}

// (x, gamma, beta, *, epsilon), RMS without beta.
template <bool rms> py::object run_forward(Arguments& given) {
    tilefuse_layer_norm_args args = {};
    View x, gamma, beta;
    double epsilon = rms ? 1e-6 : 1e-3;
    if (!given.packed(0, x) || !given.optional_array(1, gamma) || (!rms && !given.optional_array(2, beta)) ||
        !given.number(rms ? 2 : 3, epsilon) || !set_shape(args, x, epsilon) || (gamma && !gamma.is_row(x)) || (beta && !beta.is_row(x))) {
        return {};
    }
    Result y = given.result(x);
    args.rms = rms;
    args.x = x.data;
    args.gamma = data_or_null(gamma);
    args.beta = data_or_null(beta);
    args.y = y.data;
    run_directly(operations * static_cast<double>(x.size), args);
    return y.take();
}

// (dy, x, gamma, *, epsilon)
template <bool rms> py::object run_backward(Arguments& given) {
    tilefuse_layer_norm_backward_args args = {};
    View dy, x, gamma;
    double epsilon = rms ? 1e-6 : 1e-3;
    if (!given.packed(0, dy) || !given.packed(1, x) || !dy.like(x) || !given.optional_array(2, gamma) || !given.number(3, epsilon) ||
        !set_shape(args, x, epsilon) || (gamma && !gamma.is_row(x))) {
        return {};
    }
    Result dx = given.result(x), dgamma = given.result(x.dtype, 1, &args.cols);
    args.rms = rms;
    args.dy = dy.data;
    args.x = x.data;
    args.gamma = data_or_null(gamma);
    args.dx = dx.data;
    args.dgamma = dgamma.data;
    Result dbeta;
    if (!rms) {
        dbeta = given.result(x.dtype, 1, &args.cols);
        args.dbeta = dbeta.data;
    }
    run_directly(2 * operations * static_cast<double>(x.size), args);
    if (rms) return py::make_tuple(dx.take(), dgamma.take());
    return py::make_tuple(dx.take(), dgamma.take(), dbeta.take());
}

const Direct directs[] = {
    {"batch_norm", 5,
     {"x", "gamma", "beta", "moving_mean", "moving_variance", "training", "momentum", "epsilon", "activation", "residual"}, &run_batch_norm},
    {"batch_norm_backward", 6, {"dy", "x", "gamma", "mean", "inv_std", "y", "training", "activation", "z", "residual"},
     &run_batch_norm_backward},
    {"layer_norm", 3, {"x", "gamma", "beta", "epsilon"}, &run_forward<false>},
    {"layer_norm_backward", 3, {"dy", "x", "gamma", "epsilon"}, &run_backward<false>},
    {"rms_norm", 2, {"x", "gamma", "epsilon"}, &run_forward<true>},
    {"rms_norm_backward", 3, {"dy", "x", "gamma", "epsilon"}, &run_backward<true>},
};

}  // namespace

const Binding binding = [](py::module_& m) {
    using namespace py::literals;
    m.def("batch_norm", &batch_norm, "x"_a, "gamma"_a, "beta"_a, "moving_mean"_a, "moving_variance"_a, "y"_a, "training"_a, "momentum"_a,
          "epsilon"_a, "activation"_a = "linear", "alpha"_a = 0.0, "residual"_a = py::none(), "mean"_a = py::none(),
          "inv_std"_a = py::none(), "preactivation"_a = py::none(),
          "y = activation(gamma (x - mean) inv_std + beta + residual); in training the moving statistics are updated.");
    m.def("batch_norm_backward", &batch_norm_backward, "dy"_a, "x"_a, "gamma"_a, "mean"_a, "inv_std"_a, "dx"_a, "dgamma"_a, "dbeta"_a,
          "training"_a, "derivative_at"_a = py::none(), "derivative"_a = "linear", "alpha"_a = 0.0,
          "dx, dgamma and dbeta (or None) from the gradient dy before the activation.");
    m.def("layer_norm", &layer_norm, "x"_a, "gamma"_a, "beta"_a, "y"_a, "rms"_a, "epsilon"_a, "mean"_a = py::none(), "inv_std"_a = py::none(),
          "y = gamma (x - mean) inv_std + beta over the last axis; RMS: without the mean.");
    m.def("layer_norm_backward", &layer_norm_backward, "dy"_a, "x"_a, "gamma"_a, "dx"_a, "dgamma"_a, "dbeta"_a, "rms"_a, "epsilon"_a,
          "mean"_a = py::none(), "inv_std"_a = py::none(), "dx, dgamma and dbeta (or None) from the gradient dy at the output.");
};

}  // namespace tilefuse::bindings
