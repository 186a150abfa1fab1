// What the CPU's module has beside kernels: instruction sets and threads.
#include <pybind11/stl.h>

#include "bindings/direct.h"
#include "bindings/dlpack.h"
#include "cpu/kernels.h"

namespace tilefuse::bindings {
namespace {

double peak(const std::string& dtype, int64_t turns) {
    double operations = 0;
    Cost cost;
    cost.scratch = peak_scratch;
    py::gil_scoped_release release;
    run_team(num_threads(), cost, [&](Team& team) {
        const double done = kernels().peak(team, dtype == "float64" ? TILEFUSE_FLOAT64 : TILEFUSE_FLOAT32,
                                           dtype == "bfloat16" ? TILEFUSE_PRECISION_BFLOAT16 : TILEFUSE_PRECISION_IEEE, turns);
        if (team.rank == 0) operations = done;
    });
    return operations;
}

}  // namespace

void bind_machine(py::module_& m) {
    m.def("isa", [] { return std::string(kernels().isa); }, "The instruction set whose kernels are in use.");
    m.def("available_isas", &available_isas, "The instruction sets built into this module that this processor has.");
    m.def("get_num_threads", &num_threads);
    m.def("set_num_threads", &set_num_threads, py::arg("n"));
    m.def("counters", [] { return py::dict(py::arg("parallel_regions") = parallel_regions()); },
          "Counts since the process began: teams of more than one thread opened.");
    m.def("peak", &peak, py::arg("dtype"), py::arg("turns"),
          "Does multiply-adds of float32, float64 or bfloat16 and nothing else on all threads; returns how many operations it did.");
    bind_direct(m);
    bind_dlpack(m);
}

}  // namespace tilefuse::bindings
