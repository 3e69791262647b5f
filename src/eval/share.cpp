// SPDX-License-Identifier: Apache-2.0
#include "share.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace seer::eval {

using nlohmann::json;

std::string architecture_text(const config::Model& model, const config::Head& head) {
  json out;
  config::visit_architecture(model, head, [&](const char* name, const auto& value) { out[name] = value; });
  return out.dump();
}

std::pair<config::Model, config::Head> parse_architecture(const std::string& text) {
  const auto in = json::parse(text);
  std::pair<config::Model, config::Head> out;
  config::visit_architecture(out.first, out.second, [&](const char* name, auto& value) { in.at(name).get_to(value); });
  return out;
}

void broadcast_block(const comm::Communicator& comm, void* data, std::size_t bytes) {
  constexpr std::size_t kPiece = std::size_t{1} << 28;
  for (std::size_t begin = 0; begin < bytes; begin += kPiece) {
    comm.broadcast(static_cast<char*>(data) + begin, std::min(kPiece, bytes - begin));
  }
}

}  // namespace seer::eval
