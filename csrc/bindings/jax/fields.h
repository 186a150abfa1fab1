// The arguments of kernels by the names of their fields: Fields<Args>::all is a table of them. It has those that
// tilefuse.interop.jax sets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include "common/registry.h"

namespace tilefuse::jax {

enum class Kind { int32, int64, float64, array, doubles };

struct Field {
    std::string_view name;
    Kind kind;
    size_t offset;
};

template <class T> constexpr Kind kind_of() {
    if constexpr (std::is_same_v<T, double*>) return Kind::doubles;
    else if constexpr (std::is_pointer_v<T>) return Kind::array;
    else if constexpr (std::is_same_v<T, double>) return Kind::float64;
    else return sizeof(T) == 8 ? Kind::int64 : Kind::int32;  // enums too
}

template <class Args> struct Fields;

#define TILEFUSE_FIELD(member) {#member, kind_of<std::remove_reference_t<decltype(std::declval<Args&>().member)>>(), offsetof(Args, member)}
#define TILEFUSE_FIELDS(kernel, ...)                   \
    template <> struct Fields<tilefuse_##kernel##_args> { \
        using Args = tilefuse_##kernel##_args;         \
        static constexpr Field all[] = {__VA_ARGS__};  \
    };
#define F TILEFUSE_FIELD
#define TILEFUSE_ROWS F(dtype), F(rows), F(cols)
#define TILEFUSE_ACTIVATED F(epilogue.activation), F(epilogue.activation_alpha), F(epilogue.preactivation)
#define TILEFUSE_SHAPE                                                                                                     \
    F(dtype), F(shape.n), F(shape.h), F(shape.w), F(shape.c), F(shape.kernel_h), F(shape.kernel_w), F(shape.f), F(shape.out_h), \
        F(shape.out_w), F(shape.stride_h), F(shape.stride_w), F(shape.dilation_h), F(shape.dilation_w), F(shape.pad_top),  \
        F(shape.pad_left), F(shape.groups)

TILEFUSE_FIELDS(matmul, F(dtype), F(precision), F(m), F(n), F(k), F(a), F(b), F(c), F(a_row_stride), F(a_col_stride), F(b_row_stride),
                F(b_col_stride), F(c_row_stride), F(batch_axes), F(batch_shape[0]), F(batch_shape[1]), F(batch_shape[2]),
                F(batch_shape[3]), F(batch_shape[4]), F(batch_shape[5]), F(a_batch_strides[0]), F(a_batch_strides[1]),
                F(a_batch_strides[2]), F(a_batch_strides[3]), F(a_batch_strides[4]), F(a_batch_strides[5]), F(b_batch_strides[0]),
                F(b_batch_strides[1]), F(b_batch_strides[2]), F(b_batch_strides[3]), F(b_batch_strides[4]), F(b_batch_strides[5]),
                F(c_batch_strides[0]), F(c_batch_strides[1]), F(c_batch_strides[2]), F(c_batch_strides[3]), F(c_batch_strides[4]),
                F(c_batch_strides[5]), F(epilogue.bias), TILEFUSE_ACTIVATED)
TILEFUSE_FIELDS(column_sum, F(dtype), F(m), F(n), F(x), F(y))
TILEFUSE_FIELDS(conv2d, TILEFUSE_SHAPE, F(precision), F(x), F(w), F(y), F(epilogue.bias), TILEFUSE_ACTIVATED)
TILEFUSE_FIELDS(conv2d_backward_data, TILEFUSE_SHAPE, F(precision), F(dy), F(w), F(dx))
TILEFUSE_FIELDS(conv2d_backward_weights, TILEFUSE_SHAPE, F(precision), F(x), F(dy), F(dw), F(db))
TILEFUSE_FIELDS(pool2d, TILEFUSE_SHAPE, F(kind), F(count_padding), F(x), F(y), F(argmax))
TILEFUSE_FIELDS(pool2d_backward, TILEFUSE_SHAPE, F(kind), F(count_padding), F(dy), F(argmax), F(dx))
TILEFUSE_FIELDS(activation, TILEFUSE_ROWS, F(activation), F(alpha), F(x), F(y))
TILEFUSE_FIELDS(activation_backward, TILEFUSE_ROWS, F(activation), F(alpha), F(dy), F(at), F(dx))
TILEFUSE_FIELDS(add, TILEFUSE_ROWS, F(x), F(y), F(epilogue.addend), TILEFUSE_ACTIVATED)
TILEFUSE_FIELDS(softmax, TILEFUSE_ROWS, F(log), F(x), F(y))
TILEFUSE_FIELDS(softmax_backward, TILEFUSE_ROWS, F(log), F(dy), F(y), F(dx))
TILEFUSE_FIELDS(batch_norm, TILEFUSE_ROWS, F(training), F(x), F(y), F(gamma), F(beta), F(moving_mean), F(moving_variance), F(mean),
                F(inv_std), F(momentum), F(epsilon), F(epilogue.addend), TILEFUSE_ACTIVATED)
TILEFUSE_FIELDS(batch_norm_backward, TILEFUSE_ROWS, F(training), F(dy), F(x), F(gamma), F(mean), F(inv_std), F(dx), F(dgamma), F(dbeta))
TILEFUSE_FIELDS(layer_norm, TILEFUSE_ROWS, F(rms), F(epsilon), F(x), F(gamma), F(beta), F(y), F(mean), F(inv_std))
TILEFUSE_FIELDS(layer_norm_backward, TILEFUSE_ROWS, F(rms), F(epsilon), F(dy), F(x), F(gamma), F(mean), F(inv_std), F(dx), F(dgamma),
                F(dbeta))
TILEFUSE_FIELDS(loss, TILEFUSE_ROWS, F(loss), F(from_logits), F(label_smoothing), F(x), F(labels), F(sample_weight), F(rows_per_sample),
                F(scale), F(dx), F(row_loss))
TILEFUSE_FIELDS(dropout_mask, F(rows), F(cols), F(seed), F(step), F(rate), F(mask))
TILEFUSE_FIELDS(dropout, TILEFUSE_ROWS, F(x), F(mask), F(scale), F(y))

#undef F

// Those above.
#define TILEFUSE_JAX_KERNELS(kernel)                                                                                    \
    kernel(matmul) kernel(column_sum) kernel(conv2d) kernel(conv2d_backward_data) kernel(conv2d_backward_weights)       \
    kernel(pool2d) kernel(pool2d_backward) kernel(activation) kernel(activation_backward) kernel(add) kernel(softmax)   \
    kernel(softmax_backward) kernel(batch_norm) kernel(batch_norm_backward) kernel(layer_norm)                          \
    kernel(layer_norm_backward) kernel(loss) kernel(dropout_mask) kernel(dropout)

}  // namespace tilefuse::jax
