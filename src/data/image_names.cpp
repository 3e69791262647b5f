// SPDX-License-Identifier: Apache-2.0
#include "seer/data/image_names.hpp"

#include <algorithm>

#include "seer/base/error.hpp"
#include "seer/h5/strings.hpp"

namespace seer::data {

std::vector<std::string> image_names(const DataSet& data, std::uint64_t first, std::uint64_t count) {
  ensure(first <= data.images() && count <= data.images() - first, "images outside the data set");
  std::vector<std::string> out;
  std::uint64_t begin = 0;  // of the shard
  for (const auto& shard : data.shards()) {
    const auto from = std::max(first, begin), to = std::min(first + count, begin + shard.images);
    if (from < to) {
      auto names = h5::File::open(shard.path).exists("/images/name")
                       ? h5::read_strings(shard.path, "/images/name", from - begin, to - from)
                       : std::vector<std::string>(to - from);
      out.insert(out.end(), std::make_move_iterator(names.begin()), std::make_move_iterator(names.end()));
    }
    begin += shard.images;
  }
  return out;
}

}  // namespace seer::data
