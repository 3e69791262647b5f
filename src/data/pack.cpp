// SPDX-License-Identifier: Apache-2.0
#include "seer/data/pack.hpp"

#include <fmt/format.h>

#include "pack_ledger.hpp"
#include "pack_parts.hpp"
#include "packed.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/log.hpp"
#include "seer/base/names.hpp"
#include "seer/device/memory.hpp"

namespace seer::data {
namespace {

// Number of files that a rank verifies between two exchanges of results.
constexpr std::uint64_t kRound_files = 256;
// Longer names are cut to their last bytes: one very long path must not widen the whole column.
constexpr std::size_t kMaxName_bytes = 255;

// First pass: each of R ranks decodes every R-th candidate; all ranks get all verdicts.
std::vector<Tally> verify_all(const SourceList& sources, const PackOptions& options, const comm::Communicator& comm,
                              Ledger& ledger) {
  const auto& assignment = ledger.assignment;
  const auto ranks = static_cast<std::uint64_t>(comm.size()), rank = static_cast<std::uint64_t>(comm.rank());
  std::unique_ptr<CandidateStream> stream;
  comm::agree(comm, "opening the sources", [&] { stream = open_stream(sources, options); });
  std::vector<std::uint8_t> bytes;
  Image scratch;
  std::uint64_t index = 0, taken = 0;
  Progress progress;
  for (bool more = true; more;) {
    Packed results;
    comm::agree(comm, "verifying images", [&] {
      Candidate c;
      for (std::uint64_t n = 0; n < kRound_files * ranks && (more = stream->next(c)); ++index) {
        const auto record = assignment.record(index);
        if (record == Assignment::kLeftOut) continue;
        ++n;
        if (taken++ % ranks != rank) continue;
        Verdict v;
        v.index = index;
        v.bytes = c.bytes;
        v.reason = c.refusal;
        if (v.reason.empty()) {
          v.reason = stream->read(bytes);
          v.bytes = std::max<std::uint64_t>(c.bytes, bytes.size());
        }
        ShardEntry entry;
        if (v.reason.empty()) v.reason = verify(bytes, options, scratch, entry);
        v.checksum = entry.checksum;
        v.width = entry.width;
        v.height = entry.height;
        if (v.reason.empty() && assignment.of_file && record < 0 && options.unlabelled != Unlabelled::keep)
          v.reason = "no label: the label file does not name it";
        v.reason = utf8_name(v.reason);
        if (options.labels && !assignment.of_file && v.reason.empty()) v.class_name = utf8_name(c.folder);
        if (options.reject_duplicates || !v.reason.empty()) v.path = utf8_name(c.path);
        v.of_archive = !v.class_name.empty() && c.of_archive;
        results(v);
        if (!progress.due()) continue;
        const double done = stream->fraction();
        log::progress(fmt::format("pack: verified {} images, {:.0f} %, {:.0f} images/s{}", taken, 100 * done,
                                  progress.per_second(taken), progress.left(done)));
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
    if (shards.empty() || bytes + images[i].bytes > shard_bytes) {
      shards.emplace_back(i, i);
      bytes = 0;
    }
    bytes += images[i].bytes;
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
      const auto e = ledger.entry(ledger.accepted[i]);
      for (const std::uint64_t value :
           {e.bytes, e.checksum, std::uint64_t{e.width}, std::uint64_t{e.height}, static_cast<std::uint64_t>(e.label)})
        number(value);
      if (!ledger.assignment.several) continue;
      for (const auto* values : {&e.targets, &e.ignored}) {
        number(values->size());
        for (const auto value : *values) number(static_cast<std::uint64_t>(value));
      }
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
    if (bytes.size() != image.bytes || checksum(bytes.data(), bytes.size()) != image.checksum)
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
  const auto assignment = assign_labels(sources, options, comm);
  Ledger ledger{assignment};
  auto& result = ledger.result;
  if (options.reject_duplicates && first_number > 0) ledger.seen = images_there(options.folder, output, alone, comm);
  const auto left_out = judge(sources, options, verify_all(sources, options, comm, ledger));
  ledger.rejects.insert(ledger.rejects.end(), left_out.lines.begin(), left_out.lines.end());
  result.verify_seconds = clock.seconds();
  result.left_out = left_out.counts;
  const auto say = [&](const char* kind, std::uint64_t count, const std::string& file) {
    if (count == 0) return;
    result.left_out[kind] = count;
    ledger.rejects.push_back({utf8_name(file), fmt::format("{}: {} files", kind, count), 0});
  };
  say("not on the list", assignment.off_list, options.list_file);
  say("without a label", assignment.without_label, options.label_file);
  comm::agree(comm, "judging labels", [&] {
    ledger.number_classes(!left_out.samples, options.classes_file);
    if (!ledger.accepted.empty()) ledger.choose(options.subset);
  });
  ledger.complete(assignment.of_file || !options.subset.takes_all());
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
      for (const auto& image : images) entries.push_back(ledger.entry(image));
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
