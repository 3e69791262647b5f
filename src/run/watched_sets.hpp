// SPDX-License-Identifier: Apache-2.0
// The images that a run evaluates its own network on, and one evaluation.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "seer/data/eval_reader.hpp"
#include "seer/data/shard.hpp"
#include "seer/eval/features.hpp"
#include "seer/run/evaluations.hpp"

namespace seer::run {

struct Evaluations::Sets {
  /// Images of data.shards: watch.images of them evenly over the set; of these every kPerView-th with kViews crops.
  static constexpr std::int64_t kViews = 4, kPerView = 4;

  /// Collective. Errors: see Evaluations.
  Sets(const config::Config& config, const comm::Communicator& comm);

  /// Collective. Error(numerics), agreed: all features are equal, or not finite.
  std::vector<method::Figure> evaluate(const config::Config& config, const comm::Communicator& comm,
                                       train::Learner& learner, std::int64_t completed) const;
  /// What the measure for the best network depends on beside the network, as text. Folders do not count, since sets are
  /// moved.
  std::string setting(const config::Config& config) const;
  /// That pass through the network in an evaluation.
  double pixels() const;

  data::DataSet images, views;
  struct Labelled {
    data::DataSet train, test;
    std::vector<std::string> classes;  ///< of both
  };
  std::optional<Labelled> labelled;

 private:
  /// Adds k-NN and the linear probe.
  void test_with_labels(const comm::Communicator& comm, eval::FeatureExtractor& extractor, std::int64_t k,
                        std::vector<method::Figure>& out) const;

  data::EvalOptions reading_;  ///< of centre crops
  data::Views crops_;
};

}  // namespace seer::run
