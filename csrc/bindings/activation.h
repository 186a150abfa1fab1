// Activations by name.
#pragma once

#include <string>

#include "tilefuse/activation.h"

namespace tilefuse::bindings {

struct Activation {
    const char* name;
    tilefuse_activation_kind activation;
    double alpha;  // where nobody says another
};

const Activation* find_activation(const char* name);  // null: there is none of that name

// Throws ValueError with the known names for any other.
tilefuse_activation_kind activation_from(const std::string& name);

}  // namespace tilefuse::bindings
