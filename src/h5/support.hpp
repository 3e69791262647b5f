// SPDX-License-Identifier: Apache-2.0
// Private to src/h5: turns HDF5's errors into ours, and opens objects without leaving the file.
#pragma once

#include <mutex>
#include <source_location>
#include <string>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/h5/file.hpp"

namespace seer::h5 {

/// Debian's HDF5 is not thread-safe, and one thread may write a checkpoint while another reads data. So every function
/// here that calls HDF5 holds this lock, as in HDF5's own thread-safe build. Waiting for other ranks under the lock
/// (collective calls) is safe, because only one thread of a process makes collective calls.
class Lock {
 public:
  Lock() : held_(mutex()) {}

 private:
  static std::recursive_mutex& mutex();
  const std::lock_guard<std::recursive_mutex> held_;
};

/// Turns off HDF5's printing of its error stack. Once would be enough, but another library may have switched it on
/// again.
inline void quiet() {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

/// Returns HDF5's own reason for the last failure.
std::string reason();

[[noreturn]] void fail(const std::string& path, const std::string& what, std::string remedy = "",
                       std::source_location where = std::source_location::current());

/// Returns `id` (or status) as it is; if it is negative, throws Error with the object and HDF5's reason.
hid_t check(hid_t id, const std::string& path, const std::string& what,
            std::source_location where = std::source_location::current());

/// True if `object` exists. Throws Error(file) for soft and external links on the way, which would lead out of what we
/// checked.
bool reachable(hid_t file, const std::string& path, const std::string& object);
Id open_object(hid_t file, const std::string& path, const std::string& object);

/// Returns UTF-8 as it is, other bytes as utf8_name() gives them: file names can be any bytes.
std::string text_of(const std::string& bytes);
std::vector<std::string> texts_of(std::vector<std::string> values);
/// text_type() is a fixed-length UTF-8 string type; padded() pads strings with zeros to that length, one after another.
Id text_type(std::size_t bytes, const std::string& path);
std::string padded(const std::vector<std::string>& values, std::size_t length);

}  // namespace seer::h5
