// Taking NumPy arrays in: every check that keeps a kernel from reading or writing where it must not.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "program/backend.h"
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

// One call of the library's kernels: finds memory that they can use for all that they work on, and runs them. Where the
// host's memory will do, that is the arrays' own. Elsewhere whatever does not lie in the machine's memory already is
// copied there before the kernels run, and what they wrote is copied back.
class Call {
public:
    Call() = default;
    Call(const Call&) = delete;

    const void* input(const py::array& a, const char* name, tilefuse_dtype dtype, py::ssize_t size) {
        return read(bindings::input(a, name, dtype, size), a.nbytes());
    }
    void* output(py::array& a, const char* name, tilefuse_dtype dtype, py::ssize_t size) {
        return write(bindings::output(a, name, dtype, size), a.nbytes());
    }
    void* in_out(py::array& a, const char* name, tilefuse_dtype dtype, py::ssize_t size) {
        return place(bindings::output(a, name, dtype, size), a.nbytes(), Direction::in_out);
    }

    // Arrays of any strides, checked by the caller. What lies between their elements is copied along, so that the strides
    // hold there too; on the way back only bytes that changed are written, as those between may be somebody else's.
    const void* strided_input(const py::array& a) { return strided(a, Direction::in); }
    void* strided_in_out(py::array& a) { return strided(a, Direction::in_out_where_changed); }

    // The host's memory, that kernels read, or that they fill.
    const void* read(const void* host, py::ssize_t bytes) { return place(const_cast<void*>(host), bytes, Direction::in); }
    void* write(void* host, py::ssize_t bytes) { return place(host, bytes, Direction::out); }

    // Memory for what one kernel leaves to the next.
    template <class V> V* scratch(py::ssize_t count) { return static_cast<V*>(allocate(sizeof(V) * static_cast<size_t>(count))); }

    // Runs the kernels one after the other, with the GIL released.
    template <class... Args> void run(const Args&... args) {
        py::gil_scoped_release release;
        copy_in();
        (backend::run(args), ...);
        copy_out();
    }

private:
    enum class Direction { in, out, in_out, in_out_where_changed };
    struct Copy {
        char *host, *device;
        size_t bytes;
        Direction direction;
    };
    struct Release {
        void operator()(void* memory) const { backend::release(memory); }
    };

    void* allocate(size_t bytes) {
        memory_.emplace_back(backend::allocate(bytes));
        return memory_.back().get();
    }

    void* place(void* host, py::ssize_t size, Direction direction) {
        if (on_host_ || size == 0 || backend::owns(host)) return host;
        // Kernels choose by the alignment to at most 16 bytes: the copy has the array's own.
        const size_t offset = reinterpret_cast<uintptr_t>(host) % 16, bytes = static_cast<size_t>(size);
        char* device = static_cast<char*>(allocate(offset + bytes)) + offset;
        copies_.push_back({static_cast<char*>(host), device, bytes, direction});
        return device;
    }

    void* strided(const py::array& a, Direction direction) {
        char* data = static_cast<char*>(const_cast<void*>(a.data()));
        if (on_host_ || a.size() == 0) return data;
        py::ssize_t below = 0, above = a.itemsize();  // bytes from the first element to the ends of the extent
        for (py::ssize_t axis = 0; axis < a.ndim(); ++axis) {
            const py::ssize_t reach = (a.shape(axis) - 1) * a.strides(axis);
            (reach < 0 ? below : above) += reach;
        }
        return static_cast<char*>(place(data + below, above - below, direction)) - below;
    }

    void copy_in() {
        for (const Copy& copy : copies_)
            if (copy.direction != Direction::out) backend::copy_in(copy.device, copy.host, copy.bytes);
        for (const Copy& copy : copies_)
            if (copy.direction == Direction::in_out_where_changed) before_.emplace_back(copy.host, copy.host + copy.bytes);
    }

    void copy_out() {
        auto before = before_.begin();
        for (const Copy& copy : copies_) {
            if (copy.direction == Direction::out || copy.direction == Direction::in_out) {
                backend::copy_out(copy.host, copy.device, copy.bytes);
            } else if (copy.direction == Direction::in_out_where_changed) {
                std::vector<char> after(copy.bytes);
                backend::copy_out(after.data(), copy.device, copy.bytes);
                for (size_t i = 0; i < copy.bytes; ++i)
                    if (after[i] != (*before)[i]) copy.host[i] = after[i];
                ++before;
            }
        }
    }

    const bool on_host_ = backend::uses_host_memory();
    std::vector<std::unique_ptr<void, Release>> memory_;
    std::vector<Copy> copies_;
    std::vector<std::vector<char>> before_;  // of each copy that is to be written back where it changed
};

// What only one machine's module has: csrc/bindings/{cpu,simt,cuda}.cpp.
void bind_machine(py::module_&);

// What a file adds to every module: const Binding binding = [](py::module_& m) { ... };
struct Binding {
    template <class Add> Binding(Add add) { all().push_back(add); }
    static std::vector<void (*)(py::module_&)>& all() {
        static std::vector<void (*)(py::module_&)> bindings;
        return bindings;
    }
};

}  // namespace tilefuse::bindings
