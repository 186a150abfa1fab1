// What the executor's module has beside kernels: findings, the order of the threads, counts, arrays in device memory.
#include "simt/simt.h"

#include <pybind11/stl.h>

#include <exception>
#include <functional>

#include "bindings/device_arrays.h"

namespace tilefuse::bindings {
namespace {

py::tuple tuple_of(uint3 v) { return py::make_tuple(v.x, v.y, v.z); }

py::object& finding_type() {
    static py::gil_safe_call_once_and_store<py::object> type;
    return type
        .call_once_and_store_result([] {
            return py::reinterpret_steal<py::object>(PyErr_NewExceptionWithDoc(
                "tilefuse.Finding", "What a kernel did wrong: `kind`, `kernel`, `block`, `thread`, `file` and `line`.",
                PyExc_RuntimeError, nullptr));
        })
        .get_stored();
}

void translate(std::exception_ptr error) {
    try {
        if (error) std::rethrow_exception(error);
    } catch (const simt::Finding& found) {
        py::object finding = finding_type()(found.what());
        finding.attr("kind") = found.kind;
        finding.attr("kernel") = found.kernel;
        finding.attr("block") = tuple_of(found.block);
        finding.attr("thread") = tuple_of(found.thread);
        finding.attr("file") = found.source.file;
        finding.attr("line") = found.source.line;
        PyErr_SetObject(finding_type().ptr(), finding.ptr());
    }
}

py::list counts() {
    py::list launches;
    for (const simt::LaunchCount& launch : simt::counts()) {
        const auto dict_of = [](const simt::AccessCount& c) {
            return py::dict(py::arg("file") = c.source.file, py::arg("line") = c.source.line,
                            py::arg("shared") = c.shared, py::arg("write") = c.write, py::arg("accesses") = c.accesses,
                            py::arg("bytes") = c.bytes, py::arg("transfers") = c.transfers, py::arg("ideal") = c.ideal);
        };
        py::list accesses;
        for (const simt::AccessCount& c : launch.accesses) accesses.append(dict_of(c));
        launches.append(py::dict(py::arg("kernel") = launch.kernel, py::arg("grid") = tuple_of(launch.grid),
                                 py::arg("block") = tuple_of(launch.block), py::arg("accesses") = accesses,
                                 py::arg("global") = dict_of(launch.total(false)),
                                 py::arg("shared") = dict_of(launch.total(true))));
    }
    return launches;
}

}  // namespace

void bind_machine(py::module_& m) {
    m.attr("checked") = simt::checked;
    m.attr("Finding") = finding_type();
    py::register_local_exception_translator(translate);
    bind_view(m);
    m.def("synchronize", [](uintptr_t) {}, py::arg("stream"), "Does nothing: what is queued runs at once.");
    m.def("set_order", [](const std::string& order) { simt::set_order(order); }, py::arg("order"),
          "The order in which threads and blocks run: 'forward', 'reverse', 'random' or 'random:<seed>'.");
    m.def("counts", &counts,
          "Of each launch since the last reset, the last 1000 of them (checked build): what the accesses of its warps "
          "came to in all (`global`, `shared`) and at each line (`accesses`). `transfers` are sectors of 32 bytes or, "
          "in shared memory, wavefronts; `ideal` is the fewest that such accesses need.");
    m.def("reset_counts", &simt::reset_counts, "Forgets the launches that were counted.");
    m.def("live_allocations", [] {
        const simt::Usage usage = simt::live_allocations();
        return py::make_tuple(usage.count, usage.bytes);
    }, "Allocations of device memory and their bytes.");
    m.def("counters", [] {
        const simt::Calls calls = simt::calls();
        return py::dict(py::arg("captures") = calls.captures, py::arg("graph_launches") = calls.graph_launches,
                        py::arg("waits") = calls.waits);
    }, "Counts since the process began: streams captured as graphs, launches of these, waits of the host for the "
       "device.");
    m.def("set_registers", &simt::set_registers, py::arg("kernel"), py::arg("registers"),
          "What a thread of the kernel uses, from nvcc's report: a launch that needs more than a GPU has is refused.");
}

}  // namespace tilefuse::bindings
