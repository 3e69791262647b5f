// SPDX-License-Identifier: Apache-2.0
#include "seer/config/probe.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "seer/config/config.hpp"

namespace seer::config {
namespace {

const std::vector<double> kThirteenRates = {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3,
                                            2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1};

std::vector<ProbeProtocol> all() {
  const ProbeProtocol vissl = {.name = "vissl",
                               .about = "VISSL's linear classification of ImageNet-1k",
                               .features = "trunk",
                               .optimizer = "nesterov",
                               .rates = {0.01},
                               .decays = {5e-4},
                               .batchnorm = {1},
                               .epochs = 28,
                               .schedule = "steps",
                               .milestones = {8, 16, 24}};
  auto seer = vissl;
  seer.name = "seer";
  seer.about = "VISSL's, on the outputs that SEER's 128 GF model is judged by";
  seer.features = "trunk,res5:2x1,res4:3x1";
  const ProbeProtocol dinov2 = {.name = "dinov2",
                                .about = "DINOv2's grid of 13 rates",
                                .features = "trunk",
                                .rates = kThirteenRates,
                                .batch = 1024,
                                .updates = 12500};
  auto dinov3 = dinov2;
  dinov3.name = "dinov3";
  dinov3.about = "DINOv3's: 13 rates on the pooled features";
  return {{.name = "grid",
           .about = "seer's own: 13 rates, with and without BatchNorm",
           .features = "trunk",
           .rates = {1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1},
           .batchnorm = {0, 1},
           .epochs = 50,
           .least_updates = 1000},
          vissl,
          {.name = "swav",
           .about = "SwAV's eval_linear.py",
           .features = "trunk",
           .rates = {0.3},
           .decays = {1e-6},
           .rate_per_256 = false,
           .epochs = 100},
          {.name = "lightly",
           .about = "lightly's benchmarks",
           .features = "trunk",
           .rates = {0.1},
           .epochs = 90,
           .init = "uniform"},
          dinov2,
          dinov3,
          {.name = "capi",
           .about = "CAPI's: 10 rates x 3 decays, AdamW",
           .features = "trunk",
           .optimizer = "adamw",
           .rates = {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2},
           .decays = {5e-4, 1e-3, 5e-2},
           .bias_decays = false,
           .batch = 1024,
           .updates = 12500,
           .warmup = 0.1,
           .init_deviation = 0.02},
          {.name = "simclr",
           .about = "SimCLR's linear evaluation on ImageNet-1k",
           .features = "trunk",
           .optimizer = "nesterov",
           .rates = {0.1},
           .decays = {1e-6},
           .bias_decays = false,
           .batch = 4096,
           .epochs = 90,
           .init = "zero"},
          seer};
}

}  // namespace

std::vector<std::string> probe_protocols() {
  std::vector<std::string> out;
  for (const auto& protocol : all()) out.push_back(protocol.name);
  return out;
}

ProbeProtocol probe_protocol(const std::string& name) {
  for (auto& protocol : all())
    if (protocol.name == name) return protocol;
  throw unknown("--protocol", name, probe_protocols());
}

double rate_factor(const ProbeProtocol& protocol, std::int64_t t, std::int64_t updates) {
  const auto all_updates = static_cast<double>(updates), now = static_cast<double>(t);
  const double warm = std::floor(protocol.warmup * all_updates);
  if (now < warm) return (now + 1) / warm;
  if (protocol.schedule == "steps") {
    const auto passed = std::ranges::count_if(
        protocol.milestones, [&](double epoch) { return now >= epoch / protocol.epochs * all_updates; });
    return std::pow(0.1, static_cast<double>(passed));
  }
  return 0.5 * (1 + std::cos(std::numbers::pi * (now - warm) / (all_updates - warm)));
}

}  // namespace seer::config
