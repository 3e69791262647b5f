// SPDX-License-Identifier: Apache-2.0
// Private to src/h5: turns HDF5's errors into ours, and opens objects without leaving the file.
#pragma once

#include <mutex>
#include <source_location>

#include "seer/base/error.hpp"
#include "seer/h5/file.hpp"

namespace seer::h5 {

/// Debian's HDF5 is not thread-safe, and one thread may write a checkpoint while another reads data. So every function
/// here that calls HDF5 holds this lock, as in HDF5's own thread-safe build. Waiting for other ranks under the lock
/// (collective calls) is safe, because only one thread of a process makes collective calls.
class Lock {
  static inline std::recursive_mutex mutex_;
  const std::lock_guard<std::recursive_mutex> held_{mutex_};
};

/// Returns HDF5's own reason for the last failure.
std::string reason();

[[noreturn]] void fail(const std::string& path, const std::string& what, std::string remedy = "",
                       std::source_location where = std::source_location::current());

/// Properties for opening or creating a file. HDF5 opens a file twice only with equal ones.
Id access(const comm::Communicator* comm, bool create, const std::string& path);

/// Returns `id` (or status) as it is; if it is negative, throws Error with the object and HDF5's reason.
hid_t check(hid_t id, const std::string& path, const std::string& what,
            std::source_location where = std::source_location::current());

/// True if `object` exists. Throws Error(file) for soft and external links on the way, which would lead out of what we
/// checked.
bool reachable(hid_t file, const std::string& path, const std::string& object);
/// Throws Error(file) unless `link` is a hard link.
void expect_inside(H5L_type_t link, const std::string& path, const std::string& object);
Id open_object(hid_t file, const std::string& path, const std::string& object);
/// The properties of links to new objects: their names are UTF-8.
Id utf8_links(const std::string& path);

/// Texts as HDF5 stores them: a fixed-length UTF-8 type, and their bytes one after another, each padded with zeros to
/// the longest. Bytes that are not UTF-8 (file names can be any bytes) become what utf8_name() makes of them.
struct FixedTexts {
  FixedTexts(std::vector<std::string> texts, const std::string& path);
  Id type;
  std::string bytes;
};

}  // namespace seer::h5
