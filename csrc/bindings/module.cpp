#include <pybind11/stl.h>

#include "bindings/arrays.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
    m.doc() = "The compiled part of tilefuse: kernels on NumPy arrays, and Program, the compiled training step.";

    m.def("isa", [] { return std::string(tilefuse::kernels().isa); }, "The instruction set whose kernels are in use.");
    m.def("available_isas", &tilefuse::available_isas, "The instruction sets built into this module that this processor has.");
    m.def("get_num_threads", &tilefuse::num_threads);
    m.def("set_num_threads", &tilefuse::set_num_threads, py::arg("n"));
    m.def("counters", [] { return py::dict(py::arg("parallel_regions") = tilefuse::parallel_regions()); },
          "Counts since the process began: teams of more than one thread opened.");
    m.def("build_info", [] {
        return py::dict(py::arg("version") = TILEFUSE_VERSION, py::arg("compiler") = __VERSION__, py::arg("cuda") = false);
    });

    tilefuse::bindings::bind_activation(m);
    tilefuse::bindings::bind_dropout(m);
    tilefuse::bindings::bind_loss(m);
    tilefuse::bindings::bind_matmul(m);
    tilefuse::bindings::bind_optimizer(m);
    tilefuse::bindings::bind_program(m);
    tilefuse::bindings::bind_softmax(m);
}
