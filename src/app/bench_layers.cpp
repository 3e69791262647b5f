// SPDX-License-Identifier: Apache-2.0
#include "bench_layers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "seer/device/device_queue.hpp"
#include "seer/nn/trunk.hpp"
#include "seer/plan/trial.hpp"
#include "seer/train/compute.hpp"

namespace seer::app {
namespace {

/// Milliseconds of an update.
struct Segment {
  double all_ms = 0, convolutions_ms = 0, packing_ms = 0, alone_ms = 0;
  Segment& operator+=(const Segment& other) {
    all_ms += other.all_ms;
    convolutions_ms += other.convolutions_ms;
    packing_ms += other.packing_ms;
    alone_ms += other.alone_ms;
    return *this;
  }
};

struct Layer {
  std::string label;
  double calls = 0, ms = 0, alone_ms = 0, flops = 0;
};

/// By segment; the heads are one.
std::vector<Segment> segments_of(const Layers& layers) {
  std::vector<Segment> segments(static_cast<std::size_t>(layers.segments + 1));
  const auto updates = static_cast<double>(layers.updates);
  for (const auto& row : layers.rows) {
    if (row.section == device::Recorder::kNoSection) continue;
    auto& segment = segments[static_cast<std::size_t>(std::min(row.section, layers.segments))];
    segment.all_ms += row.ms / updates;
    if (row.label == device::kWeightsPacked) segment.packing_ms += row.ms / updates;
    const auto alone = layers.alone_ms.find(row.label);
    if (alone == layers.alone_ms.end()) continue;
    segment.convolutions_ms += row.ms / updates;
    segment.alone_ms += alone->second * static_cast<double>(row.calls) / updates;
  }
  return segments;
}

/// By shape and direction.
std::vector<Layer> layers_of(const Layers& layers) {
  std::vector<Layer> out;
  const auto updates = static_cast<double>(layers.updates);
  for (const auto& [label, alone_ms] : layers.alone_ms) {
    Layer layer{.label = label};
    for (const auto& row : layers.rows) {
      if (row.label != label) continue;
      layer.calls += static_cast<double>(row.calls) / updates;
      layer.ms += row.ms / updates;
      layer.flops += row.flops / updates;
    }
    layer.alone_ms = alone_ms * layer.calls;
    if (layer.calls > 0) out.push_back(layer);
  }
  std::ranges::sort(out, std::greater{}, &Layer::ms);
  return out;
}

std::string name_of(std::size_t segment, std::size_t heads) {
  return segment == 0 ? "stem" : segment == heads ? "heads" : fmt::format("block {}", segment);
}

}  // namespace

std::map<std::string, double> measure_alone(const comm::Communicator& world, const config::Config& config,
                                            const train::Learner& learner) {
  constexpr int kCalls = 4;
  const auto backend = train::make_backend(config, world);
  std::optional<device::DeviceQueue> own;
  if (learner.space() == device::Space::device) own.emplace();
  auto queue = own ? own->queue() : device::Queue{};
  const auto type = train::compute_type(config.precision);
  std::map<std::string, double> best;
  for (const auto& crops : config.crops) {
    const auto images = crops.count * config.data.global_batch / world.size();
    for (const auto& convolution : nn::convolutions(learner.model().trunk(), images, crops.size)) {
      plan::ConvTrial trial(queue, *backend, convolution.shape, type);
      for (const auto direction :
           {dnn::Direction::forward, dnn::Direction::backward_data, dnn::Direction::backward_weights}) {
        for (int call = 0; call < kCalls; ++call) {
          world.barrier();
          device::Recorder recorder(queue, device::Recorder::Convolutions::by_shape);
          trial.call(direction);
          recorder.read();
          for (const auto& row : recorder.rows()) {
            if (row.flops == 0) continue;
            const auto found = best.try_emplace(row.label, std::numeric_limits<double>::infinity()).first;
            if (call > 0) found->second = std::min(found->second, row.ms);
          }
        }
      }
    }
  }
  return best;
}

nlohmann::json to_json(const Layers& layers) {
  auto segments = nlohmann::json::array(), convolutions = nlohmann::json::array();
  const auto all = segments_of(layers);
  for (std::size_t i = 0; i < all.size(); ++i) {
    segments.push_back({{"name", name_of(i, all.size() - 1)},
                        {"ms", all[i].all_ms},
                        {"convolutions_ms", all[i].convolutions_ms},
                        {"packing_ms", all[i].packing_ms},
                        {"alone_ms", all[i].alone_ms}});
  }
  for (const auto& layer : layers_of(layers))
    convolutions.push_back({{"name", layer.label},
                            {"calls", layer.calls},
                            {"ms", layer.ms},
                            {"alone_ms", layer.alone_ms},
                            {"flops", layer.flops}});
  return {{"segments", segments}, {"convolutions", convolutions}};
}

std::string to_table(const Layers& layers) {
  auto text = fmt::format(
      "forward and backward of an update on rank 0, ms; alone: the same convolutions by themselves\n"
      "  {:<10}{:>9}{:>14}{:>10}{:>10}{:>9}{:>12}",
      "segment", "in all", "convolutions", "packing", "the rest", "alone", "all/alone");
  const auto all = segments_of(layers);
  const auto line = [&](const std::string& name, const Segment& s) {
    text += fmt::format("\n  {:<10}{:>9.2f}{:>14.2f}{:>10.2f}{:>10.2f}{:>9.2f}", name, s.all_ms, s.convolutions_ms,
                        s.packing_ms, s.all_ms - s.convolutions_ms - s.packing_ms, s.alone_ms);
    if (s.alone_ms > 0) text += fmt::format("{:>12.2f}", s.all_ms / s.alone_ms);
  };
  Segment trunk;
  for (std::size_t i = 0; i < all.size(); ++i) {
    line(name_of(i, all.size() - 1), all[i]);
    if (i + 1 < all.size()) trunk += all[i];
  }
  line("trunk", trunk);
  text +=
      fmt::format("\n  {:>9}{:>9}{:>9}{:>12}{:>9}  {}", "in net", "alone", "ratio", "GFLOP/s", "calls", "convolution");
  for (const auto& layer : layers_of(layers))
    text += fmt::format("\n  {:>9.2f}{:>9.2f}{:>9.2f}{:>12.1f}{:>9.0f}  {}", layer.ms, layer.alone_ms,
                        layer.ms / layer.alone_ms, layer.flops / layer.ms / 1e6, layer.calls, layer.label);
  return text;
}

}  // namespace seer::app
