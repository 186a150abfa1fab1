// What a product does around its sums: which products a batch has, and what happens to each sum before it is C's.
#pragma once

#include "common/activation.h"
#include "cpu/bytes.h"
#include "cpu/optimizer.h"
#include "cpu/simd.h"
#include "cpu/team.h"
#include "tilefuse/matmul.h"

namespace tilefuse::inline TILEFUSE_ISA {

inline int64_t products_of(const tilefuse_matmul_args& args) {
    int64_t products = 1;
    for (int axis = 0; axis < args.batch_axes; ++axis) products *= args.batch_shape[axis];
    return products;
}

// Whether C lies in 16 bits.
inline bool in_16_bits(const tilefuse_matmul_args& args) { return args.result != TILEFUSE_STORED_WHOLE; }

// body(offset of A, of B, of C) for each of the products in `mine`.
template <class Body> void for_products(const tilefuse_matmul_args& args, Range mine, const Body& body) {
    for (int64_t index = mine.begin; index < mine.end; ++index) {
        int64_t a = 0, b = 0, c = 0, rest = index;
        for (int axis = args.batch_axes - 1; axis >= 0; --axis) {
            const int64_t i = rest % args.batch_shape[axis];
            rest /= args.batch_shape[axis];
            a += i * args.a_batch_strides[axis];
            b += i * args.b_batch_strides[axis];
            c += i * args.c_batch_strides[axis];
        }
        body(a, b, c);
    }
}

// Applies the epilogue to the rectangle of `rows` x `columns` sums at `c`, whose corner is (row, column) of C.
template <class T> class Epilogue {
public:
    explicit Epilogue(const tilefuse_matmul_args& args) : Epilogue(args.epilogue, args.n, args.c_row_stride) {}

    // Of C with n columns, its rows c_stride apart.
    Epilogue(const tilefuse_epilogue& epilogue, int64_t n, int64_t c_stride)
        : e_(epilogue), n_(n), c_stride_(c_stride),
          forward_(e_.scale || e_.bias || e_.addend || e_.preactivation || e_.activation != TILEFUSE_LINEAR),
          backward_(e_.mask || e_.derivative_at),
          update_(e_.rule ? *e_.rule : tilefuse_optimizer_rule{}, e_.parameter) {}

    // `offset`: where this product's C begins in the arrays that are strided like C.
    void operator()(T* c, int64_t stride, int64_t offset, int64_t row, int64_t column, int64_t rows, int64_t columns) const {
        for (int64_t i = 0; i < rows && (forward_ || backward_); ++i) {
            const int64_t at = offset + (row + i) * c_stride_ + column;
            if (forward_) forward(c + i * stride, at, column, columns);
            if (backward_) backward(c + i * stride, at, (row + i) * n_ + column, columns);
        }
        if (e_.rule) update_.block(row * n_ + column, n_, c, stride, rows, columns);
    }

    // Asks for what an update needs while its gradient is computed. (Zen 3, two threads, best of 100 blocks in three
    // interleaved runs: 784-64-64-1 with batch 128 took 275 to 300 us a step without, 243 to 260 with this.)
    void prefetch(int64_t row, int64_t column, int64_t rows, int64_t columns) const {
        constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
        const auto ask = [&](const void* base) {
            const T* first = static_cast<const T*>(base) + row * n_ + column;
            for (int64_t i = 0; i < rows; ++i, first += n_)
                for (int64_t j = 0; j < columns; j += line) __builtin_prefetch(first + j);
        };
        ask(e_.parameter.w);
        for (const void* slot : e_.parameter.slots)
            if (slot) ask(slot);
    }

private:
    void forward(T* c, int64_t at, int64_t column, int64_t columns) const {
        const T* scale = e_.scale ? static_cast<const T*>(e_.scale) + column : nullptr;
        const T* bias = e_.bias ? static_cast<const T*>(e_.bias) + column : nullptr;
        const T* addend = e_.addend ? static_cast<const T*>(e_.addend) + at : nullptr;
        T* pre = e_.preactivation ? static_cast<T*>(e_.preactivation) + at : nullptr;
        with_activation<T>(e_.activation, e_.activation_alpha, [&](auto f) {
            for_vectors<T>(columns, [&](int64_t j, int n) {
                Vec<T> x = load_upto(c + j, n);
                if (scale) x *= load_upto(scale + j, n);
                if (bias) x += load_upto(bias + j, n);
                if (addend) x += load_upto(addend + j, n);
                if (pre) store_upto(pre + j, x, n);
                store_upto(c + j, f.forward(x), n);
            });
        });
    }

    void backward(T* c, int64_t at, int64_t mask_at, int64_t columns) const {
        const uint8_t* mask = e_.mask ? e_.mask + mask_at : nullptr;
        const T* y = e_.derivative_at ? static_cast<const T*>(e_.derivative_at) + at : nullptr;
        const T scale = static_cast<T>(e_.mask_scale);
        with_activation<T>(e_.derivative, e_.derivative_alpha, [&](auto f) {
            for_vectors<T>(columns, [&](int64_t j, int n) {
                Vec<T> x = load_upto(c + j, n);
                if (mask) x = load_bytes<T>(mask + j, n) != 0 ? x * scale : Vec<T>{};
                if (y) x *= f.derivative(load_upto(y + j, n));
                store_upto(c + j, x, n);
            });
        });
    }

    const tilefuse_epilogue& e_;
    const int64_t n_, c_stride_;
    const bool forward_, backward_;
    const Update<T> update_;
};

}  // namespace tilefuse::inline TILEFUSE_ISA
