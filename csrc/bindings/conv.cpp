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
