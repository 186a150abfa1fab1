#include "bindings/activation.h"
#include "bindings/arrays.h"
#include "bindings/direct.h"
#include "bindings/precision.h"

namespace tilefuse::bindings {
namespace {

int64_t stride_of(const py::array& a, py::ssize_t axis) { return a.strides(axis) / a.itemsize(); }

bool whole_strides(const py::array& a) {
    for (py::ssize_t axis = 0; axis < a.ndim(); ++axis)
        if (a.strides(axis) % a.itemsize() != 0) return false;
    return reinterpret_cast<uintptr_t>(a.data()) % static_cast<size_t>(a.itemsize()) == 0;
}

void check_operand(const py::array& a, const char* name, tilefuse_dtype of_a, tilefuse_dtype dtype) {
    if (of_a != dtype) throw py::type_error(std::string(name) + "'s dtype differs from a's: pass all arrays in one dtype");
    if (!whole_strides(a)) throw py::value_error(std::string(name) + " is not aligned to its elements: pass a copy");
}

// Shapes and strides of a and b, each with its last two axes swapped if transposed; leading axes broadcast.
// Returns whether they fit.
bool set_operands(tilefuse_matmul_args& args, const py::array& a, bool transpose_a, const py::array& b, bool transpose_b) {
    const py::ssize_t lead_a = a.ndim() - 2, lead_b = b.ndim() - 2, axes = std::max(lead_a, lead_b);
    if (lead_a < 0 || lead_b < 0 || axes > TILEFUSE_MAX_BATCH_AXES) return false;
    const py::ssize_t row_a = lead_a + transpose_a, col_a = lead_a + !transpose_a;
    const py::ssize_t row_b = lead_b + transpose_b, col_b = lead_b + !transpose_b;
    args.m = a.shape(row_a);
    args.k = a.shape(col_a);
    args.n = b.shape(col_b);
    args.a_row_stride = stride_of(a, row_a);
    args.a_col_stride = stride_of(a, col_a);
    args.b_row_stride = stride_of(b, row_b);
    args.b_col_stride = stride_of(b, col_b);
    bool fit = b.shape(row_b) == args.k;
    args.batch_axes = static_cast<int>(axes);
    for (py::ssize_t axis = 0; axis < axes; ++axis) {
        const py::ssize_t of_a = axis - (axes - lead_a), of_b = axis - (axes - lead_b);
        const py::ssize_t in_a = of_a < 0 ? 1 : a.shape(of_a), in_b = of_b < 0 ? 1 : b.shape(of_b);
        fit = fit && (in_a == in_b || in_a == 1 || in_b == 1);
        args.batch_shape[axis] = in_a == 1 ? in_b : in_a;
        args.a_batch_strides[axis] = in_a == 1 ? 0 : stride_of(a, of_a);
        args.b_batch_strides[axis] = in_b == 1 ? 0 : stride_of(b, of_b);
    }
    return fit;
}

// The strides of an array that has the shape of the product; returns whether it has, and its last axis is contiguous.
bool set_result(tilefuse_matmul_args& args, const py::array& out) {
    const py::ssize_t axes = args.batch_axes;
    if (out.ndim() != axes + 2 || out.shape(axes) != args.m || out.shape(axes + 1) != args.n) return false;
    args.c_row_stride = stride_of(out, axes);
    for (py::ssize_t axis = 0; axis < axes; ++axis) {
        if (out.shape(axis) != args.batch_shape[axis]) return false;
        args.c_batch_strides[axis] = stride_of(out, axis);
    }
    return args.n <= 1 || out.size() == 0 || stride_of(out, axes + 1) == 1;
}

// How an array's float32 numbers lie in memory, by the name of its dtype; those of 16 bits come as uint16.
tilefuse_storage storage_from(const std::string& name) {
    if (name == "float32" || name == "float64") return TILEFUSE_STORED_WHOLE;
    if (name == "bfloat16") return TILEFUSE_STORED_BFLOAT16;
    if (name == "float16" && !backend::uses_host_memory()) return TILEFUSE_STORED_FLOAT16;
    throw py::type_error("arrays of " + name + " are not multiplied on " + backend::name());
}

tilefuse_dtype dtype_of_stored(const py::array& a, const char* name, tilefuse_storage storage) {
    if (storage == TILEFUSE_STORED_WHOLE) return dtype_of(a, name);
    if (a.dtype().kind() == 'u' && a.itemsize() == 2) return TILEFUSE_FLOAT32;
    throw py::type_error(std::string(name) + " is not a view as uint16");
}

// out = act(a @ b + beta * out + bias); `operands` and `result` are the names of the dtypes of a and b, and of out
void matmul(const py::array& a, const py::array& b, py::array& out, const py::object& bias, const std::string& activation,
            double alpha, double beta, const py::object& preactivation, bool transpose_a, bool transpose_b,
            const std::string& precision, const std::string& operands, const std::string& result) {
    tilefuse_matmul_args args = {};
    args.precision = precision_from(precision);
    args.operands = storage_from(operands);
    args.result = storage_from(result);
    args.dtype = dtype_of_stored(a, "a", args.operands);
    check_operand(a, "a", args.dtype, args.dtype);
    check_operand(b, "b", dtype_of_stored(b, "b", args.operands), args.dtype);
    check_operand(out, "out", dtype_of_stored(out, "out", args.result), args.dtype);
    if (args.result != TILEFUSE_STORED_WHOLE && (args.operands != args.result || !preactivation.is_none())) {
        throw py::type_error("out has dtype " + result + ", which takes operands of that dtype, and no preactivation");
    }
    if (!out.writeable()) throw py::value_error("out is read-only: pass a writeable array");
    if (!set_operands(args, a, transpose_a, b, transpose_b) || !set_result(args, out)) {
        throw py::value_error("shapes do not fit: a " + shape_text(shape_of(a)) + ", b " + shape_text(shape_of(b)) + ", out " +
                              shape_text(shape_of(out)) + "; expected a [..., m, k], b [..., k, n], out [..., m, n], its last axis "
                              "contiguous, and at most " + std::to_string(TILEFUSE_MAX_BATCH_AXES) + " leading axes");
    }
    Call call;
    args.a = call.strided_input(a);
    args.b = call.strided_input(b);
    args.c = call.strided_in_out(out);
    args.beta = beta;
    args.epilogue.activation = activation_from(activation);
    args.epilogue.activation_alpha = alpha;
    py::array bias_array, pre;
    if (!bias.is_none()) {
        bias_array = bias.cast<py::array>();
        args.epilogue.bias = call.input(bias_array, "bias", args.dtype, args.n);
    }
    if (!preactivation.is_none()) {
        pre = preactivation.cast<py::array>();
        bool same = pre.ndim() == out.ndim();
        for (py::ssize_t axis = 0; same && axis < out.ndim(); ++axis)
            same = pre.shape(axis) == out.shape(axis) && pre.strides(axis) == out.strides(axis);
        if (!same) throw py::value_error("preactivation must have out's shape and strides");
        if (!pre.writeable()) throw py::value_error("preactivation is read-only: pass a writeable array");
        check_operand(pre, "preactivation", dtype_of(pre, "preactivation"), args.dtype);
        args.epilogue.preactivation = call.strided_in_out(pre);
    }
    if (out.size() > 0) call.run(args);
}

enum { A, B, BIAS, ACTIVATION, TRANSPOSE_A, TRANSPOSE_B, OUT, PRECISION, BETA };

const Direct direct{
    "matmul", 2, {"a", "b", "bias", "activation", "transpose_a", "transpose_b", "out", "precision", "beta"},
    [](const Arguments& given) -> py::object {
        tilefuse_matmul_args args = {};
        py::array a, b, bias, out;
        bool transpose_a, transpose_b;
        if (!given.array(A, a) || !given.array(B, b) || !given.optional_array(BIAS, bias) || !given.optional_array(OUT, out) ||
            !given.flag(TRANSPOSE_A, transpose_a) || !given.flag(TRANSPOSE_B, transpose_b) || !given.number(BETA, args.beta) ||
            !given.activation(ACTIVATION, args.epilogue.activation, args.epilogue.activation_alpha) ||
            !set_operands(args, a, transpose_a, b, transpose_b)) {
            return {};
        }
        args.dtype = dtype_of(a, "a");
        if (dtype_of(b, "b") != args.dtype) return {};
        if (given.has(PRECISION)) {
            const std::optional<tilefuse_precision> precision = find_precision(given.text(PRECISION));
            if (args.dtype != TILEFUSE_FLOAT32 || !precision) return {};
            args.precision = *precision;
        }
        if (given.has(BIAS)) {
            if (dtype_of(bias, "bias") != args.dtype || bias.ndim() != 1 || bias.shape(0) != args.n || stride_of(bias, 0) != 1) return {};
            args.epilogue.bias = bias.data();
        }
        if (given.has(OUT)) {
            if (dtype_of(out, "out") != args.dtype || !out.writeable() || !set_result(args, out) || may_overlap(out, a) ||
                may_overlap(out, b) || (given.has(BIAS) && may_overlap(out, bias))) {
                return {};
            }
        } else {
            if (args.beta != 0) return {};
            int64_t shape[TILEFUSE_MAX_BATCH_AXES + 2];
            std::copy_n(args.batch_shape, args.batch_axes, shape);
            shape[args.batch_axes] = args.m;
            shape[args.batch_axes + 1] = args.n;
            out = new_array(args.dtype, static_cast<size_t>(args.batch_axes) + 2, shape);
            set_result(args, out);
        }
        args.a = a.data();
        args.b = b.data();
        args.c = const_cast<void*>(out.data());
        if (out.size() > 0) {
            run_directly(args, 2.0 * static_cast<double>(out.size()) * static_cast<double>(args.k));
        }
        return out;
    }};

// out[j] = sum over i of x[i, j]
void column_sum(const py::array& x, py::array& out) {
    tilefuse_column_sum_args args = {};
    args.dtype = dtype_of(x, "x");
    if (x.ndim() != 2) throw py::value_error("x has " + std::to_string(x.ndim()) + " axes; expected 2");
    args.m = x.shape(0);
    args.n = x.shape(1);
    Call call;
    args.x = call.input(x, "x", args.dtype, args.m * args.n);
    args.y = call.output(out, "out", args.dtype, args.n);
    call.run(args);
}

}  // namespace

const Binding binding = [](py::module_& m) {
    m.def("matmul", &matmul, py::arg("a"), py::arg("b"), py::arg("out"), py::arg("bias"), py::arg("activation"), py::arg("alpha"),
          py::arg("beta"), py::arg("preactivation"), py::arg("transpose_a") = false, py::arg("transpose_b") = false, py::arg("precision") = "float32",
          py::arg("operands") = "float32", py::arg("result") = "float32",
          "out = activation(a @ b + beta * out + bias); leading axes broadcast.");
    m.def("column_sum", &column_sum, py::arg("x"), py::arg("out"), "out[j] = sum of x[:, j], added in the order of the rows.");
};

}  // namespace tilefuse::bindings
