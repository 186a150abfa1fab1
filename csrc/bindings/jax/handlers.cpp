// The CPU's kernels as handlers of XLA's foreign function interface, one decoder for all of them. An attribute of a call is
// a field of the kernel's arguments: a number's value; of an array, which of the call's buffers it is, arguments first.
#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "api/checks.h"
#include "bindings/arrays.h"
#include "bindings/jax/fields.h"
#include "bindings/jax/xla_ffi.h"
#include "cpu/kernels.h"

namespace tilefuse::jax {
namespace {

xla::Error* error(const xla::Api* api, xla::ErrorCode code, const std::string& message) {
    xla::ErrorCreate create = {sizeof(xla::ErrorCreate), nullptr, message.c_str(), code};
    return api->create_error(&create);
}

// Structs say how long they are: as long as those of xla_ffi.h, or, of newer versions, longer.
bool known(const xla::CallFrame& frame) {
    const auto holds_buffers = [](const xla::Values& values) { return values.struct_size >= sizeof(xla::Values); };
    return frame.struct_size >= offsetof(xla::CallFrame, future) && holds_buffers(frame.arguments) && holds_buffers(frame.results) &&
           frame.attributes.struct_size >= sizeof(xla::Attributes) && frame.stage == xla::execute;
}

// The version that both sides know.
void answer(const xla::CallFrame& frame, xla::Metadata& metadata) {
    if (metadata.struct_size < offsetof(xla::Metadata, traits) + sizeof metadata.traits) return;
    const int minor = frame.api ? std::min(frame.api->version.minor, xla::minor_version) : xla::minor_version;
    metadata.version = {sizeof(xla::Version), nullptr, xla::major_version, minor};
    metadata.traits = 0;
}

const xla::Buffer& buffer(const xla::CallFrame& frame, int64_t index) {
    const xla::Values& from = index < frame.arguments.size ? frame.arguments : frame.results;
    const int64_t at = index < frame.arguments.size ? index : index - frame.arguments.size;
    if (at < 0 || at >= from.size || from.types[at] != xla::buffer_value) {
        throw std::invalid_argument("there is no buffer " + std::to_string(index));
    }
    return *static_cast<const xla::Buffer*>(from.values[at]);
}

// A scalar attribute as V, with no value changed: those of one kind fit the fields that they are meant for.
template <class V> V number(const xla::Scalar& scalar) {
    switch (scalar.dtype) {
        case xla::int32: return static_cast<V>(*static_cast<const int32_t*>(scalar.value));
        case xla::int64: return static_cast<V>(*static_cast<const int64_t*>(scalar.value));
        case xla::float32: return static_cast<V>(*static_cast<const float*>(scalar.value));
        case xla::float64: return static_cast<V>(*static_cast<const double*>(scalar.value));
    }
    throw std::invalid_argument("an attribute is of XLA's type " + std::to_string(scalar.dtype) + "; expected a number");
}

// Results in double for which there is a buffer of float32: JAX has no float64 unless asked for it.
class Doubles {
public:
    double* place(const xla::Buffer& to) {
        if (to.dtype == xla::float64) return static_cast<double*>(to.data);
        int64_t size = 1;
        for (int64_t axis = 0; axis < to.rank; ++axis) size *= to.dims[axis];
        results_.push_back({static_cast<float*>(to.data), std::vector<double>(static_cast<size_t>(size))});
        return results_.back().values.data();
    }

    void round() const {
        for (const Result& result : results_)
            std::transform(result.values.begin(), result.values.end(), result.to, [](double value) { return static_cast<float>(value); });
    }

private:
    struct Result {
        float* to;
        std::vector<double> values;
    };
    std::vector<Result> results_;
};

template <class Args> void set(Args& args, const Field& field, const xla::CallFrame& frame, const xla::Scalar& scalar, Doubles& doubles) {
    char* const to = reinterpret_cast<char*>(&args) + field.offset;
    const auto put = [&](auto value) { std::memcpy(to, &value, sizeof value); };
    switch (field.kind) {
        case Kind::int32: return put(number<int32_t>(scalar));
        case Kind::int64: return put(number<int64_t>(scalar));
        case Kind::float64: return put(number<double>(scalar));
        case Kind::array: return put(buffer(frame, number<int64_t>(scalar)).data);
        case Kind::doubles: return put(doubles.place(buffer(frame, number<int64_t>(scalar))));
    }
}

template <class Args> void execute(const xla::CallFrame& frame) {
    Args args = {};
    Doubles doubles;
    const xla::Attributes& attributes = frame.attributes;
    for (int64_t i = 0; i < attributes.size; ++i) {
        const std::string_view name(attributes.names[i]->data, attributes.names[i]->size);
        const auto field = std::find_if(std::begin(Fields<Args>::all), std::end(Fields<Args>::all), [&](const Field& f) { return f.name == name; });
        if (field == std::end(Fields<Args>::all) || attributes.types[i] != xla::scalar_value) {
            throw std::invalid_argument("attribute " + std::string(name) + " is not a number of this kernel's");
        }
        set(args, *field, frame, *static_cast<const xla::Scalar*>(attributes.values[i]), doubles);
    }
    api::check(args);
    tilefuse::run(args);
    doubles.round();
}

template <class Args> xla::Error* handle(xla::CallFrame* frame) noexcept {
    for (xla::Extension* extension = frame->extensions; extension != nullptr; extension = extension->next) {
        if (extension->type != xla::metadata_extension) continue;
        answer(*frame, *reinterpret_cast<xla::MetadataExtension*>(extension)->metadata);
        return nullptr;
    }
    try {
        if (!known(*frame)) throw std::runtime_error("this jaxlib makes calls of a kind that tilefuse does not know");
        execute<Args>(*frame);
        return nullptr;
    } catch (const std::invalid_argument& e) {
        return error(frame->api, xla::invalid_argument, std::string("tilefuse: ") + e.what());
    } catch (const std::bad_alloc&) {
        return error(frame->api, xla::resource_exhausted, "tilefuse: out of memory");
    } catch (const std::exception& e) {
        return error(frame->api, xla::internal, std::string("tilefuse: ") + e.what());
    }
}

}  // namespace

const bindings::Binding binding = [](pybind11::module_& m) {
    m.def("xla_handlers", [] {
        pybind11::dict handlers;
        const auto add = [&](const char* name, xla::Handler* handler) {
            handlers[name] = pybind11::capsule(reinterpret_cast<void*>(handler), "xla._CUSTOM_CALL_TARGET");
        };
#define TILEFUSE_ADD(name) add(#name, &handle<tilefuse_##name##_args>);
        TILEFUSE_JAX_KERNELS(TILEFUSE_ADD)
#undef TILEFUSE_ADD
        return handlers;
    }, "The kernels by name, for jax.ffi.register_ffi_target.");
};

}  // namespace tilefuse::jax
