// Where the windows of a pooling lie, and what they leave.
#pragma once

#include "common/math.h"
#include "tilefuse/pool.h"

namespace tilefuse::inline TILEFUSE_ISA {

struct Span {
    int64_t begin, end;

    TILEFUSE_INLINE int64_t size() const { return end > begin ? end - begin : 0; }
};

// One axis: `out` windows of `kernel` elements, `stride` from one to the next; `pad` elements lie before x's own `size`.
struct PoolAxis {
    int64_t size, kernel, stride, pad, out;

    // Of a window's elements those inside of x.
    TILEFUSE_INLINE Span inside(int64_t window) const {
        const int64_t first = window * stride - pad;
        return {first < 0 ? -first : 0, size - first < kernel ? size - first : kernel};
    }

    // The windows that an element of x is in.
    TILEFUSE_INLINE Span over(int64_t element) const {
        const int64_t at = element + pad;
        return {at < kernel ? 0 : (at - kernel) / stride + 1, at / stride < out ? at / stride + 1 : out};
    }
    // The same from those of an earlier element, without divisions.
    TILEFUSE_INLINE void advance(Span& windows, int64_t element) const {
        const int64_t at = element + pad;
        while (windows.begin * stride + kernel <= at) ++windows.begin;
        while (windows.end < out && windows.end * stride <= at) ++windows.end;
    }
};

struct PoolWindows {
    PoolAxis rows, cols;
    bool count_padding;

    // What the mean of a window divides by.
    TILEFUSE_INLINE int64_t count(int64_t i, int64_t j) const {
        if (count_padding) return rows.kernel * cols.kernel;
        const int64_t inside = rows.inside(i).size() * cols.inside(j).size();
        return inside > 0 ? inside : 1;
    }
};

template <class Args> PoolWindows pool_windows(const Args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    return {{s.h, s.kernel_h, s.stride_h, s.pad_top, s.out_h}, {s.w, s.kernel_w, s.stride_w, s.pad_left, s.out_w}, args.count_padding != 0};
}

// body(uint8_t{}) or body(int32_t{}): the type of the places that maxima leave.
template <class Body> void with_places(const tilefuse_conv2d_shape& shape, Body&& body) {
    if (shape.kernel_h * shape.kernel_w <= TILEFUSE_POOL_OF_BYTES) {
        body(uint8_t{});
    } else {
        body(int32_t{});
    }
}

}  // namespace tilefuse::inline TILEFUSE_ISA
