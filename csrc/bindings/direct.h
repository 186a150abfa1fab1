// Calls of ops with no Python in between. In Python, the name of such an op is an object that first tries the op's direct
// function: this takes plain arrays (NumPy's own, aligned, of one dtype) to the kernel in well under a microsecond, and
// declines every other call: other arrays, arguments that make no sense, a call that a gradient tape has to see, another
// device. Then the op's Python function is called, which converts, or says what is wrong.
#pragma once

#include "bindings/arrays.h"
#include "tilefuse/activation.h"

namespace tilefuse::bindings {

// The arguments of a call, in the order of the op's parameters. Every reader returns whether the argument will do.
class Arguments {
public:
    static constexpr size_t most = 12;

    bool has(size_t i) const { return values[i] != nullptr && values[i] != Py_None; }

    // A plain array of float32 or float64, whose strides are multiples of its elements; `a` stays empty where the
    // argument is optional and not there.
    bool array(size_t i, py::array& a) const;
    bool optional_array(size_t i, py::array& a) const { return !has(i) || array(i, a); }
    bool flag(size_t i, bool& value) const;
    bool number(size_t i, double& value) const;
    const char* text(size_t i) const;  // "" for what is no string
    bool activation(size_t i, tilefuse_activation& value, double& alpha) const;

    PyObject* values[most] = {};  // null: not given
};

// What a file adds: const Direct direct{"matmul", 2, {"a", "b", "bias"}, [](const Arguments& given) { ... }};
struct Direct {
    using Run = py::object (*)(const Arguments&);  // returns the result, or nothing: declined

    Direct(const char* op, size_t by_position, std::vector<const char*> parameters, Run run);

    const char* op;
    size_t by_position;                   // so many may be given without their names
    std::vector<const char*> parameters;  // as in the Python function
    Run run;
};

// A new C-contiguous array, not initialised.
py::array new_array(tilefuse_dtype dtype, size_t axes, const int64_t* shape);

// Whether the ranges of memory that hold the arrays' elements overlap.
bool may_overlap(const py::array& a, const py::array& b);

// Runs a kernel, which does so many operations; other Python threads may run meanwhile if that takes long enough to be
// worth it. (Releasing the GIL and taking it again costs 0.1 us where nobody else wants it.)
template <class Args> void run_directly(const Args& args, double work) {
    constexpr double few = 2e5;
    if (work < few) return backend::run(args);
    py::gil_scoped_release release;
    backend::run(args);
}

void bind_direct(py::module_& m);

}  // namespace tilefuse::bindings
