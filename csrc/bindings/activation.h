// Activations by name.
#pragma once

#include <string>

#include "tilefuse/activation.h"

namespace tilefuse::bindings {

// Throws ValueError with the known names for any other.
tilefuse_activation activation_from(const std::string& name);

}  // namespace tilefuse::bindings
