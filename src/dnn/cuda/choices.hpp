// SPDX-License-Identifier: Apache-2.0
// Chooses the fastest of several ways to do the same thing: measured once, saved in a file, the same on all ranks. Does
// not depend on CUDA.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "seer/base/dtype.hpp"
#include "seer/dnn/device_backend.hpp"

namespace seer::dnn {

struct Choice {
  std::string name;
  double microseconds = 0;
  bool operator==(const Choice&) const = default;
};

/// A way to do it. `time_us` runs it and returns the microseconds it took, or nothing if this way does not work here.
/// It may stop early once it is sure to take longer than a multiple of `best_us`.
struct Candidate {
  std::string name;
  std::function<std::optional<double>(double best_us)> time_us;
  /// True if it works here after all. Asked of the saved choice and of the one that is taken.
  std::function<bool()> ready;
};

/// Measurements on this kind of machine. A file that cannot be read is ignored; a file that cannot be written costs a
/// warning.
class Choices {
 public:
  /// `directory` "": nothing is saved beyond this run.
  Choices(const std::string& directory, bool writes);
  std::optional<Choice> find(const std::string& key) const;
  const std::string& path() const { return path_; }
  /// Also writes the file, including what other processes have added in the meantime.
  void keep(const std::string& key, const Choice& choice);

 private:
  void read();
  void write() const;
  std::string path_;
  bool writes_;
  std::map<std::string, Choice> choices_;
};

using Agree = std::function<std::string(const std::string&)>;

/// Index of the candidate to take: the saved one if it is still ready, else the fastest; if `agree` is set, the root's.
/// `agree` is called exactly once, even if nothing can run here, so that all ranks learn it. Error(device) with `what`
/// if no candidate works, or if the root's does not work here.
std::size_t choose(const std::string& key, const std::vector<Candidate>& candidates, Choices& choices,
                   const Agree& agree, const std::string& what);

/// Index of the first candidate that is ready, or with `agree` of the one that the root then names; Error(device) with
/// `what` if none is.
std::size_t first_ready(const std::vector<Candidate>& candidates, const Agree& agree, const std::string& what);

/// Names everything that a choice depends on. `machine`: "NVIDIA H100 80GB HBM3 | cuDNN 9.19.0 | driver 13000".
std::string choice_key(const std::string& machine, const DeviceOptions& options, Direction direction,
                       const ConvShape& shape, DType type, std::int64_t alignment_bytes);

}  // namespace seer::dnn
