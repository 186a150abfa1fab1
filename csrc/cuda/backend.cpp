// A GPU as the machine that a module's kernels run on; also the executor that takes its place (TILEFUSE_SIMT).
#include "program/backend.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "cuda/kernels.h"
#include "cuda/memory.h"

namespace tilefuse {

namespace cuda {
namespace {
std::atomic<int> device_index{0};
}

void use_device(int index) {
    const DeviceScope scope(index);
    check(cudaFree(nullptr), "using the GPU");  // makes its context
    device_index = index;
}
int device_in_use() { return device_index; }

}  // namespace cuda

namespace backend {
namespace {

using cuda::check;

// The stream of single kernels and copies, one for each device; it lasts as long as the process. (Never the default
// stream, for which those of all threads would wait.)
cudaStream_t stream() {
    static std::mutex mutex;
    static std::vector<cudaStream_t> streams;
    const std::lock_guard<std::mutex> lock(mutex);
    const size_t device = static_cast<size_t>(cuda::device_in_use());
    if (streams.size() <= device) streams.resize(device + 1);
    if (streams[device] == nullptr) {
        check(cudaStreamCreateWithFlags(&streams[device], cudaStreamNonBlocking), "making a stream");
    }
    return streams[device];
}

}  // namespace

#if defined(TILEFUSE_SIMT)
const char* name() { return "simt"; }
#else
const char* name() { return "cuda"; }
#endif
bool uses_host_memory() { return false; }
program::Machine machine() {
#if defined(TILEFUSE_SIMT)
    // A step of 784-64-64-10, batch 32, takes the executor 7 ms so, and 64 ms on its matrix units.
    constexpr tilefuse_mlp_precision best = TILEFUSE_MLP_FMA;
#else
    constexpr tilefuse_mlp_precision best = TILEFUSE_MLP_SPLIT;
#endif
    return {.members = 1, .networks = best};
}

void* allocate(size_t bytes) {
    const cuda::DeviceScope scope(cuda::device_in_use());
    return cuda::allocated([bytes](void** memory) { return cudaMalloc(memory, std::max<size_t>(bytes, 1)); });
}

#if defined(TILEFUSE_SIMT)
void* allocate_visible(size_t bytes) { return allocate(bytes); }
#else
void* allocate_visible(size_t bytes) {
    const cuda::DeviceScope scope(cuda::device_in_use());
    return cuda::allocated([bytes](void** memory) { return cudaMallocManaged(memory, std::max<size_t>(bytes, 1)); });
}
#endif

void release(void* memory) noexcept { cudaFree(memory); }

bool owns(const void* pointer) {
    cudaPointerAttributes attributes;
    check(cudaPointerGetAttributes(&attributes, pointer), "asking whose memory it is");
#if !defined(TILEFUSE_SIMT)
    if (attributes.type == cudaMemoryTypeManaged) return true;
#endif
    return attributes.type == cudaMemoryTypeDevice && attributes.device == cuda::device_in_use();
}

void copy_in(void* to, const void* from_host, size_t bytes) {
    const cuda::DeviceScope scope(cuda::device_in_use());
    check(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream()), "copying to the device");
    check(cudaStreamSynchronize(stream()), "copying to the device");
}

void copy_out(void* to_host, const void* from, size_t bytes) {
    const cuda::DeviceScope scope(cuda::device_in_use());
    check(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream()), "copying from the device");
    check(cudaStreamSynchronize(stream()), "copying from the device");
}

void run(const program::Args& args) {
    const cuda::DeviceScope scope(cuda::device_in_use());
    cuda::Memory workspace;
    const size_t bytes = std::visit([](const auto& a) { return cuda::workspace(a); }, args);
    const cuda::Context context{stream(), workspace.of(bytes)};
    std::visit([&](const auto& a) { cuda::queue(context, a); }, args);
    check(cudaStreamSynchronize(stream()), "running a kernel");
}

}  // namespace backend
}  // namespace tilefuse
