// SPDX-License-Identifier: Apache-2.0
#include "seer/train/precision.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "seer/base/error.hpp"

namespace seer::train {

DType compute_type(const config::Precision& precision) {
  if (precision.compute == "bf16") return DType::bf16;
  if (precision.compute == "fp16_o1") return DType::f16;
  return DType::f32;
}

void check_precision(const config::Precision& precision, dnn::Backend& backend) {
  const DType type = compute_type(precision);
  if (backend.supports(type)) return;
  const char* needed = type == DType::f16 ? "oneDNN 3.x on a processor with avx512_fp16, or a GPU"
                                          : "oneDNN on a processor with avx512, or a GPU";
  const bool other_half = type == DType::f16 && backend.supports(DType::bf16);
  throw Error(ExitCode::input,
              fmt::format("precision.compute = \"{}\": {} cannot train in it on this processor; it needs {}",
                          precision.compute, backend.describe(), needed),
              fmt::format("use precision.compute = \"{}\"", other_half ? "bf16" : "fp32"));
}

LossScale::LossScale(const config::Precision& precision)
    : dynamic_(precision.loss_scale == "dynamic" ||
               (precision.loss_scale == "auto" && compute_type(precision) == DType::f16)),
      value_(dynamic_ ? kStart : 1) {}

void LossScale::observe(bool finite) {
  if (!dynamic_) return;
  if (!finite) {
    value_ /= 2;
    clean_ = 0;
    if (value_ >= static_cast<double>(std::numeric_limits<float>::min())) return;
    throw Error(ExitCode::numerics,
                fmt::format("loss or gradients were not finite in update after update, until the loss scale came down "
                            "to {:.3g}: no scale makes them finite",
                            value_),
                "lower schedule.lr_peak or lengthen the warm-up, and go on from an earlier checkpoint")
        .as_agreed();
  }
  if (++clean_ < kCleanToGrow) return;
  value_ = std::max(value_, std::min(2 * value_, kMost));  // the scale of a checkpoint may be larger than kMost
  clean_ = 0;
}

void LossScale::save(checkpoint::State& state) const {
  if (!dynamic_) return;
  state.loss_scale = value_;
  state.loss_scale_clean = clean_;
}

void LossScale::restore(const checkpoint::State& state) {
  if (!dynamic_ || state.loss_scale_clean < 0) return;
  value_ = state.loss_scale;
  clean_ = state.loss_scale_clean;
}

}  // namespace seer::train
