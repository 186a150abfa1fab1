#include "bindings/arrays.h"

namespace tilefuse::bindings {
namespace {

// The last axis is the one to normalise over; the others are rows.
template <class Args> void set_shape(Args& args, const py::array& x, const char* name) {
    if (x.ndim() == 0) throw py::value_error(std::string(name) + " has no axes; expected at least one");
    args.dtype = dtype_of(x, name);
    args.cols = x.shape(x.ndim() - 1);
    args.rows = args.cols == 0 ? 0 : x.size() / args.cols;
}

void softmax(const py::array& x, py::array& y, bool log) {
    tilefuse_softmax_args args = {};
    set_shape(args, x, "x");
    args.log = log;
    Call call;
    args.x = call.input(x, "x", args.dtype, x.size());
    args.y = call.output(y, "y", args.dtype, x.size());
    call.run(args);
}

void softmax_backward(const py::array& dy, const py::array& y, py::array& dx, bool log) {
    tilefuse_softmax_backward_args args = {};
    set_shape(args, dy, "dy");
    args.log = log;
    Call call;
    args.dy = call.input(dy, "dy", args.dtype, dy.size());
    args.y = call.input(y, "y", args.dtype, dy.size());
    args.dx = call.output(dx, "dx", args.dtype, dy.size());
    call.run(args);
}

}  // namespace

const Binding binding = [](py::module_& m) {
    m.def("softmax", &softmax, py::arg("x"), py::arg("y"), py::arg("log"),
          "y = softmax(x) over the last axis, or its logarithm.");
    m.def("softmax_backward", &softmax_backward, py::arg("dy"), py::arg("y"), py::arg("dx"), py::arg("log"),
          "dx from the gradient dy at the output y.");
};

}  // namespace tilefuse::bindings
