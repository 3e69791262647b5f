// SPDX-License-Identifier: Apache-2.0
// What `seer eval knn` prints: tables for people, one JSON object for programs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/eval/confusion.hpp"
#include "seer/eval/knn.hpp"
#include "seer/eval/metrics.hpp"

namespace seer::app {

struct KnnLine {
  std::int64_t k = 0;
  double temperature = 0;
  eval::Spread top1, top5, mean_per_class;  ///< over draws; fractions
};

/// One representation of the images.
struct KnnRow {
  std::string representation, feature;
  std::int64_t dimension = 0;
  eval::Recipe recipe;
  std::vector<KnnLine> lines;  ///< one for each pair of k and temperature
  std::size_t best = 0;        ///< the line with the highest top-1 on the set that KnnResult::select names
  double merit = 0;            ///< that top-1
  eval::KnnReport report;      ///< numbers of images and classes, and the classes' names
  eval::Confusion confusion;   ///< of the best line, over all draws
};

/// A data set, with the name used in the report.
struct KnnSet {
  std::string name;
  std::uint64_t images = 0;
};

struct KnnResult {
  std::string protocol, select;  ///< select: the set on which the best lines were chosen, "test" or "train"
  eval::KnnOptions options;
  data::SubsetChoice few;
  std::int64_t draws = 0;  ///< 0: all training images vote
  KnnSet train, test;
  std::vector<KnnRow> rows;
};

/// Parts that are printed if they are asked for; of the best row.
struct KnnExtras {
  bool per_class = false, confusion = false;
};

void print_json(const KnnResult& result, const KnnExtras& extras);
void print_table(const KnnResult& result, const KnnExtras& extras);

}  // namespace seer::app
