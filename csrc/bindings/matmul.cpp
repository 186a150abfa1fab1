#include "bindings/activation.h"
#include "bindings/arrays.h"
#include "bindings/direct.h"
#include "bindings/precision.h"

namespace tilefuse::bindings {
namespace {

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
bool set_operands(tilefuse_matmul_args& args, const View& a, bool transpose_a, const View& b, bool transpose_b) {
    const int lead_a = a.axes - 2, lead_b = b.axes - 2, axes = std::max(lead_a, lead_b);
    if (lead_a < 0 || lead_b < 0) return false;
    const int row_a = lead_a + transpose_a, col_a = lead_a + !transpose_a;
    const int row_b = lead_b + transpose_b, col_b = lead_b + !transpose_b;
    args.m = a.shape[row_a];
    args.k = a.shape[col_a];
    args.n = b.shape[col_b];
    args.a_row_stride = a.strides[row_a];
    args.a_col_stride = a.strides[col_a];
    args.b_row_stride = b.strides[row_b];
    args.b_col_stride = b.strides[col_b];
    bool fit = b.shape[row_b] == args.k;
    args.batch_axes = axes;
    for (int axis = 0; axis < axes; ++axis) {
        const int of_a = axis - (axes - lead_a), of_b = axis - (axes - lead_b);
        const int64_t in_a = of_a < 0 ? 1 : a.shape[of_a], in_b = of_b < 0 ? 1 : b.shape[of_b];
        fit = fit && (in_a == in_b || in_a == 1 || in_b == 1);
        args.batch_shape[axis] = in_a == 1 ? in_b : in_a;
        args.a_batch_strides[axis] = in_a == 1 ? 0 : a.strides[of_a];
        args.b_batch_strides[axis] = in_b == 1 ? 0 : b.strides[of_b];
    }
    return fit;
}

// The strides of an array that has the shape of the product; returns whether it has, and its last axis is contiguous.
bool set_result(tilefuse_matmul_args& args, const View& out) {
    const int axes = args.batch_axes;
    if (out.axes != axes + 2 || out.shape[axes] != args.m || out.shape[axes + 1] != args.n) return false;
    args.c_row_stride = out.strides[axes];
    for (int axis = 0; axis < axes; ++axis) {
        if (out.shape[axis] != args.batch_shape[axis]) return false;
        args.c_batch_strides[axis] = out.strides[axis];
    }
    return args.n <= 1 || out.size == 0 || out.strides[axes + 1] == 1;
}

// Shape and strides of an array of whole strides; no array, where it has too many axes.
View layout_of(const py::array& a) {
    View view;
    if (a.ndim() > View::most_axes) return view;
    view.axes = static_cast<int>(a.ndim());
    view.size = a.size();
    std::copy_n(a.shape(), a.ndim(), view.shape);
    for (py::ssize_t axis = 0; axis < a.ndim(); ++axis) view.strides[axis] = a.strides(axis) / a.itemsize();
    return view;
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
    if (!set_operands(args, layout_of(a), transpose_a, layout_of(b), transpose_b) || !set_result(args, layout_of(out))) {
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

void store(tilefuse_matmul_args& args, const View& operand, const View& result) {
    args.operands = operand.is_bfloat16 ? TILEFUSE_STORED_BFLOAT16 : TILEFUSE_STORED_WHOLE;
    args.result = result.is_bfloat16 ? TILEFUSE_STORED_BFLOAT16 : TILEFUSE_STORED_WHOLE;
}

enum { A, B, BIAS, ACTIVATION, TRANSPOSE_A, TRANSPOSE_B, OUT, PRECISION, BETA };

const Direct direct_matmul{
    "matmul", 2, {"a", "b", "bias", "activation", "transpose_a", "transpose_b", "out", "precision", "beta"},
    [](Arguments& given) -> py::object {
        tilefuse_matmul_args args = {};
        View a, b, bias, out;
        bool transpose_a, transpose_b;
        if (!given.array(A, a, true) || !given.array(B, b, true) || !given.optional_array(BIAS, bias) ||
            !given.flag(TRANSPOSE_A, transpose_a) || !given.flag(TRANSPOSE_B, transpose_b) || !given.number(BETA, args.beta) ||
            !given.activation(ACTIVATION, args.epilogue.activation, args.epilogue.activation_alpha) || a.dtype != b.dtype ||
            a.is_bfloat16 != b.is_bfloat16 || !set_operands(args, a, transpose_a, b, transpose_b)) {
            return {};
        }
        args.dtype = a.dtype;
        if (!given.precision(PRECISION, args.dtype, args.precision) || (given.has(PRECISION) && a.is_bfloat16)) return {};
        if (bias) {
            if (bias.dtype != args.dtype || bias.axes != 1 || bias.shape[0] != args.n || bias.strides[0] != 1) return {};
            args.epilogue.bias = bias.data;
        }
        Result made;
        if (given.has(OUT)) {
            if (!given.output(OUT, out, a.is_bfloat16) || out.dtype != args.dtype || !set_result(args, out) || may_overlap(out, a) ||
                may_overlap(out, b) || (bias && may_overlap(out, bias))) {
                return {};
            }
        } else {
            if (args.beta != 0) return {};
            int64_t shape[View::most_axes];
            std::copy_n(args.batch_shape, args.batch_axes, shape);
            shape[args.batch_axes] = args.m;
            shape[args.batch_axes + 1] = args.n;
            made = given.result(args.dtype, static_cast<size_t>(args.batch_axes) + 2, shape, a.is_bfloat16);
            out = made;
            set_result(args, out);
        }
        store(args, a, out);
        args.a = a.data;
        args.b = b.data;
        args.c = out.data;
        if (out.size > 0) run_directly(2.0 * static_cast<double>(out.size) * static_cast<double>(args.k), args);
        return given.has(OUT) ? py::reinterpret_borrow<py::object>(given.values[OUT]) : made.take();
    }};

// A matrix: the leading axes as one, which must be no copy.
bool rows_of(const View& x, View& matrix) {
    if (x.axes < 2 || !(x.packed || x.axes == 2)) return false;
    matrix = x;
    if (x.axes == 2) return true;
    matrix.axes = 2;
    matrix.shape[0] = x.rows();
    matrix.shape[1] = matrix.strides[0] = x.last();
    matrix.strides[1] = 1;
    return true;
}

void product(tilefuse_matmul_args& args, const View& a, bool transpose_a, const View& b, bool transpose_b, const View& out) {
    args.dtype = a.dtype;
    set_operands(args, a, transpose_a, b, transpose_b);
    set_result(args, out);
    args.a = a.data;
    args.b = b.data;
    args.c = out.data;
}

const Direct direct_dense{"dense", 4, {"x", "w", "b", "activation", "precision"}, [](Arguments& given) -> py::object {
    tilefuse_matmul_args args = {};
    View x, w, b, rows;
    if (!given.array(0, x) || !given.array(1, w) || !given.optional_array(2, b) || w.axes != 2 || w.dtype != x.dtype || !rows_of(x, rows) ||
        x.last() != w.shape[0] || (b && !b.is_row(w)) ||
        !given.activation(3, args.epilogue.activation, args.epilogue.activation_alpha) ||
        !given.precision(4, x.dtype, args.precision)) {
        return {};
    }
    int64_t shape[View::most_axes];
    std::copy_n(x.shape, x.axes - 1, shape);
    shape[x.axes - 1] = w.shape[1];
    Result y = given.result(x.dtype, static_cast<size_t>(x.axes), shape);
    View out;
    rows_of(y, out);
    product(args, rows, false, w, false, out);
    args.epilogue.bias = b ? b.data : nullptr;
    if (y.size > 0) run_directly(2.0 * static_cast<double>(y.size) * static_cast<double>(args.k), args);
    return y.take();
}};

const Direct direct_dense_backward{
    "dense_backward", 5, {"dy", "x", "w", "y", "activation", "z", "precision", "needs_dx"}, [](Arguments& given) -> py::object {
        BeforeActivation before;
        tilefuse_matmul_args of_x = {}, of_w = {};
        View dy, x, w, y, z, gradient, rows;
        bool needs_dx = true;
        if (!given.packed(0, dy) || !given.array(1, x) || !given.array(2, w) || !given.given(3) ||
            !given.optional_array(3, y) || !given.optional_array(5, z) ||
            !given.precision(6, x.dtype, of_x.precision) || (given.given(7) && !given.flag(7, needs_dx)) ||
            !given.activation(4, before.args.activation, before.args.alpha) || w.axes != 2 || w.dtype != x.dtype || !rows_of(x, rows) ||
            !rows_of(dy, gradient) || x.last() != w.shape[0] || dy.dtype != x.dtype || dy.axes != x.axes || dy.last() != w.shape[1] ||
            !std::equal(x.shape, x.shape + x.axes - 1, dy.shape) || (y && !y.like(dy)) ||
            !before.set(dy, y, z)) {
            return {};
        }
        gradient.data = before.data();
        // The weights' gradient lies in memory as they do.
        const bool transposed = !w.packed && w.strides[0] == 1 && w.strides[1] == w.shape[0];
        const int64_t reversed[] = {w.shape[1], w.shape[0]};
        Result dx, dw = given.result(w.dtype, 2, transposed ? reversed : w.shape), db = given.result(x.dtype, 1, &w.shape[1]);
        if (needs_dx) dx = given.result(x);
        of_w.precision = of_x.precision;
        tilefuse_column_sum_args of_b = {};
        View out;
        if (needs_dx) {
            rows_of(dx, out);
            product(of_x, gradient, false, w, true, out);
        }
        if (transposed) product(of_w, gradient, true, rows, false, dw);
        else product(of_w, rows, true, gradient, false, dw);
        of_b.dtype = dy.dtype;
        of_b.m = gradient.shape[0];
        of_b.n = gradient.shape[1];
        of_b.x = gradient.data;
        of_b.y = db.data;
        const double work = 4.0 * static_cast<double>(dy.size) * static_cast<double>(w.shape[0]);
        before.run(work);
        if (needs_dx && dx.size > 0) run_directly(work, of_x);
        if (dw.size > 0) run_directly(work, of_w);
        run_directly(work, of_b);
        const py::object gradient_of_w = transposed ? py::object(dw.take().attr("T")) : dw.take();
        return py::make_tuple(needs_dx ? dx.take() : py::none(), gradient_of_w, db.take());
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
