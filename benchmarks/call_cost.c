// What a call of the C API costs on arrays of 4 x 4, beside a plain loop: for each kernel its name and both times in
// nanoseconds, medians of rounds.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tilefuse/tilefuse.h"

enum { n = 4, size = n * n, rounds = 31, calls = 10000 };
static float x[size], y[size], z[size];
static char workspace[1 << 16];

static tilefuse_add_args add_args = {.rows = n, .cols = n, .x = x, .y = z, .epilogue = {.addend = y}};
static tilefuse_activation_args relu_args = {.activation = TILEFUSE_RELU, .rows = n, .cols = n, .x = x, .y = z};
static tilefuse_softmax_args softmax_args = {.rows = n, .cols = n, .x = x, .y = z};
static tilefuse_matmul_args matmul_args = {.m = n, .n = n, .k = n, .a = x, .b = y, .c = z, .a_row_stride = n,
                                           .a_col_stride = 1, .b_row_stride = n, .b_col_stride = 1, .c_row_stride = n};
static tilefuse_conv2d_args conv2d_args = {
    .shape = {.n = 1, .h = n, .w = n, .c = 1, .f = 1, .kernel_h = 3, .kernel_w = 3, .stride_h = 1, .stride_w = 1,
              .dilation_h = 1, .dilation_w = 1, .groups = 1, .out_h = n - 2, .out_w = n - 2},
    .x = x, .w = y, .y = z};

static int call_add(void) { return tilefuse_add(&add_args, workspace, sizeof workspace); }
static int call_relu(void) { return tilefuse_activation(&relu_args, workspace, sizeof workspace); }
static int call_softmax(void) { return tilefuse_softmax(&softmax_args, workspace, sizeof workspace); }
static int call_matmul(void) { return tilefuse_matmul(&matmul_args, workspace, sizeof workspace); }
static int call_conv2d(void) { return tilefuse_conv2d(&conv2d_args, workspace, sizeof workspace); }

static int loop_add(void) {
    for (int i = 0; i < size; ++i) z[i] = x[i] + y[i];
    return 0;
}
static int loop_relu(void) {
    for (int i = 0; i < size; ++i) z[i] = x[i] > 0 ? x[i] : 0;
    return 0;
}
static int loop_softmax(void) {
    for (int i = 0; i < n; ++i) {
        float most = -INFINITY, sum = 0;
        for (int j = 0; j < n; ++j) most = fmaxf(most, x[i * n + j]);
        for (int j = 0; j < n; ++j) sum += z[i * n + j] = expf(x[i * n + j] - most);
        for (int j = 0; j < n; ++j) z[i * n + j] /= sum;
    }
    return 0;
}
static int loop_matmul(void) {
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) {
            float sum = 0;
            for (int p = 0; p < n; ++p) sum += x[i * n + p] * y[p * n + j];
            z[i * n + j] = sum;
        }
    return 0;
}
static int loop_conv2d(void) {
    for (int i = 0; i < n - 2; ++i)
        for (int j = 0; j < n - 2; ++j) {
            float sum = 0;
            for (int p = 0; p < 3; ++p)
                for (int q = 0; q < 3; ++q) sum += x[(i + p) * n + j + q] * y[p * 3 + q];
            z[i * (n - 2) + j] = sum;
        }
    return 0;
}

static double nanoseconds(int (*volatile call)(void)) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < calls; ++i)
        if (call() != 0) {
            fprintf(stderr, "%s\n", tilefuse_last_error());
            exit(1);
        }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) / calls;
}

static int ascending(const void* a, const void* b) {
    const double difference = *(const double*)a - *(const double*)b;
    return (difference > 0) - (difference < 0);
}

int main(void) {
    const struct {
        const char* name;
        int (*call)(void);
        int (*loop)(void);
    } pairs[] = {{"add", call_add, loop_add},
                 {"relu", call_relu, loop_relu},
                 {"softmax", call_softmax, loop_softmax},
                 {"matmul", call_matmul, loop_matmul},
                 {"conv2d", call_conv2d, loop_conv2d}};
    for (int i = 0; i < size; ++i) x[i] = (float)i / size, y[i] = 1 - x[i];
    for (size_t pair = 0; pair < sizeof pairs / sizeof *pairs; ++pair) {
        double own[rounds], peer[rounds];
        for (int round = 0; round < rounds; ++round) {
            own[round] = nanoseconds(pairs[pair].call);
            peer[round] = nanoseconds(pairs[pair].loop);
        }
        qsort(own, rounds, sizeof *own, ascending);
        qsort(peer, rounds, sizeof *peer, ascending);
        printf("%s %.1f %.1f\n", pairs[pair].name, own[rounds / 2], peer[rounds / 2]);
    }
    return 0;
}
