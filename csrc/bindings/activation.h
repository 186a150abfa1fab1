// Activations by name.
#pragma once

#include <string>
#include <string_view>

#include "tilefuse/activation.h"

namespace tilefuse::bindings {

struct Activation {
    const char* name;
    tilefuse_activation_kind activation;
    double alpha;  // where nobody says another
};

const Activation* find_activation(std::string_view name);  // null: there is none of that name

// Throws ValueError with the known names for any other.
tilefuse_activation_kind activation_from(const std::string& name);

}  // namespace tilefuse::bindings
