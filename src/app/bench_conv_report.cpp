// SPDX-License-Identifier: Apache-2.0
// Output of `seer bench conv`.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench_conv.hpp"
#include "seer/device/session.hpp"

namespace seer::app {
namespace {

/// Sums over layers.
struct Total {
  double ms = 0, flops = 0, bytes = 0, roof_ms = 0, planned_ms = 0;

  void add(const ConvLayer& layer, std::size_t d, const Yardstick& yardstick) {
    const auto count = static_cast<double>(layer.count);
    ms += layer.ms[d] * count;
    flops += layer.work[d].flops * count;
    bytes += layer.work[d].bytes * count;
    roof_ms += layer.roof_ms(d, yardstick) * count;
    planned_ms += layer.planned_ms[d] * count;
  }
};

constexpr const char* kDirections[] = {"forward", "to data", "to weights"};

/// Per direction, and over all directions. `measured`: only of what was measured.
std::array<Total, 4> totals(const std::vector<ConvLayer>& layers, const Yardstick& yardstick, bool measured) {
  std::array<Total, 4> out;
  for (const auto& layer : layers) {
    for (std::size_t d = 0; d < 3; ++d) {
      if (!layer.has(d) || (measured && layer.ms[d] <= 0)) continue;
      out[d].add(layer, d, yardstick);
      out[3].add(layer, d, yardstick);
    }
  }
  return out;
}

/// Directions of layers without a measurement, and of all.
std::pair<std::int64_t, std::int64_t> missing(const std::vector<ConvLayer>& layers) {
  std::int64_t none = 0, all = 0;
  for (const auto& layer : layers) {
    for (std::size_t d = 0; d < 3; ++d) {
      if (!layer.has(d)) continue;
      ++all;
      if (layer.ms[d] <= 0) ++none;
    }
  }
  return {none, all};
}

std::string precision_of(const ConvOptions& o) {
  return o.precision + (o.tf32 ? " (TF32)" : "");
}

std::string heading_line(const ConvOptions& o, const ConvResult& result) {
  return fmt::format("{}, {}, size {}, batch {} a rank, ranks {}", o.model.preset, precision_of(o),
                     fmt::join(o.sizes, ", "), fmt::join(o.batches, ", "), result.ranks);
}

void print_plan(const ConvOptions& options, const ConvResult& result) {
  const auto& yardstick = result.yardstick;
  fmt::print("{}; nothing measured: {}, {:.4g} TFLOP/s and {:.4g} TB/s, which meet at {:.0f} FLOP/byte\n",
             heading_line(options, result), yardstick.source, yardstick.flop_per_s * 1e-12,
             yardstick.bytes_per_s * 1e-12, yardstick.flop_per_s / yardstick.bytes_per_s);
  fmt::print("ms of all calls in all three directions; plan: by the machine file's rates\n");
  fmt::print("{:<36}{:>9}{:>7}{:>9}{:>8}{:>11}{:>8}{:>9}{:>9}{:>8}\n", "convolution", "at", "times", "TFLOP", "GB",
             "FLOP/byte", "bound", "roof ms", "plan ms", "share");
  const auto line = [&](const std::string& name, const std::string& at, std::int64_t times, const char* bound,
                        const Total& sum) {
    fmt::print("{:<36}{:>9}{:>7}{:>9.3f}{:>8.2f}{:>11.0f}{:>8}{:>9.3f}{:>9.3f}{:>8.3f}\n", name, at, times,
               1e-12 * sum.flops, 1e-9 * sum.bytes, sum.flops / sum.bytes, bound, sum.roof_ms, sum.planned_ms,
               1e3 * sum.flops / sum.planned_ms / yardstick.flop_per_s);
  };
  for (const auto& layer : result.layers) {
    const auto& forward = layer.work[0];
    const bool arithmetic = forward.flops / yardstick.flop_per_s > forward.bytes / yardstick.bytes_per_s;
    line(layer.name(), fmt::format("{0}x{0}", layer.shape.h), layer.count, arithmetic ? "peak" : "memory",
         totals({layer}, yardstick, false)[3]);
  }
  const auto sums = totals(result.layers, yardstick, false);
  constexpr const char* names[] = {"all forward", "all to data", "all to weights", "all"};
  for (std::size_t d = 0; d < 4; ++d) line(names[d], "", 0, "", sums[d]);
}

}  // namespace

double ConvLayer::roof_ms(std::size_t direction, const Yardstick& yardstick) const {
  const auto& w = work[direction];
  double s = 0;
  if (yardstick.flop_per_s > 0) s = w.flops / yardstick.flop_per_s;
  if (yardstick.bytes_per_s > 0) s = std::max(s, w.bytes / yardstick.bytes_per_s);
  return 1e3 * s;
}

std::string ConvLayer::name() const {
  const auto& s = shape;
  return fmt::format("{}x{} {} -> {}{}{}", s.kernel, s.kernel, s.c_in, s.c_out,
                     s.stride > 1 ? fmt::format(" /{}", s.stride) : "",
                     s.groups > 1 ? fmt::format(" in {} groups", s.groups) : "");
}

void print_progress(const ConvLayer& layer, double seconds) {
  std::string line = fmt::format("{} at {}x{}, {} images:", layer.name(), layer.shape.h, layer.shape.w, layer.shape.n);
  for (std::size_t d = 0; d < 3; ++d)
    if (layer.ms[d] > 0) line += fmt::format(" {} {:.3f} ms,", kDirections[d], layer.ms[d]);
  fmt::print(stderr, "{} after {:.0f} s\n", line, seconds);
}

void print_conv_table(const ConvOptions& options, const ConvResult& result) {
  if (options.plan) return print_plan(options, result);
  // A device is thousands of times faster than a core.
  const double unit = options.device ? 1e12 : 1e9;
  const char* unit_name = options.device ? "TFLOP/s" : "GFLOP/s";
  const auto& yardstick = result.yardstick;
  const bool roof = yardstick.bytes_per_s > 0;
  fmt::print("{}, {}{}; {} {:.1f} {}", heading_line(options, result),
             options.device ? "" : fmt::format("threads {}, ", device::threads()), result.library, yardstick.source,
             yardstick.flop_per_s / unit, unit_name);
  if (roof) fmt::print(", memory {:.0f} GB/s", yardstick.bytes_per_s * 1e-9);
  if (!result.where.empty()) fmt::print("\non {}", result.where);
  fmt::print("\nshare: of that rate; {}best of {} calls, of the slowest rank\n",
             roof ? "roof: of what rate and memory allow; " : "", options.repeat);
  fmt::print("{:<32}{:>9}{:>7}", "convolution", "at", "times");
  for (const char* name : kDirections) {
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
  for (const auto& layer : result.layers) {
    fmt::print("{:<32}{:>9}{:>7}", layer.name(), fmt::format("{0}x{0}", layer.shape.h), layer.count);
    for (std::size_t d = 0; d < 3; ++d)
      cells(layer.ms[d], layer.work[d].flops, layer.work[d].bytes, layer.roof_ms(d, yardstick));
    fmt::print("\n");
  }
  const auto sums = totals(result.layers, yardstick, true);
  fmt::print("{:<48}", "total");
  for (std::size_t d = 0; d < 3; ++d) cells(sums[d].ms, sums[d].flops, sums[d].bytes, sums[d].roof_ms);
  if (const auto [none, all] = missing(result.layers); none > 0)
    fmt::print("\nnot measured within {:g} s, and not in the total: {} of {}", options.limit_seconds, none, all);
  const double rate = sums[3].ms > 0 ? 1e3 * sums[3].flops / sums[3].ms : 0;
  fmt::print("\nall three: {:.1f} ms, {:.1f} {}, share {:.2f}", sums[3].ms, rate / unit, unit_name,
             rate / yardstick.flop_per_s);
  if (roof && sums[3].ms > 0) fmt::print(", roof {:.2f}", sums[3].roof_ms / sums[3].ms);
  fmt::print("\n");
}

void print_conv_json(const ConvOptions& options, const ConvResult& result) {
  const auto& yardstick = result.yardstick;
  nlohmann::json out = {{"bench", "conv"},
                        {"preset", options.model.preset},
                        {"precision", precision_of(options)},
                        {"sizes", options.sizes},
                        {"batches", options.batches},
                        {"ranks", result.ranks},
                        {"threads", device::threads()},
                        {"library", result.library},
                        {"device", options.device},
                        {"where", result.where},
                        {"yardstick", yardstick.source},
                        {"peak_gflop_per_s", 1e-9 * yardstick.flop_per_s},
                        {"peak_gb_per_s", 1e-9 * yardstick.bytes_per_s},
                        {"repeat", options.repeat},
                        {"not_measured", options.plan ? 0 : missing(result.layers).first},
                        {"layers", nlohmann::json::array()}};
  for (const auto& layer : result.layers) {
    const auto& s = layer.shape;
    auto& row = out["layers"].emplace_back(nlohmann::json{{"name", layer.name()},
                                                          {"count", layer.count},
                                                          {"crop", layer.crop},
                                                          {"images", s.n},
                                                          {"height", s.h},
                                                          {"channels_in", s.c_in},
                                                          {"channels_out", s.c_out},
                                                          {"kernel", s.kernel},
                                                          {"stride", s.stride},
                                                          {"groups", s.groups},
                                                          {"gflop", 1e-9 * layer.work[0].flops}});
    for (std::size_t d = 0; d < 3; ++d) {
      if (!layer.has(d)) continue;
      const std::string name = plan::name_of(static_cast<device::Work::Direction>(d));
      row[name + "_bytes"] = layer.work[d].bytes;
      row[name + "_roof_ms"] = layer.roof_ms(d, yardstick);
      if (layer.planned_ms[d] > 0) row[name + "_planned_ms"] = layer.planned_ms[d];
      if (layer.ms[d] <= 0) continue;
      const double flop_per_s = 1e3 * layer.work[d].flops / layer.ms[d];
      row[name + "_ms"] = layer.ms[d];
      row[name + "_gflop_per_s"] = 1e-9 * flop_per_s;
      row[name + "_gb_per_s"] = 1e-9 * (1e3 * layer.work[d].bytes / layer.ms[d]);
      row[name + "_share"] = flop_per_s / yardstick.flop_per_s;
    }
  }
  const auto sums = totals(result.layers, yardstick, !options.plan);
  for (std::size_t d = 0; d < 4; ++d) {
    const std::string name = d < 3 ? plan::name_of(static_cast<device::Work::Direction>(d)) : "all";
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
