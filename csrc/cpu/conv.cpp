// Convolution and its gradients, without an im2col: products (matmul_tile.h says how) whose operand A is the images
// themselves, found through tables.
//
// Forward, and the gradient at x, which is the convolution of dy with the weights turned round: a member takes blocks of
// pixels; a tile is a few pixels by a panel of output channels, and adds up tap by tap. The gradient at w: a tile is a
// few input channels of a tap by a panel of output channels, and adds up pixel by pixel; the pixels are cut into slices,
// whose number depends on the shape alone, and the slices are added in their order. So the bits don't depend on the
// number of threads.
#include "common/dtype.h"
#include "cpu/conv_depthwise.h"
#include "cpu/conv_plan.h"
#include "cpu/cut.h"
#include "cpu/kernels.h"
#include "cpu/matmul_epilogue.h"
#include "cpu/matmul_pack.h"

namespace tilefuse::inline TILEFUSE_ISA {
namespace {

int64_t taps_of(const tilefuse_conv2d_shape& s) { return s.kernel_h * s.kernel_w; }
bool depthwise(const tilefuse_conv2d_shape& s) { return s.groups > 1 && s.groups == s.c && s.groups == s.f; }
double operations(const tilefuse_conv2d_shape& s) {
    return 2.0 * static_cast<double>(s.n * s.out_h * s.out_w) * static_cast<double>(s.f * taps_of(s)) *
           static_cast<double>(s.c / std::max<int64_t>(1, s.groups));
}

// ---- forward, and the gradient at x ---------------------------------------------------------------------------------

// What the two directions differ in.
template <class T> struct Direction {
    Images<T> in;
    int64_t stride_h, stride_w;  // of the pixels that are read
    int64_t step_h, step_w;      // of those that are written
    T* out;
    int64_t n, out_h, out_w;
    int64_t groups, inputs, outputs;  // channels of a group
    const T* weights;
    int64_t input_stride, output_stride, tap_stride, group_stride;  // of the weights
    const tilefuse_epilogue* epilogue;
    tilefuse_conv2d_pool pool;
    uint8_t* argmax;
    bool turned;
    tilefuse_conv2d_shape shape;

    int64_t channels() const { return groups * outputs; }
};

template <class T> Direction<T> direction(const tilefuse_conv2d_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    const bool rounds = args.precision == TILEFUSE_PRECISION_BFLOAT16;
    const auto in_windows = [](int64_t size, int64_t window) { return window ? size / window * window : size; };
    return {.in = {.data = static_cast<const T*>(args.x), .h = s.h, .w = s.w, .c = s.c, .rounds = rounds},
            .stride_h = s.stride_h, .stride_w = s.stride_w, .step_h = 1, .step_w = 1,
            .out = static_cast<T*>(args.y), .n = s.n, .out_h = in_windows(s.out_h, args.pool.height),
            .out_w = in_windows(s.out_w, args.pool.width),
            .groups = s.groups, .inputs = s.c / s.groups, .outputs = s.f / s.groups,
            .weights = static_cast<const T*>(args.w), .input_stride = s.f, .output_stride = 1,
            .tap_stride = s.c / s.groups * s.f, .group_stride = s.f / s.groups,
            .epilogue = &args.epilogue, .pool = args.pool, .argmax = args.argmax, .turned = false, .shape = s};
}

template <class T> Direction<T> direction(const tilefuse_conv2d_backward_data_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    const bool rounds = args.precision == TILEFUSE_PRECISION_BFLOAT16;
    return {.in = {.data = static_cast<const T*>(args.dy), .h = s.out_h, .w = s.out_w, .c = s.f, .pool = args.pool,
                   .argmax = args.argmax, .rounds = rounds},
            .stride_h = 1, .stride_w = 1, .step_h = s.stride_h, .step_w = s.stride_w,
            .out = static_cast<T*>(args.dx), .n = s.n, .out_h = s.h, .out_w = s.w,
            .groups = s.groups, .inputs = s.f / s.groups, .outputs = s.c / s.groups,
            .weights = static_cast<const T*>(args.w), .input_stride = 1, .output_stride = s.f,
            .tap_stride = s.c / s.groups * s.f, .group_stride = s.f / s.groups,
            .epilogue = &args.epilogue, .pool = {}, .argmax = nullptr, .turned = true, .shape = s};
}

template <class T> class Convolution {
public:
    // Cuts the work; with memory, prepares it.
    Convolution(const Direction<T>& d, void* scratch, void* shared)
        : d_(d), depthwise_(depthwise(d.shape)), inputs_(depthwise_ ? 1 : d.inputs), kernel_w_(d.shape.kernel_w),
          taps_count_(taps_of(d.shape)), panels_of_((d.outputs + lanes<T> - 1) / lanes<T>, max_vectors), reader_(make_reader()) {
        const int64_t grid_h = (d.out_h + d.step_h - 1) / d.step_h, grid_w = (d.out_w + d.step_w - 1) / d.step_w;
        const int64_t numbers = std::max({d.in.c * d.stride_h * d.stride_w, pools() ? d.channels() : 0, int64_t{1}});
        const int64_t most = std::clamp<int64_t>(image_bytes / (numbers * static_cast<int64_t>(sizeof(T))), 4 * most_pixels, 1024);
        blocks_ = Blocks(d.n, grid_h, grid_w, most, pools() ? d.pool.height : 1);
        const int64_t pixels = blocks_.most_images * blocks_.most_rows * grid_w;

        Cut mine(scratch);
        h_ = mine.take<Taps>(d.step_h);
        w_ = mine.take<Taps>(d.step_w);
        taps_ = mine.take<Tap>(d.shape.kernel_h + d.shape.kernel_w);
        segments_ = mine.take<Segment>(most_segments(taps_count_, inputs_, depth_most));
        a_at_ = mine.take<int64_t>(pixels);
        c_at_ = mine.take<int64_t>(pixels);
        sums_ = mine.take<T>(pools() ? pixels * d.channels() : 0);
        copy_ = mine.take<T>(reader_.size(blocks_));
        scratch_size = mine.size();
        Cut ours(shared);
        packed_ = ours.take<T>(d.groups * (depthwise_ ? 1 : panels_of_.begin(panels_of_.count) * lanes<T> * d.inputs) * taps_count_);
        shared_size = ours.size();
        if (scratch == nullptr) return;
        make_taps(d.step_h, d.shape.kernel_h, d.shape.dilation_h, d.shape.pad_top, h_, taps_);
        make_taps(d.step_w, d.shape.kernel_w, d.shape.dilation_w, d.shape.pad_left, w_, taps_ + d.shape.kernel_h);
    }

    void operator()(Team& team) {
        pack(team);
        team.barrier();
        const int64_t panels = depthwise_ ? 1 : d_.groups * panels_of_.count;
        int columns = 1;  // so many share a block, each with panels of its own
        for (int c = 1; c <= std::min<int64_t>(team.size, panels) && blocks_.count * columns < 2 * team.size; ++c)
            if (team.size % c == 0) columns = c;
        const int column = team.rank % columns, row = team.rank / columns, rows = team.size / columns;
        const Range mine = {panels * column / columns, panels * (column + 1) / columns};
        for (int64_t b = blocks_.count * row / rows; b < blocks_.count * (row + 1) / rows; ++b) multiply(blocks_[b], mine);
    }

    size_t scratch_size, shared_size;

private:
    bool pools() const { return d_.pool.height > 0; }

    // body(remainder, tap) for the taps of one axis, for each remainder in the order in which they lie in the image.
    template <class Body> void for_taps(int64_t step, int64_t kernel, int64_t dilation, int64_t pad, const Body& body) const {
        for (int64_t r = 0; r < step; ++r)
            for (int64_t t = 0; t < kernel; ++t) {
                const int64_t index = d_.turned ? kernel - 1 - t : t, at = r + pad - index * dilation;
                if (!d_.turned) {
                    body(r, Tap{-at, index});
                } else if (remainder_of(at, step) == 0) {
                    body(r, Tap{at / step, index});
                }
            }
    }

    Reader<T> make_reader() const {
        int64_t first = std::numeric_limits<int64_t>::max(), last = std::numeric_limits<int64_t>::min();
        for_taps(d_.step_h, d_.shape.kernel_h, d_.shape.dilation_h, d_.shape.pad_top, [&](int64_t, const Tap& tap) {
            first = std::min(first, tap.at);
            last = std::max(last, tap.at);
        });
        return {d_.in, d_.stride_h, first, last};
    }

    void make_taps(int64_t step, int64_t kernel, int64_t dilation, int64_t pad, Taps* of, Tap* taps) const {
        int64_t made = 0;
        for (int64_t r = 0; r < step; ++r) of[r] = {taps, 0, 0};
        for_taps(step, kernel, dilation, pad, [&](int64_t r, const Tap& tap) {
            if (of[r].count++ == 0) of[r].first = taps + made, of[r].place = made;
            taps[made++] = tap;
        });
    }

    // The panels of all groups: [row of taps, column of taps, input channel, columns] each, taps in the order of `taps_`.
    T* panel(int64_t group, int64_t number) const {
        const int64_t depth = taps_count_ * d_.inputs;
        return packed_ + (group * panels_of_.begin(panels_of_.count) + panels_of_.begin(number)) * lanes<T> * depth;
    }

    void pack(Team& team) const {
        const Tap *of_rows = taps_, *of_cols = taps_ + d_.shape.kernel_h;
        const auto weights_of = [&](int64_t tap) {
            const int64_t index = of_rows[tap / kernel_w_].index * kernel_w_ + of_cols[tap % kernel_w_].index;
            return d_.weights + index * d_.tap_stride;
        };
        if (depthwise_) {  // [tap, channel]
            const Range mine = team.range(taps_count_);
            for (int64_t t = mine.begin; t < mine.end; ++t) {
                std::memcpy(packed_ + t * d_.groups, weights_of(t), static_cast<size_t>(d_.groups) * sizeof(T));
                if (d_.in.rounds) round_to_bfloat16(d_.groups, packed_ + t * d_.groups);
            }
            return;
        }
        const Range mine = team.range(d_.groups * panels_of_.count * taps_count_);
        for (int64_t unit = mine.begin; unit < mine.end; ++unit) {
            const int64_t t = unit % taps_count_, number = unit / taps_count_ % panels_of_.count;
            const int64_t group = unit / taps_count_ / panels_of_.count;
            const int64_t begin = panels_of_.begin(number) * lanes<T>, columns = panels_of_.begin(number + 1) * lanes<T> - begin;
            T* const to = panel(group, number) + t * d_.inputs * columns;
            pack_panel(d_.inputs, std::min(columns, d_.outputs - begin), columns,
                       weights_of(t) + group * d_.group_stride + begin * d_.output_stride, d_.input_stride, d_.output_stride, to);
            if (d_.in.rounds) round_to_bfloat16(d_.inputs * columns, to);
        }
    }

    // A block's pixels in the panels [begin, end) of all groups'.
    void multiply(const Block& block, Range panels) {
        const View<T> view = reader_(block, copy_);
        for (int64_t r = 0; r < d_.step_h; ++r)
            for (int64_t s = 0; s < d_.step_w; ++s) {
                const int64_t bottom = std::min(block.rows.end, (d_.out_h - r + d_.step_h - 1) / d_.step_h);
                const int64_t cols = (d_.out_w - s + d_.step_w - 1) / d_.step_w;
                for_runs({block.rows.begin, bottom}, h_[r], d_.stride_h, d_.in.h, [&](const Run& of_rows) {
                    for_runs({0, cols}, w_[s], d_.stride_w, d_.in.w, [&](const Run& of_cols) {
                        multiply_run(block, r, s, of_rows, of_cols, panels, view);
                    });
                });
            }
        const int64_t first = depthwise_ ? 0 : column_of(panels.begin);
        finish(block, {first, depthwise_ ? d_.groups : column_of(panels.end)});
    }

    // The first output channel of a panel.
    int64_t column_of(int64_t number) const {
        return number / panels_of_.count * d_.outputs + std::min(d_.outputs, panels_of_.begin(number % panels_of_.count) * lanes<T>);
    }

    void multiply_run(const Block& block, int64_t r, int64_t s, const Run& rows, const Run& cols, Range panels, const View<T>& view) const {
        const int64_t pixels = make_tables(block, r, s, rows.pixels, cols.pixels, view);
        const int64_t segments = make_segments(rows, h_[r], cols, w_[s], view.row_pitch, d_.in.c, inputs_, kernel_w_,
                                               depthwise_ ? 1 : depth_most, segments_);
        T* const c = pools() ? sums_ : d_.out + block.images.begin * d_.out_h * d_.out_w * d_.channels();
        if (depthwise_) return multiply_depthwise<T>(pixels, segments, d_.groups, view.origin, a_at_, segments_, packed_, c, c_at_);
        for (int64_t group = panels.begin / panels_of_.count; group * panels_of_.count < panels.end; ++group) {
            const Range of_group = {std::max<int64_t>(0, panels.begin - group * panels_of_.count),
                                    std::min(panels_of_.count, panels.end - group * panels_of_.count)};
            multiply_group(group, of_group, segments, pixels, view.origin + group * d_.inputs, c);
        }
    }

    int64_t make_tables(const Block& block, int64_t r, int64_t s, Range rows, Range cols, const View<T>& view) const {
        const int64_t top = pools() ? block.rows.begin : 0, height = pools() ? block.rows.end - block.rows.begin : d_.out_h;
        int64_t pixels = 0;
        for (int64_t n = 0; n < block.images.end - block.images.begin; ++n)
            for (int64_t i = rows.begin; i < rows.end; ++i) {
                const int64_t a = n * view.image_pitch + (i * d_.stride_h - view.top) * view.row_pitch;
                const int64_t c = (n * height + i * d_.step_h + r - top) * d_.out_w + s;
                for (int64_t j = cols.begin; j < cols.end; ++j, ++pixels) {
                    a_at_[pixels] = a + j * d_.stride_w * d_.in.c;
                    c_at_[pixels] = (c + j * d_.step_w) * d_.channels();
                }
            }
        return pixels;
    }

    void multiply_group(int64_t group, Range panels, int64_t segments, int64_t pixels, const T* a, T* c) const {
        PixelTile<T> t;
        t.a = a;
        const Segment *segment = segments_, *const end = segments_ + segments;
        do {
            t.segments = segment;
            int64_t deep = 0;
            while (segment != end && (deep == 0 || deep + segment->length <= depth_most)) deep += (segment++)->length;
            t.count = segment - t.segments;
            t.accumulate = t.segments != segments_;
            for (int64_t number = panels.begin; number < panels.end; ++number) {
                const int64_t begin = panels_of_.begin(number) * lanes<T>;
                const int vectors = static_cast<int>(panels_of_.begin(number + 1) - panels_of_.begin(number));
                t.b = panel(group, number);
                t.c = c + group * d_.outputs + begin;
                t.tail = static_cast<int>(lanes<T> - std::max<int64_t>(0, begin + vectors * lanes<T> - d_.outputs));
                const Parts strips(pixels, max_pixels(vectors));
                for (int64_t strip = 0; strip < strips.count; ++strip) {
                    const int64_t first = strips.begin(strip);
                    t.a_at = a_at_ + first;
                    t.c_at = c_at_ + first;
                    conv_tiles<T>.of_pixels[vectors - 1][strips.begin(strip + 1) - first - 1](t);
                }
            }
        } while (segment != end);
    }

    // The epilogue, or the pooling, of a block's columns.
    void finish(const Block& block, Range columns) const {
        const int64_t f = d_.channels(), count = columns.end - columns.begin;
        if (!pools()) {
            const int64_t top = block.rows.begin * d_.step_h, bottom = std::min(d_.out_h, block.rows.end * d_.step_h);
            const int64_t first = (block.images.begin * d_.out_h + top) * d_.out_w;
            const int64_t pixels = ((block.images.end - block.images.begin - 1) * d_.out_h + bottom - top) * d_.out_w;
            Epilogue<T>(*d_.epilogue, f, f)(d_.out + first * f + columns.begin, f, 0, first, columns.begin, pixels, count);
            return;
        }
        with_activation<T>(d_.epilogue->activation, d_.epilogue->activation_alpha, [&](auto function) {
            if (d_.pool.height == 2 && d_.pool.width == 2) {
                pool<2>(block, columns, function);
            } else {
                pool<0>(block, columns, function);
            }
        });
    }

    // The largest of a window's sums, then bias and activation: which never fall, so that their order doesn't matter.
    // Size: of the windows' sides, where the compiler is to know it.
    template <int Size, class F> void pool(const Block& block, Range columns, const F& function) const {
        const int64_t high = Size ? Size : d_.pool.height, wide = Size ? Size : d_.pool.width;
        const int64_t windows_h = d_.out_h / high, windows_w = d_.out_w / wide, f = d_.channels();
        const int64_t rows = block.rows.end - block.rows.begin, line = d_.out_w * f;
        const T* const bias = d_.epilogue->bias ? static_cast<const T*>(d_.epilogue->bias) : nullptr;
        const auto pool_window = [&](const T* sums, int64_t to) {
            for_vectors<T>(columns.end - columns.begin, [&](int64_t i, int n) {
                const int64_t k = columns.begin + i;
                const auto value = [&](int64_t p, int64_t q) { return load_upto(sums + p * line + q * f + k, n); };
                Vec<T> best = value(0, 0);
                Integers<Vec<T>> place{};
                for (int64_t p = 0; p < high; ++p)
                    for (int64_t q = p == 0; q < wide; ++q) {
                        const Vec<T> x = value(p, q);
                        const auto larger = (x > best) | (x != x);  // NaN is the largest
                        best = larger ? x : best;
                        place = larger ? static_cast<Integers<T>>(p * wide + q) - Integers<Vec<T>>{} : place;
                    }
                if (bias) best += load_upto(bias + k, n);
                store_upto(d_.out + to + k, function.forward(best), n);
                if (d_.argmax) store_bytes<T>(d_.argmax + to + k, place, n);
            });
        };
        for (int64_t n = block.images.begin; n < block.images.end; ++n) {
            const T* const image = sums_ + (n - block.images.begin) * rows * line;
            for (int64_t i = 0; i < rows / high; ++i)
                for (int64_t j = 0; j < windows_w; ++j) {
                    const int64_t window = (n * windows_h + block.rows.begin / high + i) * windows_w + j;
                    pool_window(image + (i * high * d_.out_w + j * wide) * f, window * f);
                }
        }
    }

    const Direction<T> d_;
    const bool depthwise_;
    const int64_t inputs_, kernel_w_, taps_count_;
    const Parts panels_of_;
    const Reader<T> reader_;
    Blocks blocks_;
    Taps *h_, *w_;  // for each remainder
    Tap* taps_;     // of rows, then of columns
    Segment* segments_;
    int64_t *a_at_, *c_at_;
    T *sums_, *copy_, *packed_;
};

template <class T, class Args> void convolve(Team& team, const Args& args) {
    const Direction<T> d = direction<T>(args);
    if (d.n == 0 || d.out_h == 0 || d.out_w == 0 || d.channels() == 0) return;
    Convolution<T>(d, team.scratch<char>(), team.shared<char>())(team);
}

template <class Args> Cost convolution_cost(const Args& args) {
    Cost cost;
    cost.work = operations(args.shape);
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const Convolution<T> c(direction<T>(args), nullptr, nullptr);
        cost.scratch = c.scratch_size;
        cost.shared = c.shared_size;
    });
    return cost;
}

// ---- the gradient at w ----------------------------------------------------------------------------------------------

template <class T> class WeightGradient {
public:
    WeightGradient(const tilefuse_conv2d_backward_weights_args& args, void* scratch, void* shared)
        : args_(args), s_(args.shape), depthwise_(depthwise(s_)), groups_(depthwise_ ? 1 : s_.groups),
          inputs_(depthwise_ ? 1 : s_.c / s_.groups), outputs_(s_.f / groups_),
          x_{.data = static_cast<const T*>(args.x), .h = s_.h, .w = s_.w, .c = s_.c, .rounds = rounds()},
          dy_{.data = static_cast<const T*>(args.dy), .h = s_.out_h, .w = s_.out_w, .c = s_.f, .pool = args.pool,
              .argmax = args.argmax, .rounds = rounds()},
          reader_(x_, s_.stride_h, -s_.pad_top, (s_.kernel_h - 1) * s_.dilation_h - s_.pad_top),
          panels_of_((outputs_ + lanes<T> - 1) / lanes<T>, max_vectors), rows_(taps_of(s_) * inputs_) {
        const int64_t pixel = static_cast<int64_t>(sizeof(T)) * std::max<int64_t>(1, s_.c * s_.stride_h * s_.stride_w);
        blocks_ = Blocks(s_.n, s_.out_h, s_.out_w, std::clamp<int64_t>(2 * image_bytes / pixel, 64, 256), 1);
        const int64_t pixels = blocks_.most_images * blocks_.most_rows * s_.out_w, taps = taps_of(s_);
        // Each slice has sums of its own: few where they are many numbers.
        constexpr int64_t slices_most = 16, slices_bytes = 4 << 20;
        const int64_t fit = slices_bytes / std::max<int64_t>(1, rows_ * s_.f * static_cast<int64_t>(sizeof(T)));
        slices_ = 1;
        while (2 * slices_ <= std::min({fit, slices_most, blocks_.count})) slices_ *= 2;

        Cut mine(scratch);
        taps_ = mine.take<Tap>(s_.kernel_h + s_.kernel_w);
        segments_ = mine.take<Segment>(taps);
        at_ = mine.take<int64_t>(pixels);
        panel_ = mine.take<T>(pixels * panel_columns<T>);
        copy_ = mine.take<T>(reader_.size(blocks_));
        scratch_size = mine.size();
        Cut ours(shared);
        sums_ = ours.take<T>(slices_ * rows_ * s_.f);
        bias_sums_ = ours.take<T>(slices_ * s_.f);
        shared_size = ours.size();
        if (scratch == nullptr) return;
        for (int64_t p = 0; p < s_.kernel_h; ++p) taps_[p] = {p * s_.dilation_h - s_.pad_top, p};
        for (int64_t q = 0; q < s_.kernel_w; ++q) taps_[s_.kernel_h + q] = {q * s_.dilation_w - s_.pad_left, q};
    }

    // Slices and panels of output channels are shared out.
    void operator()(Team& team) const {
        const int64_t panels = groups_ * panels_of_.count;
        const Range mine = team.range(slices_ * panels);
        for (int64_t unit = mine.begin; unit < mine.end;) {
            const int64_t slice = unit / panels, end = std::min(mine.end, (slice + 1) * panels);
            add_up(slice, {unit - slice * panels, end - slice * panels});
            unit = end;
        }
        team.barrier();
        finish(team, rows_ * s_.f, sums_, args_.kernel, args_.dw);
        if (has_bias()) finish(team, s_.f, bias_sums_, args_.bias, args_.db);
    }

    size_t scratch_size, shared_size;

private:
    // Output channels of a panel: [first, first + valid), `vectors` of them.
    struct Columns {
        int64_t group, first, valid;
        int vectors;
        int64_t pitch() const { return vectors * lanes<T>; }
    };

    bool rounds() const { return args_.precision == TILEFUSE_PRECISION_BFLOAT16; }
    bool has_bias() const { return args_.rule ? args_.bias.w != nullptr : args_.db != nullptr; }

    Columns columns_of(int64_t number) const {
        const int64_t group = number / panels_of_.count, panel = number % panels_of_.count, begin = panels_of_.begin(panel);
        const int vectors = static_cast<int>(panels_of_.begin(panel + 1) - begin);
        return {group, group * outputs_ + begin * lanes<T>, std::min<int64_t>(vectors * lanes<T>, outputs_ - begin * lanes<T>), vectors};
    }

    void add_up(int64_t slice, Range panels) const {
        T *const sums = sums_ + slice * rows_ * s_.f, *const bias_sums = bias_sums_ + slice * s_.f;
        for (int64_t number = panels.begin; number < panels.end; ++number) {
            const Columns columns = columns_of(number);
            for (int64_t row = 0; row < rows_; ++row) fill_zeros(sums + row * s_.f + columns.first, columns.valid);
            fill_zeros(bias_sums + columns.first, columns.valid);
        }
        const Taps h = {taps_, s_.kernel_h, 0}, w = {taps_ + s_.kernel_h, s_.kernel_w, 0};
        for (int64_t b = blocks_.count * slice / slices_; b < blocks_.count * (slice + 1) / slices_; ++b) {
            const Block block = blocks_[b];
            const View<T> view = reader_(block, copy_);
            for_runs(block.rows, h, s_.stride_h, s_.h, [&](const Run& rows) {
                for_runs({0, s_.out_w}, w, s_.stride_w, s_.w, [&](const Run& cols) {
                    const int64_t pixels = make_table(block, rows.pixels, cols.pixels, view);
                    const int64_t segments = make_segments(rows, h, cols, w, view.row_pitch, s_.c, inputs_, s_.kernel_w,
                                                           depthwise_ ? 1 : std::numeric_limits<int64_t>::max(), segments_);
                    for (int64_t number = panels.begin; number < panels.end; ++number) {
                        const Columns columns = columns_of(number);
                        copy_panel(block, rows.pixels, cols.pixels, columns);
                        if (has_bias()) add_columns(pixels, columns, bias_sums + columns.first);
                        add_panel(pixels, segments, columns, view.origin, sums + columns.first);
                    }
                });
            });
        }
    }

    int64_t make_table(const Block& block, Range rows, Range cols, const View<T>& view) const {
        int64_t pixels = 0;
        for (int64_t n = 0; n < block.images.end - block.images.begin; ++n)
            for (int64_t i = rows.begin; i < rows.end; ++i)
                for (int64_t j = cols.begin; j < cols.end; ++j)
                    at_[pixels++] = n * view.image_pitch + (i * s_.stride_h - view.top) * view.row_pitch + j * s_.stride_w * s_.c;
        return pixels;
    }

    void copy_panel(const Block& block, Range rows, Range cols, const Columns& columns) const {
        const int64_t image = (rows.end - rows.begin) * (cols.end - cols.begin) * columns.pitch();
        for (int64_t n = block.images.begin; n < block.images.end; ++n) {
            dy_.copy(n, rows, cols, {columns.first, columns.first + columns.valid}, columns.pitch(),
                     panel_ + (n - block.images.begin) * image);
        }
    }

    void add_panel(int64_t pixels, int64_t segments, const Columns& columns, const T* x, T* sums) const {
        if (depthwise_) {
            return add_depthwise<T>(pixels, segments, columns.vectors, columns.valid, x + columns.first, at_, segments_, panel_, sums, s_.f);
        }
        WeightTile<T> t;
        t.a_at = at_;
        t.pixels = pixels;
        t.b = panel_;
        t.c_stride = s_.f;
        t.tail = static_cast<int>(lanes<T> - (columns.pitch() - columns.valid));
        for (const Segment* segment = segments_; segment != segments_ + segments; ++segment) {
            const Parts strips(segment->length, max_rows(columns.vectors));
            for (int64_t strip = 0; strip < strips.count; ++strip) {
                const int64_t at = strips.begin(strip);
                t.a = x + columns.group * inputs_;
                t.at = segment->at + at;
                t.c = sums + (segment->row + at) * s_.f;
                conv_tiles<T>.of_weights[columns.vectors - 1][strips.begin(strip + 1) - at - 1](t);
            }
        }
    }

    void add_columns(int64_t pixels, const Columns& columns, T* sums) const {
        for (int v = 0; v < columns.vectors; ++v) {
            const int n = static_cast<int>(std::min<int64_t>(lanes<T>, columns.valid - v * lanes<T>));
            constexpr int64_t chains = 4;
            Vec<T> totals[chains] = {};
            const T* of_pixel = panel_ + v * lanes<T>;
            const int64_t pitch = columns.pitch();
            int64_t p = 0;
            for (; p + chains <= pixels; p += chains, of_pixel += chains * pitch) {
#pragma GCC unroll 4
                for (int64_t i = 0; i < chains; ++i) totals[i] += load(of_pixel + i * pitch);
            }
            for (; p < pixels; ++p, of_pixel += pitch) totals[0] += load(of_pixel);
            const Vec<T> total = (totals[0] + totals[1]) + (totals[2] + totals[3]);
            store_upto(sums + v * lanes<T>, load_upto(sums + v * lanes<T>, n) + total, n);
        }
    }

    // Adds the slices, and stores the gradient or updates the parameter with it.
    void finish(Team& team, int64_t count, T* sums, const tilefuse_parameter& parameter, void* gradient) const {
        const Range mine = team.range(count, lanes<T>);
        if (mine.begin >= mine.end) return;
        T* const to = args_.rule ? sums : static_cast<T*>(gradient);
        for_vectors<T>(mine.end - mine.begin, [&](int64_t i, int n) {
            Vec<T> total = load_upto(sums + mine.begin + i, n);
            for (int64_t slice = 1; slice < slices_; ++slice) total += load_upto(sums + slice * count + mine.begin + i, n);
            store_upto(to + mine.begin + i, total, n);
        });
        if (args_.rule) Update<T>(*args_.rule, parameter)(mine.begin, sums + mine.begin, mine.end - mine.begin);
    }

    const tilefuse_conv2d_backward_weights_args& args_;
    const tilefuse_conv2d_shape& s_;
    const bool depthwise_;
    const int64_t groups_, inputs_, outputs_;
    const Images<T> x_, dy_;
    const Reader<T> reader_;
    const Parts panels_of_;
    const int64_t rows_;
    int64_t slices_;
    Blocks blocks_;
    Tap* taps_;  // of rows, then of columns
    Segment* segments_;
    int64_t* at_;
    T *panel_, *copy_, *sums_, *bias_sums_;
};

template <class T> void zero_gradients(Team& team, const tilefuse_conv2d_backward_weights_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    if (team.rank > 0 || args.rule) return;
    fill_zeros(static_cast<T*>(args.dw), taps_of(s) * (s.c / s.groups) * s.f);
    if (args.db) fill_zeros(static_cast<T*>(args.db), s.f);
}

}  // namespace

void conv2d(Team& team, const tilefuse_conv2d_args& args) {
    by_dtype(args.dtype, [&](auto zero) { convolve<decltype(zero)>(team, args); });
}
Cost conv2d_cost(const tilefuse_conv2d_args& args) { return convolution_cost(args); }

void conv2d_backward_data(Team& team, const tilefuse_conv2d_backward_data_args& args) {
    by_dtype(args.dtype, [&](auto zero) { convolve<decltype(zero)>(team, args); });
}
Cost conv2d_backward_data_cost(const tilefuse_conv2d_backward_data_args& args) { return convolution_cost(args); }

void conv2d_backward_weights(Team& team, const tilefuse_conv2d_backward_weights_args& args) {
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const tilefuse_conv2d_shape& s = args.shape;
        if (s.n * s.out_h * s.out_w == 0) return zero_gradients<T>(team, args);
        if (s.f > 0) WeightGradient<T>(args, team.scratch<char>(), team.shared<char>())(team);
    });
}
Cost conv2d_backward_weights_cost(const tilefuse_conv2d_backward_weights_args& args) {
    Cost cost;
    cost.work = operations(args.shape);
    if (args.shape.n * args.shape.out_h * args.shape.out_w == 0) return cost;
    by_dtype(args.dtype, [&](auto zero) {
        const WeightGradient<decltype(zero)> gradient(args, nullptr, nullptr);
        cost.scratch = gradient.scratch_size;
        cost.shared = gradient.shared_size;
    });
    return cost;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
