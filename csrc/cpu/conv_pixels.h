// Convolution, and its gradient at x, which is the convolution of dy with the weights turned round: a member takes blocks
// of pixels; a tile is a few pixels by a panel of output channels, and adds up tap by tap. Or, by Winograd's filtering, windows
// of pixels are transformed, multiplied point by point, and transformed back (conv_winograd.h).
#pragma once

#include <optional>

#include "cpu/conv_depthwise.h"
#include "cpu/conv_plan.h"
#include "cpu/conv_tile_amx.h"
#include "cpu/conv_winograd.h"
#include "cpu/cut.h"
#include "cpu/matmul_epilogue.h"

namespace tilefuse::inline TILEFUSE_ISA {

// What the two directions differ in.
template <class E> struct Direction {
    using T = Sum<E>;

    Images<E> in;
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
    tilefuse_precision precision;
    tilefuse_conv2d_shape shape;

    int64_t channels() const { return groups * outputs; }
};

template <class E> Direction<E> direction(const tilefuse_conv2d_args& args) {
    using T = Sum<E>;
    const tilefuse_conv2d_shape s = planned(args.shape);
    const bool rounds = args.precision == TILEFUSE_PRECISION_BFLOAT16;
    constexpr Pairs pairs = is_pair<E> ? Pairs::channels : Pairs::none;
    const auto in_windows = [](int64_t size, int64_t window) { return window ? size / window * window : size; };
    return {.in = {.data = static_cast<const T*>(args.x), .n = s.n, .h = s.h, .w = s.w, .c = s.c, .rounds = rounds,
                   .pairs = pairs},
            .stride_h = s.stride_h, .stride_w = s.stride_w, .step_h = 1, .step_w = 1,
            .out = static_cast<T*>(args.y), .n = s.n, .out_h = in_windows(s.out_h, args.pool.height),
            .out_w = in_windows(s.out_w, args.pool.width),
            .groups = s.groups, .inputs = s.c / s.groups, .outputs = s.f / s.groups,
            .weights = static_cast<const T*>(args.w), .input_stride = s.f, .output_stride = 1,
            .tap_stride = s.c / s.groups * s.f, .group_stride = s.f / s.groups,
            .epilogue = &args.epilogue, .pool = args.pool, .argmax = args.argmax, .turned = false,
            .precision = args.precision, .shape = s};
}

template <class E> Direction<E> direction(const tilefuse_conv2d_backward_data_args& args) {
    using T = Sum<E>;
    const tilefuse_conv2d_shape s = planned(args.shape);
    const bool rounds = args.precision == TILEFUSE_PRECISION_BFLOAT16;
    constexpr Pairs pairs = is_pair<E> ? Pairs::channels : Pairs::none;
    return {.in = {.data = static_cast<const T*>(args.dy), .n = s.n, .h = s.out_h, .w = s.out_w, .c = s.f, .pool = args.pool,
                   .argmax = args.argmax, .rounds = rounds, .pairs = pairs},
            .stride_h = 1, .stride_w = 1, .step_h = s.stride_h, .step_w = s.stride_w,
            .out = static_cast<T*>(args.dx), .n = s.n, .out_h = s.h, .out_w = s.w,
            .groups = s.groups, .inputs = s.f / s.groups, .outputs = s.c / s.groups,
            .weights = static_cast<const T*>(args.w), .input_stride = 1, .output_stride = s.f,
            .tap_stride = s.c / s.groups * s.f, .group_stride = s.f / s.groups,
            .epilogue = &args.epilogue, .pool = {}, .argmax = nullptr, .turned = true, .precision = args.precision, .shape = s};
}

template <class E> class Convolution {
    using T = Sum<E>;

public:
    // Cuts the work; with memory, prepares it.
    Convolution(const Direction<E>& d, void* scratch, void* shared)
        : d_(d), by_channels_(by_channels<T>(d.shape, d.inputs, d.outputs)), of_groups_{d.groups, d.inputs, d.outputs},
          inputs_(d.in.pixel() / d.groups), kernel_w_(d.shape.kernel_w),
          taps_count_(taps_of(d.shape)), tiled_(fills_tiles()), panels_of_(vectors_of<T>(d.outputs), max_vectors) {
        // (With steps, what is written is passed once for each remainder.)
        const int64_t written = pools() || d.step_h * d.step_w > 1 ? d.channels() * d.step_h * d.step_w : 0;
        const int64_t numbers = std::max({d.in.pixel() * d.stride_h * d.stride_w, written, int64_t{1}});
        constexpr int64_t size = sizeof(T);
        most_ = std::clamp<int64_t>(image_bytes / (numbers * size), 4 * most_pixels, 1024);
        if (!by_channels_ && d.channels() * inputs_ * taps_count_ * size > weights_bytes) {
            const int64_t read = std::max(std::min(depth_most, inputs_ * taps_count_), pools() ? d.channels() : 0);
            most_ = std::clamp<int64_t>(image_bytes / (read * size), most_, 1024);
        }
        const Reach h = reach(d.step_h, d.stride_h, d.in.h, d.out_h, d.shape.kernel_h, d.shape.dilation_h, d.shape.pad_top);
        const Reach w = reach(d.step_w, d.stride_w, d.in.w, d.out_w, d.shape.kernel_w, d.shape.dilation_w, d.shape.pad_left);
        across_ = mostly_outside(h, w);
        windows_most_ = transforms(h, w) ? windows_together(d.inputs) : 0;
        blocks_ = make_blocks(1);
        reader_ = Reader<E>(d.in, h, w, padding(h, w),
                            by_channels_ ? spread_pitch<T>(d.in.c, d.shape.kernel_h, d.in.w) : d.in.pixel());
        const int64_t pixels = blocks_.most_images * blocks_.most_rows * grid_w(), tabled = by_channels_ ? 0 : pixels;

        Cut mine(scratch);
        h_ = mine.take<Taps>(d.step_h);
        w_ = mine.take<Taps>(d.step_w);
        taps_ = mine.take<Tap>(d.shape.kernel_h + d.shape.kernel_w);
        segments_ = mine.take<Segment>(by_channels_ ? 0 : most_segments(taps_count_, inputs_, depth_most));
        a_at_ = mine.take<int64_t>(tabled);
        c_at_ = mine.take<int64_t>(tabled);
        sums_ = mine.take<T>(pools() ? pixels * d.channels() : 0);
        copy_ = mine.take<E>(reader_.size(blocks_));
        const int64_t rows = winograd() ? taps_count_ * rows_packed : 0;
        lines_ = mine.take<T>(std::max(reader_.lines_size(), rows * panel_columns<T>));
        points_ = mine.take<T>(winograd_points * windows_most_ * inputs_);
        products_ = mine.take<T>(winograd_points * windows_most_ * panel_columns<T>);
        zeros_ = mine.take<T>(winograd() ? inputs_ : 0);
        if (selects()) take_group_channels(mine, of_groups_);
        scratch_size = mine.size();
        Cut ours(shared);
        const int64_t columns = d.groups * panels_of_.begin(panels_of_.count) * lanes<T>;
        packed_ = ours.take<E>((by_channels_ ? depthwise_pitch() : columns) * inputs_ *
                               (winograd() ? winograd_points : taps_count_));
        shared_size = ours.size();
        if (scratch == nullptr) return;
        if (selects()) of_groups_.prepare();
        if (winograd()) fill_zeros(zeros_, inputs_);
        make_taps(d.step_h, d.shape.kernel_h, d.shape.dilation_h, d.shape.pad_top, h_, taps_);
        make_taps(d.step_w, d.shape.kernel_w, d.shape.dilation_w, d.shape.pad_left, w_, taps_ + d.shape.kernel_h);
    }

    void operator()(Team& team) {
        pack(team);
        team.barrier();
        const int64_t panels = by_channels_ ? 1 : d_.groups * panels_of_.count;
        int columns = 1;  // so many share a block, each with panels of its own
        for (int c = 1; c <= std::min<int64_t>(team.size, panels) && blocks_.count * columns < 2 * team.size; ++c)
            if (team.size % c == 0) columns = c;
        blocks_ = make_blocks(team.size / columns);
        const int column = team.rank % columns, row = team.rank / columns, rows = team.size / columns;
        const Range mine = {panels * column / columns, panels * (column + 1) / columns};
        std::optional<TileRegisters> registers;
        if (tiled_) registers.emplace();
        for (int64_t b = blocks_.count * row / rows; b < blocks_.count * (row + 1) / rows; ++b) multiply(blocks_[b], mine);
    }

    size_t scratch_size, shared_size;

private:
    bool pools() const { return d_.pool.height > 0; }
    bool winograd() const { return windows_most_ > 0; }

    // Whether a row of taps is deep enough for tile registers.
    bool fills_tiles() const {
        const bool together = d_.groups == 1 && d_.shape.dilation_w == 1;
        return multiplies_tiles && is_pair<E> &&
               (together ? (kernel_w_ + d_.step_w - 1) / d_.step_w : 1) * inputs_ >= least_of_tile;
    }

    bool transforms(const Reach& h, const Reach& w) const {
        const double windows = product(d_.n * ((d_.out_h + 1) / 2), (d_.out_w + 1) / 2);
        return !is_pair<E> && may_transform<T>(d_.precision) && d_.pool.height % 2 == 0 &&
               winograd_pays<T>(d_.shape, windows, static_cast<double>(d_.n) * product(h.inside, w.inside), d_.inputs,
                                d_.outputs, 56, 40, 60, 1);
    }

    Padding padding(const Reach& h, const Reach& w) const {
        if (by_channels_) return padding_rows_pays(h, w, copying(d_.outputs)) ? Padding::of_rows : Padding::none;
        const bool pays = !winograd() && padding_pays(h, w, blocks_.most_images, copying(d_.outputs));
        return pays ? Padding::around : Padding::none;
    }

    int64_t depthwise_pitch() const { return vectors_of<T>(d_.channels()) * lanes<T>; }
    // Whether vectors take channels of several groups.
    bool selects() const { return by_channels_ && !of_groups_.is_depthwise(); }
    int64_t grid_w() const { return (d_.out_w + d_.step_w - 1) / d_.step_w; }
    Blocks make_blocks(int members) const {
        const int64_t grid_h = (d_.out_h + d_.step_h - 1) / d_.step_h, grain = pools() ? d_.pool.height : winograd() ? 2 : 1;
        // (Points are 16 / 9 of the weights, and 4 / 9 of the multiply-adds.)
        return {d_.n, grid_h, grid_w(), most_, grain, members, across_, by_channels_ ? 0.0 : winograd() ? 128.0 : 32.0};
    }

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

    Reach reach(int64_t step, int64_t stride, int64_t size, int64_t out, int64_t kernel, int64_t dilation, int64_t pad) const {
        return reach_of(stride, size, [&](int64_t r) { return (out - r + step - 1) / step; },
                        [&](const auto& body) { for_taps(step, kernel, dilation, pad, body); });
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
    E* panel(int64_t group, int64_t number) const {
        const int64_t depth = taps_count_ * inputs_;
        return packed_ + (group * panels_of_.begin(panels_of_.count) + panels_of_.begin(number)) * lanes<T> * depth;
    }

    const T* weights_of(int64_t tap) const {
        const int64_t index = taps_[tap / kernel_w_].index * kernel_w_ + taps_[d_.shape.kernel_h + tap % kernel_w_].index;
        return d_.weights + index * d_.tap_stride;
    }

    void pack(Team& team) const {
        if constexpr (!is_pair<E>) {
            if (winograd()) return pack_points(team);
            if (by_channels_) return pack_channels(team);
        }
        const int64_t together = d_.groups * panels_of_.count * taps_count_ < 8 * team.size ? 1 : 4;  // panels
        const int64_t parts = (panels_of_.count + together - 1) / together;
        const Range mine = team.range(d_.groups * parts * taps_count_);
        for (int64_t unit = mine.begin; unit < mine.end; ++unit) {
            const int64_t t = unit % taps_count_, first = unit / taps_count_ % parts * together, group = unit / taps_count_ / parts;
            pack_tap(group, t, {first, std::min(panels_of_.count, first + together)});
        }
    }

    // Output channels by themselves: [tap, input, channel], whole vectors.
    void pack_channels(Team& team) const {
        const int64_t pitch = depthwise_pitch(), channels = d_.channels();
        const bool together = (d_.outputs == 1 ? d_.group_stride : d_.output_stride) == 1;
        const Range mine = team.range(taps_count_ * d_.inputs);
        for (int64_t i = mine.begin; i < mine.end; ++i) {
            const T* const from = weights_of(i / d_.inputs) + i % d_.inputs * d_.input_stride;
            T* const to = packed_ + i * pitch;
            if (together) {
                std::memcpy(to, from, static_cast<size_t>(channels) * sizeof(T));
            } else {
                for (int64_t group = 0; group < d_.groups; ++group)
                    for (int64_t k = 0; k < d_.outputs; ++k)
                        to[group * d_.outputs + k] = from[group * d_.group_stride + k * d_.output_stride];
            }
            fill_zeros(to + channels, pitch - channels);
            if (d_.in.rounds) round_to_bfloat16(channels, to);
        }
    }

    // A tap's weights in some panels of a group.
    void pack_tap(int64_t group, int64_t t, Range panels) const {
        const T* const weights = weights_of(t) + group * d_.group_stride;
        if constexpr (std::is_same_v<T, float>)
            if (d_.in.rounds) return pack_tap(group, t, panels, reinterpret_cast<const Unrounded*>(weights));
        if constexpr (!is_pair<E>) pack_tap(group, t, panels, weights);
    }
    template <class S> void pack_tap(int64_t group, int64_t t, Range panels, const S* weights) const {
        if (d_.output_stride == 1) {
            const bool padded = panels_of_.begin(panels.end) * lanes<T> > d_.outputs;
            pack_panels(d_.inputs, panels_of_, panels.begin, panels.end - padded, weights, d_.input_stride, panel(group, 0),
                        taps_count_ * inputs_, t * inputs_);
            panels.begin = panels.end - padded;
        }
        for (int64_t number = panels.begin; number < panels.end; ++number) {
            const int64_t begin = panels_of_.begin(number) * lanes<T>,
                          columns = panels_of_.begin(number + 1) * lanes<T> - begin;
            pack_panel(d_.inputs, std::min(columns, d_.outputs - begin), columns, weights + begin * d_.output_stride,
                       d_.input_stride, d_.output_stride, panel(group, number) + t * inputs_ * columns);
        }
    }

    // The panels as points: [point, input channel, columns] each.
    void pack_points(Team& team) const {
        const int64_t parts = (inputs_ + rows_packed - 1) / rows_packed;
        const Range mine = team.range(panels_of_.count * parts);
        for (int64_t unit = mine.begin; unit < mine.end; ++unit) {
            const int64_t number = unit / parts, first = unit % parts * rows_packed,
                          rows = std::min(rows_packed, inputs_ - first);
            const int64_t begin = panels_of_.begin(number) * lanes<T>,
                          columns = panels_of_.begin(number + 1) * lanes<T> - begin;
            for (int64_t t = 0; t < taps_count_; ++t) {
                pack_panel(rows, std::min(columns, d_.outputs - begin), columns,
                           weights_of(t) + first * d_.input_stride + begin * d_.output_stride, d_.input_stride,
                           d_.output_stride, lines_ + t * rows * columns);
            }
            winograd_filters(lines_, rows * columns, rows * columns, point_panel(number, 0) + first * columns,
                             inputs_ * columns);
        }
    }
    T* point_panel(int64_t number, int64_t point) const {
        const int64_t begin = panels_of_.begin(number), columns = (panels_of_.begin(number + 1) - begin) * lanes<T>;
        return packed_ + (winograd_points * begin * lanes<T> + point * columns) * inputs_;
    }

    // A block's pixels in the panels [begin, end) of all groups'.
    void multiply(const Block& block, Range panels) {
        const View<E> view = reader_(block, lines_, copy_);
        if (winograd()) {
            if constexpr (!is_pair<E>) multiply_windows(block, panels, view);
        } else {
            multiply_runs(block, panels, view);
        }
        finish(block, by_channels_ ? Range{0, d_.channels()} : Range{column_of(panels.begin), column_of(panels.end)});
    }

    void multiply_runs(const Block& block, Range panels, const View<E>& view) const {
        for (int64_t r = 0; r < std::min(d_.step_h, d_.out_h); ++r)
            for (int64_t s = 0; s < std::min(d_.step_w, d_.out_w); ++s) {
                const int64_t bottom = std::min(block.rows.end, (d_.out_h - r + d_.step_h - 1) / d_.step_h);
                const int64_t cols = (d_.out_w - s + d_.step_w - 1) / d_.step_w;
                for_runs({block.rows.begin, bottom}, h_[r], d_.stride_h, reader_.rows, [&](const Run& of_rows) {
                    for_runs({0, cols}, w_[s], d_.stride_w, reader_.cols, [&](const Run& of_cols) {
                        multiply_run(block, r, s, of_rows, of_cols, panels, view);
                    });
                });
            }
    }

    // The first output channel of a panel.
    int64_t column_of(int64_t number) const {
        return number / panels_of_.count * d_.outputs +
               std::min(d_.outputs, panels_of_.begin(number % panels_of_.count) * lanes<T>);
    }

    void multiply_run(const Block& block, int64_t r, int64_t s, const Run& rows, const Run& cols, Range panels,
                      const View<E>& view) const {
        if constexpr (!is_pair<E>)
            if (by_channels_) return multiply_rows(block, r, s, rows, cols, view);
        const int64_t pixels = make_tables(block, r, s, rows.pixels, cols.pixels, view);
        const int64_t segments = make_segments(rows, h_[r], cols, w_[s], view.row_pitch, d_.in.pixel(), inputs_, kernel_w_,
                                               depth_most, segments_);
        T* const c = results(block);
        if (segments == 0) {  // pixels that meet no tap
            const int64_t first = column_of(panels.begin), past = column_of(panels.end);
            for (int64_t i = 0; i < pixels; ++i) fill_zeros(c + c_at_[i] + first, past - first);
            return;
        }
        for (int64_t group = panels.begin / panels_of_.count; group * panels_of_.count < panels.end; ++group) {
            const Range of_group = {std::max<int64_t>(0, panels.begin - group * panels_of_.count),
                                    std::min(panels_of_.count, panels.end - group * panels_of_.count)};
            multiply_group(group, of_group, segments, pixels, view.origin + group * inputs_, c);
        }
    }

    // Output channels by themselves, the run's pixels row by row.
    void multiply_rows(const Block& block, int64_t r, int64_t s, const Run& rows, const Run& cols, const View<T>& view) const {
        const Taps &h = h_[r], &w = w_[s];
        const int64_t pixel = reader_.pixel_pitch, p = rows.taps.begin, q = cols.taps.begin, pitch = depthwise_pitch();
        const bool none = rows.taps.end == p || cols.taps.end == q;
        DepthwiseRow<T> row = {.of_groups = selects() ? &of_groups_ : nullptr,
                               .channels = {},
                               .tap_rows = none ? 0 : rows.taps.end - p,
                               .taps = none ? 1 : cols.taps.end - q,
                               .row_pitch = h.apart() * view.row_pitch,
                               .tap_pitch = w.apart() * pixel,
                               .pixel_pitch = d_.stride_w * pixel,
                               .w_row_pitch = kernel_w_ * d_.inputs * pitch,
                               .w_pitch = d_.inputs * pitch,
                               .w_input_pitch = pitch,
                               .y_pitch = d_.step_w * d_.channels(),
                               .x = view.origin,
                               .w = packed_ + ((h.place + p) * kernel_w_ + w.place + q) * d_.inputs * pitch,
                               .y = results(block)};
        const DepthwiseSharing sharing(row.pixel_pitch, row.tap_pitch);
        const int64_t left = none ? 0 : (cols.pixels.begin * d_.stride_w + w[q].at) * pixel;
        // So many vectors' weights stay in L1 from row to row. (Zen 4, two threads, 8 x 14 x 14 x 256 in 32 groups: 0.53 ms
        // with all vectors row by row, 0.41 so; depthwise, 8 x 7 x 7 x 1024, the same.)
        constexpr int64_t weights_kept = 16 * 1024;
        const int64_t weights = taps_count_ * d_.inputs * lanes<T> * static_cast<int64_t>(sizeof(T));
        const Parts parts(vectors_of<T>(d_.channels()), std::max<int64_t>(1, weights_kept / weights));
        for (int64_t part = 0; part < parts.count; ++part) {
            const int64_t first = parts.begin(part) * lanes<T>;
            row.channels = {first, std::min(d_.channels(), parts.begin(part + 1) * lanes<T>)};
            for (int64_t n = 0; n < block.images.end - block.images.begin; ++n)
                for (int64_t i = rows.pixels.begin; i < rows.pixels.end; ++i) {
                    const int64_t top = none ? 0 : i * d_.stride_h - view.top + h[p].at;
                    row.x = view.origin + n * view.image_pitch + top * view.row_pitch + left;
                    row.y = results(block) + result_at(block, n, i * d_.step_h + r, cols.pixels.begin * d_.step_w + s);
                    multiply_depthwise(row, cols.pixels.end - cols.pixels.begin, sharing);
                }
        }
    }

    int64_t make_tables(const Block& block, int64_t r, int64_t s, Range rows, Range cols, const View<E>& view) const {
        int64_t pixels = 0;
        for (int64_t n = 0; n < block.images.end - block.images.begin; ++n)
            for (int64_t i = rows.begin; i < rows.end; ++i) {
                const int64_t a = n * view.image_pitch + (i * d_.stride_h - view.top) * view.row_pitch;
                const int64_t c = result_at(block, n, i * d_.step_h + r, s);
                for (int64_t j = cols.begin; j < cols.end; ++j, ++pixels) {
                    a_at_[pixels] = a + j * d_.stride_w * d_.in.pixel();
                    c_at_[pixels] = c + j * d_.step_w * d_.channels();
                }
            }
        return pixels;
    }

    void multiply_group(int64_t group, Range panels, int64_t segments, int64_t pixels, const E* a, T* c) const {
        PixelTile<E> t;
        t.a = a;
        const Segment *segment = segments_, *const end = segments_ + segments;
        while (segment != end) {
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
                const Parts strips(pixels, tiled_ ? tiled_rows(vectors) : max_pixels(vectors));
                for (int64_t strip = 0; strip < strips.count; ++strip) {
                    const int64_t first = strips.begin(strip);
                    t.a_at = a_at_ + first;
                    t.c_at = c_at_ + first;
                    multiply_tile(t, strips.begin(strip + 1) - first, vectors, tiled_);
                }
            }
        }
    }

    // Windows of 2 x 2 pixels, some at a time, by their points.
    struct Window {
        int64_t image, row, col;
    };
    void multiply_windows(const Block& block, Range panels, const View<T>& view) const {
        const int64_t of_row = (d_.out_w + 1) / 2, of_image = (block.rows.end - block.rows.begin + 1) / 2 * of_row;
        const Parts parts((block.images.end - block.images.begin) * of_image, windows_most_);
        for (int64_t part = 0; part < parts.count; ++part) {
            const int64_t first = parts.begin(part), count = parts.begin(part + 1) - first;
            const auto window = [&](int64_t i) -> Window {
                const int64_t in_image = (first + i) % of_image;
                return {(first + i) / of_image, block.rows.begin + in_image / of_row * 2, in_image % of_row * 2};
            };
            for (int64_t i = 0; i < count; ++i)
                transform_window(window(i), block.rows.end, view, points_ + i * inputs_, count * inputs_);
            for (int64_t number = panels.begin; number < panels.end; ++number) {
                const int64_t begin = panels_of_.begin(number) * lanes<T>,
                              pitch = panels_of_.begin(number + 1) * lanes<T> - begin;
                for (int64_t point = 0; point < winograd_points; ++point) {
                    multiply_strips<T>(From::rows, count, inputs_, static_cast<int>(pitch / lanes<T>),
                                       {.k = inputs_,
                                        .a = points_ + point * count * inputs_,
                                        .a_stride = inputs_,
                                        .b = point_panel(number, point),
                                        .b_stride = pitch,
                                        .c = products_ + point * count * pitch,
                                        .c_stride = pitch,
                                        .accumulate = false,
                                        .tail = lanes<T>});
                }
                for (int64_t i = 0; i < count; ++i)
                    write_window(block, window(i), products_ + i * pitch, count * pitch, begin,
                                 std::min(pitch, d_.outputs - begin), view);
            }
        }
    }

    void transform_window(const Window& window, int64_t bottom, const View<T>& view, T* points, int64_t pitch) const {
        const T* pixels[4][4];
        const int64_t above = h_[0][0].at, before = w_[0][0].at;
        window_pixels(view.image(window.image), view.row_pitch, d_.in.pixel(), std::min(d_.in.h, bottom + 2 + above),
                      std::min(d_.in.w, d_.out_w + 2 + before), window.row + above, window.col + before, zeros_, pixels);
        winograd_inputs(pixels, inputs_, points, pitch);
    }

    void write_window(const Block& block, const Window& window, const T* products, int64_t pitch, int64_t column, int64_t count,
                      const View<T>& view) const {
        T* pixels[2][2];
        for (int64_t i = 0; i < 2; ++i)
            for (int64_t j = 0; j < 2; ++j) {
                const bool inside = window.row + i < block.rows.end && window.col + j < d_.out_w;
                const int64_t at = result_at(block, window.image, window.row + i, window.col + j) + column;
                pixels[i][j] = inside ? results(block) + at : nullptr;
            }
        if (winograd_outputs(products, pitch, count, pixels)) return;
        for (int64_t i = 0; i < 2; ++i)  // infinity and NaN are not to spoil the neighbours
            for (int64_t j = 0; j < 2; ++j)
                if (pixels[i][j])
                    multiply_pixel(window.row + i, window.col + j, view.image(window.image), view.row_pitch, column, count,
                                   pixels[i][j]);
    }

    // Where a block's sums go: to memory, or what is pooled to scratch, which has the block's rows alone.
    T* results(const Block& block) const {
        return pools() ? sums_ : d_.out + block.images.begin * d_.out_h * d_.out_w * d_.channels();
    }
    int64_t result_at(const Block& block, int64_t image, int64_t row, int64_t col) const {
        const int64_t top = pools() ? block.rows.begin : 0, height = pools() ? block.rows.end - block.rows.begin : d_.out_h;
        return ((image * height + row - top) * d_.out_w + col) * d_.channels();
    }

    // One pixel as it is defined.
    void multiply_pixel(int64_t row, int64_t col, const T* image, int64_t row_pitch, int64_t column, int64_t count,
                        T* to) const {
        fill_zeros(to, count);
        for (int64_t t = 0; t < taps_count_; ++t) {
            const int64_t i = row + h_[0][t / kernel_w_].at, j = col + w_[0][t % kernel_w_].at;
            if (i < 0 || i >= d_.in.h || j < 0 || j >= d_.in.w) continue;
            const T *const x = image + i * row_pitch + j * d_.in.pixel(), *const w = weights_of(t) + column * d_.output_stride;
            if (d_.output_stride == 1) {
                for_vectors<T>(count, [&](int64_t k, int n) {
                    Vec<T> total = load_upto(to + k, n);
                    for (int64_t c = 0; c < inputs_; ++c) total += splat(x[c]) * load_upto(w + c * d_.input_stride + k, n);
                    store_upto(to + k, total, n);
                });
            } else {  // a filter's inputs are contiguous
                for (int64_t k = 0; k < count; ++k) {
                    Vec<T> total{};
                    for_vectors<T>(inputs_, [&](int64_t c, int n) {
                        total += load_upto(x + c, n) * load_upto(w + k * d_.output_stride + c, n);
                    });
                    to[k] += sum<T>(total);
                }
            }
        }
    }

    // The epilogue, or the pooling, of a block's columns.
    void finish(const Block& block, Range columns) const {
        const int64_t f = d_.channels(), count = columns.end - columns.begin;
        if (!pools()) {
            const int64_t top = block.rows.begin * d_.step_h, bottom = std::min(d_.out_h, block.rows.end * d_.step_h);
            const bool whole = bottom - top == d_.out_h;
            const Epilogue<T> epilogue(*d_.epilogue, f, f);
            for (int64_t n = block.images.begin; n < block.images.end; n = whole ? block.images.end : n + 1) {
                const int64_t first = (n * d_.out_h + top) * d_.out_w, images = whole ? block.images.end - n : 1;
                epilogue(d_.out + first * f + columns.begin, f, 0, first, columns.begin, images * (bottom - top) * d_.out_w,
                         count);
            }
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
        const int64_t high = Size ? Size : d_.pool.height, broad = Size ? Size : d_.pool.width;
        const int64_t windows_h = d_.out_h / high, windows_w = d_.out_w / broad, f = d_.channels();
        const int64_t rows = block.rows.end - block.rows.begin, line = d_.out_w * f;
        const T* const bias = d_.epilogue->bias ? static_cast<const T*>(d_.epilogue->bias) : nullptr;
        const auto pool_window = [&](const T* sums, int64_t to) {
            for_vectors<T>(columns.end - columns.begin, [&](int64_t i, int n) {
                const int64_t k = columns.begin + i;
                const auto value = [&](int64_t p, int64_t q) { return load_upto(sums + p * line + q * f + k, n); };
                Vec<T> best = value(0, 0);
                Integers<Vec<T>> place{};
                for (int64_t p = 0; p < high; ++p)
                    for (int64_t q = p == 0; q < broad; ++q) {
                        const Vec<T> x = value(p, q);
                        const auto larger = (x > best) | (x != x);  // NaN is the largest
                        best = larger ? x : best;
                        place = larger ? static_cast<Integers<T>>(p * broad + q) - Integers<Vec<T>>{} : place;
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
                    pool_window(image + (i * high * d_.out_w + j * broad) * f, window * f);
                }
        }
    }

    const Direction<E> d_;
    const bool by_channels_;  // each output channel by itself (conv_depthwise.h)
    GroupChannels<T> of_groups_;
    const int64_t inputs_, kernel_w_, taps_count_;
    const bool tiled_;
    const Parts panels_of_;
    Reader<E> reader_;
    int64_t most_;  // pixels of a block
    bool across_;   // all images, the same rows
    int64_t windows_most_ = 0;  // that are transformed together, where Winograd's filtering pays
    Blocks blocks_;
    Taps *h_, *w_;  // for each remainder
    Tap* taps_;     // of rows, then of columns
    Segment* segments_;
    int64_t *a_at_, *c_at_;
    T *sums_, *lines_, *points_, *products_, *zeros_;
    E *copy_, *packed_;
};

}  // namespace tilefuse::inline TILEFUSE_ISA
