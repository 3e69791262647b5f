// SPDX-License-Identifier: Apache-2.0
// A temporary folder for one test. With a communicator, all ranks use the same folder.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::test {

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const comm::Communicator* comm = nullptr) : comm_(comm) {
    if (comm == nullptr || comm->is_root()) {
      std::string name = (std::filesystem::temp_directory_path() / "seer-test-XXXXXX").string();
      path_ = mkdtemp(name.data());
    }
    if (comm != nullptr) comm->broadcast(path_);
  }
  ~TemporaryFolder() {
    if (comm_ != nullptr) comm_->barrier();
    std::error_code ignored;
    if (comm_ == nullptr || comm_->is_root()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  const comm::Communicator* comm_;
  std::string path_;
};

inline std::vector<std::uint8_t> read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_bytes(const std::string& path, const void* data, std::size_t bytes) {
  std::ofstream(path, std::ios::binary).write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
}

}  // namespace seer::test
