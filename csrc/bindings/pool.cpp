#include <pybind11/stl.h>

#include <limits>

#include "bindings/activation.h"
#include "bindings/conv.h"
#include "tilefuse/pool.h"

namespace tilefuse::bindings {
namespace {

tilefuse_pool_kind kind_from(const std::string& kind) {
    if (kind == "max") return TILEFUSE_POOL_MAX;
    if (kind == "average") return TILEFUSE_POOL_AVERAGE;
    throw py::value_error("there is no pooling '" + kind + "'; expected max or average");
}

// What both directions have, from the array that has x's shape.
template <class Args>
Args pooling(const std::string& kind, const py::array& x, const std::array<int64_t, 2>& kernel, const Geometry& geometry,
             bool count_padding, const char* name) {
    Args args = {};
    args.dtype = dtype_of(x, "x");
    args.kind = kind_from(kind);
    const int64_t channels = x.ndim() == 4 ? x.shape(3) : 0;
    args.shape = shape_from({x.shape(), x.shape() + x.ndim()}, {kernel[0], kernel[1], channels, channels}, geometry, name);
    args.count_padding = count_padding;
    return args;
}

py::ssize_t size_of(const tilefuse_conv2d_shape& s) { return s.n * s.out_h * s.out_w * s.c; }

// The memory of argmax.
void* places_of(const py::array& a, const tilefuse_conv2d_shape& shape) {
    const bool bytes = shape.kernel_h * shape.kernel_w <= TILEFUSE_POOL_OF_BYTES;
    if (a.dtype().kind() != (bytes ? 'u' : 'i') || a.itemsize() != (bytes ? 1 : 4) || !(a.flags() & py::array::c_style) ||
        a.size() != size_of(shape)) {
        throw py::value_error("argmax: expected " + std::to_string(size_of(shape)) + " contiguous " + (bytes ? "uint8" : "int32"));
    }
    return const_cast<void*>(a.data());
}

void pool2d(const std::string& kind, const py::array& x, const py::object& y, const std::array<int64_t, 2>& kernel,
            const Geometry& geometry, bool count_padding, const py::object& argmax) {
    auto args = pooling<tilefuse_pool2d_args>(kind, x, kernel, geometry, count_padding, "pool2d");
    Call call;
    args.x = call.input(x, "x", args.dtype, x.size());
    if (!y.is_none()) {
        py::array outputs = y.cast<py::array>();
        args.y = call.output(outputs, "y", args.dtype, size_of(args.shape));
    }
    if (!argmax.is_none()) {
        const py::array places = argmax.cast<py::array>();
        args.argmax = call.write(places_of(places, args.shape), places.nbytes());
    }
    if (!args.y && (args.kind != TILEFUSE_POOL_MAX || !args.argmax) && size_of(args.shape) > 0) {
        throw py::value_error("pool2d: y is None; expected an array, or, of maxima, argmax");
    }
    call.run(args);
}

void pool2d_backward(const std::string& kind, const py::array& dy, py::array& dx, const std::array<int64_t, 2>& kernel,
                     const Geometry& geometry, bool count_padding, const py::object& argmax, const std::string& derivative,
                     double alpha, const py::object& derivative_at, const py::object& mask, double mask_scale) {
    auto args = pooling<tilefuse_pool2d_backward_args>(kind, dx, kernel, geometry, count_padding, "pool2d_backward");
    Call call;
    args.dy = call.input(dy, "dy", args.dtype, size_of(args.shape));
    args.dx = call.output(dx, "dx", args.dtype, dx.size());
    if (args.kind == TILEFUSE_POOL_MAX) {
        const py::array places = argmax.cast<py::array>();
        args.argmax = call.read(places_of(places, args.shape), places.nbytes());
    }
    args.epilogue.derivative = activation_from(derivative);
    args.epilogue.derivative_alpha = alpha;
    if (!derivative_at.is_none()) {
        args.epilogue.derivative_at = call.input(derivative_at.cast<py::array>(), "derivative_at", args.dtype, dx.size());
    }
    if (!mask.is_none()) {
        const py::array kept = mask.cast<py::array>();
        if (kept.itemsize() != 1 || kept.size() != dx.size() || !(kept.flags() & py::array::c_style)) {
            throw py::value_error("mask: expected " + std::to_string(dx.size()) + " contiguous uint8");
        }
        args.epilogue.mask = static_cast<const uint8_t*>(call.read(kept.data(), kept.nbytes()));
        args.epilogue.mask_scale = mask_scale;
    }
    call.run(args);
}

constexpr int64_t largest_window = std::numeric_limits<int32_t>::max();  // in elements: argmax has places in int32

// (x, pool_size, strides, padding, count_padding) from argument `first` on, the size as 2 where it is not given; returns whether
// they will do: no window has nothing but padding.
bool read_shape(Arguments& given, const View& x, size_t first, tilefuse_conv2d_shape& s) {
    if (!set_images(s, x)) return false;
    s.f = s.c;
    s.dilation_h = s.dilation_w = s.groups = 1;
    s.kernel_h = s.kernel_w = 2;
    if (!given.pair(first, s.kernel_h, s.kernel_w)) return false;
    s.stride_h = s.kernel_h;
    s.stride_w = s.kernel_w;
    if ((given.has(first + 1) && !given.pair(first + 1, s.stride_h, s.stride_w)) || !set_windows(s, given, first + 2)) return false;
    return s.kernel_h * s.kernel_w <= largest_window &&
           (s.out_h == 0 || (s.h > 0 && s.pad_top < s.kernel_h && (s.out_h - 1) * s.stride_h - s.pad_top < s.h)) &&
           (s.out_w == 0 || (s.w > 0 && s.pad_left < s.kernel_w && (s.out_w - 1) * s.stride_w - s.pad_left < s.w));
}

// The window is the whole image; returns whether it has a pixel.
bool read_whole(const View& x, tilefuse_conv2d_shape& s) {
    if (!set_images(s, x)) return false;
    s.f = s.c;
    s.dilation_h = s.dilation_w = s.groups = s.stride_h = s.stride_w = s.out_h = s.out_w = 1;
    s.kernel_h = s.h;
    s.kernel_w = s.w;
    return s.h > 0 && s.w > 0;
}

double operations(const tilefuse_conv2d_shape& s) {
    return static_cast<double>(s.n * s.out_h * s.out_w * s.c) * static_cast<double>(s.kernel_h * s.kernel_w);
}

template <tilefuse_pool_kind kind, bool whole = false> py::object run_forward(Arguments& given) {
    tilefuse_pool2d_args args = {};
    const tilefuse_conv2d_shape& s = args.shape;
    View x;
    bool count_padding = false;
    if (!given.array(0, x) || !(whole ? read_whole(x, args.shape) : read_shape(given, x, 1, args.shape)) ||
        (kind == TILEFUSE_POOL_AVERAGE && !given.flag(4, count_padding))) {
        return {};
    }
    const int64_t windows[] = {s.n, s.out_h, s.out_w, s.c}, images[] = {s.n, s.c};
    Result y = whole ? given.result(x.dtype, 2, images) : given.result(x.dtype, 4, windows);
    args.dtype = x.dtype;
    args.kind = kind;
    args.count_padding = count_padding;
    args.x = x.data;
    args.y = y.data;
    run_directly(operations(s), args);
    return y.take();
}

template <tilefuse_pool_kind kind, bool whole = false> py::object run_backward(Arguments& given) {
    tilefuse_pool2d_backward_args args = {};
    const tilefuse_conv2d_shape& s = args.shape;
    View dy, x;
    bool count_padding = false;
    if (!given.packed(0, dy) || !given.array(1, x) || dy.dtype != x.dtype ||
        !(whole ? read_whole(x, args.shape) : read_shape(given, x, 2, args.shape)) ||
        (kind == TILEFUSE_POOL_AVERAGE && !given.flag(5, count_padding))) {
        return {};
    }
    const int64_t windows[] = {s.n, s.out_h, s.out_w, s.c}, images[] = {s.n, s.c};
    const bool fits = whole ? std::equal(images, images + 2, dy.shape, dy.shape + dy.axes)
                            : std::equal(windows, windows + 4, dy.shape, dy.shape + dy.axes);
    if (!fits) return {};
    Result dx = given.result(x);
    args.dtype = x.dtype;
    args.kind = kind;
    args.count_padding = count_padding;
    args.dy = dy.data;
    args.dx = dx.data;
    Scratch places;
    if (kind == TILEFUSE_POOL_MAX) {
        tilefuse_pool2d_args again = {};
        again.dtype = x.dtype;
        again.kind = kind;
        again.shape = s;
        again.x = x.data;
        const size_t bytes = s.kernel_h * s.kernel_w <= TILEFUSE_POOL_OF_BYTES ? 1 : 4;
        again.argmax = places.take(static_cast<size_t>(dy.size) * bytes);
        args.argmax = again.argmax;
        run_directly(operations(s), again);
    }
    run_directly(operations(s), args);
    return dx.take();
}

const Direct directs[] = {
    {"max_pool2d", 4, {"x", "pool_size", "strides", "padding"}, &run_forward<TILEFUSE_POOL_MAX>},
    {"max_pool2d_backward", 5, {"dy", "x", "pool_size", "strides", "padding"}, &run_backward<TILEFUSE_POOL_MAX>},
    {"avg_pool2d", 5, {"x", "pool_size", "strides", "padding", "count_padding"}, &run_forward<TILEFUSE_POOL_AVERAGE>},
    {"avg_pool2d_backward", 6, {"dy", "x", "pool_size", "strides", "padding", "count_padding"}, &run_backward<TILEFUSE_POOL_AVERAGE>},
    {"global_avg_pool2d", 1, {"x"}, &run_forward<TILEFUSE_POOL_AVERAGE, true>},
    {"global_avg_pool2d_backward", 2, {"dy", "x"}, &run_backward<TILEFUSE_POOL_AVERAGE, true>},
};

}  // namespace

const Binding binding = [](py::module_& m) {
    using namespace py::literals;
    m.def("pool2d", &pool2d, "kind"_a, "x"_a, "y"_a, "kernel"_a, "geometry"_a, "count_padding"_a = false, "argmax"_a = py::none(),
          "The maxima or means of windows; argmax receives where maxima are in them. geometry: as for conv2d.");
    m.def("pool2d_backward", &pool2d_backward, "kind"_a, "dy"_a, "dx"_a, "kernel"_a, "geometry"_a, "count_padding"_a = false,
          "argmax"_a = py::none(), "derivative"_a = "linear", "alpha"_a = 0.0, "derivative_at"_a = py::none(), "mask"_a = py::none(),
          "mask_scale"_a = 1.0,
          "dx from the gradient dy at the output; kept where the mask says so, and times an activation's derivative.");
};

}  // namespace tilefuse::bindings
