// A module of one machine: TILEFUSE_MODULE is its name (_core, _simt, ...).
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "tilefuse/version.h"

namespace py = pybind11;

PYBIND11_MODULE(TILEFUSE_MODULE, m, py::mod_gil_not_used()) {
    m.doc() = "Kernels on arrays, and Program, the compiled training step, for one kind of machine.";
    m.attr("device") = tilefuse::backend::name();

    m.def("build_info", [] { return py::dict(py::arg("version") = TILEFUSE_VERSION_STRING, py::arg("compiler") = __VERSION__); });
    tilefuse::bindings::bind_machine(m);
    for (const auto add : tilefuse::bindings::Binding::all()) add(m);
}
