// What a handler of XLA's foreign function interface needs of its binary interface, version 0.3: the layout of a call, and
// how to return an error. (Facts from xla/ffi/api/c_api.h in jaxlib's headers, jax.ffi.include_dir(); each struct of a newer
// version may be longer, and says so itself.) So tilefuse builds without jaxlib, and works with any that has major version 0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tilefuse::xla {

constexpr int major_version = 0, minor_version = 3;

struct Extension {
    size_t struct_size;
    int type;  // metadata_extension is the only one there is
    Extension* next;
};
constexpr int metadata_extension = 1;

struct Version {
    size_t struct_size;
    Extension* extensions;
    int major, minor;
};

// What XLA asks of a handler before it uses it.
struct Metadata {
    size_t struct_size;
    Version version;
    uint32_t traits;
};
struct MetadataExtension {
    Extension base;
    Metadata* metadata;
};

struct Error;  // XLA's own

enum ErrorCode { invalid_argument = 3, resource_exhausted = 8, internal = 13 };

struct ErrorCreate {
    size_t struct_size;
    Extension* extensions;
    const char* message;
    ErrorCode code;
};

struct Api {
    size_t struct_size;
    Extension* extensions;
    Version version;
    const void* internal;
    Error* (*create_error)(ErrorCreate*);
    // ... and much else
};

enum DataType { int32 = 4, int64 = 5, float32 = 11, float64 = 12 };

struct Buffer {
    size_t struct_size;
    Extension* extensions;
    DataType dtype;
    void* data;
    int64_t rank;
    int64_t* dims;
};

struct Text {
    const char* data;
    size_t size;
};

struct Scalar {
    DataType dtype;
    void* value;
};

enum ValueType { buffer_value = 1 };      // of arguments and results
enum AttributeType { scalar_value = 3 };  // of attributes: also arrays, dictionaries, strings

struct Values {
    size_t struct_size;
    Extension* extensions;
    int64_t size;
    ValueType* types;
    void** values;  // Buffer*
};

struct Attributes {
    size_t struct_size;
    Extension* extensions;
    int64_t size;
    AttributeType* types;
    Text** names;
    void** values;
};

enum Stage { execute = 3 };

struct CallFrame {
    size_t struct_size;
    Extension* extensions;
    const Api* api;
    void* context;
    Stage stage;
    Values arguments, results;
    Attributes attributes;
    void* future;  // for results that come later
};

using Handler = Error*(CallFrame*);

}  // namespace tilefuse::xla
