// Depthwise convolution, a filter for each channel, and its gradients: too few products a group for tiles. Threads go along
// channels; what neighbouring pixels share is left to the caches.
#include "common/dtype.h"
#include "cuda/conv.cuh"

namespace tilefuse::cuda::convolutions {

// ---- forward, and backward to x -------------------------------------------------------------------------------------

constexpr int pixels_of_thread = 4;  // of a row: what a weight is loaded for

// The row or column of the images that meets this tap in row or column i of the result.
template <bool Turned> __device__ __forceinline__ int source_of(const Axis& a, int i, int tap) {
    if constexpr (!Turned) return i * a.stride - a.pad + tap * a.dilation;
    const int place = i + a.pad - tap * a.dilation;
    if (a.stride == 1) return place;
    return place % a.stride == 0 ? place / a.stride : outside;
}

// A thread has N channels of some pixels.
template <class T, int N, bool Turned> __global__ void __launch_bounds__(threads_of_block)
    convolve_channels(Product<T> p, Convolution<T> c) {
    const Target& target = c.target;
    const int64_t index = (p.first + blockIdx.x) * threads_of_block + threadIdx.x;
    const int packs = static_cast<int>(p.n) / N, segments = (target.w + pixels_of_thread - 1) / pixels_of_thread;
    const int of_line = segments * packs, of_image = target.h * of_line;
    const int64_t image = index / of_image, base = image * c.images.image;
    const int in_image = static_cast<int>(index - image * of_image), in_line = in_image % of_line;
    const int i = in_image / of_line, j = in_line / packs * pixels_of_thread, channel = in_line % packs * N;
    const int64_t first_row = (image * target.h + i) * target.w;
    if (first_row >= p.m) return;
    const T* w = (Turned ? c.weights.data : c.matrix.data) + channel;

    Pack<T, N> sums[pixels_of_thread] = {};
    for (int tap_h = 0; tap_h < c.h.kernel; ++tap_h) {
        const int from_i = source_of<Turned>(c.h, i, tap_h);
        for (int tap_w = 0; tap_w < c.w.kernel; ++tap_w, w += p.n) {
            const Pack<T, N> weights = load_pack<N>(w);
            TILEFUSE_UNROLL_ALL
            for (int r = 0; r < pixels_of_thread; ++r) {
                const Spot spot = {base, from_i, source_of<Turned>(c.w, j + r, tap_w), channel};
                if (!inside(c.images, spot)) continue;
                const Pack<T, N> x = load_channels<N>(c.images, spot);
                TILEFUSE_UNROLL_ALL
                for (int e = 0; e < N; ++e) sums[r].of[e] = multiply_add(x.of[e], weights.of[e], sums[r].of[e]);
            }
        }
    }

    // (Registers have no index: each time it is the first sums' turn.)
    TILEFUSE_UNROLL(1)
    for (int r = 0; r < pixels_of_thread; ++r) {
        if (j + r >= target.w) return;
        Pack<T, pack_size<T>> x = {};
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) x.of[e] = sums[0].of[e];
        finish<false>(p.finish, no_step<T>, x, 0, first_row + j + r, channel, N);
        TILEFUSE_UNROLL_ALL
        for (int next = 1; next < pixels_of_thread; ++next) sums[next - 1] = sums[next];
    }
}

// ---- backward to the weights ----------------------------------------------------------------------------------------

constexpr int taps_of_block = 9, packs_across = 8, pixels_at_once = threads_of_block / packs_across;

// A block has a part of the pixels, some taps, and 8 packs of channels, each of which 32 threads share.
template <class T, int N> __global__ void __launch_bounds__(threads_of_block) weigh_channels(Product<T> p, Gradient<T> g) {
    constexpr int columns = packs_across * N;
    TILEFUSE_SHARED(TapRow[taps_of_block], taps);
    TILEFUSE_SHARED(T[pixels_at_once][columns], sums_of_pixels);
    const int thread = static_cast<int>(threadIdx.x), pixel = thread / packs_across;
    const int block = static_cast<int>(p.first + blockIdx.x), across = static_cast<int>(p.tiles_across);
    const int down = static_cast<int>(p.tiles_down), first_column = block % across * columns;
    const int first_tap = block / across % down * taps_of_block;
    const int64_t part = block / across / down;
    if (thread < taps_of_block) {
        const int tap = first_tap + thread, i = tap / g.w.kernel * g.h.dilation - g.h.pad;
        taps[thread] = {tap < p.m ? i : outside, tap % g.w.kernel * g.w.dilation - g.w.pad, 0};
    }
    block_barrier();

    const int channel = first_column + thread % packs_across * N;
    const int64_t begin = part * p.depth, end = p.k - begin < p.depth ? p.k : begin + p.depth;
    const Steps steps = steps_of(pixels_at_once, g.out_h, g.out_w);
    Walk<false> walk(begin + pixel, 0, steps, g.out_h, g.out_w);
    Pack<T, N> sums[taps_of_block] = {};
    for (int64_t k = begin + pixel; k < end && channel < p.n; k += pixels_at_once) {
        const Pack<T, N> dy = load_channels<N>(g.dy, {walk.high * g.dy.image, walk.middle, walk.low, channel});
        TILEFUSE_UNROLL_ALL
        for (int t = 0; t < taps_of_block; ++t) {
            const Pack<T, N> x = load_channels<N>(g.x, {walk.high * g.x.image, walk.middle * g.h.stride + taps[t].i,
                                                        walk.low * g.w.stride + taps[t].j, channel});
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < N; ++e) sums[t].of[e] = multiply_add(x.of[e], dy.of[e], sums[t].of[e]);
        }
        walk.advance();
    }

    const int column = first_column + thread;
    TILEFUSE_UNROLL_ALL
    for (int t = 0; t < taps_of_block; ++t) {
        store_pack(&sums_of_pixels[pixel][thread % packs_across * N], sums[t]);
        block_barrier();
        if (thread < columns && column < columns_of_sums<T>(p.n) && first_tap + t < p.m) {
            T sum = 0;
            for (int other = 0; other < pixels_at_once; ++other) sum += sums_of_pixels[other][thread];
            p.sums[(part * p.m + first_tap + t) * columns_of_sums<T>(p.n) + column] = sum;
        }
        block_barrier();
    }
}

// ---- what to launch -------------------------------------------------------------------------------------------------

namespace {

// As one group: what is aligned and whole is then said of all channels.
template <class Args> Args in_one_group(Args args) {
    args.shape.groups = 1;
    return args;
}

template <class T, bool Turned, class Args> void queue_to_pixels(const Context& context, const Args& args) {
    const Target target = problem_of(args).target;
    const auto c = convolution_of<T>(args, target);
    const Extents extents = {args.shape.n * target.h * target.w, args.shape.c, 1, 1};
    const auto p = product_of<T>(context, extents, {1, 1, 1, 1}, finish_of<T>(args));
    const auto by = [&](auto width, const auto& kernel) {
        const int64_t lines = args.shape.n * target.h, segments = quotient(target.w, pixels_of_thread);
        const int64_t threads = lines * segments * (extents.n / width);
        launch_all(kernel, p, quotient(threads, threads_of_block), threads_of_block, 0, context.stream, c);
    };
    constexpr int pack = pack_size<T>;
    if (c.images.reading == Reading::packs_along_k && packs_fit({args.w})) {
        by(pack, TILEFUSE_KERNEL(convolve_channels<T, pack, Turned>));
    } else {
        by(1, TILEFUSE_KERNEL(convolve_channels<T, 1, Turned>));
    }
}

Extents extents_of(const tilefuse_conv2d_backward_weights_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    return {taps_of(s), s.c, s.n * s.out_h * s.out_w, 1};
}

// By the shape alone, as the bits depend on it: enough blocks, of which each has enough to do.
Cut cut_of(const Extents& e) {
    constexpr int64_t waves = 4, least = 8 * pixels_at_once;
    const int64_t blocks = quotient(e.m, taps_of_block) * quotient(e.n, packs_across * pack_size<float>);
    const int64_t parts = std::max<int64_t>(1, std::min(waves * multiprocessors / blocks, e.k / least));
    const int64_t depth = std::max<int64_t>(1, quotient(quotient(e.k, parts), pixels_at_once)) * pixels_at_once;
    return {quotient(e.m, taps_of_block), 0, std::max<int64_t>(1, quotient(e.k, depth)), depth};
}

template <class T> void queue_to_weights(const Context& context, const tilefuse_conv2d_backward_weights_args& args) {
    const Target target = problem_of(args).target;
    const auto g = gradient_of<T>(args, target);
    const Extents extents = extents_of(args);
    const auto by = [&](int width, const auto& kernel) {
        Cut cut = cut_of(extents);
        cut.tiles_across = quotient(extents.n, packs_across * width);
        const auto p = product_of<T>(context, extents, cut, finish_of<T>(args));
        launch_all(kernel, p, cut.tiles_down * cut.tiles_across * cut.parts, threads_of_block, 0, context.stream, g);
        queue_add_and_pool(context, p, target);
    };
    constexpr int pack = pack_size<T>;
    if (g.x.reading == Reading::packs_across && g.dy.reading == Reading::packs_across) {
        by(pack, TILEFUSE_KERNEL(weigh_channels<T, pack>));
    } else {
        by(1, TILEFUSE_KERNEL(weigh_channels<T, 1>));
    }
}

}  // namespace

void convolve_depthwise(const Context& context, const tilefuse_conv2d_args& args) {
    by_dtype(args.dtype, [&](auto zero) { queue_to_pixels<decltype(zero), false>(context, in_one_group(args)); });
}
void convolve_depthwise(const Context& context, const tilefuse_conv2d_backward_data_args& args) {
    by_dtype(args.dtype, [&](auto zero) { queue_to_pixels<decltype(zero), true>(context, in_one_group(args)); });
}
void convolve_depthwise(const Context& context, const tilefuse_conv2d_backward_weights_args& args) {
    by_dtype(args.dtype, [&](auto zero) { queue_to_weights<decltype(zero)>(context, in_one_group(args)); });
}

size_t workspace_of_depthwise(const tilefuse_conv2d_args&) { return 0; }
size_t workspace_of_depthwise(const tilefuse_conv2d_backward_data_args&) { return 0; }
size_t workspace_of_depthwise(const tilefuse_conv2d_backward_weights_args& args) {
    const Extents extents = extents_of(args);
    size_t bytes = 0;
    by_dtype(args.dtype, [&](auto zero) { bytes = size_of_sums<decltype(zero)>(extents, cut_of(extents)); });
    return bytes;
}

}  // namespace tilefuse::cuda::convolutions
