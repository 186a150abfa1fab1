// Products of float32 matrices on AMX, from operands in bfloat16: rounded to it, or split into three parts, which hold all
// 24 bits of a float32. Of the nine products of parts the six largest are added up, smallest first; the other three are
// below 2^-24 of the whole.
//
// The team packs blocks of A and B together into tiles, then shares out blocks of 32 x 32 sums, four tile registers, which
// take two tiles of A and two of B at a time. Which blocks there are depends on the shape alone: so do the bits.
#include <algorithm>

#include "cpu/amx.h"
#include "cpu/bfloat16.h"
#include "cpu/kernels.h"
#include "cpu/matmul_epilogue.h"
#include "cpu/transpose.h"

namespace tilefuse::inline TILEFUSE_ISA {
namespace {

// Chosen on paper, from figures for Sapphire Rapids: a panel of B, `depth` deep and in three parts, is 96 KB, and six of
// them and a strip of A fit in its 2 MB of L2, from which tiles load as fast as they are multiplied.
constexpr int64_t edge = 32;    // rows of a strip of A, columns of a panel of B, and k of a step
constexpr int64_t depth = 512;  // k of a block
constexpr int64_t group = 6;    // panels that stay in L2 while strips pass
constexpr int64_t block = 2048;  // rows and columns that are packed at a time
constexpr int64_t tile = 512;    // bfloat16 numbers in a tile

// The smallest magnitude but 0, and the largest, of what was packed; NaN counts as infinite.
class Magnitudes {
public:
    void add(Vec<float> x) {
        const Words bits = (Words)x & 0x7fffffffu;
        most_ = bits > most_ ? bits : most_;
        const Words nonzero = bits == 0 ? Words{} + 0x7fffffffu : bits;
        least_ = nonzero < least_ ? nonzero : least_;
    }
    float least() const {
        uint32_t bits = 0x7f800000u;
        for (int i = 0; i < lanes<float>; ++i) bits = std::min(bits, least_[i]);
        return number(bits);
    }
    float most() const {
        uint32_t bits = 0;
        for (int i = 0; i < lanes<float>; ++i) bits = std::max(bits, most_[i]);
        return number(std::min(bits, 0x7f800000u));
    }

private:
    static float number(uint32_t bits) {
        float x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    }
    Words most_{}, least_ = Words{} + 0x7f800000u;
};

struct Reach {
    float least, most;
};

// Whether parts in bfloat16 hold all that matters of the products of two such sets of numbers: tiles count denormals as
// zero and round what is next to infinity to it.
inline bool parts_will_do(Reach a, Reach b, int64_t k) {
    constexpr float tiny = 0x1p-103f, huge = 0x1p126f;  // below `tiny` a third part may be denormal
    const double largest = static_cast<double>(a.most) * static_cast<double>(b.most);
    return a.most < huge && b.most < huge && a.least >= tiny && b.least >= tiny &&
           (largest == 0 || largest > 0x1p-80) && largest * static_cast<double>(k) < 0x1p126;
}

// x[32][32], contiguous = elements of a matrix with any strides; zeros past `rows` and `columns`.
inline void fetch(const uint16_t* from, int64_t row_stride, int64_t col_stride, int64_t rows, int64_t columns, float* x) {
    if (rows < edge || columns < edge) std::memset(x, 0, sizeof(float) * edge * edge);
    if (row_stride == 1) {
        for (int64_t j = 0; j < columns; ++j)
            for (int64_t i = 0; i < rows; ++i) x[i * edge + j] = widened(from[i + j * col_stride]);
    } else if (col_stride == 1) {
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < columns; ++j) x[i * edge + j] = widened(from[i * row_stride + j]);
    } else {
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < columns; ++j) x[i * edge + j] = widened(from[i * row_stride + j * col_stride]);
    }
}
inline void fetch(const float* from, int64_t row_stride, int64_t col_stride, int64_t rows, int64_t columns, float* x) {
    if (rows < edge || columns < edge) std::memset(x, 0, sizeof(float) * edge * edge);
    if (col_stride == 1) {
        for (int64_t i = 0; i < rows; ++i) std::memcpy(x + i * edge, from + i * row_stride, sizeof(float) * static_cast<size_t>(columns));
    } else if (row_stride == 1) {
        transpose(columns, rows, from, col_stride, x, edge);
    } else {
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < columns; ++j) x[i * edge + j] = from[i * row_stride + j * col_stride];
    }
}

// The next part of x; what is left of x.
inline Words take_part(Vec<float>& x) {
    const Words part = rounded(x);
    x -= (Vec<float>)part;
    return part;
}

// Two tiles for each part, [parts][2][16][32]: of A, its rows as they are.
template <int parts> void pack_left(const float* x, uint16_t* packed, Magnitudes& magnitudes) {
    for (int64_t i = 0; i < edge * edge; i += lanes<float>) {
        Vec<float> rest = load(x + i);
        if (parts > 1) magnitudes.add(rest);
#pragma GCC unroll 3
        for (int part = 0; part < parts; ++part) {
            const HalfWords halves = __builtin_convertvector(take_part(rest) >> 16, HalfWords);
            std::memcpy(packed + part * 2 * tile + i, &halves, sizeof halves);
        }
    }
}

// Of B: pairs of rows, [parts][2][16][16][2]; the first tile has the left 16 columns.
template <int parts> void pack_right(const float* x, uint16_t* packed, Magnitudes& magnitudes) {
    for (int64_t pair = 0; pair < edge / 2; ++pair) {
        for (int64_t j = 0; j < edge; j += lanes<float>) {
            Vec<float> even = load(x + 2 * pair * edge + j), odd = load(x + (2 * pair + 1) * edge + j);
            if (parts > 1) magnitudes.add(even), magnitudes.add(odd);
#pragma GCC unroll 3
            for (int part = 0; part < parts; ++part) {
                const Words words = take_part(even) >> 16 | take_part(odd);
                std::memcpy(packed + (part * 2 + j / 16) * tile + pair * 32 + j % 16 * 2, &words, sizeof words);
            }
        }
    }
}

// sums[32][32] = the product of a packed strip and a packed panel, `steps` of 32 deep.
template <int parts> void multiply_tiles(int64_t steps, const uint16_t* a, const uint16_t* b, float* sums) {
    tiles_read_memory(a);
    TILEFUSE_TILE_ZERO(0);
    TILEFUSE_TILE_ZERO(1);
    TILEFUSE_TILE_ZERO(2);
    TILEFUSE_TILE_ZERO(3);
    for (int order = parts - 1; order >= 0; --order) {  // of the product: 2^-8 to that power
        for (int left = order; left >= 0; --left) {
            const uint16_t* x = a + left * 2 * tile;
            const uint16_t* y = b + (order - left) * 2 * tile;
            for (int64_t step = 0; step < steps; ++step, x += parts * 2 * tile, y += parts * 2 * tile) {
                TILEFUSE_TILE_LOAD(4, x, 64);
                TILEFUSE_TILE_LOAD(6, y, 64);
                TILEFUSE_TILE_PRODUCT(0, 4, 6);
                TILEFUSE_TILE_LOAD(7, y + tile, 64);
                TILEFUSE_TILE_PRODUCT(1, 4, 7);
                TILEFUSE_TILE_LOAD(5, x + tile, 64);
                TILEFUSE_TILE_PRODUCT(2, 5, 6);
                TILEFUSE_TILE_PRODUCT(3, 5, 7);
            }
        }
    }
    TILEFUSE_TILE_STORE(0, sums, edge * sizeof(float));
    TILEFUSE_TILE_STORE(1, sums + 16, edge * sizeof(float));
    TILEFUSE_TILE_STORE(2, sums + 16 * edge, edge * sizeof(float));
    TILEFUSE_TILE_STORE(3, sums + 16 * edge + 16, edge * sizeof(float));
}

// The same with multiply-adds in float32, from the operands themselves: for numbers whose parts won't do.
inline void multiply_floats(const tilefuse_matmul_args& args, const float* a, const float* b, int64_t rows, int64_t columns,
                            int64_t k, float* sums) {
    std::memset(sums, 0, sizeof(float) * edge * edge);
    alignas(64) float x[edge * edge], y[edge * edge];
    for (int64_t p = 0; p < k; p += edge) {
        const int64_t deep = std::min(edge, k - p);
        fetch(a + p * args.a_col_stride, args.a_row_stride, args.a_col_stride, rows, deep, x);
        fetch(b + p * args.b_row_stride, args.b_row_stride, args.b_col_stride, deep, columns, y);
        for (int64_t i = 0; i < rows; ++i) {
            for (int64_t j = 0; j < edge; j += lanes<float>) {
                Vec<float> sum = load(sums + i * edge + j);
                for (int64_t q = 0; q < deep; ++q) sum += splat(x[i * edge + q]) * load(y + q * edge + j);
                store(sums + i * edge + j, sum);
            }
        }
    }
}

// Whether sums go straight to an update: one block of k has all of them.
bool updates_at_once(const tilefuse_matmul_args& args) { return args.epilogue.rule != nullptr && args.k <= depth; }

// One team's product. `Finish` is called for blocks of sums that are complete: (sums, stride, row, column, rows, columns).
template <int parts, class Element> class Product {
public:
    static size_t shared(const tilefuse_matmul_args& args) {
        const int64_t strips = strips_of(std::min(args.m, block)), panels = strips_of(std::min(args.n, block));
        return static_cast<size_t>((strips + panels) * (strip_size(args) * static_cast<int64_t>(sizeof(uint16_t)) +
                                                        static_cast<int64_t>(sizeof(Reach))));
    }

    // The sums of blocks that are not complete lie at `c`, rows `c_stride` apart.
    float* c;
    int64_t c_stride;

    Product(Team& team, const tilefuse_matmul_args& args)
        : team_(team), args_(args), left_(team.shared<uint16_t>()),
          right_(left_ + strips_of(std::min(args.m, block)) * strip_size(args)),
          left_reach_(reinterpret_cast<Reach*>(right_ + strips_of(std::min(args.n, block)) * strip_size(args))),
          right_reach_(left_reach_ + strips_of(std::min(args.m, block))) {}

    template <class Finish> void operator()(const Element* a, const Element* b, const Finish& finish) {
        TileRegisters registers;
        for (int64_t j = 0; j < args_.n; j += block) {
            for (int64_t i = 0; i < args_.m; i += block) {
                for (int64_t p = 0; p < args_.k; p += depth) {
                    team_.barrier();  // nobody uses the team's memory any more
                    const int64_t k = std::min(depth, args_.k - p);
                    pack(a + i * args_.a_row_stride + p * args_.a_col_stride, std::min(block, args_.m - i),
                         b + p * args_.b_row_stride + j * args_.b_col_stride, std::min(block, args_.n - j), k);
                    team_.barrier();
                    multiply(a, b, i, j, p, k, finish);
                }
            }
        }
        team_.barrier();
    }

private:
    static int64_t strips_of(int64_t n) { return (n + edge - 1) / edge; }
    static int64_t steps_of(int64_t k) { return (k + edge - 1) / edge; }
    static int64_t strip_size(const tilefuse_matmul_args& args) { return steps_of(std::min(args.k, depth)) * parts * 2 * tile; }

    void pack(const Element* a, int64_t rows, const Element* b, int64_t columns, int64_t k) {
        alignas(64) float x[edge * edge];
        const int64_t steps = steps_of(k), size = strip_size(args_);
        const Range strips = team_.range(strips_of(rows)), panels = team_.range(strips_of(columns));
        for (int64_t strip = strips.begin; strip < strips.end; ++strip) {
            Magnitudes magnitudes;
            for (int64_t step = 0; step < steps; ++step) {
                fetch(a + strip * edge * args_.a_row_stride + step * edge * args_.a_col_stride, args_.a_row_stride,
                      args_.a_col_stride, std::min(edge, rows - strip * edge), std::min(edge, k - step * edge), x);
                pack_left<parts>(x, left_ + strip * size + step * parts * 2 * tile, magnitudes);
            }
            left_reach_[strip] = {magnitudes.least(), magnitudes.most()};
        }
        for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
            Magnitudes magnitudes;
            for (int64_t step = 0; step < steps; ++step) {
                fetch(b + step * edge * args_.b_row_stride + panel * edge * args_.b_col_stride, args_.b_row_stride,
                      args_.b_col_stride, std::min(edge, k - step * edge), std::min(edge, columns - panel * edge), x);
                pack_right<parts>(x, right_ + panel * size + step * parts * 2 * tile, magnitudes);
            }
            right_reach_[panel] = {magnitudes.least(), magnitudes.most()};
        }
    }

    // This member's share of the blocks of C at (row, column): groups of panels, in them strips, in them panels.
    template <class Finish>
    void multiply(const Element* a, const Element* b, int64_t row, int64_t column, int64_t p, int64_t k, const Finish& finish) {
        alignas(64) float sums[edge * edge];
        const int64_t strips = strips_of(std::min(block, args_.m - row)), panels = strips_of(std::min(block, args_.n - column));
        const int64_t size = strip_size(args_), steps = steps_of(k);
        const bool last = p + k >= args_.k;
        const Range mine = team_.range(strips * panels);
        for (int64_t unit = mine.begin; unit < mine.end; ++unit) {
            const int64_t first = unit / (group * strips) * group, width = std::min(group, panels - first);
            const int64_t within = unit - first * strips, strip = within / width, panel = first + within % width;
            const int64_t i = row + strip * edge, j = column + panel * edge;
            const int64_t rows = std::min(edge, args_.m - i), columns = std::min(edge, args_.n - j);
            const auto by_tiles = [&] { multiply_tiles<parts>(steps, left_ + strip * size, right_ + panel * size, sums); };
            if constexpr (parts == 1) {
                by_tiles();
            } else if (parts_will_do(left_reach_[strip], right_reach_[panel], args_.k)) {
                by_tiles();
            } else {
                multiply_floats(args_, a + i * args_.a_row_stride + p * args_.a_col_stride,
                                b + p * args_.b_row_stride + j * args_.b_col_stride, rows, columns, k, sums);
            }
            if (updates_at_once(args_)) {
                finish(sums, edge, i, j, rows, columns);
                continue;
            }
            float* const to = c + i * c_stride + j;
            add(sums, to, rows, columns, p == 0 ? args_.beta : 1);
            if (last) finish(to, c_stride, i, j, rows, columns);
        }
    }

    void add(const float* sums, float* to, int64_t rows, int64_t columns, double beta) const {
        const float factor = static_cast<float>(beta);
        for (int64_t i = 0; i < rows; ++i, sums += edge, to += c_stride) {
            for_vectors<float>(columns, [&](int64_t j, int n) {
                Vec<float> sum = load(sums + j);
                if (factor != 0) sum += factor * load_upto(to + j, n);
                store_upto(to + j, sum, n);
            });
        }
    }

    Team& team_;
    const tilefuse_matmul_args& args_;
    uint16_t *const left_, *const right_;
    Reach *const left_reach_, *const right_reach_;
};

// Whether a product is worth packing for AMX. (The sizes are estimates: for float32, packing an element costs about as much
// as 2 of the 128 / 32 times that it is used.) A split that the caller relies on is left to the others, and so is an update with
// float32, whose sums mostly are too short for packing three parts.
bool suits_amx(const tilefuse_matmul_args& args) {
    if (args.dtype != TILEFUSE_FLOAT32) return false;
    if (args.split != TILEFUSE_SPLIT_AUTO) return false;
    const bool stored = args.operands != TILEFUSE_STORED_WHOLE;
    if (args.precision == TILEFUSE_PRECISION_IEEE && !stored) return false;
    const bool one_part = args.precision == TILEFUSE_PRECISION_BFLOAT16 || stored;
    if (args.epilogue.rule != nullptr && !one_part) return false;
    const int64_t least = one_part ? 32 : 64, many = 8 * least * least * least;
    return std::min({args.m, args.n, args.k}) >= least && args.m * args.n >= many / args.k;
}

// Whether sums have no place in C: it lies in 16 bits, or is a gradient that an update makes use of, and not complete at once.
bool sums_apart(const tilefuse_matmul_args& args) {
    return in_16_bits(args) || (args.epilogue.rule != nullptr && !updates_at_once(args));
}

template <int parts, class Element> void matmul_on_amx(Team& team, const tilefuse_matmul_args& args) {
    const Epilogue<float> epilogue(args);
    Product<parts, Element> product(team, args);
    auto* const apart = reinterpret_cast<float*>(team.shared<char>() + Product<parts, Element>::shared(args));
    product.c_stride = sums_apart(args) ? args.n : args.c_row_stride;
    for_products(args, {0, products_of(args)}, [&](int64_t a, int64_t b, int64_t offset) {
        const auto* left = static_cast<const Element*>(args.a) + a;
        const auto* right = static_cast<const Element*>(args.b) + b;
        if (!in_16_bits(args)) {
            product.c = sums_apart(args) ? apart : static_cast<float*>(args.c) + offset;
            return product(left, right, [&](float* sums, int64_t stride, int64_t row, int64_t column, int64_t rows, int64_t columns) {
                epilogue(sums, stride, offset, row, column, rows, columns);
            });
        }
        uint16_t* const c = static_cast<uint16_t*>(args.c) + offset;
        product.c = apart;
        if (args.beta != 0) {
            const Range mine = team.range(args.m);
            for (int64_t i = mine.begin; i < mine.end; ++i)
                for (int64_t j = 0; j < args.n; ++j) product.c[i * args.n + j] = widened(c[i * args.c_row_stride + j]);
            team.barrier();
        }
        product(left, right, [&](float* sums, int64_t stride, int64_t row, int64_t column, int64_t rows, int64_t columns) {
            epilogue(sums, stride, 0, row, column, rows, columns);
            for (int64_t i = 0; i < rows; ++i) narrow_numbers(columns, sums + i * stride, c + (row + i) * args.c_row_stride + column);
        });
    });
}

}  // namespace

void matmul(Team& team, const tilefuse_matmul_args& args) {
    if (!suits_amx(args)) return TILEFUSE_BASE_ISA::table().matmul.run(team, args);
    if (args.operands != TILEFUSE_STORED_WHOLE) return matmul_on_amx<1, uint16_t>(team, args);
    if (args.precision == TILEFUSE_PRECISION_BFLOAT16) return matmul_on_amx<1, float>(team, args);
    matmul_on_amx<3, float>(team, args);
}

Cost matmul_cost(const tilefuse_matmul_args& args) {
    Cost cost = TILEFUSE_BASE_ISA::table().matmul.cost(args);
    if (!suits_amx(args)) return cost;
    const bool one_part = args.precision == TILEFUSE_PRECISION_BFLOAT16 || args.operands != TILEFUSE_STORED_WHOLE;
    cost.scratch = 0;
    cost.shared = one_part ? Product<1, float>::shared(args) : Product<3, float>::shared(args);
    if (sums_apart(args)) cost.shared += static_cast<size_t>(args.m * args.n) * sizeof(float);
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
