// SPDX-License-Identifier: Apache-2.0
// Goes through the files of pack's sources, reads them, and tells what their names mean.
#include "pack_parts.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>

namespace seer::data {
namespace {

namespace fs = std::filesystem;

// Larger files are refused unread: no photo is so large, and a compressed archive can declare any size.
constexpr std::uint64_t kMaxFile_bytes = std::uint64_t{1} << 28;
// Maximum number of folder names kept to describe a source.
constexpr std::size_t kMaxFolders = 1000;
constexpr std::size_t kMaxKinds = 30;  // hidden names that are counted separately; the rest share one count
constexpr const char* kCut = "unreadable: cut off in the archive";

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool is_one_of(const std::string& text, std::initializer_list<const char*> all) {
  return std::any_of(all.begin(), all.end(), [&](const char* each) { return text == each; });
}

std::string too_large(std::uint64_t bytes) {
  return fmt::format("too large: {} bytes, over the limit of {}", bytes, kMaxFile_bytes);
}

// Iterates over the records of Source::files.
class FileRecords {
 public:
  explicit FileRecords(const Source& source) : source_(source) {}

  bool next(Candidate& out) {
    if (at_ >= source_.files.size()) return false;
    out.name = text();
    out.refusal = text();
    const bool absolute = source_.kind == Source::Kind::list && out.name.starts_with('/');
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
  const Source& source_;
  std::size_t at_ = 0;
};

std::string read_file(const std::string& path, std::vector<std::uint8_t>& out) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return fmt::format("unreadable: {}", std::strerror(errno));
  if (S_ISDIR(info.st_mode)) return "unreadable: it is a folder, but a list must name files";
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
  Stream(const SourceList& list, const PackOptions& options) : list_(list), options_(options), tallies_(list.size()) {}

  bool next(Candidate& out) override {
    for (; source_ < list_.size(); ++source_, files_.reset(), last_hidden_.clear()) {
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
    return (static_cast<double>(source_) + here) / static_cast<double>(std::max<std::size_t>(1, list_.size()));
  }

  const std::vector<Tally>& tallies() const override { return tallies_; }

 private:
  struct Open {
    std::string path, name;  ///< of the archive as a candidate; name is "" for a source
    std::unique_ptr<ArchiveReader> reader;
    std::string entry = {};  ///< its last file that is not in a folder
    bool holds_files = false;
  };

  const Source& source() const { return list_[source_]; }
  Tally& tally() { return tallies_[source_]; }
  static bool is_source(const Open& archive) { return archive.name.empty(); }

  Error broken_source(const BrokenArchive& e) const {
    const auto entries = archives_.empty() ? 0 : archives_.front().reader->entries();
    return {ExitCode::file, fmt::format("{}: broken archive after {} entries: {}", source().path, entries, e.what()),
            "get it again, or leave it out"};
  }

  // Returns the next file of the source, whether wanted or not.
  bool step(Candidate& out) {
    out = {};
    if (!files_) {
      files_.emplace(source());
      try {
        if (source().kind == Source::Kind::archive) enter(source().path, "");
      } catch (const BrokenArchive& e) {
        throw broken_source(e);
      }
    }
    while (!archives_.empty()) {
      auto& archive = archives_.back();
      try {
        if (archive.reader->next(out)) {
          archive.holds_files = true;
          describe(archive, out);
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

  // Completes what the archive's reader told about an entry.
  void describe(Open& archive, Candidate& out) {
    const std::string entry = out.name;
    out.path = fmt::format("{}:{}", archive.path, entry);
    if (!is_source(archive)) out.name = fmt::format("{}/{}", archive.name, entry);
    const auto parts = parts_of(entry);
    out.of_archive = parts.size() < 2;
    const std::string_view own = is_source(archive) ? source().folder : archive_stem(archive.name);
    out.folder = out.of_archive ? own : parts[parts.size() - 2];
    if (out.folder == "..") out.folder.clear();
    if (!out.of_archive) return;
    // 17.cls next to 17.jpg: a webdataset, whose archives are parts of it and not classes.
    const auto dot = entry.find('.'), last = archive.entry.find('.');
    const auto is_text = [](std::string_view name) {
      return name.ends_with(".cls") || name.ends_with(".txt") || name.ends_with(".json");
    };
    if (dot == last && dot != std::string::npos && entry.compare(0, dot, archive.entry, 0, dot) == 0 &&
        is_text(entry) != is_text(archive.entry))
      tally().samples = true;
    archive.entry = entry;
  }

  void enter(const std::string& path, const std::string& name) {
    auto reader = archives_.empty() ? std::make_unique<ArchiveReader>(path)
                                    : std::make_unique<ArchiveReader>(*archives_.back().reader);
    archives_.push_back({path, name, std::move(reader)});
  }

  // If the candidate is an archive that can be read, enters it and returns true, so that it is not returned as a file.
  bool enters_archive(Candidate& out) {
    if (!out.refusal.empty()) return false;
    if (archive_stem(out.name).empty()) {
      if (out.bytes > kMaxFile_bytes) out.refusal = too_large(out.bytes);
      return false;
    }
    if (archives_.size() >= 2) {
      out.refusal = "not supported: an archive in an archive in an archive; unpack the outer one and pack its folder";
      return false;
    }
    try {
      enter(out.path, out.name);
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
    const std::size_t first = source().kind == Source::Kind::archive ? 0 : above;
    for (std::size_t i = first; i < parts.size() && !options_.hidden; ++i) {
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
    if (inside.empty()) return options_.split.empty() || !c.refusal.empty();
    const auto stem = archive_stem(inside[0]);
    const bool in_folder = inside.size() > 1 || c.name.ends_with('/') || !stem.empty();
    auto& folders = tally().folders;
    if (in_folder && folders.size() < kMaxFolders) folders.try_emplace(std::string(inside[0]));
    if (inside.size() > 2) {
      const auto top = folders.find(std::string(inside[0]));
      if (top != folders.end() && top->second.size() < kMaxFolders) top->second.emplace(inside[1]);
    }
    tally().files_inside |= !in_folder;
    const bool wanted =
        options_.split.empty() || (in_folder && (inside[0] == options_.split || stem == options_.split));
    if (!wanted) ++tally().outside_split;
    return wanted;
  }

  const SourceList& list_;
  const PackOptions& options_;
  std::size_t source_ = 0;
  std::optional<FileRecords> files_;
  std::vector<Open> archives_;  // at most two: an archive, and one inside it
  std::string path_, last_hidden_;
  std::uint64_t bytes_ = 0;  // size of the file returned last, in an archive
  std::vector<Tally> tallies_;
};

}  // namespace

std::unique_ptr<CandidateStream> open_stream(const SourceList& sources, const PackOptions& options) {
  return std::make_unique<Stream>(sources, options);
}

std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> parts;
  if (path.starts_with('/')) parts.push_back(path.substr(0, 1));
  for (std::size_t at = 0; at < path.size();) {
    const auto end = std::min(path.find('/', at), path.size());
    const auto part = path.substr(at, end - at);
    if (!part.empty() && part != ".") parts.push_back(part);
    at = end + 1;
  }
  return parts;
}

std::string_view archive_stem(std::string_view name) {
  name.remove_prefix(name.rfind('/') + 1);  // npos + 1 is 0
  const std::string small = lower(name);
  for (const char* end : {".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"})
    if (small.ends_with(end)) return name.substr(0, name.size() - std::string_view(end).size());
  return {};
}

std::string hidden_kind(std::string_view part) {
  if (part == "." || part == "..") return "";
  if (part.starts_with("._")) return "._*";  // macOS: extra data of the file whose name lacks these two characters
  if (part.starts_with('.')) return std::string(part);
  // Folders of macOS, Synology, QNAP, NetApp, Windows, ext file systems and Python.
  const bool system =
      is_one_of(lower(part), {"__macosx", "@eadir", "@__thumb", "#recycle", "@recycle", "#snapshot", "~snapshot",
                              "@recently-snapshot", "__pycache__", "$recycle.bin", "recycler",
                              "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found"});
  return system ? std::string(part) : "";
}

bool is_image_name(std::string_view name) {
  return is_one_of(lower(name.substr(std::min(name.rfind('.'), name.size()))), {".jpg", ".jpeg", ".png", ".webp"});
}

bool is_split_name(std::string_view folder) {
  return is_one_of(lower(folder), {"train", "training", "test", "testing", "val", "valid", "validation"});
}

}  // namespace seer::data
