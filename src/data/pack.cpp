// SPDX-License-Identifier: Apache-2.0
#include "seer/data/pack.hpp"

#include <fmt/format.h>

#include "pack_parts.hpp"
#include "packed.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/log.hpp"
#include "seer/base/names.hpp"
#include "seer/device/memory.hpp"

namespace seer::data {
namespace {

using namespace std::string_view_literals;

// Number of files that a rank verifies between two exchanges of results.
constexpr std::uint64_t kRound_files = 256;
// Longer names are cut to their last bytes: one very long path must not widen the whole column.
constexpr std::size_t kMaxName_bytes = 255;

/// An image that was accepted.
struct Accepted {
  std::uint64_t index = 0;  ///< index among the candidates
  ShardEntry entry;         ///< label: number of the class name in order of appearance
};

/// The result of verifying one candidate, sent to all ranks.
struct Verdict {
  std::uint64_t index = 0, bytes = 0, checksum = 0;
  std::uint32_t width = 0, height = 0;
  bool of_archive = false;  ///< the class is the archive's name
  std::string class_name, path, reason;
};
void fields(Packed& bytes, Verdict& v) {
  bytes(v.index, v.bytes, v.checksum, v.width, v.height, v.of_archive, v.class_name, v.path, v.reason);
}

const char* kind_of_other(const std::vector<std::uint8_t>& b) {
  const std::string_view start(reinterpret_cast<const char*>(b.data()), std::min<std::size_t>(b.size(), 16));
  if (start.starts_with("GIF8")) return "not supported: GIF";
  for (const auto tiff : {"II*\0"sv, "MM\0*"sv, "II+\0"sv, "MM\0+"sv})
    if (start.starts_with(tiff)) return "not supported: TIFF";
  if (start.starts_with("BM")) return "not supported: BMP";
  if (start.size() >= 12 && start.substr(4, 4) == "ftyp") return "not supported: HEIF, AVIF or video";
  if (start.starts_with("\x89HDF")) return "not an image: HDF5";
  if (start.starts_with("PK\3\4") || start.starts_with("7z\xBC\xAF") || start.starts_with("Rar!"))
    return "not supported: a ZIP, 7z or RAR archive; unpack it, or make a .tar of it";
  if (start.starts_with("\x1F\x8B") || start.starts_with("BZh") || start.starts_with("\xFD\x37zXZ") ||
      start.starts_with("\x28\xB5\x2F\xFD") || (b.size() > 262 && std::memcmp(b.data() + 257, "ustar", 5) == 0))
    return "not supported: an archive or compressed file whose name does not end in .tar .tar.gz .tgz .tar.zst .tar.xz "
           "or .tar.bz2";
  return "not an image: no JPEG, PNG or WebP signature";
}

// Returns "" if this file goes into a shard, else "kind: details".
std::string verify(const std::vector<std::uint8_t>& bytes, const PackOptions& options, Image& scratch, Verdict& out) {
  if (bytes.empty()) return "empty: 0 bytes";
  const auto header = read_header(bytes);
  if (header.kind == ImageKind::unknown) return kind_of_other(bytes);
  if (header.width > 0 && header.height > options.max_pixels / header.width)
    return fmt::format("over the pixel limit: {} declares {} x {} pixels, the limit is {}", name_of(header.kind),
                       header.width, header.height, options.max_pixels);
  try {
    decode(bytes, options.max_pixels, scratch);
  } catch (const NotSupported& e) {
    return fmt::format("not supported: {}", e.what());
  } catch (const Error& e) {
    return fmt::format("broken: {}", e.what());
  } catch (const std::bad_alloc&) {
    return fmt::format("broken: no memory to decode {} x {} pixels", header.width, header.height);
  }
  if (std::min(scratch.width, scratch.height) < options.min_side)
    return fmt::format("too small: {} x {} pixels, wanted at least {} a side", scratch.width, scratch.height,
                       options.min_side);
  out.width = static_cast<std::uint32_t>(scratch.width);
  out.height = static_cast<std::uint32_t>(scratch.height);
  out.checksum = checksum(bytes.data(), bytes.size());
  return "";
}

/// Names an image by its bytes.
struct Content {
  std::uint64_t checksum = 0, bytes = 0;
  auto operator<=>(const Content&) const = default;
};

/// The results of the first pass; equal on all ranks, except `rejects`, which only rank 0 has.
struct Ledger {
  std::vector<Accepted> accepted;
  std::vector<Reject> rejects;
  PackResult result;                                            // what is known of it
  std::map<std::pair<std::string, bool>, std::int32_t> labels;  // class, and whether an archive gave it
  std::set<Content> seen;                                       // images that would be duplicates

  void add(const std::vector<std::string>& parts, bool reject_duplicates, bool keep_rejects) {
    std::vector<Verdict> verdicts;
    for (const auto& part : parts)
      for (Packed in(part); !in.at_end();) in(verdicts.emplace_back());
    std::ranges::sort(verdicts, {}, &Verdict::index);
    for (auto& v : verdicts) {
      ++result.files;
      if (v.reason.empty() && reject_duplicates && !seen.insert({v.checksum, v.bytes}).second)
        v.reason = "duplicate: the same bytes as an earlier file";
      if (!v.reason.empty()) {
        ++result.rejected[v.reason.substr(0, v.reason.find(':'))];
        if (keep_rejects) rejects.push_back({v.path, v.reason, v.bytes});
        continue;
      }
      const auto next = static_cast<std::int32_t>(labels.size());
      const auto label = labels.try_emplace({v.class_name, v.of_archive}, next).first->second;
      accepted.push_back({v.index, {v.bytes, v.checksum, v.width, v.height, label}});
      result.bytes += v.bytes;
      result.of_archive += v.of_archive ? 1 : 0;
    }
    result.accepted = accepted.size();
  }

  /// Sorts the classes and renumbers them. Images without a folder have no class. If `archives_are_classes` is false,
  /// neither have images whose class is the name of an archive.
  void number_classes(bool archives_are_classes) {
    auto& classes = result.classes;
    std::vector<std::int32_t> final_label(labels.size(), -1);
    for (const auto& [key, n] : labels) {  // sorted by name
      const auto& [name, of_archive] = key;
      if (name.empty() || (of_archive && !archives_are_classes)) continue;
      if (classes.empty() || classes.back() != name) classes.push_back(name);
      final_label[static_cast<std::size_t>(n)] = static_cast<std::int32_t>(classes.size()) - 1;
    }
    for (auto& a : accepted) a.entry.label = final_label[static_cast<std::size_t>(a.entry.label)];
    if (!archives_are_classes) result.of_archive = 0;
  }
};

// First pass: each of R ranks decodes every R-th candidate; all ranks get all verdicts.
std::vector<Tally> verify_all(const SourceList& sources, const PackOptions& options, const comm::Communicator& comm,
                              Ledger& ledger) {
  const auto ranks = static_cast<std::uint64_t>(comm.size()), rank = static_cast<std::uint64_t>(comm.rank());
  std::unique_ptr<CandidateStream> stream;
  comm::agree(comm, "opening the sources", [&] { stream = open_stream(sources, options); });
  std::vector<std::uint8_t> bytes;
  Image scratch;
  std::uint64_t index = 0;
  Progress progress;
  for (bool more = true; more;) {
    Packed results;
    comm::agree(comm, "verifying images", [&] {
      Candidate c;
      for (std::uint64_t n = 0; n < kRound_files * ranks && (more = stream->next(c)); ++n, ++index) {
        if (index % ranks != rank) continue;
        Verdict v;
        v.index = index;
        v.bytes = c.bytes;
        v.reason = c.refusal;
        if (v.reason.empty()) {
          v.reason = stream->read(bytes);
          v.bytes = std::max<std::uint64_t>(c.bytes, bytes.size());
        }
        if (v.reason.empty()) v.reason = verify(bytes, options, scratch, v);
        v.reason = utf8_name(v.reason);
        if (options.labels && v.reason.empty()) v.class_name = utf8_name(c.folder);
        if (options.reject_duplicates || !v.reason.empty()) v.path = utf8_name(c.path);
        v.of_archive = !v.class_name.empty() && c.of_archive;
        results(v);
        if (!progress.due()) continue;
        const double done = stream->fraction();
        log::progress(fmt::format("pack: verified {} images, {:.0f} %, {:.0f} images/s{}", index + 1, 100 * done,
                                  progress.per_second(index + 1), progress.left(done)));
      }
    });
    ledger.add(comm.all_gather(results.text()), options.reject_duplicates, comm.is_root());
  }
  return stream->tallies();
}

using Ranges = std::vector<std::pair<std::size_t, std::size_t>>;

// Ranges [first, last) of accepted images, one per shard. A shard ends before the image that would make it too large.
Ranges cut(const std::vector<Accepted>& images, std::uint64_t shard_bytes) {
  Ranges shards;
  std::uint64_t bytes = 0;  // of the last shard
  for (std::size_t i = 0; i < images.size(); ++i) {
    if (shards.empty() || bytes + images[i].entry.bytes > shard_bytes) {
      shards.emplace_back(i, i);
      bytes = 0;
    }
    bytes += images[i].entry.bytes;
    shards.back().second = i + 1;
  }
  return shards;
}

// An id that depends on images, labels and shard sizes, but not on the names of the sources or the number of ranks.
std::string identity(const Ledger& ledger, const Ranges& shards, std::int64_t max_pixels) {
  Checksum sum;
  auto number = [&](std::uint64_t value) { sum.add(&value, sizeof value); };
  number(static_cast<std::uint64_t>(max_pixels));
  for (const auto& name : ledger.result.classes) {
    number(name.size());
    sum.add(name.data(), name.size());
  }
  for (const auto& [first, last] : shards) {
    number(last - first);
    for (auto i = first; i < last; ++i) {
      const auto& e = ledger.accepted[i].entry;
      for (const std::uint64_t value :
           {e.bytes, e.checksum, std::uint64_t{e.width}, std::uint64_t{e.height}, static_cast<std::uint64_t>(e.label)})
        number(value);
    }
  }
  return fmt::format("{:016x}", sum.value());
}

// Reads candidates again in the second pass and checks that they are the ones of the first pass.
class Rereader {
 public:
  Rereader(const SourceList& sources, const PackOptions& options) : stream_(open_stream(sources, options)) {}

  void read(const Accepted& image, Candidate& c, std::vector<std::uint8_t>& bytes) {
    constexpr const char* kRemedy = "pack again when nothing writes to the sources";
    do {
      if (!stream_->next(c)) fail("the sources hold fewer files than a moment ago", kRemedy);
    } while (at_++ != image.index);
    if (const auto reason = stream_->read(bytes); !reason.empty()) fail(fmt::format("{}: {}", c.path, reason));
    if (bytes.size() != image.entry.bytes || checksum(bytes.data(), bytes.size()) != image.entry.checksum)
      fail(fmt::format("{}: changed while it was being packed", c.path), kRemedy);
  }

 private:
  std::unique_ptr<CandidateStream> stream_;
  std::uint64_t at_ = 0;
};

// The name to store: UTF-8. Of a name that is too long, the end, starting at a whole character.
std::string stored_name(const std::string& raw) {
  const auto name = utf8_name(raw);
  if (name.size() <= kMaxName_bytes) return name;
  auto from = name.size() - kMaxName_bytes;
  while ((static_cast<unsigned char>(name[from]) & 0xC0U) == 0x80U) ++from;
  return name.substr(from);
}

// The images in the shards to keep. Rank 0 reads them and shares them with all ranks.
std::set<Content> images_there(const std::string& folder, const std::optional<SetOutput>& output,
                               const comm::Communicator& alone, const comm::Communicator& comm) {
  std::vector<Content> found;
  comm::agree(comm, "reading the shards that are there", [&] {
    if (!output) return;
    for (const auto& file : output->kept()) {
      const DataSet shard(read_shard_info(folder + "/" + file.name, alone));
      for (const auto& place : shard.places(0, shard.images())) found.push_back({place.checksum, place.bytes});
    }
  });
  share(comm, found);
  return {found.begin(), found.end()};
}

}  // namespace

PackResult pack(const PackOptions& options, const comm::Communicator& comm) {
  const Clock clock;
  const std::string name = options.split.empty() ? "images" : options.split;
  const comm::Communicator alone = comm.split(comm.rank());
  std::optional<SetOutput> output;  // rank 0
  comm::agree(comm, "preparing the output folder", [&] {
    if (comm.is_root()) output.emplace(options.folder, name, options.existing, alone);
  });
  std::uint64_t first_number = output ? output->first_number() : 0;
  share(comm, first_number);
  const SourceList sources = find_sources(options, comm);
  Ledger ledger;
  auto& result = ledger.result;
  if (options.reject_duplicates && first_number > 0) ledger.seen = images_there(options.folder, output, alone, comm);
  const auto left_out = judge(sources, options, verify_all(sources, options, comm, ledger));
  ledger.number_classes(!left_out.samples);
  ledger.rejects.insert(ledger.rejects.end(), left_out.lines.begin(), left_out.lines.end());
  result.verify_seconds = clock.seconds();
  result.left_out = left_out.counts;
  result.archives = left_out.archives;
  if (result.files > 0)  // else the error says enough
    for (const auto& warning : left_out.warnings) log::warn(warning);
  const auto shards = cut(ledger.accepted, options.shard_bytes);
  result.shards = shards.size();
  comm::agree(comm, "writing rejects.jsonl", [&] {
    if (comm.is_root()) write_rejects(options.folder, name, ledger.rejects, options.existing);
  });
  comm::agree(comm, "judging what was accepted", [&] {
    if (result.files == 0) fail(left_out.nothing, left_out.remedy);
    if (result.accepted == 0)
      fail(fmt::format("none of {} files was accepted", result.files),
           fmt::format("{}/rejects.jsonl says why each was refused", options.folder));
    if (comm.is_root()) want_room(options.folder, result.bytes);
  });

  // Second pass: each of R ranks writes every R-th shard.
  const auto ranks = static_cast<std::size_t>(comm.size()), rank = static_cast<std::size_t>(comm.rank());
  const auto set = identity(ledger, shards, options.max_pixels);
  std::vector<ShardWriter> written;
  std::optional<Rereader> reader;
  Progress progress;
  for (std::size_t wave = 0; wave < shards.size(); wave += ranks) {
    comm::agree(comm, "writing shards", [&] {
      if (wave + rank >= shards.size()) return;
      if (!reader) reader.emplace(sources, options);
      const auto [first, last] = shards[wave + rank];
      const std::span images(ledger.accepted.data() + first, last - first);
      std::vector<ShardEntry> entries;
      for (const auto& image : images) entries.push_back(image.entry);
      ShardWriter writer(shard_path(options.folder, name, first_number + wave + rank), entries, result.classes,
                         {set, shards.size(), wave + rank, static_cast<std::uint64_t>(options.max_pixels)});
      std::vector<std::uint8_t> bytes;
      Candidate c;
      for (std::size_t i = 0; i < images.size(); ++i) {
        reader->read(images[i], c, bytes);
        writer.append(bytes, stored_name(c.name));
        if (!progress.due()) continue;
        const double done = static_cast<double>(first + i) / static_cast<double>(result.accepted);
        log::progress(fmt::format("pack: writing, {:.0f} %{}", 100 * done, progress.left(done)));
      }
      writer.finish();
      written.push_back(std::move(writer));
    });
  }
  comm::agree(comm, "naming shards", [&] {
    if (output) output->begin_naming();
  });
  comm::agree(comm, "naming shards", [&] {
    for (auto& w : written) w.publish();
  });
  comm::agree(comm, "naming the set", [&] {
    if (!output) return;
    std::vector<std::uint64_t> images;
    for (const auto& [first, last] : shards) images.push_back(last - first);
    output->end_naming(set, images);
  });
  log::finish_progress();
  result.seconds = clock.seconds();
  result.peak_bytes = static_cast<std::size_t>(
      comm.all_reduce(static_cast<std::int64_t>(device::peak_resident_bytes()), comm::Op::max));
  return result;
}

}  // namespace seer::data
