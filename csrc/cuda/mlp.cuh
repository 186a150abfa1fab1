// Whole multi-layer perceptrons in one kernel each way.
#pragma once

#include "cuda/kernels.h"
#include "tilefuse/mlp.h"

namespace tilefuse::cuda {

// Queued on context.stream. Backward needs mlp_backward_workspace(args) bytes behind context.workspace, forward none.
void mlp_forward(const Context& context, const tilefuse_mlp_args& args);
void mlp_backward(const Context& context, const tilefuse_mlp_args& args);
size_t mlp_backward_workspace(const tilefuse_mlp_args& args);

}  // namespace tilefuse::cuda
