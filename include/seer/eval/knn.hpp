// SPDX-License-Identifier: Apache-2.0
// Weighted k-nearest-neighbour classification (method.md 8.2): similarity is the dot product (cosine: of L2-normalised
// rows); each of the k most similar training rows votes for its class with weight exp(similarity / temperature).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::eval {

struct KnnOptions {
  std::vector<std::int64_t> k = {20};
  double temperature = 0.07;
  bool cosine = true;
  std::int64_t block_rows = 2048;  ///< training rows handled at a time: bounds memory on every rank
};

/// Votes of this rank's test rows for one k, in their order.
struct KnnVotes {
  std::int64_t k = 0;                   ///< as asked for
  std::vector<double> votes;            ///< [rows, classes]; scaled by a positive factor a row where exp would overflow
  std::vector<std::int32_t> predicted;  ///< class of most votes, the lowest of equal ones
};

/// Collective. Each rank classifies its own test rows against the training rows of all ranks, which travel in blocks.
/// Rows of equal similarity count in the order of the training set, so nothing depends on the number of ranks. Training
/// rows without a label or marked bad are left out. k larger than the training set means all of it.
/// Error(input) for k < 1, temperature <= 0 or dimensions that differ; Error(numerics) for features that are not
/// finite.
std::vector<KnnVotes> knn_votes(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                                std::int64_t classes, const KnnOptions& options);

/// The classes of both sets by name: those of the training set in their order, then what only the test set has.
/// Error(file) where one set names its classes and the other does not.
std::vector<std::string> common_classes(const std::vector<std::string>& train, const std::string& train_name,
                                        const std::vector<std::string>& test, const std::string& test_name);

struct KnnScore {
  std::int64_t k = 0;
  double top1 = 0, top5 = 0;  ///< shares of the labelled test rows; top-5: among the five classes of most votes
};

struct KnnReport {
  std::vector<KnnScore> scores;
  std::int64_t train_rows = 0, test_rows = 0, classes = 0;  ///< rows that have a label and decode
  double largest_class = 0;  ///< share of the test rows' commonest class: what guessing one class reaches
};

/// Collective. Labels mean the same where their classes have the same name. Error(file) where a set has no labels.
KnnReport knn_report(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                     const KnnOptions& options);

/// Collective. Subtracts the mean of the training rows of all ranks from both tables (for raw pixels, whose mean colour
/// would otherwise make all of them alike).
void remove_mean(const comm::Communicator& comm, FeatureTable& train, FeatureTable& test);

}  // namespace seer::eval
