// NumPy arrays in memory that the machine's kernels use in place.
#include "bindings/arrays.h"

#include <pybind11/stl.h>

namespace tilefuse::bindings {
namespace {

py::array empty(const std::vector<py::ssize_t>& shape, const py::dtype& dtype) {
    py::ssize_t bytes = dtype.itemsize();
    for (const py::ssize_t n : shape) {
        if (n < 0) throw py::value_error("shape is " + shape_text(shape) + "; expected no negative number");
        bytes *= n;
    }
    void* memory = backend::allocate_visible(static_cast<size_t>(std::max<py::ssize_t>(bytes, 1)));
    return py::array(dtype, shape, memory, py::capsule(memory, backend::release));
}

}  // namespace

const Binding binding = [](py::module_& m) {
    m.def("empty", &empty, py::arg("shape"), py::arg("dtype"),
          "A NumPy array in memory that kernels use in place, aligned to cache lines, not initialised.");
    m.def("owns", [](const py::array& a) { return backend::owns(a.data()); }, py::arg("array"),
          "Whether kernels use the array's memory in place; else it is copied for each call.");
};

}  // namespace tilefuse::bindings
