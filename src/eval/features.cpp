// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/features.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "extractor.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"

namespace seer::eval {
namespace {

void copy_block(const std::map<std::string, weights::HostTensor>& tensors, const nn::ParameterTable& table,
                const std::string& source, float* block) {
  for (const auto& entry : table.entries()) {
    const auto found = tensors.find(entry.name);
    if (found == tensors.end() || found->second.shape != entry.shape) {
      throw Error(ExitCode::file, fmt::format("{}: tensor \"{}\" {}; the model needs shape [{}]", source, entry.name,
                                              found == tensors.end()
                                                  ? "is missing"
                                                  : fmt::format("has shape [{}]", fmt::join(found->second.shape, ", ")),
                                              fmt::join(entry.shape, ", ")));
    }
    std::copy(found->second.values.begin(), found->second.values.end(), block + entry.offset);
  }
}

std::string fingerprint(const weights::Weights& weights) {
  Checksum sum;
  for (const auto* tensors : {&weights.parameters, &weights.buffers}) {
    for (const auto& [name, tensor] : *tensors) {
      sum.add(name.data(), name.size());
      sum.add(tensor.values.data(), tensor.values.size() * sizeof(float));
    }
  }
  return fmt::format("{:016x}", sum.value());
}

}  // namespace

FeatureExtractor::FeatureExtractor(const weights::Weights& weights, const std::string& source,
                                   std::vector<Feature> features, const std::string& device)
    : impl_(std::make_shared<Impl>(weights.model, weights.head, std::move(features), source, device)) {
  copy_block(weights.parameters, impl_->model.parameters(), source, impl_->parameters.f32());
  copy_block(weights.buffers, impl_->model.buffers(), source, impl_->buffers.on_host());
  impl_->recipe.weights = fingerprint(weights);
}

FeatureExtractor::FeatureExtractor(const config::Model& model, const config::Head& head, std::uint64_t seed,
                                   std::vector<Feature> features, const std::string& device)
    : impl_(std::make_shared<Impl>(model, head, std::move(features), "random initialisation", device)) {
  impl_->model.initialize(seed, impl_->parameters.f32(), impl_->buffers.on_host());
  impl_->recipe.weights = fmt::format("random, seed {}", seed);
}

FeatureExtractor::FeatureExtractor(const LiveNetwork& network, const std::string& source, std::vector<Feature> features,
                                   const std::string& device)
    : impl_(std::make_shared<Impl>(*network.model, *network.head, std::move(features), source, device)) {
  const auto elems = impl_->parameters.bytes() / sizeof(float);
  ensure(network.parameters.size() >= elems && network.buffers.size() >= impl_->buffers.size(),
         "the blocks hold the trunk and the head");
  std::copy_n(network.parameters.begin(), elems, impl_->parameters.f32());
  std::copy_n(network.buffers.begin(), impl_->buffers.size(), impl_->buffers.on_host());
  impl_->normalisation.mean = network.normalisation->mean;
  impl_->normalisation.std = network.normalisation->std;
  Checksum sum;
  sum.add(impl_->parameters.data(), impl_->parameters.bytes());
  sum.add(impl_->buffers.on_host(), impl_->buffers.bytes());
  impl_->recipe.weights = fmt::format("live {:016x}", sum.value());
}

FeatureExtractor FeatureExtractor::untrained(std::uint64_t seed) const {
  return {impl_->config_model, impl_->config_head, seed, impl_->features, impl_->wanted_device};
}

FeatureExtractor FeatureExtractor::load(const comm::Communicator& comm, const std::string& path,
                                        const std::vector<Feature>& features, const std::string& device) {
  std::shared_ptr<Impl> impl;
  std::string file, architecture;
  comm::agree(comm, "choosing the device", [&] { device::chosen_space(device); });
  comm::agree(comm, "read weights", [&] {
    if (!comm.is_root()) return;
    file = checkpoint::resolve(path);
    const auto weights = weights::read_weights(file);
    impl = FeatureExtractor(weights, file, features, device).impl_;
    impl->read_origin(file, weights.about);
    nlohmann::json out;
    config::visit_architecture(weights.model, weights.head, [&](auto* name, const auto& value) { out[name] = value; });
    architecture = out.dump();
  });
  comm.broadcast(file);
  comm.broadcast(architecture);
  comm::agree(comm, "make the model", [&] {
    if (comm.is_root()) return;
    const auto in = nlohmann::json::parse(architecture);
    config::Model model;
    config::Head head;
    config::visit_architecture(model, head, [&](auto* name, auto& value) { in.at(name).get_to(value); });
    impl = std::make_shared<Impl>(model, head, features, file, device);
  });
  comm.broadcast(impl->parameters.data(), impl->parameters.bytes());
  comm.broadcast(impl->buffers.on_host(), impl->buffers.bytes());
  comm.broadcast(impl->recipe.weights);
  comm.broadcast(&impl->recipe.update, sizeof impl->recipe.update);
  for (auto* values : {&impl->normalisation.mean, &impl->normalisation.std})
    comm.broadcast(values->data(), values->size() * sizeof(double));
  return FeatureExtractor(std::move(impl));
}

std::vector<float> FeatureExtractor::rows(const data::EvalBatch& batch) {
  auto& impl = *impl_;
  impl.start();
  const auto width = impl.dimension(batch.pixels.shape.h);
  std::vector<float> values(static_cast<std::size_t>(batch.pixels.shape.n * width));
  impl.forward(impl.context(nn::Mode::eval), batch.pixels, values.data(), width);
  const auto values_per_image = std::max<std::int64_t>(1, static_cast<std::int64_t>(values.size()) / batch.images);
  const auto bad = std::ranges::find_if(values, [](float x) { return !std::isfinite(x); });
  if (bad != values.end())
    throw Error(ExitCode::numerics,
                fmt::format("{}: features of image {} are not finite", impl.source,
                            batch.indices[static_cast<std::size_t>((bad - values.begin()) / values_per_image)]),
                "these weights have diverged; take an earlier checkpoint");
  return values;
}

std::int64_t FeatureExtractor::run(const comm::Communicator& comm, const data::DataSet& data,
                                   const data::EvalOptions& options, const Sink& sink) {
  comm::agree(comm, "features", [&] { impl_->want_equal_maps(options); });
  return for_each_batch(
      comm, data, impl_->normalised(options), fmt::format("features of {} by {}", describe(data), impl_->source),
      [&](const data::EvalBatch& batch) { return rows(batch); }, sink);
}

std::vector<float> FeatureExtractor::image(const data::DataSet& data, std::uint64_t index, data::EvalOptions options) {
  impl_->want_equal_maps(options);
  options.batch = options.batches_ahead = options.threads = 1;
  data::EvalReader reader(data, index, index + 1, impl_->normalised(options));
  const auto* batch = reader.next();
  ensure(batch != nullptr && batch->images == 1, "the evaluation reader gives one image of a range of one");
  return batch->bad.front() != 0 ? std::vector<float>() : rows(*batch);
}

FeatureTable FeatureExtractor::table(const comm::Communicator& comm, const data::DataSet& data,
                                     const data::EvalOptions& options) {
  FeatureTable out;
  out.info = info(data, options);
  out.first = slice_begin(data.images(), comm.rank(), comm.size());
  run(comm, data, options, [&](const FeatureTable& rows) { out.append(rows); });
  return out;
}

FeatureInfo FeatureExtractor::info(const data::DataSet& data, const data::EvalOptions& options) const {
  auto recipe = impl_->recipe;
  recipe.resize = options.whole > 0 ? options.whole : options.squash ? 0 : options.resize;
  recipe.crop = options.whole > 0 ? 0 : options.crop;
  recipe.mean = fmt::format("{}", fmt::join(impl_->normalisation.mean, " "));
  recipe.std = fmt::format("{}", fmt::join(impl_->normalisation.std, " "));
  recipe.precision = "fp32";
  std::vector<std::string> texts;
  for (const auto& feature : impl_->features) texts.push_back(feature.text);
  auto columns = impl_->columns(options.crop);
  const auto dimension = columns.back().begin + columns.back().width;
  if (columns.size() == 1 && !impl_->features.front().is_map()) columns.clear();
  return {.source = impl_->source,
          .data = describe(data),
          .layer = fmt::format("{}", fmt::join(texts, ",")),
          .columns = std::move(columns),
          .recipe = recipe,
          .classes = data.classes(),
          .images = data.images(),
          .dimension = dimension};
}

std::int64_t FeatureExtractor::dimension(std::int64_t side) const {
  return impl_->dimension(side);
}
const std::string& FeatureExtractor::source() const {
  return impl_->source;
}
const config::Augment& FeatureExtractor::normalisation() const {
  return impl_->normalisation;
}
const config::Model& FeatureExtractor::model() const {
  return impl_->config_model;
}
const float* FeatureExtractor::buffers() const {
  return impl_->buffers.on_host();
}

}  // namespace seer::eval
