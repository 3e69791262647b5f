// SPDX-License-Identifier: Apache-2.0
#include "generation.hpp"

#include <fmt/format.h>
#include <turbojpeg.h>

#include <optional>

#include "pack_parts.hpp"
#include "packed.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/log.hpp"

namespace seer::data {

static void fields(Packed& bytes, GeneratedImage& g) {
  bytes(g.bytes, g.width, g.height, g.label, g.name);
}

namespace {

constexpr std::int64_t kRound_images = 64;  // images that a rank makes between two exchanges

// Makes images [first, first + count) with all ranks. Returns all of them on every rank, in order.
std::vector<GeneratedImage> make(const Generation& g, std::int64_t first, std::int64_t count,
                                 const comm::Communicator& comm) {
  Packed mine;
  comm::agree(comm, g.what, [&] {
    for (std::int64_t i = first + comm.rank(); i < first + count; i += comm.size()) {
      auto image = g.make(i);
      mine(image);
    }
  });
  std::vector<Packed> of_rank;
  for (auto& text : comm.all_gather(mine.text())) of_rank.emplace_back(std::move(text));
  std::vector<GeneratedImage> images(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < images.size(); ++i) of_rank[i % of_rank.size()](images[i]);
  return images;
}

}  // namespace

std::string encode_jpeg(const Image& image, int quality) {
  const std::unique_ptr<void, void (*)(void*)> encoder(tjInitCompress(), [](void* e) { tjDestroy(e); });
  if (!encoder) throw Error(ExitCode::internal, "libjpeg-turbo cannot make an encoder");
  unsigned char* bytes = nullptr;
  unsigned long length = 0;
  const int status =
      tjCompress2(encoder.get(), image.rgb.data(), static_cast<int>(image.width), 0, static_cast<int>(image.height),
                  TJPF_RGB, &bytes, &length, TJSAMP_420, quality, TJFLAG_ACCURATEDCT);
  const std::unique_ptr<unsigned char, void (*)(unsigned char*)> owner(bytes, tjFree);
  if (status != 0) throw Error(ExitCode::internal, fmt::format("encoding a JPEG: {}", tjGetErrorStr2(encoder.get())));
  return {reinterpret_cast<const char*>(bytes), length};
}

SynthResult generate(const Generation& g, const comm::Communicator& comm) {
  const Clock clock;
  Progress progress;
  const comm::Communicator alone = comm.split(comm.rank());
  std::optional<SetOutput> output;  // rank 0
  comm::agree(comm, "preparing the output folder", [&] {
    if (comm.is_root()) output.emplace(g.folder, g.name, g.existing, alone);
  });
  std::int64_t begin = 0;  // number of the first image
  if (output)
    for (const auto& file : output->kept()) begin += static_cast<std::int64_t>(file.images);
  share(comm, begin);
  SynthResult result;
  std::vector<ShardWriter> written;
  const std::int64_t last = begin + g.images;
  const auto shards = static_cast<std::uint64_t>((g.images + g.per_shard - 1) / g.per_shard);
  const auto set = fmt::format("{:016x}", checksum(g.identity(begin, last)));
  std::vector<std::uint64_t> images_of;
  for (std::int64_t first = begin; first < last; first += g.per_shard, ++result.shards) {
    const std::int64_t end = std::min(last, first + g.per_shard);
    images_of.push_back(static_cast<std::uint64_t>(end - first));
    std::vector<GeneratedImage> images;
    for (std::int64_t at = first; at < end;) {
      const auto count = std::min(end - at, kRound_images * comm.size());
      auto made = make(g, at, count, comm);
      at += count;
      for (const auto& image : made) result.bytes += image.bytes.size();
      if (comm.is_root()) std::move(made.begin(), made.end(), std::back_inserter(images));
      if (!progress.due()) continue;
      const auto done = static_cast<double>(at - begin) / static_cast<double>(g.images);
      log::progress(fmt::format("{}: {} of {} images, {:.0f} images/s{}", g.what, at - begin, g.images,
                                progress.per_second(static_cast<std::uint64_t>(at - begin)), progress.left(done)));
    }
    comm::agree(comm, "writing a shard", [&] {
      if (!comm.is_root()) return;
      std::vector<ShardEntry> entries;
      for (const auto& image : images)
        entries.push_back({image.bytes.size(), checksum(image.bytes), image.width, image.height, image.label});
      ShardWriter writer(shard_path(g.folder, g.name, output->first_number() + result.shards), entries, g.classes,
                         {set, shards, result.shards, g.max_pixels});
      for (const auto& image : images)
        writer.append({reinterpret_cast<const std::uint8_t*>(image.bytes.data()), image.bytes.size()}, image.name);
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
  result.images = static_cast<std::uint64_t>(g.images);
  result.seconds = clock.seconds();
  return result;
}

}  // namespace seer::data
