// Arrays in a machine's own memory, for the bindings: NumPy arrays that nobody but kernels looks into.
#pragma once

#include <pybind11/stl.h>

#include <optional>

#include "bindings/arrays.h"

namespace tilefuse::bindings {

// An array over memory of the owner's, as __cuda_array_interface__ describes it.
inline py::array view(const py::object& owner, uintptr_t address, const std::vector<py::ssize_t>& shape,
                      const std::optional<std::vector<py::ssize_t>>& strides, const py::dtype& dtype, bool read_only) {
    py::ssize_t size = 1;
    for (const py::ssize_t n : shape) size *= n;
    const void* memory = reinterpret_cast<const void*>(address);
    if (size > 0 && !backend::owns(memory)) {
        throw py::value_error("an array of shape " + shape_text(shape) + " does not lie in the memory of device '" +
                              backend::name() + "', or lies on another GPU than the one in use: copy it there");
    }
    py::array a = strides ? py::array(dtype, shape, *strides, memory, owner) : py::array(dtype, shape, memory, owner);
    if (read_only) a.attr("flags").attr("writeable") = false;
    return a;
}

inline void bind_view(py::module_& m) {
    m.def("view", &view, py::arg("owner"), py::arg("address"), py::arg("shape"), py::arg("strides"), py::arg("dtype"),
          py::arg("read_only"), "A NumPy array over device memory: for this module's functions alone.");
}

}  // namespace tilefuse::bindings
