#include "bindings/direct.h"

namespace tilefuse::bindings {
namespace {

constexpr struct {
    const char* name;
    tilefuse_loss_kind loss;
} losses[] = {
    {"sparse_categorical_crossentropy", TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY},
    {"categorical_crossentropy", TILEFUSE_CATEGORICAL_CROSSENTROPY},
    {"binary_crossentropy", TILEFUSE_BINARY_CROSSENTROPY},
    {"mean_squared_error", TILEFUSE_MEAN_SQUARED_ERROR},
};

tilefuse_loss_kind loss_from(const std::string& name) {
    std::string known;
    for (const auto& entry : losses) {
        if (name == entry.name) return entry.loss;
        known += std::string(known.empty() ? "" : ", ") + entry.name;
    }
    throw py::value_error("unknown loss '" + name + "'; expected one of: " + known);
}

// Class ids, [rows], each in [0, classes).
const void* class_ids(const py::array& labels, py::ssize_t rows, int64_t classes) {
    if (labels.dtype().kind() != 'i' || labels.itemsize() != 4 || labels.dtype().byteorder() == '>') {
        throw py::type_error("labels have dtype " + py::str(labels.dtype()).cast<std::string>() +
                             "; expected int32 class ids: convert them with .astype(numpy.int32)");
    }
    const bool packed = (labels.flags() & py::array::c_style) && (labels.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    if (!packed || labels.size() != rows) {
        throw py::value_error("labels have shape " + shape_text(shape_of(labels)) + "; expected " +
                              std::to_string(rows) + " class ids, C-contiguous and aligned");
    }
    const auto* ids = static_cast<const int32_t*>(labels.data());
    std::vector<int32_t> on_host;
    if (!backend::uses_host_memory() && backend::owns(ids)) {
        on_host.resize(static_cast<size_t>(rows));
        backend::copy_out(on_host.data(), ids, sizeof(int32_t) * on_host.size());
        ids = on_host.data();
    }
    for (py::ssize_t i = 0; i < rows; ++i) {
        if (ids[i] < 0 || ids[i] >= classes) {
            throw py::value_error("label " + std::to_string(ids[i]) +
                                  " is out of range; expected class ids in [0, " + std::to_string(classes) +
                                  ")");
        }
    }
    return labels.data();
}

// The mean over the rows of x [rows, cols] of their weighted losses; writes its gradient to dx.
double loss(const std::string& name, bool from_logits, const py::array& x, const py::array& labels,
            const py::object& sample_weight, double label_smoothing, py::array& dx) {
    if (x.ndim() != 2) throw py::value_error("x has " + std::to_string(x.ndim()) + " axes; expected 2");
    const py::ssize_t rows = x.shape(0);
    double sum = 0;
    Call call;

    tilefuse_loss_args args = {};
    args.dtype = dtype_of(x, "x");
    args.loss = loss_from(name);
    args.from_logits = from_logits;
    args.label_smoothing = label_smoothing;
    args.rows = rows;
    args.cols = x.shape(1);
    args.x = call.input(x, "x", args.dtype, x.size());
    args.labels = args.loss == TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY
                      ? call.read(class_ids(labels, rows, args.cols), labels.nbytes())
                      : call.input(labels, "labels", args.dtype, x.size());
    py::array weight;
    if (!sample_weight.is_none()) {
        weight = sample_weight.cast<py::array>();
        args.sample_weight = call.input(weight, "sample_weight", args.dtype, rows);
    }
    args.rows_per_sample = 1;
    args.scale = 1.0 / static_cast<double>(rows > 0 ? rows : 1);
    args.dx = call.output(dx, "dx", args.dtype, x.size());
    args.row_loss = call.scratch<double>(rows);

    tilefuse_total_args total = {};
    total.n = rows;
    total.x = args.row_loss;
    total.sum = static_cast<double*>(call.write(&sum, sizeof sum));
    call.run(args, total);
    return sum * args.scale;
}

// (x, labels, *, sample_weight, label_smoothing); mean_squared_error without the last.
py::object run(Arguments& given, tilefuse_loss_kind kind, bool from_logits) {
    tilefuse_loss_args args = {};
    View x, labels, weight;
    std::vector<int32_t> ids;
    if (!given.packed(0, x) || x.axes == 0 || !given.optional_array(2, weight) || !given.number(3, args.label_smoothing) ||
        !(args.label_smoothing >= 0 && args.label_smoothing <= 1)) {
        return {};
    }
    args.loss = kind;
    if (kind == TILEFUSE_CATEGORICAL_CROSSENTROPY && given.class_ids(1, x, ids)) {
        args.loss = TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY;
        args.labels = ids.data();
    } else if (given.packed(1, labels) && labels.like(x)) {
        args.labels = labels.data;
    } else {
        return {};
    }
    if (weight) {
        const bool fits = weight.dtype == x.dtype && weight.packed && weight.axes == x.axes - 1;
        if (!fits || !std::equal(weight.shape, weight.shape + weight.axes, x.shape)) return {};
        args.sample_weight = weight.data;
    }
    Result mean = given.result(x.dtype, 0, nullptr), dx = given.result(x);
    args.dtype = x.dtype;
    args.from_logits = from_logits;
    args.rows = x.rows();
    args.cols = x.last();
    args.x = x.data;
    args.rows_per_sample = 1;
    args.scale = 1.0 / static_cast<double>(args.rows > 0 ? args.rows : 1);
    args.dx = dx.data;
    std::vector<double> row_loss(static_cast<size_t>(args.rows));
    args.row_loss = row_loss.data();
    double sum = 0;
    tilefuse_total_args total = {};
    total.n = args.rows;
    total.x = args.row_loss;
    total.sum = &sum;
    run_directly(20.0 * static_cast<double>(x.size), args, total);
    if (x.dtype == TILEFUSE_FLOAT32) *static_cast<float*>(mean.data) = static_cast<float>(sum * args.scale);
    else *static_cast<double*>(mean.data) = sum * args.scale;
    return py::make_tuple(mean.take(), dx.take());
}

Direct::Run runs(tilefuse_loss_kind kind, bool from_logits) {
    return [=](Arguments& given) { return run(given, kind, from_logits); };
}

const Direct directs[] = {
    {"softmax_cross_entropy", 2, {"logits", "labels", "sample_weight", "label_smoothing"}, runs(TILEFUSE_CATEGORICAL_CROSSENTROPY, true)},
    {"categorical_cross_entropy", 2, {"probs", "labels", "sample_weight", "label_smoothing"}, runs(TILEFUSE_CATEGORICAL_CROSSENTROPY, false)},
    {"sigmoid_binary_cross_entropy", 2, {"logits", "labels", "sample_weight", "label_smoothing"}, runs(TILEFUSE_BINARY_CROSSENTROPY, true)},
    {"binary_cross_entropy", 2, {"probs", "labels", "sample_weight", "label_smoothing"}, runs(TILEFUSE_BINARY_CROSSENTROPY, false)},
    {"mean_squared_error", 2, {"pred", "target", "sample_weight"}, runs(TILEFUSE_MEAN_SQUARED_ERROR, false)},
};

}  // namespace

const Binding binding = [](py::module_& m) {
    m.def("loss", &loss, py::arg("name"), py::arg("from_logits"), py::arg("x"), py::arg("labels"),
          py::arg("sample_weight"), py::arg("label_smoothing"), py::arg("dx"),
          "The mean loss of the rows of x; its gradient goes to dx.");
};

}  // namespace tilefuse::bindings
