// The names of precisions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "bindings/arrays.h"
#include "tilefuse/matmul.h"

namespace tilefuse::bindings {

// None, where this machine has none of that name.
inline std::optional<tilefuse_precision> find_precision(std::string_view name) {
    constexpr std::pair<const char*, tilefuse_precision> known[] = {
        {"float32", TILEFUSE_PRECISION_FLOAT32},   {"ieee", TILEFUSE_PRECISION_IEEE},
        {"bfloat16", TILEFUSE_PRECISION_BFLOAT16}, {"split", TILEFUSE_PRECISION_SPLIT},
        {"tf32", TILEFUSE_PRECISION_TF32},         {"float16", TILEFUSE_PRECISION_FLOAT16}};
    for (const auto& [of, precision] : known)
        if (name == of && (!backend::uses_host_memory() || precision <= TILEFUSE_PRECISION_BFLOAT16)) return precision;
    return {};
}

inline tilefuse_precision precision_from(const std::string& name) {
    if (const auto precision = find_precision(name)) return *precision;
    throw py::value_error("precision '" + name + "' is not available on " + backend::name());
}

}  // namespace tilefuse::bindings
