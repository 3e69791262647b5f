// SPDX-License-Identifier: Apache-2.0
#include "seer/data/pack.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>
#include <unordered_map>

#include "pack_output.hpp"
#include "pack_source.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/data/image.hpp"
#include "seer/device/memory.hpp"

namespace seer::data {
namespace {

// Files a rank verifies between two exchanges of results.
constexpr std::uint64_t kRound_files = 256;
// Longer names keep their end: one absurd path must not widen the whole column.
constexpr std::size_t kMaxName_bytes = 255;

/// An image that was accepted.
struct Accepted {
  std::uint64_t index = 0;  ///< among the candidates
  ShardEntry entry;         ///< label: number of the class name in order of appearance
};

/// What verification says of one candidate; plain data, sent between ranks.
struct Verdict {
  std::uint64_t index = 0, bytes = 0, checksum = 0;
  std::uint32_t width = 0, height = 0;
  std::uint32_t class_bytes = 0, path_bytes = 0, reason_bytes = 0, pad = 0;  // texts that follow
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
  return "not an image: no JPEG, PNG or WebP signature";
}

// "" if this file goes into a shard, else "kind: details".
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

/// All that the first pass learns; equal on all ranks but for `rejects`, which rank 0 holds.
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
      const auto label = labels_.try_emplace(i.class_name, static_cast<std::int32_t>(labels_.size())).first->second;
      accepted.push_back({v.index, {v.bytes, v.checksum, v.width, v.height, label}});
      bytes += v.bytes;
    }
  }

  /// Sorts the classes and numbers them again; images without a folder have no class.
  void number_classes() {
    std::set<std::string> names;
    for (const auto& [name, n] : labels_) {
      if (!name.empty()) names.insert(name);
    }
    if (options_.labels) classes.assign(names.begin(), names.end());
    std::vector<std::int32_t> final_label(labels_.size(), -1);
    for (const auto& [name, n] : labels_) {
      const auto at = std::lower_bound(classes.begin(), classes.end(), name);
      if (at != classes.end() && *at == name) {
        final_label[static_cast<std::size_t>(n)] = static_cast<std::int32_t>(at - classes.begin());
      }
    }
    for (auto& a : accepted) a.entry.label = final_label[static_cast<std::size_t>(a.entry.label)];
  }

  std::vector<Accepted> accepted;
  std::vector<Reject> rejects;
  std::map<std::string, std::uint64_t> rejected;
  std::vector<std::string> classes;
  std::uint64_t bytes = 0;

 private:
  const PackOptions& options_;
  std::unordered_map<std::string, std::int32_t> labels_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> seen_;
};

std::string eta(double done, double seconds) {
  if (done <= 0.01) return "";
  const auto left = static_cast<std::int64_t>(seconds / done * (1 - done) + 0.5);
  return fmt::format(", {}:{:02} left", left / 60, left % 60);
}

// On a terminal a line a file would be slower than the files.
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

// First pass: every rank decodes every R-th candidate, and all learn the verdicts.
void verify_all(const SourceList& sources, const PackOptions& options, const comm::Communicator& comm, Ledger& ledger) {
  const auto ranks = static_cast<std::uint64_t>(comm.size()), rank = static_cast<std::uint64_t>(comm.rank());
  const Clock clock;
  std::unique_ptr<CandidateStream> stream;
  comm::agree(comm, "opening the sources", [&] { stream = open_stream(sources, options.split); });
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
        const std::string class_name = options.labels && reason.empty() ? c.folder : "";
        const std::string& path = reason.empty() && !options.reject_duplicates ? std::string() : c.path;
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
}

// Accepted images [first, last) of each shard: a shard is closed before the image that would make it too large.
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

// Candidates of the second pass, which must be what the first one saw.
class Rereader {
 public:
  Rereader(const SourceList& sources, const std::string& split) : stream_(open_stream(sources, split)) {}

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

}  // namespace

PackResult pack(const PackOptions& options, const comm::Communicator& comm) {
  const Clock clock;
  const std::string name = options.split.empty() ? "images" : options.split;
  comm::agree(comm, "preparing the output folder", [&] {
    if (comm.is_root()) prepare_folder(options.folder, name);
  });
  const SourceList sources = find_sources(options.sources, comm);
  Ledger ledger(options);
  verify_all(sources, options, comm, ledger);
  ledger.number_classes();
  PackResult result;
  result.verify_seconds = clock.seconds();
  result.rejected = ledger.rejected;
  result.classes = ledger.classes;
  result.accepted = result.files = ledger.accepted.size();
  for (const auto& [kind, n] : ledger.rejected) result.files += n;
  result.bytes = ledger.bytes;
  const auto shards = cut(ledger.accepted, options.shard_bytes);
  result.shards = shards.size();
  comm::agree(comm, "writing rejects.jsonl", [&] {
    if (comm.is_root()) write_rejects(options.folder, name, ledger.rejects);
  });
  comm::agree(comm, "judging what was accepted", [&] {
    if (ledger.accepted.empty()) {
      throw Error(ExitCode::file,
                  ledger.rejected.empty()
                      ? fmt::format("the sources hold no files{}",
                                    options.split.empty() ? "" : fmt::format(" below a folder named {}", options.split))
                      : fmt::format("none of {} files was accepted", result.files),
                  ledger.rejected.empty() ? "correct the sources"
                                          : fmt::format("{}/rejects.jsonl says why each was refused", options.folder));
    }
    if (comm.is_root()) want_room(options.folder, ledger.bytes);
  });

  // Second pass: every rank writes every R-th shard.
  const auto ranks = static_cast<std::size_t>(comm.size()), rank = static_cast<std::size_t>(comm.rank());
  std::vector<ShardWriter> written;
  std::optional<Rereader> reader;
  const Clock write_clock;
  Ticker ticker;
  for (std::size_t wave = 0; wave < shards.size(); wave += ranks) {
    comm::agree(comm, "writing shards", [&] {
      if (wave + rank >= shards.size()) return;
      if (!reader) reader.emplace(sources, options.split);
      const auto [first, last] = shards[wave + rank];
      const std::span images(ledger.accepted.data() + first, last - first);
      std::vector<ShardEntry> entries;
      for (const auto& image : images) entries.push_back(image.entry);
      ShardWriter writer(shard_path(options.folder, name, wave + rank), entries, ledger.classes);
      std::vector<std::uint8_t> bytes;
      Candidate c;
      for (std::size_t i = 0; i < images.size(); ++i) {
        reader->skip_to(images[i].index, c);
        reader->read(images[i], c, bytes);
        writer.append(bytes, c.name.size() > kMaxName_bytes ? c.name.substr(c.name.size() - kMaxName_bytes) : c.name);
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
    if (comm.is_root()) remove_shards(options.folder, name, shards.size());
  });
  comm::agree(comm, "naming shards", [&] {
    for (auto& w : written) w.publish();
  });
  comm::agree(comm, "syncing the folder", [&] {
    if (comm.is_root()) sync_to_disk(options.folder);
  });
  log::finish_progress();
  result.seconds = clock.seconds();
  result.peak_bytes = static_cast<std::size_t>(
      comm.all_reduce(static_cast<std::int64_t>(device::peak_resident_bytes()), comm::Op::max));
  return result;
}

}  // namespace seer::data
