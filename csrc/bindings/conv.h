// The shapes of convolutions.
#pragma once

#include <array>

#include "bindings/direct.h"
#include "tilefuse/conv.h"

namespace tilefuse::bindings {

// out_h, out_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, groups
using Geometry = std::array<int64_t, 9>;

// From the shapes of x and w; throws ValueError for what a kernel can't take. (The Python functions have said it better.)
tilefuse_conv2d_shape shape_from(const std::vector<int64_t>& x, const std::vector<int64_t>& w, const Geometry& geometry, const char* name);

// Of direct calls: sets the images' sizes; returns whether `x` has four packed axes.
bool set_images(tilefuse_conv2d_shape& s, const View& x);

// Of direct calls: sets where windows lie, by the argument that tells the padding, once all else in `s` is set; returns whether
// it will do.
bool set_windows(tilefuse_conv2d_shape& s, const Arguments& given, size_t padding);

}  // namespace tilefuse::bindings
