// SPDX-License-Identifier: Apache-2.0
// The work of an update compared with the roof given by a machine's peak and memory rate.
#include <fmt/format.h>

#include <algorithm>

#include "seer/plan/plan.hpp"

namespace seer::plan {
namespace {

const char* name_of(device::Work::Direction direction) {
  constexpr const char* names[] = {"forward", "to data", "to weights"};
  return names[static_cast<std::size_t>(direction)];
}

bool is_product(const Simulation::KindTotals& k) {
  return k.kind != device::Work::Kind::stream;
}

std::string line(const Simulation::KindTotals& k, const std::string& name, double peak, double bytes_per_s) {
  const double intensity = k.bytes > 0 ? k.flops / k.bytes : 0;
  return fmt::format("  {:<32}{:>7.0f}{:>10.3f}{:>9.2f}{:>11.1f}{:>9}{:>9.2f}{:>10.2f}{:>9}\n", name, k.calls,
                     1e-12 * k.flops, 1e-9 * k.bytes, intensity, intensity * bytes_per_s > peak ? "peak" : "memory",
                     1e3 * k.roof_s, 1e3 * k.seconds,
                     k.flops > 0 ? fmt::format("{:.3f}", k.flops / k.seconds / peak) : "-");
}

void add(Simulation::KindTotals& sum, const Simulation::KindTotals& k) {
  sum.calls += k.calls, sum.flops += k.flops, sum.bytes += k.bytes;
  sum.seconds += k.seconds, sum.roof_s += k.roof_s;
}

const char* precision_of(DType type) {
  return type == DType::bf16 ? "bf16" : type == DType::f16 ? "fp16_o1" : type == DType::u8 ? "bytes" : "fp32";
}

}  // namespace

std::string to_roofline(const Report& r, const config::Config& config, const config::Machine& machine, double target) {
  const double peak = machine.peak(config.precision.compute);
  auto text = fmt::format(
      "work of an update; the roof: {:.4g} TFLOP/s of {}, {:.4g} TB/s, which meet at {:.0f} FLOP/byte; replays "
      "counted\n"
      "  {:<32}{:>7}{:>10}{:>9}{:>11}{:>9}{:>9}{:>10}{:>9}\n",
      1e-12 * peak, config.precision.compute, 1e-12 * machine.bytes_per_s, peak / machine.bytes_per_s, "kind", "calls",
      "TFLOP", "GB", "FLOP/byte", "bound", "roof ms", "plan ms", "of peak");
  Simulation::KindTotals products, streams;
  auto sorted = r.by_kind;
  std::ranges::sort(sorted, [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  for (const auto& k : sorted) {
    add(is_product(k) ? products : streams, k);
    const auto name = is_product(k) ? fmt::format("{} {}", plan::name_of(k.kind), name_of(k.direction))
                                    : std::string("passes over memory");
    // Products are compared with the peak of their own precision.
    text += line(k, fmt::format("{}, {}", name, precision_of(k.dtype)),
                 is_product(k) ? machine.peak(precision_of(k.dtype)) : peak, machine.bytes_per_s);
  }
  text += line(products, "all products", peak, machine.bytes_per_s);
  text += line(streams, "all passes over memory", peak, machine.bytes_per_s);
  const double roof_s = products.roof_s + streams.roof_s;
  text += fmt::format("  an update at the roof: {:.2f} ms, {:.1f} % of the peak; planned: {:.2f} ms, {:.1f} %\n",
                      1e3 * roof_s, 100 * r.model_flops / roof_s / peak, 1e3 * r.step_s, 100 * r.peak_share);
  // The target leaves target_s for an update; all but products take rest_s of it. Replayed work counts as work.
  const double target_s = r.model_flops / (target * peak), rest_s = r.step_s - r.product_s;
  text += fmt::format("  {:.0f} % of the peak: {:.2f} ms an update; ", 100 * target, 1e3 * target_s);
  if (rest_s >= target_s) {
    return text +
           fmt::format("all but products is planned to take {:.2f} ms: no product is fast enough\n", 1e3 * rest_s);
  }
  const double needed = products.flops / (target_s - rest_s) / peak, at_roof = products.flops / products.roof_s / peak;
  return text +
         fmt::format(
             "less {:.2f} ms for all but products leaves {:.2f}: products at {:.3f} of the peak (planned {:.3f}, "
             "at the roof {:.3f})\n",
             1e3 * rest_s, 1e3 * (target_s - rest_s), needed, products.flops / r.product_s / peak, at_roof);
}

}  // namespace seer::plan
