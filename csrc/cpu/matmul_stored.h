// Products of matrices whose numbers lie in memory as bfloat16: of copies in float32, and C's copy is rounded in the end.
// (A copy costs 6 bytes of traffic an element, which counts for little beside the product's many uses of it.)
#pragma once

#include "cpu/bfloat16.h"
#include "cpu/matmul_epilogue.h"
#include "cpu/team.h"

namespace tilefuse::inline TILEFUSE_ISA {

// The matrices of one operand, or of C: each of them once, however many products it is broadcast to.
class StoredMatrices {
public:
    StoredMatrices(const tilefuse_matmul_args& args, const void* data, int64_t rows, int64_t columns, int64_t row_stride,
                   int64_t col_stride, const int64_t* batch_strides)
        : data_(static_cast<const uint16_t*>(data)), axes_(args.batch_axes) {
        // Along the lines of the copy, elements lie close together in memory too.
        const bool by_columns = std::abs(row_stride) < std::abs(col_stride);
        length_ = by_columns ? rows : columns;
        stride_ = by_columns ? row_stride : col_stride;
        lines_ = lines_of_one_ = by_columns ? columns : rows;
        line_stride_ = by_columns ? col_stride : row_stride;
        this->row_stride = by_columns ? 1 : columns;
        this->col_stride = by_columns ? rows : 1;
        for (int axis = axes_ - 1; axis >= 0; --axis) {
            from_[axis] = batch_strides[axis];
            shape_[axis] = batch_strides[axis] == 0 ? 1 : args.batch_shape[axis];
            this->batch_strides[axis] = batch_strides[axis] == 0 ? 0 : lines_ * length_;
            lines_ *= shape_[axis];
        }
    }

    int64_t size() const { return lines_ * length_; }

    // copy = the matrices.
    void widen(const Team& team, float* copy) const {
        const Range mine = team.range(lines_);
        for (int64_t line = mine.begin; line < mine.end; ++line) {
            const uint16_t* from = data_ + offset(line);
            float* to = copy + line * length_;
            if (stride_ == 1) {
                for (int64_t i = 0; i < length_; ++i) to[i] = widened(from[i]);
            } else {
                for (int64_t i = 0; i < length_; ++i) to[i] = widened(from[i * stride_]);
            }
        }
    }

    // The matrices = their copy, rounded.
    void narrow(const Team& team, const float* copy) const {
        const Range mine = team.range(lines_);
        for (int64_t line = mine.begin; line < mine.end; ++line) {
            uint16_t* to = const_cast<uint16_t*>(data_) + offset(line);
            const float* from = copy + line * length_;
            for (int64_t i = 0; i < length_; ++i) to[i * stride_] = narrowed(from[i]);
        }
    }

    // Of the copy.
    int64_t row_stride, col_stride, batch_strides[TILEFUSE_MAX_BATCH_AXES];

private:
    int64_t offset(int64_t line) const {
        int64_t at = line % lines_of_one_ * line_stride_, matrix = line / lines_of_one_;
        for (int axis = axes_ - 1; axis >= 0; --axis) {
            at += matrix % shape_[axis] * from_[axis];
            matrix /= shape_[axis];
        }
        return at;
    }

    const uint16_t* const data_;
    const int axes_;
    int64_t length_, stride_, lines_, lines_of_one_, line_stride_;
    int64_t shape_[TILEFUSE_MAX_BATCH_AXES], from_[TILEFUSE_MAX_BATCH_AXES];
};

// The product of the copies, which begin at `memory`.
class StoredProduct {
public:
    explicit StoredProduct(const tilefuse_matmul_args& args)
        : whole(args), narrow_(args.result != TILEFUSE_STORED_WHOLE), reads_c_(args.beta != 0),
          a_(args, args.a, args.m, args.k, args.a_row_stride, args.a_col_stride, args.a_batch_strides),
          b_(args, args.b, args.k, args.n, args.b_row_stride, args.b_col_stride, args.b_batch_strides),
          c_(args, args.c, args.m, args.n, args.c_row_stride, 1, args.c_batch_strides) {
        whole.operands = whole.result = TILEFUSE_STORED_WHOLE;
        whole.precision = TILEFUSE_PRECISION_IEEE;  // they need no rounding
        whole.split = TILEFUSE_SPLIT_AUTO;
        whole.a_row_stride = a_.row_stride;
        whole.a_col_stride = a_.col_stride;
        whole.b_row_stride = b_.row_stride;
        whole.b_col_stride = b_.col_stride;
        std::copy_n(a_.batch_strides, args.batch_axes, whole.a_batch_strides);
        std::copy_n(b_.batch_strides, args.batch_axes, whole.b_batch_strides);
        if (!narrow_) return;
        whole.c_row_stride = args.n;
        std::copy_n(c_.batch_strides, args.batch_axes, whole.c_batch_strides);
    }

    int64_t size() const { return a_.size() + b_.size() + (narrow_ ? c_.size() : 0); }

    template <class Multiply> void operator()(Team& team, float* memory, const Multiply& multiply) {
        float *const b = memory + a_.size(), *const c = b + b_.size();
        a_.widen(team, memory);
        b_.widen(team, b);
        whole.a = memory;
        whole.b = b;
        if (narrow_) {
            whole.c = c;
            if (reads_c_) c_.widen(team, c);
        }
        team.barrier();
        multiply(whole);
        if (!narrow_) return;
        team.barrier();
        c_.narrow(team, c);
    }

    tilefuse_matmul_args whole;

private:
    const bool narrow_, reads_c_;
    const StoredMatrices a_, b_, c_;
};

}  // namespace tilefuse::inline TILEFUSE_ISA
