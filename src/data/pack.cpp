// SPDX-License-Identifier: Apache-2.0
#include "seer/data/pack.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>

#include "pack_left_out.hpp"
#include "pack_output.hpp"
#include "pack_source.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/utf8.hpp"
#include "seer/data/image.hpp"
#include "seer/data/shard_writer.hpp"
#include "seer/device/memory.hpp"

namespace seer::data {
namespace {

// Number of files that a rank verifies between two exchanges of results.
constexpr std::uint64_t kRound_files = 256;
// Longer names are cut to their last bytes: one very long path must not widen the whole column.
constexpr std::size_t kMaxName_bytes = 255;

/// An image that was accepted.
struct Accepted {
  std::uint64_t index = 0;  ///< index among the candidates
  ShardEntry entry;         ///< label: number of the class name in order of appearance
};

/// The result of verifying one candidate. Plain data, sent between ranks.
struct Verdict {
  std::uint64_t index = 0, bytes = 0, checksum = 0;
  std::uint32_t width = 0, height = 0;
  std::uint32_t class_bytes = 0, path_bytes = 0, reason_bytes = 0;  // lengths of the texts that follow
  std::uint32_t of_archive = 0;                                     // 1: the class is the archive's name
};

const char* kind_of_other(const std::vector<std::uint8_t>& b) {
  const std::string_view start(reinterpret_cast<const char*>(b.data()), std::min<std::size_t>(b.size(), 16));
  if (start.starts_with("GIF8")) return "not supported: GIF";
  if (start.starts_with(std::string_view("II*\0", 4)) || start.starts_with(std::string_view("MM\0*", 4)) ||
      start.starts_with(std::string_view("II+\0", 4)) || start.starts_with(std::string_view("MM\0+", 4))) {
    return "not supported: TIFF";
  }
  if (start.starts_with("BM")) return "not supported: BMP";
  if (start.size() >= 12 && start.substr(4, 4) == "ftyp") return "not supported: HEIF, AVIF or video";
  if (start.starts_with("\x89HDF")) return "not an image: HDF5";
  if (start.starts_with("PK\3\4") || start.starts_with("7z\xBC\xAF") || start.starts_with("Rar!")) {
    return "not supported: a ZIP, 7z or RAR archive; unpack it, or make a .tar of it";
  }
  if (start.starts_with("\x1F\x8B") || start.starts_with("BZh") || start.starts_with("\xFD\x37zXZ") ||
      start.starts_with("\x28\xB5\x2F\xFD") || (b.size() > 262 && std::memcmp(b.data() + 257, "ustar", 5) == 0)) {
    return "not supported: an archive or compressed file whose name is none of .tar .tar.gz .tgz .tar.zst .tar.xz "
           ".tar.bz2";
  }
  return "not an image: no JPEG, PNG or WebP signature";
}

// Returns "" if this file goes into a shard, else "kind: details".
std::string verify(const std::vector<std::uint8_t>& bytes, const PackOptions& options, Image& scratch, Verdict& out) {
  if (bytes.empty()) return "empty: 0 bytes";
  const auto header = read_header(bytes);
  if (header.kind == ImageKind::unknown) return kind_of_other(bytes);
  if (header.width > 0 && header.height > options.max_pixels / header.width) {
    return fmt::format("over the pixel limit: {} declares {} x {} pixels, the limit is {}", name_of(header.kind),
                       header.width, header.height, options.max_pixels);
  }
  try {
    decode(bytes, options.max_pixels, scratch);
  } catch (const NotSupported& e) {
    return fmt::format("not supported: {}", e.what());
  } catch (const Error& e) {
    return fmt::format("broken: {}", e.what());
  } catch (const std::bad_alloc&) {
    return fmt::format("broken: no memory to decode {} x {} pixels", header.width, header.height);
  }
  if (std::min(scratch.width, scratch.height) < options.min_side) {
    return fmt::format("too small: {} x {} pixels, wanted at least {} a side", scratch.width, scratch.height,
                       options.min_side);
  }
  out.width = static_cast<std::uint32_t>(scratch.width);
  out.height = static_cast<std::uint32_t>(scratch.height);
  out.checksum = checksum(bytes.data(), bytes.size());
  return "";
}

/// The results of the first pass; equal on all ranks, except `rejects`, which only rank 0 has.
class Ledger {
 public:
  explicit Ledger(const PackOptions& options) : options_(options) {}

  void add(const std::vector<std::string>& parts, bool keep_rejects) {
    struct Item {
      Verdict verdict;
      std::string class_name, path, reason;
    };
    std::vector<Item> items;
    for (const auto& part : parts) {
      for (std::size_t at = 0; at < part.size();) {
        Item item;
        std::memcpy(&item.verdict, part.data() + at, sizeof(Verdict));
        at += sizeof(Verdict);
        const auto& v = item.verdict;
        for (auto [text, length] :
             {std::pair{&item.class_name, v.class_bytes}, {&item.path, v.path_bytes}, {&item.reason, v.reason_bytes}}) {
          *text = part.substr(at, length);
          at += length;
        }
        items.push_back(std::move(item));
      }
    }
    std::sort(items.begin(), items.end(),
              [](const Item& a, const Item& b) { return a.verdict.index < b.verdict.index; });
    for (auto& i : items) {
      const auto& v = i.verdict;
      if (i.reason.empty() && options_.reject_duplicates && !seen_.insert({v.checksum, v.bytes}).second) {
        i.reason = "duplicate: the same bytes as an earlier file";
      }
      if (!i.reason.empty()) {
        ++rejected[i.reason.substr(0, i.reason.find(':'))];
        if (keep_rejects) rejects.push_back({i.path, i.reason, v.bytes});
        continue;
      }
      const auto key = std::pair(i.class_name, v.of_archive != 0);
      const auto label = labels_.try_emplace(key, static_cast<std::int32_t>(labels_.size())).first->second;
      accepted.push_back({v.index, {v.bytes, v.checksum, v.width, v.height, label}});
      bytes += v.bytes;
      of_archive += v.of_archive;
    }
  }

  /// Registers images that the folder already holds; later images with the same bytes are duplicates.
  void know(const std::vector<std::pair<std::uint64_t, std::uint64_t>>& checksums_and_bytes) {
    seen_.insert(checksums_and_bytes.begin(), checksums_and_bytes.end());
  }

  /// Sorts the classes and renumbers them. Images without a folder have no class. If `of_archives` is false, neither
  /// have images whose class is the name of an archive.
  void number_classes(bool of_archives) {
    std::set<std::string> names;
    for (const auto& [key, n] : labels_) {
      if (!key.first.empty() && (of_archives || !key.second)) names.insert(key.first);
    }
    if (options_.labels) classes.assign(names.begin(), names.end());
    std::vector<std::int32_t> final_label(labels_.size(), -1);
    for (const auto& [key, n] : labels_) {
      const auto at = std::lower_bound(classes.begin(), classes.end(), key.first);
      if (at != classes.end() && *at == key.first && (of_archives || !key.second)) {
        final_label[static_cast<std::size_t>(n)] = static_cast<std::int32_t>(at - classes.begin());
      }
    }
    for (auto& a : accepted) a.entry.label = final_label[static_cast<std::size_t>(a.entry.label)];
  }

  std::vector<Accepted> accepted;
  std::vector<Reject> rejects;
  std::map<std::string, std::uint64_t> rejected;
  std::vector<std::string> classes;
  std::uint64_t bytes = 0, of_archive = 0;  ///< of_archive: images whose class is the name of an archive

 private:
  const PackOptions& options_;
  std::map<std::pair<std::string, bool>, std::int32_t> labels_;  // class, and whether an archive gave it
  std::set<std::pair<std::uint64_t, std::uint64_t>> seen_;
};

std::string eta(double done, double seconds) {
  if (done <= 0.01) return "";
  const auto left = static_cast<std::int64_t>(seconds / done * (1 - done) + 0.5);
  return fmt::format(", {}:{:02} left", left / 60, left % 60);
}

// Limits progress output: on a terminal, one line per file would take longer than the files themselves.
class Ticker {
 public:
  bool due() {
    if (clock_.ms() < 200) return false;
    clock_.restart();
    return true;
  }

 private:
  Clock clock_;
};

std::string per_second(std::uint64_t images, double seconds) {
  return fmt::format("{:.0f} images/s", static_cast<double>(images) / std::max(1e-3, seconds));
}

// First pass: each of R ranks decodes every R-th candidate; all ranks get all verdicts.
std::vector<Tally> verify_all(const SourceList& sources, const SourceRules& rules, const PackOptions& options,
                              const comm::Communicator& comm, Ledger& ledger) {
  const auto ranks = static_cast<std::uint64_t>(comm.size()), rank = static_cast<std::uint64_t>(comm.rank());
  const Clock clock;
  std::unique_ptr<CandidateStream> stream;
  comm::agree(comm, "opening the sources", [&] { stream = open_stream(sources, rules); });
  std::vector<std::uint8_t> bytes;
  Image scratch;
  std::uint64_t index = 0;
  Ticker ticker;
  for (bool more = true; more;) {
    std::string results;
    comm::agree(comm, "verifying images", [&] {
      Candidate c;
      for (std::uint64_t n = 0; n < kRound_files * ranks && (more = stream->next(c)); ++n, ++index) {
        if (index % ranks != rank) continue;
        Verdict v;
        v.index = index;
        std::string reason = c.refusal;
        if (reason.empty()) {
          reason = stream->read(bytes);
          c.bytes = std::max<std::uint64_t>(c.bytes, bytes.size());
        }
        v.bytes = c.bytes;
        if (reason.empty()) reason = verify(bytes, options, scratch, v);
        reason = utf8_name(reason);
        const std::string class_name = options.labels && reason.empty() ? utf8_name(c.folder) : "";
        const std::string path = reason.empty() && !options.reject_duplicates ? "" : utf8_name(c.path);
        v.of_archive = !class_name.empty() && c.of_archive ? 1 : 0;
        v.class_bytes = static_cast<std::uint32_t>(class_name.size());
        v.path_bytes = static_cast<std::uint32_t>(path.size());
        v.reason_bytes = static_cast<std::uint32_t>(reason.size());
        results.append(reinterpret_cast<const char*>(&v), sizeof v);
        results += class_name + path + reason;
        if (ticker.due()) {
          const double done = stream->fraction();
          log::progress(fmt::format("pack: verified {} images, {:.0f} %, {}{}", index + 1, 100 * done,
                                    per_second(index + 1, clock.seconds()), eta(done, clock.seconds())));
        }
      }
    });
    ledger.add(comm.all_gather(results), comm.is_root());
  }
  return stream->tallies();
}

// Ranges [first, last) of accepted images, one per shard. A shard ends before the image that would make it too large.
std::vector<std::pair<std::size_t, std::size_t>> cut(const std::vector<Accepted>& images, std::uint64_t shard_bytes) {
  std::vector<std::pair<std::size_t, std::size_t>> shards;
  std::size_t first = 0;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < images.size(); ++i) {
    if (i > first && bytes + images[i].entry.bytes > shard_bytes) {
      shards.emplace_back(first, i);
      first = i;
      bytes = 0;
    }
    bytes += images[i].entry.bytes;
  }
  if (first < images.size()) shards.emplace_back(first, images.size());
  return shards;
}

// An id that depends on images, labels and shard sizes, but not on the names of the sources or the number of ranks.
std::string identity(const Ledger& ledger, const std::vector<std::pair<std::size_t, std::size_t>>& shards,
                     std::int64_t max_pixels) {
  Checksum sum;
  auto number = [&](std::uint64_t value) { sum.add(&value, sizeof value); };
  number(static_cast<std::uint64_t>(max_pixels));
  for (const auto& name : ledger.classes) {
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
  Rereader(const SourceList& sources, const SourceRules& rules) : stream_(open_stream(sources, rules)) {}

  void skip_to(std::uint64_t index, Candidate& out) {
    do {
      if (!stream_->next(out)) throw Error(ExitCode::file, "the sources hold fewer files than a moment ago", kRemedy);
    } while (at_++ != index);
  }
  void read(const Accepted& image, const Candidate& c, std::vector<std::uint8_t>& bytes) {
    const auto reason = stream_->read(bytes);
    if (!reason.empty()) throw Error(ExitCode::file, fmt::format("{}: {}", c.path, reason));
    if (bytes.size() != image.entry.bytes || checksum(bytes.data(), bytes.size()) != image.entry.checksum) {
      throw Error(ExitCode::file, fmt::format("{}: changed while it was being packed", c.path), kRemedy);
    }
  }

 private:
  static constexpr const char* kRemedy = "pack again when nothing writes to the sources";
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

// Checksums and sizes in bytes of the images to keep. Rank 0 reads them and shares them with all ranks.
std::vector<std::pair<std::uint64_t, std::uint64_t>> images_there(const std::string& folder,
                                                                  const std::optional<SetOutput>& output,
                                                                  const comm::Communicator& alone,
                                                                  const comm::Communicator& comm) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
  comm::agree(comm, "reading the shards that are there", [&] {
    if (!output) return;
    for (const auto& file : output->kept()) {
      const DataSet shard(read_shard_info(folder + "/" + file.name, &alone));
      for (const auto& place : shard.places(0, shard.images())) found.emplace_back(place.checksum, place.bytes);
    }
  });
  auto count = static_cast<std::int64_t>(found.size());
  comm.broadcast(&count, sizeof count);
  found.resize(static_cast<std::size_t>(count));
  comm.broadcast(found.data(), found.size() * sizeof found[0]);
  return found;
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
  std::int64_t first_number = output ? static_cast<std::int64_t>(output->first_number()) : 0;
  comm.broadcast(&first_number, sizeof first_number);
  const SourceRules rules{options.split, options.hidden};
  const SourceList sources = find_sources(options.sources, rules, comm);
  Ledger ledger(options);
  if (options.reject_duplicates && first_number > 0) ledger.know(images_there(options.folder, output, alone, comm));
  const auto tallies = verify_all(sources, rules, options, comm, ledger);
  const auto left_out = judge(sources, rules, tallies);
  ledger.number_classes(!left_out.samples);
  ledger.rejects.insert(ledger.rejects.end(), left_out.lines.begin(), left_out.lines.end());
  PackResult result;
  result.verify_seconds = clock.seconds();
  result.rejected = ledger.rejected;
  result.classes = ledger.classes;
  result.left_out = left_out.counts;
  result.archives = left_out.archives;
  result.of_archive = left_out.samples ? 0 : ledger.of_archive;
  result.accepted = result.files = ledger.accepted.size();
  for (const auto& [kind, n] : ledger.rejected) result.files += n;
  if (result.files > 0) {  // else the error says enough
    for (const auto& warning : left_out.warnings) log::warn(warning);
  }
  result.bytes = ledger.bytes;
  const auto shards = cut(ledger.accepted, options.shard_bytes);
  result.shards = shards.size();
  comm::agree(comm, "writing rejects.jsonl", [&] {
    if (comm.is_root()) write_rejects(options.folder, name, ledger.rejects, options.existing);
  });
  comm::agree(comm, "judging what was accepted", [&] {
    if (ledger.accepted.empty()) {
      throw Error(
          ExitCode::file,
          ledger.rejected.empty() ? left_out.nothing : fmt::format("none of {} files was accepted", result.files),
          ledger.rejected.empty() ? left_out.remedy
                                  : fmt::format("{}/rejects.jsonl says why each was refused", options.folder));
    }
    if (comm.is_root()) want_room(options.folder, ledger.bytes);
  });

  // Second pass: each of R ranks writes every R-th shard.
  const auto ranks = static_cast<std::size_t>(comm.size()), rank = static_cast<std::size_t>(comm.rank());
  const auto set = identity(ledger, shards, options.max_pixels);
  std::vector<ShardWriter> written;
  std::optional<Rereader> reader;
  const Clock write_clock;
  Ticker ticker;
  for (std::size_t wave = 0; wave < shards.size(); wave += ranks) {
    comm::agree(comm, "writing shards", [&] {
      if (wave + rank >= shards.size()) return;
      if (!reader) reader.emplace(sources, rules);
      const auto [first, last] = shards[wave + rank];
      const std::span images(ledger.accepted.data() + first, last - first);
      std::vector<ShardEntry> entries;
      for (const auto& image : images) entries.push_back(image.entry);
      ShardWriter writer(shard_path(options.folder, name, static_cast<std::size_t>(first_number) + wave + rank),
                         entries, ledger.classes,
                         {set, shards.size(), wave + rank, static_cast<std::uint64_t>(options.max_pixels)});
      std::vector<std::uint8_t> bytes;
      Candidate c;
      for (std::size_t i = 0; i < images.size(); ++i) {
        reader->skip_to(images[i].index, c);
        reader->read(images[i], c, bytes);
        writer.append(bytes, stored_name(c.name));
        if (ticker.due()) {
          const double done = static_cast<double>(first + i) / static_cast<double>(ledger.accepted.size());
          log::progress(fmt::format("pack: writing, {:.0f} %{}", 100 * done, eta(done, write_clock.seconds())));
        }
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
