// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/probe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <utility>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/base/random.hpp"
#include "seer/kernels/probe.hpp"

namespace seer::eval {
namespace {

/// Most floats of a stack's scores, and of its gradient: more heads make another product. So a core's cache holds what
/// the update reads again.
constexpr std::int64_t kStackFloats = std::int64_t{1} << 20;

/// An array of a stack, with its moments.
struct State {
  std::vector<float> value, momentum, second;
  void resize(std::size_t count, bool adam) {
    value.resize(count);
    momentum.resize(count);
    second.resize(adam ? count : 0);
  }
  kernels::ProbeState view() const {
    const auto data = [](const std::vector<float>& v) { return v.empty() ? nullptr : const_cast<float*>(v.data()); };
    return {data(value), data(momentum), data(second)};
  }
};

}  // namespace

/// Consecutive heads of one input.
struct ProbeTrainer::Stack {
  std::size_t begin = 0, end = 0;
  kernels::ProbeShape shape;
  State weight, bias, norm;
  std::vector<float> rates, decays;

  kernels::ProbeParameters parameters() { return {weight.view(), bias.view(), norm.view()}; }
};

/// Weight and bias that score.
struct ProbeTrainer::Scoring {
  const float *weight, *bias;
};

std::vector<ProbeHead> probe_heads(const config::ProbeProtocol& protocol, std::span<const FeatureColumns> columns) {
  std::vector<ProbeHead> out;
  for (std::size_t feature = 0; feature < columns.size(); ++feature)
    for (const auto batchnorm : protocol.batchnorm)
      for (const auto rate : protocol.rates)
        for (const auto decay : protocol.decays)
          out.push_back({feature, batchnorm != 0, rate, decay, columns[feature].width});
  return out;
}

std::size_t first_head(std::span<const ProbeHead> heads, int rank, int ranks) {
  std::int64_t all = 0, before = 0;
  for (const auto& head : heads) all += head.width;
  std::size_t first = 0;
  for (; first < heads.size() && before * ranks < all * rank; ++first) before += heads[first].width;
  return first;
}

ProbeTrainer::ProbeTrainer(config::ProbeProtocol protocol, std::vector<ProbeHead> heads, std::size_t begin,
                           std::size_t end, std::vector<FeatureColumns> columns, std::int64_t classes,
                           std::uint64_t seed)
    : protocol_(std::move(protocol)),
      heads_(std::move(heads)),
      begin_(begin),
      end_(end),
      columns_(std::move(columns)),
      classes_(classes),
      dnn_(dnn::make_host_backend()),
      running_(columns_.size()),
      plain_(columns_.size()),
      normalised_(columns_.size()) {
  dnn_->set_packed_weights_limit(0);
  const bool adam = protocol_.optimizer == "adamw";
  const double factor = protocol_.rate_per_256 ? static_cast<double>(protocol_.batch) / 256 : 1;
  for (const auto& head : heads_) {
    if (!head.batchnorm || !running_[head.feature].empty()) continue;
    auto& running = running_[head.feature];
    running.resize(static_cast<std::size_t>(2 * head.width), 1.0);
    std::fill_n(running.begin(), head.width, 0.0);
  }
  for (std::size_t at = begin_; at < end_;) {
    const auto& first = heads_[at];
    const auto most = std::max<std::int64_t>(1, kStackFloats / (classes_ * std::max(protocol_.batch, first.width)));
    auto& stack = stacks_.emplace_back();
    stack.begin = stack.end = at;
    while (at < end_ && heads_[at].feature == first.feature && heads_[at].batchnorm == first.batchnorm &&
           static_cast<std::int64_t>(at - stack.begin) < most) {
      stack.rates.push_back(static_cast<float>(heads_[at].rate * factor));
      stack.decays.push_back(static_cast<float>(heads_[at].decay));
      stack.end = ++at;
    }
    auto& shape = stack.shape = {0, static_cast<std::int64_t>(stack.end - stack.begin), classes_, first.width};
    stack.weight.resize(static_cast<std::size_t>(shape.columns() * shape.width), adam);
    stack.bias.resize(static_cast<std::size_t>(shape.columns()), adam);
    // All heads of an input start equal, whatever else is in the grid.
    const bool same = stack.begin > begin_ && heads_[stack.begin - 1].feature == first.feature &&
                      heads_[stack.begin - 1].batchnorm == first.batchnorm;
    const auto each = classes_ * shape.width;
    if (same) {
      std::copy_n(stacks_[stacks_.size() - 2].weight.value.begin(), each, stack.weight.value.begin());
      std::copy_n(stacks_[stacks_.size() - 2].bias.value.begin(), classes_, stack.bias.value.begin());
    } else {
      Random random(seed, Purpose::parameter,
                    checksum(fmt::format("probe.{}.{}", columns_[first.feature].feature, first.batchnorm)));
      const double bound = 1 / std::sqrt(static_cast<double>(shape.width));
      const auto draw = [&](float& value, bool is_bias) {
        if (protocol_.init == "uniform") value = static_cast<float>(random.uniform(-bound, bound));
        if (protocol_.init == "normal" && !is_bias)
          value = static_cast<float>(protocol_.init_deviation * random.normal());
      };
      for (std::int64_t i = 0; i < each; ++i) draw(stack.weight.value[static_cast<std::size_t>(i)], false);
      for (std::int64_t i = 0; i < classes_; ++i) draw(stack.bias.value[static_cast<std::size_t>(i)], true);
    }
    for (std::int64_t h = 1; h < shape.heads; ++h) {
      std::copy_n(stack.weight.value.begin(), each, stack.weight.value.begin() + h * each);
      std::copy_n(stack.bias.value.begin(), classes_, stack.bias.value.begin() + h * classes_);
    }
    if (!first.batchnorm) continue;
    stack.norm.resize(static_cast<std::size_t>(2 * shape.heads * shape.width), adam);
    for (std::int64_t h = 0; h < shape.heads; ++h)
      std::fill_n(stack.norm.value.begin() + 2 * h * shape.width, shape.width, 1.0F);
  }
}
ProbeTrainer::~ProbeTrainer() = default;
ProbeTrainer::ProbeTrainer(ProbeTrainer&&) noexcept = default;

void ProbeTrainer::make_inputs(std::span<const float> values, bool learns) {
  const auto& last = columns_.back();
  const auto dimension = last.begin + last.width;
  const auto rows = static_cast<std::int64_t>(values.size()) / dimension;
  device::Queue queue;
  for (std::size_t f = 0; f < columns_.size(); ++f) {
    const auto [begin, width] = std::pair(columns_[f].begin, columns_[f].width);
    auto& plain = plain_[f];
    plain.resize(static_cast<std::size_t>(rows * width));
    for (std::int64_t i = 0; i < rows; ++i)
      std::copy_n(values.begin() + i * dimension + begin, width, plain.begin() + i * width);
    if (running_[f].empty()) continue;
    normalised_[f].resize(plain.size());
    if (learns)
      kernels::probe_normalise(queue, rows, width, plain.data(), running_[f].data(), normalised_[f].data());
    else
      kernels::probe_normalise_by(queue, rows, width, plain.data(), running_[f].data(), normalised_[f].data());
  }
}

const float* ProbeTrainer::input_of(const ProbeHead& head) const {
  return (head.batchnorm ? normalised_ : plain_)[head.feature].data();
}

std::vector<double> ProbeTrainer::update(std::span<const float> values, const ProbeTruth& truth, std::int64_t update,
                                         double factor) {
  const bool several = !truth.several.empty();
  make_inputs(values, true);
  const kernels::ProbeRule rule{.adam = protocol_.optimizer == "adamw",
                                .nesterov = protocol_.optimizer == "nesterov",
                                .bias_decays = protocol_.bias_decays,
                                .momentum = static_cast<float>(protocol_.momentum),
                                .second = static_cast<float>(protocol_.second),
                                .update = update};
  const auto rows = several ? static_cast<std::int64_t>(truth.several.size()) / classes_
                            : static_cast<std::int64_t>(truth.labels.size());
  std::vector<double> losses(end_ - begin_);
  device::Queue queue;
  using dnn::Transpose;
  for (auto& stack : stacks_) {
    auto& shape = stack.shape;
    shape.rows = rows;
    products_.resize(std::max(products_.size(), static_cast<std::size_t>(rows * shape.columns())));
    d_weight_.resize(std::max(d_weight_.size(), stack.weight.value.size()));
    const float* input = input_of(heads_[stack.begin]);
    const auto scoring = scoring_of(stack, stack.begin, stack.end);
    dnn_->gemm(queue, rows, shape.columns(), shape.width, input, Transpose::no, scoring.weight, Transpose::yes,
               products_.data(), dnn::Accumulate::no, scoring.bias);
    double* const of_stack = losses.data() + (stack.begin - begin_);
    if (several)
      kernels::probe_binary_cross_entropy(queue, shape, truth.several.data(), products_.data(), of_stack);
    else
      kernels::probe_cross_entropy(queue, shape, truth.labels.data(), products_.data(), of_stack);
    dnn_->gemm(queue, shape.columns(), shape.width, rows, products_.data(), Transpose::yes, input, Transpose::no,
               d_weight_.data());
    auto rates = stack.rates;
    for (auto& rate : rates) rate = static_cast<float>(static_cast<double>(rate) * factor);
    kernels::probe_update(queue, shape, rule, rates.data(), stack.decays.data(), products_.data(), d_weight_.data(),
                          stack.parameters());
  }
  return losses;
}

const ProbeTrainer::Stack& ProbeTrainer::stack_of(std::size_t head) const {
  const auto found = std::ranges::find_if(stacks_, [&](const Stack& s) { return head >= s.begin && head < s.end; });
  ensure(found != stacks_.end(), "a head is asked of the rank that holds it");
  return *found;
}

ProbeTrainer::Scoring ProbeTrainer::scoring_of(const Stack& stack, std::size_t begin, std::size_t end) {
  const auto [heads, classes, width] = std::tuple(end - begin, stack.shape.classes, stack.shape.width);
  const auto at = static_cast<std::int64_t>(begin - stack.begin);
  const float* const weight = stack.weight.value.data() + at * classes * width;
  const float* const bias = stack.bias.value.data() + at * classes;
  if (stack.norm.value.empty()) return {weight, bias};
  const kernels::ProbeShape shape{0, static_cast<std::int64_t>(heads), classes, width};
  const auto count = static_cast<std::size_t>(shape.columns() * width);
  effective_.resize(std::max(effective_.size(), count));
  effective_bias_.resize(std::max(effective_bias_.size(), static_cast<std::size_t>(shape.columns())));
  device::Queue queue;
  kernels::probe_effective(queue, shape, weight, bias, stack.norm.value.data() + 2 * at * width, effective_.data(),
                           effective_bias_.data());
  return {effective_.data(), effective_bias_.data()};
}

void ProbeTrainer::scores(std::span<const float> values, std::span<const std::size_t> heads,
                          const std::function<void(std::size_t head, std::span<const float> scores)>& use) {
  if (std::ranges::none_of(heads, [&](std::size_t head) { return holds(head); })) return;
  make_inputs(values, false);
  device::Queue queue;
  std::vector<float> out;
  for (const auto head : heads) {
    if (!holds(head)) continue;
    const auto& stack = stack_of(head);
    const auto width = stack.shape.width;
    const auto scoring = scoring_of(stack, head, head + 1);
    const auto rows = static_cast<std::int64_t>(plain_[heads_[head].feature].size()) / width;
    out.resize(static_cast<std::size_t>(rows * classes_));
    dnn_->gemm(queue, rows, classes_, width, input_of(heads_[head]), dnn::Transpose::no, scoring.weight,
               dnn::Transpose::yes, out.data(), dnn::Accumulate::no, scoring.bias);
    use(head, out);
  }
}

LinearHead ProbeTrainer::head(std::size_t head) {
  constexpr double kEpsilon = 1e-5;
  const auto& stack = stack_of(head);
  const auto width = static_cast<std::size_t>(stack.shape.width), classes = static_cast<std::size_t>(classes_);
  const auto [weight, bias] = scoring_of(stack, head, head + 1);
  LinearHead out{{weight, weight + classes * width}, {bias, bias + classes}};
  if (!heads_[head].batchnorm) return out;
  const auto& running = running_[heads_[head].feature];
  for (std::size_t c = 0; c < classes; ++c) {
    double shift = 0;
    for (std::size_t j = 0; j < width; ++j) {
      auto& value = out.weight[c * width + j];
      const double scaled = static_cast<double>(value) / std::sqrt(running[width + j] + kEpsilon);
      shift += scaled * running[j];
      value = static_cast<float>(scaled);
    }
    out.bias[c] = static_cast<float>(static_cast<double>(out.bias[c]) - shift);
  }
  return out;
}

/// One array of a checkpoint, which holds those of all heads in order.
struct ProbeTrainer::Array {
  std::string name;
  std::uint64_t all = 0, first = 0;  ///< elements of all heads; place of the first held one
  std::function<std::vector<float>&(Stack&)> of;
};

std::vector<ProbeTrainer::Array> ProbeTrainer::arrays() const {
  std::vector<Array> out;
  const auto add = [&](std::string name, auto of, auto elems) {
    Array array{std::move(name), 0, 0, of};
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      if (i < begin_) array.first += static_cast<std::uint64_t>(elems(heads_[i]));
      array.all += static_cast<std::uint64_t>(elems(heads_[i]));
    }
    if (array.all > 0) out.push_back(std::move(array));
  };
  const auto add_state = [&](const std::string& name, State Stack::*state, auto elems) {
    add(
        name, [=](Stack & s) -> auto& { return (s.*state).value; }, elems);
    add(
        name + "_momentum", [=](Stack & s) -> auto& { return (s.*state).momentum; }, elems);
    if (protocol_.optimizer == "adamw")
      add(
          name + "_second", [=](Stack & s) -> auto& { return (s.*state).second; }, elems);
  };
  add_state("/weight", &Stack::weight, [this](const ProbeHead& head) { return classes_ * head.width; });
  add_state("/bias", &Stack::bias, [this](const ProbeHead&) { return classes_; });
  add_state("/norm", &Stack::norm, [](const ProbeHead& head) { return head.batchnorm ? 2 * head.width : 0; });
  return out;
}

void ProbeTrainer::save(h5::File& file, bool root) {
  for (const auto& array : arrays()) {
    file.create_dataset(array.name, h5::Type::f32, {array.all});
    auto at = array.first;
    for (auto& stack : stacks_) {
      const auto& values = array.of(stack);
      file.write(array.name, h5::Type::f32, at, values.size(), values.data());
      at += values.size();
    }
  }
  std::vector<double> running;
  for (const auto& of : running_) running.insert(running.end(), of.begin(), of.end());
  if (running.empty()) return;
  file.create_dataset("/running", h5::Type::f64, {running.size()});
  if (root) file.write("/running", h5::Type::f64, 0, running.size(), running.data());
}

void ProbeTrainer::load(const h5::File& file) {
  for (const auto& array : arrays()) {
    if (const auto found = file.elements(array.name); found != array.all)
      throw Error(ExitCode::file,
                  fmt::format("{}: {} has {} values, wanted {}", file.path(), array.name, found, array.all));
    auto at = array.first;
    for (auto& stack : stacks_) {
      auto& values = array.of(stack);
      file.read(array.name, h5::Type::f32, at, values.size(), values.data());
      at += values.size();
    }
  }
  std::uint64_t at = 0;
  for (auto& of : running_) {
    if (!of.empty()) file.read("/running", h5::Type::f64, at, of.size(), of.data());
    at += of.size();
  }
}

std::int64_t ProbeTrainer::bytes() const {
  std::size_t floats = products_.size() + d_weight_.size() + effective_.size();
  for (const auto& stack : stacks_) {
    for (const auto* state : {&stack.weight, &stack.bias, &stack.norm})
      floats += state->value.size() + state->momentum.size() + state->second.size();
  }
  return static_cast<std::int64_t>(floats * sizeof(float));
}

}  // namespace seer::eval
