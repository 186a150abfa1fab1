#include "bindings/conv.h"

#include <pybind11/stl.h>

#include "bindings/activation.h"
#include "bindings/precision.h"

namespace tilefuse::bindings {

tilefuse_conv2d_shape shape_from(const std::vector<int64_t>& x, const std::vector<int64_t>& w, const Geometry& g, const char* name) {
    const auto text = [](const std::vector<int64_t>& shape) { return shape_text({shape.begin(), shape.end()}); };
    if (x.size() != 4 || w.size() != 4) {
        throw py::value_error(std::string(name) + ": x has shape " + text(x) + " and w " + text(w) + "; expected four axes each, NHWC and HWIO");
    }
    const tilefuse_conv2d_shape s = {
        .n = x[0], .h = x[1], .w = x[2], .c = x[3], .kernel_h = w[0], .kernel_w = w[1], .f = w[3], .out_h = g[0], .out_w = g[1],
        .stride_h = g[2], .stride_w = g[3], .dilation_h = g[4], .dilation_w = g[5], .pad_top = g[6], .pad_left = g[7], .groups = g[8]};
    const bool positive = s.kernel_h > 0 && s.kernel_w > 0 && s.stride_h > 0 && s.stride_w > 0 && s.dilation_h > 0 &&
                          s.dilation_w > 0 && s.groups > 0 && s.out_h >= 0 && s.out_w >= 0;
    if (!positive || s.c % s.groups != 0 || s.f % s.groups != 0 || w[2] != s.c / s.groups) {
        throw py::value_error(std::string(name) + ": w has shape " + text(w) + " and x " + text(x) + " with " + std::to_string(s.groups) +
                              " groups; expected w [h, w, c / groups, f] for x [n, h, w, c]");
    }
    return s;
}

bool set_images(tilefuse_conv2d_shape& s, const View& x) {
    if (x.axes != 4 || !x.packed) return false;
    s.n = x.shape[0];
    s.h = x.shape[1];
    s.w = x.shape[2];
    s.c = x.shape[3];
    return true;
}

namespace {

// The padding on both sides of an axis (0: height), as `windows` in ops/_windows.py has it.
bool read_padding(const Arguments& given, size_t padding, Py_ssize_t axis, int64_t size, int64_t stride, int64_t reach, int64_t& before,
                  int64_t& after) {
    before = after = 0;
    PyObject* const value = given.values[padding];
    if (value == nullptr) return true;
    if (PyTuple_CheckExact(value)) {
        if (PyTuple_GET_SIZE(value) != 2) return false;
        PyObject* const sides = PyTuple_GET_ITEM(value, axis);
        return PyTuple_CheckExact(sides) && PyTuple_GET_SIZE(sides) == 2 && read_size(PyTuple_GET_ITEM(sides, 0), before) &&
               read_size(PyTuple_GET_ITEM(sides, 1), after);
    }
    if (PyLong_CheckExact(value)) return read_size(value, before) && read_size(value, after);
    const std::string_view name = given.text(padding);
    if (name == "same") {
        const int64_t total = std::max<int64_t>(0, ((size + stride - 1) / stride - 1) * stride + reach - size);
        before = total / 2;
        after = total - before;
    }
    return name == "same" || name == "valid";
}

}  // namespace

bool set_windows(tilefuse_conv2d_shape& s, const Arguments& given, size_t padding) {
    const auto place = [&](Py_ssize_t axis, int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t& before, int64_t& out) {
        const int64_t reach = (kernel - 1) * dilation + 1;
        int64_t after;
        if (kernel < 1 || !read_padding(given, padding, axis, size, stride, reach, before, after)) return false;
        const int64_t room = before + size + after - reach;
        out = room < 0 ? 0 : room / stride + 1;
        return true;
    };
    return place(0, s.h, s.kernel_h, s.stride_h, s.dilation_h, s.pad_top, s.out_h) &&
           place(1, s.w, s.kernel_w, s.stride_w, s.dilation_w, s.pad_left, s.out_w);
}

namespace {

using Window = std::array<int64_t, 2>;

std::vector<int64_t> axes_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

tilefuse_conv2d_pool pool_from(const std::optional<Window>& window) {
    if (!window) return {};
    if ((*window)[0] < 1 || (*window)[1] < 1 || (*window)[0] * (*window)[1] > 256) throw py::value_error("a pool has 1 to 256 elements");
    return {(*window)[0], (*window)[1]};
}

py::ssize_t output_size(const tilefuse_conv2d_shape& s, const tilefuse_conv2d_pool& pool) {
    return s.n * s.f * (pool.height ? (s.out_h / pool.height) * (s.out_w / pool.width) : s.out_h * s.out_w);
}

uint8_t* bytes_of(const py::array& a, py::ssize_t size) {
    if (a.dtype().kind() != 'u' || a.itemsize() != 1 || !(a.flags() & py::array::c_style) || a.size() != size) {
        throw py::value_error("argmax: expected " + std::to_string(size) + " contiguous uint8");
    }
    return static_cast<uint8_t*>(const_cast<void*>(a.data()));
}

void conv2d(const py::array& x, const py::array& w, py::array& y, const py::object& bias, const std::string& activation, double alpha,
            const py::object& preactivation, const Geometry& geometry, const std::string& precision, const std::optional<Window>& pool,
            const py::object& argmax) {
    tilefuse_conv2d_args args = {};
    args.dtype = dtype_of(x, "x");
    args.precision = precision_from(precision);
    args.shape = shape_from(axes_of(x), axes_of(w), geometry, "conv2d");
    args.pool = pool_from(pool);
    args.epilogue.activation = activation_from(activation);
    args.epilogue.activation_alpha = alpha;
    const py::ssize_t size = output_size(args.shape, args.pool);
    Call call;
    args.x = call.input(x, "x", args.dtype, x.size());
    args.w = call.input(w, "w", args.dtype, w.size());
    args.y = call.output(y, "y", args.dtype, size);
    if (!bias.is_none()) args.epilogue.bias = call.input(bias.cast<py::array>(), "b", args.dtype, args.shape.f);
    if (!preactivation.is_none()) {
        py::array z = preactivation.cast<py::array>();
        args.epilogue.preactivation = call.output(z, "z", args.dtype, size);
    }
    if (!argmax.is_none()) args.argmax = static_cast<uint8_t*>(call.write(bytes_of(argmax.cast<py::array>(), size), size));
    call.run(args);
}

void conv2d_backward_data(const py::array& dy, const py::array& w, py::array& dx, const Geometry& geometry, const std::string& precision,
                          const std::optional<Window>& pool, const py::object& argmax) {
    tilefuse_conv2d_backward_data_args args = {};
    args.dtype = dtype_of(dy, "dy");
    args.precision = precision_from(precision);
    args.shape = shape_from(axes_of(dx), axes_of(w), geometry, "conv2d_backward_data");
    args.pool = pool_from(pool);
    const py::ssize_t size = output_size(args.shape, args.pool);
    Call call;
    args.dy = call.input(dy, "dy", args.dtype, size);
    args.w = call.input(w, "w", args.dtype, w.size());
    args.dx = call.output(dx, "dx", args.dtype, dx.size());
    if (args.pool.height) args.argmax = static_cast<const uint8_t*>(call.read(bytes_of(argmax.cast<py::array>(), size), size));
    call.run(args);
}

void conv2d_backward_weights(const py::array& x, const py::array& dy, py::array& dw, const py::object& db, const Geometry& geometry,
                             const std::string& precision, const std::optional<Window>& pool, const py::object& argmax) {
    tilefuse_conv2d_backward_weights_args args = {};
    args.dtype = dtype_of(x, "x");
    args.precision = precision_from(precision);
    args.shape = shape_from(axes_of(x), axes_of(dw), geometry, "conv2d_backward_weights");
    args.pool = pool_from(pool);
    const py::ssize_t size = output_size(args.shape, args.pool);
    Call call;
    args.x = call.input(x, "x", args.dtype, x.size());
    args.dy = call.input(dy, "dy", args.dtype, size);
    args.dw = call.output(dw, "dw", args.dtype, dw.size());
    if (!db.is_none()) {
        py::array sums = db.cast<py::array>();
        args.db = call.output(sums, "db", args.dtype, args.shape.f);
    }
    if (args.pool.height) args.argmax = static_cast<const uint8_t*>(call.read(bytes_of(argmax.cast<py::array>(), size), size));
    call.run(args);
}

// x, w, and from argument `first` on strides, padding, dilation and groups; returns whether they will do.
bool read_shape(Arguments& given, const View& x, const View& w, size_t first, tilefuse_conv2d_shape& s) {
    s.stride_h = s.stride_w = s.dilation_h = s.dilation_w = s.groups = 1;
    if (!set_images(s, x) || w.axes != 4 || !w.packed || w.dtype != x.dtype || !given.pair(first, s.stride_h, s.stride_w) ||
        !given.pair(first + 2, s.dilation_h, s.dilation_w) || !given.integer(first + 3, s.groups) || s.groups < 1) {
        return false;
    }
    s.kernel_h = w.shape[0];
    s.kernel_w = w.shape[1];
    s.f = w.shape[3];
    return s.c % s.groups == 0 && s.f % s.groups == 0 && w.shape[2] == s.c / s.groups && set_windows(s, given, first + 1);
}

// Adds the window of the pooling, which is argument `i`, and how large it leaves the output.
bool read_pool(Arguments& given, size_t i, const tilefuse_conv2d_shape& s, tilefuse_conv2d_pool& pool, int64_t* shape) {
    if (!given.has(i) || !given.pair(i, pool.height, pool.width) || pool.height * pool.width > 256) return false;
    shape[1] = s.out_h / pool.height;
    shape[2] = s.out_w / pool.width;
    return true;
}

double operations(const tilefuse_conv2d_shape& s) {
    return 2.0 * static_cast<double>(s.n * s.out_h * s.out_w * s.f) * static_cast<double>(s.kernel_h * s.kernel_w * (s.c / s.groups));
}

// (x, w, b, [pool_size,] *, strides, padding, dilation, groups, activation, precision)
template <bool pooled> py::object run_forward(Arguments& given) {
    constexpr size_t options = pooled ? 4 : 3;
    tilefuse_conv2d_args args = {};
    const tilefuse_conv2d_shape& s = args.shape;
    View x, w, b;
    if (!given.array(0, x) || !given.array(1, w) || !given.optional_array(2, b) || (pooled && !given.given(2)) ||
        !read_shape(given, x, w, options, args.shape) || (b && !b.is_row(w)) ||
        !given.activation(options + 4, args.epilogue.activation, args.epilogue.activation_alpha) ||
        !given.precision(options + 5, x.dtype, args.precision)) {
        return {};
    }
    int64_t shape[] = {s.n, s.out_h, s.out_w, s.f};
    if (pooled && !read_pool(given, 3, s, args.pool, shape)) return {};
    Result y = given.result(x.dtype, 4, shape), argmax;
    if (pooled) {
        argmax = given.result_of_bytes(4, shape);
        args.argmax = static_cast<uint8_t*>(argmax.data);
    }
    args.dtype = x.dtype;
    args.x = x.data;
    args.w = w.data;
    args.y = y.data;
    args.epilogue.bias = b ? b.data : nullptr;
    run_directly(operations(s), args);
    return pooled ? py::object(py::make_tuple(y.take(), argmax.take())) : y.take();
}

// (dy, x, w, y, [argmax, pool_size,] *, strides, padding, dilation, groups, activation, [z,] precision, needs_dx)
template <bool pooled> py::object run_backward(Arguments& given) {
    constexpr size_t options = pooled ? 6 : 4, precision = options + 5 + !pooled;
    tilefuse_conv2d_backward_data_args of_x = {};
    tilefuse_conv2d_backward_weights_args of_w = {};
    const tilefuse_conv2d_shape& s = of_x.shape;
    BeforeActivation before;
    View dy, x, w, y, z;
    bool needs_dx = true;
    if (!given.packed(0, dy) || !given.array(1, x) || !given.array(2, w) || (pooled && !given.given(3)) || !given.optional_array(3, y) ||
        (!pooled && !given.optional_array(options + 5, z)) || !read_shape(given, x, w, options, of_x.shape) ||
        !given.activation(options + 4, before.args.activation, before.args.alpha) || !given.precision(precision, x.dtype, of_x.precision) ||
        (given.given(precision + 1) && !given.flag(precision + 1, needs_dx))) {
        return {};
    }
    int64_t shape[] = {s.n, s.out_h, s.out_w, s.f};
    if (pooled) {
        if (!read_pool(given, 5, s, of_x.pool, shape)) return {};
        of_x.argmax = given.bytes(4, 4, shape);
        if (of_x.argmax == nullptr) return {};
    }
    if (dy.dtype != x.dtype || dy.axes != 4 || !std::equal(shape, shape + 4, dy.shape) || !before.set(dy, y, z)) return {};
    Result dx, dw = given.result(w), db = given.result(x.dtype, 1, &s.f);
    if (needs_dx) dx = given.result(x);
    of_x.dtype = of_w.dtype = x.dtype;
    of_x.dy = of_w.dy = before.data();
    of_x.w = w.data;
    of_w.precision = of_x.precision;
    of_w.shape = s;
    of_w.x = x.data;
    of_w.dw = dw.data;
    of_w.db = db.data;
    of_w.pool = of_x.pool;
    of_w.argmax = of_x.argmax;
    const double work = 2 * operations(s);
    before.run(work);
    if (needs_dx) {
        of_x.dx = dx.data;
        run_directly(work, of_x);
    }
    run_directly(work, of_w);
    return py::make_tuple(needs_dx ? dx.take() : py::none(), dw.take(), db.take());
}

const Direct directs[] = {
    {"conv2d", 3, {"x", "w", "b", "strides", "padding", "dilation", "groups", "activation", "precision"}, &run_forward<false>},
    {"conv2d_backward", 4,
     {"dy", "x", "w", "y", "strides", "padding", "dilation", "groups", "activation", "z", "precision", "needs_dx"}, &run_backward<false>},
    {"conv2d_pooled", 4, {"x", "w", "b", "pool_size", "strides", "padding", "dilation", "groups", "activation", "precision"},
     &run_forward<true>},
    {"conv2d_pooled_backward", 6,
     {"dy", "x", "w", "y", "argmax", "pool_size", "strides", "padding", "dilation", "groups", "activation", "precision", "needs_dx"},
     &run_backward<true>},
};

}  // namespace

const Binding binding = [](py::module_& m) {
    using namespace py::literals;
    m.def("conv2d", &conv2d, "x"_a, "w"_a, "y"_a, "bias"_a, "activation"_a, "alpha"_a, "preactivation"_a, "geometry"_a,
          "precision"_a = "float32", "pool"_a = py::none(), "argmax"_a = py::none(),
          "y = activation(conv(x, w) + bias), or its max-pooling. geometry: out_h, out_w, stride_h, stride_w, dilation_h, dilation_w, "
          "pad_top, pad_left, groups.");
    m.def("conv2d_backward_data", &conv2d_backward_data, "dy"_a, "w"_a, "dx"_a, "geometry"_a, "precision"_a = "float32",
          "pool"_a = py::none(), "argmax"_a = py::none(), "dx from the gradient dy before the activation.");
    m.def("conv2d_backward_weights", &conv2d_backward_weights, "x"_a, "dy"_a, "dw"_a, "db"_a, "geometry"_a, "precision"_a = "float32",
          "pool"_a = py::none(), "argmax"_a = py::none(), "dw and db (or None) from x and the gradient dy before the activation.");
};

}  // namespace tilefuse::bindings
