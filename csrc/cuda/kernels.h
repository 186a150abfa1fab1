// The CUDA kernels: the CPU's registry, with a stream in place of a team.
#pragma once

#include "cuda/launch.h"
#include "common/registry.h"

namespace tilefuse::cuda {

// void name(const Context&, const tilefuse_name_args&) queues the kernel; in csrc/cuda/<family>.cu. Every pointer in the
// arguments is to device memory, but for optimizer, clip_norm and penalty's `parameters`, which the host reads when the
// kernel is queued. (A `rule` is in device memory: it changes from step to step.)
// name_workspace(args): bytes of device memory that the kernel needs while it runs, behind Context::workspace.
struct Context {
    cudaStream_t stream;
    void* workspace;
};

#define TILEFUSE_DECLARE(name)                                      \
    void name(const Context&, const tilefuse_##name##_args&);       \
    size_t name##_workspace(const tilefuse_##name##_args&);         \
    inline void queue(const Context& c, const tilefuse_##name##_args& args) { name(c, args); } \
    inline size_t workspace(const tilefuse_##name##_args& args) { return name##_workspace(args); }
TILEFUSE_CUDA_KERNELS(TILEFUSE_DECLARE)
#undef TILEFUSE_DECLARE

}  // namespace tilefuse::cuda
