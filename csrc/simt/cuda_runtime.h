// The CUDA runtime API as far as the library's host code uses it, with the real names, for kernels that the executor
// runs on the CPU. What is queued runs at once, or is recorded while its stream is being captured.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

// ---- attributes -----------------------------------------------------------------------------------------------------
// (`__shared__`, `__constant__` and device variables have no twin: a kernel that uses them does not compile.)

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

// ---- vector types ---------------------------------------------------------------------------------------------------

#define TILEFUSE_SIMT_VECTORS(T, name, align2, align4)                                                                 \
    struct name##1 { T x; };                                                                                           \
    struct alignas(align2) name##2 { T x, y; };                                                                        \
    struct name##3 { T x, y, z; };                                                                                     \
    struct alignas(align4) name##4 { T x, y, z, w; };                                                                  \
    inline name##1 make_##name##1(T x) { return {x}; }                                                                 \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                         \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                                 \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
TILEFUSE_SIMT_VECTORS(signed char, char, 2, 4)
TILEFUSE_SIMT_VECTORS(unsigned char, uchar, 2, 4)
TILEFUSE_SIMT_VECTORS(short, short, 4, 8)
TILEFUSE_SIMT_VECTORS(unsigned short, ushort, 4, 8)
TILEFUSE_SIMT_VECTORS(int, int, 8, 16)
TILEFUSE_SIMT_VECTORS(unsigned, uint, 8, 16)
TILEFUSE_SIMT_VECTORS(long long, longlong, 16, 16)
TILEFUSE_SIMT_VECTORS(unsigned long long, ulonglong, 16, 16)
TILEFUSE_SIMT_VECTORS(float, float, 8, 16)
TILEFUSE_SIMT_VECTORS(double, double, 16, 16)
#undef TILEFUSE_SIMT_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return {x, y, z}; }
};

// ---- errors ---------------------------------------------------------------------------------------------------------

#define TILEFUSE_SIMT_ERRORS(error)                                                                                    \
    error(cudaSuccess, 0, "no error")                                                                                  \
    error(cudaErrorInvalidValue, 1, "invalid argument")                                                                \
    error(cudaErrorMemoryAllocation, 2, "out of memory")                                                               \
    error(cudaErrorInvalidConfiguration, 9, "invalid configuration argument")                                          \
    error(cudaErrorInvalidDevicePointer, 17, "invalid device pointer")                                                 \
    error(cudaErrorInvalidMemcpyDirection, 21, "invalid copy direction for memcpy")                                    \
    error(cudaErrorNoDevice, 100, "no CUDA-capable device is detected")                                                \
    error(cudaErrorInvalidDevice, 101, "invalid device ordinal")                                                       \
    error(cudaErrorInvalidResourceHandle, 400, "invalid resource handle")                                              \
    error(cudaErrorNotReady, 600, "device not ready")                                                                  \
    error(cudaErrorLaunchOutOfResources, 701, "too many resources requested for launch")                               \
    error(cudaErrorLaunchFailure, 719, "unspecified launch failure")                                                   \
    error(cudaErrorNotSupported, 801, "operation not supported")                                                       \
    error(cudaErrorStreamCaptureUnsupported, 900, "operation not permitted when stream is capturing")                  \
    error(cudaErrorStreamCaptureInvalidated, 901, "operation failed due to a previous error during capture")           \
    error(cudaErrorStreamCaptureUnmatched, 903, "capture was not initiated in this stream")                            \
    error(cudaErrorStreamCaptureImplicit, 906, "operation would make the legacy stream depend on a capturing stream")  \
    error(cudaErrorUnknown, 999, "unknown error")

#define TILEFUSE_SIMT_ENUMERATOR(name, value, text) name = value,
enum cudaError_t { TILEFUSE_SIMT_ERRORS(TILEFUSE_SIMT_ENUMERATOR) };
#undef TILEFUSE_SIMT_ENUMERATOR

const char* cudaGetErrorName(cudaError_t);
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaGetLastError();   // of the calling thread's last call that failed; forgets it
cudaError_t cudaPeekAtLastError();

// ---- the device -----------------------------------------------------------------------------------------------------

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
    int regsPerBlock, warpSize, maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3];
    int major, minor, multiProcessorCount, maxThreadsPerMultiProcessor, l2CacheSize;
};
enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaGetDevice(int*);
cudaError_t cudaSetDevice(int);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int device);
cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDriverGetVersion(int*);
cudaError_t cudaRuntimeGetVersion(int*);

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaFuncAttributes {
    size_t sharedSizeBytes;  // static
    int maxThreadsPerBlock, ptxVersion, binaryVersion;
};
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void* function);
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int value);

// ---- streams, events, graphs ----------------------------------------------------------------------------------------

namespace simt {
struct Stream;
struct Event;
struct Graph;
struct GraphExec;
}  // namespace simt
using cudaStream_t = simt::Stream*;  // null: the legacy default stream
using cudaEvent_t = simt::Event*;
using cudaGraph_t = simt::Graph*;
using cudaGraphExec_t = simt::GraphExec*;

enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed,
};
enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone,
    cudaStreamCaptureStatusActive,
    cudaStreamCaptureStatusInvalidated,
};

cudaError_t cudaStreamCreate(cudaStream_t*);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamQuery(cudaStream_t);
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned flags = 0);

cudaError_t cudaEventCreate(cudaEvent_t*);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t);
cudaError_t cudaEventQuery(cudaEvent_t);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*);
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);

// ---- memory ---------------------------------------------------------------------------------------------------------

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault,
};
enum cudaMemoryType {
    cudaMemoryTypeUnregistered,
    cudaMemoryTypeHost,
    cudaMemoryTypeDevice,
};
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
    void *devicePointer, *hostPointer;
};

cudaError_t cudaMalloc(void**, size_t bytes);
cudaError_t cudaMallocAsync(void**, size_t bytes, cudaStream_t);
cudaError_t cudaFree(void*);
cudaError_t cudaFreeAsync(void*, cudaStream_t);
cudaError_t cudaMallocHost(void**, size_t bytes);
cudaError_t cudaFreeHost(void*);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t = nullptr);
cudaError_t cudaMemset(void* to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = nullptr);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes*, const void*);

template <class T> cudaError_t cudaMalloc(T** p, size_t bytes) {
    return cudaMalloc(reinterpret_cast<void**>(p), bytes);
}
template <class T> cudaError_t cudaMallocAsync(T** p, size_t bytes, cudaStream_t stream) {
    return cudaMallocAsync(reinterpret_cast<void**>(p), bytes, stream);
}
template <class T> cudaError_t cudaMallocHost(T** p, size_t bytes) {
    return cudaMallocHost(reinterpret_cast<void**>(p), bytes);
}

#include "simt/simt.h"
