// Cases of test_c_api.py: each prints what is wrong, and nothing where nothing is.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/registry.h"
#include "tilefuse/tilefuse.h"

#define EXPECT(what) \
    if (!(what)) printf("%s:%d: %s; %s\n", __func__, __LINE__, #what, tilefuse_last_error())

static int said(const char* text) { return strstr(tilefuse_last_error(), text) != NULL; }

// A workspace of just so many bytes, which begins anywhere, with bytes around it that must stay as they are.
enum { guard = 64, guard_byte = 0x5a };
static char* guarded(size_t bytes, size_t shift) {
    char* memory = (char*)malloc(bytes + 2 * guard + shift);
    memset(memory, guard_byte, bytes + 2 * guard + shift);
    return memory + guard + shift;
}
static int untouched(const char* workspace, size_t bytes) {
    for (int i = 0; i < guard; ++i)
        if (workspace[-1 - i] != guard_byte || workspace[bytes + (size_t)i] != guard_byte) return 0;
    return 1;
}

// ---- what all kernels have in common ----

#define REFUSES_NOTHING(name)                                                            \
    EXPECT(tilefuse_##name(NULL, NULL, 0) == TILEFUSE_INVALID_ARGUMENT);                 \
    EXPECT(said("tilefuse_" #name ": args is null"));                                    \
    EXPECT(tilefuse_##name##_workspace(NULL) == 0);

// -1 is neither a size nor the value of an enum, and no array's address.
#define REFUSES_GARBAGE(name)                                                            \
    {                                                                                    \
        tilefuse_##name##_args args;                                                     \
        memset(&args, 0xff, sizeof args);                                                \
        EXPECT(tilefuse_##name(&args, NULL, 0) == TILEFUSE_INVALID_ARGUMENT);            \
        EXPECT(said("tilefuse_" #name ": ") && said("expected"));                        \
        EXPECT(tilefuse_##name##_workspace(&args) == 0);                                 \
    }

// Zeros are arrays without elements, or refused: no kernel reads a null pointer.
#define SURVIVES_ZEROS(name)                                                             \
    {                                                                                    \
        tilefuse_##name##_args args;                                                     \
        memset(&args, 0, sizeof args);                                                   \
        const size_t bytes = tilefuse_##name##_workspace(&args);                         \
        char* workspace = guarded(bytes, 0);                                             \
        const tilefuse_status status = tilefuse_##name(&args, workspace, bytes);         \
        EXPECT(status == TILEFUSE_SUCCESS || status == TILEFUSE_INVALID_ARGUMENT);       \
        EXPECT(untouched(workspace, bytes));                                             \
    }

static void null_arguments(void) { TILEFUSE_KERNELS(REFUSES_NOTHING) }
static void garbage(void) { TILEFUSE_KERNELS(REFUSES_GARBAGE) }
static void zeros(void) { TILEFUSE_KERNELS(SURVIVES_ZEROS) }

// ---- arguments that would crash ----

static float some[64 * 64 * 16], others[64 * 64 * 16], results[64 * 64 * 16];

// Changes one argument of a call that would do otherwise.
#define REFUSES(name, args, member, value, text)                                         \
    {                                                                                    \
        tilefuse_##name##_args changed = args;                                           \
        changed.member = value;                                                          \
        EXPECT(tilefuse_##name(&changed, NULL, 0) == TILEFUSE_INVALID_ARGUMENT);         \
        EXPECT(said(text));                                                              \
    }

static void arguments(void) {
    tilefuse_softmax_args softmax = {.rows = 4, .cols = 3, .x = some, .y = results};
    EXPECT(tilefuse_softmax(&softmax, NULL, 0) == TILEFUSE_SUCCESS);
    REFUSES(softmax, softmax, x, NULL, "x is null; expected an array of 12 elements")
    REFUSES(softmax, softmax, y, (char*)results + 1, "y is not aligned to its elements of 4 bytes")
    REFUSES(softmax, softmax, rows, -1, "rows is -1; expected 0 or more")
    REFUSES(softmax, softmax, cols, INT64_MAX, "rows * cols is more than memory can hold")
    REFUSES(softmax, softmax, dtype, (tilefuse_dtype)2, "dtype is 2; expected a value of its enum, 0 to 1")

    tilefuse_activation_args activation = {.rows = 4, .cols = 3, .x = some, .y = results};
    REFUSES(activation, activation, activation, TILEFUSE_ACTIVATION_COUNT, "activation is 11")

    tilefuse_matmul_args matmul = {.m = 3, .n = 3, .k = 3, .a = some, .b = others, .c = results, .a_row_stride = 3, .a_col_stride = 1,
                                   .b_row_stride = 3, .b_col_stride = 1, .c_row_stride = 3};
    REFUSES(matmul, matmul, batch_axes, TILEFUSE_MAX_BATCH_AXES + 1, "batch_axes is 7; expected 0 to 6")
    matmul.m = 0;
    REFUSES(matmul, matmul, k, -5, "k is -5; expected 0 or more")
    matmul.m = 3;
    REFUSES(matmul, matmul, precision, TILEFUSE_PRECISION_TF32, "CUDA devices alone")
    REFUSES(matmul, matmul, result, TILEFUSE_STORED_BFLOAT16, "BFLOAT16 is for dtype FLOAT32")
    REFUSES(matmul, matmul, epilogue.derivative, (tilefuse_activation_kind)99, "epilogue.derivative is 99")
    tilefuse_optimizer_rule adam = {.kind = TILEFUSE_ADAM, .step = 1};
    REFUSES(matmul, matmul, epilogue.rule, &adam, "epilogue.parameter.n is 0; expected 9")
    matmul.epilogue.parameter = (tilefuse_parameter){.n = 9, .w = results, .slots = {others}};
    REFUSES(matmul, matmul, epilogue.rule, &adam, "epilogue.parameter.slots[1] is null; expected an array of 9 elements")
    tilefuse_optimizer_rule descent = {.kind = TILEFUSE_SGD};
    matmul.beta = 0.5;
    REFUSES(matmul, matmul, epilogue.rule, &descent, "epilogue.rule is given with beta 0.5")
    matmul.beta = 0;
    adam.step = 0;
    REFUSES(matmul, matmul, epilogue.rule, &adam, "rule.step is 0; expected 1 or more")

    tilefuse_conv2d_args conv = {.shape = {.n = 1, .h = 5, .w = 5, .c = 2, .kernel_h = 3, .kernel_w = 3, .f = 4, .out_h = 3, .out_w = 3,
                                           .stride_h = 1, .stride_w = 1, .dilation_h = 1, .dilation_w = 1, .groups = 1},
                                 .x = some, .w = others, .y = results};
    REFUSES(conv2d, conv, w, NULL, "w is null; expected an array of 72 elements")
    REFUSES(conv2d, conv, shape.stride_w, 0, "shape.stride_w is 0; expected 1 or more")
    REFUSES(conv2d, conv, shape.groups, 3, "3 groups of c = 2 and f = 4")
    REFUSES(conv2d, conv, pool.height, 2, "pool is 2 x 0; expected 1 to 256 values")
    REFUSES(conv2d, conv, epilogue.rule, &adam, "epilogue.rule")

    tilefuse_parameter parameters[2] = {{.n = 4, .w = some, .dw = others}, {.n = 4, .w = some}};
    tilefuse_optimizer_rule sgd = {.kind = TILEFUSE_SGD};
    tilefuse_optimizer_args optimizer = {.rule = &sgd, .parameters = parameters, .count = 1};
    EXPECT(tilefuse_optimizer(&optimizer, NULL, 0) == TILEFUSE_SUCCESS);
    REFUSES(optimizer, optimizer, count, 2, "parameters[1].dw is null; expected an array of 4 elements")
    REFUSES(optimizer, optimizer, rule, NULL, "rule is null")

    uint8_t mask[12];
    uint64_t step = 0;
    tilefuse_dropout_mask_args dropout = {.rows = 4, .cols = 3, .step = &step, .rate = 0.5, .mask = mask};
    REFUSES(dropout_mask, dropout, rate, 1.0, "rate is 1.0")
    REFUSES(dropout_mask, dropout, step, NULL, "step is null")
    EXPECT(tilefuse_set_num_threads(-1) == TILEFUSE_INVALID_ARGUMENT && said("n is -1"));
}

// ---- workspace and results ----

static tilefuse_conv2d_args convolution(void) {
    for (size_t i = 0; i < sizeof some / sizeof *some; ++i) some[i] = (float)(i % 7) - 3, others[i] = (float)(i % 5) - 2;
    const tilefuse_conv2d_args args = {
        .shape = {.n = 2, .h = 32, .w = 32, .c = 16, .kernel_h = 5, .kernel_w = 5, .f = 24, .out_h = 28, .out_w = 28, .stride_h = 1,
                  .stride_w = 1, .dilation_h = 1, .dilation_w = 1, .groups = 1},
        .x = some, .w = others, .y = results};
    return args;
}

// Numbers are small integers: the convolution is exact. Any start of the workspace and any number of threads will do.
static void workspace(void) {
    const tilefuse_conv2d_args args = convolution();
    const tilefuse_conv2d_shape s = args.shape;
    for (int threads = 1; threads <= 3; ++threads)
        for (size_t shift = 0; shift < 64; shift += 13) {
            EXPECT(tilefuse_set_num_threads(threads) == TILEFUSE_SUCCESS && tilefuse_get_num_threads() == threads);
            const size_t bytes = tilefuse_conv2d_workspace(&args);
            char* memory = guarded(bytes, shift);
            memset(results, 0xff, sizeof results);
            EXPECT(bytes > 0 && tilefuse_conv2d(&args, memory, bytes) == TILEFUSE_SUCCESS);
            EXPECT(untouched(memory, bytes));
            EXPECT(tilefuse_conv2d(&args, memory, bytes - 1) == TILEFUSE_WORKSPACE_TOO_SMALL && said("expected"));
            EXPECT(tilefuse_conv2d(&args, NULL, bytes) == TILEFUSE_WORKSPACE_TOO_SMALL && said("the workspace is null"));
            int wrong = 0;
            for (int64_t at = 0; at < s.n * s.out_h * s.out_w * s.f; ++at) {
                const int64_t f = at % s.f, j = at / s.f % s.out_w, i = at / s.f / s.out_w % s.out_h, n = at / s.f / s.out_w / s.out_h;
                float sum = 0;
                for (int64_t p = 0; p < s.kernel_h; ++p)
                    for (int64_t q = 0; q < s.kernel_w; ++q)
                        for (int64_t c = 0; c < s.c; ++c)
                            sum += some[((n * s.h + i + p) * s.w + j + q) * s.c + c] * others[((p * s.kernel_w + q) * s.c + c) * s.f + f];
                wrong += sum != results[at];
            }
            EXPECT(wrong == 0);
            free(memory - guard - shift);
        }
}

// ---- the library ----

static void library(void) {
    EXPECT(tilefuse_version() == TILEFUSE_VERSION);
    EXPECT(strcmp(tilefuse_last_error(), "") == 0);
    EXPECT(tilefuse_isa() != NULL);
    EXPECT(tilefuse_get_num_threads() >= 1);
}

// With the variable TILEFUSE_ISA=none.
static void unavailable(void) {
    const tilefuse_conv2d_args args = convolution();
    EXPECT(tilefuse_isa() == NULL && said("TILEFUSE_ISA is 'none'"));
    EXPECT(tilefuse_conv2d_workspace(&args) == 0);
    EXPECT(tilefuse_conv2d(&args, NULL, 0) == TILEFUSE_UNAVAILABLE);
}

int main(int argc, char** argv) {
    (void)argc;
    const struct {
        const char* name;
        void (*run)(void);
    } cases[] = {{"null_arguments", null_arguments}, {"garbage", garbage}, {"zeros", zeros}, {"arguments", arguments},
                 {"workspace", workspace}, {"library", library}, {"unavailable", unavailable}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
        if (strcmp(argv[1], cases[i].name) == 0) return cases[i].run(), 0;
    return 1;
}
