// C[m, n] = epilogue(A[m, k] B[k, n] + beta C), and the sum of columns, which is a bias's gradient.
//
// A member of the team owns a rectangle of C. It walks over blocks of B's columns that fit in L2 (copied to panels where
// that pays: matmul_pack.h), and for each over strips of a few rows of A; a tile of C, strip x panel, is accumulated in
// registers (matmul_tile.h). Where A has but a few rows, what matters is how B is read (matmul_few.h). The order in which an
// element of C is added up hangs on the product alone, not on the tile in which it lies: so the bits don't depend on the number
// of threads.
#include "common/dtype.h"
#include "cpu/bfloat16.h"
#include "cpu/kernels.h"
#include "cpu/matmul_epilogue.h"
#include "cpu/matmul_few.h"
#include "cpu/matmul_pack.h"
#include "cpu/matmul_stored.h"
#include "cpu/matmul_tile.h"
#include "cpu/simd.h"

namespace tilefuse::inline TILEFUSE_ISA {
namespace {

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

template <class T> int64_t whole_panels(int64_t columns) {
    return (columns + panel_columns<T> - 1) / panel_columns<T> * panel_columns<T>;
}
// Of the whole panels that fit, one at least; `size` is a column's.
template <class T> int64_t columns_within(int64_t bytes, int64_t size) {
    return std::max<int64_t>(1, bytes / size / panel_columns<T>) * panel_columns<T>;
}

struct Blocking {
    int64_t k, rows, columns;  // columns: of B packed at a time, whole panels
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

// How deep a block is: see rows_that_wait.
template <class T> int64_t most_rows_of_b(const tilefuse_matmul_args& args) {
    if (args.b_col_stride != 1 || args.m > rows_that_wait || !far_apart<T>(args.b_row_stride)) return k_block;
    const int64_t bytes = std::abs(args.b_row_stride) * static_cast<int64_t>(sizeof(T));
    return std::clamp<int64_t>(l2_half_bytes / std::max<int64_t>(1, bytes), 32, k_block);
}

template <class T> Blocking blocking(const tilefuse_matmul_args& args) {
    // A fused update needs the whole sum at once, since partial sums have no place in C.
    const bool columns_lie = args.a_row_stride == 1 && args.a_col_stride != 1 &&
                             args.precision != TILEFUSE_PRECISION_BFLOAT16 &&
                             whole_panels<T>(args.n) < panels_worth_strips<T>(args) * panel_columns<T>;
    const int64_t most = args.split == TILEFUSE_SPLIT_SUM
                             ? k_block_of_sums
                             : std::min(columns_lie ? k_block_of_columns : k_block, most_rows_of_b<T>(args));
    const int64_t blocks = args.epilogue.rule != nullptr || args.k <= most ? 1 : (args.k + most - 1) / most;
    const int64_t k = std::max<int64_t>(1, blocks > 1 ? (args.k + blocks - 1) / blocks : args.k);
    const int64_t size = k * static_cast<int64_t>(sizeof(T)), columns = whole_panels<T>(args.n), most_packed = packed_bytes(args.m);
    // What fits as a whole needs no divisions: they would take as long as a tiny product.
    const bool few = args.m <= l2_bytes && columns <= most_packed && size <= most_packed;
    if (few && args.m * size <= l2_bytes && columns * size <= most_packed)
        return {k, std::max<int64_t>(most_rows, args.m), columns};
    const bool large = wide && args.a_col_stride != 1 && args.m * size > 1024 * 1024;
    const int64_t rows = std::max<int64_t>(most_rows, (large ? strips_bytes : l2_bytes) / size);
    const int64_t bytes = args.a_col_stride != 1 && args.m > rows ? packed_bytes_for_strips : most_packed;
    return {k, rows, std::min(columns, columns_within<T>(bytes, size))};
}

// ---- one member's rectangle of one product --------------------------------------------------------------------------

template <class T> class Product {
public:
    Product(const tilefuse_matmul_args& args, const Blocking& sizes, T* scratch)
        : args_(args), blocking_(sizes), epilogue_(args), panels_(scratch),
          strips_(panels_ + blocking_.k * blocking_.columns), sums_(strips_ + blocking_.k * blocking_.rows + lanes<T>) {}

    static size_t scratch(const tilefuse_matmul_args& args) {
        const Blocking b = blocking<T>(args);
        return static_cast<size_t>(b.k * b.columns + b.k * b.rows + lanes<T> + most_rows * b.columns) * sizeof(T);
    }

    void operator()(const T* a, const T* b, T* c, int64_t offset, Range rows, Range columns) {
        if (rows.begin >= rows.end || columns.begin >= columns.end) return;
        if (args_.beta != 0 && args_.beta != 1) scale(c, rows, columns);
        c_ = c;
        offset_ = offset;
        const int64_t height = rows.end - rows.begin, together = columns_together(height);
        for (int64_t j = columns.begin; j < columns.end; j += together) {
            columns_ = {j, std::min(columns.end, j + together)};
            divide_columns();
            for (int64_t p = 0; p == 0 || p < args_.k; p += blocking_.k) {
                k_ = std::min(blocking_.k, args_.k - p);
                accumulate_ = p > 0 || args_.beta != 0;
                last_ = p + k_ >= args_.k;
                a_ = a + p * args_.a_col_stride;
                b_ = b + p * args_.b_row_stride;
                pack_b(height);
                ahead_ = p + blocking_.k < args_.k
                             ? ahead(b, p + blocking_.k, columns_, height)
                             : ahead(b, 0, {columns_.end, std::min(columns.end, columns_.end + together)}, height);
                for (int64_t i = rows.begin; i < rows.end; i += blocking_.rows) multiply({i, std::min(rows.end, i + blocking_.rows)});
            }
        }
    }

private:
    void scale(T* c, Range rows, Range columns) const {
        const T beta = static_cast<T>(args_.beta);
        for (int64_t i = rows.begin; i < rows.end; ++i)
            for (int64_t j = columns.begin; j < columns.end; ++j) c[i * args_.c_row_stride + j] *= beta;
    }

    // Columns of B packed at a time where a member has so many rows, perhaps fewer than the product. (Cascade Lake, two threads,
    // 512 x 784 with k = 512 and 600 x 1000 with 700: 140 and 199 GFLOP/s with the product's columns, 147 and 204 so.)
    int64_t columns_together(int64_t rows) const {
        if (!wide || args_.a_col_stride != 1 || group_bytes(rows) == group_bytes(args_.m)) return blocking_.columns;
        return std::min(blocking_.columns, columns_within<T>(group_bytes(rows), blocking_.k * static_cast<int64_t>(sizeof(T))));
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
        const bool lies_together = k_ * args_.b_row_stride * static_cast<int64_t>(sizeof(T)) <= l1_bytes;
        const bool many_strips = height > 8 * tile_rows_;
        const bool rounds = args_.precision == TILEFUSE_PRECISION_BFLOAT16;
        const bool any_strides = (args_.a_col_stride != 1 && args_.a_row_stride != 1) || rounds;
        const bool stays = wide && args_.a_col_stride == 1;  // see k_block
        pack_a_ = any_strides || (many_strips && panels_of_.count >= panels_worth_strips<T>(args_) && !stays);
        pack_all_ = pack_a_ || args_.b_col_stride != 1 || (many_strips && !lies_together) ||
                    (height > 4 * tile_rows_ && far_apart<T>(args_.b_row_stride) && !lies_together);
        const bool padded = panel_at(panels_of_.count) > width_;
        const int64_t whole = args_.b_col_stride != 1 ? 0 : panels_of_.count - padded;
        for (int64_t first = 0; pack_all_ && first < whole; first += 4) {
            pack_panels(k_, panels_of_, first, std::min(whole, first + 4), b_ + columns_.begin, args_.b_row_stride, panels_, k_, 0);
        }
        for (int64_t panel = whole; panel < panels_of_.count; ++panel) {
            const int64_t begin = panel_at(panel), end = panel_at(panel + 1);
            pack_panel(k_, std::min(end, width_) - begin, end - begin, b_ + (columns_.begin + begin) * args_.b_col_stride,
                       args_.b_row_stride, args_.b_col_stride, panels_ + begin * k_);
        }
        if (rounds) round_to_bfloat16(k_ * panel_at(panels_of_.count), panels_);
    }

    // The block of B that begins at row p, to be asked for while so many rows of A pass the current one.
    Ahead ahead(const T* b, int64_t p, Range columns, int64_t height) const {
        const int64_t turns = k_ / steps_of_turn * panels_of_.count;  // of one strip
        if (columns.begin >= columns.end || turns == 0) return {};
        constexpr int64_t size = sizeof(T);
        const int64_t strips = (std::min(height, blocking_.rows) + tile_rows_ - 1) / tile_rows_;
        const int64_t deep = std::min(blocking_.k, args_.k - p), width = columns.end - columns.begin;
        const T* first = b + p * args_.b_row_stride + columns.begin * args_.b_col_stride;
        if (args_.b_col_stride == 1) return {first, deep, width * size, args_.b_row_stride * size, turns * strips};
        if (args_.b_row_stride == 1) return {first, width, deep * size, args_.b_col_stride * size, turns * strips};
        return {};
    }

    // The rows of C in the current columns, with the current part of k: strips within groups of panels. Panels that packed
    // strips pass stay in L1. Rows or columns of A as they lie are worth keeping there instead, since the processor is bad
    // at fetching many short pieces ahead (Zen 3, 128 x 64, k = 784: 63 GFLOP/s with the panels in L1, 82 with A); and an
    // update, which streams through its parameter, wants long pieces of rows.
    void multiply(Range rows) {
        const Parts strips(rows.end - rows.begin, tile_rows_);
        const From from = pack_a_ ? From::strip : args_.a_col_stride == 1 ? From::rows : From::columns;
        if (pack_a_) pack_strips(k_, strips, a_ + rows.begin * args_.a_row_stride, args_.a_row_stride, args_.a_col_stride, strips_);
        if (args_.precision == TILEFUSE_PRECISION_BFLOAT16) round_to_bfloat16(k_ * (rows.end - rows.begin), strips_);
        const bool update = args_.epilogue.rule != nullptr;
        const bool in_l2 = update || (wide ? from == From::columns : !pack_a_);
        const int64_t a_bytes = (rows.end - rows.begin) * k_ * static_cast<int64_t>(sizeof(T));
        const bool comes_from_far = from == From::rows && a_bytes > l1_bytes * 2;
        const bool fills_l2 = wide && pack_a_ && a_bytes > l2_bytes;  // see strips_bytes
        const int64_t panel_bytes = k_ * panel_columns<T> * static_cast<int64_t>(sizeof(T)) + 1;
        const int64_t bytes = in_l2 ? l2_bytes * 2 / 3 : fills_l2 ? 0 : group_bytes(args_.m);
        const int64_t group = std::max<int64_t>(1, bytes / panel_bytes);
        for (int64_t first = 0; first < panels_of_.count; first += group) {
            const int64_t past = std::min(panels_of_.count, first + group);
            const int64_t left = panel_at(first), right = std::min(width_, panel_at(past));
            for (int64_t strip = 0; strip < strips.count; ++strip) {
                const int64_t begin = strips.begin(strip), row = rows.begin + begin;
                const int64_t count = strips.begin(strip + 1) - begin;
                TileArgs<T> t;
                t.k = k_;
                t.ahead = ahead_.left() ? &ahead_ : nullptr;
                t.accumulate = accumulate_;
                t.a = pack_a_ ? strips_ + begin * k_ : a_ + row * args_.a_row_stride;
                t.a_stride = from == From::rows ? args_.a_row_stride : args_.a_col_stride;
                T* const sums = update ? sums_ : c_ + row * args_.c_row_stride + columns_.begin + left;
                t.c_stride = update ? right - left : args_.c_row_stride;
                if (update) epilogue_.prefetch(row, columns_.begin + left, count, right - left);
                for (int64_t panel = first; panel < past; ++panel) {
                    const int64_t at = panel_at(panel), end = panel_at(panel + 1);
                    t.b = packed(panel) ? panels_ + at * k_ : b_ + columns_.begin + at;
                    t.b_stride = packed(panel) ? end - at : args_.b_row_stride;
                    t.c = sums + at - left;
                    if (comes_from_far && strip + 1 < strips.count) fetch_part(t.a + count * t.a_stride, count, panel - first, past - first);
                    t.tail = static_cast<int>(lanes<T> - std::max<int64_t>(0, end - width_));
                    Tiles<T>::all.of[static_cast<int>(from)][(end - at) / lanes<T> - 1][count - 1](t);
                }
                if (last_) epilogue_(sums, t.c_stride, offset_, row, columns_.begin + left, count, right - left);
            }
        }
    }

    // Asks for one of `parts` of the next strip's rows, which are too short for the processor to see them coming. (Cascade
    // Lake, 1024 cubed: 101 GFLOP/s without, 115 with it.)
    void fetch_part(const T* rows, int64_t count, int64_t part, int64_t parts) const {
        constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
        const int64_t lines = (k_ + line - 1) / line, share = (lines + parts - 1) / parts;
        const int64_t begin = part * share, end = std::min(lines, begin + share);
        for (int64_t i = 0; i < count; ++i)
            for (int64_t at = begin; at < end; ++at) __builtin_prefetch(rows + i * args_.a_row_stride + at * line, 0, 2);
    }

    const tilefuse_matmul_args& args_;
    const Blocking blocking_;
    const Epilogue<T> epilogue_;
    T *const panels_, *const strips_, *const sums_;
    // what is being worked on
    const T *a_, *b_;
    T* c_;
    Range columns_;
    Parts panels_of_;
    Ahead ahead_;
    int64_t offset_, k_, width_;
    int tile_rows_;
    bool accumulate_, last_, pack_a_, pack_all_;
};

// ---- the team -------------------------------------------------------------------------------------------------------

struct Grid {
    int rows, columns;  // members; rows * columns == team size
};

// How many members share out the rows and how many the columns: the member with most to do decides, and what each
// reads of A and B on top of it (columns of B may have to be packed, so reading them counts more).
template <class T> Grid choose_grid(const tilefuse_matmul_args& args, int size) {
    if (args.split != TILEFUSE_SPLIT_AUTO) return {size, 1};
    Grid best = {size, 1};
    double best_cost = 0;
    for (int columns = 1; columns <= size; ++columns) {
        if (size % columns != 0) continue;
        const int rows = size / columns;
        const double height = static_cast<double>((args.m + rows - 1) / rows);
        const int64_t vectors = vectors_of<T>(args.n);
        const double width = static_cast<double>((vectors + columns - 1) / columns * lanes<T>);
        const double cost = height * width + 8 * width + height;
        if (columns == 1 || cost < best_cost) {
            best = {rows, columns};
            best_cost = cost;
        }
    }
    return best;
}

// Whether members take parts of k: only for one product that is cut into blocks of k anyway.
template <class T> bool splits_sums(const tilefuse_matmul_args& args) {
    return args.split == TILEFUSE_SPLIT_SUM && args.k > blocking<T>(args).k && args.beta == 0 && products_of(args) == 1;
}

// Each member multiplies with its own rows of B. The parts are the blocks of k that one member alone would add up one
// after the other, and they are added in that order: the bits are the same.
template <class T> void matmul_by_sums(Team& team, const tilefuse_matmul_args& args) {
    const Blocking sizes = blocking<T>(args);  // not those of a part: the last one may be shorter, with wider blocks
    const int64_t depth = sizes.k, parts = (args.k + depth - 1) / depth;
    const int64_t groups = (team.size + parts - 1) / parts;  // of rows, where there are more members than parts
    const int64_t size = args.m * args.n;
    T* const sums = team.shared<T>();
    const Range mine = team.range(parts * groups);
    for (int64_t unit = mine.begin; unit < mine.end; ++unit) {
        const int64_t part = unit / groups, group = unit % groups;
        tilefuse_matmul_args block = args;
        block.epilogue = {};
        block.k = std::min(depth, args.k - part * depth);
        block.c_row_stride = args.n;
        Product<T>(block, sizes, team.scratch<T>())(
            static_cast<const T*>(args.a) + part * depth * args.a_col_stride,
            static_cast<const T*>(args.b) + part * depth * args.b_row_stride, sums + part * size, 0,
            {args.m * group / groups, args.m * (group + 1) / groups}, {0, args.n});
    }
    team.barrier();
    const Epilogue<T> epilogue(args);
    const Range rows = team.range(args.m);
    for (int64_t i = rows.begin; i < rows.end; ++i) {
        T* c = static_cast<T*>(args.c) + i * args.c_row_stride;
        for_vectors<T>(args.n, [&](int64_t j, int n) {
            Vec<T> total = load_upto(sums + i * args.n + j, n);
            for (int64_t part = 1; part < parts; ++part) total += load_upto(sums + part * size + i * args.n + j, n);
            store_upto(c + j, total, n);
        });
        epilogue(c, args.c_row_stride, 0, i, 0, 1, args.n);
    }
}

// The most rows of A that dot products with B's columns pay for, rather than a copy of B by rows; their sums over lanes take
// some time too. (Zen 4, 784 x 128 for 4, 8, 16 and 24 rows: 47, 66, 82 and 93 GFLOP/s with copies, 103, 105, 104 and 106 with
// dots; 128 x 128 for 4, 8 and 16: 40, 60 and 79, and 65, 72 and 76; 6272 x 512 for 4, 16 and 24: 41, 81 and 88, and 71, 92 and
// 85.)
constexpr int64_t most_dotted_rows(int64_t k) { return std::min<int64_t>(16, k / 16); }

// Whether A has few rows, or B one column, and the other one is best read as it lies.
bool has_few(const tilefuse_matmul_args& args) {
    const tilefuse_epilogue& e = args.epilogue;
    if (args.m == 0 || args.k == 0 || args.split == TILEFUSE_SPLIT_SUM) return false;
    if (args.precision == TILEFUSE_PRECISION_BFLOAT16) return false;
    if (args.n == 1) {  // updated as one row, which the others could not be
        if (e.rule && (e.scale || e.bias || e.addend || e.preactivation || e.derivative_at || e.mask)) return false;
        return args.a_row_stride == 1 || args.a_col_stride == 1;
    }
    if (args.b_col_stride == 1) return args.m <= most_added_rows;
    return args.b_row_stride == 1 && (args.m == 1 || args.m <= most_dotted_rows(args.k));
}

// X, M and Y of matmul_few.h. Members take products, or columns of Y, or rows if they must.
template <class T> class FewProduct {
public:
    explicit FewProduct(const tilefuse_matmul_args& args)
        : args_(args), column_(args.n == 1), rows_(column_ ? 1 : args.m), outputs_(column_ ? args.m : args.n),
          lead_(column_ ? args.a_row_stride : args.b_col_stride), x_stride_(column_ ? args.b_row_stride : args.a_col_stride),
          epilogue_(args) {}

    size_t scratch() const { return static_cast<size_t>(2 * rows_ * outputs_ + rows_ * args_.k) * sizeof(T); }

    void operator()(Team& team) {
        const int64_t products = products_of(args_);
        const bool whole = products >= 2 * team.size, by_rows = args_.split == TILEFUSE_SPLIT_ROWS && !column_;
        const int64_t grain = column_ ? 1 : lead_ == 1 ? lanes<T> : dot_columns;
        const Range rows = by_rows && !whole ? team.range(rows_) : Range{0, rows_};
        const Range columns = by_rows || whole ? Range{0, outputs_} : team.range(outputs_, grain);
        if (rows.begin >= rows.end || columns.begin >= columns.end) return;
        few_.rows = rows.end - rows.begin;
        few_.k = args_.k;
        few_.columns = columns.end - columns.begin;
        few_.m_stride = lead_ != 1 ? lead_ : column_ ? args_.a_col_stride : args_.b_row_stride;
        few_.y = team.scratch<T>();
        few_.part = few_.y + rows_ * outputs_;
        for_products(args_, whole ? team.range(products) : Range{0, products}, [&](int64_t a, int64_t b, int64_t offset) {
            const T *of_a = static_cast<const T*>(args_.a) + a, *of_b = static_cast<const T*>(args_.b) + b;
            read(column_ ? of_b : of_a + rows.begin * args_.a_row_stride, few_.part + rows_ * outputs_);
            few_.m = (column_ ? of_a : of_b) + columns.begin * lead_;
            lead_ == 1 ? add_rows(few_) : rows_ == 1 ? add_dots<T, 2>(few_) : add_dots<T, 1>(few_);
            // A column's results are contiguous as a row's, but for its place in C.
            if (args_.epilogue.rule) {
                return epilogue_(few_.y, few_.columns, 0, rows.begin, columns.begin, few_.rows, few_.columns);
            }
            const int64_t row = column_ ? columns.begin : rows.begin, column = column_ ? 0 : columns.begin;
            T* const c = static_cast<T*>(args_.c) + offset + row * args_.c_row_stride + column;
            write(c);
            epilogue_(c, args_.c_row_stride, offset, row, column, column_ ? few_.columns : few_.rows,
                      column_ ? 1 : few_.columns);
        });
    }

private:
    // X as it lies, or copied where its rows are not contiguous.
    void read(const T* x, T* copy) {
        few_.x = x;
        few_.x_stride = args_.a_row_stride;
        if (x_stride_ == 1) return;
        for (int64_t i = 0; i < few_.rows; ++i)
            for (int64_t p = 0; p < args_.k; ++p) copy[i * args_.k + p] = x[i * args_.a_row_stride + p * x_stride_];
        few_.x = copy;
        few_.x_stride = args_.k;
    }

    void write(T* c) const {
        const T beta = static_cast<T>(args_.beta);
        const int64_t stride = column_ ? args_.c_row_stride : 1;
        const T* y = few_.y;
        for (int64_t i = 0; i < few_.rows; ++i, c += args_.c_row_stride, y += few_.columns)
            for (int64_t j = 0; j < few_.columns; ++j) c[j * stride] = beta != 0 ? y[j] + beta * c[j * stride] : y[j];
    }

    const tilefuse_matmul_args& args_;
    const bool column_;  // B is one; its product with A is that of B' and A'
    const int64_t rows_, outputs_, lead_, x_stride_;
    const Epilogue<T> epilogue_;
    FewRows<T> few_ = {};
};

template <class T> void matmul_of(Team& team, const tilefuse_matmul_args& args) {
    if (has_few(args)) return FewProduct<T>(args)(team);
    if (team.size > 1 && splits_sums<T>(args)) return matmul_by_sums<T>(team, args);
    const int64_t products = products_of(args);

    // Whole products to each member where there are enough of them, else a part of every one.
    const bool whole = products >= 2 * team.size;
    const Range mine = whole ? team.range(products) : Range{0, products};
    const Grid grid = whole ? Grid{1, 1} : choose_grid<T>(args, team.size);
    const int row_rank = whole ? 0 : team.rank / grid.columns, column_rank = whole ? 0 : team.rank % grid.columns;
    const int64_t vectors = vectors_of<T>(args.n);
    Range rows{0, args.m}, columns{0, args.n};  // one member's too: to divide takes as long as a small product
    if (grid.rows > 1) rows = {args.m * row_rank / grid.rows, args.m * (row_rank + 1) / grid.rows};
    if (grid.columns > 1)
        columns = {std::min(args.n, vectors * column_rank / grid.columns * lanes<T>),
                   std::min(args.n, vectors * (column_rank + 1) / grid.columns * lanes<T>)};

    Product<T> product(args, blocking<T>(args), team.scratch<T>());
    for_products(args, mine, [&](int64_t a, int64_t b, int64_t c) {
        product(static_cast<const T*>(args.a) + a, static_cast<const T*>(args.b) + b, static_cast<T*>(args.c) + c, c, rows,
                columns);
    });
}

template <class T> void column_sum_of(Team& team, const tilefuse_column_sum_args& args) {
    const T* x = static_cast<const T*>(args.x);
    T* const sums = args.rule ? team.scratch<T>() : static_cast<T*>(args.y);
    const Range mine = team.range(args.n, lanes<T>);
    for_vectors<T>(mine.end - mine.begin, [&](int64_t offset, int n) {
        const int64_t j = mine.begin + offset;
        Vec<T> total{};
        for (int64_t i = 0; i < args.m; ++i) total += load_upto(x + i * args.n + j, n);
        store_upto(sums + j, total, n);
    });
    if (args.rule && mine.begin < mine.end) {
        Update<T>(*args.rule, args.parameter)(mine.begin, sums + mine.begin, mine.end - mine.begin);
    }
}

}  // namespace

void matmul(Team& team, const tilefuse_matmul_args& args) {
    if (args.operands != TILEFUSE_STORED_WHOLE) {
        StoredProduct product(args);
        return product(team, team.shared<float>(), [&](const tilefuse_matmul_args& whole) { matmul_of<float>(team, whole); });
    }
    by_dtype(args.dtype, [&](auto zero) { matmul_of<decltype(zero)>(team, args); });
}

Cost matmul_cost(const tilefuse_matmul_args& args) {
    Cost cost;
    if (args.operands != TILEFUSE_STORED_WHOLE) {
        const StoredProduct product(args);
        cost = matmul_cost(product.whole);
        cost.shared = static_cast<size_t>(product.size()) * sizeof(float);
        return cost;
    }
    cost.work = 2.0 * static_cast<double>(args.m) * static_cast<double>(args.n) * static_cast<double>(args.k);
    cost.work *= static_cast<double>(products_of(args));
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        cost.scratch = has_few(args) ? FewProduct<T>(args).scratch() : Product<T>::scratch(args);
        if (splits_sums<T>(args)) {
            const int64_t depth = blocking<T>(args).k;
            cost.shared = static_cast<size_t>((args.k + depth - 1) / depth * args.m * args.n) * sizeof(T);
        }
    });
    return cost;
}

void column_sum(Team& team, const tilefuse_column_sum_args& args) {
    by_dtype(args.dtype, [&](auto zero) { column_sum_of<decltype(zero)>(team, args); });
}

Cost column_sum_cost(const tilefuse_column_sum_args& args) {
    Cost cost;
    cost.work = static_cast<double>(args.m) * static_cast<double>(args.n);
    cost.scratch = static_cast<size_t>(args.n) * sizeof(double);
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
