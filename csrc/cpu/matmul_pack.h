// Copies of B as panels and of A as strips, in the order in which tiles read them; on their way, numbers become what tiles
// multiply: they are widened or rounded, and paired along k.
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

// ---- elements -------------------------------------------------------------------------------------------------------

// What lies in memory (S): float, double, uint16_t, which are the bits of a bfloat16, or a float32 that has to be rounded to one.
struct Unrounded {
    float x;
};

// Numbers of k in an element, and elements of so many numbers; an odd one is paired with 0.
template <class E> constexpr int64_t numbers_of = is_pair<E> ? 2 : 1;
template <class E> constexpr int64_t elements_of(int64_t numbers) { return (numbers + numbers_of<E> - 1) / numbers_of<E>; }

inline HalfWords load_halves(const Unrounded* p, int n) { return halves_of(load_upto(&p->x, n)); }
inline Vec<float> load_widened(const uint16_t* p, int n) {
    return (Vec<float>)(words_of(load_halves(p, n)) << 16);
}
inline Vec<float> load_widened(const Unrounded* p, int n) { return (Vec<float>)rounded(load_upto(&p->x, n)); }
inline uint16_t half(uint16_t x) { return x; }
inline uint16_t half(Unrounded number) { return narrowed(number.x); }

// n elements whose numbers lie side by side, and the second ones of pairs in the `next` line of k, where there is one.
template <class E, class S> [[gnu::always_inline]] inline Vec<E> across(const S* line, int n, [[maybe_unused]] const S* next = nullptr) {
    if constexpr (std::is_same_v<E, S>) {
        return load_upto(line, n);
    } else if constexpr (is_pair<E>) {
        return paired(load_halves(line, n), next ? load_halves(next, n) : HalfWords{});
    } else {
        return load_widened(line, n);
    }
}

// One element; `left`: so many numbers of k are there from here on.
template <class E, class S> inline E element(const S* at, [[maybe_unused]] int64_t k_stride, [[maybe_unused]] int64_t left) {
    if constexpr (std::is_same_v<E, S>) {
        return *at;
    } else if constexpr (is_pair<E>) {
        return half(at[0]) | (left > 1 ? static_cast<Pair>(half(at[k_stride])) << 16 : 0);
    } else {
        return widened(half(*at));
    }
}

// to = the elements of k numbers that lie one after the other along k.
template <class E, class S> void copy_along(int64_t k, const S* line, E* to) {
    if constexpr (!is_pair<E>) {
        for_vectors<E>(k, [&](int64_t p, int n) { store_upto(to + p, across<E>(line + p, n), n); });
    } else {
        if constexpr (std::is_same_v<S, uint16_t>) {
            const Pair* const pairs = reinterpret_cast<const Pair*>(line);
            for_vectors<Pair>(k / 2, [&](int64_t p, int n) { store_upto(to + p, load_upto(pairs + p, n), n); });
        } else {
            pair_neighbours(k / 2, &line->x, to);
        }
        if (k % 2 != 0) to[k / 2] = half(line[k - 1]);
    }
}

// ---- panels ---------------------------------------------------------------------------------------------------------

// What is copied at a time, so that its lines are in L1 and the innermost loop has one source and one target. (Zen 3,
// 1152 x 128 x 225 with A transposed: 82 GFLOP/s when each column goes to all strips, 87 with 16 by 16.)
constexpr int64_t rows_packed = 16, strips_packed = 16;

// panel[elements of k, columns] = B, where `columns` is whole vectors and those past `valid` are zero.
template <class E, class S>
void pack_panel(int64_t k, int64_t valid, int64_t columns, const S* b, int64_t row_stride, int64_t col_stride, E* panel) {
    const int64_t depth = elements_of<E>(k);
    if (row_stride == 1 && col_stride != 1) {
        if constexpr (std::is_same_v<E, S>) {
            transpose(valid, depth, b, col_stride, panel, columns);
        } else {
            constexpr int64_t length = 64;
            E lines[lanes<E> * length];
            for (int64_t j = 0; j < valid; j += lanes<E>) {
                const int64_t count = std::min<int64_t>(lanes<E>, valid - j);
                for (int64_t p = 0; p < depth; p += length) {
                    const int64_t elements = std::min(length, depth - p), first = p * numbers_of<E>;
                    for (int64_t i = 0; i < count; ++i)
                        copy_along(std::min(k - first, length * numbers_of<E>), b + (j + i) * col_stride + first, lines + i * length);
                    transpose(count, elements, lines, length, panel + p * columns + j, columns);
                }
            }
        }
        for (int64_t p = 0; p < depth && valid < columns; ++p)
            for (int64_t j = valid; j < columns; ++j) panel[p * columns + j] = 0;
        return;
    }
    for (int64_t p = 0; p < k; p += numbers_of<E>, panel += columns) {
        const S *row = b + p * row_stride, *next = p + 1 < k ? row + row_stride : nullptr;
        int64_t j = 0;
        if (col_stride == 1) {
            for (; j + lanes<E> <= valid; j += lanes<E>) store(panel + j, across<E>(row + j, lanes<E>, next ? next + j : next));
            if (j < valid) {
                store(panel + j, across<E>(row + j, static_cast<int>(valid - j), next ? next + j : next));
                j += lanes<E>;
            }
        }
        for (; j < valid; ++j) panel[j] = element<E>(row + j * col_stride, row_stride, k - p);
        for (; j < columns; ++j) panel[j] = 0;
    }
}

// The same for panels side by side, all of whose columns contiguous rows of B have: copies a few rows of B panel by panel,
// and asks for the next few to come. (Zen 3, GFLOP/s of 128 x 128 x 128: 81 when each row goes to all panels, 92 so.) The
// elements are those of the panels' `depth` from `at` on.
template <class E, class S>
void pack_panels(int64_t k, const Parts& panels, int64_t first, int64_t past, const S* b, int64_t row_stride, E* packed,
                 int64_t depth, int64_t at) {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(S)), step = numbers_of<E>;
    const int64_t left = panels.begin(first) * lanes<E>, right = panels.begin(past) * lanes<E>;
    for (int64_t p = 0; p < k; p += step * rows_packed) {
        const int64_t end = std::min(k, p + step * rows_packed);
        for (int64_t q = p; q < end; ++q)
            for (int64_t j = left; j < right; j += line) __builtin_prefetch(b + (q + step * rows_packed) * row_stride + j);
        for (int64_t panel = first; panel < past; ++panel) {
            const int64_t begin = panels.begin(panel), width = (panels.begin(panel + 1) - begin) * lanes<E>;
            const S* from = b + begin * lanes<E> + p * row_stride;
            E* to = packed + begin * lanes<E> * depth + (at + p / step) * width;
            for (int64_t q = p; q < end; q += step, from += step * row_stride, to += width) {
                const S* next = q + 1 < k ? from + row_stride : nullptr;
                if (width == panel_columns<E> && (next || step == 1)) {
#pragma GCC unroll 4
                    for (int64_t j = 0; j < panel_columns<E>; j += lanes<E>)
                        store(to + j, across<E>(from + j, lanes<E>, step == 1 ? nullptr : next + j));
                } else {
                    for (int64_t j = 0; j < width; j += lanes<E>)
                        store(to + j, across<E>(from + j, lanes<E>, next ? next + j : next));
                }
            }
        }
    }
}

// ---- strips ---------------------------------------------------------------------------------------------------------

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

// The same for numbers that become others on the way: a few rows of elements at a time, which are then cut into strips, since a
// strip alone would leave most lanes of a vector idle; the next few rows are asked for. (Zen 4, bfloat16 with A transposed,
// 576 x 64 with k = 288, 784 x 128 with 32 and 288 x 64 with 5184: 141, 135 and 144 GFLOP/s strip by strip, 159, 155 and 160 so,
// 173 of the last with the next rows asked for.)
template <class E, class S>
void convert_strips(int64_t k, const Parts& strips, const S* a, int64_t row_stride, int64_t col_stride, E* packed) {
    constexpr int64_t step = numbers_of<E>, most_columns = 256, piece = std::min<int64_t>(lanes<E>, 8);
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(S));
    const int64_t depth = elements_of<E>(k), together = std::max<int64_t>(1, most_columns / std::max<int64_t>(1, strips.largest()));
    alignas(64) E block[rows_packed][most_columns + lanes<E>];
    for (int64_t first = 0; first < strips.count; first += together) {
        const int64_t past = std::min(strips.count, first + together), left = strips.begin(first), width = strips.begin(past) - left;
        for (int64_t p = 0; p < depth; p += rows_packed) {
            const int64_t end = std::min(depth, p + rows_packed);
            for (int64_t q = p; q < end; ++q) {
                const S* const column = a + left * row_stride + step * q * col_stride;
                const S* const next = step * q + 1 < k ? column + col_stride : nullptr;
                if (row_stride == 1) {
                    for (int64_t n = 0; n < step; ++n)
                        for (int64_t i = 0; i < width; i += line) __builtin_prefetch(column + (step * rows_packed + n) * col_stride + i);
                    for_vectors<E>(width, [&](int64_t i, int n) { store(block[q - p] + i, across<E>(column + i, n, next ? next + i : next)); });
                } else {
                    for (int64_t i = 0; i < width; ++i) block[q - p][i] = element<E>(column + i * row_stride, col_stride, k - step * q);
                }
            }
            for (int64_t strip = first; strip < past; ++strip) {
                const int64_t begin = strips.begin(strip), rows = strips.begin(strip + 1) - begin;
                for (int64_t q = p; q < end; ++q) {
                    const E* const from = block[q - p] + begin - left;
                    E* const to = packed + begin * depth + q * rows;
                    const int64_t room = (depth - q) * rows;  // a piece's other elements are overwritten later, where there is room
                    for (int64_t i = 0; i < rows; i += piece) {
                        if (room - i >= piece) {
                            std::memcpy(to + i, from + i, sizeof(E) * piece);
                        } else {
                            std::copy_n(from + i, std::min(piece, rows - i), to + i);
                        }
                    }
                }
            }
        }
    }
}

}  // namespace tilefuse::inline TILEFUSE_ISA
