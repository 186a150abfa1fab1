// launch(kernel, grid, block, shared_bytes, stream, arguments...): the one way to start a kernel, on a GPU and on the
// executor alike. An error becomes a std::runtime_error that names the kernel, its launch and what the caller says of it.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#if defined(TILEFUSE_SIMT)
#include "simt/cuda_runtime.h"
#else
#include <cuda_runtime.h>
#endif

namespace tilefuse::cuda {

inline void check(cudaError_t error, const std::string& what) {
    if (error == cudaSuccess) return;
    throw std::runtime_error(what + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
}

// A kernel and its name: TILEFUSE_KERNEL(scale<float>).
template <class... Parameters> struct Kernel {
    void (*function)(Parameters...);
    const char* name;
};
template <class... Parameters> Kernel<Parameters...> kernel_of(void (*function)(Parameters...), const char* name) {
    return {function, name};
}
#define TILEFUSE_KERNEL(...) ::tilefuse::cuda::kernel_of(__VA_ARGS__, #__VA_ARGS__)

inline std::string launch_text(const char* name, dim3 grid, dim3 block, size_t shared_bytes) {
    const auto size = [](dim3 d) {
        return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
    };
    return std::string(name) + " on a grid of " + size(grid) + " blocks of " + size(block) + " threads with " +
           std::to_string(shared_bytes) + " bytes of shared memory";
}

#if defined(TILEFUSE_SIMT) || defined(__CUDACC__)  // host code that the host's compiler compiles only calls launchers
template <class... Parameters, class... Arguments>
void launch(const Kernel<Parameters...>& kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            Arguments&&... arguments) {
#if defined(TILEFUSE_SIMT)
    const cudaError_t error = simt::launch(kernel.name, kernel.function, grid, block, shared_bytes, stream,
                                           static_cast<Parameters>(arguments)...);
#else
    if (shared_bytes > 48 * 1024) {
        check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel.function),
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
              launch_text(kernel.name, grid, block, shared_bytes));
    }
    kernel.function<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
    const cudaError_t error = cudaGetLastError();
#endif
    check(error, launch_text(kernel.name, grid, block, shared_bytes));
}
#endif

}  // namespace tilefuse::cuda
