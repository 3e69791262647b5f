// SPDX-License-Identifier: Apache-2.0
// Lists the convolutions of a trunk by running it on a planned machine.
#pragma once

#include <cstdint>
#include <vector>

#include "seer/nn/chain.hpp"

namespace seer::nn {

struct Convolution {
  dnn::ConvShape shape;
  std::int64_t count = 1;  ///< how often it occurs in the trunk
};

/// Returns the distinct convolutions of a forward pass over `images` images of size x size pixels, in the order of
/// their first use. The first one reads the images.
std::vector<Convolution> convolutions(const Chain& trunk, std::int64_t images, std::int64_t size);

}  // namespace seer::nn
