#include "bindings/dlpack.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string_view>

#include "program/backend.h"

namespace tilefuse::bindings {
namespace {

using dlpack::DataType;
using dlpack::Exchange;
using dlpack::Managed;
using dlpack::ManagedVersioned;
using dlpack::Tensor;

[[noreturn]] void refuse(const std::string& why) {
    PyErr_SetString(PyExc_BufferError, why.c_str());
    throw py::error_already_set();
}

// --- what PyTorch's tensors know beside their memory -----------------------------------------------------------------

PyObject* interned(const char* name) { return PyUnicode_InternFromString(name); }

// Whether the attribute is there and true. (A method is called.)
bool is_true(PyObject* object, PyObject* name, bool call) {
    PyObject* const found = call ? PyObject_CallMethodNoArgs(object, name) : PyObject_GetAttr(object, name);
    const bool yes = found == Py_True;
    if (found == nullptr) PyErr_Clear();
    Py_XDECREF(found);
    return yes;
}

// Whether PyTorch records what is done with the tensor, which it would not see here.
bool is_recorded(PyObject* array) {
    static PyObject *const requires_grad = interned("requires_grad"), *const is_grad_enabled = interned("is_grad_enabled"),
                           *const torch = interned("torch");
    if (!is_true(array, requires_grad, false)) return false;
    PyObject* const module = PyImport_GetModule(torch);
    if (module == nullptr) return true;
    const bool recorded = is_true(module, is_grad_enabled, true);
    Py_DECREF(module);
    return recorded;
}

// Whether the elements are minus what lies in memory, as are imaginary parts of conjugated tensors of PyTorch.
bool is_negated(PyObject* array) {
    static PyObject* const is_neg = interned("is_neg");
    return is_true(array, is_neg, true);
}

// --- dtypes and layouts ----------------------------------------------------------------------------------------------

py::dtype numpy_dtype(DataType dtype) {
    const auto of = [&](char kind) { return py::dtype(kind + std::to_string(dtype.bits / 8)); };
    if (dtype.lanes == 1 && dtype.bits % 8 == 0) {
        switch (dtype.code) {
            case dlpack::INT: return of('i');
            case dlpack::UINT: return of('u');
            case dlpack::FLOAT: return of('f');
            case dlpack::COMPLEX: return of('c');
            case dlpack::BOOL: return of('b');
            case dlpack::BFLOAT:
                if (dtype.bits != 16) break;
                try {
                    return py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
                } catch (py::error_already_set&) {
                    refuse("NumPy knows bfloat16 only with ml_dtypes: pip install ml_dtypes");
                }
        }
    }
    refuse("NumPy has no dtype for DLPack's type " + std::to_string(dtype.code) + " of " + std::to_string(dtype.bits) + " bits");
}

DataType dlpack_dtype(const py::dtype& dtype) {
    const auto of = [&](uint8_t code) { return DataType{code, static_cast<uint8_t>(8 * dtype.itemsize()), 1}; };
    switch (dtype.kind()) {
        case 'i': return of(dlpack::INT);
        case 'u': return of(dlpack::UINT);
        case 'f': return of(dlpack::FLOAT);
        case 'c': return of(dlpack::COMPLEX);
        case 'b': return of(dlpack::BOOL);
    }
    if (py::str(dtype.attr("name")).cast<std::string>() == "bfloat16") return of(dlpack::BFLOAT);
    refuse("DLPack has no type for dtype " + py::str(dtype).cast<std::string>());
}

// --- taking in -------------------------------------------------------------------------------------------------------

template <class M> py::capsule keeper(std::unique_ptr<M, Release> memory) {
    return py::capsule(memory.release(), [](void* managed) { Release()(static_cast<M*>(managed)); });
}

// A NumPy array over the memory, which lives as long as the array.
template <class M> py::array array_over(std::unique_ptr<M, Release> memory, bool read_only) {
    const Tensor& tensor = memory->tensor;
    if (tensor.device.type != dlpack::CPU && tensor.device.type != dlpack::CUDA_HOST && tensor.device.type != dlpack::ROCM_HOST) {
        refuse("it lies in the memory of DLPack's device type " + std::to_string(tensor.device.type));
    }
    const py::dtype dtype = numpy_dtype(tensor.dtype);
    const std::vector<py::ssize_t> shape(tensor.shape, tensor.shape + tensor.ndim);
    std::vector<py::ssize_t> strides(shape.size());
    py::ssize_t next = dtype.itemsize();
    for (size_t axis = shape.size(); axis-- > 0; next *= shape[axis])
        strides[axis] = tensor.strides != nullptr ? tensor.strides[axis] * dtype.itemsize() : next;
    const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
    if (tensor.data == nullptr && !empty) refuse("it has no memory");
    const void* const data = empty ? nullptr : static_cast<const char*>(tensor.data) + tensor.byte_offset;
    py::array a(dtype, shape, strides, data, keeper(std::move(memory)));
    if (read_only) a.attr("flags").attr("writeable") = false;
    return a;
}

template <class M> std::unique_ptr<M, Release> taken_out_of(const py::object& capsule, const char* name, const char* used) {
    auto* const managed = static_cast<M*>(PyCapsule_GetPointer(capsule.ptr(), name));
    if (managed == nullptr || PyCapsule_SetName(capsule.ptr(), used) != 0) throw py::error_already_set();
    return std::unique_ptr<M, Release>(managed);
}

py::array array_over(Handed memory) {
    if (memory->version.major != dlpack::version.major) {
        refuse("it speaks version " + std::to_string(memory->version.major) + " of DLPack; expected version 1");
    }
    const uint64_t flags = memory->flags;
    if (flags & dlpack::IS_COPIED) refuse("its library would hand over a copy");
    return array_over<ManagedVersioned>(std::move(memory), flags & dlpack::READ_ONLY);
}

py::array array_in(const py::object& capsule) {
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
        return array_over(taken_out_of<ManagedVersioned>(capsule, "dltensor_versioned", "used_dltensor_versioned"));
    }
    return array_over(taken_out_of<Managed>(capsule, "dltensor", "used_dltensor"), true);  // it can't say whether it may be written to
}

py::object capsule_of(const py::object& x) {
    const py::object ask = x.attr("__dlpack__");
    try {
        return ask(py::arg("max_version") = py::make_tuple(dlpack::version.major, dlpack::version.minor), py::arg("copy") = false);
    } catch (py::error_already_set& error) {
        if (!error.matches(PyExc_TypeError)) throw;
    }
    return ask();  // before version 1 there were no such arguments
}

// A NumPy array that shares the memory of `x`, which speaks DLPack.
py::array from_dlpack(const py::object& x) {
    if (is_recorded(x.ptr())) {
        refuse("PyTorch records what is done with it, as it requires grad: use the functions of tilefuse.interop.torch, "
               "pass .detach() of it, or call under torch.no_grad()");
    }
    if (const Library* const library = Library::of(Py_TYPE(x.ptr()))) {
        ManagedVersioned* managed = nullptr;
        if (library->table->managed_of(x.ptr(), &managed) != 0) throw py::error_already_set();
        Handed memory(managed);
        if (is_negated(x.ptr())) refuse("its elements are minus those in memory: pass .resolve_neg() of it");
        return array_over(std::move(memory));
    }
    return array_in(capsule_of(py::getattr(x, "requires_grad", py::bool_(false)).equal(py::bool_(true)) ? x.attr("detach")() : x));
}

// --- handing over ----------------------------------------------------------------------------------------------------

template <class M> struct Owned {
    M managed = {};
    std::vector<int64_t> shape, strides;
    py::object array;

    static void release(M* managed) {
        if (!Py_IsInitialized()) return;  // at the end of the process, which frees all
        py::gil_scoped_acquire gil;
        delete static_cast<Owned*>(managed->context);
    }
};

// The array's memory, which lives until it is given back.
template <class M> std::unique_ptr<M, Release> handed_over(const py::array& a) {
    const DataType dtype = dlpack_dtype(a.dtype());
    auto* const owned = new Owned<M>;
    owned->array = a;
    owned->shape.assign(a.shape(), a.shape() + a.ndim());
    for (py::ssize_t axis = 0; axis < a.ndim(); ++axis) owned->strides.push_back(a.strides(axis) / a.itemsize());
    M& managed = owned->managed;
    managed.context = owned;
    managed.deleter = &Owned<M>::release;
    managed.tensor = {const_cast<void*>(a.size() > 0 ? a.data() : nullptr), {dlpack::CPU, 0}, static_cast<int32_t>(a.ndim()), dtype,
                      owned->shape.data(), owned->strides.data(), 0};
    return std::unique_ptr<M, Release>(&managed);
}

Handed handed_over_versioned(const py::array& a) {
    Handed memory = handed_over<ManagedVersioned>(a);
    memory->version = dlpack::version;
    if (!a.writeable()) memory->flags = dlpack::READ_ONLY;
    return memory;
}

template <class M> py::object capsule_with(std::unique_ptr<M, Release> memory, const char* name) {
    PyObject* const capsule = PyCapsule_New(memory.get(), name, [](PyObject* self) {
        const char* const now = PyCapsule_GetName(self);  // another one, once it has been taken out
        if (std::string_view(now).starts_with("used_")) return;
        Release()(static_cast<M*>(PyCapsule_GetPointer(self, now)));
    });
    if (capsule == nullptr) throw py::error_already_set();
    memory.release();
    return py::reinterpret_steal<py::object>(capsule);
}

// What an array library takes as its from_dlpack: NumPy's arrays, of more dtypes than NumPy itself hands over.
struct HandedOver {
    py::array array;

    py::object dlpack(const py::object&, const std::optional<std::pair<uint32_t, uint32_t>>& max_version,
                      const std::optional<std::pair<int32_t, int32_t>>& device, std::optional<bool> copy) const {
        if (device && device->first != dlpack::CPU) refuse("it lies in the CPU's memory, and is handed over there alone");
        const py::array a = copy.value_or(false) ? py::array(array.attr("copy")()) : array;
        if (max_version && max_version->first >= 1) return capsule_with(handed_over_versioned(a), "dltensor_versioned");
        if (!a.writeable()) refuse("it is read-only, which DLPack can't say before version 1");
        return capsule_with(handed_over<Managed>(a), "dltensor");
    }
};

// An array of the kind of `like` over the memory of `array`; None where there is no table to do it by.
py::object hand_over(const py::array& array, const py::object& like) {
    const Library* const library = Library::of(Py_TYPE(like.ptr()));
    return library == nullptr ? py::none() : library->object_of(handed_over_versioned(array));
}

const Exchange* table_of(PyTypeObject* type) {
    static PyObject* const name = interned("__dlpack_c_exchange_api__");
    PyObject* const capsule = PyObject_GetAttr(reinterpret_cast<PyObject*>(type), name);
    const void* found = capsule == nullptr ? nullptr : PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    PyErr_Clear();
    Py_XDECREF(capsule);
    auto* header = static_cast<const dlpack::ExchangeHeader*>(found);
    while (header != nullptr && header->version.major > dlpack::version.major) header = header->previous;
    return reinterpret_cast<const Exchange*>(header != nullptr && header->version.major == dlpack::version.major ? header : nullptr);
}

}  // namespace

Handed new_memory(DataType dtype, size_t axes, const int64_t* shape) {
    struct Block {
        ManagedVersioned managed;
        int64_t* shape() { return reinterpret_cast<int64_t*>(this + 1); }
    };
    int64_t product = dtype.bits / 8;
    bool empty = false;
    for (size_t axis = 0; axis < axes; ++axis) {
        empty = empty || shape[axis] == 0;
        if (shape[axis] != 0 && __builtin_mul_overflow(product, shape[axis], &product)) throw std::bad_alloc();
    }
    constexpr size_t line = 64;
    const size_t head = (sizeof(Block) + 2 * axes * sizeof(int64_t) + line - 1) / line * line;
    const size_t bytes = empty ? 0 : static_cast<size_t>(product);
    const bool large = bytes >= size_t{1} << 20;  // starts on a page of its own, which may be a huge one
    void* const data = large ? backend::allocate(bytes) : nullptr;
    auto* const block = new (backend::allocate(large ? head : head + bytes)) Block{};
    int64_t *const lengths = std::copy_n(shape, axes, block->shape()) - axes, *const strides = lengths + axes;
    int64_t next = 1;
    for (size_t axis = axes; axis-- > 0; next *= shape[axis]) strides[axis] = next;
    ManagedVersioned& managed = block->managed;
    managed.version = dlpack::version;
    managed.context = data;
    managed.deleter = [](ManagedVersioned* self) {
        if (self->context != nullptr) backend::release(self->context);
        backend::release(self);
    };
    managed.tensor = {empty ? nullptr : large ? data : reinterpret_cast<char*>(block) + head,
                      {dlpack::CPU, 0}, static_cast<int32_t>(axes), dtype, lengths, strides, 0};
    return Handed(&managed);
}

const Library* Library::of(PyTypeObject* type) {
    // Types seen before, in each thread. They are kept: another type never gets the address.
    thread_local std::vector<std::unique_ptr<const Library>> known;
    for (const auto& library : known)
        if (library->type == type) return library.get();
    const Exchange* const table = table_of(type);
    if (table == nullptr) return nullptr;
    Py_INCREF(type);
    known.push_back(std::make_unique<const Library>(Library{type, table}));
    return known.back().get();
}

bool Library::view(PyObject* array, Tensor& tensor) const {
    if (table->view == nullptr || is_recorded(array)) return false;
    if (table->view(array, &tensor) != 0) {
        PyErr_Clear();
        return false;
    }
    return !is_negated(array);
}

bool Library::may_write(PyObject* array) const {
    ManagedVersioned* managed = nullptr;
    if (table->managed_of(array, &managed) == 0) return !(Handed(managed)->flags & (dlpack::READ_ONLY | dlpack::IS_COPIED));
    PyErr_Clear();
    return false;
}

py::object Library::object_of(Handed memory) const {
    void* made = nullptr;
    if (table->object_of(memory.release(), &made) != 0) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(static_cast<PyObject*>(made));
}

void bind_dlpack(py::module_& m) {
    m.def("from_dlpack", &from_dlpack, py::arg("x"), "A NumPy array that shares the memory of x, which speaks DLPack; BufferError says why not.");
    m.def("hand_over", &hand_over, py::arg("array"), py::arg("like"),
          "An array of the kind of `like` that shares the memory of the NumPy array; None, where its library has no table for that.");
    py::class_<HandedOver>(m, "HandedOver", "A NumPy array, as other libraries' from_dlpack takes it.")
        .def(py::init<py::array>(), py::arg("array"))
        .def("__dlpack__", &HandedOver::dlpack, py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
             py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
        .def("__dlpack_device__", [](const HandedOver&) { return py::make_tuple(static_cast<int>(dlpack::CPU), 0); });
}

}  // namespace tilefuse::bindings
