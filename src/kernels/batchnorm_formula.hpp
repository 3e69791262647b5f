// SPDX-License-Identifier: Apache-2.0
// The normalisation of one element. The forward and backward kernels share it, so that both get the same bits and take
// the same side of every ReLU.
#pragma once

#include "launch.hpp"
#include "seer/kernels/batchnorm.hpp"

namespace seer::kernels {

struct GammaOverDeviation {
  BatchNorm bn;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t k) const {
    return bn.gamma[k] * bn.inv_std[k];
  }
};

/// (x - mean) * (gamma * inv_std) + beta. Subtracts the mean first, which keeps the precision of a channel whose mean
/// is much larger than its deviation.
struct Normalised {
  const float *mean, *scale, *beta;
  GammaOverDeviation make_scale;  ///< makes scale on a device
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.channels(mean);
    visit.channels(scale, make_scale);
    visit.channels(beta);
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float x, std::int64_t k) const { return of_centred(x - mean[k], k); }
  KOKKOS_FORCEINLINE_FUNCTION float of_centred(float centred, std::int64_t k) const {
#if defined(__CUDA_ARCH__)
    return __fmaf_rn(centred, scale[k], beta[k]);  // forces the same rounding in every kernel
#else
    return centred * scale[k] + beta[k];
#endif
  }
};

/// Finishes the sums of 1 (or d) and of x - mean (times d) over the elements of an image with bn(x) > 0: keeps them,
/// and writes factor * sum of bn(x) (times d) over these elements.
struct OpenSums {
  BatchNorm bn;
  std::int64_t c, images;
  double factor;
  float *open, *out;  ///< [2, images, c], [images, c]
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t image, std::int64_t k, const double (&sum)[2]) const {
    const double scale = static_cast<double>(GammaOverDeviation{bn}(image, k)), beta = static_cast<double>(bn.beta[k]);
    const std::int64_t at = image * c + k;
    open[at] = static_cast<float>(sum[0]);
    open[images * c + at] = static_cast<float>(sum[1]);
    out[at] = static_cast<float>((scale * sum[1] + beta * sum[0]) * factor);
  }
};

/// max(v, 0), but NaN stays NaN, so that the guard against bad steps sees it.
KOKKOS_FORCEINLINE_FUNCTION float rectified(float v) {
  return v < 0.0F ? 0.0F : v;
}

template <class Space>
Normalised normalised(const Queue& queue, launch::Scratch& scratch, const launch::Layout& layout, const BatchNorm& bn) {
  if constexpr (launch::kOnDevice<Space>) {
    return {bn.mean, nullptr, bn.beta, {bn}};
  } else {
    return {launch::repeated<Space>(queue, scratch, layout, 1, bn.mean),
            launch::channel_values<Space>(queue, scratch, layout, 1, GammaOverDeviation{bn}),
            launch::repeated<Space>(queue, scratch, layout, 1, bn.beta),
            {bn}};
  }
}

}  // namespace seer::kernels
