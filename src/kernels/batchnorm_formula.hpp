// SPDX-License-Identifier: Apache-2.0
// The normalisation of one element, shared by the forward and the backward kernels so that both take the same side of
// every ReLU to the last bit.
#pragma once

#include "launch.hpp"
#include "seer/kernels/batchnorm.hpp"

namespace seer::kernels {

/// (x - mean) * (gamma * inv_std) + beta: the mean is subtracted first, which keeps the precision of a channel whose
/// mean is much larger than its deviation.
struct Normalised {
  const float *mean, *scale, *beta;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float x, std::int64_t k) const {
    return (x - mean[k]) * scale[k] + beta[k];
  }
};

/// max(v, 0) that lets NaN through, so that the guard against bad steps sees it.
KOKKOS_FORCEINLINE_FUNCTION float rectified(float v) {
  return v < 0.0F ? 0.0F : v;
}

template <class Space>
Normalised normalised(const Queue& queue, launch::Scratch& scratch, const launch::Layout& layout, const BatchNorm& bn) {
  const BatchNorm p = bn;
  return {
      launch::repeated<Space>(queue, scratch, layout, 1, p.mean),
      launch::channel_values<Space>(
          queue, scratch, layout, 1, KOKKOS_LAMBDA(std::int64_t, std::int64_t k) { return p.gamma[k] * p.inv_std[k]; }),
      launch::repeated<Space>(queue, scratch, layout, 1, p.beta)};
}

}  // namespace seer::kernels
