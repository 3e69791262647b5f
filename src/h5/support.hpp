// SPDX-License-Identifier: Apache-2.0
// Private to h5*.cpp: HDF5's errors as ours, and the way to an object that does not lead out of the file.
#pragma once

#include <mutex>
#include <source_location>
#include <string>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/h5/file.hpp"

namespace seer::h5 {

/// Debian's HDF5 is not thread-safe, and a checkpoint may be under way in a thread of its own while another reads data:
/// every function here that calls HDF5 holds this lock meanwhile, as HDF5's own thread-safe build does. Waiting in it
/// for other ranks (collective calls) is safe because only one thread of a process makes collective calls.
class Lock {
 public:
  Lock() : held_(mutex()) {}

 private:
  static std::recursive_mutex& mutex();
  const std::lock_guard<std::recursive_mutex> held_;
};

/// HDF5 prints its error stack by default; once is enough, but another library may have switched it on again.
inline void quiet() {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

/// HDF5's own reason for the failure just met.
std::string reason();

[[noreturn]] void fail(const std::string& path, const std::string& what, std::string remedy = "",
                       std::source_location where = std::source_location::current());

/// `id` (or status) as returned, or Error with the object and HDF5's reason.
hid_t check(hid_t id, const std::string& path, const std::string& what,
            std::source_location where = std::source_location::current());

/// Whether `object` can be reached through hard links alone: soft and external ones would lead out of what we checked.
bool reachable(hid_t file, const std::string& path, const std::string& object);
Id open_object(hid_t file, const std::string& path, const std::string& object);

/// As it is if it is UTF-8, else as utf8_name gives it: names of files can be any bytes.
std::string text_of(const std::string& bytes);
std::vector<std::string> texts_of(std::vector<std::string> values);
/// A fixed-length UTF-8 string type, and strings padded with zeros to that length one after another.
Id text_type(std::size_t bytes, const std::string& path);
std::string padded(const std::vector<std::string>& values, std::size_t length);

}  // namespace seer::h5
