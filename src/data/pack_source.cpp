// SPDX-License-Identifier: Apache-2.0
#include "pack_source.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "pack_archive.hpp"
#include "pack_names.hpp"
#include "seer/base/error.hpp"
#include "seer/base/utf8.hpp"
#include "seer/data/image.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;

// Maximum number of folder names kept to describe a source.
constexpr std::size_t kMaxFolders = 1000;
constexpr std::size_t kMaxKinds = 30;  // hidden names that are counted separately; the rest share one count
constexpr const char* kCut = "unreadable: cut off in the archive";

std::string too_large(std::uint64_t bytes) {
  return fmt::format("too large: {} bytes, over the limit of {}", bytes, kMaxFile_bytes);
}

// Last name in the path, made absolute; "" if it has none.
std::string folder_name(const std::string& path) {
  std::error_code error;
  auto folder = fs::absolute(path.empty() ? "." : path, error).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  return folder.filename().string();
}

// Returns 1 if everything in the archive lies in one top folder, as in most archives; "directly inside" then means
// inside that folder. Returns 0 otherwise, or if the top folder is the split itself and contains no splits.
std::uint64_t top_folders(const std::string& path, const SourceRules& rules) try {
  ArchiveReader reader(path);
  std::string top;
  bool splits_in_it = false;
  for (ArchiveReader::Entry entry; reader.next(entry);) {
    const auto parts = parts_of(entry.name);
    const auto is_hidden = [](auto part) { return !hidden_kind(part).empty(); };
    if (!rules.hidden && std::any_of(parts.begin(), parts.end(), is_hidden)) continue;
    const bool is_text = parts.size() == 1 && !is_image_name(entry.name) && archive_stem(entry.name).empty();
    if (is_text) continue;  // a README next to the folder
    if (parts.size() < 2 || (!top.empty() && parts[0] != top)) return 0;
    top = parts[0];
    splits_in_it |= parts.size() > 2 && (parts[1] == rules.split || is_split_name(parts[1]));
  }
  return top.empty() || (top == rules.split && !splits_in_it) ? 0 : 1;
} catch (const BrokenArchive&) {
  return 0;  // reported when the archive is read
}

SourceList::Source find_source(const std::string& path, const SourceRules& rules, FolderWalk& walk) {
  using Kind = SourceList::Kind;
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw Error(ExitCode::file, fmt::format("{}: no such file or folder", path), "correct the path of the source");
  }
  if (fs::is_directory(status)) {
    walk.add_folder(path);
    return {Kind::folder, path, path, "", folder_name(path), 0};
  }
  if (!fs::is_regular_file(status)) throw Error(ExitCode::file, fmt::format("{}: neither file nor folder", path));
  if (const auto repeated = archive_stem(path).empty() ? "" : walk.add_file(path); !repeated.empty()) {
    SourceList::Source source{Kind::list, path, "", "", "", 0};
    add_file(source.files, path, repeated);
    return source;
  }
  if (const auto stem = archive_stem(path); !stem.empty()) {
    return {Kind::archive, path, path, "", std::string(stem), rules.split.empty() ? 0 : top_folders(path, rules)};
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    throw Error(ExitCode::file, fmt::format("{}: cannot be read: {}", path, std::strerror(errno)),
                "check its permissions");
  }
  std::string start(4096, '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<std::size_t>(in.gcount()));
  const fs::path file(path);
  const std::string folder = file.parent_path().string();
  SourceList::Source source{Kind::list, path, folder, "", "", 0};
  if (read_header({reinterpret_cast<const std::uint8_t*>(start.data()), start.size()}).kind != ImageKind::unknown) {
    source.above = 1;  // the user named it, so it may be hidden
    add_file(source.files, file.filename().string(), walk.add_file(path));
  } else {
    if (remove_byte_order_mark(start).empty() && start.find('\0') != std::string::npos) {
      throw Error(
          ExitCode::file, fmt::format("{}: neither a folder, an archive, a list of paths nor an image", path),
          "archives are known by their names: .tar .tar.gz .tgz .tar.zst .tar.xz .tar.bz2 (others, such as ZIP: unpack "
          "them); a list is UTF-8 text with one path a line (of UTF-16: iconv -f UTF-16 -t UTF-8)");
    }
    source = read_list(path);
  }
  source.folder = folder_name(folder);
  return source;
}

// Iterates over the records of Source::files.
class FileRecords {
 public:
  explicit FileRecords(const SourceList::Source& source) : source_(source) {}

  bool next(Candidate& out) {
    if (at_ >= source_.files.size()) return false;
    out.name = text();
    out.refusal = text();
    const bool absolute = source_.kind == SourceList::Kind::list && out.name.starts_with('/');
    out.path = absolute || source_.path.empty() ? out.name : (fs::path(source_.path) / out.name).string();
    const auto parts = parts_of(out.name);
    out.folder = parts.size() < 2 ? source_.folder : std::string(parts[parts.size() - 2]);
    if (out.folder == "/" || out.folder == "..") out.folder.clear();
    return true;
  }

  double fraction() const {
    return source_.files.empty() ? 1 : static_cast<double>(at_) / static_cast<double>(source_.files.size());
  }

 private:
  std::string text() {
    const auto end = source_.files.find('\0', at_);
    auto out = source_.files.substr(at_, end - at_);
    at_ = end + 1;
    return out;
  }
  const SourceList::Source& source_;
  std::size_t at_ = 0;
};

std::string read_file(const std::string& path, std::vector<std::uint8_t>& out) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return fmt::format("unreadable: {}", std::strerror(errno));
  if (S_ISDIR(info.st_mode)) return "unreadable: a folder, and a list names files";
  if (!S_ISREG(info.st_mode)) return "unreadable: not a regular file";
  const auto bytes = static_cast<std::uint64_t>(info.st_size);
  if (bytes > kMaxFile_bytes) return too_large(bytes);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) return fmt::format("unreadable: {}", std::strerror(errno));
  out.resize(bytes);
  if (bytes > 0 && std::fread(out.data(), 1, bytes, file.get()) != bytes) {
    out.clear();
    return "unreadable: shorter than its size says";
  }
  return "";
}

// Reads in pieces: a header that declares more than the entry holds must not cause a large allocation.
std::string read_entry(ArchiveReader& reader, std::uint64_t declared, std::vector<std::uint8_t>& out) {
  constexpr std::uint64_t kPiece_bytes = std::uint64_t{1} << 20;
  while (out.size() < declared) {
    const std::size_t before = out.size();
    out.resize(before + std::min(kPiece_bytes, declared - before));
    const auto n = reader.read(std::span(out).subspan(before));
    if (before + n < out.size()) {
      out.resize(before + n);
      return kCut;
    }
  }
  return "";
}

class Stream : public CandidateStream {
 public:
  Stream(const SourceList& list, const SourceRules& rules)
      : list_(list), rules_(rules), tallies_(list.sources.size()) {}

  bool next(Candidate& out) override {
    for (; source_ < list_.sources.size(); ++source_, files_.reset(), last_hidden_.clear()) {
      while (step(out)) {
        if (!is_wanted(out) || enters_archive(out)) continue;
        ++tally().taken;
        if (archives_.empty() && is_image_name(out.name)) ++tally().loose_images;
        bytes_ = out.bytes;
        path_ = out.path;
        return true;
      }
    }
    return false;
  }

  std::string read(std::vector<std::uint8_t>& out) override {
    out.clear();
    if (archives_.empty()) return read_file(path_, out);
    try {
      return read_entry(*archives_.back().reader, bytes_, out);
    } catch (const BrokenArchive& e) {
      if (is_source(archives_.back())) throw broken_source(e);
      return kCut;
    }
  }

  double fraction() const override {
    double here = files_ ? files_->fraction() : 0;
    if (!archives_.empty() && is_source(archives_.front())) here = archives_.front().reader->fraction();
    return (static_cast<double>(source_) + here) / static_cast<double>(std::max<std::size_t>(1, list_.sources.size()));
  }

  const std::vector<Tally>& tallies() const override { return tallies_; }

 private:
  struct Open {
    std::string path, name;  ///< of the archive as a candidate; name is "" for a source
    std::unique_ptr<ArchiveReader> reader;
    std::string entry;  ///< its last file that is not in a folder
    bool holds_files = false;
  };

  const SourceList::Source& source() const { return list_.sources[source_]; }
  Tally& tally() { return tallies_[source_]; }
  static bool is_source(const Open& archive) { return archive.name.empty(); }

  Error broken_source(const BrokenArchive& e) const {
    const auto entries = archives_.empty() ? 0 : archives_.front().reader->entries();
    return {ExitCode::file, fmt::format("{}: broken archive after {} entries: {}", source().path, entries, e.what()),
            "get it again, or leave it out"};
  }

  void open_source() try {
    archives_.push_back({source().path, "", std::make_unique<ArchiveReader>(source().path), "", false});
  } catch (const BrokenArchive& e) {
    throw broken_source(e);
  }

  // Returns the next file of the source, whether wanted or not.
  bool step(Candidate& out) {
    out = {};
    if (!files_) {
      files_.emplace(source());
      if (source().kind == SourceList::Kind::archive) open_source();
    }
    while (!archives_.empty()) {
      auto& archive = archives_.back();
      try {
        if (ArchiveReader::Entry entry; archive.reader->next(entry)) {
          archive.holds_files = true;
          describe(archive, entry, out);
          return true;
        }
        if (!archive.holds_files) out.refusal = "empty: an archive without files";
      } catch (const BrokenArchive& e) {
        if (is_source(archive)) throw broken_source(e);
        // Omit the library's reason: it depends on whether this rank had read the last entry.
        out.refusal = fmt::format("broken archive: cut off or damaged after {} entries", archive.reader->entries());
      }
      out.path = archive.path;
      out.name = archive.name;
      const bool told = !out.refusal.empty() && !is_source(archive);
      archives_.pop_back();
      if (told) return true;
    }
    return files_->next(out);
  }

  void describe(Open& archive, const ArchiveReader::Entry& entry, Candidate& out) {
    out.path = fmt::format("{}:{}", archive.path, entry.name);
    out.name = is_source(archive) ? entry.name : fmt::format("{}/{}", archive.name, entry.name);
    out.bytes = entry.bytes;
    out.refusal = entry.refusal;
    const auto parts = parts_of(entry.name);
    out.of_archive = parts.size() < 2;
    const std::string_view own = is_source(archive) ? source().folder : archive_stem(archive.name);
    out.folder = out.of_archive ? own : parts[parts.size() - 2];
    if (out.folder == "..") out.folder.clear();
    if (!out.of_archive) return;
    // 17.cls next to 17.jpg: a webdataset, whose archives are parts of it and not classes.
    const auto dot = entry.name.find('.'), last = archive.entry.find('.');
    const auto is_text = [](std::string_view name) {
      return name.ends_with(".cls") || name.ends_with(".txt") || name.ends_with(".json");
    };
    if (dot == last && dot != std::string::npos && entry.name.compare(0, dot, archive.entry, 0, dot) == 0 &&
        is_text(entry.name) != is_text(archive.entry)) {
      tally().samples = true;
    }
    archive.entry = entry.name;
  }

  // If the candidate is an archive that can be read, enters it and returns true, so that it is not returned as a file.
  bool enters_archive(Candidate& out) {
    if (!out.refusal.empty()) return false;
    if (archive_stem(out.name).empty()) {
      if (out.bytes > kMaxFile_bytes) out.refusal = too_large(out.bytes);
      return false;
    }
    if (archives_.size() >= 2) {
      out.refusal =
          "not supported: an archive in an archive in an archive; unpack the outermost one, and pack its folder";
      return false;
    }
    try {
      auto reader = archives_.empty() ? std::make_unique<ArchiveReader>(out.path)
                                      : std::make_unique<ArchiveReader>(*archives_.back().reader);
      archives_.push_back({out.path, out.name, std::move(reader), "", false});
      ++tally().archives;
      return true;
    } catch (const BrokenArchive&) {
      out.refusal = "broken archive: it cannot be opened, or is not tar";
      return false;
    }
  }

  bool is_wanted(const Candidate& c) {
    const auto parts = parts_of(c.name);
    const auto above = std::min<std::size_t>(source().above, parts.size());
    // Check the top folder of an archive for hidden names too, but not the folders above a list: the user named those.
    for (std::size_t i = source().kind == SourceList::Kind::archive ? 0 : above; i < parts.size() && !rules_.hidden;
         ++i) {
      const auto kind = hidden_kind(parts[i]);
      if (kind.empty()) continue;
      const std::string hidden =
          c.name.substr(0, static_cast<std::size_t>(parts[i].data() - c.name.data()) + parts[i].size());
      if (hidden == last_hidden_) return false;  // a hidden folder counts once for all its contents
      last_hidden_ = hidden;
      auto& counts = tally().hidden;
      ++counts[counts.size() < kMaxKinds || counts.contains(kind) ? kind : "others"];
      return false;
    }
    const std::span inside(parts.begin() + static_cast<std::ptrdiff_t>(above), parts.end());
    if (inside.empty()) return rules_.split.empty() || !c.refusal.empty();
    const auto stem = archive_stem(inside[0]);
    const bool in_folder = inside.size() > 1 || c.name.ends_with('/') || !stem.empty();
    auto& folders = tally().folders;
    if (in_folder && folders.size() < kMaxFolders) folders.try_emplace(std::string(inside[0]));
    if (inside.size() > 2) {
      const auto top = folders.find(std::string(inside[0]));
      if (top != folders.end() && top->second.size() < kMaxFolders) top->second.emplace(inside[1]);
    }
    tally().files_inside |= !in_folder;
    const bool wanted = rules_.split.empty() || (in_folder && (inside[0] == rules_.split || stem == rules_.split));
    if (!wanted) ++tally().outside_split;
    return wanted;
  }

  const SourceList& list_;
  const SourceRules& rules_;
  std::size_t source_ = 0;
  std::optional<FileRecords> files_;
  std::vector<Open> archives_;  // at most two: an archive, and one inside it
  std::string path_, last_hidden_;
  std::uint64_t bytes_ = 0;  // size of the file returned last, in an archive
  std::vector<Tally> tallies_;
};

}  // namespace

SourceList find_sources(const std::vector<std::string>& paths, const SourceRules& rules,
                        const comm::Communicator& comm) {
  SourceList list;
  comm::agree(comm, "finding the sources", [&] {
    if (!comm.is_root()) return;
    FolderWalk walk(rules);
    for (const auto& p : paths) list.sources.push_back(find_source(p, rules, walk));
    const auto files = walk.files();
    auto next = files.begin();
    for (auto& source : list.sources) {
      if (source.kind == SourceList::Kind::folder) source.files = *next++;
    }
  });
  auto count = static_cast<std::int64_t>(list.sources.size());
  comm.broadcast(&count, sizeof count);
  list.sources.resize(static_cast<std::size_t>(count));
  for (auto& s : list.sources) {
    comm.broadcast(&s.kind, sizeof s.kind);
    comm.broadcast(&s.above, sizeof s.above);
    for (auto* text : {&s.given, &s.path, &s.files, &s.folder}) comm.broadcast(*text);
  }
  return list;
}

std::unique_ptr<CandidateStream> open_stream(const SourceList& sources, const SourceRules& rules) {
  return std::make_unique<Stream>(sources, rules);
}

}  // namespace seer::data
