// SPDX-License-Identifier: Apache-2.0
#include "seer/data/eval_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "pipeline.hpp"
#include "seer/base/log.hpp"

namespace seer::data {

void raw_pixels(const Image& image, std::int64_t side, AugmentScratch& scratch, float* out) {
  kernels::crop_resize(image.rgb.data(), image.width * 3, {0, 0, image.width, image.height}, side, side,
                       kernels::Flip::no, scratch.image, scratch.planes);
  kernels::to_unit_range(scratch.planes, out);
}

namespace {

/// Resizes so that the longer side has at most `longest` pixels, as Pillow's thumbnail with a bilinear filter.
void whole_image(const Image& image, std::int64_t longest, AugmentScratch& scratch, kernels::Planes& out) {
  const auto longer = std::max(image.width, image.height), most = std::min(longest, longer);
  const auto scaled = [&](std::int64_t side) {
    return std::max<std::int64_t>(1, std::lround(static_cast<double>(side * most) / static_cast<double>(longer)));
  };
  kernels::crop_resize(image.rgb.data(), image.width * 3, {0, 0, image.width, image.height}, scaled(image.width),
                       scaled(image.height), kernels::Flip::no, scratch.image, out);
}

}  // namespace

struct EvalReader::Impl {
  struct Slot {
    EvalBatch batch;
    device::Buffer memory;
    Fetch fetch;
  };
  struct Worker {
    Image image;
    kernels::Planes planes;
    AugmentScratch scratch;
  };

  Impl(const DataSet& data_in, std::uint64_t first_in, std::uint64_t last_in, const EvalOptions& options_in)
      : data(data_in),
        first(first_in),
        last(std::max(first_in, last_in)),
        options(options_in),
        rows(std::max<std::int64_t>(options.views.count, 1)),
        side(options.views.count > 0 ? options.views.kind.size
             : options.raw_side > 0  ? options.raw_side
             : options.whole > 0     ? options.whole
                                     : options.crop),
        slots(static_cast<std::size_t>(std::max<std::int64_t>(options.batches_ahead, 1) + 1)),
        workers(static_cast<std::size_t>(std::max<std::int64_t>(options.threads, 1))) {
    if (options.max_pixels == 0) options.max_pixels = data.max_pixels();
    if (options.whole > 0) options.batch = 1;
    options.views.kind.augment.mean = options.normalisation.mean;
    options.views.kind.augment.std = options.normalisation.std;
    ensure(options.batch > 0 && side > 0 && last <= data.images(), "evaluation reader: sizes and range");
    for (auto& slot : slots) {
      slot.memory = device::Buffer::floats(static_cast<std::size_t>(options.batch * rows * side * side * 3));
      slot.batch.pixels.data = slot.memory.data();
    }
    pipeline = std::make_unique<Pipeline>(
        workers.size(), slots.size(), 0, (static_cast<std::int64_t>(last - first) + options.batch - 1) / options.batch,
        Pipeline::Work{[this](std::int64_t batch, std::size_t slot) { return prepare(batch, slot); },
                       [this](std::size_t slot, std::int64_t job, std::size_t worker) { run(slot, job, worker); }});
  }

  std::int64_t prepare(std::int64_t number, std::size_t slot_index) {
    Slot& slot = slots[slot_index];
    const std::uint64_t begin = first + static_cast<std::uint64_t>(number * options.batch);
    const std::uint64_t count = std::min(static_cast<std::uint64_t>(options.batch), last - begin);
    auto& batch = slot.batch;
    batch.images = static_cast<std::int64_t>(count);
    batch.pixels.shape = {batch.images * rows, side, side, 3};
    batch.indices.resize(count);
    std::iota(batch.indices.begin(), batch.indices.end(), begin);
    batch.labels = data.labels(begin, count);
    batch.bad.assign(count, 0);
    slot.fetch.plan(data.places(begin, count));
    return batch.images;
  }

  void run(std::size_t slot_index, std::int64_t job, std::size_t worker_index) {
    Slot& slot = slots[slot_index];
    Worker& worker = workers[worker_index];
    const std::int64_t image = slot.fetch.image(job);
    const auto tensor = slot.batch.pixels.slice(image * rows, rows);
    const auto encoded = slot.fetch.bytes(data, image);
    try {
      require_intact(slot.fetch.place(image), encoded);
      decode(encoded, options.max_pixels, worker.image);
    } catch (const Error& error) {
      if (error.code() != ExitCode::file) throw;
      log::warn(fmt::format("bad image: {}: {}", data.describe(slot.batch.indices[static_cast<std::size_t>(image)]),
                            error.what()));
      slot.batch.bad[static_cast<std::size_t>(image)] = 1;
      std::fill_n(tensor.f32(), tensor.elems(), 0.0F);
      slot.fetch.release(image);
      return;
    }
    slot.fetch.release(image);
    const auto index = slot.batch.indices[static_cast<std::size_t>(image)];
    if (options.change) options.change(index, worker.image);
    for (std::int64_t v = 0; v < options.views.count; ++v) {
      const auto& kind = options.views.kind;
      const auto plan = plan_crop(kind, worker.image.width, worker.image.height, options.views.seed, index,
                                  static_cast<std::uint32_t>(v));
      apply_crop(worker.image, plan, kind, worker.scratch, tensor.slice(v, 1).f32());
    }
    if (options.views.count > 0) return;
    if (options.raw_side > 0) return raw_pixels(worker.image, side, worker.scratch, tensor.f32());
    if (options.whole > 0) {
      whole_image(worker.image, options.whole, worker.scratch, worker.planes);
      slot.batch.pixels.shape = {1, worker.planes.height, worker.planes.width, 3};
    } else if (options.squash) {
      kernels::crop_resize(worker.image.rgb.data(), worker.image.width * 3,
                           {0, 0, worker.image.width, worker.image.height}, side, side, kernels::Flip::no,
                           worker.scratch.image, worker.planes);
    } else {
      center_crop(worker.image, options.resize, options.crop, worker.scratch, worker.planes);
    }
    const auto& normal = options.normalisation;
    kernels::normalise(worker.planes, floats(normal.mean).data(), floats(normal.std).data(), tensor.f32());
  }

  const DataSet& data;
  std::uint64_t first, last;
  EvalOptions options;
  std::int64_t rows;  ///< per image
  std::int64_t side;
  std::vector<Slot> slots;
  std::vector<Worker> workers;
  std::unique_ptr<Pipeline> pipeline;  // last: its threads use everything above
};

EvalReader::EvalReader(const DataSet& data, std::uint64_t first, std::uint64_t last, const EvalOptions& options)
    : impl_(std::make_unique<Impl>(data, first, last, options)) {}

EvalReader::~EvalReader() = default;

const EvalBatch* EvalReader::next() {
  const auto slot = impl_->pipeline->next();
  if (!slot) return nullptr;
  const auto& batch = impl_->slots[*slot].batch;
  bad_images_ += std::accumulate(batch.bad.begin(), batch.bad.end(), std::int64_t{0});
  return &batch;
}

}  // namespace seer::data
