#include "bindings/arrays.h"

namespace tilefuse::bindings {
namespace {

void require_mask(const py::array& mask, py::ssize_t size) {
    const char kind = mask.dtype().kind();
    if (mask.itemsize() != 1 || (kind != 'b' && kind != 'u')) {
        throw py::type_error("mask has dtype " + py::str(mask.dtype()).cast<std::string>() +
                             "; expected bool");
    }
    if (!(mask.flags() & py::array::c_style) || mask.size() != size) {
        throw py::value_error("mask has shape " + shape_text(shape_of(mask)) + "; expected " +
                              std::to_string(size) + " elements, C-contiguous");
    }
}

void require_rate(double rate) {
    if (!(rate >= 0 && rate < 1))
        throw py::value_error("rate is " + std::to_string(rate) + "; expected a number in [0, 1)");
}

void dropout_mask(py::array& mask, double rate, uint64_t seed, uint64_t step) {
    require_mask(mask, mask.size());
    require_rate(rate);
    if (!mask.writeable()) throw py::value_error("mask is read-only: pass a writeable array");
    Call call;
    tilefuse_dropout_mask_args args = {};
    args.rows = mask.size();
    args.cols = 1;
    args.seed = seed;
    args.step = static_cast<const uint64_t*>(call.read(&step, sizeof step));
    args.rate = rate;
    args.mask = static_cast<uint8_t*>(call.write(mask.mutable_data(), mask.nbytes()));
    call.run(args);
}

void dropout(const py::array& x, const py::array& mask, py::array& y, double rate) {
    require_mask(mask, x.size());
    require_rate(rate);
    Call call;
    tilefuse_dropout_args args = {};
    args.dtype = dtype_of(x, "x");
    args.rows = x.size();
    args.cols = 1;
    args.x = call.input(x, "x", args.dtype, x.size());
    args.mask = static_cast<const uint8_t*>(call.read(mask.data(), mask.nbytes()));
    args.scale = 1 / (1 - rate);
    args.y = call.output(y, "y", args.dtype, x.size());
    call.run(args);
}

}  // namespace

const Binding binding = [](py::module_& m) {
    m.def("dropout_mask", &dropout_mask, py::arg("mask"), py::arg("rate"), py::arg("seed"), py::arg("step"),
          "Fills the mask: true where an element is kept.");
    m.def("dropout", &dropout, py::arg("x"), py::arg("mask"), py::arg("y"), py::arg("rate"),
          "y = x / (1 - rate) where the mask is true, else 0.");
};

}  // namespace tilefuse::bindings
