// Arrays of other libraries: DLPack, by which they hand over memory without copying it. The structures are those of its
// specification for version 1 (https://dmlc.github.io/dlpack/latest/c_api.html and python_spec.html).
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <memory>

namespace tilefuse::dlpack {

struct Device {
    int32_t type, id;
};
enum : int32_t { CPU = 1, CUDA_HOST = 3, ROCM_HOST = 11 };  // types of devices whose memory the host can use

struct DataType {
    uint8_t code, bits;
    uint16_t lanes;
};
enum : uint8_t { INT = 0, UINT = 1, FLOAT = 2, BFLOAT = 4, COMPLEX = 5, BOOL = 6 };

struct Tensor {
    void* data;  // null where there are no elements
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t* shape;
    int64_t* strides;  // in elements; before version 1.2 null says C-contiguous
    uint64_t byte_offset;
};

struct Version {
    uint32_t major, minor;
};
constexpr Version version = {1, 1};

struct Managed {  // capsules named "dltensor", before version 1
    Tensor tensor;
    void* context;
    void (*deleter)(Managed*);
};

struct ManagedVersioned {  // capsules named "dltensor_versioned"; up to `flags` the same in every version
    Version version;
    void* context;
    void (*deleter)(ManagedVersioned*);
    uint64_t flags;
    Tensor tensor;
};
enum : uint64_t { READ_ONLY = 1, IS_COPIED = 2 };

// The functions of a library in C, in a capsule named "dlpack_exchange_api": its arrays' type has it as an attribute. They
// return 0, or raise; `view` may be null. None waits for a stream.
struct ExchangeHeader {
    Version version;
    ExchangeHeader* previous;  // of an older major version
};
struct Exchange {
    ExchangeHeader header;
    int (*allocate)(Tensor* like, ManagedVersioned** made, void* context, void (*fail)(void* context, const char* kind, const char* message));
    int (*managed_of)(void* object, ManagedVersioned** made);
    int (*object_of)(ManagedVersioned* taken, void** made);
    int (*view)(void* object, Tensor* filled);
    int (*current_stream)(int32_t device_type, int32_t device_id, void** stream);
};

}  // namespace tilefuse::dlpack

namespace tilefuse::bindings {

namespace py = pybind11;

struct Release {
    template <class Managed> void operator()(Managed* managed) const {
        if (managed->deleter != nullptr) managed->deleter(managed);
    }
};
using Handed = std::unique_ptr<dlpack::ManagedVersioned, Release>;  // called back exactly once, whatever happens

// New memory for an array, C-contiguous and not initialised.
Handed new_memory(dlpack::DataType dtype, size_t axes, const int64_t* shape);

// A library whose arrays have a table of functions, for calls with no Python in between.
class Library {
public:
    // Of a type of arrays; null where that has no table that we can use.
    static const Library* of(PyTypeObject* type);

    // The array as it lies in memory, strides included; false where the library can't say, or would not let us.
    bool view(PyObject* array, dlpack::Tensor& tensor) const;

    bool may_write(PyObject* array) const;

    // An array of the library's over that memory.
    py::object object_of(Handed memory) const;

    PyTypeObject* type;
    const dlpack::Exchange* table;
};

void bind_dlpack(py::module_& m);

}  // namespace tilefuse::bindings
