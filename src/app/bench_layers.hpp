// SPDX-License-Identifier: Apache-2.0
// Data and output of `seer bench conv`: the distinct convolutions of a trunk, with their work and roof.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/config/machine.hpp"
#include "seer/device/ledger.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::app {

inline constexpr std::array<const char*, 3> kConvDirections = {"forward", "backward_data", "backward_weights"};

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
  double flop_per_s(std::size_t d) const { return ms[d] > 0 ? 1e3 * work[d].flops / ms[d] : 0; }
  double bytes_per_s(std::size_t d) const { return ms[d] > 0 ? 1e3 * work[d].bytes / ms[d] : 0; }
  /// Least time that peak and memory allow.
  double roof_ms(std::size_t direction, const Yardstick& yardstick) const;
  std::string name() const;
};

/// The trunk's convolutions for each crop size, with its number of images, activations of `type`.
std::vector<ConvLayer> conv_layers(const config::Model& model, const std::vector<std::int64_t>& sizes,
                                   const std::vector<std::int64_t>& batches, DType type);

/// Heading of the tables.
struct ConvHeading {
  std::string preset, precision;
  std::string library = "", where = "";  ///< both empty if nothing is measured
  std::vector<std::int64_t> sizes, batches;
  std::int64_t repeat = 0;
  int ranks = 1;
  bool device = false;
};
void print_conv_table(const ConvHeading& heading, const std::vector<ConvLayer>& layers, const Yardstick& yardstick);
/// Without measurements: work, intensity and roof of every layer.
void print_conv_plan(const ConvHeading& heading, const std::vector<ConvLayer>& layers, const Yardstick& yardstick);
void print_conv_json(const ConvHeading& heading, const std::vector<ConvLayer>& layers, const Yardstick& yardstick);

}  // namespace seer::app
