#include "bindings/activation.h"
#include "bindings/arrays.h"

namespace tilefuse::bindings {
namespace {

int64_t stride_of(const py::array& a, py::ssize_t axis) { return a.strides(axis) / a.itemsize(); }

bool whole_strides(const py::array& a) {
    for (py::ssize_t axis = 0; axis < a.ndim(); ++axis)
        if (a.strides(axis) % a.itemsize() != 0) return false;
    return reinterpret_cast<uintptr_t>(a.data()) % static_cast<size_t>(a.itemsize()) == 0;
}

void check_operand(const py::array& a, const char* name, tilefuse_dtype dtype, py::ssize_t ndim) {
    if (dtype_of(a, name) != dtype) throw py::type_error(std::string(name) + "'s dtype differs from a's: pass all arrays in one dtype");
    if (a.ndim() != ndim) throw py::value_error(std::string(name) + " has " + std::to_string(a.ndim()) + " axes; expected " + std::to_string(ndim));
    if (!whole_strides(a)) throw py::value_error(std::string(name) + " is not aligned to its elements: pass a copy");
}

// out = act(a @ b + beta * out + bias)
void matmul(const py::array& a, const py::array& b, py::array& out, const py::object& bias, const std::string& activation,
            double alpha, double beta, const py::object& preactivation) {
    tilefuse_matmul_args args = {};
    args.dtype = dtype_of(a, "a");
    const py::ssize_t ndim = a.ndim();
    if (ndim < 2 || ndim - 2 > TILEFUSE_MAX_BATCH_AXES) {
        throw py::value_error("a has " + std::to_string(ndim) + " axes; expected 2 to " + std::to_string(TILEFUSE_MAX_BATCH_AXES + 2));
    }
    check_operand(a, "a", args.dtype, ndim);
    check_operand(b, "b", args.dtype, ndim);
    check_operand(out, "out", args.dtype, ndim);
    if (!out.writeable()) throw py::value_error("out is read-only: pass a writeable array");
    args.m = a.shape(ndim - 2);
    args.k = a.shape(ndim - 1);
    args.n = b.shape(ndim - 1);
    bool match = b.shape(ndim - 2) == args.k && out.shape(ndim - 2) == args.m && out.shape(ndim - 1) == args.n;
    args.batch_axes = static_cast<int>(ndim - 2);
    for (py::ssize_t axis = 0; axis < ndim - 2; ++axis) {
        match = match && a.shape(axis) == out.shape(axis) && b.shape(axis) == out.shape(axis);
        args.batch_shape[axis] = out.shape(axis);
        args.a_batch_strides[axis] = stride_of(a, axis);
        args.b_batch_strides[axis] = stride_of(b, axis);
        args.c_batch_strides[axis] = stride_of(out, axis);
    }
    if (!match) {
        throw py::value_error("shapes do not fit: a " + shape_text(shape_of(a)) + ", b " + shape_text(shape_of(b)) + ", out " +
                              shape_text(shape_of(out)) + "; expected a [..., m, k], b [..., k, n], out [..., m, n]");
    }
    if (args.n > 1 && out.size() > 0 && stride_of(out, ndim - 1) != 1) {
        throw py::value_error("out's last axis is not contiguous: pass an array whose last axis is");
    }
    Call call;
    args.a = call.strided_input(a);
    args.b = call.strided_input(b);
    args.c = call.strided_in_out(out);
    args.a_row_stride = stride_of(a, ndim - 2);
    args.a_col_stride = stride_of(a, ndim - 1);
    args.b_row_stride = stride_of(b, ndim - 2);
    args.b_col_stride = stride_of(b, ndim - 1);
    args.c_row_stride = stride_of(out, ndim - 2);
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
        bool same = pre.ndim() == ndim;
        for (py::ssize_t axis = 0; same && axis < ndim; ++axis)
            same = pre.shape(axis) == out.shape(axis) && pre.strides(axis) == out.strides(axis);
        if (!same) throw py::value_error("preactivation must have out's shape and strides");
        if (!pre.writeable()) throw py::value_error("preactivation is read-only: pass a writeable array");
        check_operand(pre, "preactivation", args.dtype, ndim);
        args.epilogue.preactivation = call.strided_in_out(pre);
    }
    if (out.size() > 0) call.run(args);
}

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
          py::arg("beta"), py::arg("preactivation"), "out = activation(a @ b + beta * out + bias); leading axes are batches.");
    m.def("column_sum", &column_sum, py::arg("x"), py::arg("out"), "out[j] = sum of x[:, j], added in the order of the rows.");
};

}  // namespace tilefuse::bindings
