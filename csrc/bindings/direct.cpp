#include "bindings/direct.h"

#include <structmember.h>

#include <atomic>

#include "bindings/activation.h"

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

PyObject* descr(tilefuse_dtype dtype) {
    static PyObject* const descrs[] = {numpy().PyArray_DescrFromType_(py::detail::npy_api::NPY_FLOAT_),
                                       numpy().PyArray_DescrFromType_(py::detail::npy_api::NPY_DOUBLE_)};
    return descrs[dtype];
}

// The object that bears the op's name in Python.
struct Op {
    PyObject_HEAD
    vectorcallfunc call;
    const Direct* direct;
    PyObject** names;   // of the parameters, interned
    PyObject* function;  // the op's Python function
    PyObject* dict;
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
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL, slots};
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

Direct::Direct(const char* name, size_t positional, std::vector<const char*> names, Run function)
    : op(name), by_position(positional), parameters(std::move(names)), run(function) {
    all().push_back(this);
}

bool Arguments::array(size_t i, py::array& a) const {
    PyObject* const value = values[i];
    if (value == nullptr || Py_TYPE(value) != numpy().PyArray_Type_) return false;
    const auto* array = py::detail::array_proxy(value);
    if (array->descr != descr(TILEFUSE_FLOAT32) && array->descr != descr(TILEFUSE_FLOAT64)) return false;
    if (!(array->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return false;
    const int64_t bytes = array->descr == descr(TILEFUSE_FLOAT32) ? 4 : 8;
    for (int axis = 0; axis < array->nd; ++axis)
        if (array->strides[axis] % bytes != 0) return false;
    a = py::reinterpret_borrow<py::array>(value);
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

const char* Arguments::text(size_t i) const {
    const char* const characters = PyUnicode_Check(values[i]) ? PyUnicode_AsUTF8(values[i]) : "";
    if (characters != nullptr) return characters;
    PyErr_Clear();  // it has no UTF-8
    return "";
}

bool Arguments::activation(size_t i, tilefuse_activation& value, double& alpha) const {
    if (!has(i)) return true;
    const Activation* const found = find_activation(text(i));
    if (found == nullptr) return false;
    value = found->activation;
    alpha = found->alpha;
    return true;
}

py::array new_array(tilefuse_dtype dtype, size_t axes, const int64_t* shape) {
    PyObject* const array = numpy().PyArray_NewFromDescr_(numpy().PyArray_Type_, Py_NewRef(descr(dtype)), static_cast<int>(axes), shape,
                                                          nullptr, nullptr, 0, nullptr);
    if (array == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::array>(array);
}

bool may_overlap(const py::array& a, const py::array& b) {
    const auto range = [](const py::array& x) {
        const char* first = static_cast<const char*>(x.data());
        const char* past = first + x.itemsize();
        for (py::ssize_t axis = 0; axis < x.ndim(); ++axis) {
            const py::ssize_t reach = (x.shape(axis) - 1) * x.strides(axis);
            (reach < 0 ? first : past) += reach;
        }
        return std::pair(first, past);
    };
    if (a.size() == 0 || b.size() == 0) return false;
    const auto [a_first, a_past] = range(a);
    const auto [b_first, b_past] = range(b);
    return a_first < b_past && b_first < a_past;
}

void bind_direct(py::module_& m) {
    descr(TILEFUSE_FLOAT32);  // now, since threads that make it together would wait for each other
    m.def("direct", &make_op, py::arg("name"), py::arg("function"),
          "The op of that name: tries its direct function first, then `function`. `function` itself where it has none.");
    m.def("use_direct", [](bool used) { device_in_use = used; }, py::arg("used"), "Whether calls may go directly to this module.");
    m.def("record", [](int change) { recording += change; }, py::arg("change"),
          "Adds so many to this thread's gradient tapes, which have to see all calls.");
}

}  // namespace tilefuse::bindings
