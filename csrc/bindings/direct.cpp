#include "bindings/direct.h"

#include <structmember.h>

#include <algorithm>
#include <atomic>
#include <numeric>

#include "bindings/activation.h"
#include "bindings/precision.h"

namespace tilefuse::bindings {
namespace {

std::atomic<bool> device_in_use{true};  // whether this module's device is
thread_local int recording = 0;         // gradient tapes of this thread that have to see every call

std::vector<const Direct*>& all() {
    static std::vector<const Direct*> directs;
    return directs;
}

const py::detail::npy_api& numpy() {
    static const py::detail::npy_api& api = py::detail::npy_api::get();
    return api;
}

// NumPy's dtype of bfloat16, which ml_dtypes brings: null until it is imported.
PyObject* descr_of_bfloat16() {
    static std::atomic<PyObject*> known{nullptr};
    if (known.load() != nullptr) return known.load();
    try {
        const auto module = py::reinterpret_steal<py::object>(PyImport_GetModule(py::str("ml_dtypes").ptr()));
        if (!module || !py::hasattr(module, "bfloat16")) return nullptr;
        py::dtype dtype = py::dtype::from_args(module.attr("bfloat16"));
        if (dtype.itemsize() != 2 || dtype.attr("name").cast<std::string>() != "bfloat16") return nullptr;
        known = dtype.release().ptr();
    } catch (const py::error_already_set&) {
        return nullptr;  // it is something else, or not complete: the call goes through Python
    }
    return known.load();
}

// NumPy's dtype of those that kernels know, in its own order of bytes; null: of no such.
PyObject* descr(dlpack::DataType type) {
    using api = py::detail::npy_api;
    const auto of = [](int number) { return numpy().PyArray_DescrFromType_(number); };
    static PyObject* const single = of(api::NPY_FLOAT_), *const twice = of(api::NPY_DOUBLE_), *const boolean = of(api::NPY_BOOL_),
                          *const byte = of(api::NPY_UBYTE_), *const narrow = of(api::NPY_INT32_), *const wide = of(api::NPY_INT64_);
    if (type.code == dlpack::FLOAT) return type.bits == 32 ? single : twice;
    if (type.code == dlpack::INT) return type.bits == 32 ? narrow : wide;
    if (type.code == dlpack::BFLOAT) return descr_of_bfloat16();
    return type.code == dlpack::BOOL ? boolean : type.code == dlpack::UINT ? byte : nullptr;
}

constexpr dlpack::DataType type_of(tilefuse_dtype dtype) { return {dlpack::FLOAT, static_cast<uint8_t>(dtype == TILEFUSE_FLOAT32 ? 32 : 64), 1}; }

constexpr dlpack::DataType type_of_bytes(bool of_bool) { return {of_bool ? dlpack::BOOL : dlpack::UINT, 8, 1}; }

// The strides of a C-contiguous array; returns how many elements it has.
int64_t pack(int axes, const int64_t* shape, int64_t* strides) {
    int64_t size = 1;
    for (int axis = axes; axis-- > 0; size *= shape[axis]) strides[axis] = size;
    return size;
}

// As NumPy has it, axes of one element may have any strides.
bool is_packed(const View& a) {
    int64_t next = 1;
    for (int axis = a.axes; axis-- > 0; next *= a.shape[axis])
        if (a.shape[axis] != 1 && a.strides[axis] != next) return a.size == 0;
    return true;
}

bool view_of_numpy(PyObject* value, bool stored, View& a) {
    const auto* array = py::detail::array_proxy(value);
    const bool twice = array->descr == descr(type_of(TILEFUSE_FLOAT64));
    const bool whole = twice || array->descr == descr(type_of(TILEFUSE_FLOAT32));
    if (!whole && (!stored || array->descr != descr_of_bfloat16())) return false;
    if (array->nd > View::most_axes || !(array->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return false;
    const int shift = !whole ? 1 : twice ? 3 : 2;  // a division would take longer than all the rest
    a.dtype = twice ? TILEFUSE_FLOAT64 : TILEFUSE_FLOAT32;
    a.is_bfloat16 = !whole;
    a.axes = array->nd;
    a.data = array->data;
    a.packed = array->flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_;
    a.size = 1;
    for (int axis = 0; axis < a.axes; ++axis) {
        a.shape[axis] = array->dimensions[axis];
        a.strides[axis] = array->strides[axis] >> shift;
        if (a.strides[axis] << shift != array->strides[axis]) return false;
        a.size *= a.shape[axis];
    }
    return true;
}

bool view_of(const dlpack::Tensor& tensor, bool stored, View& a) {
    const auto [code, bits, lanes] = tensor.dtype;
    a.is_bfloat16 = code == dlpack::BFLOAT && bits == 16;
    if (tensor.device.type != dlpack::CPU || lanes != 1 || tensor.ndim > View::most_axes) return false;
    if (!(a.is_bfloat16 ? stored : code == dlpack::FLOAT && (bits == 32 || bits == 64))) return false;
    a.dtype = bits == 64 ? TILEFUSE_FLOAT64 : TILEFUSE_FLOAT32;
    a.axes = tensor.ndim;
    a.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    std::copy_n(tensor.shape, a.axes, a.shape);
    a.size = pack(a.axes, a.shape, a.strides);
    if (tensor.strides != nullptr) std::copy_n(tensor.strides, a.axes, a.strides);
    a.packed = is_packed(a);
    return (tensor.data != nullptr || a.size == 0) && reinterpret_cast<uintptr_t>(a.data) % (bits / 8u) == 0;
}

// The object that bears the op's name in Python.
struct Op {
    PyObject_HEAD
    vectorcallfunc call;
    const Direct* direct;
    PyObject** names;   // of the parameters, interned
    PyObject* function;  // the op's Python function
    PyObject* dict;
    PyObject* references;  // weak ones
};

Op* as_op(PyObject* self) { return reinterpret_cast<Op*>(self); }

bool assign(const Op& op, Arguments& given, PyObject* const* args, size_t positional, PyObject* names) {
    const size_t count = op.direct->parameters.size();
    if (positional > op.direct->by_position) return false;
    std::copy(args, args + positional, given.values);
    const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
    for (Py_ssize_t i = 0; i < named; ++i) {
        const size_t place = static_cast<size_t>(std::find(op.names, op.names + count, PyTuple_GET_ITEM(names, i)) - op.names);
        if (place == count || given.values[place] != nullptr) return false;
        given.values[place] = args[positional + static_cast<size_t>(i)];
    }
    return true;
}

PyObject* call(PyObject* self, PyObject* const* args, size_t flags, PyObject* names) {
    const Op& op = *as_op(self);
    Arguments given;
    if (recording == 0 && device_in_use.load(std::memory_order_relaxed) &&
        assign(op, given, args, static_cast<size_t>(PyVectorcall_NARGS(flags)), names)) {
        try {
            py::object result = op.direct->run(given);
            if (result) return result.release().ptr();
        } catch (py::error_already_set& error) {
            error.restore();
            return nullptr;
        } catch (const std::bad_alloc&) {
            return PyErr_NoMemory();
        } catch (const std::exception& error) {
            PyErr_SetString(PyExc_RuntimeError, error.what());
            return nullptr;
        }
    }
    return PyObject_Vectorcall(op.function, args, flags, names);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(as_op(self)->function);
    Py_VISIT(as_op(self)->dict);
    return 0;
}

int clear(PyObject* self) {
    Py_CLEAR(as_op(self)->function);
    Py_CLEAR(as_op(self)->dict);
    return 0;
}

void destroy(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs(self);
    clear(self);
    delete[] as_op(self)->names;
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject* repr(PyObject* self) { return PyObject_Repr(as_op(self)->function); }

// Functions are pickled and copied by their names; so is this.
PyObject* reduce(PyObject* self, PyObject*) { return PyObject_GetAttrString(as_op(self)->function, "__qualname__"); }

// As a function does, for one that is an attribute of a class.
PyObject* bound(PyObject* self, PyObject* instance, PyObject*) {
    if (instance == nullptr || instance == Py_None) return Py_NewRef(self);
    return PyMethod_New(self, instance);
}

PyTypeObject* op_type() {
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", T_PYSSIZET, offsetof(Op, call), READONLY, nullptr},
        {"__dictoffset__", T_PYSSIZET, offsetof(Op, dict), READONLY, nullptr},
        {"__weaklistoffset__", T_PYSSIZET, offsetof(Op, references), READONLY, nullptr},
        {}};
    static PyMethodDef methods[] = {{"__reduce__", &reduce, METH_NOARGS, nullptr}, {}};
    static PyGetSetDef properties[] = {{"__dict__", &PyObject_GenericGetDict, &PyObject_GenericSetDict, nullptr, nullptr}, {}};
    static PyType_Slot slots[] = {{Py_tp_call, reinterpret_cast<void*>(&PyVectorcall_Call)},
                                  {Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                                  {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                                  {Py_tp_dealloc, reinterpret_cast<void*>(&destroy)},
                                  {Py_tp_repr, reinterpret_cast<void*>(&repr)},
                                  {Py_tp_descr_get, reinterpret_cast<void*>(&bound)},
                                  {Py_tp_members, members},
                                  {Py_tp_methods, methods},
                                  {Py_tp_getset, properties},
                                  {}};
    static PyType_Spec spec = {"tilefuse._core.Op", sizeof(Op), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    static PyObject* const type = PyType_FromSpec(&spec);
    if (type == nullptr) throw py::error_already_set();
    return reinterpret_cast<PyTypeObject*>(type);
}

py::object make_op(const std::string& name, const py::object& function) {
    const auto has_name = [&](const Direct* direct) { return direct->op == name; };
    const auto found = std::find_if(all().begin(), all().end(), has_name);
    if (found == all().end()) return function;
    PyTypeObject* const type = op_type();
    PyObject* const self = type->tp_alloc(type, 0);
    if (self == nullptr) throw py::error_already_set();
    Op& op = *as_op(self);
    op.call = &call;
    op.direct = *found;
    op.names = new PyObject*[op.direct->parameters.size()];
    for (size_t i = 0; i < op.direct->parameters.size(); ++i) op.names[i] = PyUnicode_InternFromString(op.direct->parameters[i]);
    op.function = Py_NewRef(function.ptr());
    op.dict = PyDict_New();
    const py::object wrapper = py::reinterpret_steal<py::object>(self);
    py::module_::import("functools").attr("update_wrapper")(wrapper, function);
    return wrapper;
}

}  // namespace

Direct::Direct(std::string name, size_t positional, std::vector<const char*> names, Run function)
    : op(std::move(name)), by_position(positional), parameters(std::move(names)), run(std::move(function)) {
    if (parameters.size() > Arguments::most) throw std::logic_error(op + " has more parameters than Arguments holds");
    all().push_back(this);
}

int64_t View::rows() const {
    return std::accumulate(shape, shape + std::max(axes - 1, 0), int64_t{1}, std::multiplies<>());
}

bool View::like(const View& other) const {
    return dtype == other.dtype && is_bfloat16 == other.is_bfloat16 && axes == other.axes && std::equal(shape, shape + axes, other.shape);
}

bool View::is_row(const View& other) const {
    return dtype == other.dtype && packed && axes == 1 && shape[0] == other.last();
}

bool Arguments::of_kind(const Library* library) {
    if (!any_) library_ = library;
    any_ = true;
    return library == library_ || (library != nullptr && library_ != nullptr && library->table == library_->table);
}

bool Arguments::array(size_t i, View& a, bool stored) {
    PyObject* const value = values[i];
    if (value == nullptr || value == Py_None) return false;
    if (Py_TYPE(value) == numpy().PyArray_Type_) return of_kind(nullptr) && view_of_numpy(value, stored, a);
    const Library* const library = Library::of(Py_TYPE(value));
    dlpack::Tensor tensor;
    return library != nullptr && of_kind(library) && library->view(value, tensor) && view_of(tensor, stored, a);
}

bool Arguments::output(size_t i, View& a, bool stored) {
    if (!array(i, a, stored)) return false;
    if (library_ != nullptr) return library_->may_write(values[i]);
    return py::detail::array_proxy(values[i])->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
}

bool Arguments::packed_tensor(size_t i, dlpack::Tensor& tensor) {
    PyObject* const value = values[i];
    if (value == nullptr || value == Py_None) return false;
    if (Py_TYPE(value) == numpy().PyArray_Type_) {
        constexpr int wanted = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
        constexpr dlpack::DataType known[] = {{dlpack::INT, 64, 1}, {dlpack::INT, 32, 1}, type_of_bytes(false), type_of_bytes(true)};
        const auto* array = py::detail::array_proxy(value);
        const auto* type = std::find_if(std::begin(known), std::end(known), [&](auto each) { return array->descr == descr(each); });
        if (type == std::end(known) || (array->flags & wanted) != wanted || !of_kind(nullptr)) return false;
        tensor = {array->data, {dlpack::CPU, 0}, array->nd, *type, array->dimensions, nullptr, 0};
        return true;
    }
    const Library* const library = Library::of(Py_TYPE(value));
    if (library == nullptr || !of_kind(library) || !library->view(value, tensor)) return false;
    if (tensor.device.type != dlpack::CPU || tensor.dtype.lanes != 1 || tensor.ndim > View::most_axes) return false;
    int64_t strides[View::most_axes];
    pack(tensor.ndim, tensor.shape, strides);
    if (tensor.strides != nullptr && !std::equal(strides, strides + tensor.ndim, tensor.strides)) return false;
    tensor.strides = nullptr;
    return true;
}

uint8_t* Arguments::bytes(size_t i, size_t axes, const int64_t* shape, bool of_bool) {
    dlpack::Tensor tensor;
    if (!packed_tensor(i, tensor) || tensor.dtype.code != type_of_bytes(of_bool).code || tensor.dtype.bits != 8 ||
        !std::equal(tensor.shape, tensor.shape + tensor.ndim, shape, shape + axes)) {
        return nullptr;
    }
    return static_cast<uint8_t*>(tensor.data) + tensor.byte_offset;
}

bool Arguments::class_ids(size_t i, const View& scores, std::vector<int32_t>& ids) {
    dlpack::Tensor tensor;
    if (!packed_tensor(i, tensor)) return false;
    const uint8_t bits = tensor.dtype.bits;
    if (tensor.dtype.code != dlpack::INT || (bits != 32 && bits != 64) || tensor.ndim != scores.axes - 1 ||
        !std::equal(tensor.shape, tensor.shape + tensor.ndim, scores.shape)) {
        return false;
    }
    ids.resize(static_cast<size_t>(scores.rows()));
    const char* const data = static_cast<const char*>(tensor.data) + tensor.byte_offset;
    for (size_t row = 0; row < ids.size(); ++row) {
        const int64_t id = bits == 64 ? reinterpret_cast<const int64_t*>(data)[row] : reinterpret_cast<const int32_t*>(data)[row];
        if (id < 0 || id >= scores.last()) return false;
        ids[row] = static_cast<int32_t>(id);
    }
    return true;
}

bool Arguments::flag(size_t i, bool& value) const {
    value = values[i] == Py_True;
    return value || values[i] == nullptr || values[i] == Py_False;
}

bool Arguments::number(size_t i, double& value) const {
    if (values[i] == nullptr) return true;
    if (!PyFloat_CheckExact(values[i])) return false;
    value = PyFloat_AS_DOUBLE(values[i]);
    return true;
}

bool Arguments::integer(size_t i, int64_t& value) const {
    if (values[i] == nullptr) return true;
    if (!PyLong_CheckExact(values[i])) return false;
    int overflow = 0;
    value = PyLong_AsLongLongAndOverflow(values[i], &overflow);
    return overflow == 0;
}

bool Arguments::pair(size_t i, int64_t& first, int64_t& second) const {
    PyObject* const value = values[i];
    if (value == nullptr) return true;
    const bool two = PyTuple_CheckExact(value) && PyTuple_GET_SIZE(value) == 2;
    return read_size(two ? PyTuple_GET_ITEM(value, 0) : value, first) && read_size(two ? PyTuple_GET_ITEM(value, 1) : value, second) &&
           first > 0 && second > 0;
}

std::string_view Arguments::text(size_t i) const {
    if (!PyUnicode_Check(values[i])) return "";
    Py_ssize_t size = 0;
    const char* const characters = PyUnicode_AsUTF8AndSize(values[i], &size);
    if (characters != nullptr) return {characters, static_cast<size_t>(size)};
    PyErr_Clear();  // it has no UTF-8
    return "";
}

bool Arguments::activation(size_t i, tilefuse_activation_kind& value, double& alpha) const {
    if (!has(i)) return true;
    const Activation* const found = find_activation(text(i));
    if (found == nullptr) return false;
    value = found->activation;
    alpha = found->alpha;
    return true;
}

bool Arguments::precision(size_t i, tilefuse_dtype dtype, tilefuse_precision& value) const {
    if (!has(i)) return true;
    const std::optional<tilefuse_precision> found = find_precision(text(i));
    if (found) value = *found;
    return dtype == TILEFUSE_FLOAT32 && found;
}

Result Arguments::result(tilefuse_dtype dtype, size_t axes, const int64_t* shape, bool is_bfloat16) const {
    Result made;
    made.dtype = dtype;
    made.is_bfloat16 = is_bfloat16;
    allocate(made, is_bfloat16 ? dlpack::DataType{dlpack::BFLOAT, 16, 1} : type_of(dtype), axes, shape);
    return made;
}

Result Arguments::result_of_bytes(size_t axes, const int64_t* shape, bool of_bool) const {
    Result made;
    allocate(made, type_of_bytes(of_bool), axes, shape);
    return made;
}

void Arguments::allocate(Result& made, dlpack::DataType type, size_t axes, const int64_t* shape) const {
    made.packed = true;
    made.axes = static_cast<int>(axes);
    std::copy_n(shape, axes, made.shape);
    if (library_ == nullptr) {
        PyObject* const array = numpy().PyArray_NewFromDescr_(numpy().PyArray_Type_, Py_NewRef(descr(type)), made.axes, shape, nullptr,
                                                              nullptr, 0, nullptr);
        if (array == nullptr) throw py::error_already_set();
        made.data = py::detail::array_proxy(array)->data;
        made.array_ = py::reinterpret_steal<py::object>(array);
    } else {
        made.memory_ = new_memory(type, axes, shape);
        made.data = made.memory_->tensor.data;
        made.library_ = library_;
    }
    made.size = pack(made.axes, made.shape, made.strides);
}

bool read_size(PyObject* value, int64_t& size) {
    constexpr int64_t largest = 1 << 16;  // no product of sizes overflows
    if (!PyLong_CheckExact(value)) return false;
    int overflow = 0;
    size = PyLong_AsLongLongAndOverflow(value, &overflow);
    return overflow == 0 && size >= 0 && size <= largest;
}

bool BeforeActivation::set(const View& dy, const View& y, const View& z) {
    args.dx = dy.data;
    if (args.activation == TILEFUSE_LINEAR) return true;
    const View& at = args.activation < TILEFUSE_SILU ? y : z;
    if (!at || !at.like(dy) || !at.packed) return false;
    args.dtype = dy.dtype;
    args.rows = dy.size;
    args.cols = 1;
    args.dy = dy.data;
    args.at = at.data;
    args.dx = scratch_.take(static_cast<size_t>(dy.size) * (dy.dtype == TILEFUSE_FLOAT32 ? 4 : 8));
    return true;
}

void BeforeActivation::run(double work) const {
    if (args.activation != TILEFUSE_LINEAR) run_directly(work, args);
}

bool may_overlap(const View& a, const View& b) {
    const auto range = [](const View& x) {
        const int64_t bytes = x.is_bfloat16 ? 2 : x.dtype == TILEFUSE_FLOAT32 ? 4 : 8;
        const char* first = static_cast<const char*>(x.data);
        const char* past = first + bytes;
        for (int axis = 0; axis < x.axes; ++axis) {
            const int64_t reach = (x.shape[axis] - 1) * x.strides[axis] * bytes;
            (reach < 0 ? first : past) += reach;
        }
        return std::pair(first, past);
    };
    if (a.size == 0 || b.size == 0) return false;
    const auto [a_first, a_past] = range(a);
    const auto [b_first, b_past] = range(b);
    return a_first < b_past && b_first < a_past;
}

void bind_direct(py::module_& m) {
    descr({});  // now, since threads that make it together would wait for each other
    m.def("direct", &make_op, py::arg("name"), py::arg("function"),
          "The op of that name: tries its direct function first, then `function`. `function` itself where it has none.");
    m.def("use_direct", [](bool used) { device_in_use = used; }, py::arg("used"), "Whether calls may go directly to this module.");
    m.def("record", [](int change) { recording += change; }, py::arg("change"),
          "Adds so many to this thread's gradient tapes, which have to see all calls.");
}

}  // namespace tilefuse::bindings
