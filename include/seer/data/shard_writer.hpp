// SPDX-License-Identifier: Apache-2.0
// Writes one shard (docs/formats.md). Until publish() the file has a temporary name that readers ignore.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/data/shard.hpp"
#include "seer/h5/file.hpp"

namespace seer::data {

/// Suffix of the file name while a shard is being written.
inline constexpr const char* kTemporarySuffix = ".tmp";

/// What a shard records about one image; `width` and `height` as decoded (EXIF orientation applied).
struct ShardEntry {
  std::uint64_t bytes = 0, checksum = 0;
  std::uint32_t width = 0, height = 0;
  std::int32_t label = -1;
  std::vector<std::int32_t> targets = {};  ///< replace the label if images may have several classes
};

/// Serial: one rank writes a shard. Equal input gives byte-identical files.
class ShardWriter {
 public:
  /// Creates `path` + kTemporarySuffix with everything but the encoded images and their names. If `classes` is empty,
  /// no labels are written. If any entry has targets, the shard holds targets for all images and no labels; its version
  /// is then kTargetsVersion, which older readers refuse. Error(file): no space, not writable.
  ShardWriter(const std::string& path, const std::vector<ShardEntry>& entries, const std::vector<std::string>& classes,
              const SetMark& set = {});
  ShardWriter(ShardWriter&&) noexcept = default;
  ShardWriter& operator=(ShardWriter&&) noexcept = default;
  /// Removes the temporary file unless it was published.
  ~ShardWriter();

  /// Appends the next encoded image. Either all images have names or none has.
  void append(std::span<const std::uint8_t> image, const std::string& name = "");
  /// Writes the names, then closes and syncs the file, still under its temporary name.
  void finish();
  /// Renames a finished shard to its final name, replacing any file of that name.
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
