// SPDX-License-Identifier: Apache-2.0
#include "pack_archive.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace seer::data {
namespace {

void free_archive(archive* a) {
  archive_read_free(a);
}

}  // namespace

/// Where the archive's own bytes come from.
struct ArchiveReader::Input {
  explicit Input(ArchiveReader& reader) : outer(&reader), buffer(std::size_t{1} << 16) {}
  explicit Input(const std::string& path)
      : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), buffer(std::size_t{1} << 20) {
    struct stat info {};
    if (fd < 0 || ::fstat(fd, &info) != 0) {
      const std::string why = std::strerror(errno);
      if (fd >= 0) ::close(fd);
      throw BrokenArchive(why);
    }
    file_bytes = info.st_size;
  }
  ~Input() {
    if (fd >= 0) ::close(fd);
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  static la_ssize_t read(archive* a, void* self, const void** out) {
    auto& in = *static_cast<Input*>(self);
    *out = in.buffer.data();
    if (in.outer == nullptr) {
      la_ssize_t n = 0;
      do n = ::read(in.fd, in.buffer.data(), in.buffer.size());
      while (n < 0 && errno == EINTR);
      if (n < 0) archive_set_error(a, errno, "%s", std::strerror(errno));
      return n;
    }
    try {
      return static_cast<la_ssize_t>(in.outer->read(in.buffer));
    } catch (const std::exception& e) {  // libarchive is C
      archive_set_error(a, EIO, "%s", e.what());
      return -1;
    }
  }

  // Never skips beyond the end, unlike libarchive's own file reader: a cut-off archive would then look complete.
  static la_int64_t skip(archive*, void* self, la_int64_t wanted) {
    auto& in = *static_cast<Input*>(self);
    if (in.outer != nullptr) return 0;
    const auto here = ::lseek(in.fd, 0, SEEK_CUR);
    const auto step = here < 0 ? 0 : std::clamp<la_int64_t>(in.file_bytes - here, 0, wanted);
    return step > 0 && ::lseek(in.fd, step, SEEK_CUR) >= 0 ? step : 0;
  }

  ArchiveReader* outer = nullptr;
  int fd = -1;
  la_int64_t file_bytes = 0;
  std::vector<std::uint8_t> buffer;
};

ArchiveReader::ArchiveReader(const std::string& path)
    : input_(std::make_unique<Input>(path)), archive_(archive_read_new(), free_archive) {
  open();
}

ArchiveReader::ArchiveReader(ArchiveReader& outer)
    : input_(std::make_unique<Input>(outer)), archive_(archive_read_new(), free_archive) {
  open();
}

ArchiveReader::~ArchiveReader() = default;

void ArchiveReader::open() {
  // Only filters that need no external program.
  for (auto* filter :
       {archive_read_support_filter_gzip, archive_read_support_filter_bzip2, archive_read_support_filter_xz,
        archive_read_support_filter_lzma, archive_read_support_filter_zstd, archive_read_support_filter_compress}) {
    filter(archive_.get());
  }
  archive_read_support_format_tar(archive_.get());
  archive_read_support_format_empty(archive_.get());
  check(archive_read_open2(archive_.get(), input_.get(), nullptr, Input::read, Input::skip, nullptr));
}

void ArchiveReader::check(int status) const {
  if (status == ARCHIVE_OK || status == ARCHIVE_WARN) return;  // a warning: a name in an odd character set
  const char* why = archive_error_string(archive_.get());
  throw BrokenArchive(why != nullptr ? why : "unknown");
}

bool ArchiveReader::next(Entry& out) {
  do {
    const int status = archive_read_next_header(archive_.get(), &entry_);
    if (status == ARCHIVE_EOF) return false;
    check(status);
    ++entries_;
  } while (archive_entry_filetype(entry_) == AE_IFDIR);
  const char* name = archive_entry_pathname(entry_);
  if (name == nullptr) name = archive_entry_pathname_utf8(entry_);
  out.name = name != nullptr ? name : "";
  while (out.name.starts_with("./") || out.name.starts_with('/')) out.name.erase(0, out.name.find('/') + 1);
  bytes_ = out.bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(0, archive_entry_size(entry_)));
  at_ = block_at_ = block_bytes_ = 0;
  out.refusal.clear();
  if (const char* first = archive_entry_hardlink(entry_); first != nullptr) {
    out.refusal = fmt::format("repeated: a hard link to {} in the same archive", first);
  } else if (archive_entry_filetype(entry_) == AE_IFLNK) {
    out.refusal = "unreadable: a link inside the archive";
  } else if (archive_entry_filetype(entry_) != AE_IFREG) {
    out.refusal = "unreadable: not a regular file";
  }
  return true;
}

std::size_t ArchiveReader::read(std::span<std::uint8_t> to) {
  std::size_t done = 0;
  while (done < to.size() && at_ < bytes_) {
    const auto left = std::min<std::uint64_t>(to.size() - done, bytes_ - at_);
    std::uint64_t n = 0;
    if (at_ < block_at_) {  // a hole before the block
      n = std::min(left, block_at_ - at_);
      std::memset(to.data() + done, 0, n);
    } else if (at_ < block_at_ + block_bytes_) {
      n = std::min(left, block_at_ + block_bytes_ - at_);
      std::memcpy(to.data() + done, block_ + (at_ - block_at_), n);
    } else {
      const void* block = nullptr;
      std::size_t bytes = 0;
      la_int64_t at = 0;
      const int status = archive_read_data_block(archive_.get(), &block, &bytes, &at);
      if (status == ARCHIVE_EOF) {  // a hole at the end
        at = static_cast<la_int64_t>(bytes_);
        bytes = 0;
      } else {
        check(status);
      }
      if (at < static_cast<la_int64_t>(at_)) throw BrokenArchive("its map of holes goes backwards");
      block_ = static_cast<const std::uint8_t*>(block);
      block_bytes_ = bytes;
      block_at_ = static_cast<std::uint64_t>(at);
    }
    done += n;
    at_ += n;
  }
  return done;
}

double ArchiveReader::fraction() const {
  return std::min(1.0, static_cast<double>(archive_filter_bytes(archive_.get(), -1)) /
                           static_cast<double>(std::max<la_int64_t>(1, input_->file_bytes)));
}

}  // namespace seer::data
