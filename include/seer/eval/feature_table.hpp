// SPDX-License-Identifier: Apache-2.0
// Features of a data set, split over ranks, and the file that holds them (format: docs/formats.md). Attributes record
// how they were computed and from which images: two tables can be compared only if they were computed alike and from
// different images. Arrays: /features float32 [n, d], /map float32 [n, h, w, c], /labels int32 [n], /index and
// /checksum uint64 [n], /bad uint8 [n] (1: the image did not decode; its features are those of a grey image); where
// images may have several classes also /target int32 [m] and /target_begin uint64 [n + 1], and likewise /ignored.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/data/eval_reader.hpp"
#include "seer/data/shard.hpp"
#include "seer/h5/file.hpp"

namespace seer::eval {

/// First element of rank `rank` of `ranks`. Each owns a contiguous slice of `total`; sizes differ by at most one.
constexpr std::uint64_t slice_begin(std::uint64_t total, int rank, int ranks) {
  const auto r = static_cast<std::uint64_t>(rank), n = static_cast<std::uint64_t>(ranks);
  return total / n * r + total % n * r / n;
}

/// An empty or negative field is unknown, as in tables of older versions.
struct Recipe {
  std::string weights;                     ///< XXH3 of all parameters and running statistics, as they were read
  std::int64_t update = -1;                ///< update of the checkpoint; not compared
  std::int64_t resize = -1, crop = -1;     ///< pixels
  std::string mean, std;                   ///< normalisation, for example "0.485 0.456 0.406"
  std::int64_t recalibration_images = -1;  ///< images that BatchNorm statistics were estimated from; 0: as trained
  std::string recalibration_data;          ///< fingerprint of these images' data set; "none"
  std::string precision;                   ///< "fp32"
};

/// Calls visit(attribute in a features file, meaning, member) for each field. Fields without a meaning are not
/// compared.
template <class AnyRecipe, class Visit>
void visit_fields(AnyRecipe& r, Visit visit) {
  visit("weights_xxh3", "checksum of the weights", r.weights);
  visit("update", "", r.update);
  visit("resize", "resize", r.resize);
  visit("crop", "crop", r.crop);
  visit("mean", "normalisation's mean", r.mean);
  visit("std", "normalisation's std", r.std);
  visit("recalibration_images", "images of the BatchNorm recalibration", r.recalibration_images);
  visit("recalibration_data_xxh3", "data set of the BatchNorm recalibration", r.recalibration_data);
  visit("precision", "precision", r.precision);
}

/// The columns of one feature in a table of several.
struct FeatureColumns {
  std::string feature;  ///< its text (eval/feature.hpp)
  std::int64_t begin = 0, width = 0;
  std::array<std::int64_t, 3> map = {};  ///< height, width and channels of a map; else 0
  bool operator==(const FeatureColumns&) const = default;
};

/// Properties common to all rows.
struct FeatureInfo {
  std::string source;                   ///< the weights that the features were computed with
  std::string data;                     ///< the shards
  std::string layer;                    ///< the features' texts, separated by commas, or "pixels"
  std::vector<FeatureColumns> columns;  ///< one per feature, a map last; empty: a single one, no map
  Recipe recipe;                        ///< how the features were computed
  std::vector<std::string> classes;     ///< names of the labels; may be empty
  std::uint64_t images = 0;             ///< over all ranks
  std::int64_t dimension = 0;
  std::string file = {};  ///< that the table was read from; empty: none

  /// For messages: the file, with the shards that its features are of; or these.
  std::string name() const;
};
/// In words, how images were resized and cut: "shorter side 256 pixels, crop 224".
std::string preparation(const Recipe& recipe);

/// Consecutive rows: this rank's slice in the order of the data set, or a batch of it. Slices are in rank order.
struct FeatureTable {
  FeatureInfo info;                     ///< empty in a batch
  std::uint64_t first = 0;              ///< position among all rows
  std::vector<float> values;            ///< [rows, dimension]
  std::vector<std::int32_t> labels;     ///< -1: none, or several
  data::Targets targets;                ///< the classes of each row; of no row where the labels tell all
  data::Targets ignored;                ///< the classes that each row neither has nor lacks; of no row: none
  std::vector<std::uint64_t> index;     ///< of the image in the data set
  std::vector<std::uint8_t> bad;        ///< 1: the image does not decode
  std::vector<std::uint64_t> checksum;  ///< of the image's bytes; empty in tables of older versions

  std::uint64_t rows() const { return labels.size(); }
  /// Several, one or none.
  std::span<const std::int32_t> classes_of(std::size_t row) const {
    if (targets.images() > 0) return targets.of(row);
    return std::span(labels).subspan(row, labels[row] < 0 ? 0 : 1);
  }
  void append(const FeatureTable& rows);
};

/// The columns of each feature of a table, also of a single one.
std::vector<FeatureColumns> columns_of(const FeatureInfo& info);
/// The table with the columns of one feature alone. Copies the rows.
FeatureTable only(const FeatureTable& table, const FeatureColumns& columns);
/// Refuses features that are equal for all images of the tables. Error(numerics), agreed. Collective.
void require_different(const comm::Communicator& comm, const std::string& name,
                       std::initializer_list<const FeatureTable*> tables, const FeatureColumns& columns);

/// Each rank computes a contiguous slice of the data set, batch by batch, and passes each batch to `sink`.
/// `features_of` returns the rows of a batch. Nothing is stored. Collective only at the end, where errors are agreed.
/// Returns how many images of all ranks did not decode. `what` names the work in the log.
using Sink = std::function<void(const FeatureTable& batch)>;
std::int64_t for_each_batch(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options,
                            const std::string& what,
                            const std::function<std::vector<float>(const data::EvalBatch&)>& features_of,
                            const Sink& sink);

/// Features made of pixels: images resized to side x side. The mean image of the set is NOT yet subtracted. The
/// baseline for k-NN. Collective as for_each_batch().
FeatureTable pixel_table(const comm::Communicator& comm, const data::DataSet& data, std::int64_t side,
                         const data::EvalOptions& options);

/// For example "train-00000.h5 and 3 more shards".
std::string describe(const data::DataSet& data);
/// For example ", 5 minutes left"; "" if unknown.
std::string time_left(const Eta& eta);

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

/// The targets of a features file, which are written at its end: their number is not known before.
class SeveralClasses {
 public:
  /// Not collective. Rows of one rank follow one another.
  void add(const FeatureTable& rows);
  /// Collective. Writes the targets of all ranks, if there are any, of a file of `images` rows.
  void write(const comm::Communicator& comm, h5::File& file, std::uint64_t images) const;
  /// Not collective. Reads those of the `count` rows from table.first on. Error(file) if they do not fit together.
  static void read(const h5::File& file, std::uint64_t count, FeatureTable& table);

 private:
  std::uint64_t first_ = 0;  ///< position of the first row among all rows
  data::Targets targets_, ignored_;
};

/// Writes to PATH.partial and renames it when complete, so a file named PATH is always complete. Detects a second
/// process that writes the same file.
class FeatureFileWriter {
 public:
  /// Collective. Error(file) if the file cannot be created.
  FeatureFileWriter(const comm::Communicator& comm, const std::string& path, const FeatureInfo& info);
  /// Not collective. Rows of one rank follow one another.
  void write(const FeatureTable& rows);
  /// Collective.
  void close();

 private:
  const comm::Communicator& comm_;
  std::string path_;
  std::int64_t map_elems_, vector_elems_, version_;
  std::uint64_t images_of_all_;
  std::shared_ptr<void> lock_;  ///< lock on PATH.partial, held by the root
  h5::File file_;
  ImageSetSum images_;
  SeveralClasses several_;
};

/// Collective: every rank reads its slice; it never parts groups of `rows_together` consecutive rows. Error(file),
/// agreed, if the file is not a features file, its arrays do not fit together, or its rows do not make whole groups.
FeatureTable read_features(const comm::Communicator& comm, const std::string& path, std::uint64_t rows_together = 1);

}  // namespace seer::eval
