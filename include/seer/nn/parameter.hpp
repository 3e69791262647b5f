// SPDX-License-Identifier: Apache-2.0
// Parameters as named ranges of flat blocks: a table of names, shapes and offsets. Values, gradients and momentum are
// separate blocks with the same layout, so a shard is a range and an update is one pass.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace seer::nn {

/// How a tensor starts (method.md 1.3 and 2).
enum class Init {
  conv_normal,  ///< N(0, 2 / (k k c_out)); fan = k*k*c_out
  uniform_fan,  ///< U(-1/sqrt(fan), 1/sqrt(fan)); fan = inputs
  one,
  zero,
};

/// What the optimizer does with a tensor.
struct Treatment {
  bool decay = true;                ///< weight decay pulls it towards zero
  bool trust = true;                ///< LARS scales its gradient by the ratio of its norms
  bool unit_rows = false;           ///< a matrix whose rows are normalised to length one after every update
  std::int64_t frozen_updates = 0;  ///< it does not change in this many first updates of the run
  std::int64_t ramp_updates = 0;    ///< number of updates after these in which its learning rate rises from 0
  double rate = 1;                  ///< factor on the learning rate
  double own_decay = -1;            ///< weight decay; negative: the optimizer's
};
/// Treatment::frozen_updates of a tensor that never changes.
inline constexpr std::int64_t kAlwaysFrozen = std::numeric_limits<std::int64_t>::max();

struct Parameter {
  std::string name;                 ///< torchvision's
  std::vector<std::int64_t> shape;  ///< torchvision's (convolutions OIHW)
  std::int64_t offset = 0, elems = 0;
  Init init = Init::zero;
  double fan = 1;
  Treatment treatment = {};
  bool norm = false;  ///< weight or bias of a normalisation
};

/// Offsets are multiples of 16 elements (64 bytes); gaps hold zeros and stay zero.
class ParameterTable {
 public:
  /// Returns the offset.
  std::int64_t add(const std::string& name, std::vector<std::int64_t> shape, Init init, double fan = 1,
                   const Treatment& treatment = {});
  /// The same for a convolution's weights, which start with Init::conv_normal. `c_in`: of a group.
  std::int64_t add_convolution(const std::string& name, std::int64_t c_out, std::int64_t c_in, std::int64_t kernel) {
    return add(name, {c_out, c_in, kernel, kernel}, Init::conv_normal, static_cast<double>(kernel * kernel * c_out));
  }
  /// The same for a weight or bias of a normalisation.
  std::int64_t add_norm(const std::string& name, std::int64_t channels, Init init) {
    const auto offset = add(name, {channels}, init);
    entries_.back().norm = true;
    return offset;
  }
  /// Lets `change` set the treatment of every tensor.
  void treat(const std::function<void(Parameter&)>& change) {
    for (auto& entry : entries_) change(entry);
  }
  const std::vector<Parameter>& entries() const { return entries_; }
  /// Error(internal) if there is none.
  const Parameter& find(const std::string& name) const;
  /// Number of a run's first updates in which a tensor is frozen that trains later.
  std::int64_t thawed_after() const {
    std::int64_t most = 0;
    for (const auto& p : entries_)
      if (p.treatment.frozen_updates != kAlwaysFrozen) most = std::max(most, p.treatment.frozen_updates);
    return most;
  }
  /// Elements of a block, gaps included.
  std::int64_t block_elems() const { return block_elems_; }
  /// Elements of the tensors alone.
  std::int64_t parameter_count() const {
    std::int64_t count = 0;
    for (const auto& p : entries_) count += p.elems;
    return count;
  }

 private:
  std::vector<Parameter> entries_;
  std::int64_t block_elems_ = 0;
};

/// Fills a block. Every tensor has a random stream keyed by (seed, name), so its values depend on nothing else.
void initialize(const ParameterTable& table, std::uint64_t seed, float* block);
void initialize(const Parameter& parameter, std::uint64_t seed, float* values);

}  // namespace seer::nn
