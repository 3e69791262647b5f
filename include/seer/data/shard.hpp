// SPDX-License-Identifier: Apache-2.0
// Shards (format: docs/formats.md) and the data set that a list of them forms.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/h5/file.hpp"

namespace seer::data {

inline constexpr const char* kShardFormat = "seer-shard";
/// Of shards whose images have one label at most, and of those whose images may have several targets.
inline constexpr std::int64_t kShardVersion = 1, kTargetsVersion = 2;
/// The limit of images that say nothing of theirs.
inline constexpr std::int64_t kUsualMaxPixels = 50'000'000;

/// What a shard says of the pack that made it (docs/formats.md); shards of older versions say nothing.
struct SetMark {
  std::string id;                        ///< equal for packs of equal images in equal order; "": not told
  std::uint64_t shards = 0, number = 0;  ///< of the set, and this one's among them (from 0)
  std::uint64_t max_pixels = 0;          ///< no image has more; 0: not told
};

/// One shard's metadata: where its arrays lie in the file. A few hundred bytes however many images it holds.
struct ShardInfo {
  std::string path;
  std::uint64_t file_bytes = 0;
  std::uint64_t images = 0;
  std::uint64_t pixels_offset = 0, pixels_bytes = 0;  ///< /images/bytes in the file
  std::uint64_t offset_offset = 0;                    ///< /images/offset: uint64 [images + 1]
  std::uint64_t width_offset = 0, height_offset = 0;  ///< uint32 [images]
  std::uint64_t checksum_offset = 0;                  ///< uint64 [images]
  std::uint64_t label_offset = 0;                     ///< int32 [images], 0: none
  std::uint64_t targets = 0;                          ///< in all; only where images may have several
  std::uint64_t target_offset = 0;                    ///< int32 [targets], 0: none
  std::uint64_t target_begin_offset = 0;              ///< uint64 [images + 1], 0: none
  std::vector<std::string> classes;                   ///< empty: none
  SetMark set;
};

/// Opens, checks every length, range and product against the file's size, first in a child process with limits
/// (h5_trial.hpp). Collective with `comm`: its root tries, then all open through MPI-IO. Error(file) says what is
/// wrong, e.g.
/// "shards/a.h5: /images/offset has 1281160 entries, wanted 1281168 (one more than /images/width)".
ShardInfo read_shard_info(const std::string& path, const comm::Communicator* comm = nullptr);
/// The same of many, in order, with few processes. `alone`: a communicator of one rank.
void read_shard_infos(const std::vector<std::string>& paths, const comm::Communicator& alone,
                      const std::function<void(ShardInfo)>& take);

/// Where one image's bytes are.
struct ImagePlace {
  std::uint32_t shard = 0;
  std::uint64_t offset = 0;  ///< in the file
  std::uint64_t bytes = 0;
  std::uint64_t checksum = 0;  ///< XXH3 of the bytes, as packed
};

/// Error(file) unless these bytes of the image are the ones that were packed.
void require_intact(const ImagePlace& place, std::span<const std::uint8_t> bytes);

/// Classes of some images: those of image i are values[begins[i]] to values[begins[i + 1] - 1].
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

/// The images of several shards, in the order of the file names. Immutable after open; reading is thread-safe (pread).
class DataSet {
 public:
  /// Collective. `pattern`: a folder (its *.h5), a file, a glob, or several of these separated by commas (`\\,` is a
  /// comma of a name). Rank 0 opens the files (through MPI-IO on its own) and shares what it found. Error(file),
  /// agreed, for none, missing or malformed ones, for a folder that holds a part of a set, and for parts of different
  /// packs.
  static DataSet open(const std::string& pattern, const comm::Communicator& comm);
  /// One shard that is known already.
  explicit DataSet(ShardInfo shard);
  DataSet(DataSet&&) noexcept;
  DataSet& operator=(DataSet&&) noexcept;
  ~DataSet();

  std::uint64_t images() const;
  const std::vector<ShardInfo>& shards() const;
  /// The classes of all shards by name, in the order in which they appear; each name once.
  const std::vector<std::string>& classes() const;
  /// Whether images have a label, one at most.
  bool has_labels() const;
  /// Whether images have a label or several targets.
  bool has_targets() const;
  /// The most pixels an image has by what its pack allowed.
  std::int64_t max_pixels() const;

  /// Places of images [first, first + count), which may cross shards: one read of the offset and checksum tables a
  /// shard. Error(file) if offsets are not ascending or leave the pixel data.
  std::vector<ImagePlace> places(std::uint64_t first, std::uint64_t count) const;
  /// `bytes` from `offset` of a shard's file. Error(file) on a short read.
  void read(std::uint32_t shard, std::uint64_t offset, std::uint64_t bytes, void* out) const;
  /// One whole encoded image, not held against its checksum.
  ImagePlace read_image(std::uint64_t index, std::vector<std::uint8_t>& out) const;
  /// Labels of [first, first + count) as places in classes(), -1 where there is none.
  std::vector<std::int32_t> labels(std::uint64_t first, std::uint64_t count) const;
  /// The classes of [first, first + count) as places in classes(): several, one (the label) or none each. Error(file).
  Targets targets(std::uint64_t first, std::uint64_t count) const;
  /// "photos-00000.h5, image 17" for messages.
  std::string describe(std::uint64_t index) const;

 private:
  struct Impl;
  explicit DataSet(Impl* impl);
  Impl* impl_ = nullptr;
};

}  // namespace seer::data
