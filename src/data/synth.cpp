// SPDX-License-Identifier: Apache-2.0
#include "seer/data/synth.hpp"

#include <fmt/format.h>
#include <turbojpeg.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "pack_output.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/data/shard_writer.hpp"

namespace seer::data {
namespace {

constexpr int kQuality = 90;
constexpr std::int64_t kRound_images = 64;  // images that a rank draws between two exchanges
constexpr std::int64_t kMaxShard_images = 8192, kMaxShard_pixels = std::int64_t{1} << 28;

class Encoder {
 public:
  Encoder() : handle_(tjInitCompress(), [](void* h) { tjDestroy(h); }) {
    if (!handle_) throw Error(ExitCode::internal, "libjpeg-turbo makes no encoder");
  }
  std::string encode(const Image& image) {
    unsigned char* bytes = nullptr;
    unsigned long length = 0;
    const int status =
        tjCompress2(handle_.get(), image.rgb.data(), static_cast<int>(image.width), 0, static_cast<int>(image.height),
                    TJPF_RGB, &bytes, &length, TJSAMP_420, kQuality, TJFLAG_ACCURATEDCT);
    const std::unique_ptr<unsigned char, void (*)(unsigned char*)> owner(bytes, tjFree);
    if (status != 0) throw Error(ExitCode::internal, fmt::format("encoding a JPEG: {}", tjGetErrorStr2(handle_.get())));
    return {reinterpret_cast<const char*>(bytes), length};
  }

 private:
  std::unique_ptr<void, void (*)(void*)> handle_;
};

// Draws images [first, first + count) with all ranks. Returns all of them on every rank, in order.
std::vector<std::string> draw(const SynthOptions& o, std::int64_t first, std::int64_t count,
                              const comm::Communicator& comm, Encoder& encoder) {
  std::string mine;
  for (std::int64_t i = first + comm.rank(); i < first + count; i += comm.size()) {
    const auto jpeg = encoder.encode(synth_image(o.seed, static_cast<std::uint64_t>(i), i % o.classes, o.size));
    const std::uint64_t length = jpeg.size();
    mine.append(reinterpret_cast<const char*>(&length), sizeof length);
    mine += jpeg;
  }
  const auto all = comm.all_gather(mine);
  std::vector<std::size_t> at(all.size(), 0);
  std::vector<std::string> images;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto r = static_cast<std::size_t>(i % comm.size());
    std::uint64_t length = 0;
    std::memcpy(&length, all[r].data() + at[r], sizeof length);
    images.push_back(all[r].substr(at[r] + sizeof length, length));
    at[r] += sizeof length + length;
  }
  return images;
}

}  // namespace

SynthResult synth(const SynthOptions& o, const comm::Communicator& comm) {
  const Clock clock;
  Clock since_shown;
  const comm::Communicator alone = comm.split(comm.rank());
  std::optional<SetOutput> output;  // rank 0
  comm::agree(comm, "preparing the output folder", [&] {
    if (comm.is_root()) output.emplace(o.folder, o.name, o.existing, alone);
  });
  std::int64_t begin = output ? static_cast<std::int64_t>(output->images()) : 0;  // number of the first image
  comm.broadcast(&begin, sizeof begin);
  std::vector<std::string> classes;
  for (std::int64_t c = 0; c < o.classes; ++c) classes.push_back(synth_class_name(c));
  std::vector<std::string> sorted = classes;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::int32_t> label_of;  // class names in shards are sorted, as in pack
  for (const auto& name : classes) {
    label_of.push_back(
        static_cast<std::int32_t>(std::lower_bound(sorted.begin(), sorted.end(), name) - sorted.begin()));
  }

  const std::int64_t per_shard = std::clamp(kMaxShard_pixels / (o.size * o.size), std::int64_t{1}, kMaxShard_images);
  Encoder encoder;
  SynthResult result;
  std::vector<ShardWriter> written;
  const std::int64_t last = begin + o.images;
  const auto shards = static_cast<std::uint64_t>((o.images + per_shard - 1) / per_shard);
  // The id depends on everything that determines the images.
  const auto set =
      fmt::format("{:016x}", checksum(fmt::format("synth 1: {} {} {} {} {}", o.seed, o.classes, o.size, begin, last)));
  std::vector<std::uint64_t> images_of;
  for (std::int64_t first = begin; first < last; first += per_shard, ++result.shards) {
    const std::int64_t end = std::min(last, first + per_shard);
    images_of.push_back(static_cast<std::uint64_t>(end - first));
    std::vector<std::string> images;
    for (std::int64_t at = first; at < end;) {
      const auto count = std::min(end - at, kRound_images * comm.size());
      auto drawn = draw(o, at, count, comm, encoder);
      at += count;
      for (const auto& image : drawn) result.bytes += image.size();
      if (comm.is_root()) std::move(drawn.begin(), drawn.end(), std::back_inserter(images));
      if (since_shown.ms() > 200) {
        since_shown.restart();
        const double rate = static_cast<double>(at - begin) / clock.seconds();
        const auto left = static_cast<std::int64_t>(static_cast<double>(last - at) / rate);
        log::progress(fmt::format("synth: {} of {} images, {:.0f} images/s, {}:{:02} left", at - begin, o.images, rate,
                                  left / 60, left % 60));
      }
    }
    comm::agree(comm, "writing a shard", [&] {
      if (!comm.is_root()) return;
      std::vector<ShardEntry> entries;
      for (std::size_t i = 0; i < images.size(); ++i) {
        const auto label = label_of[static_cast<std::size_t>((first + static_cast<std::int64_t>(i)) % o.classes)];
        entries.push_back({images[i].size(), checksum(images[i]), static_cast<std::uint32_t>(o.size),
                           static_cast<std::uint32_t>(o.size), label});
      }
      ShardWriter writer(shard_path(o.folder, o.name, output->first_number() + result.shards), entries, sorted,
                         {set, shards, result.shards, kUsualMaxPixels});
      for (const auto& image : images)
        writer.append({reinterpret_cast<const std::uint8_t*>(image.data()), image.size()});
      writer.finish();
      written.push_back(std::move(writer));
    });
  }
  comm::agree(comm, "naming shards", [&] {
    if (!comm.is_root()) return;
    output->begin_naming();
    for (auto& w : written) w.publish();
    output->end_naming(set, images_of);
  });
  log::finish_progress();
  result.images = static_cast<std::uint64_t>(o.images);
  result.seconds = clock.seconds();
  return result;
}

}  // namespace seer::data
