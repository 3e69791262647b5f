// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/parameter.hpp"

#include <algorithm>
#include <cmath>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/base/random.hpp"

namespace seer::nn {

std::int64_t ParameterTable::add(const std::string& name, std::vector<std::int64_t> shape, Init init, double fan,
                                 const Treatment& treatment) {
  std::int64_t elems = 1;
  for (auto n : shape) elems *= n;
  const std::int64_t offset = block_elems_;
  entries_.push_back({name, std::move(shape), offset, elems, init, fan, treatment});
  block_elems_ += (elems + 15) / 16 * 16;
  return offset;
}

const Parameter& ParameterTable::find(const std::string& name) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Parameter& p) { return p.name == name; });
  ensure(found != entries_.end(), ("no parameter " + name).c_str());
  return *found;
}

void initialize(const Parameter& p, std::uint64_t seed, float* values) {
  if (p.init == Init::zero || p.init == Init::one) {
    std::fill_n(values, p.elems, p.init == Init::one ? 1.0F : 0.0F);
    return;
  }
  Random random(seed, Purpose::parameter, checksum(p.name));
  const double sigma = std::sqrt(2.0 / p.fan), bound = 1.0 / std::sqrt(p.fan);
  for (std::int64_t i = 0; i < p.elems; ++i) {
    values[i] =
        static_cast<float>(p.init == Init::conv_normal ? sigma * random.normal() : random.uniform(-bound, bound));
  }
}

void initialize(const ParameterTable& table, std::uint64_t seed, float* block) {
  for (const auto& p : table.entries()) initialize(p, seed, block + p.offset);
}

}  // namespace seer::nn
