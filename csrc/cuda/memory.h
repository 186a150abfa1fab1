// Device memory, and the device that it is on, for host code.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "cuda/launch.h"

namespace tilefuse::cuda {

// The GPU that single kernels, and programs made from now on, use: of the process, where CUDA's own is of each thread.
// Throws if it can't be used: another process has it for itself, say, or its memory is full.
void use_device(int index);
int device_in_use();

// The calling thread's current device, until the end of the scope.
class DeviceScope {
public:
    explicit DeviceScope(int index) {
        check(cudaGetDevice(&before_), "asking for the current device");
        if (before_ != index) check(cudaSetDevice(index), "choosing a device");
        changed_ = before_ != index;
    }
    ~DeviceScope() {
        if (changed_) cudaSetDevice(before_);
    }
    DeviceScope(const DeviceScope&) = delete;

private:
    int before_ = 0;
    bool changed_ = false;
};

// What allocate(&memory) allocated; std::bad_alloc where the GPU has no room for it.
template <class Allocate> void* allocated(const Allocate& allocate) {
    void* memory = nullptr;
    const cudaError_t error = allocate(&memory);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();  // it is told here
        throw std::bad_alloc();
    }
    check(error, "allocating device memory");
    return memory;
}

// Memory that grows when more is asked for; what it held is lost then.
class Memory {
public:
    Memory() = default;
    ~Memory() { cudaFree(data_); }
    Memory(const Memory&) = delete;

    // Waits for the device where it must grow.
    void* of(size_t bytes) {
        if (bytes > bytes_) {
            cudaFree(std::exchange(data_, nullptr));
            bytes_ = 0;
            data_ = allocated([bytes](void** memory) { return cudaMalloc(memory, bytes); });
            bytes_ = bytes;
        }
        return data_;
    }

private:
    void* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace tilefuse::cuda
