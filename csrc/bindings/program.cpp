// Program, the compiled training step. Layers come as dictionaries of plain values and NumPy arrays; the arrays stay
// the caller's and are updated in place.
#include "program/program.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include "bindings/activation.h"
#include "bindings/arrays.h"
#include "bindings/conv.h"
#include "bindings/optimizer.h"
#include "bindings/precision.h"

namespace tilefuse::bindings {
namespace {

using program::Shape;

constexpr double seconds_between_polls = 0.05;  // for Ctrl-C

template <class V> V get(const py::dict& dict, const char* key, V otherwise) {
    return dict.contains(key) && !dict[key].is_none() ? dict[key].cast<V>() : otherwise;
}

class BoundProgram {
public:
    BoundProgram(const py::list& layers, Shape input_shape, int64_t batch, const py::object& loss, const py::object& optimizer,
                 const std::string& dtype, const std::string& networks, const std::string& precision) {
        program::Spec spec;
        spec.precision = precision_from(precision);
        spec.networks = networks_of(networks);
        if (dtype != "float32" && dtype != "float64") {
            throw py::value_error("dtype is '" + dtype + "'; expected 'float32' or 'float64'");
        }
        spec.dtype = dtype == "float32" ? TILEFUSE_FLOAT32 : TILEFUSE_FLOAT64;
        if (batch < 1) throw py::value_error("batch is " + std::to_string(batch) + "; expected at least 1");
        if (input_shape.empty()) throw py::value_error("input_shape is (); expected at least one axis beside the batch's");
        for (int64_t n : input_shape)
            if (n < 1) throw py::value_error("input_shape has an axis of " + std::to_string(n) + " elements; expected at least 1");
        spec.input_shape = std::move(input_shape);
        if (!loss.is_none()) spec.loss = loss_of(loss.cast<py::dict>());
        int slots = 0;
        if (!optimizer.is_none()) {
            const py::dict o = optimizer.cast<py::dict>();
            spec.optimizer.emplace();
            spec.optimizer->rule = optimizer_from(o);
            spec.optimizer->clip_norm = get(o, "clipnorm", 0.0);
            spec.optimizer->global_clip_norm = get(o, "global_clipnorm", 0.0);
            slots = slot_count(spec.optimizer->rule);
            if (!spec.loss) throw py::value_error("an optimizer without a loss: pass a loss");
        }
        for (const py::handle& item : layers) spec.layers.push_back(layer_of(item.cast<py::dict>(), spec, slots));
        program_ = std::make_unique<program::Program>(std::move(spec), batch);
    }

    std::pair<double, double> train_step(const py::array& x, const py::array& y, const py::object& weight, double learning_rate) {
        need_training();
        const program::Data data = data_of(x, y, weight);
        program::Totals totals;
        {
            py::gil_scoped_release release;
            totals = program_->train_step(data, learning_rate);
        }
        return {totals.mean_loss(), totals.mean_accuracy()};
    }

    py::dict train_epoch(const py::array& x, const py::array& y, const py::object& order, const py::array_t<double>& learning_rates,
                         std::optional<int64_t> batch_size, const py::object& weight, const py::object& predictions,
                         const py::object& on_progress, double interval) {
        need_training();
        program::Data data = data_of(x, y, weight);
        const int64_t batch = batch_size.value_or(program_->batch());
        if (batch < 1) throw py::value_error("batch_size is " + std::to_string(batch) + "; expected at least 1");
        const int64_t steps = (data.samples + batch - 1) / batch;
        if (learning_rates.ndim() != 1 || learning_rates.size() < steps || learning_rates.strides(0) != sizeof(double)) {
            throw py::value_error("learning_rates has " + std::to_string(learning_rates.size()) + " elements; expected one for each of " +
                                  std::to_string(steps) + " steps, contiguous float64");
        }
        py::array kept_predictions;
        if (!predictions.is_none()) {
            kept_predictions = predictions.cast<py::array>();
            data.predictions = static_cast<char*>(output_array(kept_predictions, "predictions", data.samples));
        }
        py::array_t<int64_t> kept_order;
        const int64_t* order_of = nullptr;
        if (!order.is_none()) {
            if (!py::isinstance<py::array_t<int64_t>>(order)) throw py::type_error("order must be a numpy.int64 array");
            kept_order = order.cast<py::array_t<int64_t>>();
            if (kept_order.ndim() != 1 || kept_order.size() != data.samples || !(kept_order.flags() & py::array::c_style)) {
                throw py::value_error("order has shape " + shape_text(shape_of(kept_order)) + "; expected (" +
                                      std::to_string(data.samples) + ",), contiguous");
            }
            order_of = kept_order.data();
            for (int64_t i = 0; i < data.samples; ++i) {
                if (order_of[i] < 0 || order_of[i] >= data.samples) {
                    throw py::value_error("order[" + std::to_string(i) + "] is " + std::to_string(order_of[i]) +
                                          "; expected 0 to " + std::to_string(data.samples - 1));
                }
            }
        }
        const bool reports = !on_progress.is_none();
        const program::Program::Poll poll = [&](const program::Totals& so_far) {
            py::gil_scoped_acquire acquire;
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
            if (!reports) return false;
            const py::object stop = on_progress(so_far.steps, so_far.mean_loss(), so_far.mean_accuracy());
            return !stop.is_none() && stop.cast<bool>();
        };
        program::Totals totals;
        {
            py::gil_scoped_release release;
            totals = program_->train_epoch(data, order_of, batch, learning_rates.data(),
                                           reports ? std::min(interval, seconds_between_polls) : seconds_between_polls, poll);
        }
        return py::dict(py::arg("loss") = totals.mean_loss(), py::arg("accuracy") = totals.mean_accuracy(),
                        py::arg("steps") = totals.steps, py::arg("samples") = totals.samples);
    }

    std::pair<double, double> evaluate(const py::array& x, const py::array& y, const py::object& weight) {
        if (!program_->spec().loss) throw py::value_error("this program has no loss: make it with one to evaluate");
        const program::Data data = data_of(x, y, weight);
        program::Totals totals;
        {
            py::gil_scoped_release release;
            totals = program_->evaluate(data, seconds_between_polls, poll_signals);
        }
        return {totals.mean_loss(), totals.mean_accuracy()};
    }

    void predict(const py::array& x, py::array& out) {
        program::Data data;
        data.samples = samples_of(x, "x", program_->spec().input_shape);
        data.x = static_cast<const char*>(x.data());
        data.predictions = static_cast<char*>(output_array(out, "out", data.samples));
        py::gil_scoped_release release;
        program_->predict(data, seconds_between_polls, poll_signals);
    }

    program::Program& program() { return *program_; }
    const program::Program& program() const { return *program_; }

private:
    static bool poll_signals(const program::Totals&) {
        py::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        return false;
    }

    void need_training() const {
        if (!program_->spec().optimizer) throw py::value_error("this program has no optimizer: make it with a loss and an optimizer to train");
    }

    static program::Networks networks_of(const std::string& name) {
        const std::pair<const char*, program::Networks> known[] = {
            {"auto", {}},
            {"off", {.whole = false, .precision = {}}},
            {"fma", {.whole = true, .precision = TILEFUSE_MLP_FMA}},
            {"split", {.whole = true, .precision = TILEFUSE_MLP_SPLIT}},
            {"bfloat16", {.whole = true, .precision = TILEFUSE_MLP_BFLOAT16}},
            {"float16", {.whole = true, .precision = TILEFUSE_MLP_FLOAT16}},
        };
        for (const auto& [of, networks] : known)
            if (name == of) return networks;
        throw py::value_error("networks is '" + name + "'; expected 'auto', 'off', 'fma', 'split', 'bfloat16' or 'float16'");
    }

    static program::Loss loss_of(const py::dict& d) {
        program::Loss loss;
        const std::string kind = d["kind"].cast<std::string>();
        if (kind == "sparse_categorical_crossentropy") loss.kind = TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY;
        else if (kind == "categorical_crossentropy") loss.kind = TILEFUSE_CATEGORICAL_CROSSENTROPY;
        else if (kind == "binary_crossentropy") loss.kind = TILEFUSE_BINARY_CROSSENTROPY;
        else if (kind == "mean_squared_error") loss.kind = TILEFUSE_MEAN_SQUARED_ERROR;
        else throw py::value_error("unknown loss '" + kind + "'; expected one of sparse_categorical_crossentropy, categorical_crossentropy, "
                                   "binary_crossentropy, mean_squared_error");
        loss.from_logits = get(d, "from_logits", false);
        loss.label_smoothing = get(d, "label_smoothing", 0.0);
        return loss;
    }

    static program::Activation activation_of(const py::dict& d) {
        program::Activation activation;
        activation.name = get<std::string>(d, "activation", "linear");
        activation.alpha = get(d, "alpha", 0.0);
        if (activation.name == "softmax") activation.kind = program::Activation::softmax;
        else if (activation.name == "log_softmax") activation.kind = program::Activation::log_softmax;
        else activation.function = activation_from(activation.name);
        return activation;
    }

    // The layer after those that `spec` has; "sources" are the numbers of the layers that it takes, -1 the network's input.
    program::Layer layer_of(const py::dict& d, const program::Spec& spec, int slots) {
        program::Layer layer;
        const std::string kind = d["kind"].cast<std::string>();
        layer.name = get<std::string>(d, "name", kind);
        const int before = static_cast<int>(spec.layers.size()) - 1;
        layer.sources = get<std::vector<int>>(d, "sources", {before});
        for (const int source : layer.sources) {
            if (source < program::network_input || source > before) {
                throw py::value_error("layer '" + layer.name + "' takes layer " + std::to_string(source) + "; expected -1 to " +
                                      std::to_string(before));
            }
        }
        if (layer.sources.empty() || (layer.sources.size() > 1 && kind != "add")) {
            throw py::value_error("layer '" + layer.name + "' takes " + std::to_string(layer.sources.size()) +
                                  " layers' outputs; expected one, but for an 'add'");
        }
        const int source = layer.sources.front();
        const Shape& input = source == program::network_input ? spec.input_shape : spec.layers[static_cast<size_t>(source)].shape;
        layer.shape = input;
        if (kind == "dense") {
            dense_from(d, input, layer, spec.dtype, slots);
        } else if (kind == "conv2d") {
            conv_from(d, input, layer, spec.dtype, slots);
        } else if (kind == "max_pool2d" || kind == "avg_pool2d") {
            layer.kind = program::Layer::pool;
            layer.pooling = kind == "max_pool2d" ? TILEFUSE_POOL_MAX : TILEFUSE_POOL_AVERAGE;
            layer.window = window_from(d, input, get<std::vector<int64_t>>(d, "window", {}), layer.name);
            layer.shape = {layer.window.out_h, layer.window.out_w, layer.window.f};
            if (d.contains("shape")) layer.shape = reshaped(d, layer.shape, layer.name);
        } else if (kind == "batch_norm") {
            layer.kind = program::Layer::batch_norm;
            layer.momentum = d["momentum"].cast<double>();
            layer.mean = variable(d, "moving_mean", nullptr, spec.dtype, input.back(), 0, layer.name);
            layer.variance = variable(d, "moving_variance", nullptr, spec.dtype, input.back(), 0, layer.name);
            norm_from(d, layer, spec.dtype, slots);
        } else if (kind == "layer_norm" || kind == "rms_norm") {
            layer.kind = kind == "layer_norm" ? program::Layer::layer_norm : program::Layer::rms_norm;
            norm_from(d, layer, spec.dtype, slots);
        } else if (kind == "add") {
            layer.kind = program::Layer::add;
            for (const int other : layer.sources) {
                const Shape& shape = other == program::network_input ? spec.input_shape : spec.layers[static_cast<size_t>(other)].shape;
                if (shape != input) {
                    throw py::value_error("layer '" + layer.name + "' adds outputs of shapes " + shape_text({input.begin(), input.end()}) +
                                          " and " + shape_text({shape.begin(), shape.end()}) + "; expected equal ones");
                }
            }
        } else if (kind == "activation") {
            layer.kind = program::Layer::activate;
            layer.activation = activation_of(d);
        } else if (kind == "dropout") {
            layer.kind = program::Layer::dropout;
            layer.rate = d["rate"].cast<double>();
            if (!(layer.rate >= 0 && layer.rate < 1)) {
                throw py::value_error("layer '" + layer.name + "': rate is " + std::to_string(layer.rate) + "; expected 0 <= rate < 1");
            }
            layer.seed = d["seed"].cast<uint64_t>();
        } else if (kind == "reshape") {
            layer.kind = program::Layer::reshape;
            layer.shape = reshaped(d, input, layer.name);
        } else {
            throw py::value_error("unknown layer kind '" + kind + "'; expected dense, conv2d, max_pool2d, avg_pool2d, batch_norm, layer_norm, "
                                  "rms_norm, add, activation, dropout or reshape");
        }
        return layer;
    }

    static Shape reshaped(const py::dict& d, const Shape& from, const std::string& name) {
        const Shape to = d["shape"].cast<Shape>();
        if (to.empty() || program::size_of(to) != program::size_of(from)) {
            throw py::value_error("layer '" + name + "': cannot reshape " + shape_text({from.begin(), from.end()}) + " to " +
                                  shape_text({to.begin(), to.end()}) + ": the number of elements differs");
        }
        return to;
    }

    void dense_from(const py::dict& d, const Shape& input, program::Layer& layer, tilefuse_dtype dtype, int slots) {
        const py::array kernel = d["kernel"].cast<py::array>();
        if (kernel.ndim() != 2 || kernel.shape(0) != input.back()) {
            throw py::value_error("layer '" + layer.name + "': kernel has shape " + shape_text(shape_of(kernel)) + "; expected (" +
                                  std::to_string(input.back()) + ", units), as its input has shape " + shape_text({input.begin(), input.end()}));
        }
        layer.inputs = kernel.shape(0);
        layer.shape.back() = kernel.shape(1);
        weights_from(d, layer, dtype, slots);
    }

    void conv_from(const py::dict& d, const Shape& input, program::Layer& layer, tilefuse_dtype dtype, int slots) {
        const py::array kernel = d["kernel"].cast<py::array>();
        layer.kind = program::Layer::conv;
        layer.window = window_from(d, input, {kernel.shape(), kernel.shape() + kernel.ndim()}, layer.name);
        layer.shape = {layer.window.out_h, layer.window.out_w, layer.window.f};
        weights_from(d, layer, dtype, slots);
    }

    // Activation, kernel and bias. The last axis of the output has one bias each.
    void weights_from(const py::dict& d, program::Layer& layer, tilefuse_dtype dtype, int slots) {
        layer.activation = activation_of(d);
        layer.trainable = get(d, "trainable", true);
        const int used = layer.trainable ? slots : 0;
        layer.kernel = weight(d, "kernel", dtype, d["kernel"].cast<py::array>().size(), used, layer.name);
        layer.bias = weight(d, "bias", dtype, layer.shape.back(), used, layer.name);
    }

    // gamma and beta, one for each number of the input's last axis.
    void norm_from(const py::dict& d, program::Layer& layer, tilefuse_dtype dtype, int slots) {
        layer.epsilon = d["epsilon"].cast<double>();
        layer.trainable = get(d, "trainable", true);
        const int used = layer.trainable ? slots : 0;
        layer.kernel = weight(d, "gamma", dtype, layer.shape.back(), used, layer.name);
        layer.bias = weight(d, "beta", dtype, layer.shape.back(), used, layer.name);
    }

    // The variable `key`, its slots `key`_slots and its penalties `key`_l1 and `key`_l2; an empty one where it is None.
    program::Variable weight(const py::dict& d, const std::string& key, tilefuse_dtype dtype, int64_t size, int slots,
                             const std::string& layer) {
        if (!d.contains(key) || d[key.c_str()].is_none()) return {};
        program::Variable v = variable(d, key.c_str(), (key + "_slots").c_str(), dtype, size, slots, layer);
        v.l1 = get(d, (key + "_l1").c_str(), 0.0);
        v.l2 = get(d, (key + "_l2").c_str(), 0.0);
        return v;
    }

    // What slides over images [h, w, c]: `kernel` is [h, w, c / groups, f] of a convolution, [h, w] of a pooling.
    static tilefuse_conv2d_shape window_from(const py::dict& d, const Shape& input, const std::vector<int64_t>& kernel, const std::string& name) {
        const bool pools = kernel.size() == 2;
        if (input.size() != 3) {
            throw py::value_error("layer '" + name + "' takes images [h, w, c]; its input has shape " + shape_text({input.begin(), input.end()}));
        }
        const std::vector<int64_t> whole = pools ? std::vector<int64_t>{kernel[0], kernel[1], 1, input[2]} : kernel;
        Geometry geometry = d["geometry"].cast<Geometry>();
        if (pools) geometry.back() = input[2];  // each channel by itself
        return shape_from({1, input[0], input[1], input[2]}, whole, geometry, name.c_str());
    }

    program::Variable variable(const py::dict& d, const char* key, const char* slots_key, tilefuse_dtype dtype, int64_t size,
                               int slots, const std::string& layer) {
        const auto keep = [&](const py::handle& item, const std::string& name) {
            kept_.push_back(item.cast<py::array>());
            void* data = output(kept_.back(), name.c_str(), dtype, size);
            if (size > 0 && !backend::owns(data)) {
                throw py::value_error(name + " does not lie in the memory of device '" + backend::name() +
                                      "': copy it to an array made by this module's empty(shape, dtype)");
            }
            return data;
        };
        program::Variable v;
        v.size = size;
        v.data = keep(d[key], layer + "'s " + key);
        const py::list given = slots ? d[slots_key].cast<py::list>() : py::list();
        if (static_cast<int>(given.size()) < slots) {
            throw py::value_error("layer '" + layer + "': " + slots_key + " has " + std::to_string(given.size()) + " arrays; the optimizer needs " +
                                  std::to_string(slots));
        }
        for (int s = 0; s < slots; ++s) v.slots[s] = keep(given[static_cast<size_t>(s)], layer + "'s " + slots_key);
        return v;
    }

    int64_t samples_of(const py::array& a, const char* name, const Shape& sample) const {
        bool match = a.ndim() == static_cast<py::ssize_t>(sample.size()) + 1;
        for (size_t axis = 0; match && axis < sample.size(); ++axis) match = a.shape(static_cast<py::ssize_t>(axis) + 1) == sample[axis];
        if (!match) {
            std::string expected = "(n";
            for (int64_t n : sample) expected += ", " + std::to_string(n);
            throw py::value_error(std::string(name) + " has shape " + shape_text(shape_of(a)) + "; expected " + expected + ")");
        }
        require(a, name, program_->spec().dtype, a.size());
        return a.shape(0);
    }

    void* output_array(py::array& a, const char* name, int64_t samples) const {
        if (samples_of(a, name, output_shape(program_->spec())) != samples) {
            throw py::value_error(std::string(name) + " has " + std::to_string(a.shape(0)) + " samples; expected " + std::to_string(samples));
        }
        return output(a, name, program_->spec().dtype, a.size());
    }

    program::Data data_of(const py::array& x, const py::array& y, const py::object& weight) {
        const program::Spec& spec = program_->spec();
        program::Data data;
        data.samples = samples_of(x, "x", spec.input_shape);
        if (data.samples == 0) throw py::value_error("x has no samples; expected at least 1");
        data.x = static_cast<const char*>(x.data());
        const Shape out = output_shape(spec);
        const int64_t values = program::size_of(out);
        int64_t labels = values * data.samples;
        if (spec.loss->kind == TILEFUSE_SPARSE_CATEGORICAL_CROSSENTROPY) {
            labels = labels / std::max<int64_t>(1, out.back());
            if (!y.dtype().is(py::dtype::of<int32_t>()) && !(y.dtype().kind() == 'i' && y.itemsize() == 4)) {
                throw py::type_error("y has dtype " + py::str(y.dtype()).cast<std::string>() + "; expected int32 class numbers");
            }
            if (!(y.flags() & py::array::c_style)) throw py::value_error("y is not C-contiguous: pass numpy.ascontiguousarray(y)");
            check_labels(y, out.back());
        } else if (dtype_of(y, "y") != spec.dtype || !(y.flags() & py::array::c_style)) {
            throw py::type_error("y has dtype " + py::str(y.dtype()).cast<std::string>() + "; expected a C-contiguous array of the program's dtype");
        }
        if (y.size() != labels) {
            throw py::value_error("y has shape " + shape_text(shape_of(y)) + ", " + std::to_string(y.size()) + " elements; expected " +
                                  std::to_string(labels) + " for " + std::to_string(data.samples) + " samples");
        }
        data.y = static_cast<const char*>(y.data());
        if (!weight.is_none()) {
            if (!py::isinstance<py::array>(weight)) throw py::type_error("sample_weight must be a NumPy array");
            const py::array w = py::reinterpret_borrow<py::array>(weight);
            data.weight = static_cast<const char*>(input(w, "sample_weight", spec.dtype, data.samples));
        }
        return data;
    }

    static void check_labels(const py::array& y, int64_t classes) {
        const int32_t* label = static_cast<const int32_t*>(y.data());
        std::vector<int32_t> copy;
        if (!backend::uses_host_memory() && y.size() > 0 && backend::owns(label)) {  // perhaps not for the host to read
            copy.resize(static_cast<size_t>(y.size()));
            backend::copy_out(copy.data(), label, static_cast<size_t>(y.nbytes()));
            label = copy.data();
        }
        for (py::ssize_t i = 0; i < y.size(); ++i) {
            if (label[i] < 0 || label[i] >= classes) {
                throw py::value_error("y holds the label " + std::to_string(label[i]) + " at position " + std::to_string(i) +
                                      "; expected 0 to " + std::to_string(classes - 1));
            }
        }
    }

    std::vector<py::array> kept_;  // the variables: they must live as long as the program
    std::unique_ptr<program::Program> program_;
};

}  // namespace

const Binding binding = [](py::module_& m) {
    using namespace py::literals;
    // What waits for a run of another thread's to end: the run takes the GIL now and then, to report its progress.
    using without_gil = py::call_guard<py::gil_scoped_release>;
    py::class_<BoundProgram>(m, "Program", "A network compiled for training, evaluation and prediction.")
        .def(py::init<const py::list&, Shape, int64_t, const py::object&, const py::object&, const std::string&, const std::string&,
                      const std::string&>(),
             "layers"_a, "input_shape"_a, "batch"_a, "loss"_a = py::none(), "optimizer"_a = py::none(), "dtype"_a = "float32",
             py::kw_only(), "networks"_a = "auto", "precision"_a = "float32")
        .def("train_step", &BoundProgram::train_step, "x"_a, "y"_a, "sample_weight"_a = py::none(), "learning_rate"_a = 1e-3)
        .def("train_epoch", &BoundProgram::train_epoch, "x"_a, "y"_a, "order"_a, "learning_rates"_a, py::kw_only(),
             "batch_size"_a = py::none(), "sample_weight"_a = py::none(), "predictions"_a = py::none(), "on_progress"_a = py::none(),
             "interval"_a = seconds_between_polls)
        .def("evaluate", &BoundProgram::evaluate, "x"_a, "y"_a, "sample_weight"_a = py::none())
        .def("predict", &BoundProgram::predict, "x"_a, "out"_a)
        .def("describe", [](BoundProgram& p) { return p.program().describe(); }, without_gil())
        .def("__repr__", [](BoundProgram& p) { return p.program().describe(); }, without_gil())
        .def_property("iteration", [](const BoundProgram& p) { return p.program().iteration; },
                      [](BoundProgram& p, uint64_t n) { p.program().iteration = n; })
        .def_property_readonly("stages", [](BoundProgram& p) {
            const py::gil_scoped_release release;
            return p.program().stages();
        })
        .def("profile", [](BoundProgram& p, bool on) { p.program().profile(on); }, "on"_a = true, without_gil(),
             "Times each stage of the training steps from now on (some 50 ns a stage and step), or stops doing so.")
        .def_property_readonly("timings", [](BoundProgram& p) {
            const std::vector<program::StageTime> timings = [&] {
                const py::gil_scoped_release release;
                return p.program().timings();
            }();
            py::list times;
            for (const program::StageTime& t : timings)
                times.append(py::dict("stage"_a = t.text, "work"_a = t.work, "wait"_a = t.wait));
            return times;
        }, "Of the steps since `profile`: a dict for each stage, with its text (\"stage\"), the seconds a step that its slowest "
           "thread worked (\"work\"), and those that a thread waited at the barrier before it (\"wait\").")
        .def_property_readonly("bytes", [](BoundProgram& p) {
            const py::gil_scoped_release release;
            return p.program().bytes();
        })
        .def_property_readonly("output_shape", [](const BoundProgram& p) { return py::tuple(py::cast(output_shape(p.program().spec()))); });
};

}  // namespace tilefuse::bindings
