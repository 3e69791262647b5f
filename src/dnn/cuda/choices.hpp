// SPDX-License-Identifier: Apache-2.0
// Which of several ways to do the same thing is fastest here: measured once, kept in a file, the same on all ranks.
// Knows nothing of CUDA.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "../direction.hpp"
#include "seer/base/dtype.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

struct Choice {
  std::string name;
  double microseconds = 0;
  bool operator==(const Choice&) const = default;
};

/// A way to do it. The function runs it and says how long it took, in microseconds; it may stop early when it sees that
/// it will take longer than a multiple of `best_us`, and says nothing where this way cannot be gone.
struct Candidate {
  std::string name;
  std::function<std::optional<double>(double best_us)> time_us;
  /// Whether it can be gone here after all: asked of the one that was kept, and of the one that is taken.
  std::function<bool()> ready;
};

/// What was measured on this kind of machine. A file that cannot be read is as good as none; one that cannot be written
/// costs a warning.
class Choices {
 public:
  /// `directory` "": nothing is kept beyond this run.
  Choices(const std::string& directory, bool writes);
  std::optional<Choice> find(const std::string& key) const;
  const std::string& path() const { return path_; }
  /// Also writes the file, what others have added in between included.
  void keep(const std::string& key, const Choice& choice);

 private:
  void read();
  void write() const;
  std::string path_;
  bool writes_;
  std::map<std::string, Choice> choices_;
};

using Agree = std::function<std::string(const std::string&)>;

/// Index of the candidate to take: the kept one if it is still ready, else the fastest; if `agree` is there, the
/// root's. It is called exactly once, also where nothing can be run here: then everybody learns it. Error(device) with
/// `what` where there is none, or where the root's cannot be gone here.
std::size_t choose(const std::string& key, const std::vector<Candidate>& candidates, Choices& choices,
                   const Agree& agree, const std::string& what);

/// Index of the first that can be gone; Error(device) as above.
std::size_t first_ready(const std::vector<Candidate>& candidates, const std::string& what);

/// What a choice depends on besides the shape.
struct ChoiceSetting {
  std::string device;   ///< "NVIDIA H100 80GB HBM3"
  std::string library;  ///< "cuDNN 9.19.0"
  int driver = 0;       ///< CUDA's number
  bool tf32 = false, deterministic = false, float_weight_gradients = false;
  std::size_t workspace_bytes = 0;
};
std::string choice_key(const ChoiceSetting& setting, Direction direction, const ConvShape& shape, DType type,
                       std::int64_t alignment_bytes);

}  // namespace seer::dnn
