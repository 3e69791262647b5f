// SPDX-License-Identifier: Apache-2.0
// A file that only grows, record by record. Each record is there whole or not at all.
#pragma once

#include <string>
#include <string_view>

namespace seer::run {

class AppendFile {
 public:
  enum class Start { append, must_be_new };

  /// Error(file), here and in the calls below; its text ends with `remedy`.
  AppendFile(std::string path, Start start, std::string remedy);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  /// False if Start::must_be_new was given and the file existed already.
  bool is_open() const { return descriptor_ >= 0; }
  const std::string& path() const { return path_; }
  /// Error(file). A failed write is cut off again, so that the next record does not follow half of one.
  void append(std::string_view record);
  /// The same, and the record is on the disk when it returns.
  void append_durably(std::string_view record);

 private:
  [[noreturn]] void fail(const char* doing, int reason) const;
  std::string path_, remedy_;
  int descriptor_ = -1;
};

}  // namespace seer::run
