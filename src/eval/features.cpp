// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/features.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>

#include "seer/base/checksum.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/eta.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/pinned.hpp"
#include "seer/dnn/device_backend.hpp"
#include "seer/nn/batchnorm.hpp"
#include "seer/nn/model.hpp"

#include "sample_reader.hpp"
#include "share.hpp"

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
    if (found == tensors.end()) {
      throw Error(ExitCode::file, fmt::format("{}: no tensor \"{}\", wanted one of shape [{}]", source, entry.name,
                                              fmt::join(entry.shape, ", ")));
    }
    if (found->second.shape != entry.shape) {
      throw Error(ExitCode::file, fmt::format("{}: \"{}\" has shape [{}], the model wants [{}]", source, entry.name,
                                              fmt::join(found->second.shape, ", "), fmt::join(entry.shape, ", ")));
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

std::string time_left(const Eta& eta) {
  const auto seconds = eta.seconds_left();
  return seconds && *seconds > 0 ? fmt::format(", {} left", duration_text(*seconds)) : "";
}

}  // namespace

struct FeatureExtractor::Impl {
  Impl(const config::Model& model_config, const config::Head& head_config, Layer wanted, std::string from)
      : config_model(model_config),
        config_head(head_config),
        layer(wanted),
        source(std::move(from)),
        model(config_model, nn::projection_heads(head_for(config_head, layer))),
        parameters(device::Buffer::floats(static_cast<std::size_t>(model.parameters().block_elems()))),
        buffers(device::Buffer::floats(static_cast<std::size_t>(model.buffers().block_elems()))) {
    recipe.recalibration_images = 0;
    recipe.recalibration_data = "none";
    if (layer == Layer::head && model.heads().empty()) {
      throw Error(ExitCode::input, fmt::format("{}: has no head, so --layer head cannot be had", source),
                  "use --layer trunk");
    }
  }

  /// Chooses host or device on the first call and prepares to compute there; later calls do nothing.
  void start() {
    if (dnn != nullptr) return;
    const auto space = device::chosen_space(wanted_device);
    if (space == device::Space::device) {
      own_queue = std::make_unique<device::DeviceQueue>();
      queue = own_queue->queue();
      on_device.parameters = device::Buffer(parameters.bytes(), space);
      on_device.buffers = device::Buffer(buffers.bytes(), space);
      device::copy(queue, parameters.data(), device::Space::host, on_device.parameters.data(), space,
                   parameters.bytes());
      send_buffers();
    }
    pool = std::make_unique<device::Pool>(space);
    // Do not choose algorithms by measured time: batch sizes differ between ranks, and features should not depend on
    // timing.
    dnn = dnn::make_backend(space, {.deterministic = true, .measured = false});
  }

  /// Copy the running statistics to the device, and back.
  void send_buffers() {
    if (own_queue == nullptr) return;
    device::copy(queue, buffers.data(), device::Space::host, on_device.buffers.data(), queue.space, buffers.bytes());
    queue.wait();
  }
  void fetch_buffers() {
    if (own_queue == nullptr) return;
    device::copy(queue, on_device.buffers.data(), queue.space, buffers.data(), device::Space::host, buffers.bytes());
    queue.wait();
  }

  nn::Context context(nn::Mode mode, nn::StatisticsReduction* group = nullptr) {
    nn::Context ctx;
    ctx.dnn = dnn.get();
    ctx.pool = pool.get();
    ctx.queue = queue;
    ctx.parameters = own_queue != nullptr ? on_device.parameters.f32() : parameters.f32();
    ctx.buffers = own_queue != nullptr ? on_device.buffers.f32() : buffers.f32();
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
    if (pixels.space == queue.space) return pixels;
    const auto bytes = static_cast<std::size_t>(pixels.bytes());
    if (on_device.pixels.bytes() < bytes) {
      on_device.pixels = device::Buffer(bytes, queue.space);
      pinned_pixels = device::PinnedBuffer(bytes);
    }
    std::memcpy(pinned_pixels.data(), pixels.data, bytes);
    device::copy(queue, pinned_pixels.data(), device::Space::host, on_device.pixels.data(), queue.space, bytes);
    pixels.data = on_device.pixels.data();
    pixels.space = queue.space;
    return pixels;
  }

  /// pixels: [n, h, w, 3]; out: n rows of dimension(), on the host.
  void forward(const nn::Context& ctx, device::Tensor pixels, float* out) {
    const auto trunk_pass = model.trunk().make_pass();
    const auto n = pixels.shape.n;
    if (layer == Layer::trunk && own_queue == nullptr) {
      model.trunk().forward_all(ctx, pixels, *trunk_pass, {.data = out, .shape = {n, 1, 1, dimension()}});
      return;
    }
    auto rows = pool->tensor({n, 1, 1, model.trunk().width()});
    model.trunk().forward_all(ctx, bring(pixels), *trunk_pass, *rows);
    if (layer == Layer::head) {
      const auto& projector = *model.heads()[0];
      auto embeddings = pool->tensor({n, 1, 1, projector.width()});
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
  device::Buffer parameters, buffers;  ///< on the host
  std::string wanted_device = "auto";
  std::unique_ptr<device::DeviceQueue> own_queue;  ///< null: computes on the host
  device::Queue queue;
  struct {
    device::Buffer parameters, buffers, pixels;
  } on_device;
  device::PinnedBuffer pinned_pixels;
  std::unique_ptr<dnn::Backend> dnn;
  std::unique_ptr<device::Pool> pool;
};

namespace {

std::int64_t first_non_finite(const std::vector<float>& values) {
  const auto found = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  return found == values.end() ? -1 : found - values.begin();
}

}  // namespace

FeatureExtractor::FeatureExtractor(const weights::Weights& weights, Layer layer, const std::string& source)
    : impl_(std::make_unique<Impl>(weights.model, weights.head, layer, source)) {
  copy_block(weights.parameters, impl_->model.parameters(), source, impl_->parameters.f32());
  copy_block(weights.buffers, impl_->model.buffers(), source, impl_->buffers.f32());
  impl_->recipe.weights = fingerprint(weights);
}

FeatureExtractor::FeatureExtractor(const config::Model& model, const config::Head& head, std::uint64_t seed,
                                   Layer layer)
    : impl_(std::make_unique<Impl>(model, head, layer, "random initialisation")) {
  impl_->model.initialize(seed, impl_->parameters.f32(), impl_->buffers.f32());
  impl_->recipe.weights = fmt::format("random, seed {}", seed);
}

FeatureExtractor::FeatureExtractor(FeatureExtractor&&) noexcept = default;
FeatureExtractor& FeatureExtractor::operator=(FeatureExtractor&&) noexcept = default;
FeatureExtractor::~FeatureExtractor() = default;

FeatureExtractor FeatureExtractor::load(const comm::Communicator& comm, const std::string& path, Layer layer) {
  std::unique_ptr<FeatureExtractor> mine;
  std::string file, architecture;
  comm::agree(comm, "read weights", [&] {
    if (!comm.is_root()) return;
    file = checkpoint::resolve(path);
    const auto weights = weights::read_weights(file);
    mine = std::make_unique<FeatureExtractor>(weights, layer, file);
    mine->impl_->read_origin(file, weights.about);
    architecture = architecture_text(weights.model, weights.head);
  });
  comm.broadcast(file);
  comm.broadcast(architecture);
  comm::agree(comm, "make the model", [&] {
    if (comm.is_root()) return;
    const auto [model, head] = parse_architecture(architecture);
    mine = std::make_unique<FeatureExtractor>(FeatureExtractor(std::make_unique<Impl>(model, head, layer, file)));
  });
  broadcast_block(comm, mine->impl_->parameters.data(), mine->impl_->parameters.bytes());
  broadcast_block(comm, mine->impl_->buffers.data(), mine->impl_->buffers.bytes());
  auto& recipe = mine->impl_->recipe;
  auto& normalisation = mine->impl_->normalisation;
  comm.broadcast(recipe.weights);
  comm.broadcast(&recipe.update, sizeof recipe.update);
  for (auto* values : {&normalisation.mean, &normalisation.std}) {
    comm.broadcast(values->data(), values->size() * sizeof(double));
  }
  return std::move(*mine);
}

void FeatureExtractor::recalibrate(const comm::Communicator& comm, const data::DataSet& data, std::int64_t images,
                                   const data::EvalOptions& options) {
  auto& impl = *impl_;
  comm::agree(comm, "choosing the device", [&] { impl.start(); });
  GroupSum group(comm, impl.queue);
  SampleReader reader(comm, data, images, impl.normalised(options));
  Eta eta(static_cast<double>(reader.batches()));
  const auto elems = static_cast<std::size_t>(impl.model.buffers().block_elems());
  std::vector<double> sums(elems, 0.0);
  std::vector<float> unused;
  std::int64_t batches = 0;
  const auto ctx = impl.context(nn::Mode::train, &group);
  while (const device::Tensor* pixels = reader.next()) {
    // A layer stores (1 - m) old + m batch. With old = 0 this is m times the batch statistic.
    std::fill_n(impl.buffers.f32(), elems, 0.0F);
    impl.send_buffers();
    unused.resize(static_cast<std::size_t>(pixels->shape.n * impl.dimension()));
    impl.forward(ctx, *pixels, unused.data());
    impl.fetch_buffers();
    for (std::size_t i = 0; i < elems; ++i) sums[i] += static_cast<double>(impl.buffers.f32()[i]);
    eta.done(1);
    log::progress(fmt::format("BatchNorm statistics of {} from {}: batch {}/{}{}", impl.source, describe(data),
                              ++batches, reader.batches(), time_left(eta)));
  }
  log::finish_progress();
  const double scale = 1.0 / (static_cast<double>(nn::BatchNormLayer::kMomentum) * static_cast<double>(batches));
  for (std::size_t i = 0; i < elems; ++i) impl.buffers.f32()[i] = static_cast<float>(sums[i] * scale);
  impl.send_buffers();
  impl.pool->trim();
  ImageSetSum set;
  set.add(my_checksums(data, comm));
  impl.recipe.recalibration_data = set.fingerprint(comm);
  impl.recipe.recalibration_images = reader.images();
}

std::int64_t FeatureExtractor::run(const comm::Communicator& comm, const data::DataSet& data,
                                   const data::EvalOptions& options, const Sink& sink) {
  auto& impl = *impl_;
  std::int64_t bad = 0;
  comm::agree(comm, "features", [&] {
    const std::uint64_t first = slice_begin(data.images(), comm.rank(), comm.size());
    const std::uint64_t last = slice_begin(data.images(), comm.rank() + 1, comm.size());
    if (first == last) return;
    impl.start();
    data::EvalReader reader(data, first, last, impl.normalised(options));
    const auto ctx = impl.context(nn::Mode::eval);
    std::vector<float> values;
    std::uint64_t done = 0;
    const Clock clock;
    Eta eta(static_cast<double>(last - first));
    while (const auto* batch = reader.next()) {
      values.resize(static_cast<std::size_t>(batch->images * impl.dimension()));
      impl.forward(ctx, batch->pixels, values.data());
      if (const auto at = first_non_finite(values); at >= 0) {
        throw Error(ExitCode::numerics,
                    fmt::format("{}: features of image {} are not finite", impl.source,
                                batch->indices[static_cast<std::size_t>(at / impl.dimension())]),
                    "these weights have diverged; take an earlier checkpoint");
      }
      const auto count = static_cast<std::uint64_t>(batch->images);
      const auto sums = checksums(data, first + done, count);
      sink({first + done, count, values.data(), batch->labels.data(), batch->indices.data(), batch->bad.data(),
            sums.data()});
      done += count;
      eta.done(static_cast<double>(count));
      log::progress(fmt::format("features of {} by {}: {}/{} images, {:.1f} images/s{}", describe(data), impl.source,
                                std::min(done * static_cast<std::uint64_t>(comm.size()), data.images()), data.images(),
                                static_cast<double>(done) * comm.size() / clock.seconds(), time_left(eta)));
    }
    bad = reader.bad_images();
    ensure(done == last - first, "the evaluation reader handed out every image of its slice");
  });
  log::finish_progress();
  return comm.all_reduce(bad, comm::Op::sum);
}

FeatureTable FeatureExtractor::table(const comm::Communicator& comm, const data::DataSet& data,
                                     const data::EvalOptions& options) {
  FeatureTable out;
  out.info = info(data, options);
  out.first = slice_begin(data.images(), comm.rank(), comm.size());
  run(comm, data, options, [&](const FeatureRows& rows) { out.append(rows); });
  return out;
}

FeatureTable pixel_table(const comm::Communicator& comm, const data::DataSet& data, std::int64_t side,
                         const data::EvalOptions& options) {
  FeatureTable out;
  out.info = {.source = "raw pixels",
              .data = describe(data),
              .layer = "pixels",
              .recipe = {.weights = "none",
                         .resize = side,
                         .crop = side,
                         .mean = "0 0 0",
                         .std = "1 1 1",
                         .recalibration_images = 0,
                         .recalibration_data = "none",
                         .precision = "fp32"},
              .classes = data.classes(),
              .images = data.images(),
              .dimension = side * side * 3};
  out.first = slice_begin(data.images(), comm.rank(), comm.size());
  comm::agree(comm, "raw pixels", [&] {
    const std::uint64_t last = slice_begin(data.images(), comm.rank() + 1, comm.size());
    if (out.first == last) return;
    data::EvalOptions raw = options;
    raw.raw_side = side;
    data::EvalReader reader(data, out.first, last, raw);
    Eta eta(static_cast<double>(last - out.first));
    while (const auto* batch = reader.next()) {
      const auto count = static_cast<std::uint64_t>(batch->images);
      const auto sums = checksums(data, out.first + out.rows(), count);
      out.append({out.first + out.rows(), count, batch->pixels.f32(), batch->labels.data(), batch->indices.data(),
                  batch->bad.data(), sums.data()});
      eta.done(static_cast<double>(count));
      log::progress(fmt::format("raw pixels of {}: {}/{} images{}", out.info.data,
                                std::min(out.rows() * static_cast<std::uint64_t>(comm.size()), data.images()),
                                data.images(), time_left(eta)));
    }
  });
  return out;
}

std::string describe(const data::DataSet& data) {
  const auto& shards = data.shards();
  return shards.size() == 1 ? shards.front().path
                            : fmt::format("{} and {} more shards", shards.front().path, shards.size() - 1);
}

void FeatureExtractor::compute_on(const std::string& device) {
  ensure(impl_->dnn == nullptr, "where to compute is said before the first forward pass");
  impl_->wanted_device = device;
}

FeatureInfo FeatureExtractor::info(const data::DataSet& data, const data::EvalOptions& options) const {
  auto recipe = impl_->recipe;
  recipe.read_with(impl_->normalised(options));
  return {.source = impl_->source,
          .data = describe(data),
          .layer = impl_->layer == Layer::head ? "head" : "trunk",
          .recipe = recipe,
          .classes = data.classes(),
          .images = data.images(),
          .dimension = impl_->dimension()};
}

FeatureExtractor::FeatureExtractor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
std::int64_t FeatureExtractor::dimension() const {
  return impl_->dimension();
}
const std::string& FeatureExtractor::source() const {
  return impl_->source;
}
const config::Model& FeatureExtractor::model() const {
  return impl_->config_model;
}
const config::Head& FeatureExtractor::head() const {
  return impl_->config_head;
}
const float* FeatureExtractor::buffers() const {
  return impl_->buffers.f32();
}

}  // namespace seer::eval
