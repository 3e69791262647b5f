// SPDX-License-Identifier: Apache-2.0
// Writes one shard (docs/formats.md). Until publish() it has a temporary name that no reader looks at.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/data/shard.hpp"
#include "seer/h5/file.hpp"

namespace seer::data {

/// Added to the final name while a shard is being written.
inline constexpr const char* kTemporarySuffix = ".tmp";

/// What a shard says of one image; `width` and `height` as decoded (EXIF orientation applied).
struct ShardEntry {
  std::uint64_t bytes = 0, checksum = 0;
  std::uint32_t width = 0, height = 0;
  std::int32_t label = -1;
  std::vector<std::int32_t> targets = {};  ///< instead of a label, where images may have several
};

/// Serial: one rank writes a shard. Equal input makes equal files, byte for byte.
class ShardWriter {
 public:
  /// Creates `path` + kTemporarySuffix with everything but the encoded images and their names. `classes` may be empty:
  /// then no labels are written. Where an entry has targets, the shard holds the targets of all and no label; its
  /// version is then kTargetsVersion, which older readers refuse. Error(file): no place, not writable.
  ShardWriter(const std::string& path, const std::vector<ShardEntry>& entries, const std::vector<std::string>& classes,
              const SetMark& set = {});
  ShardWriter(ShardWriter&&) noexcept = default;
  ShardWriter& operator=(ShardWriter&&) noexcept = default;
  /// Removes the temporary file unless it was published.
  ~ShardWriter();

  /// The encoded images, in order; names for all of them or none.
  void append(std::span<const std::uint8_t> image, const std::string& name = "");
  /// Writes the names, closes and syncs the complete file, still under its temporary name.
  void finish();
  /// Gives a finished shard its name (replacing what has it).
  void publish();
  const std::string& path() const { return path_; }
  std::size_t images() const { return images_; }

 private:
  void write_out();
  struct Remover {
    void operator()(std::string* path) const;
  };
  std::string path_;
  std::unique_ptr<std::string, Remover> temporary_;  // removed with the writer
  std::size_t images_ = 0;
  std::unique_ptr<h5::File> file_;
  std::vector<std::uint8_t> pending_;
  std::vector<std::string> names_;
  std::uint64_t written_ = 0, total_ = 0;
};

/// fsync of a file or folder. Error(file).
void sync_to_disk(const std::string& path);

}  // namespace seer::data
