// The CUDA runtime's functions: everything happens at once, or is recorded while its stream is being captured.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>

#include "simt/checker.h"
#include "simt/executor.h"

namespace simt {

using Action = std::function<void()>;

struct Graph {
    std::vector<Action> actions;
};
struct GraphExec {
    std::vector<Action> actions;
};

// What several streams record together: those that waited for an event of a capturing stream join in.
struct Capture {
    Stream* origin;
    Graph graph;
    bool valid = true;
};
struct Stream {
    std::shared_ptr<Capture> capture;
};
struct Event {
    std::shared_ptr<Capture> capture;  // that it was recorded in
    bool recorded = false;
    std::chrono::steady_clock::time_point time;
};

namespace {

thread_local cudaError_t last_error = cudaSuccess;
int captures = 0;  // under way
std::map<std::string, int> registers;
std::mutex asked_mutex;
std::map<const void*, size_t> dynamic_bytes_asked_for;  // of functions
std::atomic<uint64_t> captured = 0, graphs_launched = 0, waited = 0;

cudaError_t result(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

// Does it, or records it.
cudaError_t queue_action(Stream* stream, Action action) {
    std::unique_lock lock(mutex);
    if (stream && stream->capture) {
        if (!stream->capture->valid) return cudaErrorStreamCaptureInvalidated;
        stream->capture->graph.actions.push_back(std::move(action));
        return cudaSuccess;
    }
    if (!stream && captures) return cudaErrorStreamCaptureImplicit;
    action();
    return cudaSuccess;
}

// What may not happen on a stream that is being captured, and ends the capture.
cudaError_t refuse_capture(Stream* stream) {
    std::lock_guard lock(mutex);
    if (stream && stream->capture) {
        stream->capture->valid = false;
        return cudaErrorStreamCaptureUnsupported;
    }
    return !stream && captures ? cudaErrorStreamCaptureImplicit : cudaSuccess;
}

// The error that a GPU gives for such a launch: CUDA C++ Programming Guide, "Technical Specifications per Compute
// Capability".
cudaError_t check_launch(const Launch& launch) {
    const auto [gx, gy, gz] = launch.grid;
    const auto [bx, by, bz] = launch.block;
    if (!gx || !gy || !gz || !bx || !by || !bz) return cudaErrorInvalidConfiguration;
    if (gx > 0x7fffffffu || gy > 65535 || gz > 65535) return cudaErrorInvalidConfiguration;
    if (bx > max_threads || by > max_threads || bz > 64) return cudaErrorInvalidConfiguration;
    if (uint64_t{bx} * by * bz > max_threads) return cudaErrorInvalidConfiguration;
    if (launch.shared_bytes > most_shared_bytes(launch.function)) return cudaErrorInvalidValue;
    const auto known = registers.find(launch.kernel);
    if (known != registers.end()) {  // given to warps, in units of 8 a thread
        const unsigned warps = (bx * by * bz + warp_size - 1) / warp_size;
        if (static_cast<unsigned>((known->second + 7) / 8 * 8) * warp_size * warps > 65536) {
            return cudaErrorLaunchOutOfResources;
        }
    }
    return cudaSuccess;
}

bool inside_allocation(const void* p, size_t bytes) {
    if (!owns(p)) return false;
    const Allocation* a = allocation_at(p);
    return bytes <= static_cast<size_t>(a->begin + a->bytes - static_cast<const char*>(p));
}

cudaError_t check_copy(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    if (!bytes) return cudaSuccess;
    if (!to || !from) return cudaErrorInvalidValue;
    std::lock_guard lock(mutex);
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice ||
                           (kind == cudaMemcpyDefault && owns(to));
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice ||
                             (kind == cudaMemcpyDefault && owns(from));
    if ((to_device && !inside_allocation(to, bytes)) || (from_device && !inside_allocation(from, bytes))) {
        return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

void copy(void* to, const void* from, size_t bytes) {
    std::memmove(to, from, bytes);
    if constexpr (checked) mark_written(to, bytes);
}
void set(void* to, int value, size_t bytes) {
    std::memset(to, value, bytes);
    if constexpr (checked) mark_written(to, bytes);
}

}  // namespace

size_t most_shared_bytes(const void* function) {
    std::lock_guard lock(asked_mutex);
    const auto asked = dynamic_bytes_asked_for.find(function);
    const bool more = asked != dynamic_bytes_asked_for.end() && asked->second > max_static_shared;
    return more ? max_shared : max_static_shared;
}

cudaError_t queue(const Launch& launch, Stream* stream) {
    const cudaError_t refused = check_launch(launch);
    if (refused != cudaSuccess) return result(refused);
    if (stream && stream->capture) {
        return result(queue_action(stream, [launch, arguments = launch.keep(launch.arguments)] {
            Launch again = launch;
            again.arguments = arguments.get();
            run(again);
        }));
    }
    return result(queue_action(stream, [&] { run(launch); }));
}

void set_registers(const std::string& kernel, int count) {
    std::lock_guard lock(mutex);
    registers[kernel] = count;
}

Calls calls() { return {captured, graphs_launched, waited}; }

}  // namespace simt

using namespace simt;

// ---- errors ---------------------------------------------------------------------------------------------------------

const char* cudaGetErrorName(cudaError_t error) {
#define TILEFUSE_SIMT_NAME(name, value, text) \
    if (error == name) return #name;
    TILEFUSE_SIMT_ERRORS(TILEFUSE_SIMT_NAME)
    return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
#define TILEFUSE_SIMT_TEXT(name, value, text) \
    if (error == name) return text;
    TILEFUSE_SIMT_ERRORS(TILEFUSE_SIMT_TEXT)
    return "unrecognized error code";
}
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

// ---- the device -----------------------------------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

// The limits of compute capability 9.0, which is what launches are checked against.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
    if (device != 0) return result(cudaErrorInvalidDevice);
    *p = {};
    std::snprintf(p->name, sizeof p->name, "SIMT executor (%s)", checked ? "checked" : "plain");
    p->totalGlobalMem = device_memory();
    p->sharedMemPerBlock = max_static_shared;
    p->sharedMemPerBlockOptin = max_shared;
    p->sharedMemPerMultiprocessor = max_shared + 1024;
    p->regsPerBlock = 65536;
    p->warpSize = static_cast<int>(simt::warp_size);
    p->maxThreadsPerBlock = static_cast<int>(max_threads);
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = static_cast<int>(max_threads);
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->major = 9;
    p->multiProcessorCount = 1;
    p->maxThreadsPerMultiProcessor = 2048;
    p->l2CacheSize = 50 << 20;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    cudaDeviceProp p;
    const cudaError_t error = cudaGetDeviceProperties(&p, device);
    if (error != cudaSuccess) return error;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = static_cast<int>(p.sharedMemPerBlock); break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(p.sharedMemPerBlockOptin); break;
    default: return result(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
    ++waited;
    std::lock_guard lock(mutex);
    return result(captures ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = 0;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 0;
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int value) {
    if (value < 0 || static_cast<size_t>(value) > max_shared) return result(cudaErrorInvalidValue);
    std::lock_guard lock(asked_mutex);
    dynamic_bytes_asked_for[function] = static_cast<size_t>(value);
    return cudaSuccess;
}
// How much static shared memory there is shows only when the kernel runs.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    *attributes = {.sharedSizeBytes = 0, .maxThreadsPerBlock = static_cast<int>(max_threads), .ptxVersion = 90,
                   .binaryVersion = 90};
    return cudaSuccess;
}

// ---- streams and events ---------------------------------------------------------------------------------------------

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
    *stream = new Stream;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    if (!stream) return result(cudaErrorInvalidResourceHandle);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    ++waited;
    return result(refuse_capture(stream));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return result(refuse_capture(stream)); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    std::lock_guard lock(mutex);
    if (event->capture) {
        if (!stream) return result(cudaErrorStreamCaptureImplicit);
        if (!stream->capture) stream->capture = event->capture;
    }
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
    *event = new Event;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    if (!event) return result(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    std::lock_guard lock(mutex);
    event->capture = stream ? stream->capture : nullptr;
    event->recorded = !event->capture;
    event->time = std::chrono::steady_clock::now();
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    ++waited;
    return cudaEventQuery(event);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    return result(event->capture ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    if (!start->recorded || !end->recorded) return result(cudaErrorInvalidResourceHandle);
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return cudaSuccess;
}

// ---- graphs ---------------------------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    std::lock_guard lock(mutex);
    if (!stream) return result(cudaErrorStreamCaptureUnsupported);
    if (stream->capture) return result(cudaErrorInvalidValue);
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    captures++;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    std::lock_guard lock(mutex);
    *graph = nullptr;
    if (!stream || !stream->capture) return result(cudaErrorInvalidValue);
    if (stream->capture->origin != stream) return result(cudaErrorStreamCaptureUnmatched);
    const std::shared_ptr<Capture> capture = std::exchange(stream->capture, nullptr);
    captures--;
    ++captured;
    if (!capture->valid) return result(cudaErrorStreamCaptureInvalidated);
    *graph = new Graph(std::move(capture->graph));
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    std::lock_guard lock(mutex);
    *status = !stream || !stream->capture ? cudaStreamCaptureStatusNone
              : stream->capture->valid    ? cudaStreamCaptureStatusActive
                                          : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    *exec = new GraphExec{graph->actions};
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    ++graphs_launched;
    return result(queue_action(stream, [exec] {
        for (const Action& action : exec->actions) action();
    }));
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete exec;
    return cudaSuccess;
}

// ---- memory ---------------------------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** p, size_t bytes) {
    *p = nullptr;
    if (!bytes) return cudaSuccess;
    *p = allocate(bytes);
    return result(*p ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t stream) {
    const cudaError_t error = refuse_capture(stream);
    return error == cudaSuccess ? cudaMalloc(p, bytes) : result(error);
}
cudaError_t cudaFree(void* p) { return result(!p || release(p) ? cudaSuccess : cudaErrorInvalidValue); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
    const cudaError_t error = refuse_capture(stream);
    return error == cudaSuccess ? cudaFree(p) : result(error);
}
cudaError_t cudaMallocHost(void** p, size_t bytes) {
    *p = std::malloc(bytes);
    return result(*p || !bytes ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void* p) {
    std::free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    ++waited;
    const cudaError_t error = refuse_capture(nullptr);
    return error == cudaSuccess ? cudaMemcpyAsync(to, from, bytes, kind, nullptr) : result(error);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const cudaError_t error = check_copy(to, from, bytes, kind);
    if (error != cudaSuccess) return result(error);
    if (!owns(to)) ++waited;
    return result(queue_action(stream, [=] {
        if (bytes) copy(to, from, bytes);
    }));
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
    const cudaError_t error = refuse_capture(nullptr);
    return error == cudaSuccess ? cudaMemsetAsync(to, value, bytes, nullptr) : result(error);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
    if (bytes) {
        std::lock_guard lock(mutex);
        if (!inside_allocation(to, bytes)) return result(cudaErrorInvalidValue);
    }
    return result(queue_action(stream, [=] {
        if (bytes) set(to, value, bytes);
    }));
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    *total = device_memory();
    *free = *total - live_allocations().bytes;
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
    auto* plain = const_cast<void*>(p);
    *attributes = owns(p) ? cudaPointerAttributes{cudaMemoryTypeDevice, 0, plain, nullptr}
                          : cudaPointerAttributes{cudaMemoryTypeUnregistered, -1, nullptr, plain};
    return cudaSuccess;
}
