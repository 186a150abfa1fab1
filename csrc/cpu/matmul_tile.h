// The inner kernel of products: a tile of C, a few rows of A times a few columns of B, accumulated in registers.
#pragma once

#include <utility>

#include "cpu/bfloat16.h"

namespace tilefuse::inline TILEFUSE_ISA {

// A tile is at most max_rows(nv) rows by nv vectors, nv <= max_vectors: its accumulators, a row of B and one broadcast
// element of A fit in the 16 (or 32) vector registers, and there are enough of them (8) to keep two FMA units busy.
constexpr bool wide = TILEFUSE_VECTOR_BYTES == 64;
constexpr int max_vectors = wide ? 4 : 2;
constexpr int max_rows(int nv) {
    if (wide) return nv <= 2 ? 12 : nv == 3 ? 8 : 6;
    return nv == 1 ? 12 : 6;
}
constexpr int most_rows = 12;

template <class T> constexpr int64_t panel_columns = max_vectors * lanes<T>;

// Memory that is read next: rows, `stride` bytes apart, whose lines come into L2 while tiles add up their sums, a few in each of
// so many turns of their loops.
class Ahead {
public:
    Ahead() = default;
    Ahead(const void* rows, int64_t count, int64_t bytes, int64_t stride, int64_t turns)
        : row_(static_cast<const char*>(rows)), bytes_(bytes), stride_(stride), rows_(count),
          pieces_((count * ((bytes + piece - 1) / piece) + turns - 1) / turns) {}

    [[gnu::always_inline]] void ask() {
        for (int64_t i = 0; i < pieces_; ++i) {
            const char* at = row_ + at_;
#pragma GCC unroll 4
            for (int64_t j = 0; j < piece; j += line) __builtin_prefetch(at + j, 0, 2);
            at_ += piece;
            if (at_ >= bytes_) {
                if (--rows_ == 0) {
                    pieces_ = 0;
                    return;
                }
                at_ = 0;
                row_ += stride_;
            }
        }
    }
    bool left() const { return pieces_ > 0; }

private:
    static constexpr int64_t line = 64, piece = 4 * line;
    const char* row_ = nullptr;
    int64_t at_ = 0, bytes_ = 0, stride_ = 0, rows_ = 0, pieces_ = 0;
};

// E: a number, or a pair of them along k.
template <class E> struct TileArgs {
    int64_t k;  // elements
    const E* a;
    int64_t a_stride;
    const E* b;
    int64_t b_stride;
    Sum<E>* c;
    int64_t c_stride;
    bool accumulate;  // add to C, or overwrite it
    int tail;         // lanes of the last vector that C has
    Ahead* ahead = nullptr;
};

// How a tile finds its rows of A: packed as a strip[k, rows], and B as a panel[k, columns]; or as they lie, A's rows
// contiguous and a_stride apart, or its columns (then a_stride is from k to k + 1), and B's rows b_stride apart.
enum class From { strip, rows, columns };

// `Count` lines of memory that are Stride apart, or `stride` where Stride is 0. Every third one has a pointer, from which
// the next two are reached as base + index and base + 2 index. (GCC's own choice is a pointer for each line, in memory.)
template <class E, int Count, int Stride = 0> class Lines {
public:
    Lines(const E* first, int64_t stride) : stride_(stride) {
#pragma GCC unroll 4
        for (int i = 0; i < pointers; ++i) base_[i] = first + 3 * i * stride;
    }
    const E* operator[](int line) const {
        return Stride ? base_[0] + line * Stride : base_[line / 3] + line % 3 * stride_;
    }
    void advance(int64_t elements) {
#pragma GCC unroll 4
        for (int i = 0; i < pointers; ++i) base_[i] += elements;
    }
    // From here on the compiler knows nothing of the pointers and the stride but that they are in registers.
    void keep_in_registers() {
#pragma GCC unroll 4
        for (int i = 0; i < pointers; ++i) asm volatile("" : "+r"(base_[i]));
        asm volatile("" : "+r"(stride_));
    }
    void advance_lines(int lines) { advance(lines * (Stride ? Stride : stride_)); }

private:
    static constexpr int pointers = Stride ? 1 : (Count + 2) / 3;
    const E* base_[pointers];
    int64_t stride_;
};

// Four steps of k in one turn of the loop: on Zen 3, 6 x 16 floats from strips, 90 GFLOP/s instead of 76 while another
// machine uses the core's other half (102 and 101 alone); from rows 82 instead of 70. Eight are slower: 76.
constexpr int steps_of_turn = 4;

// Writes a tile's sums to C, or adds them: row i begins at c + row_at(i), and its last vector has `tail` lanes.
template <class T, int Rows, int Vectors, class RowAt>
[[gnu::always_inline]] inline void write_tile(Vec<T> (&sums)[Rows][Vectors], T* first, const RowAt& row_at, bool accumulate, int tail) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
        T* c = first + row_at(i);
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v, c += lanes<T>) {
            const bool whole = v + 1 < Vectors || tail == lanes<T>;
            if (accumulate) sums[i][v] += whole ? load(c) : load(c, tail);
            if (whole) {
                store(c, sums[i][v]);
            } else {
                store(c, sums[i][v], tail);
            }
        }
    }
}

// Any element of A: pairs may begin at any number.
template <class E> [[gnu::always_inline]] inline E element_at(const E* p) {
    E x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

template <class E, From from, int Rows, int Vectors> void tile(const TileArgs<E>& t) {
    using T = Sum<E>;
    Vec<T> sums[Rows][Vectors];
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) sums[i][v] = Vec<T>{};
    constexpr bool packed = from == From::strip;
    Lines<E, from == From::rows ? Rows : steps_of_turn, packed ? Rows : 0> a(t.a, t.a_stride);
    Lines<E, steps_of_turn, packed ? Vectors * lanes<T> : 0> b(t.b, t.b_stride);
    const auto advance = [&](int steps) __attribute__((always_inline)) {
        if (from == From::rows) {
            a.advance(steps);
        } else {
            a.advance_lines(steps);
        }
        b.advance_lines(steps);
    };
    const auto step = [&](int u) __attribute__((always_inline)) {
        Vec<E> row[Vectors];
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) row[v] = load(b[u] + v * lanes<T>);
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
            const Vec<E> x = splat(element_at(from == From::rows ? a[i] + u : a[u] + i));
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) sums[i][v] = add_products<E>(x, row[v], sums[i][v]);
        }
    };
    // Asks for C while the sums are added up. (Zen 3, n = 1024 and 2048: 67 and 62 GFLOP/s without, 75 and 76 with it.) Short sums
    // are there before it comes. (Cascade Lake, 21632 x 32 with k = 9 and 27: 48 and 80 with, 58 and 86 without; with k = 64 103
    // and 99.) Long ones ask row by row, so that B's lines need not queue behind all of C's. (1536 cubed, 2545 x 2834 with
    // k = 437: 121 and 115 with all at once, 124 and 119 so; but 256 cubed 128 and 125, 784 x 128 with k = 32 112 and 96.)
    constexpr int64_t shortest = 32, longer = 272, line = 64 / static_cast<int64_t>(sizeof(T)), columns = Vectors * lanes<T>;
    const bool row_by_row = wide && t.k >= longer;  // with 16 registers GCC has none left for the outer loop
    if (t.k >= shortest && !row_by_row) {
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
            __builtin_prefetch(t.c + i * t.c_stride, 1);
            __builtin_prefetch(t.c + i * t.c_stride + columns - 1, 1);
        }
    }
    int row = row_by_row ? 0 : Rows;
    int64_t p = 0;
    do {
        if (wide && row < Rows) {
            const T* c = t.c + row++ * t.c_stride;
#pragma GCC unroll 4
            for (int64_t j = 0; j < columns; j += line) __builtin_prefetch(c + j, 1);
            __builtin_prefetch(c + columns - 1, 1);
        }
        for (const int64_t end = wide && row < Rows ? t.k / (Rows + 1) * row : t.k; p + steps_of_turn <= end; p += steps_of_turn) {
            a.keep_in_registers();
            b.keep_in_registers();
#pragma GCC unroll 4
            for (int u = 0; u < steps_of_turn; ++u) step(u);
            advance(steps_of_turn);
            if (t.ahead) t.ahead->ask();
        }
    } while (wide && p + steps_of_turn <= t.k);
    for (; p < t.k; ++p) {
        step(0);
        advance(1);
    }
    write_tile<T, Rows, Vectors>(sums, t.c, [&](int i) { return i * t.c_stride; }, t.accumulate, t.tail);
}

template <class E> using TileFunction = void (*)(const TileArgs<E>&);

template <class E, From from, int Vectors, int... Row>
constexpr void list_tiles(TileFunction<E> (&list)[most_rows], std::integer_sequence<int, Row...>) {
    ((list[Row] = tile<E, from, Row + 1, Vectors>), ...);
}

template <class E> struct Tiles {
    TileFunction<E> of[3][max_vectors][most_rows] = {};  // [from][vectors - 1][rows - 1]

    constexpr Tiles() { add(std::make_integer_sequence<int, max_vectors>()); }

    static const Tiles all;  // matmul_tile.cpp: compiled once

private:
    template <int... V> constexpr void add(std::integer_sequence<int, V...>) {
        (list_tiles<E, From::strip, V + 1>(of[0][V], std::make_integer_sequence<int, max_rows(V + 1)>()), ...);
        (list_tiles<E, From::rows, V + 1>(of[1][V], std::make_integer_sequence<int, max_rows(V + 1)>()), ...);
        (list_tiles<E, From::columns, V + 1>(of[2][V], std::make_integer_sequence<int, max_rows(V + 1)>()), ...);
    }
};

}  // namespace tilefuse::inline TILEFUSE_ISA
