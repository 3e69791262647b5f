// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/features.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "seer/base/checksum.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/random.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/dnn/device_backend.hpp"
#include "seer/nn/layers.hpp"
#include "seer/nn/model.hpp"

namespace seer::eval {
namespace {

/// An empty head if only the trunk is needed, so that no head is read, kept or initialised.
config::Head head_for(const config::Head& head, Layer layer) {
  if (layer == Layer::trunk) return {.dims = {}, .batchnorm = false, .prototypes = 0};
  return {.dims = head.dims, .batchnorm = head.batchnorm, .prototypes = 0};
}

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

/// Sums BatchNorm statistics over all ranks.
class GroupSum : public nn::StatisticsReduction {
 public:
  /// Collective.
  GroupSum(const comm::Communicator& comm, const device::Queue& queue) : comm_(comm.duplicate(), queue) {}
  void sum(device::Queue& queue, double* values, std::size_t count) override {
    comm_.all_reduce(queue, std::span(values, count));
  }
  int size() const override { return comm_.size(); }

 private:
  comm::BlockCommunicator comm_;
};

/// Draws one image from each of `wanted` equal ranges of the data set, in random order: data sets are often sorted by
/// class, and BatchNorm needs representative batches.
std::vector<std::uint64_t> drawn_evenly(std::uint64_t images, std::int64_t wanted) {
  std::vector<std::uint64_t> out;
  Random random(0, Purpose::recalibration);
  const double stretch = static_cast<double>(images) / static_cast<double>(wanted);
  for (std::int64_t i = 0; i < wanted; ++i) {
    const double at = (static_cast<double>(i) + random.uniform()) * stretch;
    out.push_back(std::min(static_cast<std::uint64_t>(at), images - 1));
  }
  for (std::size_t i = out.size(); i > 1; --i) std::swap(out[i - 1], out[random.below(i)]);
  return out;
}

/// Reads the images' pixels into `values`. Returns them as a tensor [n, side, side, 3].
device::Tensor read_images(const data::DataSet& data, std::span<const std::uint64_t> images, data::EvalOptions options,
                           std::vector<float>& values) {
  options.batch = options.batches_ahead = options.threads = 1;
  device::Tensor out;
  values.clear();
  for (const auto index : images) {
    data::EvalReader reader(data, index, index + 1, options);
    const auto* image = reader.next();
    ensure(image != nullptr && image->images == 1, "the evaluation reader gives one image of a range of one");
    values.insert(values.end(), image->pixels.f32(), image->pixels.f32() + image->pixels.elems());
    out = image->pixels;
  }
  out.data = values.data();
  out.shape.n = static_cast<std::int64_t>(images.size());
  return out;
}

}  // namespace

struct FeatureExtractor::Impl {
  Impl(const config::Model& model_config, const config::Head& head_config, Layer wanted, std::string from,
       const std::string& on)
      : config_model(model_config),
        config_head(head_config),
        layer(wanted),
        source(std::move(from)),
        model(config_model, nn::projection_heads(head_for(config_head, layer))),
        wanted_device(on),
        space(device::chosen_space(on)),
        parameters(device::Buffer::floats(static_cast<std::size_t>(model.parameters().block_elems()))),
        buffers(static_cast<std::size_t>(model.buffers().block_elems()), space),
        pool(space) {
    recipe.recalibration_images = 0;
    recipe.recalibration_data = "none";
    if (layer == Layer::head && model.heads().empty())
      throw Error(ExitCode::input, fmt::format("{} has no head", source), "use --layer trunk");
    if (space == device::Space::device) {
      own_queue = std::make_unique<device::DeviceQueue>();
      queue = own_queue->queue();
    }
  }

  /// The first call moves the parameters to the memory where the queue works; later calls do nothing.
  void start() {
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

  nn::Context context(nn::Mode mode, nn::StatisticsReduction* group = nullptr) {
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

  /// Reads a checkpoint's update and the normalisation of the run's images, if the file records them.
  void read_origin(const std::string& path, const std::map<std::string, std::string>& about) {
    namespace fs = std::filesystem;
    const auto file = h5::File::open(fs::is_directory(path) ? (fs::path(path) / "state.h5").string() : path);
    if (file.has("/", "config")) recipe.update = file.get_int("/state", "update");
    if (!about.contains("mean") || !about.contains("std")) return;
    const auto text = fmt::format("[augment]\nmean = {}\nstd = {}\n", about.at("mean"), about.at("std"));
    const auto augment = config::parse_resolved(text, path).augment;
    normalisation.mean = augment.mean;
    normalisation.std = augment.std;
  }
  data::EvalOptions normalised(data::EvalOptions options) const {
    options.normalisation = normalisation;
    return options;
  }

  std::int64_t dimension() const { return layer == Layer::head ? model.heads()[0]->width() : model.trunk().width(); }

  /// Returns the pixels in the memory where the queue works, copied there if necessary.
  device::Tensor bring(device::Tensor pixels) {
    if (space == device::Space::host) return pixels;
    const auto bytes = static_cast<std::size_t>(pixels.bytes());
    if (on_device.bytes() < bytes) on_device = device::Mirrored<char>(bytes, space);
    std::memcpy(on_device.on_host(), pixels.data, bytes);
    on_device.send(queue, bytes);
    pixels.data = on_device.on_queue();
    pixels.space = space;
    return pixels;
  }

  /// pixels: [n, h, w, 3]; out: n rows of dimension(), on the host.
  void forward(const nn::Context& ctx, device::Tensor pixels, float* out) {
    const auto trunk_pass = model.trunk().make_pass();
    const auto n = pixels.shape.n;
    if (layer == Layer::trunk && space == device::Space::host) {
      model.trunk().forward_all(ctx, pixels, *trunk_pass, {.data = out, .shape = {n, 1, 1, dimension()}});
      return;
    }
    auto rows = pool.tensor({n, 1, 1, model.trunk().width()});
    model.trunk().forward_all(ctx, bring(pixels), *trunk_pass, *rows);
    if (layer == Layer::head) {
      const auto& projector = *model.heads()[0];
      auto embeddings = pool.tensor({n, 1, 1, projector.width()});
      projector.forward_all(ctx, *rows, *projector.make_pass(), *embeddings);
      rows = std::move(embeddings);
    }
    device::copy(queue, rows->data, queue.space, out, device::Space::host, static_cast<std::size_t>(rows->bytes()));
    queue.wait();
  }

  config::Model config_model;
  config::Head config_head;
  Layer layer;
  std::string source;
  Recipe recipe;
  config::Augment normalisation;
  nn::Model model;
  std::string wanted_device;
  device::Space space;
  std::unique_ptr<device::DeviceQueue> own_queue;  ///< null: computes on the host
  device::Queue queue;
  device::Buffer parameters;  ///< on the host until start()
  device::Mirrored<float> buffers;
  device::Mirrored<char> on_device;  ///< pixels
  std::unique_ptr<dnn::Backend> dnn;
  device::Pool pool;
};

FeatureExtractor::FeatureExtractor(const weights::Weights& weights, Layer layer, const std::string& source,
                                   const std::string& device)
    : impl_(std::make_shared<Impl>(weights.model, weights.head, layer, source, device)) {
  copy_block(weights.parameters, impl_->model.parameters(), source, impl_->parameters.f32());
  copy_block(weights.buffers, impl_->model.buffers(), source, impl_->buffers.on_host());
  impl_->recipe.weights = fingerprint(weights);
}

FeatureExtractor::FeatureExtractor(const config::Model& model, const config::Head& head, std::uint64_t seed,
                                   Layer layer, const std::string& device)
    : impl_(std::make_shared<Impl>(model, head, layer, "random initialisation", device)) {
  impl_->model.initialize(seed, impl_->parameters.f32(), impl_->buffers.on_host());
  impl_->recipe.weights = fmt::format("random, seed {}", seed);
}

FeatureExtractor FeatureExtractor::untrained(std::uint64_t seed) const {
  return {impl_->config_model, impl_->config_head, seed, impl_->layer, impl_->wanted_device};
}

FeatureExtractor FeatureExtractor::load(const comm::Communicator& comm, const std::string& path, Layer layer,
                                        const std::string& device) {
  std::shared_ptr<Impl> impl;
  std::string file, architecture;
  comm::agree(comm, "choosing the device", [&] { device::chosen_space(device); });
  comm::agree(comm, "read weights", [&] {
    if (!comm.is_root()) return;
    file = checkpoint::resolve(path);
    const auto weights = weights::read_weights(file);
    impl = FeatureExtractor(weights, layer, file, device).impl_;
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
    impl = std::make_shared<Impl>(model, head, layer, file, device);
  });
  comm.broadcast(impl->parameters.data(), impl->parameters.bytes());
  comm.broadcast(impl->buffers.on_host(), impl->buffers.bytes());
  comm.broadcast(impl->recipe.weights);
  comm.broadcast(&impl->recipe.update, sizeof impl->recipe.update);
  for (auto* values : {&impl->normalisation.mean, &impl->normalisation.std})
    comm.broadcast(values->data(), values->size() * sizeof(double));
  return FeatureExtractor(std::move(impl));
}

void FeatureExtractor::recalibrate(const comm::Communicator& comm, const data::DataSet& data, std::int64_t images,
                                   const data::EvalOptions& options) {
  auto& impl = *impl_;
  comm::agree(comm, "choosing the device", [&] { impl.start(); });
  GroupSum group(comm, impl.queue);
  const auto wanted = std::min(images, static_cast<std::int64_t>(data.images()));
  comm::agree(comm, "BatchNorm statistics", [&] {
    if (wanted >= comm.size()) return;
    throw Error(ExitCode::input, fmt::format("BatchNorm statistics: {} images for {} ranks", wanted, comm.size()),
                "use at least one image a rank");
  });
  const auto batch = std::min(wanted, std::max<std::int64_t>(options.batch, comm.size())), batches = wanted / batch;
  const auto order = drawn_evenly(data.images(), wanted);
  const auto size = static_cast<std::uint64_t>(batch);
  const auto begin = slice_begin(size, comm.rank(), comm.size()), end = slice_begin(size, comm.rank() + 1, comm.size());
  Eta eta(static_cast<double>(batches));
  const std::span<float> statistics(impl.buffers.on_host(), impl.buffers.size());
  std::vector<double> sums(statistics.size(), 0.0);
  std::vector<float> pixels, unused;
  const auto ctx = impl.context(nn::Mode::train, &group);
  for (std::int64_t b = 0; b < batches; ++b) {
    const auto part = std::span(order).subspan(static_cast<std::uint64_t>(b) * size + begin, end - begin);
    const auto tensor = read_images(data, part, impl.normalised(options), pixels);
    // A layer stores (1 - m) old + m batch. With old = 0 this is m times the batch statistic.
    std::ranges::fill(statistics, 0.0F);
    impl.buffers.send(impl.queue);
    unused.resize(static_cast<std::size_t>(tensor.shape.n * impl.dimension()));
    impl.forward(ctx, tensor, unused.data());
    impl.buffers.fetch(impl.queue);
    impl.queue.wait();
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<double>(statistics[i]);
    eta.done(1);
    log::progress(fmt::format("BatchNorm statistics of {} from {}: batch {}/{}{}", impl.source, describe(data), b + 1,
                              batches, time_left(eta)));
  }
  log::finish_progress();
  const double scale = 1.0 / (static_cast<double>(nn::BatchNormLayer::kMomentum) * static_cast<double>(batches));
  for (std::size_t i = 0; i < sums.size(); ++i) statistics[i] = static_cast<float>(sums[i] * scale);
  impl.buffers.send(impl.queue);
  impl.queue.wait();
  impl.pool.trim();
  ImageSetSum set;
  set.add(my_checksums(data, comm));
  impl.recipe.recalibration_data = set.fingerprint(comm);
  impl.recipe.recalibration_images = batches * batch;
}

std::int64_t FeatureExtractor::run(const comm::Communicator& comm, const data::DataSet& data,
                                   const data::EvalOptions& options, const Sink& sink) {
  auto& impl = *impl_;
  const auto features_of = [&](const data::EvalBatch& batch) {
    impl.start();
    std::vector<float> values(static_cast<std::size_t>(batch.images * impl.dimension()));
    impl.forward(impl.context(nn::Mode::eval), batch.pixels, values.data());
    const auto bad = std::ranges::find_if(values, [](float x) { return !std::isfinite(x); });
    if (bad != values.end())
      throw Error(ExitCode::numerics,
                  fmt::format("{}: features of image {} are not finite", impl.source,
                              batch.indices[static_cast<std::size_t>((bad - values.begin()) / impl.dimension())]),
                  "these weights have diverged; take an earlier checkpoint");
    return values;
  };
  return for_each_batch(comm, data, impl.normalised(options),
                        fmt::format("features of {} by {}", describe(data), impl.source), features_of, sink);
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
  recipe.resize = options.resize;
  recipe.crop = options.crop;
  recipe.mean = fmt::format("{}", fmt::join(impl_->normalisation.mean, " "));
  recipe.std = fmt::format("{}", fmt::join(impl_->normalisation.std, " "));
  recipe.precision = "fp32";
  return {.source = impl_->source,
          .data = describe(data),
          .layer = impl_->layer == Layer::head ? "head" : "trunk",
          .recipe = recipe,
          .classes = data.classes(),
          .images = data.images(),
          .dimension = impl_->dimension()};
}

std::int64_t FeatureExtractor::dimension() const {
  return impl_->dimension();
}
const std::string& FeatureExtractor::source() const {
  return impl_->source;
}
const config::Model& FeatureExtractor::model() const {
  return impl_->config_model;
}
const float* FeatureExtractor::buffers() const {
  return impl_->buffers.on_host();
}

}  // namespace seer::eval
