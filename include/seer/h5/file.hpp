// SPDX-License-Identifier: Apache-2.0
// HDF5 with owned handles and checked calls. Debian's HDF5 is not thread-safe, so calls wait for one another here, and
// only one thread of a process may make collective calls. Every failure is an Error(file) that names the file, the
// object and HDF5's own reason; HDF5's printing is off.
#pragma once

#include <hdf5.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::h5 {

enum class Type { u8, i32, u32, i64, u64, f32, f64 };

using Dims = std::vector<std::uint64_t>;

/// Move-only owner of any HDF5 id; closing reports nothing and never throws.
class Id {
 public:
  Id() = default;
  Id(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Id(Id&& other) noexcept { *this = std::move(other); }
  Id& operator=(Id&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Id();
  operator hid_t() const { return id_; }  // NOLINT: an id is what HDF5 calls take
  /// Gives up the id, which the caller must close.
  hid_t release() { return std::exchange(id_, -1); }

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

/// Describes a data set, without its values. Only simple, fixed-size numeric types are described; `plain` is false for
/// anything filtered, chunked, external, virtual, compact or of a foreign type.
struct Description {
  std::optional<Type> type;
  Dims dims;
  bool plain = false;             ///< contiguous in this file, unfiltered, little-endian
  std::uint64_t file_offset = 0;  ///< of its bytes, if plain and allocated
  std::uint64_t bytes = 0;
};

/// Through MPI-IO, all ranks make every call on an open file in the same order, because one rank reads metadata and
/// shares it. A rank with nothing to read calls read() with count 0. The only exception is write() on a file made by
/// create().
class File {
 public:
  /// Serial if `comm` is null, else collective through MPI-IO. Fails if `path` exists and `truncate` is false. Equal
  /// calls make equal bytes (no times are stored).
  static File create(const std::string& path, const comm::Communicator* comm = nullptr, bool truncate = true);
  static File open(const std::string& path, const comm::Communicator* comm = nullptr, bool writable = false);

  const std::string& path() const { return path_; }
  bool exists(const std::string& object) const;
  bool is_group(const std::string& object) const;
  /// Names in a group, sorted. Throws Error(file) for external and soft links.
  std::vector<std::string> list(const std::string& group) const;
  void create_group(const std::string& group);

  /// Attributes of an object ("/": the file): fixed-length UTF-8 (other bytes escaped: utf8_name), integers, doubles,
  /// lists.
  void set(const std::string& object, const std::string& name, const std::string& value);
  void set(const std::string& object, const std::string& name, std::int64_t value);
  void set(const std::string& object, const std::string& name, double value);
  void set(const std::string& object, const std::string& name, const std::vector<std::string>& values);
  bool has(const std::string& object, const std::string& name) const;
  std::string get_string(const std::string& object, const std::string& name) const;
  std::int64_t get_int(const std::string& object, const std::string& name) const;
  double get_double(const std::string& object, const std::string& name) const;
  std::vector<std::string> get_strings(const std::string& object, const std::string& name) const;
  std::vector<std::string> attributes(const std::string& object) const;

  /// Creates a contiguous data set, allocated early, never filled. Collective under MPI-IO.
  void create_dataset(const std::string& name, Type type, const Dims& dims);
  /// Stores a list of texts as a data set of fixed-length UTF-8 strings, padded with zeros to the longest.
  void create_strings(const std::string& name, const std::vector<std::string>& values);
  Description describe(const std::string& name) const;
  /// For data sets of create_strings(): number of strings and bytes of each. Throws Error(file) for anything else.
  std::pair<std::uint64_t, std::uint64_t> describe_strings(const std::string& name) const;
  /// Transfers elements [begin, begin + count), in row-major order, of a data set with any number of dimensions. The
  /// transfer is independent. `count` may be 0.
  void write(const std::string& name, Type type, std::uint64_t begin, std::uint64_t count, const void* values);
  void read(const std::string& name, Type type, std::uint64_t begin, std::uint64_t count, void* values) const;
  template <class T>
  std::vector<T> read_all(const std::string& name, Type type) const {
    std::vector<T> values(elements(name));
    read(name, type, 0, values.size(), values.data());
    return values;
  }
  /// Product of the dimensions; Error(file) if the stored bytes cannot hold that many (so it is safe to allocate).
  std::uint64_t elements(const std::string& name) const;
  /// Closes and reports failures (the destructor cannot).
  void close();

 private:
  File(std::string path, Id id) : path_(std::move(path)), id_(std::move(id)) {}
  std::string path_;
  Id id_;
};

// HDF5 1.10 crashes, hangs or asks for absurd memory on some damaged files (published CVEs among them), and one bad
// shard must not end a run. So a forked process with limits first opens each file of unknown origin.

/// Opens `path` serially in a child process, runs `work` there and returns its result. The child has a limit on memory
/// and time and never touches MPI. Throws Error(file) if `work` throws or the child dies.
std::string trial(const std::string& path, const std::function<std::string(const File&)>& work);

/// The same for many files, one after another. One child process handles hundreds of them, and the time limit applies
/// to each file. Calls `done` with a file's index in `paths` and its result. Stops at the first error.
void trial_each(const std::vector<std::string>& paths, const std::function<std::string(const File&)>& work,
                const std::function<void(std::size_t, const std::string&)>& done);

}  // namespace seer::h5
