#include "tilefuse/add.h"

#include "bindings/activation.h"
#include "bindings/direct.h"

namespace tilefuse::bindings {
namespace {

void add(const py::array& a, const py::array& b, py::array& y, const std::string& activation, double alpha) {
    tilefuse_add_args args = {};
    args.dtype = dtype_of(a, "a");
    args.epilogue.activation = activation_from(activation);
    args.epilogue.activation_alpha = alpha;
    args.rows = a.size();
    args.cols = 1;
    Call call;
    args.x = call.input(a, "a", args.dtype, a.size());
    args.epilogue.addend = call.input(b, "b", args.dtype, a.size());
    args.y = call.output(y, "y", args.dtype, a.size());
    call.run(args);
}

const Direct direct{"add", 3, {"a", "b", "activation"}, [](Arguments& given) -> py::object {
    tilefuse_add_args args = {};
    View a, b;
    if (!given.packed(0, a) || !given.packed(1, b) || !b.like(a) ||
        !given.activation(2, args.epilogue.activation, args.epilogue.activation_alpha)) {
        return {};
    }
    Result y = given.result(a);
    args.dtype = a.dtype;
    args.rows = a.size;
    args.cols = 1;
    args.x = a.data;
    args.epilogue.addend = b.data;
    args.y = y.data;
    run_directly(static_cast<double>(a.size), args);
    return y.take();
}};

}  // namespace

const Binding binding = [](py::module_& m) {
    m.def("add", &add, py::arg("a"), py::arg("b"), py::arg("y"), py::arg("activation") = "linear", py::arg("alpha") = 0.0,
          "y = activation(a + b), elementwise.");
};

}  // namespace tilefuse::bindings
