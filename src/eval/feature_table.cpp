// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/feature_table.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "seer/base/error.hpp"

namespace seer::eval {

using h5::File;
using h5::Type;

void FeatureTable::append(const FeatureRows& rows) {
  const auto count = static_cast<std::ptrdiff_t>(rows.count);
  values.insert(values.end(), rows.values, rows.values + count * info.dimension);
  labels.insert(labels.end(), rows.labels, rows.labels + count);
  index.insert(index.end(), rows.index, rows.index + count);
  bad.insert(bad.end(), rows.bad, rows.bad + count);
  checksum.insert(checksum.end(), rows.checksum, rows.checksum + count);
}

namespace {

/// Throws if `path` is an existing file that is not a features file: anything else (such as the shard being read) is
/// somebody's data and must not be replaced.
void refuse_foreign(const std::string& path) {
  if (!std::filesystem::exists(path)) return;
  bool ours = false;
  try {
    const File file = File::open(path);
    ours = file.has("/", "format") && file.get_string("/", "format") == "seer-features";
  } catch (const Error&) {  // not HDF5 at all
  }
  if (!ours) {
    throw Error(ExitCode::input, fmt::format("{} exists and is not a features file", path),
                "choose another name for the output");
  }
}

/// Locks PATH.partial on the root. So the likeliest failures (no such folder, no permission, another process that
/// writes the same file) are found on one rank, before all ranks enter MPI-IO.
std::shared_ptr<void> lock(const comm::Communicator& comm, const std::string& path) {
  std::shared_ptr<void> held;
  comm::agree(comm, "create features file", [&] {
    if (!comm.is_root()) return;
    refuse_foreign(path);
    const std::string partial = path + ".partial";
    const int fd = ::open(partial.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) throw Error(ExitCode::file, fmt::format("cannot create {}: {}", partial, std::strerror(errno)));
    held = std::shared_ptr<void>(nullptr, [fd](void*) { ::close(fd); });
    // If the file system has no locks, the file is written without one.
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      throw Error(ExitCode::file, fmt::format("{} is being written by another process", partial),
                  "wait for it, or choose another name for the output");
    }
  });
  return held;
}

}  // namespace

FeatureFileWriter::FeatureFileWriter(const comm::Communicator& comm, const std::string& path, const FeatureInfo& info)
    : comm_(comm),
      path_(path),
      dimension_(info.dimension),
      lock_(lock(comm, path)),
      file_(File::create(path + ".partial", &comm)) {
  file_.set("/", "source", info.source);
  file_.set("/", "data", info.data);
  file_.set("/", "layer", info.layer);
  if (!info.classes.empty()) file_.set("/", "classes", info.classes);
  auto recipe = info.recipe;
  for (const auto& field : fields(recipe)) {
    std::visit([&](const auto* value) { file_.set("/", field.name, *value); }, field.value);
  }
  file_.create_dataset("/features", Type::f32, {info.images, static_cast<std::uint64_t>(info.dimension)});
  file_.create_dataset("/labels", Type::i32, {info.images});
  file_.create_dataset("/index", Type::u64, {info.images});
  file_.create_dataset("/checksum", Type::u64, {info.images});
  file_.create_dataset("/bad", Type::u8, {info.images});
}

void FeatureFileWriter::write(const FeatureRows& rows) {
  const auto d = static_cast<std::uint64_t>(dimension_);
  file_.write("/features", Type::f32, rows.first * d, rows.count * d, rows.values);
  file_.write("/labels", Type::i32, rows.first, rows.count, rows.labels);
  file_.write("/index", Type::u64, rows.first, rows.count, rows.index);
  file_.write("/bad", Type::u8, rows.first, rows.count, rows.bad);
  file_.write("/checksum", Type::u64, rows.first, rows.count, rows.checksum);
  images_.add({rows.checksum, rows.count});
}

void FeatureFileWriter::close() {
  file_.set("/", "data_xxh3", images_.fingerprint(comm_));
  file_.set("/", "version", std::int64_t{1});
  file_.set("/", "format", std::string("seer-features"));  // last: a file without it is incomplete
  file_.close();
  comm_.barrier();
  comm::agree(comm_, "rename features file", [&] {
    if (!comm_.is_root()) return;
    lock_.reset();  // the file is complete, so others may use it
    if (std::rename((path_ + ".partial").c_str(), path_.c_str()) != 0) {
      throw Error(ExitCode::file,
                  fmt::format("{}.partial: cannot be renamed to {}: {}", path_, path_, std::strerror(errno)));
    }
  });
}

FeatureTable read_features(const comm::Communicator& comm, const std::string& path) {
  FeatureTable table;
  comm::agree(comm, "read features", [&] {
    const File file = File::open(path);  // serial: each rank reads its own rows; metadata are a few hundred bytes
    if (!file.has("/", "format") && file.has("/", "weights_xxh3")) {
      throw Error(ExitCode::file, fmt::format("{}: an unfinished features file", path), "run `seer features` again");
    }
    if (!file.has("/", "format") || file.get_string("/", "format") != "seer-features") {
      throw Error(ExitCode::file,
                  fmt::format("{}: not a features file (attribute format is not \"seer-features\")", path),
                  "features files are written by `seer features`");
    }
    if (const auto version = file.get_int("/", "version"); version != 1) {
      throw Error(ExitCode::file, fmt::format("{}: features file of version {}, wanted 1", path, version));
    }
    const auto shape = file.describe("/features");
    if (shape.dims.size() != 2 || shape.type != Type::f32 || shape.dims[0] == 0 || shape.dims[1] == 0) {
      throw Error(ExitCode::file, fmt::format("{}: /features is not a float32 table [images, dimension]", path));
    }
    const std::uint64_t n = shape.dims[0], d = shape.dims[1];
    const bool with_checksums = file.exists("/checksum");
    for (const char* name : {"/labels", "/index", "/bad", "/checksum"}) {
      if (!with_checksums && name == std::string_view("/checksum")) continue;
      if (const auto found = file.elements(name); found != n) {
        throw Error(ExitCode::file,
                    fmt::format("{}: {} has {} entries, wanted {} as /features has rows", path, name, found, n));
      }
    }
    file.elements("/features");  // refuses a header that declares more than the file holds
    auto& info = table.info;
    info.source = file.get_string("/", "source");
    info.data = file.has("/", "data") ? file.get_string("/", "data") : path;
    info.layer = file.get_string("/", "layer");
    for (const auto& field : fields(info.recipe)) {
      if (!file.has("/", field.name)) continue;
      if (const auto* text = std::get_if<std::string*>(&field.value)) {
        **text = file.get_string("/", field.name);
      } else {
        *std::get<std::int64_t*>(field.value) = file.get_int("/", field.name);
      }
    }
    if (file.has("/", "classes")) info.classes = file.get_strings("/", "classes");
    info.images = n;
    info.dimension = static_cast<std::int64_t>(d);
    table.first = slice_begin(n, comm.rank(), comm.size());
    const std::uint64_t count = slice_begin(n, comm.rank() + 1, comm.size()) - table.first;
    table.values.resize(count * d);
    table.labels.resize(count);
    table.index.resize(count);
    table.bad.resize(count);
    file.read("/features", Type::f32, table.first * d, count * d, table.values.data());
    file.read("/labels", Type::i32, table.first, count, table.labels.data());
    file.read("/index", Type::u64, table.first, count, table.index.data());
    file.read("/bad", Type::u8, table.first, count, table.bad.data());
    if (with_checksums) {
      table.checksum.resize(count);
      file.read("/checksum", Type::u64, table.first, count, table.checksum.data());
    }
  });
  return table;
}

}  // namespace seer::eval
