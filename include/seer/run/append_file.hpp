// SPDX-License-Identifier: Apache-2.0
// A file that only grows, record by record: each is there whole or not at all.
#pragma once

#include <string>
#include <string_view>

namespace seer::run {

class AppendFile {
 public:
  enum class Start { append, must_be_new };

  /// Error(file), now and later, with this remedy.
  AppendFile(std::string path, Start start, std::string remedy);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  /// With must_be_new: false where a file of this name was there.
  bool is_open() const { return descriptor_ >= 0; }
  const std::string& path() const { return path_; }
  /// Error(file). What a failed write left behind is cut off again, so that the next record does not follow half of
  /// one.
  void append(std::string_view record);
  /// The same, on the disk when it returns.
  void append_durably(std::string_view record);

 private:
  [[noreturn]] void fail(const char* doing, int reason) const;
  std::string path_, remedy_;
  int descriptor_ = -1;
};

}  // namespace seer::run
