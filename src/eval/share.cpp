// SPDX-License-Identifier: Apache-2.0
#include "share.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace seer::eval {

using nlohmann::json;

std::string architecture_text(const config::Model& model, const config::Head& head) {
  return json{{"preset", model.preset},
              {"width_rule", model.width_rule},
              {"depth", model.depth},
              {"w0", model.w0},
              {"wa", model.wa},
              {"wm", model.wm},
              {"group", model.group_width},
              {"dims", head.dims},
              {"batchnorm", head.batchnorm},
              {"prototypes", head.prototypes}}
      .dump();
}

std::pair<config::Model, config::Head> parse_architecture(const std::string& text) {
  const json j = json::parse(text);
  config::Model model;
  config::Head head;
  j.at("preset").get_to(model.preset);
  j.at("width_rule").get_to(model.width_rule);
  j.at("depth").get_to(model.depth);
  j.at("w0").get_to(model.w0);
  j.at("wa").get_to(model.wa);
  j.at("wm").get_to(model.wm);
  j.at("group").get_to(model.group_width);
  j.at("dims").get_to(head.dims);
  j.at("batchnorm").get_to(head.batchnorm);
  j.at("prototypes").get_to(head.prototypes);
  return {model, head};
}

void broadcast_block(const comm::Communicator& comm, void* data, std::size_t bytes) {
  constexpr std::size_t kPiece = std::size_t{1} << 28;
  for (std::size_t begin = 0; begin < bytes; begin += kPiece) {
    comm.broadcast(static_cast<char*>(data) + begin, std::min(kPiece, bytes - begin));
  }
}

}  // namespace seer::eval
