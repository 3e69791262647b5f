// SPDX-License-Identifier: Apache-2.0
// How features were computed, and of which images: what must be equal for two tables to be compared, and what must not.
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

/// What is empty or negative is not known, as in tables of older versions.
struct Recipe {
  std::string weights;                     ///< XXH3 of all parameters and running statistics, as they were read
  std::int64_t update = -1;                ///< of the checkpoint; not compared
  std::int64_t resize = -1, crop = -1;     ///< pixels
  std::string mean, std;                   ///< of the normalisation: "0.485 0.456 0.406"
  std::int64_t recalibration_images = -1;  ///< that BatchNorm's statistics were estimated from; 0: they are as trained
  std::string recalibration_data;          ///< fingerprint of their data set; "none"
  std::string precision;                   ///< "fp32"

  void read_with(const data::EvalOptions& options);
};

/// A field of the recipe, as the attribute of a features file that holds it.
struct RecipeField {
  const char* name;
  const char* meaning;
  std::variant<std::string*, std::int64_t*> value;
};
std::vector<RecipeField> fields(Recipe& recipe);

/// Error(input) naming every field in which the two were computed differently, with both values. What one of them does
/// not tell is named in a warning.
void require_alike(const FeatureInfo& train, const std::string& train_name, const FeatureInfo& test,
                   const std::string& test_name);

/// Which images a set holds, whatever their order and the ranks that have them.
class ImageSetSum {
 public:
  void add(std::span<const std::uint64_t> checksums);
  /// Collective. 16 hexadecimal digits.
  std::string fingerprint(const comm::Communicator& comm) const;

 private:
  std::array<std::int64_t, 3> sums_ = {};  ///< images; upper and lower halves of their checksums
};

/// Checksums of the images [first, first + count), as they were packed.
std::vector<std::uint64_t> checksums(const data::DataSet& data, std::uint64_t first, std::uint64_t count);
/// Of this rank's slice.
std::vector<std::uint64_t> my_checksums(const data::DataSet& data, const comm::Communicator& comm);

/// Collective. How many images of the test set, over all ranks, are byte for byte in the training set too.
std::int64_t count_common(const comm::Communicator& comm, std::span<const std::uint64_t> train,
                          std::span<const std::uint64_t> test);
/// Collective. A warning where there are any.
void warn_of_common(const comm::Communicator& comm, std::span<const std::uint64_t> train, const std::string& train_name,
                    std::span<const std::uint64_t> test, const std::string& test_name);

}  // namespace seer::eval
