// The shapes of convolutions.
#pragma once

#include <array>

#include "bindings/arrays.h"
#include "tilefuse/conv.h"

namespace tilefuse::bindings {

// out_h, out_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, groups
using Geometry = std::array<int64_t, 9>;

// From the shapes of x and w; throws ValueError for what a kernel can't take. (The Python functions have said it better.)
tilefuse_conv2d_shape shape_from(const std::vector<int64_t>& x, const std::vector<int64_t>& w, const Geometry& geometry, const char* name);

}  // namespace tilefuse::bindings
