// SPDX-License-Identifier: Apache-2.0
#include "pack_source.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "seer/base/error.hpp"
#include "seer/data/image.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;

std::string too_large(std::uint64_t bytes) {
  return fmt::format("too large: {} bytes, over the limit of {}", bytes, kMaxFile_bytes);
}

bool ends_with_any(const std::string& text, std::initializer_list<const char*> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](const char* end) { return text.ends_with(end); });
}

std::string folder_of(const fs::path& path) {
  const auto folder = path.parent_path().filename().string();
  return folder == "." || folder == ".." ? "" : folder;
}

bool has_component(std::string_view path, const std::string& wanted) {
  for (std::size_t at = 0; at <= path.size();) {
    const auto end = std::min(path.find('/', at), path.size());
    if (path.substr(at, end - at) == wanted) return true;
    at = end + 1;
  }
  return false;
}

// Files below `folder`, links to folders not followed (they can go round in circles).
void list_folder(const fs::path& folder, const std::string& prefix, std::vector<std::string>& out) {
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error) {
    out.push_back("\1" + prefix);
    return;
  }
  for (; entries != fs::directory_iterator(); entries.increment(error)) {
    if (error) break;
    const std::string name = prefix + entries->path().filename().string();
    if (entries->is_directory(error) && !entries->is_symlink(error)) {
      list_folder(entries->path(), name + "/", out);
    } else if (!entries->is_directory(error)) {
      out.push_back(name);
    }
  }
}

std::string join(const std::vector<std::string>& names) {
  std::string all;
  for (const auto& n : names) {
    all += n;
    all += '\0';
  }
  return all;
}

SourceList::Source find_source(const std::string& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw Error(ExitCode::file, fmt::format("{}: no such file or folder", path), "correct the path of the source");
  }
  if (fs::is_directory(status)) {
    std::vector<std::string> names;
    list_folder(path, "", names);
    std::sort(names.begin(), names.end());
    return {SourceList::Kind::folder, path, join(names)};
  }
  if (!fs::is_regular_file(status)) throw Error(ExitCode::file, fmt::format("{}: neither file nor folder", path));
  if (ends_with_any(path, {".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"})) {
    return {SourceList::Kind::archive, path, ""};
  }
  std::ifstream in(path, std::ios::binary);
  std::vector<char> start(4096);
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<std::size_t>(in.gcount()));
  const fs::path file(path);
  const std::vector<std::uint8_t> head(start.begin(), start.end());
  if (read_header(head).kind != ImageKind::unknown) {
    return {SourceList::Kind::list, file.parent_path().string(), file.filename().string() + '\0'};
  }
  if (std::find(start.begin(), start.end(), '\0') != start.end()) {
    throw Error(ExitCode::file, fmt::format("{}: neither a folder, an archive, a list of paths nor an image", path),
                "archives are known by their names: .tar .tar.gz .tgz .tar.zst .tar.xz .tar.bz2");
  }
  in.clear();
  in.seekg(0);
  std::vector<std::string> names;
  for (std::string line; std::getline(in, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  return {SourceList::Kind::list, file.parent_path().string(), join(names)};
}

class FileStream : public CandidateStream {
 public:
  explicit FileStream(const SourceList::Source& source) : source_(source) {}

  bool next(Candidate& out) override {
    if (at_ >= source_.files.size()) return false;
    const auto end = source_.files.find('\0', at_);
    out.name = source_.files.substr(at_, end - at_);
    at_ = end + 1;
    out.refusal.clear();
    out.bytes = 0;
    const bool unreadable = out.name.starts_with('\1');
    if (unreadable) out.name.erase(0, 1);
    const bool absolute = source_.kind == SourceList::Kind::list && out.name.starts_with('/');
    out.path = absolute || source_.path.empty() ? out.name : (fs::path(source_.path) / out.name).string();
    out.folder = folder_of(out.path);
    path_ = out.path;
    if (unreadable) out.refusal = "unreadable: the folder cannot be listed";
    return true;
  }

  std::string read(std::vector<std::uint8_t>& out) override {
    out.clear();
    struct stat info {};
    if (::stat(path_.c_str(), &info) != 0) return fmt::format("unreadable: {}", std::strerror(errno));
    if (!S_ISREG(info.st_mode)) return "unreadable: not a regular file";
    const auto bytes = static_cast<std::uint64_t>(info.st_size);
    if (bytes > kMaxFile_bytes) return too_large(bytes);
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path_.c_str(), "rb"), std::fclose);
    if (!file) return fmt::format("unreadable: {}", std::strerror(errno));
    out.resize(bytes);
    if (bytes > 0 && std::fread(out.data(), 1, bytes, file.get()) != bytes) {
      out.clear();
      return "unreadable: shorter than its size says";
    }
    return "";
  }

  double fraction() const override {
    return source_.files.empty() ? 1 : static_cast<double>(at_) / static_cast<double>(source_.files.size());
  }

 private:
  const SourceList::Source& source_;
  std::size_t at_ = 0;
  std::string path_;
};

class ArchiveStream : public CandidateStream {
 public:
  explicit ArchiveStream(const SourceList::Source& source) : path_(source.path), archive_(archive_read_new(), free) {
    std::error_code error;
    file_bytes_ = static_cast<double>(fs::file_size(path_, error));
    archive_read_support_filter_all(archive_.get());
    archive_read_support_format_tar(archive_.get());
    archive_read_support_format_empty(archive_.get());
    constexpr std::size_t kBlock_bytes = std::size_t{1} << 20;
    check(archive_read_open_filename(archive_.get(), path_.c_str(), kBlock_bytes));
  }

  bool next(Candidate& out) override {
    for (;;) {
      const int status = archive_read_next_header(archive_.get(), &entry_);
      if (status == ARCHIVE_EOF) return false;
      check(status);
      ++entries_;
      if (archive_entry_filetype(entry_) == AE_IFDIR) continue;
      const char* name = archive_entry_pathname(entry_);
      out.name = name != nullptr ? name : "";
      while (out.name.starts_with("./")) out.name.erase(0, 2);
      out.path = fmt::format("{}:{}", path_, out.name);
      out.folder = folder_of(out.name);
      out.bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(0, archive_entry_size(entry_)));
      out.refusal.clear();
      if (archive_entry_hardlink(entry_) != nullptr || archive_entry_filetype(entry_) == AE_IFLNK) {
        out.refusal = "unreadable: a link inside the archive";
      } else if (archive_entry_filetype(entry_) != AE_IFREG) {
        out.refusal = "unreadable: not a regular file";
      } else if (out.bytes > kMaxFile_bytes) {
        out.refusal = too_large(out.bytes);
      }
      return true;
    }
  }

  std::string read(std::vector<std::uint8_t>& out) override {
    // In pieces: a header that declares much and holds little must not make us allocate much.
    constexpr std::size_t kPiece_bytes = std::size_t{1} << 20;
    const auto declared = static_cast<std::uint64_t>(std::max<std::int64_t>(0, archive_entry_size(entry_)));
    out.clear();
    while (out.size() < declared) {
      const std::size_t before = out.size();
      out.resize(before + std::min<std::size_t>(kPiece_bytes, declared - before));
      const auto n = archive_read_data(archive_.get(), out.data() + before, out.size() - before);
      if (n < 0) check(static_cast<int>(n));
      out.resize(before + static_cast<std::size_t>(std::max<la_ssize_t>(0, n)));
      if (n <= 0) break;
    }
    return out.size() == declared ? "" : "unreadable: cut off in the archive";
  }

  double fraction() const override {
    return std::min(1.0, static_cast<double>(archive_filter_bytes(archive_.get(), -1)) / std::max(1.0, file_bytes_));
  }

 private:
  static void free(archive* a) { archive_read_free(a); }
  void check(int status) {
    if (status == ARCHIVE_OK || status == ARCHIVE_WARN) return;  // a warning: a name in an odd character set
    const char* why = archive_error_string(archive_.get());
    throw Error(
        ExitCode::file,
        fmt::format("{}: broken archive after {} entries: {}", path_, entries_, why != nullptr ? why : "unknown"),
        "get it again, or leave it out");
  }
  std::string path_;
  std::unique_ptr<archive, void (*)(archive*)> archive_;
  archive_entry* entry_ = nullptr;
  std::uint64_t entries_ = 0;
  double file_bytes_ = 0;
};

class AllStreams : public CandidateStream {
 public:
  AllStreams(const SourceList& list, std::string split) : list_(list), split_(std::move(split)) {}

  bool next(Candidate& out) override {
    for (;;) {
      if (!current_) {
        if (index_ == list_.sources.size()) return false;
        const auto& source = list_.sources[index_];
        if (source.kind == SourceList::Kind::archive) {
          current_ = std::make_unique<ArchiveStream>(source);
        } else {
          current_ = std::make_unique<FileStream>(source);
        }
      }
      if (!current_->next(out)) {
        current_.reset();
        ++index_;
        continue;
      }
      if (split_.empty() || has_component(out.path, split_) || has_component(out.name, split_)) return true;
    }
  }
  std::string read(std::vector<std::uint8_t>& out) override { return current_->read(out); }
  double fraction() const override {
    return (static_cast<double>(index_) + (current_ ? current_->fraction() : 0)) /
           static_cast<double>(std::max<std::size_t>(1, list_.sources.size()));
  }

 private:
  const SourceList& list_;
  std::string split_;
  std::size_t index_ = 0;
  std::unique_ptr<CandidateStream> current_;
};

}  // namespace

SourceList find_sources(const std::vector<std::string>& paths, const comm::Communicator& comm) {
  SourceList list;
  comm::agree(comm, "finding the sources", [&] {
    if (!comm.is_root()) return;
    for (const auto& p : paths) list.sources.push_back(find_source(p));
  });
  auto count = static_cast<std::int64_t>(list.sources.size());
  comm.broadcast(&count, sizeof count);
  list.sources.resize(static_cast<std::size_t>(count));
  for (auto& s : list.sources) {
    comm.broadcast(&s.kind, sizeof s.kind);
    comm.broadcast(s.path);
    comm.broadcast(s.files);
  }
  return list;
}

std::unique_ptr<CandidateStream> open_stream(const SourceList& sources, const std::string& split) {
  return std::make_unique<AllStreams>(sources, split);
}

}  // namespace seer::data
