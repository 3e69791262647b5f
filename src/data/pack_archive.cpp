// SPDX-License-Identifier: Apache-2.0
#include "pack_parts.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace seer::data {

/// Where the archive's own bytes come from.
struct ArchiveReader::Input {
  explicit Input(ArchiveReader& reader) : outer(&reader), buffer(std::size_t{1} << 16) {}
  explicit Input(const std::string& path) : file(path, std::ios::binary), buffer(std::size_t{1} << 20) {
    if (!file) throw BrokenArchive(std::strerror(errno));
    std::error_code error;
    file_bytes = static_cast<la_int64_t>(std::filesystem::file_size(path, error));
    if (error) throw BrokenArchive(error.message());
  }

  static la_ssize_t read(archive* a, void* self, const void** out) {
    auto& in = *static_cast<Input*>(self);
    *out = in.buffer.data();
    if (in.outer == nullptr) {
      in.file.read(reinterpret_cast<char*>(in.buffer.data()), static_cast<std::streamsize>(in.buffer.size()));
      if (!in.file.bad()) return in.file.gcount();
      archive_set_error(a, errno, "%s", std::strerror(errno));
      return -1;
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
    if (in.outer != nullptr || !in.file) return 0;
    const auto step = std::clamp<la_int64_t>(in.file_bytes - in.file.tellg(), 0, wanted);
    return in.file.seekg(step, std::ios::cur) ? step : 0;
  }

  ArchiveReader* outer = nullptr;
  std::ifstream file;
  la_int64_t file_bytes = 0;
  std::vector<std::uint8_t> buffer;
};

ArchiveReader::ArchiveReader(const std::string& path) : ArchiveReader(std::make_unique<Input>(path)) {}
ArchiveReader::ArchiveReader(ArchiveReader& outer) : ArchiveReader(std::make_unique<Input>(outer)) {}
ArchiveReader::~ArchiveReader() = default;

ArchiveReader::ArchiveReader(std::unique_ptr<Input> input)
    : input_(std::move(input)), archive_(archive_read_new(), [](archive* a) { archive_read_free(a); }) {
  // Only filters that need no external program.
  for (auto* filter :
       {archive_read_support_filter_gzip, archive_read_support_filter_bzip2, archive_read_support_filter_xz,
        archive_read_support_filter_lzma, archive_read_support_filter_zstd, archive_read_support_filter_compress})
    filter(archive_.get());
  archive_read_support_format_tar(archive_.get());
  archive_read_support_format_empty(archive_.get());
  check(archive_read_open2(archive_.get(), input_.get(), nullptr, Input::read, Input::skip, nullptr));
}

void ArchiveReader::check(int status) const {
  if (status == ARCHIVE_OK || status == ARCHIVE_WARN) return;  // a warning: a name in an odd character set
  const char* why = archive_error_string(archive_.get());
  throw BrokenArchive(why != nullptr ? why : "unknown");
}

bool ArchiveReader::next(Candidate& out) {
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
  if (const char* first = archive_entry_hardlink(entry_); first != nullptr)
    out.refusal = fmt::format("repeated: a hard link to {} in the same archive", first);
  else if (archive_entry_filetype(entry_) == AE_IFLNK)
    out.refusal = "unreadable: a link inside the archive";
  else if (archive_entry_filetype(entry_) != AE_IFREG)
    out.refusal = "unreadable: not a regular file";
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
