// SPDX-License-Identifier: Apache-2.0
#include "seer/data/loader.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "device_feed.hpp"
#include "fetch.hpp"
#include "pipeline.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/random.hpp"
#include "seer/base/utf8.hpp"
#include "seer/data/augment.hpp"
#include "seer/data/sampler.hpp"
#include "seer/device/memory.hpp"

namespace seer::data {
namespace {

constexpr std::uint32_t kReplacementTries = 32;  // consecutive bad replacements before the loader gives up

/// One ring slot: a batch, its memory and the work to fill it.
struct Slot {
  Batch batch;
  device::Buffer memory;
  std::vector<ImagePlace> places;
  std::vector<std::vector<std::int32_t>> targets;  // per image
  Fetch fetch;
  std::vector<std::int64_t> order;  // job -> image of the batch
  std::atomic<std::int64_t> replaced{0};
  // Images that the device will decode, after all others are decoded.
  struct Claim {
    std::int64_t image = 0, place = 0;  // place: bytes from the start of the slot's block on the device
    DeviceDecoder::Size size;
  };
  std::vector<Claim> claims;
  std::atomic<std::size_t> claimed{0};
};

/// What one worker thread reuses from image to image.
struct Worker {
  Image image;
  std::vector<std::uint8_t> encoded;
  AugmentScratch scratch;
  std::vector<CropPlan> plans;
  std::int64_t counted = 0;  // this worker's bytes as counted in worker_bytes
};

}  // namespace

struct ShardLoader::Impl {
  Impl(const config::Config& config_in, DataSet data_in, int rank_in, int ranks, std::size_t threads_in, Start start_in,
       std::shared_ptr<DeviceParts> parts_in)
      : config(config_in),
        start(start_in),
        data(std::move(data_in)),
        sampler(data.images(), static_cast<std::uint64_t>(config.data.seed),
                static_cast<std::uint64_t>(config.data.block_images),
                static_cast<std::uint64_t>(config.data.window_blocks)),
        places(data, sampler.block_images(), static_cast<std::size_t>(2 * config.data.window_blocks)),
        kinds(crop_kinds(config)),
        rank(rank_in),
        images_here(config.data.global_batch / ranks),
        slots(static_cast<std::size_t>(std::max<std::int64_t>(config.data.prefetch_batches, 1) + 1)),
        workers(threads_in),
        parts(std::move(parts_in)) {
    config.data.max_pixels = max_pixels(config, data);
    if (parts) {
      feed = std::make_unique<DeviceFeed>(config, images_here, slots.size(),
                                          parts->decoder ? DeviceFeed::Places::apart : DeviceFeed::Places::shared,
                                          std::move(parts->lanes));
      if (parts->decoder) {
        for (auto& slot : slots) slot.claims.resize(static_cast<std::size_t>(images_here));
        decoding.resize(static_cast<std::size_t>(images_here));
      }
      memory_bytes = feed->pinned_bytes();
      return;
    }
    for (auto& slot : slots) {
      slot.batch.images = images_here;
      slot.batch.groups = crop_groups(config.crops, images_here);
      std::size_t bytes = 0;
      for (const auto& group : slot.batch.groups)
        bytes += (static_cast<std::size_t>(group.images.bytes()) + 63) / 64 * 64;
      slot.memory = device::Buffer(bytes);
      memory_bytes += static_cast<std::int64_t>(bytes);
      char* at = static_cast<char*>(slot.memory.data());
      for (auto& group : slot.batch.groups) {
        group.images.data = at;
        at += (static_cast<std::size_t>(group.images.bytes()) + 63) / 64 * 64;
      }
    }
  }

  /// Global position, in the infinite sequence, of an image of this rank's part of update `update`.
  std::uint64_t position(std::int64_t update, std::int64_t image) const {
    return static_cast<std::uint64_t>(start.position(update, config.data.global_batch) + rank * images_here + image);
  }

  std::int64_t prepare(std::int64_t update, std::size_t slot_index) {
    Slot& slot = slots[slot_index];
    slot.batch.update = update;
    slot.batch.replaced = 0;
    slot.replaced = 0;
    slot.batch.positions.resize(static_cast<std::size_t>(images_here));
    slot.places.resize(static_cast<std::size_t>(images_here));
    slot.targets.resize(static_cast<std::size_t>(images_here));
    for (std::int64_t i = 0; i < images_here; ++i) {
      const std::uint64_t index = sampler.image(position(update, i));
      slot.batch.positions[static_cast<std::size_t>(i)] = index;
      slot.places[static_cast<std::size_t>(i)] = places.place(index);
      const auto targets = places.targets(index);
      slot.targets[static_cast<std::size_t>(i)].assign(targets.begin(), targets.end());
    }
    slot.order = slot.fetch.plan(slot.places);
    slot.claimed = 0;
    if (feed) feed->staging(slot_index).start();
    return images_here;
  }

  void run(std::size_t slot_index, std::int64_t job, std::size_t worker_index) {
    Slot& slot = slots[slot_index];
    Worker& worker = workers[worker_index];
    const std::int64_t image = slot.order[static_cast<std::size_t>(job)];
    const Clock clock;
    const auto encoded = slot.fetch.bytes(data, image);
    add(read_ns, clock);
    bytes_read += static_cast<std::int64_t>(encoded.size());
    if (claims(slot_index, image, encoded, worker_index)) return;
    load(slot, image, encoded, worker);
    deliver(slot_index, image, worker);
    const auto held = static_cast<std::int64_t>(worker.image.rgb.capacity() + worker.encoded.capacity());
    worker_bytes += held + worker.scratch.bytes() - std::exchange(worker.counted, held + worker.scratch.bytes());
  }

  /// Decodes the image, or a replacement if it is bad, into the worker's memory.
  void load(Slot& slot, std::int64_t image, std::span<const std::uint8_t> encoded, Worker& worker) {
    const std::uint64_t place = position(slot.batch.update, image);
    std::uint64_t& index = slot.batch.positions[static_cast<std::size_t>(image)];
    bool good = decodes(encoded, slot.places[static_cast<std::size_t>(image)], index, worker);
    slot.fetch.release(image);
    for (std::uint32_t attempt = 0; !good; ++attempt) {
      if (attempt == kReplacementTries)
        throw Error(ExitCode::file, fmt::format("{} images drawn in place of a bad one do not decode either", attempt),
                    "check the data set with `seer inspect`");
      // The position keys the random draw, so the replacement is the same for any rank count and in a resumed run.
      index = Random(static_cast<std::uint64_t>(config.data.seed), Purpose::replacement, place, attempt)
                  .below(data.images());
      Clock clock;
      const auto other = data.read_image(index, worker.encoded);
      add(read_ns, clock);
      bytes_read += static_cast<std::int64_t>(worker.encoded.size());
      good = decodes(worker.encoded, other, index, worker);
      if (attempt == 0) ++slot.replaced;
      if (good && data.has_labels()) slot.targets[static_cast<std::size_t>(image)] = data.targets(index, 1).values;
    }
  }

  CropPlan plan(const Slot& slot, std::int64_t image, int crop, std::int64_t width, std::int64_t height) const {
    return plan_crop(kinds[static_cast<std::size_t>(crop)], width, height, static_cast<std::uint64_t>(config.data.seed),
                     position(slot.batch.update, image), static_cast<std::uint32_t>(crop));
  }
  void plan_all(const Slot& slot, std::int64_t image, std::int64_t width, std::int64_t height, Worker& worker) const {
    worker.plans.clear();
    for (int crop = 0; crop < static_cast<int>(kinds.size()); ++crop)
      worker.plans.push_back(plan(slot, image, crop, width, height));
  }

  /// Makes crops of the worker's image, or stages it for the device, which then makes the crops.
  void deliver(std::size_t slot_index, std::int64_t image, Worker& worker) {
    const Slot& slot = slots[slot_index];
    const Clock clock;
    if (feed) {
      plan_all(slot, image, worker.image.width, worker.image.height, worker);
      feed->staging(slot_index).add(image, worker.image, worker.plans, worker.scratch);
    } else {
      for (const auto& group : slot.batch.groups) {
        for (int c = 0; c < group.count; ++c) {
          const auto crop = group.first_crop + c;
          const auto drawn = plan(slot, image, crop, worker.image.width, worker.image.height);
          const auto out = group.images.slice(c * images_here + image, 1);
          apply_crop(worker.image, drawn, kinds[static_cast<std::size_t>(crop)], worker.scratch, out.f32());
        }
      }
    }
    add(augment_ns, clock);
    pixels += worker.image.width * worker.image.height;
    ++images_done;
  }

  /// Returns whether the device will decode the image. If so, its bytes stay in memory until then.
  bool claims(std::size_t slot_index, std::int64_t image, std::span<const std::uint8_t> encoded,
              std::size_t worker_index) {
    if (!feed || !parts->decoder) return false;
    Slot& slot = slots[slot_index];
    Worker& worker = workers[worker_index];
    const Clock clock;
    try {
      require_intact(slot.places[static_cast<std::size_t>(image)], encoded);
    } catch (const Error& error) {
      if (error.code() != ExitCode::file) throw;
      return false;  // load() meets the error again and reports it
    }
    const auto size = parts->decoder->takes(encoded, config.data.max_pixels, worker_index);
    if (!size) return false;
    plan_all(slot, image, size->width, size->height, worker);
    const auto at = feed->staging(slot_index).claim(image, size->width, size->height, worker.plans);
    if (at) slot.claims[slot.claimed++] = {image, *at, *size};
    add(decode_ns, clock);
    return at.has_value();
  }

  /// After all other images of the batch are decoded: the device decodes its part, the host those that it fails on.
  void finish(std::size_t slot_index, std::size_t worker_index) {
    Slot& slot = slots[slot_index];
    const std::span<Slot::Claim> mine(slot.claims.data(), slot.claimed.load());
    if (mine.empty()) return;
    const std::lock_guard lock(decoding_mutex);
    const Clock clock;
    const std::span<DeviceDecoder::Job> jobs(decoding.data(), mine.size());
    for (std::size_t i = 0; i < mine.size(); ++i)
      jobs[i] = {slot.fetch.bytes(data, mine[i].image), feed->place(slot_index) + mine[i].place, mine[i].size, false};
    parts->decoder->decode(jobs);
    add(decode_ns, clock);
    for (std::size_t i = 0; i < mine.size(); ++i) {
      if (jobs[i].done) {
        slot.fetch.release(mine[i].image);
        ++images_done;
        continue;
      }
      load(slot, mine[i].image, jobs[i].bytes, workers[worker_index]);
      deliver(slot_index, mine[i].image, workers[worker_index]);
    }
  }

  /// Fills in the parts of a batch that are known once all its images are decoded.
  static void complete(Slot& slot) {
    slot.batch.replaced = slot.replaced;
    slot.batch.targets.begins.resize(1);
    slot.batch.targets.values.clear();
    for (const auto& of_image : slot.targets) slot.batch.targets.add(of_image);
  }

  /// Submits the device work for the next staged batch. Waits until the batch is staged, but not for that work.
  void make_next() {
    // The pipeline may refill its last slot only after the device has read it, so the slot goes back here.
    feed->settle();
    pipeline->give_back();
    const std::size_t index = pipeline->next().value();
    Slot& slot = slots[index];
    complete(slot);
    as_crops += feed->staging(index).images_as_crops();
    feed->make(index, slot.batch);
  }

  const Batch& next_on_device() {
    // This must come first, before the side queue has to wait for the training's work on the batch lent last.
    feed->settle();
    pipeline->give_back();
    feed->hand_back();
    if (early) std::rethrow_exception(std::exchange(early, nullptr));
    if (!feed->ahead()) make_next();
    const Batch& batch = feed->lend();
    if (pipeline->ready()) {
      try {
        make_next();
      } catch (...) {
        early = std::current_exception();  // an error of the next batch, not of this one
      }
    }
    return batch;
  }

  /// Decodes into the worker's image. Counts and reports a bad image and returns false; with policy "fail", throws.
  bool decodes(std::span<const std::uint8_t> encoded, const ImagePlace& at, std::uint64_t index, Worker& worker) {
    const Clock clock;
    try {
      require_intact(at, encoded);
      decode(encoded, config.data.max_pixels, worker.image);
      add(decode_ns, clock);
      return true;
    } catch (const Error& error) {
      if (error.code() != ExitCode::file) throw;
      const std::string where = data.describe(index);
      if (config.data.bad_image_policy == "fail")
        throw Error(ExitCode::file, fmt::format("{}: {}", where, error.what()),
                    "repack the data set, or set data.bad_image_policy = \"replace\"");
      report_bad(index, where, error.what());
      return false;
    }
  }

  void report_bad(std::uint64_t index, const std::string& where, const std::string& reason) {
    ++bad;
    std::lock_guard lock(reported_mutex);
    if (!reported.insert(index).second) return;
    log::warn(fmt::format("bad image replaced: {}: {}", where, reason));
    if (!std::filesystem::is_directory(config.log.run_dir)) return;
    // Each line is one write, since several ranks append to the same file.
    const std::string line = nlohmann::json{{"image", index}, {"where", where}, {"reason", reason}}.dump(
                                 -1, ' ', false, nlohmann::json::error_handler_t::replace) +
                             "\n";
    const int file =
        ::open((config.log.run_dir + "/rejects.jsonl").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) return;
    [[maybe_unused]] const auto written = ::write(file, line.data(), line.size());
    ::close(file);
  }

  static void add(std::atomic<std::int64_t>& sum, const Clock& clock) {
    sum.fetch_add(static_cast<std::int64_t>(clock.ms() * 1e6), std::memory_order_relaxed);
  }

  config::Config config;
  Start start;
  DataSet data;
  Sampler sampler;
  PlaceCache places;
  std::vector<CropKind> kinds;
  std::int64_t rank, images_here;
  std::vector<Slot> slots;
  std::vector<Worker> workers;
  std::int64_t memory_bytes = 0;
  std::atomic<std::int64_t> worker_bytes{0}, bad{0}, images_done{0}, pixels{0}, bytes_read{0}, read_ns{0}, decode_ns{0},
      augment_ns{0};
  std::set<std::uint64_t> reported;
  std::mutex reported_mutex;
  std::shared_ptr<DeviceParts> parts;
  std::unique_ptr<DeviceFeed> feed;  // nullptr: batches on the host
  std::vector<DeviceDecoder::Job> decoding;
  std::mutex decoding_mutex;  // guards decoding and the decoder
  std::exception_ptr early;   // error of the batch after the one lent
  std::int64_t as_crops = 0;
  std::unique_ptr<Pipeline> pipeline;  // last: its threads use everything above
};

ShardLoader::ShardLoader(const config::Config& config, DataSet data, int rank, int ranks, std::size_t threads,
                         Start start, std::shared_ptr<DeviceParts> parts)
    : impl_(std::make_unique<Impl>(config, std::move(data), rank, ranks, threads, start, std::move(parts))) {
  auto* const impl = impl_.get();
  Pipeline::Work work{[impl](std::int64_t update, std::size_t slot) { return impl->prepare(update, slot); },
                      [impl](std::size_t slot, std::int64_t job, std::size_t worker) { impl->run(slot, job, worker); }};
  if (impl->parts && impl->parts->decoder)
    work.finish = [impl](std::size_t slot, std::size_t worker) { impl->finish(slot, worker); };
  impl_->pipeline = std::make_unique<Pipeline>(threads, impl_->slots.size(), start.update,
                                               std::numeric_limits<std::int64_t>::max(), std::move(work));
}

ShardLoader::~ShardLoader() = default;

const Batch& ShardLoader::next() {
  if (impl_->feed) return impl_->next_on_device();
  Slot& slot = impl_->slots[impl_->pipeline->next().value()];
  Impl::complete(slot);
  return slot.batch;
}

std::uint64_t ShardLoader::images() const {
  return impl_->data.images();
}

std::vector<ShardIdentity> ShardLoader::shards() const {
  std::vector<ShardIdentity> out;
  for (const auto& shard : impl_->data.shards()) {
    out.push_back({utf8_name(std::filesystem::path(shard.path).filename().string()),
                   static_cast<std::int64_t>(shard.file_bytes), static_cast<std::int64_t>(shard.images)});
  }
  return out;
}

std::int64_t ShardLoader::bad_images() const {
  return impl_->bad;
}

std::int64_t ShardLoader::bytes_held() const {
  std::int64_t bytes = impl_->memory_bytes + impl_->places.bytes() + impl_->worker_bytes;
  for (const auto& slot : impl_->slots) bytes += slot.fetch.bytes_held();
  return bytes;
}

std::int64_t ShardLoader::device_bytes_held() const {
  return impl_->feed ? impl_->feed->device_bytes() : 0;
}

std::int64_t ShardLoader::images_as_crops() const {
  return impl_->as_crops;
}

LoaderTimes ShardLoader::times() const {
  const auto ms = [](const std::atomic<std::int64_t>& ns) { return static_cast<double>(ns.load()) * 1e-6; };
  return {impl_->images_done,   impl_->bytes_read,     ms(impl_->read_ns),
          ms(impl_->decode_ns), ms(impl_->augment_ns), impl_->pixels};
}

std::size_t ShardLoader::threads() const {
  return impl_->workers.size();
}

}  // namespace seer::data
