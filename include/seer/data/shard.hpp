// SPDX-License-Identifier: Apache-2.0
// Shards (format: docs/formats.md), the data set formed by a list of shards, the writer of a shard, and
// descriptions of shards and other HDF5 files.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/h5/file.hpp"

namespace seer::data {

inline constexpr const char* kShardFormat = "seer-shard";
/// Format version of shards whose images have at most one label, and of shards whose images may have several targets.
inline constexpr std::int64_t kShardVersion = 1, kTargetsVersion = 2;
/// Pixel limit for images in shards that record no limit.
inline constexpr std::int64_t kUsualMaxPixels = 50'000'000;

/// What a shard records about the pack that made it (docs/formats.md). Shards of older versions record nothing.
struct SetMark {
  std::string id;                        ///< equal for packs of equal images in equal order; "": unknown
  std::uint64_t shards = 0, number = 0;  ///< number of shards in the set; this shard's number, from 0
  std::uint64_t max_pixels = 0;          ///< no image has more pixels; 0: unknown
};

/// One shard's metadata: where its arrays lie in the file. A few hundred bytes, whatever the number of images.
struct ShardInfo {
  std::string path;
  std::uint64_t file_bytes = 0;
  std::uint64_t images = 0;
  std::uint64_t pixels_offset = 0, pixels_bytes = 0;  ///< /images/bytes in the file
  std::uint64_t offset_offset = 0;                    ///< /images/offset: uint64 [images + 1]
  std::uint64_t width_offset = 0, height_offset = 0;  ///< uint32 [images]
  std::uint64_t checksum_offset = 0;                  ///< uint64 [images]
  std::uint64_t label_offset = 0;                     ///< int32 [images], 0: none
  std::uint64_t targets = 0;                          ///< total over images; 0 unless images may have several
  std::uint64_t target_offset = 0;                    ///< int32 [targets], 0: none
  std::uint64_t target_begin_offset = 0;              ///< uint64 [images + 1], 0: none
  std::uint64_t ignored = 0, ignored_offset = 0, ignored_begin_offset = 0;  ///< the same for ignored targets
  std::vector<std::string> classes;                                         ///< empty: none
  SetMark set;

  bool has_labels() const { return label_offset != 0 || target_begin_offset != 0; }
};

/// Opens shards in order and checks every length, range and product against the file's size, first in a child process
/// with resource limits (h5::trial_each; one for many shards). `alone`: a communicator of one rank. Error(file) says
/// what is wrong, e.g. "shards/a.h5: /images/offset has 1281160 entries, wanted 1281168 (one more than /images/width)".
void read_shard_infos(const std::vector<std::string>& paths, const comm::Communicator& alone,
                      const std::function<void(ShardInfo)>& take);
ShardInfo read_shard_info(const std::string& path, const comm::Communicator& alone);

/// Where the bytes of one image lie.
struct ImagePlace {
  std::uint32_t shard = 0;
  std::uint64_t offset = 0;  ///< from the start of the file
  std::uint64_t bytes = 0;
  std::uint64_t checksum = 0;  ///< XXH3 of the bytes, as packed
};

/// Error(file) unless `bytes` have the image's checksum.
void require_intact(const ImagePlace& place, std::span<const std::uint8_t> bytes);

/// Classes of several images. Image i has the classes values[begins[i]] to values[begins[i + 1] - 1].
struct Targets {
  std::vector<std::uint64_t> begins = {0};
  std::vector<std::int32_t> values = {};

  std::size_t images() const { return begins.size() - 1; }
  std::span<const std::int32_t> of(std::size_t image) const {
    return std::span(values).subspan(begins[image], begins[image + 1] - begins[image]);
  }
  void add(std::span<const std::int32_t> of_next) {
    values.insert(values.end(), of_next.begin(), of_next.end());
    begins.push_back(values.size());
  }
};

/// The images of several shards, ordered by file name. Immutable after open; reading is thread-safe (pread). Copies
/// share the open files.
class DataSet {
 public:
  /// Collective. `pattern`: a folder (its *.h5), a file, a glob, or several of these separated by commas (`\\,` is a
  /// comma within a name). Rank 0 opens the files (through MPI-IO, alone) and shares their metadata. Error(file),
  /// agreed, if there is no file, if one is missing or malformed, if a folder holds only part of a set, or if the files
  /// are parts of different packs.
  static DataSet open(const std::string& pattern, const comm::Communicator& comm);
  /// A data set of one shard whose metadata is already known.
  explicit DataSet(ShardInfo shard);
  /// The images of this set with these indices, which must ascend, numbered from 0. shards(), classes() and
  /// max_pixels() stay those of the whole set. Holds 8 bytes per image; copies share them.
  DataSet subset(std::vector<std::uint64_t> indices) const;

  std::uint64_t images() const;
  const std::vector<ShardInfo>& shards() const;
  /// The class names of all shards in order of appearance, each name once.
  const std::vector<std::string>& classes() const;
  /// Whether some shard has labels or targets.
  bool has_labels() const;
  /// The largest number of pixels that the shards' packs allowed for an image.
  std::int64_t max_pixels() const;

  /// Places of images [first, first + count), which may cross shards. Reads each shard's offset and checksum tables
  /// once. Error(file) if offsets are not ascending or lie outside the pixel data.
  std::vector<ImagePlace> places(std::uint64_t first, std::uint64_t count) const;
  /// Reads `bytes` bytes at `offset` of a shard's file. Error(file) on a short read.
  void read(std::uint32_t shard, std::uint64_t offset, std::uint64_t bytes, void* out) const;
  /// Reads elements [first, first + count) of an array that begins at `offset`.
  template <class T>
  std::vector<T> read_values(std::uint32_t shard, std::uint64_t offset, std::uint64_t first,
                             std::uint64_t count) const {
    std::vector<T> values(count);
    read(shard, offset + first * sizeof(T), count * sizeof(T), values.data());
    return values;
  }
  /// Reads one encoded image. Does not compare its checksum.
  ImagePlace read_image(std::uint64_t index, std::vector<std::uint8_t>& out) const;
  /// Labels of [first, first + count) as indices into classes(), or as stored if no shard names classes. -1: no label,
  /// or several targets. Error(file).
  std::vector<std::int32_t> labels(std::uint64_t first, std::uint64_t count) const;
  /// Classes of [first, first + count) as indices into classes(): several, one (the label) or none per image.
  /// Error(file).
  Targets targets(std::uint64_t first, std::uint64_t count) const;
  /// For [first, first + count): the classes whose presence is unknown, neither present (targets) nor absent. Such an
  /// image is left out where that class is tested. Error(file).
  Targets ignored(std::uint64_t first, std::uint64_t count) const;
  /// Text for messages: "photos-00000.h5, image 17".
  std::string describe(std::uint64_t index) const;

 private:
  struct Impl;
  DataSet() = default;
  template <class F>
  void each_run(std::uint64_t first, std::uint64_t count, F&& f) const;
  using Number = std::uint64_t;
  Targets values(std::uint64_t first, std::uint64_t count, Number ShardInfo::*total, Number ShardInfo::*offset,
                 Number ShardInfo::*begin_offset) const;
  std::shared_ptr<const Impl> impl_;
  std::shared_ptr<const std::vector<std::uint64_t>> chosen_;  // nullptr: all images
};

/// Suffix of the file name while a shard is being written.
inline constexpr const char* kTemporarySuffix = ".tmp";

/// What a shard records about one image; `width` and `height` as decoded (EXIF orientation applied).
struct ShardEntry {
  std::uint64_t bytes = 0, checksum = 0;
  std::uint32_t width = 0, height = 0;
  std::int32_t label = -1;
  std::vector<std::int32_t> targets = {};  ///< replace the label if images may have several classes
  std::vector<std::int32_t> ignored = {};  ///< with targets: classes whose presence is unknown
};

/// Writes one shard; until publish() the file has a temporary name that readers ignore. Serial: one rank writes a
/// shard. Equal input gives byte-identical files.
class ShardWriter {
 public:
  /// Creates `path` + kTemporarySuffix with everything but the encoded images and their names. If `classes` is empty,
  /// no labels are written. If any entry has targets or ignored ones, the shard holds targets for all images and no
  /// labels; its version is then kTargetsVersion, which older readers refuse. Error(file): no space, not writable.
  ShardWriter(const std::string& path, const std::vector<ShardEntry>& entries, const std::vector<std::string>& classes,
              const SetMark& set = {});

  /// Appends the next encoded image. Either all images have names or none has.
  void append(std::span<const std::uint8_t> image, const std::string& name = "");
  /// Writes the names, then closes and syncs the file, still under its temporary name.
  void finish();
  /// Renames a finished shard to its final name, replacing any file of that name.
  void publish();

 private:
  void write_out();
  std::string path_;
  std::unique_ptr<std::string, void (*)(std::string*)> temporary_;  // removed with the writer unless it was published
  std::size_t images_ = 0;
  std::unique_ptr<h5::File> file_;
  std::vector<std::uint8_t> pending_;
  std::vector<std::string> names_;
  std::uint64_t written_ = 0, total_ = 0;
};

/// fsync of a file or folder. Error(file).
void sync_to_disk(const std::string& path);

/// Describes the contents of an HDF5 file as JSON text. For a shard: counts, classes, images per class, sizes and where
/// the arrays lie. `verify` also reads every image and compares its checksum ("damaged" lists the first failures). For
/// any other HDF5 file: its groups, data sets with shapes, attributes and the number of values below /model; with
/// `verify` the text says that nothing was compared. `alone`: a communicator of one rank. Error(file) if the file is
/// malformed or not readable as HDF5.
std::string inspect_hdf5(const std::string& path, bool verify, const comm::Communicator& alone);

/// Describes each *.h5 file of a folder as above, and the sets that they form. "problems" lists files that are not
/// readable shards (with `verify` also damaged ones) and what is wrong with the sets. "problem" is present if these
/// make the folder unusable.
std::string inspect_folder(const std::string& folder, bool verify, const comm::Communicator& alone);

/// The "problem" of a file that should be verified but cannot be.
inline constexpr const char* kNothingToCompare =
    "nothing to compare: this kind of file holds no checksums (the checksums of a checkpoint are in its folder: verify "
    "the folder)";

}  // namespace seer::data
