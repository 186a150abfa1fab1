#include "bindings/direct.h"

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

// Over the last axis alone.
template <class Args> bool set_shape(Args& args, const View& x, const Arguments& given, size_t axis_at) {
    int64_t axis = -1;
    if (!given.integer(axis_at, axis) || x.axes == 0 || (axis != -1 && axis != x.axes - 1)) return false;
    args.dtype = x.dtype;
    args.cols = x.last();
    args.rows = args.cols == 0 ? 0 : x.rows();
    return true;
}

constexpr double operations = 20;  // for an element, about

template <bool log> py::object run_forward(Arguments& given) {
    tilefuse_softmax_args args = {};
    View x;
    if (!given.packed(0, x) || !set_shape(args, x, given, 1)) return {};
    Result y = given.result(x);
    args.log = log;
    args.x = x.data;
    args.y = y.data;
    run_directly(operations * static_cast<double>(x.size), args);
    return y.take();
}

template <bool log> py::object run_backward(Arguments& given) {
    tilefuse_softmax_backward_args args = {};
    View dy, y;
    if (!given.packed(0, dy) || !given.packed(1, y) || !y.like(dy) || !set_shape(args, dy, given, 2)) return {};
    Result dx = given.result(dy);
    args.log = log;
    args.dy = dy.data;
    args.y = y.data;
    args.dx = dx.data;
    run_directly(operations * static_cast<double>(dy.size), args);
    return dx.take();
}

const Direct directs[] = {
    {"softmax", 2, {"x", "axis"}, &run_forward<false>},
    {"softmax_backward", 3, {"dy", "y", "axis"}, &run_backward<false>},
    {"log_softmax", 2, {"x", "axis"}, &run_forward<true>},
    {"log_softmax_backward", 3, {"dy", "y", "axis"}, &run_backward<true>},
};

}  // namespace

const Binding binding = [](py::module_& m) {
    m.def("softmax", &softmax, py::arg("x"), py::arg("y"), py::arg("log"),
          "y = softmax(x) over the last axis, or its logarithm.");
    m.def("softmax_backward", &softmax_backward, py::arg("dy"), py::arg("y"), py::arg("dx"), py::arg("log"),
          "dx from the gradient dy at the output y.");
};

}  // namespace tilefuse::bindings
