// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "seer/base/names.hpp"

namespace seer::h5 {

std::string reason() {
  std::string text;
  // Innermost first: the reason, then its callers.
  const auto collect = [](unsigned n, const H5E_error2_t* entry, void* out) -> herr_t {
    if (entry->desc != nullptr && n <= 2)
      *static_cast<std::string*>(out) += (n == 0 ? "" : " < ") + std::string(entry->desc);
    return 0;
  };
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
    fail(path, fmt::format("{}: {}", what, why), full ? "free space on that file system" : "", where);
  }
  return id;
}

bool reachable(hid_t file, const std::string& path, const std::string& object) {
  std::string prefix;
  std::istringstream parts(object);
  for (std::string part; std::getline(parts, part, '/');) {
    if (part.empty()) continue;
    prefix += "/" + part;
    if (check(H5Lexists(file, prefix.c_str(), H5P_DEFAULT), path, prefix) == 0) return false;
    H5L_info_t info;
    check(H5Lget_info(file, prefix.c_str(), &info, H5P_DEFAULT), path, prefix);
    expect_inside(info.type, path, prefix);
  }
  return true;
}

void expect_inside(H5L_type_t link, const std::string& path, const std::string& object) {
  if (link == H5L_TYPE_HARD) return;
  fail(path, fmt::format("{} is a {} link; only objects inside the file are read", object,
                         link == H5L_TYPE_SOFT ? "soft" : "external or user-defined"));
}

Id open_object(hid_t file, const std::string& path, const std::string& object) {
  if (!reachable(file, path, object)) fail(path, fmt::format("there is no {}", object));
  return Id(check(H5Oopen(file, object.c_str(), H5P_DEFAULT), path, object), H5Oclose);
}

Id utf8_links(const std::string& path) {
  Id list(check(H5Pcreate(H5P_LINK_CREATE), path, "link properties"), H5Pclose);
  H5Pset_char_encoding(list, H5T_CSET_UTF8);
  return list;
}

FixedTexts::FixedTexts(std::vector<std::string> texts, const std::string& path)
    : type(check(H5Tcopy(H5T_C_S1), path, "string type"), H5Tclose) {
  std::size_t longest = 1;  // HDF5 has no type of 0 bytes
  for (auto& text : texts) {
    if (!is_utf8(text)) text = utf8_name(text);
    longest = std::max(longest, text.size());
  }
  for (const auto& text : texts) bytes += text + std::string(longest - text.size(), '\0');
  check(H5Tset_size(type, longest), path, "string type");
  H5Tset_cset(type, H5T_CSET_UTF8);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
}

Id::~Id() {
  if (id_ < 0) return;
  const Lock lock;
  close_(id_);
  H5Eclear2(H5E_DEFAULT);
}

}  // namespace seer::h5
