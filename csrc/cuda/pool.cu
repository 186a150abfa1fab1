// Pooling and its gradient. A thread has a few channels of a window, or of an element of dx; large windows, where there
// are few, have several threads for the same channels.
#include "common/pool.h"

#include "common/activation.h"
#include "common/dtype.h"
#include "cuda/kernels.h"
#include "cuda/packs.cuh"

namespace tilefuse::cuda {
namespace pools {

// Images of [h, w], whose pixels have `packs` packs of channels.
struct Grid {
    int64_t n, h, w, packs;

    __host__ __device__ __forceinline__ int64_t size() const { return n * h * w * packs; }
};

struct Position {
    int64_t image, row, col, pack;
};

__device__ __forceinline__ Position position_of(int64_t index, const Grid& grid) {
    const int64_t pixel = index / grid.packs, line = pixel / grid.w;
    return {line / grid.h, line % grid.h, pixel % grid.w, index % grid.packs};
}

// Where maxima are in their windows: bytes or int32; nowhere, if nobody wants to know.
struct Places {
    void* of;
    bool bytes;

    template <int N> __device__ __forceinline__ Pack<int32_t, N> load(int64_t at) const {
        if (!bytes) return load_pack<N>(static_cast<const int32_t*>(of) + at);
        const Pack<uint8_t, N> narrow = load_pack<N>(static_cast<const uint8_t*>(of) + at);
        Pack<int32_t, N> places;
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) places.of[e] = narrow.of[e];
        return places;
    }
    template <int N> __device__ __forceinline__ void store(int64_t at, const Pack<int32_t, N>& places) const {
        if (of == nullptr) return;
        if (!bytes) return store_pack(static_cast<int32_t*>(of) + at, places);
        Pack<uint8_t, N> narrow;
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) narrow.of[e] = static_cast<uint8_t>(places.of[e]);
        store_pack(static_cast<uint8_t*>(of) + at, narrow);
    }
};

// ---- forward --------------------------------------------------------------------------------------------------------

// Of the elements of a window that a thread has seen so far, the sum; or the largest, and where it is.
template <class T, int N> struct Sum {
    Pack<T, N> of = {};

    __device__ __forceinline__ explicit Sum(int) {}
    __device__ __forceinline__ void add(const Pack<T, N>& x, int) {
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) of.of[e] += x.of[e];
    }
};
template <class T, int N> struct Largest {
    Pack<T, N> of;
    Pack<int32_t, N> place;

    __device__ __forceinline__ explicit Largest(int first) {
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) {
            of.of[e] = -static_cast<T>(__builtin_inf());
            place.of[e] = first;
        }
    }
    __device__ __forceinline__ void add(const Pack<T, N>& x, int place_of_x) {
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) add(e, x.of[e], place_of_x);
    }
    __device__ __forceinline__ void add(const Pack<T, N>& x, const Pack<int32_t, N>& places) {
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) add(e, x.of[e], places.of[e]);
    }

private:
    // NaN is larger than all others; of equal ones the first is taken.
    __device__ __forceinline__ void add(int e, T x, int place_of_x) {
        const bool nan = x != x, was_nan = of.of[e] != of.of[e];
        const bool equal = x == of.of[e] || (nan && was_nan);
        if (equal ? place_of_x < place.of[e] : x > of.of[e] || (nan && !was_nan)) {
            of.of[e] = x;
            place.of[e] = place_of_x;
        }
    }
};

// The elements of a window that are inside of x, from the `member`-th on each `members`-th: body(place, p, q).
template <class Body>
__device__ __forceinline__ void for_elements(Span rows, Span cols, int64_t kernel_w, int member, int members, const Body& body) {
    int64_t p = rows.begin, q = cols.begin + member;
    while (true) {
        while (q >= cols.end && p < rows.end) {
            q -= cols.size();
            ++p;
        }
        if (p >= rows.end) return;
        body(static_cast<int>(p * kernel_w + q), p, q);
        q += members;
    }
}

// A window's channels have `members` threads, a power of two; of a block's threads neighbours have neighbouring packs.
template <class T, int N, template <class, int> class State>
__global__ void __launch_bounds__(threads_of_block)
    forward(Grid grid, PoolWindows windows, int members, const T* x, T* y, Places argmax) {
    constexpr bool largest = std::is_same_v<State<T, N>, Largest<T, N>>;
    using Values = Pack<T, N>;
    using Numbers = Pack<int32_t, N>;
    TILEFUSE_SHARED(Values[threads_of_block], values);
    TILEFUSE_SHARED(Numbers[largest ? threads_of_block : 1], places);
    const int thread = static_cast<int>(threadIdx.x), lanes = threads_of_block / members, member = thread / lanes;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * lanes + thread % lanes;
    const bool there = index < grid.size();
    const Position at = position_of(there ? index : 0, grid);
    const Span rows = windows.rows.inside(at.row), cols = windows.cols.inside(at.col);
    State<T, N> state(static_cast<int>(rows.begin * windows.cols.kernel + cols.begin));
    if (there) {
        const int64_t top = at.row * windows.rows.stride - windows.rows.pad, left = at.col * windows.cols.stride - windows.cols.pad;
        const T* const image = x + (at.image * windows.rows.size * windows.cols.size * grid.packs + at.pack) * N;
        const int64_t width = windows.cols.size;
        const auto add = [&](int64_t pixel, int64_t place) {
            state.add(load_pack<N>(image + pixel * grid.packs * N), static_cast<int>(place));
        };
        if (windows.cols.kernel == width && cols.size() == width) {
            // The window's rows lie end to end, so that several loads can be under way. (Of 112 x 112 with 64 channels, one at a
            // time moved 0.57 TB/s on an H200.)
            const int64_t first = rows.begin * width, end = rows.end * width;
            TILEFUSE_UNROLL(4)
            for (int64_t place = first + member; place < end; place += members) add(top * width + place, place);
        } else {
            for_elements(rows, cols, windows.cols.kernel, member, members,
                         [&](int place, int64_t p, int64_t q) { add((top + p) * width + left + q, place); });
        }
    }
    for (int others = members / 2; others > 0; others /= 2) {
        if (member >= others && member < 2 * others) {
            store_pack(values[thread].of, state.of);
            if constexpr (largest) store_pack(places[thread].of, state.place);
        }
        block_barrier();
        if (member < others) {
            const int other = thread + others * lanes;
            if constexpr (largest) {
                state.add(load_pack<N>(values[other].of), load_pack<N>(places[other].of));
            } else {
                state.add(load_pack<N>(values[other].of), 0);
            }
        }
    }
    if (!there || member > 0) return;
    if constexpr (largest) {
        argmax.store<N>(index * N, state.place);
    } else {
        const T count = static_cast<T>(windows.count(at.row, at.col));
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) state.of.of[e] /= count;
    }
    if (y != nullptr) store_pack(y + index * N, state.of);
}

// As many threads for a window that there are enough in all, if each has something to do. (It depends on the shape alone.)
inline int members_of(const Grid& grid, const PoolWindows& windows) {
    constexpr int64_t enough = 1 << 17;
    constexpr int64_t elements = 8;   // of each thread, at least
    constexpr int most = threads_of_block / 8;
    int members = 1;
    while (members < most && grid.size() * members < enough &&
           windows.rows.kernel * windows.cols.kernel >= 2 * members * elements)
        members *= 2;
    return members;
}

// ---- backward -------------------------------------------------------------------------------------------------------

// Each element of dx adds up what it has in the windows that it is in.
template <class T, int N, bool OfMaxima>
__global__ void __launch_bounds__(threads_of_block)
    backward(Grid grid, PoolWindows windows, const T* dy, Places argmax, T* dx, tilefuse_epilogue epilogue) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * threads_of_block + threadIdx.x;
    if (index >= grid.size()) return;
    const Position at = position_of(index, grid);
    const Span rows = windows.rows.over(at.row), cols = windows.cols.over(at.col);
    Pack<T, N> sum = {};
    TILEFUSE_UNROLL(1)  // most elements are in one window
    for (int64_t i = rows.begin; i < rows.end; ++i)
        TILEFUSE_UNROLL(1)
        for (int64_t j = cols.begin; j < cols.end; ++j) {
            const int64_t window = (((at.image * windows.rows.out + i) * windows.cols.out + j) * grid.packs + at.pack) * N;
            const Pack<T, N> gradient = load_pack<N>(dy + window);
            if constexpr (OfMaxima) {
                const int64_t p = at.row + windows.rows.pad - i * windows.rows.stride;
                const int64_t q = at.col + windows.cols.pad - j * windows.cols.stride;
                const int here = static_cast<int>(p * windows.cols.kernel + q);
                const Pack<int32_t, N> places = argmax.load<N>(window);
                TILEFUSE_UNROLL_ALL
                for (int e = 0; e < N; ++e) sum.of[e] += places.of[e] == here ? gradient.of[e] : T(0);
            } else {
                const T scale = 1 / static_cast<T>(windows.count(i, j));
                TILEFUSE_UNROLL_ALL
                for (int e = 0; e < N; ++e) sum.of[e] += gradient.of[e] * scale;
            }
        }
    if (epilogue.mask != nullptr) {
        const Pack<uint8_t, N> kept = load_pack<N>(epilogue.mask + index * N);
        const T scale = static_cast<T>(epilogue.mask_scale);
        TILEFUSE_UNROLL_ALL
        for (int e = 0; e < N; ++e) sum.of[e] = kept.of[e] != 0 ? sum.of[e] * scale : T(0);
    }
    if (epilogue.derivative_at != nullptr) {
        const Pack<T, N> y = load_pack<N>(static_cast<const T*>(epilogue.derivative_at) + index * N);
        with_activation<T>(epilogue.derivative, epilogue.derivative_alpha, [&](auto f) {
            TILEFUSE_UNROLL_ALL
            for (int e = 0; e < N; ++e) sum.of[e] *= f.derivative(y.of[e]);
        });
    }
    store_pack(dx + index * N, sum);
}

// ---- what to launch -------------------------------------------------------------------------------------------------

// body(N): how many channels a thread has; several, where they can be moved at once in arrays of T and those of bytes.
template <class T, class Body>
void with_packs(const tilefuse_conv2d_shape& s, std::initializer_list<const void*> arrays, const void* places, const void* mask,
                const Body& body) {
    constexpr int pack = pack_size<T>;
    const unsigned of_places = pack * (s.kernel_h * s.kernel_w <= TILEFUSE_POOL_OF_BYTES ? 1 : 4);
    if (s.c % pack == 0 && packs_fit(arrays) && packs_fit({places}, of_places) && packs_fit({mask}, pack)) {
        body(std::integral_constant<int, pack>());
    } else {
        body(std::integral_constant<int, 1>());
    }
}

Places places_of(const void* argmax, const tilefuse_conv2d_shape& s) {
    return {const_cast<void*>(argmax), s.kernel_h * s.kernel_w <= TILEFUSE_POOL_OF_BYTES};
}

}  // namespace pools

void pool2d(const Context& context, const tilefuse_pool2d_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    if (s.n * s.out_h * s.out_w * s.c == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        pools::with_packs<T>(s, {args.x, args.y}, args.argmax, nullptr, [&](auto n) {
            constexpr int pack = decltype(n)::value;
            const pools::Grid grid = {s.n, s.out_h, s.out_w, s.c / pack};
            const PoolWindows windows = pool_windows(args);
            const int members = pools::members_of(grid, windows);
            const auto start = [&](const auto& kernel) {
                launch(kernel, dim3(static_cast<unsigned>(quotient(grid.size(), threads_of_block / members))), threads_of_block, 0,
                       context.stream, grid, windows, members, static_cast<const T*>(args.x), static_cast<T*>(args.y),
                       pools::places_of(args.argmax, s));
            };
            if (args.kind == TILEFUSE_POOL_MAX) {
                start(TILEFUSE_KERNEL(pools::forward<T, pack, pools::Largest>));
            } else {
                start(TILEFUSE_KERNEL(pools::forward<T, pack, pools::Sum>));
            }
        });
    });
}
size_t pool2d_workspace(const tilefuse_pool2d_args&) { return 0; }

void pool2d_backward(const Context& context, const tilefuse_pool2d_backward_args& args) {
    const tilefuse_conv2d_shape& s = args.shape;
    if (s.n * s.h * s.w * s.c == 0) return;
    by_dtype(args.dtype, [&](auto zero) {
        using T = decltype(zero);
        const tilefuse_epilogue& e = args.epilogue;
        pools::with_packs<T>(s, {args.dy, args.dx, e.derivative_at}, args.argmax, e.mask, [&](auto n) {
            constexpr int pack = decltype(n)::value;
            const pools::Grid grid = {s.n, s.h, s.w, s.c / pack};
            const auto start = [&](const auto& kernel) {
                launch(kernel, dim3(static_cast<unsigned>(quotient(grid.size(), threads_of_block))), threads_of_block, 0,
                       context.stream, grid, pool_windows(args), static_cast<const T*>(args.dy), pools::places_of(args.argmax, s),
                       static_cast<T*>(args.dx), e);
            };
            if (args.kind == TILEFUSE_POOL_MAX) {
                start(TILEFUSE_KERNEL(pools::backward<T, pack, true>));
            } else {
                start(TILEFUSE_KERNEL(pools::backward<T, pack, false>));
            }
        });
    });
}
size_t pool2d_backward_workspace(const tilefuse_pool2d_backward_args&) { return 0; }

}  // namespace tilefuse::cuda
