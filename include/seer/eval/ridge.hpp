// SPDX-License-Identifier: Apache-2.0
// A linear classifier in closed form: ridge regression onto one-hot targets (method.md 8.7). Quicker than logistic
// regression and usually a little less accurate: for watching a run, not for published figures.
#pragma once

#include <cstdint>

#include "seer/comm/communicator.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::eval {

/// Collective. Fits on the rows of all ranks' `train`, returns the fraction of the `test` rows whose class has the
/// largest score (of equal ones the lowest). Labels of both are indices below `classes`; rows without one, and those
/// that do not decode, are left out. Features are standardised; `strength`: the penalty on squared weights, relative to
/// the rows' number. Memory: 8 d^2 + 8 classes d bytes. Error(input), agreed, if a set has no labelled row;
/// Error(numerics) for features that are not finite.
double ridge_top1(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                  std::int64_t classes, double strength = 0.01);

}  // namespace seer::eval
