// What convolutions on FMA units and on matrix units share. They are products (matmul.cuh) whose operands are the images
// as they lie:
//
//     forward       C [pixels of y, f]           = A [pixels, taps and channels of x]  B [taps and channels, f]
//     backward      C [pixels of x, c]           = A [pixels, taps and channels of dy] B [taps and channels of dy, c]
//     to weights    C [taps and channels of x, f] = A [taps and channels, pixels]       B [pixels, f]
//
// Each group is a product. Backward with strides, so is each phase: the pixels of x whose row and column leave certain
// remainders when divided by the strides, and which therefore meet the same taps.
#pragma once

#include "cuda/matmul.cuh"
#include "tilefuse/conv.h"

namespace tilefuse::cuda::convolutions {

using namespace products;

// ---- arguments ------------------------------------------------------------------------------------------------------

// [image][h][w][c]; with `argmax` the gradient before a max-pooling, of which `data` and `argmax` have what it left:
// [image][windows_h][windows_w][c].
template <class T> struct Images {
    const T* data;
    int h, w, c;
    int64_t image;  // elements of one, as it lies
    Reading reading;
    const uint8_t* argmax;
    int pool_h, pool_w, windows_h, windows_w;
    uint32_t reciprocal_h, reciprocal_w;  // of pool_h and pool_w
};

struct Axis {
    int kernel, stride, dilation, pad;
    int turned_apart;  // from a tap that a pixel of x meets to the next one
};

// Where C's rows go.
struct Target {
    int phases_h, phases_w;  // (1, 1): all pixels are alike
    int grid_h, grid_w;      // pixels of a phase, or windows
    int h, w;                // of the images that are written
    int pool_h, pool_w;      // (1, 1): no pooling
    bool pools, adds;        // adds: after the sums of all parts, or windows larger than a tile, have gone to memory
    uint8_t* argmax;

    __host__ __device__ int phases() const { return phases_h * phases_w; }
    __host__ __device__ int window() const { return pool_h * pool_w; }
};

// Forward, or backward to x: the images, the weights, and how they meet.
template <class T> struct Convolution {
    Images<T> images;
    Matrix<T> matrix;   // of the weights: forward, and backward
    Images<T> weights;  // as images of one group's and input channel's filters for all outputs
    Axis h, w;
    int inputs;        // channels of a group
    int rows_of_tile;  // whole windows
    Target target;
};

// Backward to the weights.
template <class T> struct Gradient {
    Images<T> x, dy;
    Axis h, w;
    int out_h, out_w, inputs;
    Target target;
};

// ---- where things lie -----------------------------------------------------------------------------------------------

// A row or column of no image: no tap leads from here into one.
constexpr int outside = -(1 << 30);

// The taps along an axis that pixels of a phase meet: pixel i of it reads the images at i * stride + first + t * step, and
// multiplies that with the weights of tap index + t * index_step.
struct Taps {
    int first, step, count, index, index_step;
};

template <bool Turned> __device__ __forceinline__ Taps taps_of(const Axis& a, int phase) {
    if constexpr (!Turned) {
        return {-a.pad, a.dilation, a.kernel, 0, 1};
    } else {
        int tap = 0;
        while (tap < a.kernel && (phase + a.pad - tap * a.dilation) % a.stride != 0) ++tap;
        const int first = (phase + a.pad - tap * a.dilation) / a.stride, apart = a.turned_apart;
        const int count = tap < a.kernel ? (a.kernel - tap + apart - 1) / apart : 0;
        return {first, -(apart * a.dilation / a.stride), count, tap, apart};
    }
}

// Of images or weights: where a row of an operand begins, and its place before the first tap.
struct Pixel {
    int64_t base;
    int i, j;
};

// (In shared memory a pixel is one pack.)
using StoredPixel = Pack<int64_t, 2>;
__device__ __forceinline__ void store_pixel(StoredPixel* to, const Pixel& p) {
    const uint64_t place = static_cast<uint64_t>(static_cast<uint32_t>(p.i)) << 32 | static_cast<uint32_t>(p.j);
    store_pack(to->of, StoredPixel{{p.base, static_cast<int64_t>(place)}});
}
__device__ __forceinline__ Pixel load_pixel(const StoredPixel* from) {
    const StoredPixel p = load_pack<2>(from->of);
    return {p.of[0], static_cast<int>(p.of[1] >> 32), static_cast<int>(p.of[1])};
}

// The pixel of the grid that a row of C is; rows go window by window.
struct Place {
    int image, i, j;
};
__device__ __forceinline__ Place place_of(const Target& t, int64_t row) {
    const int64_t window = row / t.window();
    const int of_image = t.grid_h * t.grid_w, image = static_cast<int>(window / of_image);
    const int in_image = static_cast<int>(window - static_cast<int64_t>(image) * of_image);
    const int i = in_image / t.grid_w, j = in_image % t.grid_w;
    const int in_window = static_cast<int>(row - window * t.window());
    return {image, i * t.pool_h + in_window / t.pool_w, j * t.pool_w + in_window % t.pool_w};
}

// The row of the whole result, without pooling; -1 for what has no place there.
__device__ __forceinline__ int64_t result_row(const Target& t, int phase, const Place& p) {
    const int i = p.i * t.phases_h + phase / t.phases_w, j = p.j * t.phases_w + phase % t.phases_w;
    return i < t.h && j < t.w ? (static_cast<int64_t>(p.image) * t.h + i) * t.w + j : -1;
}

// Counts up: along k, in taps and channels, or in images and their pixels. What is the same for all threads of a block stays
// in memory, shared or the kernel's parameters: they have no registers to spare. `Within`: by steps of no more than the lowest
// digit's size.
struct Steps {
    int high, middle, low;
};
__device__ __forceinline__ Steps steps_of(int distance, int middles, int lows) {
    middles = max(middles, 1);
    lows = max(lows, 1);
    return {distance / lows / middles, distance / lows % middles, distance % lows};
}

template <bool Within> class Walk {
public:
    __device__ __forceinline__ Walk(int64_t start, int distance, const Steps& steps, const int& middles, const int& lows)
        : distance_(distance), steps_(steps), middles_(middles), lows_(lows) {
        const int low_limit = max(lows, 1), middle_limit = max(middles, 1);
        const int64_t of_high = static_cast<int64_t>(middle_limit) * low_limit;
        const int rest = static_cast<int>(start % of_high);
        high = static_cast<int>(start / of_high);
        middle = rest / low_limit;
        low = rest % low_limit;
    }

    __device__ __forceinline__ void advance() {
        low += Within ? distance_ : steps_.low;
        if (!Within) middle += steps_.middle, high += steps_.high;
        if (low >= lows_) low -= lows_, ++middle;
        if (middle >= middles_) middle -= middles_, ++high;
    }

    int high, middle, low;

private:
    const int distance_;
    const Steps& steps_;
    const int &middles_, &lows_;
};

// Where some channels lie: from base + channel on, of the pixel (i, j).
struct Spot {
    int64_t base;
    int i, j, channel;
};

template <class T> __device__ __forceinline__ bool inside(const Images<T>& x, const Spot& s) {
    return static_cast<unsigned>(s.i) < static_cast<unsigned>(x.h) && static_cast<unsigned>(s.j) < static_cast<unsigned>(x.w);
}
// Of images as they lie.
template <class T> __device__ __forceinline__ const T* address(const Images<T>& x, const Spot& s) {
    return x.data + s.base + ((s.i * x.w + s.j) * x.c + s.channel);
}

// N channels; 0 outside of the image.
template <int N, class T> __device__ __forceinline__ Pack<T, N> load_channels(const Images<T>& x, const Spot& s) {
    if (!inside(x, s)) return {};
    if (x.argmax == nullptr) return load_upto<N>(address(x, s), N, N > 1);
    const auto over = [](int a, uint32_t reciprocal) {
        return static_cast<int>(static_cast<uint64_t>(static_cast<uint32_t>(a)) * reciprocal >> 31);
    };
    const int row = over(s.i, x.reciprocal_h), column = over(s.j, x.reciprocal_w);
    if (row >= x.windows_h || column >= x.windows_w) return {};
    const int64_t at = s.base + ((row * x.windows_w + column) * x.c + s.channel);
    Pack<T, N> y = load_upto<N>(x.data + at, N, N > 1);
    const Pack<uint8_t, N> largest = load_upto<N>(x.argmax + at, N, N > 1);
    const int here = (s.i - row * x.pool_h) * x.pool_w + s.j - column * x.pool_w;
    TILEFUSE_UNROLL_ALL
    for (int e = 0; e < N; ++e) y.of[e] = largest.of[e] == here ? y.of[e] : T(0);
    return y;
}

// A thread's way along k through taps and their channels, for rows that are pixels, or for columns of weights.
template <bool Within> class AlongTaps {
public:
    __device__ __forceinline__ AlongTaps(const int& step_h, const int& step_w, const int& taps_w, const int& channels,
                                         const Steps& steps, int64_t k, int depth, int first, int distance)
        : step_h_(step_h), step_w_(step_w), walk_(k + first, distance, steps, taps_w, channels), depth_(depth - first) {}

    // What a row has here; nothing past the end of k, which is `ahead` nearer than when the step began.
    __device__ __forceinline__ Spot spot(const Pixel& row, int ahead) const {
        const int i = ahead < depth_ ? row.i + walk_.high * step_h_ : outside;
        return {row.base, i, row.j + walk_.middle * step_w_, walk_.low};
    }
    __device__ __forceinline__ void advance() { walk_.advance(); }
    __device__ __forceinline__ void end_step(int depth) { depth_ -= depth; }

private:
    const int &step_h_, &step_w_;
    Walk<Within> walk_;
    int depth_;  // of k, from this thread's first element on
};

// A thread's way along k through images and their pixels, for one row: a tap, as an offset, and a channel.
struct TapRow {
    int i, j, channel;
};
template <bool Within> class AlongPixels {
public:
    __device__ __forceinline__ AlongPixels(const TapRow& row, const int& stride_h, const int& stride_w, const int& out_h,
                                           const int& out_w, const Steps& steps, int64_t k, int depth, int first, int distance)
        : row_(row), stride_h_(stride_h), stride_w_(stride_w), walk_(k + first, distance, steps, out_h, out_w),
          depth_(depth - first) {}

    template <class T> __device__ __forceinline__ Spot spot(const Images<T>& images, int ahead) const {
        const int i = ahead < depth_ ? walk_.middle * stride_h_ + row_.i : outside;
        return {walk_.high * images.image, i, walk_.low * stride_w_ + row_.j, row_.channel};
    }
    __device__ __forceinline__ void advance() { walk_.advance(); }
    __device__ __forceinline__ void end_step(int depth) { depth_ -= depth; }

private:
    const TapRow row_;
    const int &stride_h_, &stride_w_;
    Walk<Within> walk_;
    int depth_;
};

// ---- a block's share ------------------------------------------------------------------------------------------------

// Where a product's columns begin in the rows of C.
template <class T> __device__ __forceinline__ int first_column(const Product<T>& p, const Target& target, int product) {
    return product / target.phases() * static_cast<int>(p.n);
}

// What a block of a convolution computes. It lies in shared memory, since the loop needs the registers.
template <bool Turned, int Rows, int Columns> struct Assignment {
    Work work;
    Taps h, w;
    Steps steps;
    int group, depth;
    int rows, columns_left, first_column;  // in C
    StoredPixel pixels[Rows], columns[Columns];  // columns of weights
    int64_t results[Rows];                       // the rows of the whole result

    // By all threads of a block, of which there are no fewer than rows or columns. They will go along k by `distance`.
    template <class Tile, class T>
    __device__ __forceinline__ void make(const Product<T>& p, const Convolution<T>& c, int distance) {
        const int thread = static_cast<int>(threadIdx.x);
        const Target& target = c.target;
        if (thread == 0) {
            work = work_of<Tile>(p);
            work.row = work.row / Rows * c.rows_of_tile;
            const int phase = static_cast<int>(work.product % target.phases());
            h = taps_of<Turned>(c.h, phase / target.phases_w);
            w = taps_of<Turned>(c.w, phase % target.phases_w);
            steps = steps_of(distance, w.count, c.inputs);
            group = static_cast<int>(work.product / target.phases());
            rows = static_cast<int>(p.m - work.row < c.rows_of_tile ? p.m - work.row : c.rows_of_tile);
            columns_left = static_cast<int>(p.n - work.column);
            first_column = group * static_cast<int>(p.n) + static_cast<int>(work.column);
            const int64_t left = static_cast<int64_t>(h.count) * w.count * c.inputs - work.k;
            depth = static_cast<int>(left < 0 ? 0 : left < work.depth ? left : work.depth);
        }
        block_barrier();
        if (thread < Rows) {
            Pixel pixel = {0, outside, 0};
            results[thread] = -1;
            if (thread < rows) {
                const Place place = place_of(target, work.row + thread);
                pixel = {place.image * c.images.image + group * c.inputs, place.i * (Turned ? 1 : c.h.stride) + h.first,
                         place.j * (Turned ? 1 : c.w.stride) + w.first};
                results[thread] = result_row(target, static_cast<int>(work.product % target.phases()), place);
            }
            store_pixel(pixels + thread, pixel);
        }
        if (Turned && thread < Columns) {
            const int64_t column = work.column + thread;
            const int i = column < p.n ? h.index : outside;
            store_pixel(columns + thread, {column * c.matrix.stride + group * c.inputs, i, w.index});
        }
        block_barrier();
    }

    // The block's part of the weights, forward.
    template <class T> __device__ __forceinline__ const T* weights(const Product<T>& p, const Matrix<T>& matrix) const {
        return matrix.data + work.k * matrix.k_stride + group * p.n + work.column;
    }
};

// The same of the gradient of weights: what a block computes, and its rows and columns.
template <class T> struct Weighing {
    Work work;
    Steps steps_x, steps_dy;
    StepMemory<T> step_memory;

    // Along k between what a thread takes of the images in turn.
    template <class Tile> __device__ __forceinline__ static int distance(const Images<T>& images) {
        constexpr int lines = Tile::threads / Tile::rows;
        return images.reading == Reading::packs_across ? lines * pack_size<T> : lines;
    }
    template <class Tile> __device__ __forceinline__ void make(const Product<T>& p, const Gradient<T>& g) {
        if (threadIdx.x == 0) {
            work = work_of<Tile>(p);
            steps_x = steps_of(distance<Tile>(g.x), g.out_h, g.out_w);
            steps_dy = steps_of(distance<Tile>(g.dy), g.out_h, g.out_w);
            if (!g.target.adds && p.finish.epilogue.rule != nullptr) step_memory.make(*p.finish.epilogue.rule);
        }
        block_barrier();
    }
};
template <class T>
__device__ __forceinline__ TapRow tap_row(const Product<T>& p, const Gradient<T>& g, const Work& work, int at) {
    const int row = static_cast<int>(work.row) + at, tap = row / g.inputs;
    const int i = tap / g.w.kernel * g.h.dilation - g.h.pad, j = tap % g.w.kernel * g.w.dilation - g.w.pad;
    return {row < p.m ? i : outside, j, static_cast<int>(work.product) * g.inputs + row % g.inputs};
}
template <class T> __device__ __forceinline__ TapRow tap_column(const Product<T>& p, const Work& work, int at) {
    const int column = static_cast<int>(work.column) + at;
    return {column < p.n ? 0 : outside, 0, static_cast<int>(work.product * p.n) + column};
}

// What an epilogue without an update gets.
template <class T> constexpr const KerasStep<T>* no_step = nullptr;

// ---- pooling --------------------------------------------------------------------------------------------------------

// The largest of a window's values, and where it is. NaN is the largest.
template <class T> struct Maximum {
    Pack<T, pack_size<T>> x;
    Pack<uint8_t, pack_size<T>> place = {};

    __device__ __forceinline__ void take(const Pack<T, pack_size<T>>& y, int at) {
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < pack_size<T>; ++e) {
            const bool larger = y.of[e] > x.of[e] || y.of[e] != y.of[e];
            x.of[e] = larger ? y.of[e] : x.of[e];
            place.of[e] = larger ? static_cast<uint8_t>(at) : place.of[e];
        }
    }
};

// Bias and activation come after the pooling: they never fall.
template <class T>
__device__ __forceinline__ void finish_window(const Finish<T>& f, const Target& target, const Maximum<T>& best, int64_t window,
                                              int64_t column, int64_t columns_left) {
    finish<false>(f, no_step<T>, best.x, 0, window, column, columns_left);
    if (target.argmax == nullptr) return;
    store_upto(target.argmax + window * f.n + column, best.place, columns_left, f.packs);
}

// Windows that lie one below the other in shared memory, whose packs are at(row, column), for the threads of a block.
template <class T, class At>
__device__ __forceinline__ void pool_windows(const Finish<T>& f, const Target& target, At at, int windows, int columns,
                                             int threads, int64_t window, int column, int columns_left) {
    constexpr int pack = pack_size<T>;
    const int packs = columns / pack;
    TILEFUSE_UNROLL(1)
    for (int i = static_cast<int>(threadIdx.x); i < windows * packs; i += threads) {
        const int c = i % packs * pack, row = i / packs * target.window();
        if (c >= columns_left) continue;
        Maximum<T> best = {load_pack<pack>(at(row, c))};
        for (int place = 1; place < target.window(); ++place) best.take(load_pack<pack>(at(row + place, c)), place);
        finish_window(f, target, best, window + i / packs, column + c, columns_left - c);
    }
}

// ---- what to launch -------------------------------------------------------------------------------------------------

inline int64_t taps_of(const tilefuse_conv2d_shape& s) { return s.kernel_h * s.kernel_w; }

// Kernels count within an image, or the filters, in 32 bits.
void check_sizes(const tilefuse_conv2d_shape& s, const tilefuse_conv2d_pool& pool);

template <class T> bool whole_channels(int64_t of_group, std::initializer_list<const void*> arrays, const uint8_t* argmax) {
    return of_group % pack_size<T> == 0 && packs_fit(arrays) && packs_fit({argmax}, pack_size<T>);
}

template <class T> Images<T> images_of(const void* data, int64_t h, int64_t w, int64_t c) {
    return {.data = static_cast<const T*>(data), .h = static_cast<int>(h), .w = static_cast<int>(w), .c = static_cast<int>(c),
            .image = h * w * c, .reading = {}, .argmax = nullptr, .pool_h = 0, .pool_w = 0, .windows_h = 0, .windows_w = 0,
            .reciprocal_h = 0, .reciprocal_w = 0};
}

// x, or dy with what pooling left of it, by packs or elements of a group's channels.
template <class T> Images<T> images_x(const void* x, const tilefuse_conv2d_shape& s, Reading packs, Reading elements) {
    Images<T> images = images_of<T>(x, s.h, s.w, s.c);
    images.reading = whole_channels<T>(s.c / s.groups, {x}, nullptr) ? packs : elements;
    return images;
}
template <class T>
Images<T> images_dy(const void* dy, const tilefuse_conv2d_shape& s, const tilefuse_conv2d_pool& pool, const uint8_t* argmax,
                    Reading packs, Reading elements) {
    Images<T> images = images_of<T>(dy, s.out_h, s.out_w, s.f);
    images.reading = whole_channels<T>(s.f / s.groups, {dy}, argmax) ? packs : elements;
    if (pool.height == 0) return images;
    const auto reciprocal = [](int64_t size) { return static_cast<uint32_t>((int64_t{1} << 31) / size + 1); };
    images.argmax = argmax;
    images.pool_h = static_cast<int>(pool.height);
    images.pool_w = static_cast<int>(pool.width);
    images.windows_h = static_cast<int>(s.out_h / pool.height);
    images.windows_w = static_cast<int>(s.out_w / pool.width);
    images.image = int64_t{images.windows_h} * images.windows_w * s.f;
    images.reciprocal_h = reciprocal(pool.height);
    images.reciprocal_w = reciprocal(pool.width);
    return images;
}

Axis axis_h(const tilefuse_conv2d_shape& s);
Axis axis_w(const tilefuse_conv2d_shape& s);

// How C is found: the products' sizes and where their rows go.
struct Problem {
    Extents extents;
    Target target;
};
Problem problem_of(const tilefuse_conv2d_args& args);
Problem problem_of(const tilefuse_conv2d_backward_data_args& args);
Problem problem_of(const tilefuse_conv2d_backward_weights_args& args);

template <class T> Convolution<T> convolution_of(const tilefuse_conv2d_args& args, const Target& target) {
    const tilefuse_conv2d_shape& s = args.shape;
    const bool whole = whole_channels<T>(s.f / s.groups, {args.w}, nullptr);
    return {.images = images_x<T>(args.x, s, Reading::packs_along_k, Reading::elements_along_k),
            .matrix = {static_cast<const T*>(args.w), 1, s.f, whole ? Reading::packs_across : Reading::elements_across},
            .weights = {}, .h = axis_h(s), .w = axis_w(s), .inputs = static_cast<int>(s.c / s.groups), .rows_of_tile = 0,
            .target = target};
}
template <class T> Convolution<T> convolution_of(const tilefuse_conv2d_backward_data_args& args, const Target& target) {
    const tilefuse_conv2d_shape& s = args.shape;
    Images<T> weights = images_of<T>(args.w, s.kernel_h, s.kernel_w, s.c / s.groups * s.f);
    const bool whole = whole_channels<T>(s.f / s.groups, {args.w}, nullptr);
    weights.reading = whole ? Reading::packs_along_k : Reading::elements_along_k;
    return {.images = images_dy<T>(args.dy, s, args.pool, args.argmax, Reading::packs_along_k, Reading::elements_along_k),
            .matrix = {nullptr, s.f, 1, weights.reading}, .weights = weights, .h = axis_h(s), .w = axis_w(s),
            .inputs = static_cast<int>(s.f / s.groups), .rows_of_tile = 0, .target = target};
}
template <class T> Gradient<T> gradient_of(const tilefuse_conv2d_backward_weights_args& args, const Target& target) {
    const tilefuse_conv2d_shape& s = args.shape;
    return {.x = images_x<T>(args.x, s, Reading::packs_across, Reading::elements_across),
            .dy = images_dy<T>(args.dy, s, args.pool, args.argmax, Reading::packs_across, Reading::elements_across),
            .h = axis_h(s), .w = axis_w(s), .out_h = static_cast<int>(s.out_h), .out_w = static_cast<int>(s.out_w),
            .inputs = static_cast<int>(s.c / s.groups), .target = target};
}

template <class T> Finish<T> finish_of(const tilefuse_conv2d_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    const bool whole = whole_channels<T>(s.f / s.groups, {}, args.argmax);
    return finish_to<T>(args.y, TILEFUSE_STORED_WHOLE, s.f, s.f, whole, 0, args.epilogue);
}
template <class T> Finish<T> finish_of(const tilefuse_conv2d_backward_data_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    const bool whole = whole_channels<T>(s.c / s.groups, {}, nullptr);
    return finish_to<T>(args.dx, TILEFUSE_STORED_WHOLE, s.c, s.c, whole, 0, args.epilogue);
}
template <class T> Finish<T> finish_of(const tilefuse_conv2d_backward_weights_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    tilefuse_epilogue e = {};
    e.rule = args.rule;
    e.parameter = args.kernel;
    return finish_to<T>(args.dw, TILEFUSE_STORED_WHOLE, s.f, s.f, whole_channels<T>(s.f / s.groups, {}, nullptr), 0, e);
}

// A problem cut up for a tile.
struct Plan {
    Extents extents;
    Target target;
    Cut cut;
    int rows_of_tile;
};

template <class Tile> Plan plan_of(const Problem& problem) {
    const int window = problem.target.window();
    Plan plan = {problem.extents, problem.target, cut_of<Tile>(problem.extents), Tile::rows};
    if (window <= Tile::rows) plan.rows_of_tile = Tile::rows / window * window;
    plan.cut.tiles_down = quotient(problem.extents.m, plan.rows_of_tile);
    plan.target.adds = plan.cut.parts > 1 || window > Tile::rows;
    return plan;
}

template <class T> size_t workspace_of(const Plan& plan) {
    return plan.target.adds ? size_of_sums<T>(plan.extents, plan.cut) : 0;
}

// Adds the parts' sums, in the order of k, and pools them (conv.cu).
void queue_add_and_pool(const Context& context, const Product<float>& p, const Target& target);
void queue_add_and_pool(const Context& context, const Product<double>& p, const Target& target);

// `kernel` on all tiles, and what comes after it.
template <class Tile, class T, class Operands, class Args>
void multiply_by(const Kernel<Product<T>, Operands>& kernel, const Context& context, const Plan& plan, size_t shared_bytes,
                 const Operands& operands, const Args& args) {
    const auto p = product_of<T>(context, plan.extents, plan.cut, finish_of<T>(args));
    const int64_t blocks = p.tiles_down * p.tiles_across * p.parts * p.products;
    launch_all(kernel, p, blocks, Tile::threads, shared_bytes, context.stream, operands);
    if (plan.target.adds) queue_add_and_pool(context, p, plan.target);
}

// Of one filter a channel (conv_depthwise.cu), in the arrays' dtype whatever the precision.
template <class Args> bool is_depthwise(const Args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    const bool pools = std::is_same_v<Args, tilefuse_conv2d_args> && args.pool.height > 0;
    return s.groups > 1 && s.groups == s.c && s.c == s.f && !pools;
}
void convolve_depthwise(const Context& context, const tilefuse_conv2d_args& args);
void convolve_depthwise(const Context& context, const tilefuse_conv2d_backward_data_args& args);
void convolve_depthwise(const Context& context, const tilefuse_conv2d_backward_weights_args& args);
size_t workspace_of_depthwise(const tilefuse_conv2d_args& args);
size_t workspace_of_depthwise(const tilefuse_conv2d_backward_data_args& args);
size_t workspace_of_depthwise(const tilefuse_conv2d_backward_weights_args& args);

// On matrix units (conv_mma.cu).
template <class Args> void convolve_on_matrix_units(const Context& context, const Args& args);
template <class Args> size_t workspace_on_matrix_units(const Args& args);

}  // namespace tilefuse::cuda::convolutions
