// Pooling and its gradient: for each window, and for each element of dx, many channels at a time.
#include "common/pool.h"

#include <limits>
#include <type_traits>

#include "common/dtype.h"
#include "cpu/bytes.h"
#include "cpu/kernels.h"
#include "cpu/matmul_epilogue.h"

namespace tilefuse::inline TILEFUSE_ISA {
namespace {

// Shares out [rows] x [channels], the latter by whole cache lines: body(row, channels) for some of a row's channels.
template <class T, class Body> void for_share(const Team& team, int64_t rows, int64_t channels, const Body& body) {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t lines = (channels + line - 1) / line;
    const Range mine = team.range(rows * lines);
    for (int64_t unit = mine.begin; unit < mine.end;) {
        const int64_t row = unit / lines, end = std::min(mine.end, (row + 1) * lines);
        body(row, Range{(unit - row * lines) * line, std::min(channels, (end - row * lines) * line)});
        unit = end;
    }
}

// body(vectors, k, tail): so many vectors of channels, a constant, from channel k on; the last one has `tail` lanes. Several
// are worked on together, to hide how long comparisons and additions take.
template <class T, class Body> void for_channels(Range channels, const Body& body) {
    int64_t k = channels.begin;
    const auto whole = [&](auto vectors) {
        constexpr int64_t together = decltype(vectors)::value * lanes<T>;
        for (; k + together <= channels.end; k += together) body(vectors, k, lanes<T>);
    };
    whole(std::integral_constant<int, 4>());
    whole(std::integral_constant<int, 2>());
    whole(std::integral_constant<int, 1>());
    if (k < channels.end) body(std::integral_constant<int, 1>(), k, static_cast<int>(channels.end - k));
}

// Vector v of `Vectors`, of which the last one has `tail` lanes. (With several of them all are whole.)
template <int Vectors, class T> Vec<T> load_vector(const T* p, int v, int tail) {
    return Vectors > 1 ? load(p + v * lanes<T>) : load_upto(p, tail);
}
template <int Vectors, class T> void store_vector(T* p, int v, Vec<T> x, int tail) {
    Vectors > 1 ? store(p + v * lanes<T>, x) : store_upto(p, x, tail);
}

// Places of maxima: integers of T's size in registers, bytes or int32 in memory.
template <class T> Integers<Vec<T>> all_places(int64_t place) { return static_cast<Integers<T>>(place) - Integers<Vec<T>>{}; }

template <class T> Integers<Vec<T>> load_places(const uint8_t* p, int n) { return load_bytes<T>(p, n); }
template <class T> void store_places(uint8_t* p, Integers<Vec<T>> places, int n) { store_bytes<T>(p, places, n); }

template <class T> Integers<Vec<T>> load_places(const int32_t* p, int n) {
    Integers<Vec<T>> places{};
    for (int i = 0; i < n; ++i) places[i] = p[i];
    return places;
}
template <class T> void store_places(int32_t* p, Integers<Vec<T>> places, int n) {
    for (int i = 0; i < n; ++i) p[i] = static_cast<int32_t>(places[i]);
}

// ---- forward --------------------------------------------------------------------------------------------------------

// A window: its element (p, q), where that is inside, is at x + p * line + q * c.
template <class T> struct Window {
    const T* x;
    int64_t line, c, kernel_w;
    Span rows, cols;
    int64_t count;  // of elements, for the mean
};

template <class T, int Vectors> void average(const Window<T>& window, int64_t k, int tail, T* y) {
    Vec<T> total[Vectors] = {};
    for (int64_t p = window.rows.begin; p < window.rows.end; ++p) {
        Vec<T> of_row[Vectors] = {};  // by rows, so that rounding errors don't grow with the window
        for (int64_t q = window.cols.begin; q < window.cols.end; ++q) {
            const T* x = window.x + p * window.line + q * window.c + k;
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) of_row[v] += load_vector<Vectors>(x, v, tail);
        }
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) total[v] += of_row[v];
    }
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store_vector<Vectors>(y + k, v, total[v] / static_cast<T>(window.count), tail);
}

template <class T, int Vectors> void maximum(const Window<T>& window, int64_t k, int tail, T* y) {
    Vec<T> best[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) best[v] = splat(-std::numeric_limits<T>::infinity());
    for (int64_t p = window.rows.begin; p < window.rows.end; ++p)
        for (int64_t q = window.cols.begin; q < window.cols.end; ++q) {
            const T* at = window.x + p * window.line + q * window.c + k;
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                const Vec<T> x = load_vector<Vectors>(at, v, tail);
                best[v] = max(x, best[v]);
            }
        }
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store_vector<Vectors>(y + k, v, best[v], tail);
}

template <class T, int Vectors, class Place> void maximum(const Window<T>& window, int64_t k, int tail, T* y, Place* argmax) {
    Vec<T> best[Vectors];
    Integers<Vec<T>> place[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
        best[v] = splat(-std::numeric_limits<T>::infinity());
        place[v] = all_places<T>(window.rows.begin * window.kernel_w + window.cols.begin);
    }
    for (int64_t p = window.rows.begin; p < window.rows.end; ++p)
        for (int64_t q = window.cols.begin; q < window.cols.end; ++q) {
            const T* at = window.x + p * window.line + q * window.c + k;
            const Integers<Vec<T>> here = all_places<T>(p * window.kernel_w + q);
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                const Vec<T> x = load_vector<Vectors>(at, v, tail);
                const auto larger = (x > best[v]) | ((x != x) & (best[v] == best[v]));
                best[v] = larger ? x : best[v];
                place[v] = larger ? here : place[v];
            }
        }
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
        if (y) store_vector<Vectors>(y + k, v, best[v], tail);
        store_places<T>(argmax + k + v * lanes<T>, place[v], tail);
    }
}

// body(window, element): for this member's windows; `element` is where the window's channels begin in y.
template <class T, class Body> void for_windows(Team& team, const tilefuse_pool2d_args& args, const Body& body) {
    const tilefuse_conv2d_shape& s = args.shape;
    const PoolWindows windows = pool_windows(args);
    const T* const x = static_cast<const T*>(args.x);
    const int64_t line = s.w * s.c;
    for_share<T>(team, s.n * s.out_h, s.c, [&](int64_t row, Range channels) {
        const int64_t image = row / s.out_h, i = row % s.out_h;
        const T* const top = x + (image * s.h + i * s.stride_h - s.pad_top) * line;
        for (int64_t j = 0; j < s.out_w; ++j) {
            const Window<T> window = {top + (j * s.stride_w - s.pad_left) * s.c, line, s.c, s.kernel_w,
                                      windows.rows.inside(i), windows.cols.inside(j), windows.count(i, j)};
            const int64_t at = (row * s.out_w + j) * s.c;
            for_channels<T>(channels, [&](auto vectors, int64_t k, int tail) { body(vectors, window, k, tail, at); });
        }
    });
}

template <class T> void pool(Team& team, const tilefuse_pool2d_args& args) {
    T* const y = static_cast<T*>(args.y);
    if (args.kind == TILEFUSE_POOL_AVERAGE) {
        for_windows<T>(team, args, [&](auto vectors, const Window<T>& window, int64_t k, int tail, int64_t at) {
            average<T, decltype(vectors)::value>(window, k, tail, y + at);
        });
    } else if (!args.argmax) {
        for_windows<T>(team, args, [&](auto vectors, const Window<T>& window, int64_t k, int tail, int64_t at) {
            maximum<T, decltype(vectors)::value>(window, k, tail, y + at);
        });
    } else {
        with_places(args.shape, [&](auto zero) {
            using Place = decltype(zero);
            Place* const argmax = static_cast<Place*>(args.argmax);
            for_windows<T>(team, args, [&](auto vectors, const Window<T>& window, int64_t k, int tail, int64_t at) {
                maximum<T, decltype(vectors)::value>(window, k, tail, y ? y + at : nullptr, argmax + at);
            });
        });
    }
}

// ---- backward -------------------------------------------------------------------------------------------------------

// Element (p, q) of window (i, j).
struct Meeting {
    int64_t i, j, p, q;
};

// What an element has in the mean of a window, and if it is the maximum.
template <class T> struct OfMean {
    const T* dy;
    PoolWindows windows;

    T prepared(const Meeting& at) const { return 1 / static_cast<T>(windows.count(at.i, at.j)); }
    template <int Vectors> Vec<T> operator()(T scale, int64_t at, int v, int tail) const {
        return load_vector<Vectors>(dy + at, v, tail) * scale;
    }
};
template <class T, class Place> struct OfMaximum {
    const T* dy;
    const Place* argmax;
    int64_t kernel_w;

    Integers<Vec<T>> prepared(const Meeting& at) const { return all_places<T>(at.p * kernel_w + at.q); }
    template <int Vectors> Vec<T> operator()(Integers<Vec<T>> here, int64_t at, int v, int tail) const {
        const auto largest = load_places<T>(argmax + at + v * lanes<T>, tail) == here;
        return largest ? load_vector<Vectors>(dy + at, v, tail) : Vec<T>{};
    }
};

template <class T, class Share> void gather(Team& team, const tilefuse_pool2d_backward_args& args, const Share& share) {
    const tilefuse_conv2d_shape& s = args.shape;
    const PoolWindows windows = pool_windows(args);
    const Epilogue<T> epilogue(args.epilogue, s.c, s.c);
    for_share<T>(team, s.n * s.h, s.c, [&](int64_t row, Range channels) {
        const int64_t image = row / s.h, h = row % s.h;
        T* const dx = static_cast<T*>(args.dx) + row * s.w * s.c;
        const Span over_h = windows.rows.over(h);
        Span over_w = windows.cols.over(0);
        for (int64_t w = 0; w < s.w; ++w) {
            windows.cols.advance(over_w, w);
            for_channels<T>(channels, [&](auto vectors, int64_t k, int tail) {
                constexpr int count = decltype(vectors)::value;
                Vec<T> sums[count] = {};
                for (int64_t i = over_h.begin; i < over_h.end; ++i)
                    for (int64_t j = over_w.begin; j < over_w.end; ++j) {
                        const int64_t at = ((image * s.out_h + i) * s.out_w + j) * s.c + k;
                        const auto prepared = share.prepared({i, j, h + s.pad_top - i * s.stride_h, w + s.pad_left - j * s.stride_w});
#pragma GCC unroll 4
                        for (int v = 0; v < count; ++v) sums[v] += share.template operator()<count>(prepared, at, v, tail);
                    }
#pragma GCC unroll 4
                for (int v = 0; v < count; ++v) store_vector<count>(dx + w * s.c + k, v, sums[v], tail);
            });
        }
        epilogue(dx + channels.begin, s.c, 0, row * s.w, channels.begin, s.w, channels.end - channels.begin);
    });
}

template <class Args> Cost pooling_cost(const Args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    const double taps = static_cast<double>(s.kernel_h * s.kernel_w) * static_cast<double>(s.n * s.out_h * s.out_w * s.c);
    Cost cost;
    cost.work = 2 * taps + 2 * static_cast<double>(s.n * s.h * s.w * s.c);
    return cost;
}

}  // namespace

void pool2d(Team& team, const tilefuse_pool2d_args& args) {
    by_dtype(args.dtype, [&](auto zero) { pool<decltype(zero)>(team, args); });
}
Cost pool2d_cost(const tilefuse_pool2d_args& args) { return pooling_cost(args); }

void pool2d_backward(Team& team, const tilefuse_pool2d_backward_args& args) {
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const T* const dy = static_cast<const T*>(args.dy);
        if (args.kind == TILEFUSE_POOL_AVERAGE) return gather<T>(team, args, OfMean<T>{dy, pool_windows(args)});
        with_places(args.shape, [&](auto place) {
            using Place = decltype(place);
            gather<T>(team, args, OfMaximum<T, Place>{dy, static_cast<const Place*>(args.argmax), args.shape.kernel_w});
        });
    });
}
Cost pool2d_backward_cost(const tilefuse_pool2d_backward_args& args) { return pooling_cost(args); }

}  // namespace tilefuse::inline TILEFUSE_ISA
