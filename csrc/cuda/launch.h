// launch(kernel, grid, block, shared_bytes, stream, arguments...): the one way to start a kernel, on a GPU and on the
// executor alike. An error becomes a std::runtime_error that names the kernel and its launch.
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

inline void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // or the next launch would report it again
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
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

// What blocks of a kernel may have beyond 48 KB, static and dynamic together, must be asked for. The attribute is the
// function's: it is set to all that there is, so that launches of other sizes, by other threads, don't take it back.
inline cudaError_t allow_all_shared_memory(const void* function) {
    int device = 0, most = 0;
    cudaFuncAttributes attributes;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, function);
    if (error != cudaSuccess) return error;
    return cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                most - static_cast<int>(attributes.sharedSizeBytes));
}
constexpr size_t most_static_shared_bytes = 8 * 1024;  // of any kernel that has dynamic shared memory as well

#if defined(TILEFUSE_SIMT) || defined(__CUDACC__)  // host code that the host's compiler compiles only calls launchers
template <class... Parameters, class... Arguments>
void launch(const Kernel<Parameters...>& kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            Arguments&&... arguments) {
    const void* const function = reinterpret_cast<const void*>(kernel.function);
    cudaError_t error = cudaSuccess;
    if (shared_bytes > 48 * 1024 - most_static_shared_bytes) error = allow_all_shared_memory(function);
    if (error != cudaSuccess) check(error, launch_text(kernel.name, grid, block, shared_bytes).c_str());
#if defined(TILEFUSE_SIMT)
    simt::launch(kernel.name, kernel.function, grid, block, shared_bytes, stream, static_cast<Parameters>(arguments)...);
#else
    kernel.function<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
#endif
    error = cudaGetLastError();
    if (error != cudaSuccess) check(error, launch_text(kernel.name, grid, block, shared_bytes).c_str());
}
#endif

}  // namespace tilefuse::cuda
