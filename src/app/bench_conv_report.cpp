// SPDX-License-Identifier: Apache-2.0
// Output of `seer bench conv`.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "bench_layers.hpp"
#include "seer/device/session.hpp"

namespace seer::app {
namespace {

/// Sums over the layers, per direction and over all directions.
struct Total {
  double ms = 0, flops = 0, bytes = 0, roof_ms = 0, planned_ms = 0;
};

std::array<Total, 4> totals(const std::vector<ConvLayer>& layers, const Yardstick& yardstick) {
  std::array<Total, 4> out;
  for (const auto& layer : layers) {
    for (std::size_t d = 0; d < 3; ++d) {
      if (!layer.has(d)) continue;
      const auto count = static_cast<double>(layer.count);
      for (const std::size_t to : {d, std::size_t{3}}) {
        out[to].ms += layer.ms[d] * count;
        out[to].flops += layer.work[d].flops * count;
        out[to].bytes += layer.work[d].bytes * count;
        out[to].roof_ms += layer.roof_ms(d, yardstick) * count;
        out[to].planned_ms += layer.planned_ms[d] * count;
      }
    }
  }
  return out;
}

std::string heading_line(const ConvHeading& h) {
  return fmt::format("{}, {}, size {}, batch {} a rank, ranks {}", h.preset, h.precision, fmt::join(h.sizes, ", "),
                     fmt::join(h.batches, ", "), h.ranks);
}

std::string bound(const device::Work& work, const Yardstick& yardstick) {
  return work.flops / yardstick.flop_per_s > work.bytes / yardstick.bytes_per_s ? "peak" : "memory";
}

}  // namespace

void print_conv_table(const ConvHeading& heading, const std::vector<ConvLayer>& layers, const Yardstick& yardstick) {
  // A device is thousands of times faster than a core.
  const double unit = heading.device ? 1e12 : 1e9;
  const char* unit_name = heading.device ? "TFLOP/s" : "GFLOP/s";
  const bool roof = yardstick.bytes_per_s > 0;
  fmt::print("{}, {}{}; {} {:.1f} {}", heading_line(heading),
             heading.device ? "" : fmt::format("threads {}, ", device::threads()), heading.library, yardstick.source,
             yardstick.flop_per_s / unit, unit_name);
  if (roof) fmt::print(", memory {:.0f} GB/s", yardstick.bytes_per_s * 1e-9);
  if (!heading.where.empty()) fmt::print("\non {}", heading.where);
  fmt::print("\nshare: of that rate; {}best of {} calls, of the slowest rank\n",
             roof ? "roof: of what rate and memory allow; " : "", heading.repeat);
  fmt::print("{:<32}{:>9}{:>7}", "convolution", "at", "times");
  for (const char* name : {"forward", "to data", "to weights"}) {
    fmt::print("{:>12} ms {:>9}{:>7}{:>7}", name, unit_name, "GB/s", "share");
    if (roof) fmt::print("{:>7}", "roof");
  }
  fmt::print("\n");
  const auto cells = [&](double ms, double flops, double bytes, double roof_ms) {
    if (ms <= 0) {
      fmt::print("{:>15}{:>10}{:>7}{:>7}", "-", "-", "-", "-");
    } else {
      const double rate = 1e3 * flops / ms;
      fmt::print("{:>15.3f}{:>10.1f}{:>7.0f}{:>7.2f}", ms, rate / unit, 1e-6 * bytes / ms, rate / yardstick.flop_per_s);
    }
    if (roof) fmt::print("{:>7}", ms > 0 ? fmt::format("{:.2f}", roof_ms / ms) : "-");
  };
  for (const auto& layer : layers) {
    fmt::print("{:<32}{:>9}{:>7}", layer.name(), fmt::format("{0}x{0}", layer.shape.h), layer.count);
    for (std::size_t d = 0; d < 3; ++d) {
      cells(layer.ms[d], layer.work[d].flops, layer.work[d].bytes, layer.roof_ms(d, yardstick));
    }
    fmt::print("\n");
  }
  const auto sums = totals(layers, yardstick);
  fmt::print("{:<48}", "total");
  for (std::size_t d = 0; d < 3; ++d) cells(sums[d].ms, sums[d].flops, sums[d].bytes, sums[d].roof_ms);
  const double rate = 1e3 * sums[3].flops / sums[3].ms;
  fmt::print("\nall three: {:.1f} ms, {:.1f} {}, share {:.2f}", sums[3].ms, rate / unit, unit_name,
             rate / yardstick.flop_per_s);
  if (roof) fmt::print(", roof {:.2f}", sums[3].roof_ms / sums[3].ms);
  fmt::print("\n");
}

void print_conv_plan(const ConvHeading& heading, const std::vector<ConvLayer>& layers, const Yardstick& yardstick) {
  fmt::print("{}; nothing measured: {}, {:.4g} TFLOP/s and {:.4g} TB/s, which meet at {:.0f} FLOP/byte\n",
             heading_line(heading), yardstick.source, yardstick.flop_per_s * 1e-12, yardstick.bytes_per_s * 1e-12,
             yardstick.flop_per_s / yardstick.bytes_per_s);
  fmt::print("ms of all calls in all three directions; plan: by the machine file's rates\n");
  fmt::print("{:<36}{:>9}{:>7}{:>9}{:>8}{:>11}{:>8}{:>9}{:>9}{:>8}\n", "convolution", "at", "times", "TFLOP", "GB",
             "FLOP/byte", "bound", "roof ms", "plan ms", "share");
  const auto line = [&](const std::string& name, const std::string& at, std::int64_t times, double flops, double bytes,
                        const std::string& by, double roof_ms, double planned_ms) {
    fmt::print("{:<36}{:>9}{:>7}{:>9.3f}{:>8.2f}{:>11.0f}{:>8}{:>9.3f}{:>9.3f}{:>8.3f}\n", name, at, times,
               1e-12 * flops, 1e-9 * bytes, flops / bytes, by, roof_ms, planned_ms,
               1e3 * flops / planned_ms / yardstick.flop_per_s);
  };
  for (const auto& layer : layers) {
    Total sum;
    for (std::size_t d = 0; d < 3; ++d) {
      if (!layer.has(d)) continue;
      const auto count = static_cast<double>(layer.count);
      sum.flops += count * layer.work[d].flops;
      sum.bytes += count * layer.work[d].bytes;
      sum.roof_ms += count * layer.roof_ms(d, yardstick);
      sum.planned_ms += count * layer.planned_ms[d];
    }
    line(layer.name(), fmt::format("{0}x{0}", layer.shape.h), layer.count, sum.flops, sum.bytes,
         bound(layer.work[0], yardstick), sum.roof_ms, sum.planned_ms);
  }
  const auto sums = totals(layers, yardstick);
  for (std::size_t d = 0; d < 4; ++d) {
    constexpr const char* names[] = {"all forward", "all to data", "all to weights", "all"};
    line(names[d], "", 0, sums[d].flops, sums[d].bytes, "", sums[d].roof_ms, sums[d].planned_ms);
  }
}

void print_conv_json(const ConvHeading& h, const std::vector<ConvLayer>& layers, const Yardstick& yardstick) {
  nlohmann::json out = {{"bench", "conv"},
                        {"preset", h.preset},
                        {"precision", h.precision},
                        {"sizes", h.sizes},
                        {"batches", h.batches},
                        {"ranks", h.ranks},
                        {"threads", device::threads()},
                        {"library", h.library},
                        {"device", h.device},
                        {"where", h.where},
                        {"yardstick", yardstick.source},
                        {"peak_gflop_per_s", 1e-9 * yardstick.flop_per_s},
                        {"peak_gb_per_s", 1e-9 * yardstick.bytes_per_s},
                        {"repeat", h.repeat},
                        {"layers", nlohmann::json::array()}};
  for (const auto& layer : layers) {
    const auto& s = layer.shape;
    nlohmann::json row = {{"name", layer.name()},
                          {"count", layer.count},
                          {"crop", layer.crop},
                          {"images", s.n},
                          {"height", s.h},
                          {"channels_in", s.c_in},
                          {"channels_out", s.c_out},
                          {"kernel", s.kernel},
                          {"stride", s.stride},
                          {"groups", s.groups},
                          {"gflop", 1e-9 * layer.work[0].flops}};
    for (std::size_t d = 0; d < 3; ++d) {
      if (!layer.has(d)) continue;
      const std::string name = kConvDirections[d];
      row[name + "_bytes"] = layer.work[d].bytes;
      row[name + "_roof_ms"] = layer.roof_ms(d, yardstick);
      if (layer.planned_ms[d] > 0) row[name + "_planned_ms"] = layer.planned_ms[d];
      if (layer.ms[d] <= 0) continue;
      row[name + "_ms"] = layer.ms[d];
      row[name + "_gflop_per_s"] = 1e-9 * layer.flop_per_s(d);
      row[name + "_gb_per_s"] = 1e-9 * layer.bytes_per_s(d);
      row[name + "_share"] = layer.flop_per_s(d) / yardstick.flop_per_s;
    }
    out["layers"].push_back(row);
  }
  const auto sums = totals(layers, yardstick);
  for (std::size_t d = 0; d < 4; ++d) {
    const std::string name = d < 3 ? kConvDirections[d] : "all";
    auto& total = out["total"];
    total[name + "_gflop"] = 1e-9 * sums[d].flops;
    total[name + "_gb"] = 1e-9 * sums[d].bytes;
    total[name + "_roof_ms"] = sums[d].roof_ms;
    if (sums[d].planned_ms > 0) total[name + "_planned_ms"] = sums[d].planned_ms;
    if (sums[d].ms <= 0) continue;
    total[name + "_ms"] = sums[d].ms;
    total[name + "_gflop_per_s"] = 1e-6 * sums[d].flops / sums[d].ms;
  }
  fmt::print("{}\n", out.dump(2));
}

}  // namespace seer::app
