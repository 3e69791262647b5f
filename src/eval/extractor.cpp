// SPDX-License-Identifier: Apache-2.0
#include "extractor.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/device/copy.hpp"
#include "seer/eval/pooling.hpp"

namespace seer::eval {
namespace {

bool any_uses(const std::vector<Feature>& features, const std::string& tap) {
  return std::ranges::any_of(features, [&](const Feature& f) { return f.uses(tap); });
}

/// An empty head if features do not use it, so that no head is read, kept or initialised.
config::Head head_for(const config::Head& head, const std::vector<Feature>& features) {
  if (!any_uses(features, "head")) return {.dims = {}, .batchnorm = false, .prototypes = 0};
  return {.dims = head.dims, .batchnorm = head.batchnorm, .prototypes = 0};
}

/// A map is the last feature of a row.
std::vector<Feature> map_last(std::vector<Feature> features) {
  std::ranges::stable_partition(features, [](const Feature& f) { return !f.is_map(); });
  return features;
}

}  // namespace

FeatureExtractor::Impl::Impl(const config::Model& model_config, const config::Head& head_config,
                             std::vector<Feature> wanted, std::string from, const std::string& on)
    : config_model(model_config),
      config_head(head_config),
      features(map_last(std::move(wanted))),
      source(std::move(from)),
      model(config_model, nn::projection_heads(head_for(config_head, features))),
      wanted_device(on),
      space(device::chosen_space(on)),
      parameters(device::Buffer::floats(static_cast<std::size_t>(model.parameters().block_elems()))),
      buffers(static_cast<std::size_t>(model.buffers().block_elems()), space),
      pool(space) {
  ensure(!features.empty(), "there is a feature");
  recipe.recalibration_images = 0;
  recipe.recalibration_data = "none";
  if (uses_head() && model.heads().empty())
    throw Error(ExitCode::input, fmt::format("{} has no head", source), "use the feature trunk");
  const auto taps = model.trunk().taps();
  for (const auto& tap : taps)
    if (any_uses(features, tap.name)) inner_.push_back(tap);
  for (const auto& feature : features) {
    for (const auto& part : feature.parts) {
      if (part.tap == "trunk" || part.tap == "head" || std::ranges::find(taps, part.tap, &nn::Tap::name) != taps.end())
        continue;
      std::vector<std::string> names;
      for (const auto& tap : taps) names.push_back(tap.name);
      throw Error(ExitCode::input,
                  fmt::format("feature \"{}\": {} has no output \"{}\"", feature.text, source, part.tap),
                  fmt::format("wanted trunk, head, or an output of its trunk: {}", fmt::join(names, ", ")));
    }
  }
  if (space == device::Space::device) {
    own_queue = std::make_unique<device::DeviceQueue>();
    queue = own_queue->queue();
  }
}

void FeatureExtractor::Impl::start() {
  if (dnn != nullptr) return;
  // Do not choose algorithms by measured time: batch sizes differ between ranks, and features should not depend on
  // timing.
  dnn = dnn::make_backend(space, {.deterministic = true, .measured = false});
  if (space == device::Space::host) return;
  device::Buffer there(parameters.bytes(), space);
  device::copy(queue, parameters.data(), device::Space::host, there.data(), space, parameters.bytes());
  buffers.send(queue);
  queue.wait();
  parameters = std::move(there);
}

nn::Context FeatureExtractor::Impl::context(nn::Mode mode, nn::StatisticsReduction* group) {
  nn::Context ctx;
  ctx.dnn = dnn.get();
  ctx.pool = &pool;
  ctx.queue = queue;
  ctx.parameters = parameters.f32();
  ctx.buffers = buffers.on_queue();
  ctx.version = 1;  // parameters never change here
  ctx.mode = mode;
  ctx.group = group;
  return ctx;
}

void FeatureExtractor::Impl::read_origin(const std::string& path, const std::map<std::string, std::string>& about) {
  namespace fs = std::filesystem;
  const auto file = h5::File::open(fs::is_directory(path) ? (fs::path(path) / "state.h5").string() : path);
  if (file.has("/", "config")) recipe.update = file.get_int("/state", "update");
  if (!about.contains("mean") || !about.contains("std")) return;
  const auto text = fmt::format("[augment]\nmean = {}\nstd = {}\n", about.at("mean"), about.at("std"));
  const auto augment = config::parse_resolved(text, path).augment;
  normalisation.mean = augment.mean;
  normalisation.std = augment.std;
}

void FeatureExtractor::Impl::want_equal_maps(const data::EvalOptions& options) const {
  if (options.whole > 0 && std::ranges::any_of(features, &Feature::is_map))
    throw Error(ExitCode::input, "a map of whole images: their maps have several sizes", "leave out --whole");
}

bool FeatureExtractor::Impl::uses_head() const {
  return any_uses(features, "head");
}

const device::Tensor& FeatureExtractor::Impl::Outputs::of(const std::string& name,
                                                          const std::vector<nn::Tap>& names) const {
  if (name == "trunk") return trunk;
  if (name == "head") return head;
  return inner.at(static_cast<std::size_t>(std::ranges::find(names, name, &nn::Tap::name) - names.begin()));
}

/// Returns the pixels in the memory where the queue works, copied there if necessary.
device::Tensor FeatureExtractor::Impl::bring(device::Tensor pixels) {
  if (space == device::Space::host) return pixels;
  const auto bytes = static_cast<std::size_t>(pixels.bytes());
  if (on_device.bytes() < bytes) on_device = device::Mirrored<char>(bytes, space);
  std::memcpy(on_device.on_host(), pixels.data, bytes);
  on_device.send(queue, bytes);
  pixels.data = on_device.on_queue();
  pixels.space = space;
  return pixels;
}

device::Tensor FeatureExtractor::Impl::fetch(device::Tensor tensor, std::vector<float>& values) {
  if (tensor.data == nullptr || queue.space == device::Space::host) return tensor;
  values.resize(static_cast<std::size_t>(tensor.elems()));
  device::copy(queue, tensor.data, queue.space, values.data(), device::Space::host,
               static_cast<std::size_t>(tensor.bytes()));
  tensor.data = values.data();
  tensor.space = device::Space::host;
  return tensor;
}

void FeatureExtractor::Impl::run(const nn::Context& ctx, device::Tensor pixels,
                                 const std::function<void(const Outputs&)>& use) {
  nn::PassOptions options;
  for (const auto& tap : inner_) options.outputs.push_back(tap.segment);
  const auto pass = model.trunk().make_pass(options);
  const auto n = pixels.shape.n;
  Outputs out;
  const auto rows = pool.tensor({n, 1, 1, model.trunk().width()});
  model.trunk().forward_all(ctx, bring(pixels), *pass, *rows);
  out.trunk = *rows;
  device::Loan embeddings;
  if (uses_head()) {
    const auto& projector = *model.heads()[0];
    embeddings = pool.tensor({n, 1, 1, projector.width()});
    projector.forward_all(ctx, *rows, *projector.make_pass(), *embeddings);
    out.head = *embeddings;
  }
  for (const auto& tap : inner_) out.inner.push_back(pass->output(tap.segment));
  use(out);
}

std::vector<FeatureColumns> FeatureExtractor::Impl::columns(std::int64_t side) {
  const bool maps = std::ranges::any_of(features, &Feature::is_map);
  if (!inner_.empty() && (shaped_side_ == 0 || (maps && shaped_side_ != side))) {
    start();
    std::vector<float> grey(static_cast<std::size_t>(3 * side * side));
    run(context(nn::Mode::eval), {.data = grey.data(), .shape = {1, side, side, 3}}, [&](const Outputs& out) {
      shapes_.clear();
      for (const auto& tensor : out.inner) shapes_.push_back(tensor.shape);
      queue.wait();
    });
    shaped_side_ = side;
  }
  Outputs shapes;
  shapes.trunk.shape.c = model.trunk().width();
  if (uses_head()) shapes.head.shape.c = model.heads()[0]->width();
  for (const auto& shape : shapes_) shapes.inner.push_back({.shape = shape});
  std::vector<FeatureColumns> out;
  std::int64_t begin = 0;
  for (const auto& feature : features) {
    auto& columns = out.emplace_back(FeatureColumns{.feature = feature.text, .begin = begin});
    for (const auto& part : feature.parts) {
      const auto& shape = shapes.of(part.tap, inner_).shape;
      columns.width += pooled_width(part, shape);
      if (feature.is_map()) columns.map = {shape.h, shape.w, shape.c};
    }
    begin += columns.width;
  }
  return out;
}

void FeatureExtractor::Impl::forward(const nn::Context& ctx, device::Tensor pixels, float* out, std::int64_t stride) {
  const auto n = pixels.shape.n;
  if (inner_.empty() && !uses_head() && stride == model.trunk().width() && space == device::Space::host) {
    model.trunk().forward_all(ctx, pixels, *model.trunk().make_pass(), {.data = out, .shape = {n, 1, 1, stride}});
    return;
  }
  run(ctx, pixels, [&](const Outputs& there) {
    std::vector<std::vector<float>> values(there.inner.size() + 2);
    Outputs here;
    here.trunk = fetch(there.trunk, values[0]);
    here.head = fetch(there.head, values[1]);
    for (std::size_t i = 0; i < there.inner.size(); ++i) here.inner.push_back(fetch(there.inner[i], values[i + 2]));
    queue.wait();
    auto* to = out;
    for (const auto& feature : features) {
      for (const auto& part : feature.parts) {
        const auto& from = here.of(part.tap, inner_);
        eval::pool(part, from, to, stride);
        to += pooled_width(part, from.shape);
      }
    }
  });
}

}  // namespace seer::eval
