// SPDX-License-Identifier: Apache-2.0
// Reads the golden files (tests/data) as double arrays, for suites below the data module.
#pragma once

#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>
#include <string>
#include <vector>

namespace seer::test {

struct Golden {
  std::vector<hsize_t> dims;
  std::vector<double> values;
  std::vector<float> f32() const { return {values.begin(), values.end()}; }
};

class GoldenFile {
 public:
  explicit GoldenFile(const std::string& name) : id_(open((std::string(SEER_TEST_DATA) + "/" + name).c_str())) {
    if (id_ < 0) throw std::runtime_error("cannot open golden file " + name);
  }
  ~GoldenFile() { H5Fclose(id_); }
  GoldenFile(const GoldenFile&) = delete;
  GoldenFile& operator=(const GoldenFile&) = delete;

  Golden read(const std::string& path) const {
    const hid_t set = H5Dopen2(id_, path.c_str(), H5P_DEFAULT);
    if (set < 0) throw std::runtime_error("no golden data set " + path);
    const hid_t space = H5Dget_space(set);
    Golden out;
    out.dims.resize(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space)));
    H5Sget_simple_extent_dims(space, out.dims.data(), nullptr);
    out.values.resize(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.values.data());
    H5Sclose(space);
    H5Dclose(set);
    return out;
  }
  bool has(const std::string& path) const { return H5Lexists(id_, path.c_str(), H5P_DEFAULT) > 0; }
  double attribute(const std::string& object, const std::string& name) const {
    const hid_t attr = H5Aopen_by_name(id_, object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
    double value = NAN;
    if (attr >= 0) {
      H5Aread(attr, H5T_NATIVE_DOUBLE, &value);
      H5Aclose(attr);
    }
    return value;
  }
  /// Names of the links directly inside a group.
  std::vector<std::string> names(const std::string& group) const {
    std::vector<std::string> out;
    const hid_t g = H5Gopen2(id_, group.c_str(), H5P_DEFAULT);
    H5Literate(
        g, H5_INDEX_NAME, H5_ITER_INC, nullptr,
        [](hid_t, const char* name, const H5L_info_t*, void* list) {
          static_cast<std::vector<std::string>*>(list)->emplace_back(name);
          return herr_t{0};
        },
        &out);
    H5Gclose(g);
    return out;
  }

 private:
  static hid_t open(const char* path) {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // has() asks for what may not be there
    return H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
  }
  hid_t id_;
};

/// ||a - b|| / ||b||
template <class A, class B>
double relative_error(const A& a, const B& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    size += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(difference / (size > 0 ? size : 1));
}

/// The reference's hash_fill (splitmix64), element by element.
inline double hash_value(std::uint64_t seed, std::uint64_t index, double scale) {
  std::uint64_t z = (seed << 32) + index + 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  z = z ^ (z >> 31);
  return (static_cast<double>(z >> 40) * 0x1p-24 - 0.5) * 2.0 * scale;
}
inline std::vector<float> hash_fill(std::size_t count, std::uint64_t seed, double scale) {
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(hash_value(seed, i, scale));
  return out;
}

}  // namespace seer::test
