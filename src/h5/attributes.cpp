// SPDX-License-Identifier: Apache-2.0
// Attributes: fixed-length strings and single numbers. Nothing of variable length is read.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "support.hpp"

namespace seer::h5 {
namespace {

// We never write larger attributes. The limit bounds what a hostile file can make us allocate.
constexpr std::uint64_t kMaxAttributeBytes = std::uint64_t{1} << 26;

Id open_attribute(hid_t file, const std::string& path, const std::string& object, const std::string& name) {
  Id owner = open_object(file, path, object);
  const htri_t there = H5Aexists(owner, name.c_str());
  if (there < 0) fail(path, fmt::format("attribute {} of {}: {}", name, object, reason()));
  if (there == 0) fail(path, fmt::format("{} has no attribute {}", object == "/" ? "the file" : object, name));
  return Id(check(H5Aopen(owner, name.c_str(), H5P_DEFAULT), path, fmt::format("attribute {}", name)), H5Aclose);
}

void put(hid_t file, const std::string& path, const std::string& object, const std::string& name, hid_t type,
         hid_t space, const void* values) {
  Id owner = open_object(file, path, object);
  if (H5Aexists(owner, name.c_str()) > 0) check(H5Adelete(owner, name.c_str()), path, name);
  Id attribute(check(H5Acreate2(owner, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), path,
                     fmt::format("attribute {} of {}", name, object)),
               H5Aclose);
  check(H5Awrite(attribute, type, values), path, fmt::format("attribute {} of {}", name, object));
}

// Reads the fixed-length strings of an attribute: one if it is scalar.
std::vector<std::string> texts(hid_t attribute, const std::string& path, const std::string& name, bool& scalar) {
  Id type(check(H5Aget_type(attribute), path, name), H5Tclose);
  if (H5Tget_class(type) != H5T_STRING) fail(path, fmt::format("attribute {} is not text", name));
  if (H5Tis_variable_str(type) != 0) {
    fail(path, fmt::format("attribute {} is a variable-length string", name),
         "write text as fixed-length strings (h5py: numpy.bytes_)");
  }
  Id space(check(H5Aget_space(attribute), path, name), H5Sclose);
  const auto kind = H5Sget_simple_extent_type(space);
  if (kind != H5S_SCALAR && kind != H5S_SIMPLE) fail(path, fmt::format("attribute {} has no value", name));
  scalar = kind == H5S_SCALAR;
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  const std::size_t length = H5Tget_size(type);
  if (count < 0 || length == 0 || length > kMaxAttributeBytes ||
      static_cast<std::uint64_t>(count) > kMaxAttributeBytes / length) {
    fail(path, fmt::format("attribute {} declares {} strings of {} bytes", name, count, length));
  }
  // The stored size is a limit too: a few bytes must not declare megabytes.
  const auto stored = H5Aget_storage_size(attribute);
  if (stored < static_cast<std::uint64_t>(count) * length) fail(path, fmt::format("attribute {} is cut off", name));
  std::string all(static_cast<std::size_t>(count) * length, '\0');
  if (count > 0) check(H5Aread(attribute, type, all.data()), path, fmt::format("attribute {}", name));
  std::vector<std::string> out;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    std::string text = all.substr(i * length, length);
    text.resize(std::min(text.find('\0'), text.size()));
    out.push_back(std::move(text));
  }
  return out;
}

template <class T>
T number(hid_t file, const std::string& path, const std::string& object, const std::string& name, hid_t type,
         H5T_class_t wanted, const char* kind) {
  Id attribute = open_attribute(file, path, object, name);
  Id stored(check(H5Aget_type(attribute), path, name), H5Tclose);
  Id space(check(H5Aget_space(attribute), path, name), H5Sclose);
  if (H5Tget_class(stored) != wanted || H5Tget_size(stored) > 8 || H5Sget_simple_extent_npoints(space) != 1) {
    fail(path, fmt::format("attribute {} of {} is not {}", name, object, kind));
  }
  T value{};
  check(H5Aread(attribute, type, &value), path, fmt::format("attribute {}", name));
  return value;
}

herr_t add_attribute(hid_t, const char* name, const H5A_info_t*, void* out) {
  auto& names = *static_cast<std::vector<std::string>*>(out);
  names.emplace_back(name);
  return names.size() > 1'000'000 ? -1 : 0;
}

}  // namespace

void File::set(const std::string& object, const std::string& name, const std::string& bytes) {
  const Lock lock;
  const std::string value = text_of(bytes);
  Id type = text_type(value.size(), path_);
  Id space(check(H5Screate(H5S_SCALAR), path_, name), H5Sclose);
  // c_str(): even for an empty text HDF5 reads one byte.
  put(id_, path_, object, name, type, space, value.c_str());
}

void File::set(const std::string& object, const std::string& name, std::int64_t value) {
  const Lock lock;
  Id space(check(H5Screate(H5S_SCALAR), path_, name), H5Sclose);
  put(id_, path_, object, name, H5T_STD_I64LE, space, &value);
}

void File::set(const std::string& object, const std::string& name, double value) {
  const Lock lock;
  Id space(check(H5Screate(H5S_SCALAR), path_, name), H5Sclose);
  put(id_, path_, object, name, H5T_IEEE_F64LE, space, &value);
}

void File::set(const std::string& object, const std::string& name, const std::vector<std::string>& raw) {
  const Lock lock;
  const auto values = texts_of(raw);
  std::size_t length = 1;
  for (const auto& v : values) length = std::max(length, v.size());
  Id type = text_type(length, path_);
  const std::string all = padded(values, length);
  const hsize_t count = values.size();
  Id space(check(H5Screate_simple(1, &count, nullptr), path_, name), H5Sclose);
  put(id_, path_, object, name, type, space, all.c_str());
}

bool File::has(const std::string& object, const std::string& name) const {
  const Lock lock;
  Id owner = open_object(id_, path_, object);
  const htri_t there = H5Aexists(owner, name.c_str());
  if (there < 0) fail(path_, fmt::format("attribute {} of {}: {}", name, object, reason()));
  return there > 0;
}

std::string File::get_string(const std::string& object, const std::string& name) const {
  const Lock lock;
  bool scalar = false;
  auto values = texts(open_attribute(id_, path_, object, name), path_, name, scalar);
  if (values.size() != 1) fail(path_, fmt::format("attribute {} holds {} strings, wanted 1", name, values.size()));
  return values[0];
}

std::vector<std::string> File::get_strings(const std::string& object, const std::string& name) const {
  const Lock lock;
  bool scalar = false;
  auto values = texts(open_attribute(id_, path_, object, name), path_, name, scalar);
  if (scalar) fail(path_, fmt::format("attribute {} is one string, wanted a list", name));
  return values;
}

std::int64_t File::get_int(const std::string& object, const std::string& name) const {
  const Lock lock;
  return number<std::int64_t>(id_, path_, object, name, H5T_STD_I64LE, H5T_INTEGER, "an integer");
}

double File::get_double(const std::string& object, const std::string& name) const {
  const Lock lock;
  return number<double>(id_, path_, object, name, H5T_IEEE_F64LE, H5T_FLOAT, "a floating-point number");
}

std::vector<std::string> File::attributes(const std::string& object) const {
  const Lock lock;
  Id owner = open_object(id_, path_, object);
  std::vector<std::string> names;
  hsize_t at = 0;
  check(H5Aiterate2(owner, H5_INDEX_NAME, H5_ITER_INC, &at, add_attribute, &names), path_, object);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace seer::h5
