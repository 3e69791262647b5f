// SPDX-License-Identifier: Apache-2.0
// continue.prototypes = "kmeans": prototypes from the embeddings of the run's own images.
#pragma once

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/train/learner.hpp"

namespace seer::run {

/// Collective. Computes the embeddings of at most 64 images for each prototype, taken at equal distances from the data
/// set, with the learner's network in evaluation mode, and makes the centres of their clusters its prototypes. Needs
/// the memory of all parameters once more on every rank, unsharded. Error(input), agreed: fewer images than prototypes.
void take_own_prototypes(const config::Config& config, const comm::Communicator& comm, train::Learner& learner);

}  // namespace seer::run
