// SPDX-License-Identifier: Apache-2.0
// The convolution, BatchNorm and ReLU at the start of a trunk.
#pragma once

#include <string>

#include "seer/nn/batchnorm.hpp"
#include "seer/nn/chain.hpp"

namespace seer::nn {

class Stem {
 public:
  struct Shape {
    std::int64_t width = 0, kernel = 3, stride = 2;
  };
  /// Kept from the forward to the backward pass.
  struct Saved {
    device::Tensor images;  ///< in the type of the activations: the caller's tensor or `rounded`
    device::Loan rounded, convolved, out;
    BatchNormLayer::Saved bn;
  };

  Stem() = default;
  /// Registers `convolution`.weight and the BatchNorm `norm`.
  Stem(ParameterTable& parameters, ParameterTable& buffers, const std::string& convolution, const std::string& norm,
       const Shape& shape);

  /// images: [n, h, w, 3], float; must stay until the backward pass; saved.out: [n, h', w', width].
  void forward(const Context& ctx, device::Tensor images, Saved& saved, Keep keep) const;
  /// Overwrites d_out. Writes d_images, if that has memory.
  void backward(const Context& ctx, device::Loan d_out, Saved& saved, device::Tensor d_images) const;

 private:
  dnn::ConvShape convolution(device::Shape images) const;
  void convolve(const Context& ctx, Saved& saved) const;
  Shape shape_;
  std::int64_t weight_ = 0;
  BatchNormLayer bn_;
};

}  // namespace seer::nn
