// SPDX-License-Identifier: Apache-2.0
// Features of a data set, split over ranks, and the file that holds them (format: docs/formats.md). Attributes record
// how they were computed. Arrays: /features float32 [n, d], /labels int32 [n], /index and /checksum uint64 [n], /bad
// uint8 [n] (1: the image did not decode; its features are those of a grey image).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/eval/recipe.hpp"
#include "seer/h5/file.hpp"

namespace seer::eval {

/// First element of rank `rank` of `ranks`. Each owns a contiguous slice of `total`; sizes differ by at most one.
constexpr std::uint64_t slice_begin(std::uint64_t total, int rank, int ranks) {
  const auto r = static_cast<std::uint64_t>(rank), n = static_cast<std::uint64_t>(ranks);
  return total / n * r + total % n * r / n;
}

/// Properties common to all rows.
struct FeatureInfo {
  std::string source;                ///< the weights that the features were computed with
  std::string data;                  ///< the shards
  std::string layer;                 ///< "trunk", "head" or "pixels"
  Recipe recipe;                     ///< how the features were computed
  std::vector<std::string> classes;  ///< names of the labels; may be empty
  std::uint64_t images = 0;          ///< over all ranks
  std::int64_t dimension = 0;
};

/// A view of consecutive rows.
struct FeatureRows {
  std::uint64_t first = 0, count = 0;    ///< position among all rows
  const float* values = nullptr;         ///< [count, dimension]
  const std::int32_t* labels = nullptr;  ///< -1: none
  const std::uint64_t* index = nullptr;  ///< of the image in the data set
  const std::uint8_t* bad = nullptr;
  const std::uint64_t* checksum = nullptr;  ///< of the image's bytes
};

/// This rank's rows: a contiguous slice in the order of the data set. Slices are in rank order.
struct FeatureTable {
  FeatureInfo info;
  std::uint64_t first = 0;
  std::vector<float> values;
  std::vector<std::int32_t> labels;
  std::vector<std::uint64_t> index;
  std::vector<std::uint8_t> bad;
  std::vector<std::uint64_t> checksum;  ///< empty in tables of older versions

  std::uint64_t rows() const { return labels.size(); }
  void append(const FeatureRows& rows);
};

/// Writes to PATH.partial and renames it when complete, so a file named PATH is always complete. Detects a second
/// process that writes the same file.
class FeatureFileWriter {
 public:
  /// Collective. Error(file) if the file cannot be created.
  FeatureFileWriter(const comm::Communicator& comm, const std::string& path, const FeatureInfo& info);
  /// Not collective.
  void write(const FeatureRows& rows);
  /// Collective.
  void close();

 private:
  const comm::Communicator& comm_;
  std::string path_;
  std::int64_t dimension_;
  std::shared_ptr<void> lock_;  ///< lock on PATH.partial, held by the root
  h5::File file_;
  ImageSetSum images_;
};

/// Collective: every rank reads its slice. Error(file), agreed, if the file is not a features file or its arrays do not
/// fit together.
FeatureTable read_features(const comm::Communicator& comm, const std::string& path);

}  // namespace seer::eval
