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

// What is copied at a time, so that its lines are in L1 and the innermost loop has one source and one target. (Zen 3,
// 1152 x 128 x 225 with A transposed: 82 GFLOP/s when each column goes to all strips, 87 with 16 by 16.)
constexpr int64_t rows_packed = 16, strips_packed = 16;

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
            if (j < valid) {
                store(panel + j, load(row + j, static_cast<int>(valid - j)));
                j += lanes<T>;
            }
        }
        for (; j < valid; ++j) panel[j] = row[j * col_stride];
        for (; j < columns; ++j) panel[j] = 0;
    }
}

// The same for panels side by side, all of whose columns contiguous rows of B have: copies a few rows of B panel by panel,
// and asks for the next few to come. (Zen 3, GFLOP/s of 128 x 128 x 128: 81 when each row goes to all panels, 92 so.) The rows
// are k of the panels' `depth`, from `at` on.
template <class T>
void pack_panels(int64_t k, const Parts& panels, int64_t first, int64_t past, const T* b, int64_t row_stride, T* packed,
                 int64_t depth, int64_t at) {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t left = panels.begin(first) * lanes<T>, right = panels.begin(past) * lanes<T>;
    for (int64_t p = 0; p < k; p += rows_packed) {
        const int64_t end = std::min(k, p + rows_packed);
        for (int64_t q = p; q < end; ++q)
            for (int64_t j = left; j < right; j += line) __builtin_prefetch(b + (q + rows_packed) * row_stride + j);
        for (int64_t panel = first; panel < past; ++panel) {
            const int64_t begin = panels.begin(panel), width = (panels.begin(panel + 1) - begin) * lanes<T>;
            const T* from = b + begin * lanes<T> + p * row_stride;
            T* to = packed + begin * lanes<T> * depth + (at + p) * width;
            for (int64_t q = p; q < end; ++q, from += row_stride, to += width) {
                if (width == panel_columns<T>) {
#pragma GCC unroll 4
                    for (int64_t j = 0; j < panel_columns<T>; j += lanes<T>) store(to + j, load(from + j));
                } else {
                    for (int64_t j = 0; j < width; j += lanes<T>) store(to + j, load(from + j));
                }
            }
        }
    }
}

// strips[k, rows], one after the other = A transposed. They are written by vectors, or pieces of eight elements, of which the next
// one overwrites what is past `rows`: there must be room for one vector after the last strip. (Zen 3, contiguous columns of A,
// 784 x 128 with k = 32: 78 GFLOP/s with vectors, 60 element by element. Cascade Lake, 1024, 1536 and 2046 of each: 1.0, 3.5 and
// 4.6 ms with whole vectors, which mostly lie across two lines; 0.5, 1.4 and 3.1 with eight elements at a time and the next
// rows asked for.)
template <class T>
void pack_strips(int64_t k, const Parts& strips, const T* a, int64_t row_stride, int64_t col_stride, T* packed) {
    constexpr int64_t block = lanes<T>, piece = std::min<int64_t>(block, 8), line = 64 / static_cast<int64_t>(sizeof(T));
    int64_t begun = 0;  // columns of A that are packed
    if (row_stride == 1) {
        // As long as A's memory, and each strip, go on for a whole piece; by blocks whose lines stay in L1.
        while (begun < k && (k - 1 - begun) * std::min(col_stride, strips.smallest()) >= piece) ++begun;
        for (int64_t first = 0; first < strips.count; first += strips_packed) {
            const int64_t past = std::min(strips.count, first + strips_packed);
            for (int64_t p = 0; p < begun; p += rows_packed) {
                const int64_t end = std::min(begun, p + rows_packed);
                for (int64_t q = p + rows_packed; q < end + rows_packed; ++q)
                    for (int64_t i = strips.begin(first); i < strips.begin(past); i += line)
                        __builtin_prefetch(a + q * col_stride + i);
                for (int64_t strip = first; strip < past; ++strip) {
                    const int64_t begin = strips.begin(strip), rows = strips.begin(strip + 1) - begin;
                    for (int64_t i = (rows - 1) / piece * piece; i >= 0; i -= piece) {  // the first rows last: they overwrite
                        const T* from = a + p * col_stride + begin + i;
                        T* to = packed + begin * k + p * rows + i;
                        for (int64_t q = p; q < end; ++q, from += col_stride, to += rows) std::memcpy(to, from, sizeof(T) * piece);
                    }
                }
            }
        }
    } else if (col_stride == 1) {
        begun = k / block * block;
        for (int64_t strip = 0; strip < strips.count; ++strip) {
            const int64_t begin = strips.begin(strip), rows = strips.begin(strip + 1) - begin;
            for (int64_t p = 0; p < begun; p += block) {
                for (int64_t i = (rows - 1) / block * block; i >= 0; i -= block) {  // here too
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
