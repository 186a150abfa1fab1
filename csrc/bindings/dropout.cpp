#include "bindings/direct.h"

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

constexpr double operations = 8;  // for an element, about

tilefuse_dropout_args scaling(const View& x, const uint8_t* mask, double rate, void* y) {
    tilefuse_dropout_args args = {};
    args.dtype = x.dtype;
    args.rows = x.size;
    args.cols = 1;
    args.x = x.data;
    args.mask = mask;
    args.scale = 1 / (1 - rate);
    args.y = y;
    return args;
}

bool read_rate(const Arguments& given, size_t i, double& rate) {
    return given.given(i) && given.number(i, rate) && rate >= 0 && rate < 1;
}

const Direct direct_dropout{"dropout", 2, {"x", "rate", "seed", "step"}, [](Arguments& given) -> py::object {
    View x;
    double rate;
    int64_t seed = 0, step = 0;
    if (!given.packed(0, x) || !read_rate(given, 1, rate) || !given.integer(2, seed) || !given.integer(3, step) || seed < 0 || step < 0)
        return {};
    Result y = given.result(x), mask = given.result_of_bytes(static_cast<size_t>(x.axes), x.shape, true);
    const auto number = static_cast<uint64_t>(step);
    tilefuse_dropout_mask_args choice = {};
    choice.rows = x.size;
    choice.cols = 1;
    choice.seed = static_cast<uint64_t>(seed);
    choice.step = &number;
    choice.rate = rate;
    choice.mask = static_cast<uint8_t*>(mask.data);
    run_directly(operations * static_cast<double>(x.size), choice, scaling(x, choice.mask, rate, y.data));
    return py::make_tuple(y.take(), mask.take());
}};

const Direct direct_dropout_backward{"dropout_backward", 3, {"dy", "mask", "rate"}, [](Arguments& given) -> py::object {
    View dy;
    double rate;
    if (!given.packed(0, dy) || !read_rate(given, 2, rate)) return {};
    const uint8_t* const mask = given.bytes(1, static_cast<size_t>(dy.axes), dy.shape, true);
    if (mask == nullptr) return {};
    Result dx = given.result(dy);
    run_directly(operations * static_cast<double>(dy.size), scaling(dy, mask, rate, dx.data));
    return dx.take();
}};

}  // namespace

const Binding binding = [](py::module_& m) {
    m.def("dropout_mask", &dropout_mask, py::arg("mask"), py::arg("rate"), py::arg("seed"), py::arg("step"),
          "Fills the mask: true where an element is kept.");
    m.def("dropout", &dropout, py::arg("x"), py::arg("mask"), py::arg("y"), py::arg("rate"),
          "y = x / (1 - rate) where the mask is true, else 0.");
};

}  // namespace tilefuse::bindings
