// SPDX-License-Identifier: Apache-2.0
// How features were computed and from which images. Two tables can be compared only if they were computed alike and
// from different images.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/eval_reader.hpp"
#include "seer/data/shard.hpp"

namespace seer::eval {

struct FeatureInfo;

/// An empty or negative field is unknown, as in tables of older versions.
struct Recipe {
  std::string weights;                     ///< XXH3 of all parameters and running statistics, as they were read
  std::int64_t update = -1;                ///< update of the checkpoint; not compared
  std::int64_t resize = -1, crop = -1;     ///< pixels
  std::string mean, std;                   ///< normalisation, for example "0.485 0.456 0.406"
  std::int64_t recalibration_images = -1;  ///< images that BatchNorm statistics were estimated from; 0: as trained
  std::string recalibration_data;          ///< fingerprint of these images' data set; "none"
  std::string precision;                   ///< "fp32"

  void read_with(const data::EvalOptions& options);
};

/// A field of the recipe. `name` is its attribute in a features file.
struct RecipeField {
  const char* name;
  const char* meaning;
  std::variant<std::string*, std::int64_t*> value;
};
std::vector<RecipeField> fields(Recipe& recipe);

/// Error(input) if the two were computed differently; names every differing field with both values. Warns of fields
/// that are unknown in one of them.
void require_alike(const FeatureInfo& train, const std::string& train_name, const FeatureInfo& test,
                   const std::string& test_name);

/// Identifies the images of a set, independent of their order and their distribution over ranks.
class ImageSetSum {
 public:
  void add(std::span<const std::uint64_t> checksums);
  /// Collective. 16 hexadecimal digits.
  std::string fingerprint(const comm::Communicator& comm) const;

 private:
  std::array<std::int64_t, 3> sums_ = {};  ///< number of images; sums of upper and of lower halves of checksums
};

/// Checksums that the shards store for images [first, first + count).
std::vector<std::uint64_t> checksums(const data::DataSet& data, std::uint64_t first, std::uint64_t count);
/// Checksums of this rank's slice.
std::vector<std::uint64_t> my_checksums(const data::DataSet& data, const comm::Communicator& comm);

/// Collective. Number of test images, over all ranks, that are also in the training set byte for byte.
std::int64_t count_common(const comm::Communicator& comm, std::span<const std::uint64_t> train,
                          std::span<const std::uint64_t> test);
/// Collective. Warns if there are any such images.
void warn_of_common(const comm::Communicator& comm, std::span<const std::uint64_t> train, const std::string& train_name,
                    std::span<const std::uint64_t> test, const std::string& test_name);

}  // namespace seer::eval
