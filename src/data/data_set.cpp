// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/comm/progress.hpp"
#include "seer/data/shard.hpp"

namespace seer::data {
namespace {

constexpr std::size_t kMaxOpenFiles = 256;  // of a thousand shards; the usual limit of a process is 1024

struct Descriptor {
  explicit Descriptor(const std::string& path) : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd < 0) throw Error(ExitCode::file, fmt::format("{}: {}", path, std::strerror(errno)));
  }
  ~Descriptor() { ::close(fd); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const auto end = std::min(text.find(',', at), text.size());
    const auto first = text.find_first_not_of(' ', at);
    const auto last = text.find_last_not_of(' ', end == 0 ? 0 : end - 1);
    if (first < end) parts.push_back(text.substr(first, last - first + 1));
    at = end + 1;
  }
  return parts;
}

std::vector<std::string> find_shards(const std::string& pattern) {
  namespace fs = std::filesystem;
  std::vector<std::string> paths;
  for (const auto& part : split_list(pattern)) {
    std::error_code error;
    if (fs::is_regular_file(part, error)) {
      paths.push_back(part);  // whatever characters its name has
    } else if (fs::is_directory(part, error)) {
      const auto before = paths.size();
      for (const auto& entry : fs::directory_iterator(part, error)) {
        const auto name = entry.path().filename().string();
        if (entry.path().extension() == ".h5" && name[0] != '.') paths.push_back(entry.path().string());
      }
      if (error) throw Error(ExitCode::file, fmt::format("{}: {}", part, error.message()));
      if (paths.size() == before) {
        throw Error(ExitCode::file, fmt::format("{}: the folder holds no *.h5", part), "make shards with seer pack");
      }
    } else if (part.find_first_of("*?[") != std::string::npos) {
      glob_t found{};
      const int status = ::glob(part.c_str(), GLOB_NOSORT, nullptr, &found);
      for (std::size_t i = 0; status == 0 && i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
      globfree(&found);
      if (status != 0) {
        throw Error(ExitCode::file, fmt::format("no file matches \"{}\"", part),
                    "make shards with seer pack, or correct data.shards");
      }
    } else {
      throw Error(ExitCode::file, fmt::format("{}: no such file or folder", part),
                  "make shards with seer pack, or correct data.shards");
    }
  }
  if (paths.empty()) throw Error(ExitCode::file, "the list of shards is empty", "set data.shards");
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

// What rank 0 found, as bytes for the others.
class Packer {
 public:
  void number(std::uint64_t v) { bytes_.append(reinterpret_cast<const char*>(&v), sizeof v); }
  void text(const std::string& v) {
    number(v.size());
    bytes_ += v;
  }
  std::string& bytes() { return bytes_; }

 private:
  std::string bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(const std::string& bytes) : bytes_(bytes) {}
  std::uint64_t number() {
    std::uint64_t v = 0;
    ensure(at_ + sizeof v <= bytes_.size(), "shard list of another length");
    std::memcpy(&v, bytes_.data() + at_, sizeof v);
    at_ += sizeof v;
    return v;
  }
  std::string text() {
    const auto length = number();
    ensure(length <= bytes_.size() - at_, "shard list of another length");
    at_ += length;
    return bytes_.substr(at_ - length, length);
  }

 private:
  const std::string& bytes_;
  std::size_t at_ = 0;
};

template <class F>
void each_number(ShardInfo& s, F&& f) {
  for (auto* n : {&s.file_bytes, &s.images, &s.pixels_offset, &s.pixels_bytes, &s.offset_offset, &s.width_offset,
                  &s.height_offset, &s.checksum_offset, &s.label_offset}) {
    f(*n);
  }
}

std::string pack_infos(std::vector<ShardInfo>& shards) {
  Packer out;
  out.number(shards.size());
  for (auto& s : shards) {
    out.text(s.path);
    each_number(s, [&](std::uint64_t& n) { out.number(n); });
    out.number(s.classes.size());
    for (const auto& c : s.classes) out.text(c);
  }
  return std::move(out.bytes());
}

std::vector<ShardInfo> unpack_infos(const std::string& bytes) {
  Unpacker in(bytes);
  std::vector<ShardInfo> shards(in.number());
  for (auto& s : shards) {
    s.path = in.text();
    each_number(s, [&](std::uint64_t& n) { n = in.number(); });
    s.classes.resize(in.number());
    for (auto& c : s.classes) c = in.text();
  }
  return shards;
}

std::vector<ShardInfo> read_infos(const std::string& pattern, const comm::Communicator& alone) {
  std::vector<ShardInfo> shards;
  for (const auto& path : find_shards(pattern)) {
    auto info = read_shard_info(path, &alone);
    if (!shards.empty()) {
      const auto& first = shards.front();
      if (info.classes != first.classes) {
        throw Error(
            ExitCode::file,
            fmt::format("{} names {} classes, {} names {}{}: labels do not mean the same", path, info.classes.size(),
                        first.path, first.classes.size(), info.classes.size() == first.classes.size() ? " others" : ""),
            "use shards of one seer pack");
      }
      if ((info.label_offset != 0) != (first.label_offset != 0) && info.images > 0 && first.images > 0) {
        throw Error(ExitCode::file, fmt::format("{} and {}: one has labels, the other has none", path, first.path),
                    "use shards of one seer pack");
      }
      info.classes.clear();  // one copy is enough
    }
    shards.push_back(std::move(info));
  }
  return shards;
}

}  // namespace

struct DataSet::Impl {
  std::vector<ShardInfo> shards;
  std::vector<std::uint64_t> first;  // index of each shard's first image, and the total
  mutable std::mutex mutex;
  mutable std::vector<std::shared_ptr<Descriptor>> files;
  mutable std::size_t open_files = 0, clock_hand = 0;

  std::shared_ptr<Descriptor> file(std::uint32_t shard) const {
    const std::lock_guard lock(mutex);
    if (!files[shard]) {
      // Readers keep what they use; a hand goes round and closes one of the others.
      while (open_files >= kMaxOpenFiles) {
        clock_hand = (clock_hand + 1) % files.size();
        if (files[clock_hand]) {
          files[clock_hand].reset();
          --open_files;
        }
      }
      files[shard] = std::make_shared<Descriptor>(shards[shard].path);
      ++open_files;
    }
    return files[shard];
  }

  std::uint32_t shard_of(std::uint64_t index) const {
    return static_cast<std::uint32_t>(std::upper_bound(first.begin(), first.end(), index) - first.begin() - 1);
  }

  // Calls f(shard, first image within it, count) for each shard that [begin, begin + count) touches.
  template <class F>
  void each_part(std::uint64_t begin, std::uint64_t count, F&& f) const {
    ensure(begin <= first.back() && count <= first.back() - begin, "images outside the data set");
    while (count > 0) {
      const auto shard = shard_of(begin);
      const auto part = std::min(count, first[shard + 1] - begin);
      f(shard, begin - first[shard], part);
      begin += part;
      count -= part;
    }
  }
};

DataSet::DataSet(Impl* impl) : impl_(impl) {}
DataSet::DataSet(DataSet&& other) noexcept : impl_(std::exchange(other.impl_, nullptr)) {}
DataSet& DataSet::operator=(DataSet&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}
DataSet::~DataSet() {
  delete impl_;
}

DataSet DataSet::open(const std::string& pattern, const comm::Communicator& comm) {
  // One rank reads the metadata, through MPI-IO on a communicator of its own, and shares it: a thousand ranks opening a
  // thousand shards would bring a parallel file system to its knees.
  const comm::Communicator alone = comm.split(comm.rank());
  std::string bytes;
  comm::agree(comm, "opening the data set", [&] {
    if (!comm.is_root()) return;
    auto shards = read_infos(pattern, alone);
    std::uint64_t images = 0;
    for (const auto& s : shards) images += s.images;
    if (images == 0) throw Error(ExitCode::file, fmt::format("\"{}\": the shards hold no images", pattern));
    bytes = pack_infos(shards);
  });
  comm.broadcast(bytes);
  auto impl = std::make_unique<Impl>();
  impl->shards = unpack_infos(bytes);
  impl->files.resize(impl->shards.size());
  impl->first.push_back(0);
  for (const auto& s : impl->shards) impl->first.push_back(impl->first.back() + s.images);
  return DataSet(impl.release());
}

std::uint64_t DataSet::images() const {
  return impl_->first.back();
}
const std::vector<ShardInfo>& DataSet::shards() const {
  return impl_->shards;
}
const std::vector<std::string>& DataSet::classes() const {
  return impl_->shards.front().classes;
}
bool DataSet::has_labels() const {
  return std::any_of(impl_->shards.begin(), impl_->shards.end(), [](const auto& s) { return s.label_offset != 0; });
}

void DataSet::read(std::uint32_t shard, std::uint64_t offset, std::uint64_t bytes, void* out) const {
  const comm::Reading reading(impl_->shards[shard].path);
  const auto file = impl_->file(shard);
  auto* to = static_cast<char*>(out);
  while (bytes > 0) {
    const auto n = ::pread(file->fd, to, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    const auto& path = impl_->shards[shard].path;
    if (n < 0) throw Error(ExitCode::file, fmt::format("{}: reading at {}: {}", path, offset, std::strerror(errno)));
    if (n == 0) {
      throw Error(ExitCode::file, fmt::format("{}: ends {} bytes early (at {})", path, bytes, offset),
                  "it was cut off or replaced after it was opened");
    }
    to += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::uint64_t>(n);
  }
}

std::vector<ImagePlace> DataSet::places(std::uint64_t first, std::uint64_t count) const {
  std::vector<ImagePlace> out;
  out.reserve(count);
  impl_->each_part(first, count, [&](std::uint32_t shard, std::uint64_t begin, std::uint64_t part) {
    const auto& info = impl_->shards[shard];
    std::vector<std::uint64_t> offsets(part + 1);
    read(shard, info.offset_offset + begin * 8, offsets.size() * 8, offsets.data());
    std::vector<std::uint64_t> sums(part);
    read(shard, info.checksum_offset + begin * 8, part * 8, sums.data());
    for (std::uint64_t i = 0; i < part; ++i) {
      if (offsets[i] > offsets[i + 1] || offsets[i + 1] > info.pixels_bytes) {
        throw Error(ExitCode::file,
                    fmt::format("{}: image {} lies at [{}, {}) of {} bytes", info.path, begin + i, offsets[i],
                                offsets[i + 1], info.pixels_bytes),
                    "the shard is damaged: pack it again");
      }
      out.push_back({shard, info.pixels_offset + offsets[i], offsets[i + 1] - offsets[i], sums[i]});
    }
  });
  return out;
}

ImagePlace DataSet::read_image(std::uint64_t index, std::vector<std::uint8_t>& out) const {
  const auto place = places(index, 1).front();
  out.resize(place.bytes);
  read(place.shard, place.offset, place.bytes, out.data());
  return place;
}

void require_intact(const ImagePlace& place, std::span<const std::uint8_t> bytes) {
  const auto found = checksum(bytes.data(), bytes.size());
  if (found == place.checksum) return;
  throw Error(ExitCode::file,
              fmt::format("its bytes have the checksum {:016x}, {:016x} when packed", found, place.checksum),
              "the shard is damaged: see how far with seer inspect --verify, and take another copy");
}

std::vector<std::int32_t> DataSet::labels(std::uint64_t first, std::uint64_t count) const {
  std::vector<std::int32_t> out(count, -1);
  const auto classes_count = static_cast<std::int64_t>(classes().size());
  std::uint64_t at = 0;
  impl_->each_part(first, count, [&](std::uint32_t shard, std::uint64_t begin, std::uint64_t part) {
    const auto& info = impl_->shards[shard];
    if (info.label_offset != 0) read(shard, info.label_offset + begin * 4, part * 4, out.data() + at);
    for (std::uint64_t i = 0; i < part; ++i) {
      const auto label = out[at + i];
      if (label < -1 || (classes_count > 0 && label >= classes_count)) {
        throw Error(
            ExitCode::file,
            fmt::format("{}: image {} has label {}, wanted -1 to {}", info.path, begin + i, label, classes_count - 1),
            "the shard is damaged: pack it again");
      }
    }
    at += part;
  });
  return out;
}

std::string DataSet::describe(std::uint64_t index) const {
  const auto shard = impl_->shard_of(std::min(index, images() - 1));
  return fmt::format("{}, image {}", std::filesystem::path(impl_->shards[shard].path).filename().string(),
                     index - impl_->first[shard]);
}

}  // namespace seer::data
