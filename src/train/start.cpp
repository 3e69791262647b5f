// SPDX-License-Identifier: Apache-2.0
// What a new run takes over from other weights ([continue] and finetune.from, method.md 5.2 and 11).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/nn/trunk.hpp"
#include "seer/train/learner.hpp"
#include "seer/weights/weights.hpp"

namespace seer::train {
namespace {

using Tensors = std::map<std::string, weights::HostTensor>;
constexpr const char* kClassifier = "classifier";

/// "head" for "head.0.weight". The root of a trunk's tensor means the trunk.
std::string part_of(const config::Model& model, const std::string& name) {
  const auto root = name.substr(0, name.find('.'));
  const auto& of_trunk = nn::trunk_kind(model).roots;
  return std::ranges::find(of_trunk, root) == of_trunk.end() ? root : "trunk";
}

/// The root's plan: which parts of the network start anew, and why.
class Takeover {
 public:
  Takeover(const config::Config& config, const nn::Model& model, const std::string& path, const std::string& key)
      : config_(config), source_(key + " " + path), continues_(key == "model.init_from") {
    weights_ = weights::read_weights(checkpoint::resolve(path),
                                     {.method = true, .momentum = continues_ && config.continuing.momenta});
    for (const auto& p : model.parameters().entries()) check(p, weights_.parameters);
    for (const auto& b : model.buffers().entries()) check(b, weights_.buffers);
    std::string below;  // parts come in the order in which they are computed
    for (auto& [part, reason] : parts_) {
      if (reason.empty() && !below.empty()) reason = fmt::format("the {} below is new", below);
      if (!reason.empty()) below = part;
    }
    for (const auto& p : model.parameters().entries()) momenta_ += momentum(p) != nullptr ? 1 : 0;
    tell(static_cast<std::int64_t>(model.parameters().entries().size()));
  }

  /// Null: starts at random.
  const weights::HostTensor* parameter(const nn::Parameter& p) const { return kept(p, weights_.parameters); }
  const weights::HostTensor* buffer(const nn::Parameter& b) const { return kept(b, weights_.buffers); }
  /// Null: starts as zeros.
  const weights::HostTensor* momentum(const nn::Parameter& p) const {
    if (weights_.about.contains("optimizer") && weights_.about.at("optimizer") != config_.optimizer.kind)
      return nullptr;
    const auto found = weights_.momentum.find(p.name);
    const bool fits = found != weights_.momentum.end() && found->second.shape == p.shape;
    return fits && parameter(p) != nullptr ? &found->second : nullptr;
  }
  std::int64_t momenta() const { return momenta_; }

 private:
  /// The tensor of this name: in the network, or in the heads that only the method has.
  const weights::HostTensor* find(const std::string& name, const Tensors& tensors) const {
    if (name.starts_with(kClassifier)) {
      const auto found = weights_.classifier.find("fc" + name.substr(std::strlen(kClassifier)));
      return found != weights_.classifier.end() ? &found->second : nullptr;
    }
    for (const auto* among : {&tensors, &weights_.method})
      if (const auto found = among->find(name); found != among->end()) return &found->second;
    return nullptr;
  }
  std::string& reason(const std::string& part) {
    const auto found = std::ranges::find(parts_, part, &std::pair<std::string, std::string>::first);
    return found != parts_.end() ? found->second : parts_.emplace_back(part, "").second;
  }
  void check(const nn::Parameter& p, const Tensors& tensors) {
    const auto* const tensor = find(p.name, tensors);
    auto& why = reason(part_of(config_.model, p.name));
    if (p.treatment.unit_rows && config_.continuing.prototypes != "keep")
      why = fmt::format("continue.prototypes = \"{}\"", config_.continuing.prototypes);
    if (p.name.starts_with(kClassifier)) {
      if (config_.finetune.classifier == "new")
        why = "finetune.classifier = \"new\"";
      else if (tensor == nullptr || tensor->shape != p.shape)
        refuse_classifier(p, tensor);
    }
    if (!why.empty() || (tensor != nullptr && tensor->shape == p.shape)) return;
    if (tensor == nullptr && is_new_norm(p)) return;
    why = tensor == nullptr ? fmt::format("{} is missing", p.name)
                            : fmt::format("{} has shape [{}], wanted [{}]", p.name, fmt::join(tensor->shape, ", "),
                                          fmt::join(p.shape, ", "));
    if (part_of(config_.model, p.name) == "trunk")
      throw Error(ExitCode::file, fmt::format("{}: tensor {}", source_, why),
                  "use weights of the same trunk, or change [model]");
    differs_ = differs_ || tensor != nullptr;
  }
  /// Fine-tuning puts BatchNorm between the layers of a head that had none.
  bool is_new_norm(const nn::Parameter& p) const {
    return !continues_ && part_of(config_.model, p.name) != "trunk" && p.name.find(".norm.") != std::string::npos;
  }
  [[noreturn]] void refuse_classifier(const nn::Parameter& p, const weights::HostTensor* tensor) const {
    throw Error(
        ExitCode::input,
        fmt::format("{}: it has {}; finetune.classifier = \"keep\" needs one of shape [{}]", source_,
                    tensor == nullptr ? "no classifier"
                                      : fmt::format("a classifier of shape [{}]", fmt::join(tensor->shape, ", ")),
                    fmt::join(p.shape, ", ")),
        "use finetune.classifier = \"new\"");
  }
  const weights::HostTensor* kept(const nn::Parameter& p, const Tensors& tensors) const {
    const auto part = part_of(config_.model, p.name);
    const auto is_new = [&](const auto& known) { return known.first == part && !known.second.empty(); };
    return std::ranges::any_of(parts_, is_new) ? nullptr : find(p.name, tensors);
  }
  void tell(std::int64_t tensors) const {
    std::vector<std::string> lines;
    const bool unnamed = !weights_.about.contains("classes");  // run::check_source compares them
    bool doubtful = differs_;
    for (const auto& [part, why] : parts_) {
      lines.push_back(part + (why.empty() ? " kept" : " new (" + why + ")"));
      if (part != kClassifier || !why.empty() || !unnamed) continue;
      lines.back() += " (for which classes is not known: they must be those of data.shards, in their order)";
      doubtful = true;
    }
    const auto was = weights_.about.find("optimizer");
    if (!continues_)
      lines.emplace_back("momenta new");
    else if (!config_.continuing.momenta)
      lines.emplace_back("momenta new (continue.momenta = false)");
    else if (weights_.momentum.empty())
      lines.emplace_back("momenta new (there are none)");
    else if (was != weights_.about.end() && was->second != config_.optimizer.kind)
      lines.push_back(fmt::format("momenta new (they are of optimizer.kind = \"{}\")", was->second));
    else
      lines.push_back(fmt::format("momenta of {} of {} tensors kept", momenta_, tensors));
    const auto text = fmt::format("{}: {}", source_, fmt::join(lines, ", "));
    doubtful ? log::warn(text) : log::info(text);
  }

  const config::Config& config_;
  std::string source_;  ///< the key and its path
  bool continues_;      ///< else it is for fine-tuning
  weights::Weights weights_;
  std::vector<std::pair<std::string, std::string>> parts_;  ///< and why it starts anew; "": it is kept
  std::int64_t momenta_ = 0;
  bool differs_ = false;
};

}  // namespace

/// The root reads the file and broadcasts every tensor.
void Learner::start_from(const std::string& path, const std::string& key) {
  std::optional<Takeover> from;
  comm::agree(*comm_, "reading " + key, [&] {
    if (comm_->is_root()) from.emplace(config_, model_, path, key);
  });
  const auto seed = static_cast<std::uint64_t>(config_.data.seed);
  const auto give = [&](const nn::Parameter& p, const weights::HostTensor* tensor, float* values) {
    if (tensor != nullptr) std::ranges::copy(tensor->values, values);
    comm_->broadcast(values, static_cast<std::size_t>(p.elems) * sizeof(float));
  };
  fill(
      [&](const auto& p, float* values) {
        nn::initialize(p, seed, values);
        give(p, from ? from->parameter(p) : nullptr, values);
      },
      [&](const auto& b, float* values) {
        nn::initialize(b, seed, values);
        give(b, from ? from->buffer(b) : nullptr, values);
      });
  std::int64_t momenta = from ? from->momenta() : 0;
  comm_->broadcast(&momenta, sizeof momenta);
  if (momenta > 0)
    state_.fill_momenta([&](const auto& p, float* values) { give(p, from ? from->momentum(p) : nullptr, values); });
}

void Learner::replace_prototypes(std::span<const float> rows) {
  const auto whole = state_.whole_parameters();
  state_.fill([&](const nn::Parameter& p, float* values) {
    if (p.treatment.unit_rows) {
      ensure(std::ssize(rows) == p.elems, "one value for each of the prototypes");
      std::ranges::copy(rows, values);
    } else {
      std::copy_n(whole.data() + p.offset, p.elems, values);
    }
  });
}

}  // namespace seer::train
