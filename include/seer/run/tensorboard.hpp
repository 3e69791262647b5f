// SPDX-License-Identifier: Apache-2.0
// TensorBoard event files: a sequence of TFRecords, each with one serialised Event (src/run/event.proto). A TFRecord is
// uint64 length, masked CRC32C of these 8 bytes, the bytes, masked CRC32C of the bytes; all little-endian.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "seer/run/append_file.hpp"
#include "seer/run/metrics.hpp"

namespace seer::run {

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4); that of "123456789" is 0xe3069283.
std::uint32_t crc32c(std::string_view bytes);
/// The form in TFRecords, which keeps a CRC of data with CRCs in it useful: rotated right by 15 bits, plus 0xa282ead8.
std::uint32_t masked_crc32c(std::string_view bytes);

/// run_dir/events.out.tfevents.<seconds>.<host>: a new file for each start of a run. Root rank only.
class EventFile {
 public:
  /// Tells TensorBoard where this run begins. It then hides points of later updates that a killed run left in an older
  /// file. Error(file).
  EventFile(const std::string& run_dir, std::int64_t resumed_update);

  /// Writes all scalars of the record except `update`, which is the step. Tags are grouped as "train/...", "time/..."
  /// and so on. Error(file); then no part of the record is in the file.
  void write(const UpdateRecord& record);
  const std::string& path() const { return file_->path(); }

 private:
  void append(const std::string& event);
  std::optional<AppendFile> file_;  ///< always set after construction
};

}  // namespace seer::run
