// SPDX-License-Identifier: Apache-2.0
#include "seer/data/source.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "device_feed.hpp"
#include "pipeline.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/names.hpp"
#include "seer/base/random.hpp"

namespace seer::data {
namespace {

constexpr std::uint32_t kReplacementTries = 32;  // consecutive bad replacements before the loader gives up

/// One ring slot: a batch, its memory and the work to fill it.
struct Slot {
  Batch batch;
  device::Buffer memory;
  std::vector<std::vector<std::int32_t>> targets, ignored;  // per image; ignored: empty if no shard has any
  Fetch fetch;
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

class Loader final : public ShardLoader {
 public:
  Loader(const config::Config& config_in, DataSet data_in, int rank_in, int ranks, std::size_t threads_in,
         Start start_in, Labels labels_in, std::shared_ptr<DeviceParts> parts_in)
      : config(config_in),
        start(start_in),
        labels(labels_in),
        data(std::move(data_in)),
        sampler(data.images(), static_cast<std::uint64_t>(config.data.seed),
                static_cast<std::uint64_t>(config.data.block_images),
                static_cast<std::uint64_t>(config.data.window_blocks)),
        places(data, sampler.block_images(), static_cast<std::size_t>(2 * config.data.window_blocks), labels),
        kinds(crop_kinds(config)),
        rank(rank_in),
        images_here(config.data.global_batch / ranks),
        slots(static_cast<std::size_t>(std::max<std::int64_t>(config.data.prefetch_batches, 1) + 1)),
        workers(threads_in),
        parts(std::move(parts_in)) {
    config.data.max_pixels = max_pixels(config, data);
    ignores = labels == Labels::read && std::ranges::any_of(data.shards(), [](const auto& s) { return s.ignored > 0; });
    if (parts) {
      feed = std::make_unique<DeviceFeed>(config, images_here, slots.size(),
                                          parts->decoder ? DeviceFeed::Places::apart : DeviceFeed::Places::shared,
                                          std::move(parts->lanes));
      if (parts->decoder) {
        for (auto& slot : slots) slot.claims.resize(static_cast<std::size_t>(images_here));
        decoding.resize(static_cast<std::size_t>(images_here));
      }
    } else {
      for (auto& slot : slots) {
        slot.batch.images = images_here;
        slot.batch.groups = crop_groups(config.crops, images_here);
        slot.memory = allocate(slot.batch.groups, 64, device::Space::host);
      }
    }
    Pipeline::Work work{[this](std::int64_t update, std::size_t slot) { return prepare(update, slot); },
                        [this](std::size_t slot, std::int64_t job, std::size_t worker) { run(slot, job, worker); }};
    if (parts && parts->decoder) work.finish = [this](std::size_t slot, std::size_t worker) { finish(slot, worker); };
    pipeline = std::make_unique<Pipeline>(workers.size(), slots.size(), start.update,
                                          std::numeric_limits<std::int64_t>::max(), std::move(work));
  }

  const Batch& next() override {
    if (feed) return next_on_device();
    Slot& slot = slots[pipeline->next().value()];
    complete(slot);
    return slot.batch;
  }

  std::uint64_t images() const override { return data.images(); }
  std::vector<ShardIdentity> shards() const override {
    std::vector<ShardIdentity> out;
    for (const auto& shard : data.shards())
      out.push_back({utf8_name(std::filesystem::path(shard.path).filename().string()),
                     static_cast<std::int64_t>(shard.file_bytes), static_cast<std::int64_t>(shard.images)});
    return out;
  }
  std::int64_t bad_images() const override { return bad; }
  std::int64_t bytes_held() const override {
    std::int64_t bytes = (feed ? feed->pinned_bytes() : 0) + places.bytes() + worker_bytes;
    for (const auto& slot : slots) bytes += static_cast<std::int64_t>(slot.memory.bytes()) + slot.fetch.bytes_held();
    return bytes;
  }
  std::int64_t device_bytes_held() const override { return feed ? feed->device_bytes() : 0; }
  std::int64_t images_as_crops() const override { return as_crops; }
  LoaderTimes times() const override {
    const auto ms = [](const std::atomic<std::int64_t>& ns) { return static_cast<double>(ns.load()) * 1e-6; };
    return {images_done, bytes_read, ms(read_ns), ms(decode_ns), ms(augment_ns), pixels};
  }
  std::size_t threads() const override { return workers.size(); }

 private:
  /// Global position, in the infinite sequence, of an image of this rank's part of update `update`.
  std::uint64_t position(std::int64_t update, std::int64_t image) const {
    return static_cast<std::uint64_t>(start.position(update, config.data.global_batch) + rank * images_here + image);
  }

  std::int64_t prepare(std::int64_t update, std::size_t slot_index) {
    Slot& slot = slots[slot_index];
    slot.batch.update = update;
    slot.replaced = 0;
    slot.batch.positions.clear();
    std::vector<ImagePlace> places_here;
    slot.targets.resize(static_cast<std::size_t>(images_here));
    slot.ignored.resize(ignores ? slot.targets.size() : 0);
    for (std::int64_t i = 0; i < images_here; ++i) {
      const std::uint64_t index = slot.batch.positions.emplace_back(sampler.image(position(update, i)));
      places_here.push_back(places.place(index));
      const auto targets = places.targets(index);
      slot.targets[static_cast<std::size_t>(i)].assign(targets.begin(), targets.end());
      if (ignores) slot.ignored[static_cast<std::size_t>(i)] = data.ignored(index, 1).values;
    }
    slot.fetch.plan(std::move(places_here));
    slot.claimed = 0;
    if (feed) feed->staging(slot_index).start();
    return images_here;
  }

  void run(std::size_t slot_index, std::int64_t job, std::size_t worker_index) {
    Slot& slot = slots[slot_index];
    Worker& worker = workers[worker_index];
    const std::int64_t image = slot.fetch.image(job);
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
    bool good = decodes(encoded, slot.fetch.place(image), index, worker);
    slot.fetch.release(image);
    for (std::uint32_t attempt = 0; !good; ++attempt) {
      if (attempt == kReplacementTries)
        throw Error(ExitCode::file,
                    fmt::format("found a bad image; the {} images drawn to replace it are bad too", attempt),
                    "check the data set with `seer inspect --verify`");
      // The position keys the random draw, so the replacement is the same for any rank count and in a resumed run.
      index = Random(static_cast<std::uint64_t>(config.data.seed), Purpose::replacement, place, attempt)
                  .below(data.images());
      Clock clock;
      const auto other = data.read_image(index, worker.encoded);
      add(read_ns, clock);
      bytes_read += static_cast<std::int64_t>(worker.encoded.size());
      good = decodes(worker.encoded, other, index, worker);
      if (attempt == 0) ++slot.replaced;
      if (good && labels == Labels::read) slot.targets[static_cast<std::size_t>(image)] = data.targets(index, 1).values;
      if (good && ignores) slot.ignored[static_cast<std::size_t>(image)] = data.ignored(index, 1).values;
    }
  }

  /// Draws the plans of all crops of an image of this size.
  void plan(const Slot& slot, std::int64_t image, std::int64_t width, std::int64_t height, Worker& worker) const {
    worker.plans.clear();
    for (const auto& kind : kinds)
      worker.plans.push_back(plan_crop(kind, width, height, static_cast<std::uint64_t>(config.data.seed),
                                       position(slot.batch.update, image),
                                       static_cast<std::uint32_t>(worker.plans.size())));
  }

  /// Makes crops of the worker's image, or stages it for the device, which then makes the crops.
  void deliver(std::size_t slot_index, std::int64_t image, Worker& worker) {
    const Slot& slot = slots[slot_index];
    const Clock clock;
    plan(slot, image, worker.image.width, worker.image.height, worker);
    if (feed) feed->staging(slot_index).add(image, worker.image, worker.plans, worker.scratch);
    for (const auto& group : slot.batch.groups) {  // none if there is a feed
      for (int c = 0; c < group.count; ++c) {
        const auto crop = static_cast<std::size_t>(group.first_crop + c);
        const auto out = group.images.slice(c * images_here + image, 1);
        apply_crop(worker.image, worker.plans[crop], kinds[crop], worker.scratch, out.f32());
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
    if (checksum(encoded.data(), encoded.size()) != slot.fetch.place(image).checksum)
      return false;  // load() reports it
    const auto size = parts->decoder->takes(encoded, config.data.max_pixels, worker_index);
    if (!size) return false;
    plan(slot, image, size->width, size->height, worker);
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
    slot.batch.ignored.begins.resize(1);
    slot.batch.ignored.values.clear();
    for (const auto& of_image : slot.ignored) slot.batch.ignored.add(of_image);
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
    const auto line = nlohmann::json{{"image", index}, {"where", where}, {"reason", reason}}.dump(
        -1, ' ', false, nlohmann::json::error_handler_t::replace);
    // Short lines are one write each, since several ranks append to the same file.
    std::ofstream(config.log.run_dir + "/rejects.jsonl", std::ios::app) << line + "\n";
  }

  static void add(std::atomic<std::int64_t>& sum, const Clock& clock) {
    sum.fetch_add(static_cast<std::int64_t>(clock.ms() * 1e6), std::memory_order_relaxed);
  }

  config::Config config;
  Start start;
  Labels labels;
  bool ignores = false;  ///< some image has classes of which nobody knows whether it has them
  DataSet data;
  Sampler sampler;
  PlaceCache places;
  std::vector<CropKind> kinds;
  std::int64_t rank, images_here;
  std::vector<Slot> slots;
  std::vector<Worker> workers;
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

}  // namespace

std::unique_ptr<ShardLoader> open_shards(const config::Config& config, DataSet data, int rank, int ranks,
                                         std::size_t threads, Start start, Labels labels,
                                         std::shared_ptr<DeviceParts> parts) {
  return std::make_unique<Loader>(config, std::move(data), rank, ranks, threads, start, labels, std::move(parts));
}

}  // namespace seer::data
