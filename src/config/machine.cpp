// SPDX-License-Identifier: Apache-2.0
#include "seer/config/machine.hpp"

#include <cmath>
#include <sstream>

#include "schema.hpp"
#include "toml_file.hpp"

namespace seer::config {
namespace {

struct Number {
  const char* path;
  double* value;
  double lowest = 0, highest = 1e30;
  bool needed = true;
};

constexpr double kMostBytes = 1e18;  // byte counts are converted to integers

/// Every number of a machine, in the order of the file.
std::vector<Number> numbers_of(Machine& m) {
  return {{"memory.rank_bytes", &m.rank_bytes, 1, kMostBytes},
          {"memory.reserved_bytes", &m.reserved_bytes, 0, kMostBytes},
          {"memory.bytes_per_s", &m.bytes_per_s, 1},
          {"memory.efficiency", &m.efficiency, 1e-3, 2},
          {"memory.cache_bytes", &m.cache_bytes, 0, kMostBytes, false},
          {"memory.cache_speedup", &m.cache_speedup, 0.1, 1000, false},
          {"memory.half_speedup", &m.half_speedup, 0.01, 100, false},
          {"memory.launch_s", &m.launch_s, 0, 1},
          {"memory.host_link_bytes_per_s", &m.host_link_bytes_per_s, 1, 1e30, false},
          {"threads.lost", &m.threads_lost, 0, 1, false},
          {"threads.passes_lost", &m.passes_lost, 0, 1, false},
          {"peak.fp32", &m.fp32, 1},
          {"peak.bf16", &m.bf16, 1},
          {"peak.fp16_o1", &m.fp16_o1, 1},
          {"network.node.latency_s", &m.node.latency_s, 0, 1},
          {"network.node.bytes_per_s", &m.node.bytes_per_s, 1},
          {"network.cluster.latency_s", &m.cluster.latency_s, 0, 1},
          {"network.cluster.bytes_per_s", &m.cluster.bytes_per_s, 1},
          {"network.overlap", &m.overlap, 0, 1, false},
          {"network.reduce_scatter_speedup", &m.reduce_scatter_speedup, 0.01, 100, false},
          {"network.straggle", &m.straggle, 0, 100, false},
          {"network.meeting_s", &m.meeting_s, 0, 1, false},
          {"storage.read_bytes_per_s", &m.read_bytes_per_s, 1},
          {"storage.write_bytes_per_s", &m.write_bytes_per_s, 1},
          {"data.decode_pixels_per_s", &m.decode_pixels_per_s, 1},
          {"data.crop_pixels_per_s", &m.crop_pixels_per_s, 1},
          {"data.mean_image_pixels", &m.mean_image_pixels, 1},
          {"data.mean_image_bytes", &m.mean_image_bytes, 1, kMostBytes},
          {"data.reader_cores", &m.reader_cores, 0, 1e6, false},
          {"data.measured", &m.data_measured, 0, 1, false},
          {"failures.per_node_per_day", &m.failures_per_node_per_day, 0, 1000}};
}

/// Reads keys of one table, and knows afterwards which nobody has read. In messages, paths begin with `prefix`.
class Reader {
 public:
  Reader(const toml::table& table, std::string file, std::string prefix, std::vector<std::string>& errors)
      : table_(table), file_(std::move(file)), prefix_(std::move(prefix)), errors_(errors) {}

  void number(const std::string& path, double& value, double lowest, double highest, bool needed = true) {
    read<double>(path, value, needed, fmt::format("a number from {:g} to {:g}", lowest, highest),
                 [&](double found) { return found >= lowest && found <= highest; });
  }
  void count(const std::string& path, std::int64_t& value) {
    constexpr double kMost = 1e6;
    double found = 1;
    read<double>(path, found, true, fmt::format("a whole number from 1 to {:g}", kMost),
                 [&](double x) { return x >= 1 && x <= kMost && x == std::floor(x); });
    value = static_cast<std::int64_t>(found);
  }
  void text(const std::string& path, std::string& value, const std::vector<std::string>& allowed, bool needed = true) {
    read<std::string>(path, value, needed,
                      allowed.empty() ? "a text" : fmt::format("one of {}", fmt::join(allowed, ", ")),
                      [&](const std::string& found) { return allowed.empty() || contains(allowed, found); });
  }

  void known(const std::string& path) { known_.push_back(path); }
  void refuse_others() { refuse_others(table_, ""); }

  void complain(const toml::node* node, const std::string& what) {
    errors_.push_back(node == nullptr ? fmt::format("{}: {}", file_, what)
                                      : fmt::format("{}:{}: {}", file_, node->source().begin.line, what));
  }

 private:
  template <class T>
  void read(const std::string& path, T& value, bool needed, const std::string& wanted, const auto& good) {
    known(path);
    const auto* node = table_.at_path(path).node();
    const auto found = node == nullptr ? std::nullopt : node->template value<T>();
    if (found && good(*found))
      value = *found;
    else if (node != nullptr)
      complain(node, fmt::format("{}{}: wanted {}", prefix_, path, wanted));
    else if (needed)
      complain(nullptr, fmt::format("{}{} is missing", prefix_, path));
  }
  void refuse_others(const toml::table& table, const std::string& parent) {
    for (const auto& [key, node] : table) {
      const auto path = parent + std::string(key.str());
      if (const auto* inner = node.as_table())
        refuse_others(*inner, path + ".");
      else if (!contains(known_, path))
        complain(&node, fmt::format("{}{} is not known", prefix_, path));
    }
  }

  const toml::table& table_;
  std::string file_, prefix_;
  std::vector<std::string>& errors_;
  std::vector<std::string> known_;
};

}  // namespace

Machine load_machine(const std::string& path) {
  const auto content = read_file(path);
  if (!content) {
    throw Error(ExitCode::input, fmt::format("cannot read the machine file {}", path),
                "give one of inputs/machines/*.toml, or write one with `seer plan --calibrate FILE`");
  }
  const auto root = parse_toml(*content, path);
  Machine machine;
  std::vector<std::string> errors;
  Reader reader(root, path, "", errors);
  reader.text("name", machine.name, {});
  reader.text("backend", machine.backend, {"host", "device"}, false);
  reader.text("processor", machine.processor, {}, false);
  reader.count("ranks_per_node", machine.ranks_per_node);
  reader.count("cores_per_rank", machine.cores_per_rank);
  for (const auto& n : numbers_of(machine)) reader.number(n.path, *n.value, n.lowest, n.highest, n.needed);
  reader.known("rates");
  const auto* list = root["rates"].as_array();
  if (list == nullptr || list->empty()) {
    reader.complain(
        nullptr,
        "[[rates]] are missing: wanted the achieved fraction of the peak for pointwise, grouped, dense and gemm");
    list = nullptr;
  }
  for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const auto& entry = (*list)[i];
    if (!entry.is_table()) {
      reader.complain(&entry, "rates: wanted tables, [[rates]]");
      continue;
    }
    auto& rate = machine.rates.emplace_back();
    Reader row(*entry.as_table(), path, "rates.", errors);
    row.text("kind", rate.kind, {"pointwise", "grouped", "dense", "gemm"});
    row.text("precision", rate.precision, {"fp32", "bf16", "fp16_o1"});
    row.number("width", rate.width, 1, 1e6);
    row.number("forward", rate.forward, 1e-6, 2);
    row.number("backward_data", rate.backward_data, 1e-6, 2);
    row.number("backward_weights", rate.backward_weights, 1e-6, 2);
    row.refuse_others();
  }
  reader.refuse_others();
  if (!errors.empty()) {
    throw Error(ExitCode::input, fmt::format("{}", fmt::join(errors, "\n")),
                "inputs/machines/ has complete machine files; `seer plan --calibrate FILE` writes one");
  }
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
  for (const auto& number : numbers_of(copy)) {
    const std::string path = number.path;
    const auto dot = path.rfind('.');
    if (section != path.substr(0, dot)) {
      section = path.substr(0, dot);
      out += fmt::format("[{}]\n", section);
    }
    out += fmt::format("{} = {:.6g}\n", path.substr(dot + 1), *number.value);
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
