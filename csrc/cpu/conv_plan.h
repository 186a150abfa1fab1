// How a convolution is cut: taps into segments, pixels into blocks, and the tables by which tiles find them.
#pragma once

#include "cpu/conv_images.h"
#include "cpu/conv_tile.h"
#include "cpu/matmul_pack.h"
#include "tilefuse/conv.h"

namespace tilefuse::inline TILEFUSE_ISA {

inline int64_t taps_of(const tilefuse_conv2d_shape& s) { return s.kernel_h * s.kernel_w; }
inline bool depthwise(const tilefuse_conv2d_shape& s) { return s.groups > 1 && s.groups == s.c && s.groups == s.f; }

// Blocks: an image's part that a block of pixels reads stays in L2, and a panel of weights, so many rows deep, in L1.
constexpr int64_t image_bytes = 384 * 1024;
constexpr int64_t depth_most = 384;

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
};

inline int64_t remainder_of(int64_t a, int64_t b) { return (a % b + b) % b; }

// Neighbouring pixels of one axis that meet the same taps.
struct Run {
    Range pixels, taps;
};

// body(run) for the runs of the pixels [begin, end) that step by `stride` over an image of `size`.
template <class Body> void for_runs(Range pixels, const Taps& taps, int64_t stride, int64_t size, const Body& body) {
    const auto met = [&](int64_t pixel) {  // the taps are in ascending order
        Range inside = {0, taps.count};
        while (inside.begin < inside.end && pixel * stride + taps[inside.begin].at < 0) ++inside.begin;
        while (inside.end > inside.begin && pixel * stride + taps[inside.end - 1].at >= size) --inside.end;
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

// The pixels that are worked on together: some rows of an image, or some whole images.
struct Block {
    Range images, rows;
};

// [images] x [rows] in blocks of about `most` pixels or less, at least `grain` rows; as many for each of `members` if there
// are enough.
class Blocks {
public:
    Blocks() = default;
    Blocks(int64_t images, int64_t rows, int64_t cols, int64_t most, int64_t grain, int64_t members = 1)
        : rows_(rows), grain_(grain) {
        const int64_t tall = (rows + grain - 1) / grain;
        const int64_t fit = std::clamp<int64_t>(most / std::max<int64_t>(1, cols * grain), 1, std::max<int64_t>(1, tall));
        of_rows_ = Parts(tall, fit);
        const int64_t area = std::max<int64_t>(1, rows * cols);
        of_images_ = Parts(images, of_rows_.count > 1 ? 1 : std::max<int64_t>(1, most / area));
        count = of_images_.count * of_rows_.count;
        if (const int64_t equal = (count + members - 1) / members * members; equal > count) {
            const int64_t parts = (equal + images - 1) / images;  // of an image
            if (of_rows_.count == 1 && parts == 1) {
                of_images_ = Parts(images, (images + equal - 1) / equal);
            } else if (parts <= tall) {
                of_images_ = Parts(images, 1);
                of_rows_ = Parts(tall, (tall + parts - 1) / parts);
            }
            count = of_images_.count * of_rows_.count;
        }
        most_rows = std::min(rows, of_rows_.largest() * grain);
        most_images = of_images_.largest();
    }

    Block operator[](int64_t block) const {
        const int64_t i = block / of_rows_.count, r = block % of_rows_.count;
        return {{of_images_.begin(i), of_images_.begin(i + 1)},
                {of_rows_.begin(r) * grain_, std::min(rows_, of_rows_.begin(r + 1) * grain_)}};
    }

    int64_t count = 0, most_rows = 0, most_images = 0;

private:
    Parts of_images_, of_rows_;
    int64_t rows_ = 0, grain_ = 1;
};

// A block's part of the input: row `top` and column 0 of its first image are at `origin`.
template <class E> struct View {
    const E* origin;
    int64_t image_pitch, row_pitch, top;
};

// The rows of images that blocks read, copied where they can't be used as they lie.
template <class E> class Reader {
public:
    // A block's rows [begin, end) read the images' rows from begin * stride + first on, to (end - 1) * stride + last.
    Reader(const Images<E>& images, int64_t stride, int64_t first, int64_t last)
        : images_(images), stride_(stride), first_(first), last_(last) {}

    int64_t size(const Blocks& blocks) const {
        if (images_.as_they_lie()) return 0;
        const int64_t height = std::min(images_.h, (blocks.most_rows - 1) * stride_ + last_ - first_ + 1);
        return blocks.most_images * std::max<int64_t>(0, height) * row_pitch();
    }
    int64_t row_pitch() const { return images_.w * images_.pixel(); }
    int64_t lines_size() const { return images_.lines_size(images_.w, images_.pixel()); }

    View<E> operator()(const Block& block, Sum<E>* lines, E* copy) const {
        if constexpr (std::is_same_v<E, Sum<E>>)
            if (images_.as_they_lie()) return {images_.image(block.images.begin), images_.h * row_pitch(), row_pitch(), 0};
        const int64_t top = std::clamp<int64_t>(block.rows.begin * stride_ + first_, 0, images_.h);
        const int64_t bottom = std::clamp<int64_t>((block.rows.end - 1) * stride_ + last_ + 1, top, images_.h);
        for (int64_t i = block.images.begin; i < block.images.end; ++i) {
            images_.copy(i, {top, bottom}, {0, images_.w}, {0, images_.c}, images_.pixel(), lines,
                         copy + (i - block.images.begin) * (bottom - top) * row_pitch());
        }
        return {copy, (bottom - top) * row_pitch(), row_pitch(), top};
    }

private:
    const Images<E> images_;
    const int64_t stride_, first_, last_;
};

// The segments of a run of rows and one of columns: neighbours in memory are one, of at most `most` elements. `cols_all`
// is how many taps a row has in the panels, which have `inputs` rows for each. Returns how many segments.
inline int64_t make_segments(const Run& rows, const Taps& h, const Run& cols, const Taps& w, int64_t row_pitch, int64_t pitch,
                             int64_t inputs, int64_t cols_all, int64_t most, Segment* segments) {
    int64_t made = 0;
    for (int64_t p = rows.taps.begin; p < rows.taps.end; ++p)
        for (int64_t q = cols.taps.begin; q < cols.taps.end; ++q) {
            const Segment here = {h[p].at * row_pitch + w[q].at * pitch, inputs, ((h.place + p) * cols_all + w.place + q) * inputs};
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
