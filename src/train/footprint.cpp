// SPDX-License-Identifier: Apache-2.0
#include "seer/train/footprint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace seer::train {

std::vector<std::pair<const char*, std::int64_t>> rows(const Footprint& f) {
  return {{"parameters", f.parameters},
          {"gradients", f.gradients},
          {"momentum", f.momentum},
          {"activations", f.activations},
          {"workspaces", f.workspaces},
          {"communication", f.communication},
          {"data", f.data},
          {"checkpoint", f.checkpoint},
          {"other", f.other}};
}

std::string to_text(const KeepTable& keep) {
  std::array<std::int64_t, 3> of{};
  for (const auto& row : keep) {
    for (const auto k : row) ++of[k == nn::Keep::all ? 0 : k == nn::Keep::convolutions ? 1 : 2];
  }
  return fmt::format("nothing in {}, cheap passes in {}, all in {} segments and resolutions", of[0], of[1], of[2]);
}

std::string to_table(const Footprint& footprint, std::int64_t peak_resident_bytes) {
  constexpr double kMiB = 1 << 20;
  std::string text = "memory of this rank, MiB";
  for (const auto& [name, bytes] : rows(footprint)) {
    if (bytes > 0) text += fmt::format("\n  {:<16}{:>10.1f}", name, static_cast<double>(bytes) / kMiB);
  }
  const auto rest = std::max<std::int64_t>(0, peak_resident_bytes - footprint.total());
  return text + fmt::format("\n  {:<16}{:>10.1f}\n  {:<16}{:>10.1f}", "libraries", static_cast<double>(rest) / kMiB,
                            "peak resident", static_cast<double>(peak_resident_bytes) / kMiB);
}

}  // namespace seer::train
