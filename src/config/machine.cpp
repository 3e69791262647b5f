// SPDX-License-Identifier: Apache-2.0
#include "seer/config/machine.hpp"

#include <fmt/format.h>

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <sstream>

#include "seer/base/error.hpp"
#include "seer/base/utf8.hpp"

namespace seer::config {
namespace {

struct Key {
  const char* section;  ///< "" : top level
  const char* name;
  double* value;
  double lowest = 0, highest = 1e30;
  bool needed = true;
};

constexpr double kMostBytes = 1e18;  // byte counts are converted to integers

/// Every number of a machine, in the order of the file.
std::vector<Key> keys_of(Machine& m) {
  return {{"memory", "rank_bytes", &m.rank_bytes, 1, kMostBytes},
          {"memory", "reserved_bytes", &m.reserved_bytes, 0, kMostBytes},
          {"memory", "bytes_per_s", &m.bytes_per_s, 1},
          {"memory", "efficiency", &m.efficiency, 1e-3, 2},
          {"memory", "cache_bytes", &m.cache_bytes, 0, kMostBytes, false},
          {"memory", "cache_speedup", &m.cache_speedup, 0.1, 1000, false},
          {"memory", "half_speedup", &m.half_speedup, 0.01, 100, false},
          {"memory", "launch_s", &m.launch_s, 0, 1},
          {"memory", "host_link_bytes_per_s", &m.host_link_bytes_per_s, 1, 1e30, false},
          {"peak", "fp32", &m.fp32, 1},
          {"peak", "bf16", &m.bf16, 1},
          {"peak", "fp16_o1", &m.fp16_o1, 1},
          {"network.node", "latency_s", &m.node.latency_s, 0, 1},
          {"network.node", "bytes_per_s", &m.node.bytes_per_s, 1},
          {"network.cluster", "latency_s", &m.cluster.latency_s, 0, 1},
          {"network.cluster", "bytes_per_s", &m.cluster.bytes_per_s, 1},
          {"network", "overlap", &m.overlap, 0, 1, false},
          {"network", "reduce_scatter_speedup", &m.reduce_scatter_speedup, 0.01, 100, false},
          {"network", "straggle", &m.straggle, 0, 100, false},
          {"network", "meeting_s", &m.meeting_s, 0, 1, false},
          {"storage", "read_bytes_per_s", &m.read_bytes_per_s, 1},
          {"storage", "write_bytes_per_s", &m.write_bytes_per_s, 1},
          {"data", "decode_pixels_per_s", &m.decode_pixels_per_s, 1},
          {"data", "crop_pixels_per_s", &m.crop_pixels_per_s, 1},
          {"data", "mean_image_pixels", &m.mean_image_pixels, 1},
          {"data", "mean_image_bytes", &m.mean_image_bytes, 1, kMostBytes},
          {"data", "reader_cores", &m.reader_cores, 0, 1e6, false},
          {"data", "measured", &m.data_measured, 0, 1, false},
          {"failures", "per_node_per_day", &m.failures_per_node_per_day, 0, 1000}};
}

std::string path_of(const char* section, const char* name) {
  return *section == 0 ? name : fmt::format("{}.{}", section, name);
}

class Reader {
 public:
  Reader(const toml::table& root, std::string file) : root_(root), file_(std::move(file)) {}

  void number(const toml::table& table, const char* name, const std::string& path, double& value, double lowest,
              double highest, bool needed) {
    known_.push_back(path);
    const auto* node = table.get(name);
    if (node == nullptr) {
      if (needed) complain(0, fmt::format("{} is missing", path));
      return;
    }
    const auto found = node->value<double>();
    if (!found || !(*found >= lowest && *found <= highest)) {
      complain(node->source().begin.line, fmt::format("{}: wanted a number from {:g} to {:g}", path, lowest, highest));
      return;
    }
    value = *found;
  }

  void count(const toml::table& table, const char* name, std::int64_t& value) {
    constexpr double kMost = 1e6;
    double found = 1;
    number(table, name, name, found, 1, kMost, true);
    value = static_cast<std::int64_t>(found);
    if (found == std::floor(found)) return;
    complain(table.get(name)->source().begin.line,
             fmt::format("{}: wanted a whole number from 1 to {:g}", name, kMost));
  }

  void text(const toml::table& table, const char* name, const std::string& path, std::string& value,
            const std::vector<std::string>& allowed, bool needed) {
    known_.push_back(path);
    const auto* node = table.get(name);
    if (node == nullptr) {
      if (needed) complain(0, fmt::format("{} is missing", path));
      return;
    }
    const auto found = node->value<std::string>();
    if (!found || (!allowed.empty() && std::find(allowed.begin(), allowed.end(), *found) == allowed.end())) {
      complain(node->source().begin.line,
               fmt::format("{}: wanted {}", path,
                           allowed.empty() ? "a text" : "one of " + fmt::format("{}", fmt::join(allowed, ", "))));
      return;
    }
    value = *found;
  }

  const toml::table& section(const std::string& path) {
    const toml::table* at = &root_;
    std::istringstream parts(path);
    static const toml::table kEmpty;
    for (std::string part; std::getline(parts, part, '.');) {
      known_.push_back(part);
      const auto* next = at->get(part);
      if (next == nullptr || next->as_table() == nullptr) return kEmpty;
      at = next->as_table();
    }
    return *at;
  }

  void known(const std::string& path) { known_.push_back(path); }
  void unknown_keys(const toml::table& table, const std::string& prefix) {
    for (const auto& [key, node] : table) {
      const std::string path = prefix.empty() ? std::string(key.str()) : prefix + "." + std::string(key.str());
      if (const auto* inner = node.as_table()) {
        unknown_keys(*inner, path);
      } else if (std::find(known_.begin(), known_.end(), path) == known_.end()) {
        complain(key.source().begin.line, fmt::format("{} is not known", path));
      }
    }
  }

  void complain(std::size_t line, const std::string& what) {
    errors_.push_back(line == 0 ? fmt::format("{}: {}", file_, what) : fmt::format("{}:{}: {}", file_, line, what));
  }
  void finish() const {
    if (errors_.empty()) return;
    throw Error(ExitCode::input, fmt::format("{}", fmt::join(errors_, "\n")),
                "inputs/machines/ has complete machine files; `seer plan --calibrate FILE` writes one");
  }

 private:
  const toml::table& root_;
  std::string file_;
  std::vector<std::string> known_, errors_;
};

void read_rates(Reader& reader, const toml::table& root, Machine& machine) {
  reader.known("rates");
  const auto* node = root.get("rates");
  const auto* list = node == nullptr ? nullptr : node->as_array();
  if (list == nullptr || list->empty()) {
    reader.complain(0, "no [[rates]]: wanted the achieved share of the peak for pointwise, grouped, dense and gemm");
    return;
  }
  for (const auto& entry : *list) {
    const auto* table = entry.as_table();
    if (table == nullptr) {
      reader.complain(entry.source().begin.line, "rates: wanted tables, [[rates]]");
      continue;
    }
    MachineRate rate;
    reader.text(*table, "kind", "rates.kind", rate.kind, {"pointwise", "grouped", "dense", "gemm"}, true);
    reader.text(*table, "precision", "rates.precision", rate.precision, {"fp32", "bf16", "fp16_o1"}, true);
    reader.number(*table, "width", "rates.width", rate.width, 1, 1e6, true);
    reader.number(*table, "forward", "rates.forward", rate.forward, 1e-6, 2, true);
    reader.number(*table, "backward_data", "rates.backward_data", rate.backward_data, 1e-6, 2, true);
    reader.number(*table, "backward_weights", "rates.backward_weights", rate.backward_weights, 1e-6, 2, true);
    reader.unknown_keys(*table, "rates");
    machine.rates.push_back(rate);
  }
}

}  // namespace

double Machine::peak(const std::string& precision) const {
  return precision == "bf16" ? bf16 : precision == "fp16_o1" ? fp16_o1 : fp32;
}

Machine load_machine(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    throw Error(ExitCode::input, fmt::format("cannot read the machine file {}", path),
                "give one of inputs/machines/*.toml, or write one with `seer plan --calibrate FILE`");
  }
  std::ostringstream content;
  content << file.rdbuf();
  std::string text = content.str();
  if (const auto wrong = remove_byte_order_mark(text); !wrong.empty()) {
    throw Error(ExitCode::input, fmt::format("{}: {}", path, wrong));
  }
  toml::table root;
  try {
    root = toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    throw Error(ExitCode::input, fmt::format("{}:{}: {}", path, error.source().begin.line, error.description()), "");
  }
  Machine machine;
  Reader reader(root, path);
  reader.text(root, "name", "name", machine.name, {}, true);
  reader.text(root, "backend", "backend", machine.backend, {"host", "device"}, false);
  reader.text(root, "processor", "processor", machine.processor, {}, false);
  reader.count(root, "ranks_per_node", machine.ranks_per_node);
  reader.count(root, "cores_per_rank", machine.cores_per_rank);
  for (const auto& key : keys_of(machine)) {
    reader.number(reader.section(key.section), key.name, path_of(key.section, key.name), *key.value, key.lowest,
                  key.highest, key.needed);
  }
  read_rates(reader, root, machine);
  reader.unknown_keys(root, "");
  reader.finish();
  return machine;
}

std::string to_toml(const Machine& machine, const std::string& comment) {
  std::string out;
  std::istringstream lines(comment);
  for (std::string line; std::getline(lines, line);) out += "# " + line + "\n";
  out += fmt::format("name = \"{}\"\nbackend = \"{}\"\nprocessor = \"{}\"\nranks_per_node = {}\ncores_per_rank = {}\n",
                     machine.name, machine.backend, machine.processor, machine.ranks_per_node, machine.cores_per_rank);
  Machine copy = machine;
  std::string section;
  for (const auto& key : keys_of(copy)) {
    if (section != key.section) {
      section = key.section;
      out += fmt::format("[{}]\n", section);
    }
    out += fmt::format("{} = {:.6g}\n", key.name, *key.value);
  }
  for (const auto& rate : machine.rates) {
    out += fmt::format(
        "[[rates]]\nkind = \"{}\"\nprecision = \"{}\"\nwidth = {}\nforward = {:.4f}\nbackward_data = {:.4f}\n"
        "backward_weights = {:.4f}\n",
        rate.kind, rate.precision, rate.width, rate.forward, rate.backward_data, rate.backward_weights);
  }
  return out;
}

}  // namespace seer::config
