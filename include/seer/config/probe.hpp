// SPDX-License-Identifier: Apache-2.0
// Protocols by which linear classifiers on frozen features are trained (method.md 8.4): what papers and libraries set.
// Every value can be overridden on the command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seer::config {

struct ProbeProtocol {
  std::string name, about;                  ///< about: where the values come from
  std::string features;                     ///< the network's outputs (eval/feature.hpp) where none are asked for
  std::string optimizer = "sgd";            ///< or "nesterov", "adamw"
  std::vector<double> rates, decays = {0};  ///< one classifier for each pair
  bool rate_per_256 = true;                 ///< rates are multiplied with batch / 256
  bool bias_decays = true;
  std::vector<std::int64_t> batchnorm = {0};  ///< 0: on the features, 1: on normalised ones; both: {0, 1}
  std::int64_t batch = 256;
  double epochs = 0;                    ///< length, in passes over the training images
  std::int64_t updates = 0;             ///< > 0: the length instead of epochs
  std::int64_t least_updates = 0;       ///< of a length in epochs: small sets need more of them
  std::string schedule = "cosine";      ///< or "steps"
  std::vector<double> milestones = {};  ///< steps: the rate falls to a tenth after these epochs
  double warmup = 0;                    ///< part of the updates in which the rate rises linearly
  std::string init = "normal";          ///< of deviation init_deviation; or "uniform" (1 / sqrt(width)), "zero"
  double init_deviation = 0.01;
  double momentum = 0.9, second = 0.95;  ///< second: AdamW's beta 2
};

/// Names of all protocols, the default first.
std::vector<std::string> probe_protocols();
/// Error(input), agreed, with the nearest name.
ProbeProtocol probe_protocol(const std::string& name);

/// Factor of the rate in update t (from 0) of `updates`.
double rate_factor(const ProbeProtocol& protocol, std::int64_t t, std::int64_t updates);

}  // namespace seer::config
