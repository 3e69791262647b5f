// SPDX-License-Identifier: Apache-2.0
// Estimates BatchNorm's running statistics anew.
#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "extractor.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/random.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/nn/layers.hpp"

namespace seer::eval {
namespace {

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

void FeatureExtractor::recalibrate(const comm::Communicator& comm, const data::DataSet& data, std::int64_t images,
                                   const data::EvalOptions& options) {
  auto& impl = *impl_;
  std::int64_t width = 0;
  comm::agree(comm, "choosing the device", [&] {
    impl.start();
    width = impl.dimension(options.crop);
  });
  GroupSum group(comm, impl.queue);
  const auto wanted = std::min(images, static_cast<std::int64_t>(data.images()));
  comm::agree(comm, "BatchNorm statistics", [&] {
    if (options.whole > 0)
      throw Error(ExitCode::input, "BatchNorm statistics of whole images: batches need images of one size",
                  "leave out --whole or --recalibrate-batchnorm");
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
    unused.resize(static_cast<std::size_t>(tensor.shape.n * width));
    impl.forward(ctx, tensor, unused.data(), width);
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

}  // namespace seer::eval
