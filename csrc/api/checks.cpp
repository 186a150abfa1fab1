#include "api/checks.h"

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "common/optimizer.h"

namespace tilefuse::api {
namespace {

using std::string, std::to_string;

[[noreturn]] void refuse(const string& message) { throw std::invalid_argument(message); }

// An argument's name, made into a text where it is refused: of, of[index], of.member, of[index].member[slot].
struct Name {
    Name(const char* name) : of(name) {}
    Name(const char* name, int64_t place) : of(name), index(place) {}

    Name operator()(const char* its_member, int64_t place = -1) const {
        Name name = *this;
        name.member = its_member;
        name.slot = place;
        return name;
    }

    string text() const {
        const auto at = [](int64_t place) { return place < 0 ? "" : "[" + to_string(place) + "]"; };
        return of + at(index) + (member ? "." : "") + (member ? member : "") + at(slot);
    }

    const char *of, *member = nullptr;
    int64_t index = -1, slot = -1;
};

// ---- numbers --------------------------------------------------------------------------------------------------------

void at_least(int64_t least, int64_t value, const Name& name) {
    if (value < least) refuse(name.text() + " is " + to_string(value) + "; expected " + to_string(least) + " or more");
}

void either(int value, int count, const Name& name) {
    if (value < 0 || value >= count) refuse(name.text() + " is " + to_string(value) + "; expected a value of its enum, 0 to " + to_string(count - 1));
}

struct Size {
    const char* name;
    int64_t value;
};

// How many elements an array of this shape has: so many that offsets in bytes can be computed.
int64_t elements(std::initializer_list<Size> shape) {
    constexpr int64_t most = int64_t{1} << 59;
    int64_t product = 1;
    bool fits = true, empty = false;
    for (const Size& size : shape) {
        at_least(0, size.value, size.name);
        empty = empty || size.value == 0;
        fits = fits && !__builtin_mul_overflow(product, size.value, &product) && product <= most;
    }
    if (empty) return 0;
    if (fits) return product;
    string names;
    for (const Size& size : shape) names += string(names.empty() ? "" : " * ") + size.name;
    refuse(names + " is more than memory can hold");
}

// ---- arrays ---------------------------------------------------------------------------------------------------------

// An array of elements of `item` bytes.
void array(const void* p, int64_t count, size_t item, const Name& name) {
    if (p == nullptr && count > 0) refuse(name.text() + " is null; expected an array of " + to_string(count) + " elements");
    if (reinterpret_cast<uintptr_t>(p) % item != 0) refuse(name.text() + " is not aligned to its elements of " + to_string(item) + " bytes");
}
void optional(const void* p, size_t item, const Name& name) { array(p, 0, item, name); }

size_t size_of(tilefuse_dtype dtype) {
    either(dtype, 2, "dtype");
    return dtype == TILEFUSE_FLOAT32 ? 4 : 8;
}

// ---- what several kernels share -------------------------------------------------------------------------------------

void check_activation(tilefuse_activation_kind activation, const Name& name) { either(activation, TILEFUSE_ACTIVATION_COUNT, name); }

void check_precision(tilefuse_precision precision) {
    either(precision, TILEFUSE_PRECISION_FLOAT16 + 1, "precision");
    if (precision > TILEFUSE_PRECISION_BFLOAT16) refuse("precision is one that CUDA devices alone have; expected FLOAT32, IEEE or BFLOAT16");
}

// Returns how many slots a parameter has.
int check_rule(const tilefuse_optimizer_rule& rule) {
    either(rule.kind, TILEFUSE_ADAM + 1, "rule.kind");
    if (rule.kind == TILEFUSE_ADAM) at_least(1, rule.step, "rule.step");
    int slots = 0;
    with_rule(rule, [&](auto r) { slots = decltype(r)::slots; });
    return slots;
}

// A parameter that is updated with a gradient of so many elements.
void check_update(const tilefuse_optimizer_rule& rule, const tilefuse_parameter& p, int64_t count, size_t item, const Name& name) {
    const int slots = check_rule(rule);
    if (p.n != count) refuse(name("n").text() + " is " + to_string(p.n) + "; expected " + to_string(count) + ", as the gradient has");
    array(p.w, count, item, name("w"));
    for (int i = 0; i < slots; ++i) array(p.slots[i], count, item, name("slots", i));
    optional(p.grad_scale, sizeof(double), name("grad_scale"));
}

// A gradient that is stored, or, with a rule, updates its parameter if it has one.
void check_gradient(const tilefuse_optimizer_rule* rule, const tilefuse_parameter& p, const void* stored, int64_t count, size_t item,
                    const Name& name, const Name& parameter) {
    if (rule == nullptr) return optional(stored, item, name);
    if (p.w != nullptr) check_update(*rule, p, count, item, parameter);
}

// Of results with so many elements; without a rule where these are not the gradient of a parameter.
enum Rules { with_rule_too, no_rule };
void check_epilogue(const tilefuse_epilogue& e, int64_t count, size_t item, Rules rules) {
    check_activation(e.activation, "epilogue.activation");
    check_activation(e.derivative, "epilogue.derivative");
    optional(e.scale, item, "epilogue.scale");
    optional(e.bias, item, "epilogue.bias");
    optional(e.addend, item, "epilogue.addend");
    optional(e.preactivation, item, "epilogue.preactivation");
    optional(e.derivative_at, item, "epilogue.derivative_at");
    if (!e.rule) return;
    if (rules == no_rule) refuse("epilogue.rule is given; expected null, as this kernel computes no parameter's gradient");
    check_update(*e.rule, e.parameter, count, item, "epilogue.parameter");
}

// ---- convolution and pooling ----------------------------------------------------------------------------------------

int64_t inputs_of(const tilefuse_conv2d_shape& s) { return elements({{"n", s.n}, {"h", s.h}, {"w", s.w}, {"c", s.c}}); }

int64_t outputs_of(const tilefuse_conv2d_shape& s, const tilefuse_conv2d_pool& pool = {}) {
    const int64_t high = pool.height ? s.out_h / pool.height : s.out_h, wide = pool.width ? s.out_w / pool.width : s.out_w;
    return elements({{"n", s.n}, {"out_h", high}, {"out_w", wide}, {"f", s.f}});
}

int64_t weights_of(const tilefuse_conv2d_shape& s) {
    return elements({{"kernel_h", s.kernel_h}, {"kernel_w", s.kernel_w}, {"c / groups", s.c / s.groups}, {"f", s.f}});
}

void check_shape(const tilefuse_conv2d_shape& s) {
    constexpr int64_t most = (int64_t{1} << 31) - 1;  // so that places in an image can be computed
    for (const Size& size : {Size{"n", s.n}, {"h", s.h}, {"w", s.w}, {"c", s.c}, {"f", s.f}, {"out_h", s.out_h}, {"out_w", s.out_w}})
        at_least(0, size.value, Name("shape")(size.name));
    for (const Size& size : {Size{"kernel_h", s.kernel_h}, {"kernel_w", s.kernel_w}, {"stride_h", s.stride_h}, {"stride_w", s.stride_w},
                             {"dilation_h", s.dilation_h}, {"dilation_w", s.dilation_w}, {"groups", s.groups}})
        at_least(1, size.value, Name("shape")(size.name));
    at_least(-most, s.pad_top, Name("shape")("pad_top"));
    at_least(-most, s.pad_left, Name("shape")("pad_left"));
    for (const int64_t value : {s.n, s.h, s.w, s.c, s.f, s.out_h, s.out_w, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.dilation_h,
                                s.dilation_w, s.groups, s.pad_top, s.pad_left})
        if (value > most) refuse("shape has " + to_string(value) + "; expected at most " + to_string(most));
    if (s.c % s.groups != 0 || s.f % s.groups != 0) {
        refuse("shape has " + to_string(s.groups) + " groups of c = " + to_string(s.c) + " and f = " + to_string(s.f) +
               "; expected a number that divides both");
    }
}

void check_pool(const tilefuse_conv2d_pool& pool) {
    if (pool.height == 0 && pool.width == 0) return;
    if (pool.height < 1 || pool.width < 1 || pool.height > 256 || pool.height * pool.width > 256) {
        refuse("pool is " + to_string(pool.height) + " x " + to_string(pool.width) + "; expected 1 to 256 values, or 0 x 0 for none");
    }
}

// What all directions have; returns the size of their elements.
template <class Args> size_t check_convolution(const Args& args) {
    check_precision(args.precision);
    check_shape(args.shape);
    check_pool(args.pool);
    return size_of(args.dtype);
}

template <class Args> size_t check_pooling(const Args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    either(args.kind, TILEFUSE_POOL_AVERAGE + 1, "kind");
    check_shape(s);
    if (s.kernel_h > INT32_MAX / s.kernel_w) refuse("shape: kernel_h x kernel_w is too large; expected less than 2^31 elements");
    if (s.f != s.c || s.groups != 1 || s.dilation_h != 1 || s.dilation_w != 1) refuse("shape: expected f = c, and dilation and groups 1");
    return size_of(args.dtype);
}

size_t size_of_place(const tilefuse_conv2d_shape& s) { return s.kernel_h * s.kernel_w <= TILEFUSE_POOL_OF_BYTES ? 1 : 4; }

template <class Args> int64_t rows_by_cols(const Args& args) { return elements({{"rows", args.rows}, {"cols", args.cols}}); }

}  // namespace

// ---- the kernels ----------------------------------------------------------------------------------------------------

void check(const tilefuse_matmul_args& args) {
    const size_t item = size_of(args.dtype);
    check_precision(args.precision);
    either(args.operands, TILEFUSE_STORED_FLOAT16 + 1, "operands");
    either(args.result, TILEFUSE_STORED_FLOAT16 + 1, "result");
    either(args.split, TILEFUSE_SPLIT_SUM + 1, "split");
    if (args.operands == TILEFUSE_STORED_FLOAT16 || args.result == TILEFUSE_STORED_FLOAT16) {
        refuse("operands or result is FLOAT16, which CUDA devices alone have; expected WHOLE or BFLOAT16");
    }
    const bool narrow_operands = args.operands != TILEFUSE_STORED_WHOLE, narrow_result = args.result != TILEFUSE_STORED_WHOLE;
    if ((narrow_operands && args.dtype != TILEFUSE_FLOAT32) || (narrow_result && !narrow_operands)) {
        refuse("BFLOAT16 is for dtype FLOAT32, and for the result where it is for the operands");
    }
    if (args.batch_axes < 0 || args.batch_axes > TILEFUSE_MAX_BATCH_AXES) {
        refuse("batch_axes is " + to_string(args.batch_axes) + "; expected 0 to " + to_string(TILEFUSE_MAX_BATCH_AXES));
    }
    int64_t products = 1;
    for (int axis = 0; axis < args.batch_axes; ++axis) products = elements({{"batch", products}, {"batch_shape", args.batch_shape[axis]}});
    const Size m = {"m", args.m}, n = {"n", args.n}, k = {"k", args.k}, batch = {"batch", products};
    at_least(0, args.k, "k");
    const int64_t of_c = elements({m, n}), results = elements({batch, m, n});
    const bool multiplies = results > 0;
    array(args.a, multiplies ? elements({m, k}) : 0, narrow_operands ? 2 : item, "a");
    array(args.b, multiplies ? elements({k, n}) : 0, narrow_operands ? 2 : item, "b");
    array(args.c, args.epilogue.rule ? 0 : results, narrow_result ? 2 : item, "c");
    check_epilogue(args.epilogue, of_c, item, with_rule_too);
    if (args.epilogue.rule && (args.beta != 0 || narrow_result)) {
        refuse("epilogue.rule is given with beta " + to_string(args.beta) + (narrow_result ? " and result BFLOAT16" : "") +
               "; expected beta 0 and a result of dtype, as C is not written");
    }
    if (args.epilogue.rule && products > 1) refuse("epilogue.rule is given with " + to_string(products) + " products; expected one");
    if (narrow_result && (args.epilogue.preactivation || args.epilogue.addend || args.epilogue.derivative_at)) {
        refuse("result is BFLOAT16: addend, preactivation and derivative_at, which are strided as C, do not go with it");
    }
}

void check(const tilefuse_column_sum_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.x, elements({{"m", args.m}, {"n", args.n}}), item, "x");
    if (args.rule == nullptr) return array(args.y, args.n, item, "y");
    check_update(*args.rule, args.parameter, args.n, item, "parameter");
}

void check(const tilefuse_conv2d_args& args) {
    const size_t item = check_convolution(args);
    const int64_t outputs = outputs_of(args.shape, args.pool);
    array(args.x, outputs > 0 ? inputs_of(args.shape) : 0, item, "x");
    array(args.w, outputs > 0 ? weights_of(args.shape) : 0, item, "w");
    array(args.y, outputs, item, "y");
    const tilefuse_epilogue& e = args.epilogue;
    check_epilogue(e, outputs, item, no_rule);
    if (args.pool.height > 0 && (e.scale || e.addend || e.preactivation)) {
        refuse("with pooling, the epilogue has bias and activation; expected scale, addend and preactivation to be null");
    }
}

void check(const tilefuse_conv2d_backward_data_args& args) {
    const size_t item = check_convolution(args);
    const int64_t inputs = inputs_of(args.shape), outputs = outputs_of(args.shape, args.pool);
    array(args.dy, inputs > 0 ? outputs : 0, item, "dy");
    array(args.w, inputs > 0 && outputs > 0 ? weights_of(args.shape) : 0, item, "w");
    array(args.dx, inputs, item, "dx");
    array(args.argmax, args.pool.height > 0 && inputs > 0 ? outputs : 0, 1, "argmax");
    check_epilogue(args.epilogue, inputs, item, no_rule);
}

void check(const tilefuse_conv2d_backward_weights_args& args) {
    const size_t item = check_convolution(args);
    const int64_t outputs = outputs_of(args.shape, args.pool), weights = weights_of(args.shape);
    array(args.x, outputs > 0 ? inputs_of(args.shape) : 0, item, "x");
    array(args.dy, outputs, item, "dy");
    array(args.argmax, args.pool.height > 0 ? outputs : 0, 1, "argmax");
    if (args.rule) {
        check_update(*args.rule, args.kernel, weights, item, "kernel");
    } else {
        array(args.dw, weights, item, "dw");
    }
    check_gradient(args.rule, args.bias, args.db, args.shape.f, item, "db", "bias");
}

void check(const tilefuse_pool2d_args& args) {
    const size_t item = check_pooling(args);
    const int64_t outputs = outputs_of(args.shape);
    const bool places_alone = args.kind == TILEFUSE_POOL_MAX && args.argmax != nullptr;
    array(args.x, outputs > 0 ? inputs_of(args.shape) : 0, item, "x");
    array(args.y, places_alone ? 0 : outputs, item, "y");
    optional(args.argmax, size_of_place(args.shape), "argmax");
}

void check(const tilefuse_pool2d_backward_args& args) {
    const size_t item = check_pooling(args);
    const int64_t inputs = inputs_of(args.shape), outputs = inputs > 0 ? outputs_of(args.shape) : 0;
    array(args.dy, outputs, item, "dy");
    array(args.argmax, args.kind == TILEFUSE_POOL_MAX ? outputs : 0, size_of_place(args.shape), "argmax");
    array(args.dx, inputs, item, "dx");
    check_epilogue(args.epilogue, inputs, item, no_rule);
}

void check(const tilefuse_activation_args& args) {
    const size_t item = size_of(args.dtype);
    check_activation(args.activation, "activation");
    array(args.x, rows_by_cols(args), item, "x");
    array(args.y, rows_by_cols(args), item, "y");
}

void check(const tilefuse_activation_backward_args& args) {
    const size_t item = size_of(args.dtype);
    check_activation(args.activation, "activation");
    array(args.dy, rows_by_cols(args), item, "dy");
    array(args.at, rows_by_cols(args), item, "at");
    array(args.dx, rows_by_cols(args), item, "dx");
}

void check(const tilefuse_add_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.x, rows_by_cols(args), item, "x");
    array(args.y, rows_by_cols(args), item, "y");
    check_epilogue(args.epilogue, rows_by_cols(args), item, no_rule);
}

void check(const tilefuse_softmax_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.x, rows_by_cols(args), item, "x");
    array(args.y, rows_by_cols(args), item, "y");
}

void check(const tilefuse_softmax_backward_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.dy, rows_by_cols(args), item, "dy");
    array(args.y, rows_by_cols(args), item, "y");
    array(args.dx, rows_by_cols(args), item, "dx");
}

void check(const tilefuse_batch_norm_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.x, rows_by_cols(args), item, "x");
    array(args.y, rows_by_cols(args), item, "y");
    optional(args.gamma, item, "gamma");
    optional(args.beta, item, "beta");
    array(args.moving_mean, args.training ? 0 : args.cols, item, "moving_mean");
    array(args.moving_variance, args.training ? 0 : args.cols, item, "moving_variance");
    optional(args.mean, item, "mean");
    optional(args.inv_std, item, "inv_std");
    check_epilogue(args.epilogue, rows_by_cols(args), item, no_rule);
}

void check(const tilefuse_batch_norm_backward_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.dy, rows_by_cols(args), item, "dy");
    array(args.x, rows_by_cols(args), item, "x");
    optional(args.gamma, item, "gamma");
    array(args.mean, args.cols, item, "mean");
    array(args.inv_std, args.cols, item, "inv_std");
    optional(args.dx, item, "dx");
    check_gradient(args.rule, args.gamma_parameter, args.dgamma, args.cols, item, "dgamma", "gamma_parameter");
    check_gradient(args.rule, args.beta_parameter, args.dbeta, args.cols, item, "dbeta", "beta_parameter");
    check_epilogue(args.epilogue, rows_by_cols(args), item, no_rule);
}

void check(const tilefuse_batch_norm_fold_args& args) {
    const size_t item = size_of(args.dtype);
    at_least(0, args.cols, "cols");
    optional(args.gamma, item, "gamma");
    optional(args.beta, item, "beta");
    optional(args.bias, item, "bias");
    array(args.mean, args.cols, item, "mean");
    array(args.variance, args.cols, item, "variance");
    array(args.scale, args.cols, item, "scale");
    array(args.shift, args.cols, item, "shift");
}

void check(const tilefuse_layer_norm_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.x, rows_by_cols(args), item, "x");
    array(args.y, rows_by_cols(args), item, "y");
    optional(args.gamma, item, "gamma");
    optional(args.beta, item, "beta");
    optional(args.mean, item, "mean");
    optional(args.inv_std, item, "inv_std");
}

void check(const tilefuse_layer_norm_backward_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.dy, rows_by_cols(args), item, "dy");
    array(args.x, rows_by_cols(args), item, "x");
    optional(args.gamma, item, "gamma");
    array(args.mean, args.inv_std && !args.rms ? args.rows : 0, item, "mean");
    optional(args.inv_std, item, "inv_std");
    optional(args.dx, item, "dx");
    check_gradient(args.rule, args.gamma_parameter, args.dgamma, args.cols, item, "dgamma", "gamma_parameter");
    check_gradient(args.rule, args.beta_parameter, args.dbeta, args.cols, item, "dbeta", "beta_parameter");
}

void check(const tilefuse_loss_args& args) {
    const size_t item = size_of(args.dtype);
    either(args.loss, TILEFUSE_MEAN_SQUARED_ERROR + 1, "loss");
    const bool classes = args.loss == TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY;
    array(args.x, rows_by_cols(args), item, "x");
    array(args.labels, classes ? args.rows : rows_by_cols(args), classes ? 4 : item, "labels");
    optional(args.sample_weight, item, "sample_weight");
    if (args.sample_weight) at_least(1, args.rows_per_sample, "rows_per_sample");
    optional(args.dx, item, "dx");
    optional(args.probabilities, item, "probabilities");
    optional(args.row_loss, sizeof(double), "row_loss");
    optional(args.row_correct, sizeof(double), "row_correct");
}

void check(const tilefuse_dropout_mask_args& args) {
    array(args.mask, rows_by_cols(args), 1, "mask");
    array(args.step, 1, sizeof(uint64_t), "step");
    if (!(args.rate >= 0 && args.rate < 1)) refuse("rate is " + to_string(args.rate) + "; expected a number in [0, 1)");
}

void check(const tilefuse_dropout_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.x, rows_by_cols(args), item, "x");
    array(args.mask, rows_by_cols(args), 1, "mask");
    array(args.y, rows_by_cols(args), item, "y");
}

namespace {

template <class Args, class Each> void for_parameters(const Args& args, const Each& each) {
    at_least(0, args.count, "count");
    array(args.parameters, args.count, alignof(tilefuse_parameter), "parameters");
    for (int64_t i = 0; i < args.count; ++i) {
        const Name name("parameters", i);
        at_least(0, args.parameters[i].n, name("n"));
        each(args.parameters[i], name);
    }
}

}  // namespace

void check(const tilefuse_optimizer_args& args) {
    const size_t item = size_of(args.dtype);
    array(args.rule, 1, alignof(tilefuse_optimizer_rule), "rule");
    check_rule(*args.rule);
    for_parameters(args, [&](const tilefuse_parameter& p, const Name& name) {
        check_update(*args.rule, p, p.n, item, name);
        array(p.dw, p.n, item, name("dw"));
    });
}

void check(const tilefuse_clip_norm_args& args) {
    const size_t item = size_of(args.dtype);
    for_parameters(args, [&](const tilefuse_parameter& p, const Name& name) {
        array(p.dw, p.n, item, name("dw"));
        array(p.w, p.l1 != 0 || p.l2 != 0 ? p.n : 0, item, name("w"));
    });
    array(args.scales, args.count, sizeof(double), "scales");
    optional(args.norms, sizeof(double), "norms");
}

void check(const tilefuse_penalty_args& args) {
    const size_t item = size_of(args.dtype);
    for_parameters(args, [&](const tilefuse_parameter& p, const Name& name) { array(p.w, p.n, item, name("w")); });
    array(args.value, 1, sizeof(double), "value");
}

void check(const tilefuse_gather_args& args) {
    const int64_t bytes = elements({{"rows", args.rows}, {"row_bytes", args.row_bytes}});
    optional(args.order, sizeof(int64_t), "order");
    array(args.src, bytes, 1, "src");
    array(args.dst, bytes, 1, "dst");
}

void check(const tilefuse_total_args& args) {
    at_least(0, args.n, "n");
    array(args.x, args.n, sizeof(double), "x");
    array(args.sum, 1, sizeof(double), "sum");
}

}  // namespace tilefuse::api
