// How a convolution is cut: taps into segments, pixels into blocks, and the tables by which tiles find them.
#pragma once

#include <limits>
#include <numeric>

#include "cpu/conv_images.h"
#include "cpu/conv_tile.h"
#include "cpu/matmul_pack.h"
#include "cpu/optimizer.h"
#include "tilefuse/conv.h"

namespace tilefuse::inline TILEFUSE_ISA {

inline double product(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }
inline int64_t taps_of(const tilefuse_conv2d_shape& s) { return s.kernel_h * s.kernel_w; }

// The shape without strides that lead nowhere: work and memory go by strides, which may be any number there.
inline tilefuse_conv2d_shape planned(tilefuse_conv2d_shape s) {
    if (s.out_h <= 1) s.stride_h = 1;
    if (s.out_w <= 1) s.stride_w = 1;
    return s;
}
// Channels, or filters, of a group. (To divide takes as long as ten multiply-adds.)
inline int64_t of_group(int64_t channels, int64_t groups) { return groups > 1 ? channels / groups : channels; }
inline double multiply_adds(const tilefuse_conv2d_shape& s) {
    return product(s.n * s.out_h, s.out_w) * product(s.f, taps_of(s)) * static_cast<double>(of_group(s.c, s.groups));
}

// The sums may be transformed where float32 was asked for, and not its very multiply-adds.
template <class T> bool may_transform(tilefuse_precision precision) {
    return std::is_same_v<T, float> && precision == TILEFUSE_PRECISION_FLOAT32;
}

// Blocks: an image's part that a block of pixels reads stays in L2, and a panel of weights, so many rows deep, in L1.
constexpr int64_t image_bytes = 384 * 1024;
constexpr int64_t depth_most = 384;
// Weights of more bytes than these come from L3 for every block: then a block is larger, so that what it reads at a time
// fills so much of L2. (Cascade Lake, 4 x 14 x 14 x 512, 512 filters of 3 x 3 with strides of 2: 18.4 ms with 28 pixels, 13.4 so.)
constexpr int64_t weights_bytes = 512 * 1024;

// A convolution with its taps as offsets. The pixel (i, j) of phase (row, col) is the output's (row + i step_h,
// col + j step_w), and reads the input at (i stride_h + tap.h, j stride_w + tap.w) for each of the phase's taps, where that
// is inside. Forward there is one phase. Backward to x there is one for each remainder of the division by the strides: a
// pixel of x meets the taps that step from it to a pixel of y. Rows and columns of taps are independent of one another.
struct Tap {
    int64_t at;     // h or w
    int64_t index;  // p or q of its weights
};

// Those of one axis for one remainder, in the order in which they lie in the image; the first is number `place` of all.
struct Taps {
    const Tap* first;
    int64_t count, place;

    const Tap& operator[](int64_t i) const { return first[i]; }
    int64_t apart() const { return count > 1 ? first[1].at - first[0].at : 1; }  // neighbours
};

inline int64_t remainder_of(int64_t a, int64_t b) { return (a % b + b) % b; }

// Neighbouring pixels of one axis that meet the same taps.
struct Run {
    Range pixels, taps;
};

// body(run) for the runs of the pixels [begin, end) that step by `stride` over `image`, which is [0, its size), or all that
// there is where it is copied with zeros around it.
template <class Body> void for_runs(Range pixels, const Taps& taps, int64_t stride, Range image, const Body& body) {
    const auto met = [&](int64_t pixel) {  // the taps are in ascending order
        Range inside = {0, taps.count};
        while (inside.begin < inside.end && pixel * stride + taps[inside.begin].at < image.begin) ++inside.begin;
        while (inside.end > inside.begin && pixel * stride + taps[inside.end - 1].at >= image.end) --inside.end;
        return inside.begin == inside.end ? Range{0, 0} : inside;
    };
    for (int64_t i = pixels.begin; i < pixels.end;) {
        const Range of_first = met(i);
        int64_t end = i + 1;
        for (; end < pixels.end; ++end) {
            const Range here = met(end);
            if (here.begin != of_first.begin || here.end != of_first.end) break;
        }
        body(Run{{i, end}, of_first});
        i = end;
    }
}

// The sums of gradients at weights are cut into slices of pixels, at most `most`. Each slice has `numbers` sums of its own:
// few slices where these are many. How many there are depends on the shape alone.
template <class T> int64_t slices_of_sums(int64_t numbers, int64_t most) {
    constexpr int64_t slices_most = 16, slices_bytes = 4 << 20;
    const int64_t fit = slices_bytes / std::max<int64_t>(1, numbers * static_cast<int64_t>(sizeof(T)));
    int64_t slices = 1;
    while (2 * slices <= std::min({fit, slices_most, most})) slices *= 2;
    return slices;
}

// Adds the slices, [slices, count], and stores the gradient or updates the parameter with it.
template <class T>
void finish_slices(const Team& team, int64_t count, int64_t slices, T* sums, const tilefuse_optimizer_rule* rule,
                   const tilefuse_parameter& parameter, void* gradient) {
    const Range mine = team.range(count, lanes<T>);
    if (mine.begin >= mine.end) return;
    T* const to = rule ? sums : static_cast<T*>(gradient);
    for_vectors<T>(mine.end - mine.begin, [&](int64_t i, int n) {
        Vec<T> total = load_upto(sums + mine.begin + i, n);
        for (int64_t slice = 1; slice < slices; ++slice) total += load_upto(sums + slice * count + mine.begin + i, n);
        store_upto(to + mine.begin + i, total, n);
    });
    if (rule) Update<T>(*rule, parameter)(mine.begin, sums + mine.begin, mine.end - mine.begin);
}

// The pixels that are worked on together: some rows of an image, or some whole images.
struct Block {
    Range images, rows;
};

// [images] x [rows] in blocks of about `most` pixels or less, at least `grain` rows: some images, or one image's rows, or
// `across` images the same few rows. Members take about as many blocks each, one after the other: smaller ones where that
// shares out the pixels more equally, though a block's weights have to come first, for as long as `waiting` pixels take. (32 by
// count: 256 bytes of weights come from L3 in some 32 cycles, in which 26 pixels are multiplied with them. Cascade
// Lake, two threads, 3 x 23 x 21 x 89, 22 filters of 7 x 7: 4.06 ms with blocks of two images and one, 3.08 so.)
class Blocks {
public:
    Blocks() = default;
    Blocks(int64_t images, int64_t rows, int64_t cols, int64_t most, int64_t grain, int64_t members = 1, bool across = false,
           double waiting = 32)
        : rows_(rows), grain_(grain) {
        const int64_t tall = (rows + grain - 1) / grain;
        const int64_t fit = std::max<int64_t>(1, most / std::max<int64_t>(1, cols * grain));  // lines of `grain` rows
        const Parts of_rows(tall, across ? 1 : std::min(fit, std::max<int64_t>(1, tall)));
        cut({images, of_rows.count > 1 && !across ? 1 : std::max<int64_t>(1, fit / std::max<int64_t>(1, across ? 1 : tall))},
            of_rows);
        const bool alike = of_images_.largest() == of_images_.smallest() && of_rows.largest() == of_rows.smallest();
        if (members == 1 || across || count == 0 || (alike && count % members == 0)) return;

        Blocks best = *this;
        double least = time(members, cols, waiting);
        const auto consider = [&](const Parts& images_of, const Parts& rows_of) {
            Blocks other = *this;
            other.cut(images_of, rows_of);
            if (const double t = other.time(members, cols, waiting); t < least) least = t, best = other;
        };
        const int64_t equal = (count + members - 1) / members * members, even = members / std::gcd(images, members);
        if (of_rows.count == 1) consider({images, (images + equal - 1) / equal}, of_rows);
        for (const int64_t parts : {(equal + images - 1) / images, even, 2 * even})  // of an image
            if (const int64_t fewer = std::min(parts, tall); fewer >= of_rows.count)
                consider({images, 1}, {tall, (tall + fewer - 1) / fewer});
        *this = best;
    }

    Block operator[](int64_t block) const {
        const int64_t i = block / of_rows_.count, r = block % of_rows_.count;
        return {{of_images_.begin(i), of_images_.begin(i + 1)},
                {of_rows_.begin(r) * grain_, std::min(rows_, of_rows_.begin(r + 1) * grain_)}};
    }

    int64_t count = 0, most_rows = 0, most_images = 0;

private:
    void cut(const Parts& of_images, const Parts& of_rows) {
        of_images_ = of_images, of_rows_ = of_rows;
        count = of_images.count * of_rows.count;
        most_rows = std::min(rows_, of_rows.largest() * grain_);
        most_images = of_images.largest();
    }

    // Lines of all blocks before this one.
    int64_t lines_before(int64_t block) const {
        const int64_t i = block / of_rows_.count, first = of_images_.begin(i);
        return first * of_rows_.begin(of_rows_.count) +
               (of_images_.begin(i + 1) - first) * of_rows_.begin(block - i * of_rows_.count);
    }
    // Of the member with most to do, in lines.
    double time(int64_t members, int64_t cols, double waiting) const {
        int64_t most = 0, before = 0;
        for (int64_t m = 1; m <= members; ++m) {
            const int64_t past = lines_before(count * m / members);
            most = std::max(most, past - before);
            before = past;
        }
        const int64_t pixels = std::max<int64_t>(1, most_images * most_rows * cols);
        return static_cast<double>(most) * (1 + waiting / static_cast<double>(pixels));
    }

    Parts of_images_, of_rows_;
    int64_t rows_ = 0, grain_ = 1;
};

// What pixels of one axis read of an image: from pixel * stride + first to pixel * stride + last.
struct Reach {
    int64_t stride, size, pixels;
    int64_t first = std::numeric_limits<int64_t>::max(), last = std::numeric_limits<int64_t>::min();
    int64_t taps = 0;    // of all pixels
    int64_t inside = 0;  // those of them that the image has
    int64_t begun = 0;   // those that the runs' first pixels meet, about
    int64_t apart = stride;  // of so many lines, from the first on, one is read

    bool leaves() const { return first < 0 || (pixels - 1) * stride + last >= size; }
    Range whole() const { return {first, std::max<int64_t>(0, pixels - 1) * stride + last + 1}; }
    int64_t length() const { return whole().end - whole().begin; }
};

// for_taps(body) calls body(phase, tap) for the taps of all phases, one phase after the other; a phase has pixels_of(phase)
// pixels.
template <class PixelsOf, class ForTaps>
Reach reach_of(int64_t stride, int64_t size, const PixelsOf& pixels_of, const ForTaps& for_taps) {
    Reach reach{stride, size, pixels_of(0)};
    int64_t phase = -1, pixels = 0, met = 0, runs = 0, first_met = 0, past_met = 0;
    const auto finish_phase = [&] {
        reach.inside += met;
        if (pixels > 0) reach.begun += runs * met / pixels;
    };
    for_taps([&](int64_t of, const Tap& tap) {
        if (of != phase) {
            finish_phase();
            phase = of, pixels = pixels_of(of), met = 0, runs = 1, first_met = past_met = 0;
        }
        if (reach.taps > 0) reach.apart = std::gcd(reach.apart, tap.at - reach.first);
        reach.first = std::min(reach.first, tap.at);
        reach.last = std::max(reach.last, tap.at);
        reach.taps += pixels;
        const auto pixel_at = [&](int64_t place) {  // the first one whose tap is not before it
            return std::clamp<int64_t>(place > tap.at ? (place - tap.at + stride - 1) / stride : 0, 0, pixels);
        };
        const int64_t begin = pixel_at(0), end = pixel_at(size);
        met += end - begin;
        runs += (begin > 0 && begin < pixels && begin != first_met) + (end > 0 && end < pixels && end != past_met);
        first_met = begin, past_met = end;
    });
    finish_phase();
    if (reach.taps == 0) reach.first = reach.last = 0;
    return reach;
}

// Whether most taps are outside: then runs are short, and the same ones of several images are taken together.
inline bool mostly_outside(const Reach& h, const Reach& w) { return 2 * product(h.inside, w.inside) < product(h.taps, w.taps); }

// What it costs to copy a pixel's channels that are multiplied with so many outputs.
inline double copying(int64_t outputs) { return 4.0 / static_cast<double>(std::max<int64_t>(1, outputs)); }

// Whether images are to be copied with zeros around them: then all pixels meet the same taps, and make one run. Counted in
// multiply-adds of a pixel and a tap, of which a run's beginning costs some, and a pixel's copy `copying`. (Cascade Lake, two
// threads, 25 convolutions with padding: with a beginning of 8 3 % faster in the mean than with 16, 42 x 10 x 8 x 120 with 23
// filters of 6 x 6 by 1.5, 29 x 10 x 38 x 24 with 100 of 5 x 5 by 1.7; with one of 4, 4 x 14 x 14 x 512 with dilated
// filters takes 10 % longer.)
inline bool padding_pays(const Reach& h, const Reach& w, int64_t images, double copying) {
    if (!h.leaves() && !w.leaves()) return false;
    constexpr double beginning = 8;
    const double n = static_cast<double>(images), taps = product(h.taps, w.taps);
    const double in_runs = n * product(h.inside, w.inside) + beginning * product(h.begun, w.begun);
    const double padded = n * (taps + copying * product(h.length(), w.length())) +
                          beginning * taps / product(std::max<int64_t>(1, h.pixels), std::max<int64_t>(1, w.pixels));
    return padded < in_runs;
}

// A block's part of the input: row `top` and column 0 of its first image are at `origin`.
template <class E> struct View {
    const E* origin;
    int64_t image_pitch, row_pitch, top;

    const E* image(int64_t i) const { return origin + i * image_pitch - top * row_pitch; }  // row 0, if it is there
};

// Each output channel by itself, whether rows are to be copied with zeros before and after them: the other pixels' sums are
// then one tile's as well. Above and below nothing is gained, since each row of pixels is by itself. Counted as above, where
// `copying` is. (Cascade Lake, two threads: 8 x 7 x 7 x 512 with 5 x 5 0.33 ms, 0.21 so; 12 x 12 x 64 with 7 x 7 0.12 and 0.06;
// 8 x 56 x 56 x 128 with 3 x 3 1.85, 1.92 with copies.)
inline bool padding_rows_pays(const Reach& h, const Reach& w, double copying) {
    if (!w.leaves()) return false;
    constexpr double beginning = 4;
    const double taps = product(h.inside, w.taps);
    const double in_runs = product(h.inside, w.inside) + beginning * product(h.inside, w.begun);
    const double padded = taps + beginning * taps / static_cast<double>(std::max<int64_t>(1, w.pixels)) +
                          copying * product(std::min(h.size, h.length()), w.length());
    return padded < in_runs;
}

enum class Padding { none, of_rows, around };

// Each output channel by itself: how far apart pixels are to be in copies, in elements; `channels`, as they lie, where they
// needn't be copied. Where pixels lie whole multiples of 2 KB apart, a channel's pixels share one or two sets of L1 (64 sets of
// lines of 64 bytes, of 8 ways or 12), and push each other out before the next row of taps meets them again. (Zen 4, two
// threads, 3 x 3, forward, dx and dw: 8 x 14 x 14 x 512 0.37, 0.49 and 0.47 ms as they lie, 0.24, 0.24 and 0.26 so; dw of
// 8 x 7 x 7 x 1024 0.41 to 0.46 and 0.17 to 0.24.)
template <class T> int64_t spread_pitch(int64_t channels, int64_t tap_rows, int64_t cols) {
    constexpr int64_t size = sizeof(T), page = 4096, line = 64, ways = 8;
    const int64_t pitch = channels * size, sets = page / std::gcd(page, pitch);
    const bool crowded = pitch % (page / 2) == 0 && tap_rows > 1 && tap_rows * cols > ways * sets;
    return crowded ? channels + line / size : channels;
}

// The rows of images that blocks read, copied where they can't be used as they lie, or are to have zeros around them. (What no
// tap reads between them is left as it was.)
template <class E> class Reader {
public:
    Reader() = default;
    Reader(const Images<E>& images, const Reach& h, const Reach& w, Padding padding, int64_t pixel_pitch)
        : rows{0, images.h}, cols{0, images.w}, pixel_pitch(pixel_pitch), images_(images), reach_(h),
          copies_(padding != Padding::none || pixel_pitch != images.pixel() || !images.as_they_lie()) {
        if (padding == Padding::around) rows = h.whole();
        if (padding != Padding::none) cols = w.whole();
    }

    int64_t size(const Blocks& blocks) const {
        if (!copies_) return 0;
        const int64_t height =
            std::min(rows.end - rows.begin, (blocks.most_rows - 1) * reach_.stride + reach_.last - reach_.first + 1);
        return blocks.most_images * std::max<int64_t>(0, height) * row_pitch();
    }
    int64_t row_pitch() const { return (cols.end - cols.begin) * pixel_pitch; }
    int64_t lines_size() const { return images_.lines_size(images_.w, pixel_pitch); }

    View<E> operator()(const Block& block, Sum<E>* lines, E* copy) const {
        if constexpr (!is_pair<E>)
            if (!copies_) return {images_.image(block.images.begin), images_.h * row_pitch(), row_pitch(), 0};
        const int64_t top = std::clamp(block.rows.begin * reach_.stride + reach_.first, rows.begin, rows.end);
        const int64_t bottom = std::clamp((block.rows.end - 1) * reach_.stride + reach_.last + 1, top, rows.end);
        E* to = copy;
        for (int64_t i = block.images.begin; i < block.images.end; ++i)
            for (int64_t row = top; row < bottom; ++row, to += row_pitch())
                if ((row - reach_.first) % reach_.apart == 0) copy_row(i, row, lines, to);
        return {copy - cols.begin * pixel_pitch, (bottom - top) * row_pitch(), row_pitch(), top};
    }

    Range rows{}, cols{};     // of the image, or of more than it has
    int64_t pixel_pitch = 0;  // of what blocks read, in elements

private:
    void copy_row(int64_t i, int64_t row, Sum<E>* lines, E* to) const {
        const Range inside = {std::clamp<int64_t>(0, cols.begin, cols.end), std::clamp(images_.w, cols.begin, cols.end)};
        if (row < 0 || row >= images_.h || inside.begin >= inside.end) return fill_zeros(to, row_pitch());
        fill_zeros(to, (inside.begin - cols.begin) * pixel_pitch);
        images_.copy(i, {row, row + 1}, inside, {0, images_.c}, pixel_pitch, lines,
                     to + (inside.begin - cols.begin) * pixel_pitch);
        fill_zeros(to + (inside.end - cols.begin) * pixel_pitch, (cols.end - inside.end) * pixel_pitch);
    }

    Images<E> images_{};
    Reach reach_{};
    bool copies_ = false;
};

// The segments of a run of rows and one of columns: neighbours in memory are one, of at most `most` elements. `cols_all`
// is how many taps a row has in the panels, which have `inputs` rows for each. Returns how many segments.
inline int64_t make_segments(const Run& rows, const Taps& h, const Run& cols, const Taps& w, int64_t row_pitch, int64_t pitch,
                             int64_t inputs, int64_t cols_all, int64_t most, Segment* segments) {
    int64_t made = 0;
    for (int64_t p = rows.taps.begin; p < rows.taps.end; ++p)
        for (int64_t q = cols.taps.begin; q < cols.taps.end; ++q) {
            const Segment here = {h[p].at * row_pitch + w[q].at * pitch, inputs,
                                  ((h.place + p) * cols_all + w.place + q) * inputs};
            if (made > 0) {
                Segment& last = segments[made - 1];
                const bool next = last.at + last.length == here.at && last.row + last.length == here.row;
                if (next && last.length + inputs <= most) {
                    last.length += inputs;
                    continue;
                }
            }
            for (int64_t done = 0; done < inputs; done += most)
                segments[made++] = {here.at + done, std::min(most, inputs - done), here.row + done};
        }
    return made;
}
inline int64_t most_segments(int64_t taps, int64_t inputs, int64_t most) { return taps * ((inputs + most - 1) / most); }

}  // namespace tilefuse::inline TILEFUSE_ISA
