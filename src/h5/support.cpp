// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "seer/base/utf8.hpp"

namespace seer::h5 {
namespace {

herr_t collect(unsigned n, const H5E_error2_t* entry, void* out) {
  auto& text = *static_cast<std::string*>(out);
  if (entry->desc == nullptr || n > 16) return 0;
  // Innermost first: the reason, then its callers.
  if (n == 0) {
    text = entry->desc;
  } else if (n == 1 || n == 2) {
    text += fmt::format(" < {}", entry->desc);
  }
  return 0;
}

}  // namespace

std::recursive_mutex& Lock::mutex() {
  static std::recursive_mutex one;
  return one;
}

std::string reason() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &text);
  H5Eclear2(H5E_DEFAULT);
  // System errors hold times, descriptors and addresses besides the message. Keep only the message.
  const std::string mark = "error message = '";
  if (auto at = text.find(mark); at != std::string::npos) {
    const auto start = at + mark.size();
    text = fmt::format("{}: {}", text.substr(0, text.find(':')), text.substr(start, text.find('\'', start) - start));
  }
  return text.empty() ? "HDF5 gives no reason" : text;
}

void fail(const std::string& path, const std::string& what, std::string remedy, std::source_location where) {
  throw Error(ExitCode::file, fmt::format("{}: {}", path, what), std::move(remedy), where);
}

hid_t check(hid_t id, const std::string& path, const std::string& what, std::source_location where) {
  if (id < 0) {
    const auto why = reason();
    const bool full = why.find("No space left") != std::string::npos || why.find("quota") != std::string::npos;
    fail(path, fmt::format("{}: {}", what, why), full ? "make room on that file system" : "", where);
  }
  return id;
}

bool reachable(hid_t file, const std::string& path, const std::string& object) {
  std::string prefix;
  std::size_t at = 0;
  while (at < object.size()) {
    while (at < object.size() && object[at] == '/') ++at;
    const auto end = std::min(object.find('/', at), object.size());
    if (end == at) break;
    prefix += fmt::format("/{}", object.substr(at, end - at));
    at = end;
    const htri_t there = H5Lexists(file, prefix.c_str(), H5P_DEFAULT);
    if (there < 0) fail(path, fmt::format("{}: {}", prefix, reason()));
    if (there == 0) return false;
    H5L_info_t info;
    check(H5Lget_info(file, prefix.c_str(), &info, H5P_DEFAULT), path, prefix);
    if (info.type != H5L_TYPE_HARD) {
      fail(path, fmt::format("{} is a {} link; only objects inside the file are read", prefix,
                             info.type == H5L_TYPE_SOFT ? "soft" : "external or user-defined"));
    }
  }
  return true;
}

Id open_object(hid_t file, const std::string& path, const std::string& object) {
  if (!reachable(file, path, object)) fail(path, fmt::format("there is no {}", object));
  return Id(check(H5Oopen(file, object.c_str(), H5P_DEFAULT), path, object), H5Oclose);
}

std::string text_of(const std::string& bytes) {
  return is_utf8(bytes) ? bytes : utf8_name(bytes);
}

std::vector<std::string> texts_of(std::vector<std::string> values) {
  for (auto& value : values) value = text_of(value);
  return values;
}

Id text_type(std::size_t bytes, const std::string& path) {
  Id type(check(H5Tcopy(H5T_C_S1), path, "string type"), H5Tclose);
  check(H5Tset_size(type, std::max<std::size_t>(1, bytes)), path, "string type");
  H5Tset_cset(type, H5T_CSET_UTF8);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  return type;
}

std::string padded(const std::vector<std::string>& values, std::size_t length) {
  std::string all(values.size() * length, '\0');
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::memcpy(all.data() + i * length, values[i].data(), values[i].size());
  }
  return all;
}

Id::~Id() {
  reset();
}

void Id::reset() {
  if (id_ >= 0 && close_ != nullptr) {
    const Lock lock;
    close_(id_);
    H5Eclear2(H5E_DEFAULT);
  }
  id_ = -1;
  close_ = nullptr;
}

}  // namespace seer::h5
