// SPDX-License-Identifier: Apache-2.0
// Retrieval (method.md 8.8): every query ranks the images of a database by the dot product of their features; mean
// average precision. Protocols: the revisited Oxford and Paris sets (Radenovic et al. 2018), and copies or classes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::eval {

/// The database images that a query knows of, in groups: indices in the database, ascending, each in one group only.
struct Answers {
  std::vector<std::vector<std::uint64_t>> groups;
};

struct RetrievalQuery {
  std::shared_ptr<const Answers> answers;
  std::int64_t self = -1;  ///< index of the query itself in the database, which is left out; -1: it is not there
};

/// Which groups are right answers, and which are taken out of the ranking. Images of other groups, or of none, are
/// wrong.
struct RetrievalProtocol {
  std::string name;
  std::vector<std::size_t> right, ignored;
};

/// What is to be ranked and how it is judged; the same on every rank.
struct RetrievalTask {
  std::string protocol;  ///< "revisited", "copies" or "labels"
  std::vector<RetrievalQuery> queries;
  std::vector<RetrievalProtocol> judgements;
};

constexpr std::array<std::int64_t, 3> kRetrievalDepths = {1, 5, 10};

struct RetrievalScore {
  std::string judgement;
  std::int64_t queries = 0;  ///< with at least one right answer; the others do not count
  double map = 0;
  std::array<double, 3> precision = {};  ///< among the first kRetrievalDepths, or up to the last right answer
};

/// Error(input), agreed, if no query has a right answer.
void want_answers(const RetrievalTask& task);

/// Average precision by the trapezoidal rule, as in the published evaluation of Oxford and Paris. `ranks`: places of
/// the right answers from 0, ascending; `right`: how many there are.
double average_precision(std::span<const std::int64_t> ranks, std::int64_t right);

/// Collective. The features of both tables (one feature, rows in the order of task.queries and of the database) stay on
/// their ranks; queries are sent in blocks. Images of equal similarity rank in the order of the database, so the result
/// does not depend on the number of ranks. Images that do not decode are left out of both sets. Error(input): different
/// dimensions; want_answers() of the images that decode.
std::vector<RetrievalScore> score_retrieval(const comm::Communicator& comm, const FeatureTable& queries,
                                            const FeatureTable& database, const RetrievalTask& task);

}  // namespace seer::eval
