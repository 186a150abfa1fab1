// The gradient of a convolution at its weights: a tile is a few input channels of a tap by a panel of output channels, and
// adds up pixel by pixel; or, turned round, a few output channels by a panel of input channels, where that fills vectors
// better; small groups are taken several as if they were one. The pixels are cut into slices, whose number depends on the shape
// alone, and the slices are added in their order: the bits don't depend on the number of threads. Or windows of pixels are
// transformed, and their products added up point by point (conv_winograd.h).
#pragma once

#include <optional>

#include "cpu/conv_depthwise.h"
#include "cpu/conv_plan.h"
#include "cpu/conv_tile_amx.h"
#include "cpu/conv_winograd.h"
#include "cpu/cut.h"
#include "cpu/optimizer.h"

namespace tilefuse::inline TILEFUSE_ISA {

// So many panels that pass are worth packing strips of x; as many panels as fit in `dy_bytes` pass together. (Cascade Lake,
// 3 x 3 with 512 channels and filters, strides of 2: 63 GFLOP/s without, 91 so; with 128 channels and filters, two panels, 90
// without and 75.)
constexpr int64_t panels_worth_strips_of_x = 4;
constexpr int64_t dy_bytes = 512 * 1024;

template <class E> class WeightGradient {
    using T = Sum<E>;

public:
    WeightGradient(const tilefuse_conv2d_backward_weights_args& args, void* scratch, void* shared)
        : args_(args), s_(planned(args.shape)),
          by_channels_(by_channels<T>(s_, s_.c / s_.groups, s_.f / s_.groups)),
          of_groups_{s_.groups, s_.c / s_.groups, s_.f / s_.groups}, merged_(groups_together()),
          groups_(by_channels_ ? 1 : s_.groups / merged_), inputs_(s_.c / s_.groups * merged_), outputs_(s_.f / groups_),
          x_{.data = static_cast<const T*>(args.x), .n = s_.n, .h = s_.h, .w = s_.w, .c = s_.c, .rounds = rounds(),
             .pairs = pairs},
          dy_{.data = static_cast<const T*>(args.dy), .n = s_.n, .h = s_.out_h, .w = s_.out_w, .c = s_.f, .pool = args.pool,
              .argmax = args.argmax, .rounds = rounds(), .pairs = pairs},
          turned_(turning_pays(merged_)), tiled_(fills_tiles()), columns_unit_(turned_ ? 1 : lanes<T>),
          panels_of_((outputs_ + columns_unit_ - 1) / columns_unit_, turned_ ? rows_of(segment_length()) : max_vectors) {
        const int64_t pixel = static_cast<int64_t>(sizeof(T)) * std::max<int64_t>(1, s_.c * s_.stride_h * s_.stride_w);
        const Reach h = reach(s_.stride_h, s_.h, s_.out_h, s_.kernel_h, s_.dilation_h, s_.pad_top);
        const Reach w = reach(s_.stride_w, s_.w, s_.out_w, s_.kernel_w, s_.dilation_w, s_.pad_left);
        winograd_ = !turned_ && merged_ == 1 && transforms(h, w);
        rows_ = (winograd_ ? winograd_points : taps_of(s_)) * inputs_;
        packs_ = !by_channels_ && !winograd_ && !turned_ && !tiled_ && panels_of_.count >= panels_worth_strips_of_x;
        const int64_t most = winograd_ ? 4 * windows_together(inputs_)
                                       : std::clamp<int64_t>(image_bytes / (2 * pixel), packs_ ? 128 : 64,
                                                             by_channels_ ? 4096 : 256);
        blocks_ = Blocks(x_.images(), s_.out_h, s_.out_w, most, winograd_ ? 2 : 1);
        reader_ = Reader<E>(x_, h, w, padding(h, w), by_channels_ ? spread_pitch<T>(s_.c, s_.kernel_h, s_.w) : x_.pixel());
        const int64_t pixels = blocks_.most_images * blocks_.most_rows * s_.out_w, taps = taps_of(s_);
        slices_ = slices_of_sums<T>(rows_ * s_.f, blocks_.count);

        Cut mine(scratch);
        taps_ = mine.take<Tap>(s_.kernel_h + s_.kernel_w);
        segments_ = mine.take<Segment>(by_channels_ ? 0 : taps);
        at_ = mine.take<int64_t>(by_channels_ ? 0 : pixels);
        if (packs_) {
            const int64_t panel = pixels * panel_columns<T> * static_cast<int64_t>(sizeof(T));
            panels_together_ = std::clamp<int64_t>(dy_bytes / panel, panels_worth_strips_of_x, panels_of_.count);
        }
        panel_ = mine.take<E>(reads_dy() ? 0 : panels_together_ * pixels * (turned_ ? most_rows : panel_columns<T>));
        strip_at_ = mine.take<int64_t>(packs_ ? pixels : 0);
        strips_ = mine.take<E>(packs_ ? strips_packed * pixels * most_rows : 0);
        copy_ = mine.take<E>(reader_.size(blocks_));
        lines_ = mine.take<T>(std::max(reader_.lines_size(), dy_.lines_size(s_.out_w, panel_columns<T>)));
        const int64_t windows = winograd_ ? blocks_.most_images * windows_of(blocks_.most_rows) : 0;
        points_ = mine.take<T>(winograd_points * windows * inputs_);
        gradients_ = mine.take<T>(winograd_points * windows * panel_columns<T>);
        zeros_ = mine.take<T>(winograd_ ? std::max(inputs_, panel_columns<T>) : 0);
        if (selects()) take_group_channels(mine, of_groups_);
        scratch_size = mine.size();
        Cut ours(shared);
        sums_ = ours.take<T>(slices_ * rows_ * s_.f);
        result_ = ours.take<T>(gathers() ? rows_ / merged_ * s_.f : 0);
        bias_sums_ = ours.take<T>(slices_ * s_.f);
        spoiled_ = ours.take<int>(1);
        shared_size = ours.size();
        if (scratch == nullptr) return;
        if (selects()) of_groups_.prepare();
        if (winograd_) fill_zeros(zeros_, std::max(inputs_, panel_columns<T>));
        for (int64_t p = 0; p < s_.kernel_h; ++p) taps_[p] = tap(p, s_.dilation_h, s_.pad_top);
        for (int64_t q = 0; q < s_.kernel_w; ++q) taps_[s_.kernel_h + q] = tap(q, s_.dilation_w, s_.pad_left);
    }

    // Slices and panels of output channels are shared out.
    void operator()(Team& team) {
        if (team.rank == 0) *spoiled_ = 0;
        add_up(team);
        if (winograd_) {
            if (!finish_points(team)) __atomic_store_n(spoiled_, 1, __ATOMIC_RELAXED);
            team.barrier();
            if (*spoiled_) {  // infinity and NaN are not to spoil other taps
                winograd_ = false;
                rows_ = taps_of(s_) * inputs_;
                add_up(team);
            }
        }
        if (winograd_) {
            update_points(team);
        } else if (gathers()) {
            gather(team);
            finish_slices(team, rows_ / merged_ * s_.f, 1, result_, args_.rule, args_.kernel, args_.dw);
        } else {
            finish_slices(team, rows_ * s_.f, slices_, sums_, args_.rule, args_.kernel, args_.dw);
        }
        if (has_bias()) finish_slices(team, s_.f, slices_, bias_sums_, args_.rule, args_.bias, args_.db);
    }

    size_t scratch_size, shared_size;

private:
    // Output channels of a panel, or turned of a strip: [first, first + valid), `pitch` from pixel to pixel of its copy.
    struct Columns {
        int64_t group, first, valid;
        int64_t pitch;
        int vectors() const { return static_cast<int>(vectors_of<T>(pitch)); }
    };

    // Input channels of a tap, or of a row of taps, where they lie together; of so many groups.
    int64_t segment_length(int64_t merged) const {
        return s_.c / s_.groups * merged * (merged == s_.groups && s_.dilation_w == 1 ? s_.kernel_w : 1);
    }
    int64_t segment_length() const { return segment_length(merged_); }
    static int rows_of(int64_t columns) {
        return max_rows(static_cast<int>(std::clamp<int64_t>(vectors_of<T>(columns), 1, max_vectors)));
    }
    // Multiply-adds of vectors for rows x columns of sums, or as many as a tile takes at least: it waits for its results.
    static double work_of(int64_t rows, int64_t columns) {
        const Parts panels(vectors_of<T>(columns), max_vectors), strips(rows, rows_of(columns));
        constexpr double of_tile = 8;
        return std::max(product(rows, vectors_of<T>(columns)), of_tile * product(panels.count, strips.count));
    }
    static constexpr double copying_dy = 1.15;
    double straight_work(int64_t merged) const { return work_of(segment_length(merged), s_.f / s_.groups * merged); }
    double turned_work(int64_t merged) const { return copying_dy * work_of(s_.f / s_.groups * merged, segment_length(merged)); }
    // (Cascade Lake, 10 x 39 x 36 x 176, 2 filters of 4 x 4: 16.9 ms, 4.0 turned; 45 x 48 x 14 x 92, 28 filters in 4 groups: 28
    // and 14.6; 42 x 10 x 8 x 120, 23 filters of 6 x 6: 15.9 and 10.8.)
    bool turning_pays(int64_t merged) const {
        return !is_pair<E> && !by_channels_ && turned_work(merged) < straight_work(merged);
    }

    // So many groups are multiplied as if they were one, where that takes the least work: small ones fill neither vectors nor
    // tiles. The sums of one group's inputs with another's outputs are thrown away. (Zen 4, two threads: 16 x 39 x 102 x 28 to
    // 8 in 4 groups, 1 x 1 with strides of 2: 0.32 and 0.06 ms; 4 x 60 x 65 x 18 to 8 in 2 groups, 1 x 1: 0.16 and 0.08.)
    int64_t groups_together() const {
        if (by_channels_ || s_.groups == 1) return 1;
        const auto work = [&](int64_t merged) {
            const double rows = product(taps_of(s_), s_.c / s_.groups * merged);
            const double segments = rows / static_cast<double>(segment_length(merged));
            const double panels = static_cast<double>(vectors_of<T>(s_.f / s_.groups * merged));
            constexpr double copying_a_panel = 4;
            const double tiles = turning_pays(merged) ? turned_work(merged) : straight_work(merged);
            return (segments * tiles + copying_a_panel * panels) / static_cast<double>(merged);
        };
        int64_t best = 1;
        for (int64_t merged = 2; merged <= std::min<int64_t>(s_.groups, lanes<T>); ++merged)
            if (s_.groups % merged == 0 && work(merged) < work(best)) best = merged;
        return best;
    }

    Padding padding(const Reach& h, const Reach& w) const {
        if (by_channels_) return padding_rows_pays(h, w, copying(of_groups_.outputs)) ? Padding::of_rows : Padding::none;
        const bool pays = !winograd_ && padding_pays(h, w, blocks_.most_images, copying(outputs_));
        return pays ? Padding::around : Padding::none;
    }
    // Whether vectors take channels of several groups.
    bool selects() const { return by_channels_ && !of_groups_.is_depthwise(); }

    // Whether both what lies together of x and the pixels of all images do.
    bool fills_tiles() const {
        return multiplies_tiles && is_pair<E> && segment_length() >= least_of_tile &&
               s_.out_h * s_.out_w * x_.images() >= least_of_tile;
    }

    // (Sums of points go to memory once a block, and at the end.)
    bool transforms(const Reach& h, const Reach& w) const {
        const double windows = product(s_.n, windows_of(s_.out_h)),
                     blocks = windows / static_cast<double>(windows_together(inputs_));
        return !is_pair<E> && may_transform<T>(args_.precision) &&
               winograd_pays<T>(s_, windows, static_cast<double>(s_.n) * product(h.inside, w.inside), inputs_, outputs_, 56, 64,
                                80, 1 + blocks);
    }

    // Windows of 2 x 2 pixels of so many rows of an image.
    int64_t windows_of(int64_t rows) const { return (rows + 1) / 2 * ((s_.out_w + 1) / 2); }

    static Tap tap(int64_t index, int64_t dilation, int64_t pad) { return {index * dilation - pad, index}; }

    static Reach reach(int64_t stride, int64_t size, int64_t out, int64_t kernel, int64_t dilation, int64_t pad) {
        return reach_of(stride, size, [&](int64_t) { return out; }, [&](const auto& body) {
            for (int64_t t = 0; t < kernel; ++t) body(0, tap(t, dilation, pad));
        });
    }

    bool rounds() const { return args_.precision == TILEFUSE_PRECISION_BFLOAT16; }
    // dy as it lies; else copied to a panel.
    bool reads_dy() const { return by_channels_ && dy_.as_they_lie(); }
    bool has_bias() const { return args_.rule ? args_.bias.w != nullptr : args_.db != nullptr; }

    Columns columns_of(int64_t number) const {
        const int64_t group = number / panels_of_.count, panel = number % panels_of_.count, begin = panels_of_.begin(panel);
        const int64_t pitch = (panels_of_.begin(panel + 1) - begin) * columns_unit_;
        return {group, group * outputs_ + begin * columns_unit_, std::min(pitch, outputs_ - begin * columns_unit_), pitch};
    }

    void add_up(Team& team) const {
        const int64_t panels = groups_ * panels_of_.count;
        const Range mine = team.range(slices_ * panels);
        std::optional<TileRegisters> registers;
        if (tiled_) registers.emplace();
        for (int64_t unit = mine.begin; unit < mine.end;) {
            const int64_t slice = unit / panels, end = std::min(mine.end, (slice + 1) * panels);
            add_up(slice, {unit - slice * panels, end - slice * panels});
            unit = end;
        }
        registers.reset();
        team.barrier();
    }

    void add_up(int64_t slice, Range panels) const {
        T *const sums = sums_ + slice * rows_ * s_.f, *const bias_sums = bias_sums_ + slice * s_.f;
        for (int64_t number = panels.begin; number < panels.end; ++number) {
            const Columns columns = columns_of(number);
            if (turned_) fill_zeros(sums + columns.first * rows_, columns.valid * rows_);
            for (int64_t row = 0; row < rows_ && !turned_; ++row) fill_zeros(sums + row * s_.f + columns.first, columns.valid);
            fill_zeros(bias_sums + columns.first, columns.valid);
        }
        const Taps h = {taps_, s_.kernel_h, 0}, w = {taps_ + s_.kernel_h, s_.kernel_w, 0};
        for (int64_t b = blocks_.count * slice / slices_; b < blocks_.count * (slice + 1) / slices_; ++b) {
            const Block block = blocks_[b];
            const View<E> view = reader_(block, lines_, copy_);
            if constexpr (!is_pair<E>) {
                if (winograd_) {
                    add_windows(block, view, panels, sums, bias_sums);
                    continue;
                }
            }
            for_runs(block.rows, h, s_.stride_h, reader_.rows, [&](const Run& rows) {
                for_runs({0, s_.out_w}, w, s_.stride_w, reader_.cols, [&](const Run& cols) {
                    if constexpr (!is_pair<E>)
                        if (by_channels_) return add_rows(block, h, rows, w, cols, panels, view, sums, bias_sums);
                    const int64_t pixels = make_table(block, rows.pixels, cols.pixels, view);
                    const int64_t most = turned_ ? segment_length() : std::numeric_limits<int64_t>::max();
                    const int64_t segments =
                        make_segments(rows, h, cols, w, view.row_pitch, s_.c, inputs_, s_.kernel_w, most, segments_);
                    for (Range some = {panels.begin, panels.begin}; some.begin < panels.end; some.begin = some.end) {
                        some.end = past_alike(some.begin, panels.end);
                        for (int64_t number = some.begin; number < some.end; ++number) {
                            const Columns columns = columns_of(number);
                            E* const panel = panel_ + (number - some.begin) * pixels * columns.pitch;
                            copy_panel(block, rows.pixels, cols.pixels, columns, panel);
                            if (has_bias()) add_columns(pixels, columns, panel, columns.pitch, bias_sums + columns.first);
                        }
                        add_panels(pixels, segments, some, view.origin, sums);
                    }
                });
            });
        }
    }

    // A block's pixels as windows of 2 x 2, by their points (conv_winograd.h).
    void add_windows(const Block& block, const View<T>& view, Range panels, T* sums, T* bias_sums) const {
        const int64_t images = block.images.end - block.images.begin, height = block.rows.end - block.rows.begin;
        const int64_t windows = images * windows_of(height);
        const auto for_windows = [&](const auto& body) {
            int64_t window = 0;
            for (int64_t n = 0; n < images; ++n)
                for (int64_t i = 0; i < height; i += 2)
                    for (int64_t j = 0; j < s_.out_w; j += 2) body(window++, n, i, j);
        };
        for_windows([&](int64_t window, int64_t n, int64_t i, int64_t j) {
            const T* pixels[4][4];
            window_pixels(view.image(n), view.row_pitch, s_.c, std::min(s_.h, block.rows.end + 2 - s_.pad_top),
                          std::min(s_.w, s_.out_w + 2 - s_.pad_left), block.rows.begin + i - s_.pad_top, j - s_.pad_left,
                          zeros_, pixels);
            winograd_inputs(pixels, inputs_, points_ + window * inputs_, windows * inputs_);
        });
        for (int64_t number = panels.begin; number < panels.end; ++number) {
            const Columns columns = columns_of(number);
            const int64_t pitch = columns.pitch;
            copy_panel(block, block.rows, {0, s_.out_w}, columns, panel_);
            if (has_bias()) add_columns(images * height * s_.out_w, columns, panel_, pitch, bias_sums + columns.first);
            for_windows([&](int64_t window, int64_t n, int64_t i, int64_t j) {
                const T* pixels[2][2];
                window_pixels(panel_ + n * height * s_.out_w * pitch, s_.out_w * pitch, pitch, height, s_.out_w, i, j, zeros_,
                              pixels);
                winograd_gradients(pixels, pitch, gradients_ + window * pitch, windows * pitch);
            });
            for (int64_t point = 0; point < winograd_points; ++point) {
                multiply_strips<T>(From::columns, inputs_, 1, columns.vectors(),
                                   {.k = windows,
                                    .a = points_ + point * windows * inputs_,
                                    .a_stride = inputs_,
                                    .b = gradients_ + point * windows * pitch,
                                    .b_stride = pitch,
                                    .c = sums + point * inputs_ * s_.f + columns.first,
                                    .c_stride = s_.f,
                                    .accumulate = true,
                                    .tail = static_cast<int>(lanes<T> - (pitch - columns.valid))});
            }
        }
    }

    int64_t make_table(const Block& block, Range rows, Range cols, const View<E>& view) const {
        int64_t pixels = 0;
        for (int64_t n = 0; n < block.images.end - block.images.begin; ++n)
            for (int64_t i = rows.begin; i < rows.end; ++i)
                for (int64_t j = cols.begin; j < cols.end; ++j, ++pixels) {
                    at_[pixels] = n * view.image_pitch + (i * s_.stride_h - view.top) * view.row_pitch + j * s_.stride_w * s_.c;
                }
        return pixels;
    }

    // Output channels by themselves, the run's pixels row by row.
    void add_rows(const Block& block, const Taps& h, const Run& rows, const Taps& w, const Run& cols, Range panels,
                  const View<T>& view, T* sums, T* bias_sums) const {
        const int64_t images = block.images.end - block.images.begin, p = rows.taps.begin, q = cols.taps.begin;
        const int64_t height = rows.pixels.end - rows.pixels.begin, width = cols.pixels.end - cols.pixels.begin;
        const bool none = rows.taps.end == p || cols.taps.end == q;
        if (none && !has_bias()) return;
        for (int64_t number = panels.begin; number < panels.end; ++number) {
            const Columns columns = columns_of(number);
            const bool lies = reads_dy();
            if (!lies) copy_panel(block, rows.pixels, cols.pixels, columns, panel_);
            const int64_t pitch = lies ? s_.f : columns.pitch, row_pitch = (lies ? s_.out_w : width) * pitch,
                          image_pitch = (lies ? s_.out_h : height) * row_pitch;
            const int64_t first = (rows.pixels.begin * s_.out_w + cols.pixels.begin) * s_.f + columns.first;
            const T* const dy = lies ? dy_.image(block.images.begin) + first : panel_;
            if (has_bias())
                for (int64_t n = 0; n < images; ++n)
                    for (int64_t i = 0; i < height; ++i)
                        add_columns(width, columns, dy + n * image_pitch + i * row_pitch, pitch, bias_sums + columns.first);
            if (none) continue;
            const int64_t top = rows.pixels.begin * s_.stride_h - view.top + h[p].at,
                          left = cols.pixels.begin * s_.stride_w + w[q].at;
            const DepthwiseGradient<T> gradient = {.of_groups = selects() ? &of_groups_ : nullptr,
                                                   .images = images,
                                                   .rows = height,
                                                   .cols = width,
                                                   .x_image_pitch = view.image_pitch,
                                                   .x_row_pitch = s_.stride_h * view.row_pitch,
                                                   .pixel_pitch = s_.stride_w * reader_.pixel_pitch,
                                                   .row_pitch = h.apart() * view.row_pitch,
                                                   .tap_pitch = w.apart() * reader_.pixel_pitch,
                                                   .dy_image_pitch = image_pitch,
                                                   .dy_row_pitch = row_pitch,
                                                   .dy_pitch = pitch,
                                                   .w_row_pitch = s_.kernel_w * inputs_ * s_.f,
                                                   .w_pitch = inputs_ * s_.f,
                                                   .w_input_pitch = s_.f,
                                                   .x = view.origin + top * view.row_pitch + left * reader_.pixel_pitch,
                                                   .dy = dy,
                                                   .dw = sums + (p * s_.kernel_w + q) * inputs_ * s_.f + columns.first,
                                                   .first = columns.first};
            add_depthwise(gradient, rows.taps.end - p, cols.taps.end - q, columns.valid,
                          DepthwiseSharing(gradient.pixel_pitch, gradient.tap_pitch));
        }
    }

    // The panels from `number` on that are alike and are multiplied together.
    int64_t past_alike(int64_t number, int64_t end) const {
        const Columns first = columns_of(number);
        int64_t past = number + 1;
        for (; past < std::min(end, number + panels_together_); ++past) {
            const Columns next = columns_of(past);
            if (next.group != first.group || next.pitch != first.pitch) break;
        }
        return past;
    }

    void copy_panel(const Block& block, Range rows, Range cols, const Columns& columns, E* panel) const {
        const int64_t image = (rows.end - rows.begin) * (cols.end - cols.begin) * columns.pitch;
        for (int64_t i = block.images.begin; i < block.images.end; ++i) {
            dy_.copy(i, rows, cols, {columns.first, columns.first + columns.valid}, columns.pitch, lines_,
                     panel + (i - block.images.begin) * image);
        }
    }

    void add_panels(int64_t pixels, int64_t segments, Range numbers, const E* x, T* sums) const {
        x += columns_of(numbers.begin).group * inputs_;
        for (const Segment* segment = segments_; segment != segments_ + segments; ++segment) {
            if (turned_) {
                add_turned(pixels, *segment, numbers, x, sums);
            } else {
                add_segment(pixels, *segment, numbers, x, sums);
            }
        }
    }

    void add_segment(int64_t pixels, const Segment& segment, Range numbers, const E* x, T* sums) const {
        const int vectors = columns_of(numbers.begin).vectors(), rows = tiled_ ? tiled_rows(vectors) : max_rows(vectors);
        const bool packs = packs_ && numbers.end - numbers.begin >= panels_worth_strips_of_x;
        for (int64_t p = 0; packs && p < pixels; ++p) strip_at_[p] = p * rows;
        const Parts strips(segment.length, rows);
        WeightTile<E> t;
        t.x_at = packs ? strip_at_ : at_;
        t.pixels = pixels;
        t.c_stride = s_.f;
        for (int64_t strip = 0, past; strip < strips.count; strip = past) {
            past = std::min(strips.count, packs ? strip + strips_packed : strips.count);
            if (packs) pack_strips_of(pixels, rows, strips, {strip, past}, x + segment.at);
            for (int64_t number = numbers.begin; number < numbers.end; ++number) {
                const Columns columns = columns_of(number);
                t.dy = panel_ + (number - numbers.begin) * pixels * columns.pitch;
                t.tail = static_cast<int>(lanes<T> - (columns.pitch - columns.valid));
                for (int64_t i = strip; i < past; ++i) {
                    const int64_t at = strips.begin(i);
                    t.x = packs ? strips_ + (i - strip) * pixels * rows : x + segment.at + at;
                    t.c = sums + columns.first + (segment.row + at) * s_.f;
                    multiply_tile(t, strips.begin(i + 1) - at, vectors, tiled_);
                }
            }
        }
    }

    void add_turned(int64_t pixels, const Segment& segment, Range numbers, const E* x, T* sums) const {
        const Parts parts(vectors_of<T>(segment.length), max_vectors);
        WeightTile<E> t;
        t.x_at = at_;
        t.pixels = pixels;
        t.c_stride = rows_;
        for (int64_t number = numbers.begin; number < numbers.end; ++number) {
            const Columns columns = columns_of(number);
            t.dy = panel_ + (number - numbers.begin) * pixels * columns.pitch;
            for (int64_t part = 0; part < parts.count; ++part) {
                const int64_t at = parts.begin(part) * lanes<T>, end = parts.begin(part + 1) * lanes<T>;
                t.tail = static_cast<int>(lanes<T> - std::max<int64_t>(0, end - segment.length));
                t.x = x + segment.at + at;
                t.c = sums + columns.first * rows_ + segment.row + at;
                conv_tiles<E>.of_weights[1][(end - at) / lanes<T> - 1][columns.valid - 1](t);
            }
        }
    }

    // strips[strip, pixel, rows] = these strips' channels of x.
    void pack_strips_of(int64_t pixels, int rows, const Parts& strips, Range some, const E* x) const {
        const T* const from = reinterpret_cast<const T*>(x);
        for (int64_t first = 0; first < pixels; first += rows_packed) {
            const int64_t end = std::min(pixels, first + rows_packed);
            for (int64_t i = some.begin; i < some.end; ++i) {
                T* to = reinterpret_cast<T*>(strips_) + ((i - some.begin) * pixels + first) * rows;
                const int64_t at = strips.begin(i);
                for (int64_t p = first; p < end; ++p, to += rows)
                    for_vectors<T>(strips.begin(i + 1) - at, [&](int64_t k, int n) {
                        store_upto(to + k, load_upto(from + at_[p] + at + k, n), n);
                    });
            }
        }
    }

    // The first n numbers of a pixel of dy; or the sums of its pairs, which lie in a panel of whole vectors.
    static Vec<T> numbers(const E* pixel, [[maybe_unused]] int n) {
        if constexpr (is_pair<E>) {
            const Vec<E> pairs_of_pixel = load(pixel);
            return firsts(pairs_of_pixel) + seconds(pairs_of_pixel);
        } else {
            return load_upto(pixel, n);
        }
    }

    // Those of dy, `pitch` from pixel to pixel.
    void add_columns(int64_t pixels, const Columns& columns, const E* dy, int64_t pitch, T* sums) const {
        for (int v = 0; v < columns.vectors(); ++v) {
            const int n = static_cast<int>(std::min<int64_t>(lanes<T>, columns.valid - v * lanes<T>));
            constexpr int64_t chains = 4;
            Vec<T> totals[chains] = {};
            const E* of_pixel = dy + v * lanes<T>;
            int64_t p = 0;
            for (; p + chains <= pixels; p += chains, of_pixel += chains * pitch) {
#pragma GCC unroll 4
                for (int64_t i = 0; i < chains; ++i) totals[i] += numbers(of_pixel + i * pitch, n);
            }
            for (; p < pixels; ++p, of_pixel += pitch) totals[0] += numbers(of_pixel, n);
            const Vec<T> total = (totals[0] + totals[1]) + (totals[2] + totals[3]);
            store_upto(sums + v * lanes<T>, load_upto(sums + v * lanes<T>, n) + total, n);
        }
    }

    // Whether the sums lie otherwise than the gradient.
    bool gathers() const { return turned_ || merged_ > 1; }

    // result[tap, input channel, output channel] = the sums of all slices: turned back, and those inside a group alone.
    void gather(Team& team) const {
        const int64_t inputs = inputs_ / merged_, outputs = outputs_ / merged_, all = rows_ * s_.f;
        // So many rows lie together, in the sums and in the result. Many are shared out, else parts and groups.
        const int64_t run = merged_ > 1 ? inputs : rows_, units = rows_ / merged_ / run * s_.groups;
        const Range whole = {0, units}, of_units = merged_ > 1 ? team.range(units) : whole;
        const Range mine = merged_ > 1 ? Range{0, run} : team.range(run, lanes<T>);
        for (int64_t unit = of_units.begin; unit < of_units.end; ++unit) {
            const int64_t part = unit / s_.groups, group = unit % s_.groups;
            const int64_t row = part * run * merged_ + group % merged_ * run, column = group * outputs;
            T* const to = result_ + part * run * s_.f;
            if (turned_) {
                for_vectors<T>(std::max<int64_t>(0, mine.end - mine.begin), [&](int64_t i, int n) {
                    for (int64_t k = column; k < column + outputs; ++k) {
                        const Vec<T> total = sum_of_slices(sums_ + k * rows_ + row + mine.begin + i, all, n);
                        for (int lane = 0; lane < n; ++lane) to[(mine.begin + i + lane) * s_.f + k] = total[lane];
                    }
                });
            } else {
                for (int64_t i = mine.begin; i < mine.end; ++i)
                    for_vectors<T>(outputs, [&](int64_t k, int n) {
                        store_upto(to + i * s_.f + column + k, sum_of_slices(sums_ + (row + i) * s_.f + column + k, all, n), n);
                    });
            }
        }
        team.barrier();
    }
    Vec<T> sum_of_slices(const T* first, int64_t pitch, int n) const {
        Vec<T> total{};
        for (int64_t slice = 0; slice < slices_; ++slice) total += load_upto(first + slice * pitch, n);
        return total;
    }

    // Adds the slices of sums of points, and makes the gradient at the filters of them. Returns whether it is finite.
    bool finish_points(Team& team) const {
        const int64_t count = inputs_ * s_.f;
        const Range mine = team.range(count, lanes<T>);
        T* const to = args_.rule ? sums_ : static_cast<T*>(args_.dw);
        Vec<T> spoiled{};
        for_vectors<T>(std::max<int64_t>(0, mine.end - mine.begin), [&](int64_t i, int n) {
            Vec<T> points[4][4], filter[3][3];
            for (int64_t point = 0; point < winograd_points; ++point) {
                Vec<T>& total = points[point / 4][point % 4] = Vec<T>{};
                for (int64_t slice = 0; slice < slices_; ++slice)
                    total += load_upto(sums_ + (slice * winograd_points + point) * count + mine.begin + i, n);
            }
            winograd_filter_gradient<T>(points, filter);
            for (int64_t t = 0; t < 9; ++t) {
                const Vec<T>& tap = filter[t / 3][t % 3];
                spoiled += tap - tap;  // NaN of infinity and NaN
                store_upto(to + t * count + mine.begin + i, tap, n);
            }
        });
        return sum<T>(spoiled) == 0;
    }
    void update_points(Team& team) const {
        const int64_t count = inputs_ * s_.f;
        const Range mine = team.range(count, lanes<T>);
        if (!args_.rule || mine.begin >= mine.end) return;
        const Update<T> update(*args_.rule, args_.kernel);
        for (int64_t t = 0; t < 9; ++t) update(t * count + mine.begin, sums_ + t * count + mine.begin, mine.end - mine.begin);
    }

    static constexpr Pairs pairs = is_pair<E> ? Pairs::images : Pairs::none;

    const tilefuse_conv2d_backward_weights_args& args_;
    const tilefuse_conv2d_shape s_;
    const bool by_channels_;  // each output channel by itself (conv_depthwise.h)
    GroupChannels<T> of_groups_;
    const int64_t merged_;                     // groups of the shape that are one here
    const int64_t groups_, inputs_, outputs_;  // so many groups, and channels of each
    const Images<E> x_, dy_;
    Reader<E> reader_;
    const bool turned_;  // output channels are the rows of tiles, and of sums
    const bool tiled_;   // in tile registers
    const int64_t columns_unit_;
    const Parts panels_of_;
    bool winograd_, packs_;
    int64_t rows_;  // of sums: of each tap, or point, and input channel
    int64_t slices_;
    Blocks blocks_;
    Tap* taps_;  // of rows, then of columns
    Segment* segments_;
    int64_t* at_;
    int64_t panels_together_ = 1;
    int64_t* strip_at_;  // of each pixel
    E *panel_, *copy_, *strips_;
    int* spoiled_;  // shared: whether sums of points are not finite
    T *lines_, *points_, *gradients_, *zeros_, *sums_, *result_, *bias_sums_;
};

}  // namespace tilefuse::inline TILEFUSE_ISA
