// Copies of B as panels and of A as strips, in the order in which tiles read them.
#pragma once

#include <algorithm>

#include "cpu/matmul_tile.h"
#include "cpu/transpose.h"

namespace tilefuse::inline TILEFUSE_ISA {

// [0, n) in `count` parts of nearly equal size, with no division once it is made.
class Parts {
public:
    Parts() = default;
    Parts(int64_t n, int64_t most) : count((n + most - 1) / most), size_(count ? n / count : 0), larger_(count ? n % count : 0) {}

    int64_t begin(int64_t part) const { return part * size_ + std::min(part, larger_); }
    int64_t largest() const { return size_ + (larger_ > 0); }
    int64_t smallest() const { return size_; }

    int64_t count = 0;

private:
    int64_t size_ = 0, larger_ = 0;
};

// panel[k, columns] = B, where `columns` is whole vectors and those past `valid` are zero.
template <class T>
void pack_panel(int64_t k, int64_t valid, int64_t columns, const T* b, int64_t row_stride, int64_t col_stride, T* panel) {
    if (row_stride == 1 && col_stride != 1) {
        transpose(valid, k, b, col_stride, panel, columns);
        for (int64_t p = 0; p < k && valid < columns; ++p)
            for (int64_t j = valid; j < columns; ++j) panel[p * columns + j] = 0;
        return;
    }
    for (int64_t p = 0; p < k; ++p, panel += columns) {
        const T* row = b + p * row_stride;
        int64_t j = 0;
        if (col_stride == 1) {
            for (; j + lanes<T> <= valid; j += lanes<T>) store(panel + j, load(row + j));
        }
        for (; j < valid; ++j) panel[j] = row[j * col_stride];
        for (; j < columns; ++j) panel[j] = 0;
    }
}

// The same for panels side by side, `panels` of `width`, all of whose columns contiguous rows of B have: copies longer
// pieces of its rows, and asks for those to come. (Zen 3, 512 x 512 from L3: 0.24 ns an element, panel by panel 0.36.)
template <class T>
void pack_panels(int64_t k, const Parts& panels, int64_t first, int64_t past, const T* b, int64_t row_stride, T* packed) {
    constexpr int64_t ahead = 8, line = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t left = panels.begin(first) * lanes<T>, right = panels.begin(past) * lanes<T>;
    for (int64_t p = 0; p < k; ++p, b += row_stride) {
        for (int64_t j = left; j < right; j += line) __builtin_prefetch(b + ahead * row_stride + j);
        for (int64_t panel = first; panel < past; ++panel) {
            const int64_t begin = panels.begin(panel), width = (panels.begin(panel + 1) - begin) * lanes<T>;
            const T* from = b + begin * lanes<T>;
            T* to = packed + begin * lanes<T> * k + p * width;
            if (width == panel_columns<T>) {
#pragma GCC unroll 4
                for (int64_t j = 0; j < panel_columns<T>; j += lanes<T>) store(to + j, load(from + j));
            } else {
                for (int64_t j = 0; j < width; j += lanes<T>) store(to + j, load(from + j));
            }
        }
    }
}

// strips[k, rows], one after the other = A transposed. They are written by whole vectors, of which the next one
// overwrites what is past `rows`: there must be room for one vector after the last strip. (Zen 3, contiguous columns of A,
// 784 x 128 with k = 32: 78 GFLOP/s with vectors, 60 element by element.)
template <class T>
void pack_strips(int64_t k, const Parts& strips, const T* a, int64_t row_stride, int64_t col_stride, T* packed) {
    constexpr int64_t block = lanes<T>;
    int64_t begun = 0;  // columns of A that are packed
    if (row_stride == 1) {
        // As long as A's memory, and each strip, go on for a whole vector.
        for (; (k - 1 - begun) * std::min(col_stride, strips.smallest()) >= block; ++begun) {
            const T* column = a + begun * col_stride;
            for (int64_t strip = 0; strip < strips.count; ++strip) {
                const int64_t begin = strips.begin(strip), rows = strips.begin(strip + 1) - begin;
                T* to = packed + begin * k + begun * rows;
                for (int64_t i = 0; i < rows; i += block) store(to + i, load(column + begin + i));
            }
        }
    } else if (col_stride == 1) {
        begun = k / block * block;
        for (int64_t strip = 0; strip < strips.count; ++strip) {
            const int64_t begin = strips.begin(strip), rows = strips.begin(strip + 1) - begin;
            for (int64_t p = 0; p < begun; p += block) {
                for (int64_t i = (rows - 1) / block * block; i >= 0; i -= block) {  // the first rows last: they overwrite
                    const T* from = a + (begin + i) * row_stride + p;
                    Vec<T> square[block];
#pragma GCC unroll 16
                    for (int64_t r = 0; r < block; ++r) {
                        square[r] = i + r < rows ? load(from + r * row_stride) : Vec<T>{};
                        __builtin_prefetch(from + (rows + r) * row_stride);  // the next strip's
                    }
                    transpose_block<T>(square);
#pragma GCC unroll 16
                    for (int64_t r = 0; r < block; ++r) store(packed + begin * k + (p + r) * rows + i, square[r]);
                }
            }
        }
    }
    for (int64_t strip = 0; strip < strips.count; ++strip) {
        const int64_t begin = strips.begin(strip), rows = strips.begin(strip + 1) - begin;
        for (int64_t p = begun; p < k; ++p)
            for (int64_t i = 0; i < rows; ++i)
                packed[begin * k + p * rows + i] = a[(begin + i) * row_stride + p * col_stride];
    }
}

}  // namespace tilefuse::inline TILEFUSE_ISA
