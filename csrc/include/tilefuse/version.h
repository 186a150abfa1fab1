// The version of these headers. CMake reads it from here.
#pragma once

#define TILEFUSE_VERSION_MAJOR 0
#define TILEFUSE_VERSION_MINOR 1
#define TILEFUSE_VERSION_PATCH 0
#define TILEFUSE_VERSION_STRING "0.1.0"

// One number that grows with the version, as tilefuse_version() returns it.
#define TILEFUSE_VERSION (TILEFUSE_VERSION_MAJOR * 10000 + TILEFUSE_VERSION_MINOR * 100 + TILEFUSE_VERSION_PATCH)
