// What the CUDA module has beside kernels: the driver, the GPUs, and what it was built for.
#include <cuda_runtime.h>
#include <pybind11/stl.h>

#include <sstream>

#include "bindings/device_arrays.h"
#include "cuda/memory.h"

namespace tilefuse::bindings {
namespace {

using cuda::check;

// 1000 * major + 10 * minor; 0 where there is no driver.
int driver_version() {
    int version = 0;
    check(cudaDriverGetVersion(&version), "asking for the driver's version");
    return version;
}

int runtime_version() {
    int version = 0;
    check(cudaRuntimeGetVersion(&version), "asking for the runtime's version");
    return version;
}

py::list gpus() {
    int count = 0;
    check(cudaGetDeviceCount(&count), "counting the GPUs");
    py::list found;
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp gpu;
        check(cudaGetDeviceProperties(&gpu, i), "asking for a GPU's properties");
        found.append(py::dict(py::arg("name") = gpu.name, py::arg("capability") = 10 * gpu.major + gpu.minor,
                              py::arg("memory") = gpu.totalGlobalMem, py::arg("multiprocessors") = gpu.multiProcessorCount));
    }
    return found;
}

py::tuple architectures() {
    std::istringstream words(TILEFUSE_CUDA_ARCHITECTURES);
    py::list numbers;
    for (int number; words >> number;) numbers.append(number);
    return numbers;
}

}  // namespace

void bind_machine(py::module_& m) {
    m.attr("architectures") = architectures();
    m.def("driver_version", &driver_version, "Of CUDA, that the driver is for: 1000 * major + 10 * minor; 0 without a driver.");
    m.def("runtime_version", &runtime_version, "Of CUDA, that this module was built with.");
    m.def("gpus", &gpus, "A dict for each GPU: name, compute capability (90 for 9.0), bytes of memory, multiprocessors.");
    bind_view(m);
    m.def("synchronize",
          [](uintptr_t stream) {
              const py::gil_scoped_release release;
              const cuda::DeviceScope scope(cuda::device_in_use());
              check(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream)), "waiting for a stream");
          },
          py::arg("stream"), "Waits for all that was queued on the stream; 1 is the default stream, as in the runtime.");
    m.def("set_device", &cuda::use_device, py::arg("index"), "The GPU that this module's kernels use from now on.");
}

}  // namespace tilefuse::bindings
