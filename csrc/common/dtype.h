// From a dtype known at run time to a type known at compile time.
#pragma once

#include "tilefuse/types.h"

namespace tilefuse::inline TILEFUSE_ISA {

// body(float{}) or body(double{}): by_dtype(args.dtype, [&](auto zero) { using T = decltype(zero); ... }).
template <class Body> inline void by_dtype(tilefuse_dtype dtype, Body&& body) {
    if (dtype == TILEFUSE_FLOAT32) {
        body(float{});
    } else {
        body(double{});
    }
}

}  // namespace tilefuse::inline TILEFUSE_ISA
