// SPDX-License-Identifier: Apache-2.0
// Saves a checkpoint. The ranks agree on the contents, the root lays out the file, all ranks write and sync it, the
// root writes the manifest and renames the folder. If a step fails, all ranks learn it at the next agreement and leave
// together. The run can continue, since earlier checkpoints are untouched. Also: saves beside the training.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "seer/base/build_info.hpp"
#include "seer/base/checksum.hpp"
#include "seer/checkpoint/background.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/checkpoint/raw.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace fs = std::filesystem;
namespace {

using h5::Dims;
using h5::File;
using h5::Type;
using nlohmann::json;

// Describes what this rank holds, with checksums. The root also lists tensors of which it holds nothing, so that a
// tensor that no rank writes is noticed.
std::string describe_mine(const std::vector<Slab>& slabs, bool is_root) {
  json list = json::array();
  for (const auto& slab : slabs) {
    ensure(slab.begin >= 0 && slab.begin <= slab.end && slab.end <= elements_of(slab.shape),
           "a slab lies outside its tensor");
    if (slab.begin == slab.end && !is_root) continue;
    json pieces = json::array();
    for (auto at = slab.begin; at < slab.end; at += kPieceElements) {
      const auto end = std::min(slab.end, at + kPieceElements);
      const auto bytes = static_cast<std::size_t>(end - at) * sizeof(float);
      pieces.push_back({at, end, checksum(slab.data + (at - slab.begin), bytes)});
    }
    list.push_back({slab.group, slab.name, slab.shape, pieces});
  }
  return list.dump();
}

std::vector<TensorRecord> merge(const std::vector<std::string>& of_ranks) {
  std::map<std::pair<std::string, std::string>, TensorRecord> tensors;
  for (const auto& text : of_ranks) {
    for (const auto& item : json::parse(text)) {
      TensorRecord record{item.at(0), item.at(1), item.at(2), 0, {}};
      auto& whole = tensors.try_emplace({record.group, record.name}, record).first->second;
      ensure(whole.shape == record.shape, "ranks give different shapes to one tensor");
      for (const auto& p : item.at(3)) whole.pieces.push_back({p.at(0), p.at(1), p.at(2)});
    }
  }
  std::vector<TensorRecord> out;
  for (auto& [key, tensor] : tensors) {
    std::ranges::sort(tensor.pieces, {}, &Piece::begin);
    std::int64_t at = 0;
    for (const auto& piece : tensor.pieces) {
      ensure(piece.begin == at, "ranks' slabs of a tensor overlap or leave a gap");
      at = piece.end;
    }
    ensure(at == tensor.elements() && at > 0, "ranks' slabs do not cover a tensor");
    out.push_back(std::move(tensor));
  }
  return out;
}

/// Upper bound for the bytes that HDF5 writes besides the tensors: headers, names, /state.
std::uint64_t metadata_bytes(const Manifest& manifest, const State& state) {
  std::uint64_t bytes = (std::uint64_t{1} << 18) + state.config_toml.size();
  for (const auto& t : manifest.tensors) bytes += 2048 + t.name.size();
  for (const auto& s : state.shards) bytes += 64 + 2 * s.name.size();
  std::size_t longest = 0;
  for (const auto& name : state.classes) longest = std::max(longest, name.size());
  bytes += state.classes.size() * longest;
  for (const auto& [name, tensor] : state.method.tensors) bytes += 1024 + tensor.values.size() * sizeof(float);
  return bytes + state.plateau.size() * sizeof(double);
}

/// The folder where the file is laid out: in memory, or, if that is full, the system's folder for temporary files.
/// Checks the room beforehand, since HDF5 must never meet a full file system.
std::string layout_folder(std::uint64_t bytes) {
  constexpr const char* kMemoryFolder = "/dev/shm";
  std::vector<std::string> tried;
  std::error_code ec;
  for (const auto& folder : {fs::path(kMemoryFolder), fs::temp_directory_path(ec)}) {
    const auto free = fs::space(folder, ec).available;
    if (ec) continue;
    if (free >= bytes && access(folder.c_str(), W_OK | X_OK) == 0) return folder;
    tried.push_back(fmt::format("{} ({} bytes free)", folder.string(), free));
  }
  throw Error(ExitCode::file,
              fmt::format("no folder has the {} bytes that the layout of a checkpoint takes: {}", bytes,
                          fmt::join(tried, ", ")),
              fmt::format("free space in {}, or set TMPDIR to a folder with space", kMemoryFolder));
}

// A limit on file sizes (ulimit -f) would also apply to the file in memory, where a write must not fail.
void check_size_limit(const Manifest& manifest) {
  std::uint64_t wanted = std::uint64_t{1} << 16;
  for (const auto& t : manifest.tensors) wanted += static_cast<std::uint64_t>(t.elements()) * sizeof(float) + 1024;
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < wanted)
    throw Error(ExitCode::file,
                fmt::format("the limit on the size of a file is {} bytes, a checkpoint needs about {}",
                            static_cast<std::uint64_t>(limit.rlim_cur), wanted),
                "raise the limit: ulimit -f unlimited");
}

/// Lays state.h5 out, with everything except the tensors' values, and fills in the manifest's offsets and file_bytes.
/// The file has no name any more when this returns.
///
/// HDF5 1.10 does not survive a failed write of its metadata: the file can then be neither closed nor dropped, and the
/// program crashes or hangs when it ends. So HDF5 lays out the file in memory (/dev/shm), where a full or failing file
/// system cannot affect it, and its bytes are then copied with plain writes. The tensors are holes in this file and
/// take no memory.
RawFile lay_out(Manifest& manifest, const State& state) {
  std::string path = layout_folder(metadata_bytes(manifest, state)) + "/seer-checkpoint-XXXXXX";
  const int fd = mkstemp(path.data());
  if (fd < 0) fail_with_errno("create", path);
  close(fd);
  const struct Unlink {
    const std::string& path;
    ~Unlink() { unlink(path.c_str()); }
  } unlink_at_end{path};
  auto file = File::create(path);
  write_state(file, state);
  std::string group;
  for (const auto& t : manifest.tensors) {
    if (t.group != group) file.create_group("/" + t.group);
    group = t.group;
    file.create_dataset("/" + t.group + "/" + t.name, Type::f32, Dims(t.shape.begin(), t.shape.end()));
  }
  file.close();
  const auto written = File::open(path);
  for (auto& t : manifest.tensors) {
    const auto d = written.describe("/" + t.group + "/" + t.name);
    ensure(d.plain && d.type == Type::f32, "a tensor of the checkpoint is not plain");
    t.offset_bytes = d.file_offset;
  }
  manifest.file_bytes = fs::file_size(path);
  return RawFile(path);
}

/// Makes the empty folder `temporary`, and checks that its file system has room for the checkpoint.
void make_room(const fs::path& temporary, std::uint64_t wanted_bytes) {
  std::error_code ec;
  fs::create_directories(temporary.parent_path(), ec);
  clear_leftovers(temporary.parent_path());
  fs::create_directory(temporary, ec);
  if (ec)
    throw Error(ExitCode::file, fmt::format("cannot create {}: {}", temporary.string(), ec.message()),
                "check that this user can write to log.run_dir");
  const auto space = fs::space(temporary, ec);
  if (ec || space.capacity == 0) return;  // the file system cannot tell
  if (space.available < wanted_bytes)
    throw Error(ExitCode::file,
                fmt::format("no space left for a checkpoint in {}: {} bytes are free, {} are needed",
                            temporary.parent_path().string(), space.available, wanted_bytes),
                "free space, lower checkpoint.keep_last, or move log.run_dir to a larger file system");
}

/// Copies all but the holes.
void copy(const RawFile& from, std::uint64_t bytes, const std::string& path) {
  const RawFile to(path, RawFile::Access::create);
  const auto end = static_cast<off_t>(bytes);
  if (ftruncate(to.descriptor(), end) != 0) fail_with_errno("extend", path);
  // A full disk or quota fails here, before any rank has written. On file systems that cannot reserve it fails later.
  if (fallocate(to.descriptor(), 0, 0, end) != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)
    fail_with_errno(fmt::format("reserve {} bytes for", bytes), path);
  std::vector<char> buffer(std::size_t{1} << 20);
  for (off_t at = 0, hole = 0; at < end;) {
    if (at == hole) {
      at = lseek(from.descriptor(), at, SEEK_DATA);
      if (at < 0) break;
      hole = std::min(lseek(from.descriptor(), at, SEEK_HOLE), end);
    }
    const auto count = std::min<std::size_t>(buffer.size(), static_cast<std::size_t>(hole - at));
    from.read(static_cast<std::uint64_t>(at), buffer.data(), count);
    to.write(static_cast<std::uint64_t>(at), buffer.data(), count);
    at += static_cast<off_t>(count);
  }
  to.sync();
}

// Writes this rank's slabs at the offsets that HDF5 laid out, and syncs. Every rank must sync, since fsync writes only
// the pages of its own node.
void write_slabs(const std::string& path, const Manifest& manifest, const std::vector<Slab>& slabs) {
  const RawFile file(path, RawFile::Access::write);
  for (const auto& slab : slabs) {
    const auto* tensor = manifest.find(slab.group, slab.name);
    ensure(tensor != nullptr, "a slab of a tensor that is not in the manifest");
    file.write(tensor->offset_bytes + static_cast<std::uint64_t>(slab.begin) * sizeof(float), slab.data,
               static_cast<std::uint64_t>(slab.end - slab.begin) * sizeof(float));
  }
  file.sync();
}

constexpr std::int64_t kLineFloats = 16;  // 64 bytes

std::int64_t padded_floats(const Slab& slab) {
  return (slab.end - slab.begin + kLineFloats - 1) / kLineFloats * kLineFloats;
}

}  // namespace

std::string save(const comm::Communicator& comm, const std::string& run_dir, const std::vector<Slab>& slabs,
                 const State& state) {
  const auto parent = checkpoints_folder(run_dir);
  const auto final_path = parent / folder_name(state.update);
  const auto temporary = parent / (".tmp-" + folder_name(state.update));
  const std::string path = temporary / "state.h5";
  try {
    std::string mine, laid_out;
    comm::agree(comm, "listing what to save", [&] { mine = describe_mine(slabs, comm.is_root()); });
    const auto of_ranks = comm.all_gather(mine);
    Manifest manifest{.update = state.update, .ranks = comm.size(), .build = build_info()};
    comm::agree(comm, "creating the checkpoint", [&] {
      if (!comm.is_root()) return;
      manifest.state_xxh3 = state_checksum(state);
      manifest.tensors = merge(of_ranks);
      check_size_limit(manifest);
      const RawFile layout = lay_out(manifest, state);
      make_room(temporary, manifest.file_bytes);
      copy(layout, manifest.file_bytes, path);
      laid_out = to_json(manifest);
    });
    comm.broadcast(laid_out);
    if (!comm.is_root()) manifest = parse_manifest(laid_out, path);
    comm::agree(comm, "writing the checkpoint", [&] { write_slabs(path, manifest, slabs); });
    comm::agree(comm, "completing the checkpoint", [&] {
      if (!comm.is_root()) return;
      std::error_code ec;
      if (const auto bytes = fs::file_size(path, ec); ec || bytes != manifest.file_bytes)
        throw Error(ExitCode::file,
                    fmt::format("{} was created with {} bytes, but now {}", path, manifest.file_bytes,
                                ec ? ec.message() : fmt::format("has {}", bytes)),
                    "check whether another program works in log.run_dir");
      manifest.outside_xxh3 = outside_checksum(path, manifest);
      write_text(temporary / "manifest.json", to_json(manifest));
      commit_folder(temporary, final_path);
    });
  } catch (...) {
    std::error_code ec;
    if (comm.is_root()) fs::remove_all(temporary, ec);
    throw;
  }
  return final_path;
}

std::int64_t Snapshot::bytes(const std::vector<Slab>& slabs) {
  std::int64_t floats = 0;
  for (const auto& slab : slabs) floats += padded_floats(slab);
  return floats * static_cast<std::int64_t>(sizeof(float));
}

void Snapshot::take(const std::vector<Slab>& slabs) {
  const auto wanted = static_cast<std::size_t>(bytes(slabs));
  if (wanted > buffer_.bytes()) buffer_ = device::Buffer(wanted);
  slabs_ = slabs;
  float* to = buffer_.f32();
  for (auto& slab : slabs_) {
    const float* from = std::exchange(slab.data, to);
    to += padded_floats(slab);
    if (slab.end > slab.begin)
      std::memcpy(slab.data, from, static_cast<std::size_t>(slab.end - slab.begin) * sizeof(float));
  }
}

void Background::start(Job job) {
  ensure(ticket_ == 0, "a checkpoint is started while another is being written");
  outcome_ = {};
  ticket_ = stream_.post([this, job = std::move(job)] {
    const Clock clock;
    try {
      job(comm_);
    } catch (const Error& e) {
      if (!e.agreed()) comm::die(e.message(), static_cast<int>(e.code()));
      outcome_.error = e;
    } catch (const std::exception& e) {
      comm::die(e.what(), static_cast<int>(ExitCode::internal));
    }
    outcome_.seconds = clock.seconds();
  });
}

Background::Outcome Background::wait() {
  stream_.wait(std::exchange(ticket_, 0));
  traffic_ = comm_.traffic();
  return outcome_;
}

}  // namespace seer::checkpoint
