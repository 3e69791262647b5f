// SPDX-License-Identifier: Apache-2.0
// Prints a plan as text and as JSON, and its work beside the roof given by the machine's peak and memory rate.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <tuple>

#include "seer/base/clock.hpp"
#include "seer/plan/plan.hpp"

namespace seer::plan {
namespace {

double gib(double bytes) {
  return bytes / (1 << 30);
}

/// For people: at least two digits, no exponents.
std::string rounded(double value) {
  if (value > 0 && value < 1e-3) return "under 0.001";
  return value < 10 ? fmt::format("{:.2g}", value) : fmt::format("{:.0f}", value);
}
std::string counted(std::int64_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}
std::string bytes_text(double bytes) {
  return bytes < 1 << 30 ? rounded(bytes / (1 << 20)) + " MiB" : fmt::format("{:.2f} GiB", gib(bytes));
}

/// Whole numbers as integers.
nlohmann::json number(double value) {
  if (value == std::floor(value)) return static_cast<std::int64_t>(value);
  return value;
}

std::string memory_table(const Report& r) {
  auto text = fmt::format("memory of a rank{:>22}\n", "GiB");
  for (const auto& [name, bytes] : train::rows(r.memory.footprint))
    if (bytes > 0) text += fmt::format("  {:<24}{:>12.3f}\n", name, gib(static_cast<double>(bytes)));
  text +=
      fmt::format("  {:<24}{:>12.3f}  of {:.3f}: {}\n", "peak", gib(static_cast<double>(r.memory.footprint.total())),
                  gib(static_cast<double>(r.budget_bytes)), r.fits ? "fits" : "DOES NOT FIT");
  const auto of = [&](nn::Keep keep) {
    std::ptrdiff_t count = 0;
    for (const auto& row : r.memory.keep) count += std::ranges::count(row, keep);
    return count;
  };
  text += fmt::format("  recomputed: nothing in {}, cheap passes in {}, all in {} segments and resolutions\n",
                      of(nn::Keep::all), of(nn::Keep::convolutions), of(nn::Keep::input));
  for (const auto& line : r.suggestions) text += "  would fit: " + line + "\n";
  return text;
}

std::string traffic_table(const Report& r) {
  if (r.traffic.empty()) return "";
  auto text = fmt::format("collectives of an update\n  {:<12}{:<16}{:>7}{:>8}{:>16}{:>12}\n", "of", "kind", "ranks",
                          "calls", "bytes", "ms");
  for (const auto& t : r.traffic) {
    text += fmt::format("  {:<12}{:<16}{:>7}{:>8.6g}{:>16.0f}{:>12.3f}\n", t.name, name_of(t.kind), t.ranks, t.calls,
                        t.bytes, 1e3 * t.seconds);
  }
  return text;
}

/// What limits the update, and what would have to be faster.
std::string limit_text(const Report& r, const config::Machine& machine) {
  if (r.data_wait_s == 0) return fmt::format("{} ({:.0f} % of the update)", r.limit, 100 * r.limit_s / r.step_s);
  const char* who = machine.backend == "host" ? "ranks" : "devices";
  const double nodes = static_cast<double>(r.nodes), wanted = r.loader.wanted_images_per_s;
  if (r.loader.reading) {
    return fmt::format("data loading: the file system gives {} images/s, the {} could use {}",
                       rounded(r.loader.images_per_s), who, rounded(wanted));
  }
  return fmt::format("data loading: the {} cores of a node decode{} {} images/s, its {} could use {}",
                     rounded(r.loader.cores_of_node), machine.backend == "host" ? " and cut" : "",
                     rounded(r.loader.images_per_s / nodes), who, rounded(wanted / nodes));
}

std::string time_table(const Report& r, const config::Machine& machine) {
  auto text = fmt::format("time of an update{:>24}{:>10}\n", "ms", "share");
  const auto row = [&](const char* name, double s) {
    text += fmt::format("  {:<28}{:>11.2f}{:>8.1f} %\n", name, 1e3 * s, 100 * s / r.step_s);
  };
  row("convolutions and products", r.product_s);
  row("memory-bound kernels", r.stream_s);
  row("communication, exposed", r.exposed_s);
  row("waiting for slower ranks", r.straggle_s);
  if (r.making_s > 0) row("making images, same cores", r.making_s);
  row("waiting for data", r.data_wait_s);
  row("update", r.step_s);
  text += fmt::format("  limited by: {}\n  communication hidden behind these: {:.2f} ms\n", limit_text(r, machine),
                      1e3 * r.hidden_s);
  text += "  by phase, ms:";
  for (std::size_t p = 0; p < train::kPhases; ++p) {
    const double ms = r.phases.per_update_ms(static_cast<train::Phase>(p));
    if (ms > 0) text += fmt::format(" {} {:.2f}", train::name_of(static_cast<train::Phase>(p)), ms);
  }
  return text + "\n";
}

std::string length(const Report& r, const config::Config& config) {
  if (r.updates == 0) return fmt::format("{} epochs of an unknown number of images (--images)", config.schedule.epochs);
  return fmt::format("{} updates of {} images: {}, {} node-hours", r.updates, config.data.global_batch,
                     duration_text(86400 * r.days), rounded(r.node_hours));
}

std::string every(double interval_s, const Report& r) {
  return fmt::format("every {} ({})", duration_text(interval_s),
                     counted(std::llround(std::max(1.0, interval_s / r.step_s)), "update"));
}

std::string checkpoints(const Report& r) {
  auto text = fmt::format("  a checkpoint has {} and takes {} to write; training stops for {}\n",
                          bytes_text(r.checkpoint_bytes), duration_text(r.checkpoint_s), duration_text(r.stall_s));
  if (r.interval_s == 0) return text;
  // An interval longer than the run makes no sense.
  const double run_s = r.updates > 0 ? static_cast<double>(r.updates) * r.step_s : HUGE_VAL;
  if (r.interval_s >= run_s) return text + "  failures are so rare that a checkpoint at the end of the run is enough\n";
  text += fmt::format("  best saved {} (Young/Daly): checkpoints and failures take {} % of the time\n",
                      every(r.interval_s, r), rounded(100 * r.lost_share));
  if (r.relaxed_interval_s >= run_s)
    text += fmt::format("  one checkpoint at the end of the run loses less than {} %\n", rounded(100 * kSmallLoss));
  else if (r.relaxed_interval_s > r.interval_s)
    text += fmt::format("  {} loses {} %\n", every(r.relaxed_interval_s, r), rounded(100 * kSmallLoss));
  return text;
}

/// The fastest split that can run, and, if possible, is the same run; end() if none can.
auto best_of(const std::vector<Split>& splits) {
  const auto key = [](const Split& s) { return std::tuple(!s.refused.empty(), !s.note.empty(), s.step_s); };
  const auto best = std::ranges::min_element(splits, {}, key);
  return best == splits.end() || best->refused.empty() ? best : splits.end();
}

std::string best_split_text(const Report& r) {
  const auto best = best_of(r.splits);
  if (best == r.splits.end() || r.splits.size() < 2) return "";
  const auto text = [](const Split& s) {
    return fmt::format("{} of {} on a node, {} an update{}", counted(s.ranks_per_node, "rank"),
                       counted(s.threads, "thread"), duration_text(s.step_s),
                       s.note.empty() ? "" : " (" + s.note + ")");
  };
  auto out = "ranks and threads: best " + text(*best);
  for (const auto* other : {&r.splits.front(), &r.splits.back()})
    if (other != &*best && other->refused.empty()) out += "; " + text(*other);
  return out + "\n";
}

std::string run_table(const Report& r, const config::Config& config) {
  auto text = fmt::format(
      "the run\n  {} images/s ({} a rank), {:.1f} % of the peak of {} (replays not counted)\n"
      "  {} on {}\n"
      "  shards are read at {} MB/s\n",
      rounded(r.images_per_s), rounded(r.images_per_s / static_cast<double>(r.ranks)), 100 * r.peak_share,
      config.precision.compute, length(r, config), counted(r.nodes, "node"), rounded(r.read_bytes_per_s / 1e6));
  text += checkpoints(r) + best_split_text(r);
  for (const auto& note : r.notes) text += "note: " + note + "\n";
  return text;
}

bool is_product(const Simulation::KindTotals& k) {
  return k.kind != device::Work::Kind::stream;
}

std::string roof_row(const Simulation::KindTotals& k, const std::string& name, double peak, double bytes_per_s) {
  const double intensity = k.bytes > 0 ? k.flops / k.bytes : 0;
  return fmt::format("  {:<32}{:>7.0f}{:>10.3f}{:>9.2f}{:>11.1f}{:>9}{:>9.2f}{:>10.2f}{:>9}\n", name, k.calls,
                     1e-12 * k.flops, 1e-9 * k.bytes, intensity, intensity * bytes_per_s > peak ? "peak" : "memory",
                     1e3 * k.roof_s, 1e3 * k.seconds,
                     k.flops > 0 ? fmt::format("{:.3f}", k.flops / k.seconds / peak) : "-");
}

}  // namespace

std::string to_text(const Report& r, const config::Config& config, const config::Machine& machine) {
  return fmt::format("{} parameters on {} of {} ({}), {} a rank, {}, shard \"{}\", recompute \"{}\"\n\n", r.parameters,
                     counted(r.ranks, "rank"), machine.name, counted(r.nodes, "node"),
                     counted(r.images_per_rank, "image"), config.precision.compute, config.parallel.shard,
                     config.parallel.recompute) +
         memory_table(r) + "\n" + time_table(r, machine) + "\n" + traffic_table(r) + "\n" + run_table(r, config);
}

std::string to_splits(const Report& r) {
  auto text = fmt::format("ranks and threads of a node\n{:>8}{:>9}{:>14}{:>12}\n", "ranks", "threads", "ms an update",
                          "GiB a rank");
  for (const auto& s : r.splits) {
    text += fmt::format("{:>8}{:>9}", s.ranks_per_node, s.threads);
    if (s.step_s > 0) text += fmt::format("{:>14.2f}{:>12.3f}", 1e3 * s.step_s, gib(static_cast<double>(s.rank_bytes)));
    if (!s.refused.empty() || !s.note.empty()) text += "  " + (s.refused.empty() ? s.note : "no: " + s.refused);
    text += "\n";
  }
  return text;
}

std::string to_json(const Report& r) {
  nlohmann::json out = {{"parameters", r.parameters},
                        {"ranks", r.ranks},
                        {"nodes", r.nodes},
                        {"images_per_rank", r.images_per_rank},
                        {"fits", r.fits},
                        {"budget_bytes", r.budget_bytes},
                        {"peak_rank_bytes", r.memory.footprint.total()},
                        {"step_ms", 1e3 * r.step_s},
                        {"product_ms", 1e3 * r.product_s},
                        {"memory_bound_ms", 1e3 * r.stream_s},
                        {"exposed_communication_ms", 1e3 * r.exposed_s},
                        {"hidden_communication_ms", 1e3 * r.hidden_s},
                        {"straggle_ms", 1e3 * r.straggle_s},
                        {"data_making_ms", 1e3 * r.making_s},
                        {"data_wait_ms", 1e3 * r.data_wait_s},
                        {"flops", r.flops},
                        {"model_flops", r.model_flops},
                        {"images_per_s", r.images_per_s},
                        {"peak_share", r.peak_share},
                        {"limit", r.limit},
                        {"loader_images_per_s", r.loader.images_per_s},
                        {"notes", r.notes},
                        {"updates", r.updates},
                        {"days", r.days},
                        {"node_hours", r.node_hours},
                        {"checkpoint_bytes", r.checkpoint_bytes},
                        {"checkpoint_s", r.checkpoint_s},
                        {"checkpoint_stall_s", r.stall_s},
                        {"checkpoint_interval_s", r.interval_s},
                        {"checkpoint_relaxed_interval_s", r.relaxed_interval_s},
                        {"read_bytes_per_s", r.read_bytes_per_s},
                        {"suggestions", r.suggestions}};
  for (const auto& [name, bytes] : train::rows(r.memory.footprint)) out["memory"][name] = bytes;
  for (std::size_t p = 0; p < train::kPhases; ++p) {
    out["phases_ms"][train::name_of(static_cast<train::Phase>(p))] =
        r.phases.per_update_ms(static_cast<train::Phase>(p));
  }
  out["traffic"] = nlohmann::json::array();
  for (const auto& t : r.traffic) {
    out["traffic"].push_back({{"name", t.name},
                              {"kind", name_of(t.kind)},
                              {"group_size", t.ranks},
                              {"calls", number(t.calls)},
                              {"bytes", t.bytes},
                              {"ms", 1e3 * t.seconds}});
  }
  out["splits"] = nlohmann::json::array();
  for (const auto& s : r.splits) {
    out["splits"].push_back({{"ranks", s.ranks},
                             {"threads", s.threads},
                             {"step_ms", 1e3 * s.step_s},
                             {"peak_rank_bytes", s.rank_bytes},
                             {"refused", s.refused},
                             {"note", s.note}});
  }
  out["work"] = nlohmann::json::array();
  for (const auto& k : r.by_kind) {
    out["work"].push_back({{"kind", name_of(k.kind)},
                           {"direction", name_of(k.direction)},
                           {"bytes_per_element", dtype_bytes(k.dtype)},
                           {"calls", number(k.calls)},
                           {"flops", k.flops},
                           {"bytes", k.bytes},
                           {"ms", 1e3 * k.seconds},
                           {"roof_ms", 1e3 * k.roof_s}});
  }
  return out.dump(2);
}

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
    constexpr const char* directions[] = {"forward", "to data", "to weights"};
    const auto name = is_product(k)
                          ? fmt::format("{} {}", name_of(k.kind), directions[static_cast<std::size_t>(k.direction)])
                          : std::string("passes over memory");
    // Products are compared with the peak of their own precision.
    text += roof_row(k, fmt::format("{}, {}", name, precision_of(k.dtype)),
                     is_product(k) ? machine.peak(precision_of(k.dtype)) : peak, machine.bytes_per_s);
  }
  text += roof_row(products, "all products", peak, machine.bytes_per_s);
  text += roof_row(streams, "all passes over memory", peak, machine.bytes_per_s);
  const double roof_s = products.roof_s + streams.roof_s;
  text += fmt::format("  an update at the roof: {:.2f} ms, {:.1f} % of the peak; planned: {:.2f} ms, {:.1f} %\n",
                      1e3 * roof_s, 100 * r.model_flops / roof_s / peak, 1e3 * r.step_s, 100 * r.peak_share);
  // The target leaves target_s for an update; all but products take rest_s of it. Replayed work counts as work.
  const double target_s = r.model_flops / (target * peak), rest_s = r.step_s - r.product_s;
  text += fmt::format("  {:.0f} % of the peak: {:.2f} ms an update; ", 100 * target, 1e3 * target_s);
  if (rest_s >= target_s) {
    return text + fmt::format("everything but products takes {:.2f} ms in the plan: no product is fast enough\n",
                              1e3 * rest_s);
  }
  const double needed = products.flops / (target_s - rest_s) / peak, at_roof = products.flops / products.roof_s / peak;
  return text + fmt::format(
                    "less {:.2f} ms for everything but products leaves {:.2f}: products at {:.3f} of the peak (planned "
                    "{:.3f}, "
                    "at the roof {:.3f})\n",
                    1e3 * rest_s, 1e3 * (target_s - rest_s), needed, products.flops / r.product_s / peak, at_roof);
}

}  // namespace seer::plan
