// What the CPU's module has beside kernels: instruction sets and threads.
#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "cpu/kernels.h"

namespace tilefuse::bindings {

void bind_machine(py::module_& m) {
    m.def("isa", [] { return std::string(kernels().isa); }, "The instruction set whose kernels are in use.");
    m.def("available_isas", &available_isas, "The instruction sets built into this module that this processor has.");
    m.def("get_num_threads", &num_threads);
    m.def("set_num_threads", &set_num_threads, py::arg("n"));
    m.def("counters", [] { return py::dict(py::arg("parallel_regions") = parallel_regions()); },
          "Counts since the process began: teams of more than one thread opened.");
}

}  // namespace tilefuse::bindings
