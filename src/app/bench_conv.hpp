// SPDX-License-Identifier: Apache-2.0
// Data and output of `seer bench conv`: the distinct convolutions of a trunk, with their work and roof.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/plan/simulation.hpp"

namespace seer::app {

struct ConvOptions {
  std::string precision = "fp32", machine, choices;
  config::Model model;
  std::vector<std::int64_t> sizes{224}, batches{8};
  std::int64_t repeat = 10;
  double limit_seconds = 0;
  bool device = false, tf32 = false, plan = false, json = false;
};

/// Peak and memory rate that times are compared with. 0: unknown.
struct Yardstick {
  double flop_per_s = 0, bytes_per_s = 0;
  std::string source;
};

/// One distinct convolution and how often the trunk has it.
struct ConvLayer {
  dnn::ConvShape shape;
  std::int64_t crop = 0;  ///< side of the trunk's input images
  std::int64_t count = 1;
  bool images = false;                 ///< reads the images themselves, which need no gradient
  std::array<device::Work, 3> work{};  ///< by direction, as counted by `seer plan`
  std::array<double, 3> ms{};          ///< measured; 0: not measured
  std::array<double, 3> planned_ms{};  ///< from a machine file's rates
  bool has(std::size_t direction) const { return direction != 1 || !images; }
  /// Least time that peak and memory allow.
  double roof_ms(std::size_t direction, const Yardstick& yardstick) const;
  std::string name() const;
};

struct ConvResult {
  std::vector<ConvLayer> layers;
  Yardstick yardstick;
  std::string library, where;  ///< both empty if nothing is measured
  int ranks = 1;
};
/// One line on stderr as soon as a layer is measured.
void print_progress(const ConvLayer& layer, double seconds);
/// Without measurements, the table shows work, intensity and roof of every layer.
void print_conv_table(const ConvOptions& options, const ConvResult& result);
void print_conv_json(const ConvOptions& options, const ConvResult& result);

}  // namespace seer::app
