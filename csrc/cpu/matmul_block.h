// The blocking of products: C's rectangle of one member, from packed blocks of B and strips of A, tile by tile.
//
// It walks over blocks of B's columns that fit in L2 (copied to panels where that pays, or where numbers become others:
// matmul_pack.h), and for each over strips of a few rows of A; a tile of C, strip x panel, is accumulated in registers
// (matmul_tile.h).
#pragma once

#include "cpu/matmul_epilogue.h"
#include "cpu/matmul_pack.h"

namespace tilefuse::inline TILEFUSE_ISA {

// ---- sizes ----------------------------------------------------------------------------------------------------------

// Blocks, in bytes: a panel of B, k_block deep, stays in L1 while strips of A pass it; rows of A, k_block deep, stay in
// L2 while panels pass them; a packed block of B stays in L2 or L3. Panels for vectors of 64 bytes are too large for L1:
// there a strip of A stays in L1 while a group of panels in L2 passes it. (Cascade Lake, 1024 and 2048 cubed: 103 and 106
// GFLOP/s with the sizes of the others, 116 and 120 so. Packed strips, 784 x 512 and 512 x 784 with k = 128: 106 and 108
// with a panel in L1, 112 and 113 so.) A quarter of the time goes into waiting for A and C: so products are deep and groups
// large, four panels. (1024, 1536 and 2048 cubed, in a slower hour: 107, 99 and 102 GFLOP/s with a k of 384 and 288 KB,
// 112, 113 and 112 so; as fast with 650 KB.) A group is also what is packed of B at a time. Where few rows pass it, packing
// is what matters, and the group, two panels, no larger than leaves L2 room for B as it lay (128 x 784 with k = 512: 92
// GFLOP/s with 768 KB, 106 with 384, 110 with 288). But strips of A that have to be packed are so but once (1024 and 1536
// with A transposed: 93 to 102 and 93 with a group of B, 113 and 110 with 2 MB, 113 and 117 with 4 MB).
constexpr int64_t k_block = wide ? 512 : 256;
constexpr int64_t k_block_of_sums = 256;  // where members take blocks: an even number of them for 784 inputs
// Where columns of A are read as they lie, a panel has to come from L1 for all of vectors of 64 bytes. (Cascade Lake, A
// transposed, 256 x 64 with k = 25088, 96 x 256 and 200 x 200 with k = 6272: 58, 72 and 82 GFLOP/s with 384, 90, 86 and 101
// with 96; 90 of the first with 160.)
constexpr int64_t k_block_of_columns = wide ? 96 : k_block;
// So few rows wait for B. While they pass a block of it, the next one comes into L2 (`Ahead`): it has to fit there, beside the
// current one. Rows of B that are far apart share a few sets of L2: a block has as many of them as lie in half of L2, or 32.
// (Zen 4, GFLOP/s with neither, with the next block asked for, and with its rows limited too: 6272 x 512 for 8, 16 and 32 rows
// 22, 29 and 51; 75, 66 and 68; 89, 106 and 90. 4096 x 1024 20, 38 and 53; 36, 52 and 79; 75, 95 and 85. 2048 x 4096 20, 37
// and 56; 35, 31 and 73; 54, 85 and 81.)
constexpr int64_t rows_that_wait = 64;
constexpr int64_t l2_half_bytes = (wide ? 512 : 256) * 1024;
constexpr int64_t l1_bytes = 16 * 1024;
constexpr int64_t l2_bytes = 192 * 1024;
constexpr int64_t group_bytes(int64_t rows) { return !wide ? l1_bytes : rows < 512 ? 264 * 1024 : 520 * 1024; }
constexpr int64_t packed_bytes(int64_t rows) {
    return wide ? group_bytes(rows) : rows <= rows_that_wait ? 128 * 1024 : 1024 * 1024;
}
constexpr int64_t packed_bytes_for_strips = (wide ? 4096 : 1024) * 1024;
// Where A is larger than 1 MB, more strips stay in L2 and one panel at a time passes them. (2545 x 2834 with k = 437 and A
// transposed, 2852 x 2108 with 1904 and both: 107 and 105 GFLOP/s with 192 KB of strips and groups of panels, 114 and 114 so;
// 500 x 400 with 300: 109 and 105.)
constexpr int64_t strips_bytes = 384 * 1024;
// Sums that have no place in C until they are complete, of so many rows at a time: B is packed for each of them again.
constexpr int64_t most_rows_apart = 512;

template <class T> int64_t whole_panels(int64_t columns) {
    return (columns + panel_columns<T> - 1) / panel_columns<T> * panel_columns<T>;
}
// Of the whole panels that fit, one at least; `size` is a column's.
template <class T> int64_t columns_within(int64_t bytes, int64_t size) {
    return std::max<int64_t>(1, bytes / size / panel_columns<T>) * panel_columns<T>;
}

struct Blocking {
    int64_t k, rows, columns;  // k: elements; columns: of B packed at a time, whole panels
};

// Columns that are a multiple of 2 KB apart share a few sets of the cache.
template <class T> bool far_apart(int64_t stride) { return stride * static_cast<int64_t>(sizeof(T)) % 2048 == 0; }

// Packing a strip of A costs about as much as a panel that passes it: it pays for so many panels. Rows of A are nearly as
// good as strips, columns of A are not. (Zen 3, 128 x 128 x 128: 83 GFLOP/s with strips, 90 with rows; 192 and 256 are the
// same either way.) Columns come from as many pages as a block of k has rows, of which the processor knows 64 by heart.
// (Cascade Lake, A transposed, 300 x 100 with k = 1000, 678 x 377 with 374, 1500 x 100 with 1500 and 2406 x 419 with 2771: 98,
// 102, 44 and 83 GFLOP/s from columns, 89, 109, 73 and 109 from strips; in a slower hour 1500 x 200 with 150 51 and 67. One panel,
// 1429 x 44 with 1286 and 800 x 64 with 300: 27 and 101 from columns, 52 and 89 from strips.)
template <class T> int64_t panels_worth_strips(const tilefuse_matmul_args& args) {
    constexpr int64_t size = sizeof(T), pages_bytes = 60 * 4096, large = 4 * 1024 * 1024;
    if (far_apart<T>(args.a_col_stride)) return 2;
    if (args.a_col_stride == 1) return 12;
    const bool scattered = wide && args.k > k_block_of_columns && args.a_col_stride * size > pages_bytes / k_block_of_columns;
    return !scattered ? 8 : args.m * size > large / args.k ? 1 : 2;
}

// Whether tiles can read A's rows, or columns, as they lie: pairs if none has its second number in another row.
template <class E, class S> bool lies_ready(const tilefuse_matmul_args& args) {
    if constexpr (std::is_same_v<E, S>) return args.a_col_stride == 1 || args.a_row_stride == 1;
    if constexpr (!is_pair<E> || !std::is_same_v<S, uint16_t>) return false;
    return args.a_col_stride == 1 && args.k % 2 == 0 && args.a_row_stride % 2 == 0;
}

// How deep a block is: see rows_that_wait.
template <class E, class S> int64_t most_rows_of_b(const tilefuse_matmul_args& args) {
    if (args.b_col_stride != 1 || args.m > rows_that_wait || !far_apart<S>(args.b_row_stride)) return k_block;
    const int64_t bytes = std::abs(args.b_row_stride) * static_cast<int64_t>(sizeof(S)) * numbers_of<E>;
    return std::clamp<int64_t>(l2_half_bytes / std::max<int64_t>(1, bytes), 32, k_block);
}

template <class E, class S> Blocking blocking(const tilefuse_matmul_args& args) {
    // A fused update needs the whole sum at once, since partial sums have no place in C.
    const bool copies = !lies_ready<E, S>(args);
    const bool columns_lie = !copies && args.a_row_stride == 1 && args.a_col_stride != 1 &&
                             whole_panels<E>(args.n) < panels_worth_strips<E>(args) * panel_columns<E>;
    const int64_t most = args.split == TILEFUSE_SPLIT_SUM
                             ? k_block_of_sums
                             : std::min(columns_lie ? k_block_of_columns : k_block, most_rows_of_b<E, S>(args));
    const int64_t deep = elements_of<E>(args.k);
    const int64_t blocks = args.epilogue.rule != nullptr || deep <= most ? 1 : (deep + most - 1) / most;
    const int64_t k = std::max<int64_t>(1, blocks > 1 ? (deep + blocks - 1) / blocks : deep);
    const int64_t size = k * static_cast<int64_t>(sizeof(E)), columns = whole_panels<E>(args.n), most_packed = packed_bytes(args.m);
    // What fits as a whole needs no divisions: they would take as long as a tiny product.
    const bool few = args.m <= l2_bytes && columns <= most_packed && size <= most_packed;
    if (few && args.m * size <= l2_bytes && columns * size <= most_packed)
        return {k, std::max<int64_t>(most_rows, args.m), columns};
    const bool packs = copies || args.a_col_stride != 1;
    const bool large = wide && packs && args.m * size > 1024 * 1024;
    const int64_t rows = std::max<int64_t>(most_rows, (large ? strips_bytes : l2_bytes) / size);
    const int64_t bytes = packs && args.m > rows ? packed_bytes_for_strips : most_packed;
    return {k, rows, std::min(columns, columns_within<E>(bytes, size))};
}

// ---- one member's rectangle of one product --------------------------------------------------------------------------

// Of elements E, from numbers S.
template <class E, class S> class Product {
public:
    using T = Sum<E>;

    Product(const tilefuse_matmul_args& args, const Blocking& sizes, void* scratch)
        : args_(args), blocking_(sizes), epilogue_(args), panels_(static_cast<E*>(scratch)),
          strips_(panels_ + blocking_.k * blocking_.columns),
          sums_(reinterpret_cast<T*>(strips_ + blocking_.k * blocking_.rows + lanes<E>)),
          apart_(sums_ + most_rows * blocking_.columns) {}

    static size_t scratch(const tilefuse_matmul_args& args) {
        const Blocking b = blocking<E, S>(args);
        const int64_t apart = sums_apart(args, b) ? std::min(args.m, most_rows_apart) * b.columns : 0;
        static_assert(sizeof(E) == sizeof(T));
        return static_cast<size_t>(b.k * b.columns + b.k * b.rows + lanes<E> + most_rows * b.columns + apart) * sizeof(E);
    }

    void operator()(const S* a, const S* b, void* c, int64_t offset, Range rows, Range columns) {
        if (rows.begin >= rows.end || columns.begin >= columns.end) return;
        c_ = c;
        offset_ = offset;
        if (!sums_apart(args_, blocking_)) return rectangle(a, b, rows, columns);
        for (int64_t i = rows.begin; i < rows.end; i += most_rows_apart)
            rectangle(a, b, {i, std::min(rows.end, i + most_rows_apart)}, columns);
    }

private:
    void rectangle(const S* a, const S* b, Range rows, Range columns) {
        const bool apart = sums_apart(args_, blocking_);
        if (!apart && args_.beta != 0 && args_.beta != 1) scale(rows, columns);
        const int64_t height = rows.end - rows.begin, together = columns_together(height);
        for (int64_t j = columns.begin; j < columns.end; j += together) {
            columns_ = {j, std::min(columns.end, j + together)};
            divide_columns();
            kept_ = apart ? apart_ - rows.begin * width_ : at_once() ? nullptr : static_cast<T*>(c_) + j;
            kept_stride_ = apart ? width_ : args_.c_row_stride;
            if (apart && args_.beta != 0) begin_apart(rows);
            for (int64_t p = 0; p == 0 || p < args_.k; p += numbers_of<E> * blocking_.k) {
                numbers_ = std::min(numbers_of<E> * blocking_.k, args_.k - p);
                k_ = elements_of<E>(numbers_);
                accumulate_ = p > 0 || args_.beta != 0;
                last_ = p + numbers_ >= args_.k;
                a_ = a + p * args_.a_col_stride;
                b_ = b + p * args_.b_row_stride;
                pack_b(height);
                ahead_ = last_ ? ahead(b, 0, {columns_.end, std::min(columns.end, columns_.end + together)}, height)
                               : ahead(b, p + numbers_, columns_, height);
                for (int64_t i = rows.begin; i < rows.end; i += blocking_.rows) multiply({i, std::min(rows.end, i + blocking_.rows)});
            }
        }
    }

    // Whether sums that are not complete have no place in C.
    static bool sums_apart(const tilefuse_matmul_args& args, const Blocking& sizes) {
        return in_16_bits(args) && (elements_of<E>(args.k) > sizes.k || args.beta != 0);
    }
    // Whether they are complete at once, and then become C, or an update.
    bool at_once() const { return args_.epilogue.rule != nullptr || (in_16_bits(args_) && !sums_apart(args_, blocking_)); }

    void scale(Range rows, Range columns) const {
        const T beta = static_cast<T>(args_.beta);
        for (int64_t i = rows.begin; i < rows.end; ++i)
            for (int64_t j = columns.begin; j < columns.end; ++j) static_cast<T*>(c_)[i * args_.c_row_stride + j] *= beta;
    }

    // Rows of C that lies in 16 bits.
    uint16_t* narrow_row(int64_t row, int64_t column) const {
        return static_cast<uint16_t*>(c_) + row * args_.c_row_stride + column;
    }
    void begin_apart(Range rows) const {
        for (int64_t i = rows.begin; i < rows.end; ++i) {
            const uint16_t* from = narrow_row(i, columns_.begin);
            for (int64_t j = 0; j < width_; ++j) kept_[i * kept_stride_ + j] = static_cast<T>(args_.beta) * widened(from[j]);
        }
    }
    void narrow_tile(const T* sums, int64_t stride, int64_t row, int64_t column, int64_t rows, int64_t columns) const {
        if constexpr (sizeof(T) == sizeof(float))
            for (int64_t i = 0; i < rows; ++i) narrow_numbers(columns, sums + i * stride, narrow_row(row + i, column));
    }

    // Columns of B packed at a time where a member has so many rows, perhaps fewer than the product. (Cascade Lake, two threads,
    // 512 x 784 with k = 512 and 600 x 1000 with 700: 140 and 199 GFLOP/s with the product's columns, 147 and 204 so.)
    int64_t columns_together(int64_t rows) const {
        if (!wide || args_.a_col_stride != 1 || !lies_ready<E, S>(args_) || group_bytes(rows) == group_bytes(args_.m))
            return blocking_.columns;
        return std::min(blocking_.columns, columns_within<E>(group_bytes(rows), blocking_.k * static_cast<int64_t>(sizeof(E))));
    }

    // Panels of nearly equal width, so that none has too few accumulators.
    void divide_columns() {
        width_ = columns_.end - columns_.begin;
        panels_of_ = Parts(vectors_of<T>(width_), max_vectors);
        tile_rows_ = max_rows(static_cast<int>(panels_of_.largest()));
    }
    int64_t panel_at(int64_t panel) const { return panels_of_.begin(panel) * lanes<T>; }
    bool packed(int64_t panel) const { return pack_all_ || panel_at(panel + 1) > width_; }

    // Packing a panel costs about as much as a strip that passes it. It pays when many do, unless all of B's block lies
    // together in L1 anyway; strips only together with panels. (Zen 3, 784 x 64 and 784 x 128: 86 GFLOP/s unpacked, 74 packed
    // for 32 rows, the same for 128; 784 x 512, 128 rows: 73 unpacked, 83 packed.) Where rows of B are far apart few strips
    // are enough. (1024 x 1024, 32 rows: 34 unpacked, 70 packed.) The last panel is padded with zeros to whole vectors.
    void pack_b(int64_t height) {
        constexpr bool converts = !std::is_same_v<E, S>;
        const bool lies_together = k_ * args_.b_row_stride * static_cast<int64_t>(sizeof(E)) <= l1_bytes;
        const bool many_strips = height > 8 * tile_rows_;
        const bool stays = wide && args_.a_col_stride == 1;  // see k_block
        copies_rows_ = converts && !lies_ready<E, S>(args_) && args_.a_col_stride == 1;
        pack_a_ = !copies_rows_ && (!lies_ready<E, S>(args_) ||
                                    (!converts && many_strips && panels_of_.count >= panels_worth_strips<E>(args_) && !stays));
        pack_all_ = converts || pack_a_ || args_.b_col_stride != 1 || (many_strips && !lies_together) ||
                    (height > 4 * tile_rows_ && far_apart<S>(args_.b_row_stride) && !lies_together);
        const bool padded = panel_at(panels_of_.count) > width_;
        const int64_t whole = args_.b_col_stride != 1 ? 0 : panels_of_.count - padded;
        for (int64_t first = 0; pack_all_ && first < whole; first += 4) {
            pack_panels(numbers_, panels_of_, first, std::min(whole, first + 4), b_ + columns_.begin, args_.b_row_stride, panels_, k_, 0);
        }
        for (int64_t panel = whole; panel < panels_of_.count; ++panel) {
            const int64_t begin = panel_at(panel), end = panel_at(panel + 1);
            pack_panel(numbers_, std::min(end, width_) - begin, end - begin, b_ + (columns_.begin + begin) * args_.b_col_stride,
                       args_.b_row_stride, args_.b_col_stride, panels_ + begin * k_);
        }
    }

    // The block of B that begins at row p, to be asked for while so many rows of A pass the current one.
    Ahead ahead(const S* b, int64_t p, Range columns, int64_t height) const {
        const int64_t turns = k_ / steps_of_turn * panels_of_.count;  // of one strip
        if (columns.begin >= columns.end || turns == 0) return {};
        constexpr int64_t size = sizeof(S);
        const int64_t strips = (std::min(height, blocking_.rows) + tile_rows_ - 1) / tile_rows_;
        const int64_t deep = std::min(numbers_of<E> * blocking_.k, args_.k - p), width = columns.end - columns.begin;
        const S* first = b + p * args_.b_row_stride + columns.begin * args_.b_col_stride;
        if (args_.b_col_stride == 1) return {first, deep, width * size, args_.b_row_stride * size, turns * strips};
        if (args_.b_row_stride == 1) return {first, width, deep * size, args_.b_col_stride * size, turns * strips};
        return {};
    }

    // Copies what tiles can't read as it lies, or not as well. Returns where elements of the rows begin.
    const E* pack_a(Range rows, const Parts& strips) const {
        const S* const a = a_ + rows.begin * args_.a_row_stride;
        if constexpr (std::is_same_v<E, S>) {
            if (pack_a_) pack_strips(k_, strips, a, args_.a_row_stride, args_.a_col_stride, strips_);
        } else if (copies_rows_) {
            for (int64_t i = 0; i < rows.end - rows.begin; ++i) copy_along(numbers_, a + i * args_.a_row_stride, strips_ + i * k_);
        } else if (pack_a_) {
            convert_strips(numbers_, strips, a, args_.a_row_stride, args_.a_col_stride, strips_);
        }
        return copies_rows_ || pack_a_ ? strips_ : reinterpret_cast<const E*>(a);
    }

    // The rows of C in the current columns, with the current part of k: strips within groups of panels. Panels that packed
    // strips pass stay in L1. Rows or columns of A as they lie are worth keeping there instead, since the processor is bad
    // at fetching many short pieces ahead (Zen 3, 128 x 64, k = 784: 63 GFLOP/s with the panels in L1, 82 with A); and an
    // update, which streams through its parameter, wants long pieces of rows.
    void multiply(Range rows) {
        const Parts strips(rows.end - rows.begin, tile_rows_);
        const From from = pack_a_ ? From::strip : args_.a_col_stride == 1 ? From::rows : From::columns;
        const bool copied = pack_a_ || copies_rows_, complete = at_once(), update = args_.epilogue.rule != nullptr;
        const E* const a = pack_a(rows, strips);
        // From row to row, and from element to element.
        const int64_t row_stride = copied ? k_ : args_.a_row_stride / numbers_of<E>;
        const int64_t a_stride = from == From::rows ? row_stride : args_.a_col_stride;
        const bool in_l2 = update || (wide ? from == From::columns : !pack_a_);
        const int64_t a_bytes = (rows.end - rows.begin) * k_ * static_cast<int64_t>(sizeof(E));
        const bool comes_from_far = from == From::rows && !copied && a_bytes > l1_bytes * 2;
        const bool fills_l2 = wide && copied && a_bytes > l2_bytes;  // see strips_bytes
        const int64_t panel_bytes = k_ * panel_columns<E> * static_cast<int64_t>(sizeof(E)) + 1;
        const int64_t bytes = in_l2 ? l2_bytes * 2 / 3 : fills_l2 ? 0 : group_bytes(args_.m);
        const int64_t group = std::max<int64_t>(1, bytes / panel_bytes);
        for (int64_t first = 0; first < panels_of_.count; first += group) {
            const int64_t past = std::min(panels_of_.count, first + group);
            const int64_t left = panel_at(first), right = std::min(width_, panel_at(past));
            for (int64_t strip = 0; strip < strips.count; ++strip) {
                const int64_t begin = strips.begin(strip), row = rows.begin + begin;
                const int64_t count = strips.begin(strip + 1) - begin;
                TileArgs<E> t;
                t.k = k_;
                t.ahead = ahead_.left() ? &ahead_ : nullptr;
                t.accumulate = accumulate_;
                t.a = a + begin * row_stride;
                t.a_stride = a_stride;
                T* const sums = complete ? sums_ : kept_ + row * kept_stride_ + left;
                t.c_stride = complete ? right - left : kept_stride_;
                if (update) epilogue_.prefetch(row, columns_.begin + left, count, right - left);
                for (int64_t panel = first; panel < past; ++panel) {
                    const int64_t at = panel_at(panel), end = panel_at(panel + 1);
                    t.b = packed(panel) ? panels_ + at * k_ : reinterpret_cast<const E*>(b_ + columns_.begin + at);
                    t.b_stride = packed(panel) ? end - at : args_.b_row_stride;
                    t.c = sums + at - left;
                    if (comes_from_far && strip + 1 < strips.count)
                        fetch_part(t.a + count * row_stride, row_stride, count, panel - first, past - first);
                    t.tail = static_cast<int>(lanes<T> - std::max<int64_t>(0, end - width_));
                    Tiles<E>::all.of[static_cast<int>(from)][(end - at) / lanes<T> - 1][count - 1](t);
                }
                if (!last_) continue;
                epilogue_(sums, t.c_stride, offset_, row, columns_.begin + left, count, right - left);
                if (in_16_bits(args_)) narrow_tile(sums, t.c_stride, row, columns_.begin + left, count, right - left);
            }
        }
    }

    // Asks for one of `parts` of the next strip's rows, which are too short for the processor to see them coming. (Cascade
    // Lake, 1024 cubed: 101 GFLOP/s without, 115 with it.)
    void fetch_part(const E* rows, int64_t stride, int64_t count, int64_t part, int64_t parts) const {
        constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(E));
        const int64_t lines = (k_ + line - 1) / line, share = (lines + parts - 1) / parts;
        const int64_t begin = part * share, end = std::min(lines, begin + share);
        for (int64_t i = 0; i < count; ++i)
            for (int64_t at = begin; at < end; ++at) __builtin_prefetch(rows + i * stride + at * line, 0, 2);
    }

    const tilefuse_matmul_args& args_;
    const Blocking blocking_;
    const Epilogue<T> epilogue_;
    E *const panels_, *const strips_;
    T *const sums_, *const apart_;
    // what is being worked on
    const S *a_, *b_;
    void* c_;
    T* kept_;  // sums until they are complete: C's column 0 of these columns, or memory of their own
    Range columns_;
    Parts panels_of_;
    Ahead ahead_;
    int64_t offset_, kept_stride_, numbers_, k_, width_;
    int tile_rows_;
    bool accumulate_, last_, pack_a_, copies_rows_, pack_all_;
};

}  // namespace tilefuse::inline TILEFUSE_ISA
