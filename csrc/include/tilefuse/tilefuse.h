// The C API: every kernel of the CPU as two functions of its arguments. C11, C++17.
//
//     tilefuse_softmax_args args = {.dtype = TILEFUSE_FLOAT32, .rows = 32, .cols = 10, .x = x, .y = y};
//     const size_t bytes = tilefuse_softmax_workspace(&args);
//     void* workspace = malloc(bytes);
//     if (tilefuse_softmax(&args, workspace, bytes)) puts(tilefuse_last_error());
//
// Arguments. The headers of the families say what each kernel computes, and with which shapes. Arrays are the caller's, on
// the host, and aligned to their elements. In an argument that is left out, and so zero, a kernel finds what it needs to do
// without: structs are to be zeroed before they are filled.
//
// Workspace. A kernel allocates nothing: what it needs besides its arguments is the caller's, of any alignment. How much
// that is depends on the arguments and on tilefuse_set_num_threads, not on the arrays' contents; one workspace serves any
// kernels one after the other. A null pointer will do where no bytes are asked for.
//
// Errors. Nothing is thrown, and nothing aborts the process. Null pointers, sizes below zero, values that no enum has and
// the like are refused before anything is read or written. That arrays are as large as the arguments say cannot be checked.
//
// Threads. Any number of threads may call at the same time, each with a workspace of its own. A kernel uses OpenMP's threads
// where there is enough to do, and the calling thread alone inside of somebody's parallel region or after a fork. The same
// call has the same bits for any number of threads.
//
// Versions. Programs that were linked with libtilefuse.so fit every later one of the same name: structs and enums change in
// ways that an old program would notice with the library's soname alone, which has the major version, before 1.0 the minor
// one as well; what is new is zero by default and then means what was before. Who gets the library in another way (dlopen, a
// foreign function interface, the Python package) compares tilefuse_version() / 100 with TILEFUSE_VERSION / 100.
#pragma once

#include "tilefuse/activation.h"
#include "tilefuse/add.h"
#include "tilefuse/conv.h"
#include "tilefuse/data.h"
#include "tilefuse/dropout.h"
#include "tilefuse/loss.h"
#include "tilefuse/matmul.h"
#include "tilefuse/norm.h"
#include "tilefuse/optimizer.h"
#include "tilefuse/pool.h"
#include "tilefuse/softmax.h"
#include "tilefuse/types.h"
#include "tilefuse/version.h"

#define TILEFUSE_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tilefuse_status {
    TILEFUSE_SUCCESS = 0,
    TILEFUSE_INVALID_ARGUMENT,     // what was given makes no sense; nothing was read or written
    TILEFUSE_WORKSPACE_TOO_SMALL,  // likewise; ask tilefuse_<kernel>_workspace again
    TILEFUSE_UNAVAILABLE,          // the variable TILEFUSE_ISA names an instruction set that is not there
    TILEFUSE_INTERNAL_ERROR,
} tilefuse_status;

// Why this thread's latest call that failed did; "" before any has. The text stays until the next that fails.
TILEFUSE_API const char* tilefuse_last_error(void);

TILEFUSE_API int tilefuse_version(void);  // TILEFUSE_VERSION of the library itself
TILEFUSE_API const char* tilefuse_isa(void);  // the instruction set in use, such as "avx2"; null: TILEFUSE_UNAVAILABLE

// How many threads a kernel may use: what was set, else OMP_NUM_THREADS, else the processors that the process may use.
TILEFUSE_API int tilefuse_get_num_threads(void);
TILEFUSE_API tilefuse_status tilefuse_set_num_threads(int n);  // 0: back to the default

// ---- kernels --------------------------------------------------------------------------------------------------------
// tilefuse_<kernel>_workspace: bytes that tilefuse_<kernel> needs with these arguments; 0, too, for those that it refuses.

// tilefuse/matmul.h: C = epilogue(A B + beta C); sums of columns.
TILEFUSE_API size_t tilefuse_matmul_workspace(const tilefuse_matmul_args* args);
TILEFUSE_API tilefuse_status tilefuse_matmul(const tilefuse_matmul_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_column_sum_workspace(const tilefuse_column_sum_args* args);
TILEFUSE_API tilefuse_status tilefuse_column_sum(const tilefuse_column_sum_args* args, void* workspace, size_t workspace_bytes);

// tilefuse/conv.h: convolutions of images, and their gradients.
TILEFUSE_API size_t tilefuse_conv2d_workspace(const tilefuse_conv2d_args* args);
TILEFUSE_API tilefuse_status tilefuse_conv2d(const tilefuse_conv2d_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_conv2d_backward_data_workspace(const tilefuse_conv2d_backward_data_args* args);
TILEFUSE_API tilefuse_status tilefuse_conv2d_backward_data(const tilefuse_conv2d_backward_data_args* args, void* workspace,
                                                           size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_conv2d_backward_weights_workspace(const tilefuse_conv2d_backward_weights_args* args);
TILEFUSE_API tilefuse_status tilefuse_conv2d_backward_weights(const tilefuse_conv2d_backward_weights_args* args,
                                                              void* workspace, size_t workspace_bytes);

// tilefuse/pool.h: maxima and means of windows.
TILEFUSE_API size_t tilefuse_pool2d_workspace(const tilefuse_pool2d_args* args);
TILEFUSE_API tilefuse_status tilefuse_pool2d(const tilefuse_pool2d_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_pool2d_backward_workspace(const tilefuse_pool2d_backward_args* args);
TILEFUSE_API tilefuse_status tilefuse_pool2d_backward(const tilefuse_pool2d_backward_args* args, void* workspace,
                                                      size_t workspace_bytes);

// tilefuse/activation.h, add.h, softmax.h, dropout.h: elementwise, or by rows.
TILEFUSE_API size_t tilefuse_activation_workspace(const tilefuse_activation_args* args);
TILEFUSE_API tilefuse_status tilefuse_activation(const tilefuse_activation_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_activation_backward_workspace(const tilefuse_activation_backward_args* args);
TILEFUSE_API tilefuse_status tilefuse_activation_backward(const tilefuse_activation_backward_args* args, void* workspace,
                                                          size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_add_workspace(const tilefuse_add_args* args);
TILEFUSE_API tilefuse_status tilefuse_add(const tilefuse_add_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_softmax_workspace(const tilefuse_softmax_args* args);
TILEFUSE_API tilefuse_status tilefuse_softmax(const tilefuse_softmax_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_softmax_backward_workspace(const tilefuse_softmax_backward_args* args);
TILEFUSE_API tilefuse_status tilefuse_softmax_backward(const tilefuse_softmax_backward_args* args, void* workspace,
                                                       size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_dropout_mask_workspace(const tilefuse_dropout_mask_args* args);
TILEFUSE_API tilefuse_status tilefuse_dropout_mask(const tilefuse_dropout_mask_args* args, void* workspace,
                                                   size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_dropout_workspace(const tilefuse_dropout_args* args);
TILEFUSE_API tilefuse_status tilefuse_dropout(const tilefuse_dropout_args* args, void* workspace, size_t workspace_bytes);

// tilefuse/norm.h: batch, layer and RMS normalisation, and their gradients.
TILEFUSE_API size_t tilefuse_batch_norm_workspace(const tilefuse_batch_norm_args* args);
TILEFUSE_API tilefuse_status tilefuse_batch_norm(const tilefuse_batch_norm_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_batch_norm_backward_workspace(const tilefuse_batch_norm_backward_args* args);
TILEFUSE_API tilefuse_status tilefuse_batch_norm_backward(const tilefuse_batch_norm_backward_args* args, void* workspace,
                                                          size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_batch_norm_fold_workspace(const tilefuse_batch_norm_fold_args* args);
TILEFUSE_API tilefuse_status tilefuse_batch_norm_fold(const tilefuse_batch_norm_fold_args* args, void* workspace,
                                                      size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_layer_norm_workspace(const tilefuse_layer_norm_args* args);
TILEFUSE_API tilefuse_status tilefuse_layer_norm(const tilefuse_layer_norm_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_layer_norm_backward_workspace(const tilefuse_layer_norm_backward_args* args);
TILEFUSE_API tilefuse_status tilefuse_layer_norm_backward(const tilefuse_layer_norm_backward_args* args, void* workspace,
                                                          size_t workspace_bytes);

// tilefuse/loss.h: losses with their gradients.
TILEFUSE_API size_t tilefuse_loss_workspace(const tilefuse_loss_args* args);
TILEFUSE_API tilefuse_status tilefuse_loss(const tilefuse_loss_args* args, void* workspace, size_t workspace_bytes);

// tilefuse/optimizer.h: updates of many parameters, clipping by norm, penalties.
TILEFUSE_API size_t tilefuse_optimizer_workspace(const tilefuse_optimizer_args* args);
TILEFUSE_API tilefuse_status tilefuse_optimizer(const tilefuse_optimizer_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_clip_norm_workspace(const tilefuse_clip_norm_args* args);
TILEFUSE_API tilefuse_status tilefuse_clip_norm(const tilefuse_clip_norm_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_penalty_workspace(const tilefuse_penalty_args* args);
TILEFUSE_API tilefuse_status tilefuse_penalty(const tilefuse_penalty_args* args, void* workspace, size_t workspace_bytes);

// tilefuse/data.h: batches out of data, sums.
TILEFUSE_API size_t tilefuse_gather_workspace(const tilefuse_gather_args* args);
TILEFUSE_API tilefuse_status tilefuse_gather(const tilefuse_gather_args* args, void* workspace, size_t workspace_bytes);
TILEFUSE_API size_t tilefuse_total_workspace(const tilefuse_total_args* args);
TILEFUSE_API tilefuse_status tilefuse_total(const tilefuse_total_args* args, void* workspace, size_t workspace_bytes);

#ifdef __cplusplus
}
#endif
