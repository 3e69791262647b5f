// SPDX-License-Identifier: Apache-2.0
// Chooses some images of a labelled set: a fraction of each class, or a number of each class.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/data/shard.hpp"

namespace seer::data {

struct SubsetChoice {
  double fraction = 1;         ///< of each class's images, above 0
  std::int64_t per_class = 0;  ///< images of each class; 0: `fraction` counts
  std::uint64_t seed = 0;

  bool takes_all() const { return per_class == 0 && fraction >= 1; }
};

/// Returns the indices, ascending, of the chosen images. `classes_of`: the classes of each image, below `classes`. Of
/// each class chooses ceil(fraction * images) or per_class images; an image of several classes is chosen if one of its
/// classes chooses it. The order in which classes choose depends on the seed and the number of images alone, so a
/// smaller choice is part of a larger one with the same seed. Images without a class count as one class more for
/// `fraction`, and are left out with `per_class`. `names`: of the classes, for messages. Error(input): nothing was
/// chosen, or a class has fewer images than per_class.
std::vector<std::uint64_t> choose_subset(const Targets& classes_of, std::int64_t classes, const SubsetChoice& choice,
                                         std::span<const std::string> names = {});

/// The choice that [data] of a configuration asks for.
SubsetChoice subset_choice(const config::Data& data);

/// Collective. Returns the chosen images of a data set, or the set itself if all are chosen. Rank 0 reads all labels
/// and shares the choice. Error(input), agreed, as above, or if fewer images than ranks are left; Error(file).
DataSet subset_of(const DataSet& whole, const SubsetChoice& choice, const comm::Communicator& comm);

}  // namespace seer::data
