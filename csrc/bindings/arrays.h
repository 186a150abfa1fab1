// Taking NumPy arrays in: every check that keeps a kernel from reading or writing where it must not.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "tilefuse/types.h"

namespace tilefuse::bindings {

namespace py = pybind11;

inline tilefuse_dtype dtype_of(const py::array& a, const char* name) {
    if (a.dtype().kind() == 'f' && a.dtype().byteorder() != '>') {
        if (a.itemsize() == 4) return TILEFUSE_FLOAT32;
        if (a.itemsize() == 8) return TILEFUSE_FLOAT64;
    }
    throw py::type_error(std::string(name) + " has dtype " + py::str(a.dtype()).cast<std::string>() +
                         "; expected float32 or float64: convert it with .astype(numpy.float32)");
}

inline std::string shape_text(const std::vector<py::ssize_t>& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + (shape.size() == 1 ? ",)" : ")");
}

inline std::vector<py::ssize_t> shape_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

// A C-contiguous array of the dtype and number of elements that a kernel expects; throws what to mend otherwise.
inline void require(const py::array& a, const char* name, tilefuse_dtype dtype, py::ssize_t size) {
    if (dtype_of(a, name) != dtype) {
        throw py::type_error(std::string(name) + " has dtype " + py::str(a.dtype()).cast<std::string>() +
                             ", which differs from the other arrays' dtype: pass all arrays in one dtype");
    }
    if (!(a.flags() & py::array::c_style)) {
        throw py::value_error(std::string(name) + " is not C-contiguous: pass numpy.ascontiguousarray(" + name + ")");
    }
    if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
        throw py::value_error(std::string(name) + " is not aligned to its elements: pass a copy");
    }
    if (a.size() != size) {
        throw py::value_error(std::string(name) + " has shape " + shape_text(shape_of(a)) + ", " + std::to_string(a.size()) +
                              " elements; expected " + std::to_string(size) + " elements");
    }
}

// Where to read: the array's memory.
inline const void* input(const py::array& a, const char* name, tilefuse_dtype dtype, py::ssize_t size) {
    require(a, name, dtype, size);
    return a.data();
}

// Where to write: likewise, and the array must be writeable.
inline void* output(py::array& a, const char* name, tilefuse_dtype dtype, py::ssize_t size) {
    require(a, name, dtype, size);
    if (!a.writeable()) throw py::value_error(std::string(name) + " is read-only: pass a writeable array");
    return a.mutable_data();
}

// Runs one kernel with the GIL released.
template <class Args> void run_released(const Args& args) {
    py::gil_scoped_release release;
    run(args);
}

void bind_activation(py::module_&);
void bind_dropout(py::module_&);
void bind_loss(py::module_&);
void bind_matmul(py::module_&);
void bind_optimizer(py::module_&);
void bind_program(py::module_&);
void bind_softmax(py::module_&);

}  // namespace tilefuse::bindings
