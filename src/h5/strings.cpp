// SPDX-License-Identifier: Apache-2.0
#include "seer/h5/strings.hpp"

#include <fmt/format.h>

#include <cstring>

#include "support.hpp"

namespace seer::h5 {

std::vector<std::string> read_strings(const std::string& path, const std::string& name, std::uint64_t begin,
                                      std::uint64_t count) {
  const Lock lock;
  const auto [total, width] = File::open(path).describe_strings(name);
  if (begin > total || count > total - begin)
    fail(path, fmt::format("data set {} has {} texts, wanted [{}, {})", name, total, begin, begin + count));
  std::vector<std::string> out;
  if (count == 0) return out;
  const Id own(check(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access(nullptr, false, path)), path, "opening"), H5Fclose);
  const Id dataset = open_object(own, path, name);
  const Id type(check(H5Dget_type(dataset), path, name), H5Tclose);
  const Id space(check(H5Dget_space(dataset), path, name), H5Sclose);
  const hsize_t first = begin, texts = count;
  check(H5Sselect_hyperslab(space, H5S_SELECT_SET, &first, nullptr, &texts, nullptr), path, name);
  const Id memory(check(H5Screate_simple(1, &texts, nullptr), path, name), H5Sclose);
  std::string bytes(count * width, '\0');
  check(H5Dread(dataset, type, memory, space, H5P_DEFAULT, bytes.data()), path, fmt::format("reading {}", name));
  for (std::uint64_t i = 0; i < count; ++i) {
    const char* text = bytes.data() + i * width;
    out.emplace_back(text, ::strnlen(text, width));
  }
  return out;
}

}  // namespace seer::h5
