// Checks of arguments that come from outside: everything that a kernel takes on trust, and that would make it read or
// write where it must not. csrc/api/checks.cpp has one for the arguments of every kernel.
#pragma once

#include "common/registry.h"

namespace tilefuse::api {

// Throws std::invalid_argument with what was given and what is expected.
#define TILEFUSE_CHECK(name) void check(const tilefuse_##name##_args& args);
TILEFUSE_KERNELS(TILEFUSE_CHECK)
#undef TILEFUSE_CHECK

}  // namespace tilefuse::api
