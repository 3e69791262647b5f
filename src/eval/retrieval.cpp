// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/retrieval.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "gathered.hpp"
#include "seer/base/error.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::eval {
namespace {

constexpr std::uint64_t kQueries_block = 256, kDatabase_block = 2048;

/// A database image that the query knows of.
struct Listed {
  std::uint64_t index = 0;
  std::size_t group = 0;
  double similarity = 0;
  std::int64_t ahead = 0;  ///< unlisted images that rank before it
};
/// Whether image `index` of this similarity ranks before `other`.
bool before(double similarity, std::uint64_t index, const Listed& other) {
  return similarity != other.similarity ? similarity > other.similarity : index < other.index;
}

/// The same on every rank: products of floats are exact in double precision, and the order of the sum is fixed.
double dot(const float* a, const float* b, std::size_t d) {
  double sum = 0;
  for (std::size_t i = 0; i < d; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

/// Largest length of a row, over all ranks.
double longest(const comm::Communicator& comm, const FeatureTable& table) {
  const auto d = static_cast<std::size_t>(table.info.dimension);
  double most = 0;
  for (std::size_t i = 0; i < table.rows(); ++i) {
    const float* row = table.values.data() + i * d;
    most = std::max(most, dot(row, row, d));
  }
  return std::sqrt(comm.all_reduce(most, comm::Op::max));
}

/// A query's listed images without the query itself.
std::vector<Listed> listed_of(const RetrievalQuery& query) {
  std::vector<Listed> out;
  for (std::size_t g = 0; g < query.answers->groups.size(); ++g)
    for (const auto index : query.answers->groups[g])
      if (static_cast<std::int64_t>(index) != query.self) out.push_back({index, g});
  return out;
}

/// One query of a block.
struct Ranking {
  const float* row = nullptr;
  std::int64_t self = -1;
  std::vector<Listed> listed;        ///< best first
  std::vector<std::uint64_t> known;  ///< the listed images' indices, ascending, and the query's own
};

class Search {
 public:
  Search(const comm::Communicator& comm, const FeatureTable& queries, const FeatureTable& database)
      : comm_(comm),
        database_(database),
        d_(static_cast<std::size_t>(database.info.dimension)),
        // Upper bound for the error of a dot product of d floats in single precision, whatever the order of summation.
        margin_(static_cast<double>(d_) * 0x1p-22 * longest(comm, queries) * longest(comm, database)),
        dnn_(dnn::make_host_backend()) {}

  /// Collective. Ranks the listed images of a block of queries, whose rows every rank has.
  std::vector<Ranking> rank(const std::vector<float>& rows, std::span<const RetrievalQuery> queries) {
    std::vector<Ranking> out;
    for (std::size_t i = 0; i < queries.size(); ++i) {
      auto& ranking = out.emplace_back(Ranking{rows.data() + i * d_, queries[i].self, listed_of(queries[i]), {}});
      for (const auto& image : ranking.listed) ranking.known.push_back(image.index);
      if (ranking.self >= 0) ranking.known.push_back(static_cast<std::uint64_t>(ranking.self));
      std::ranges::sort(ranking.known);
    }
    compare_listed(out);
    for (auto& ranking : out)
      std::ranges::sort(ranking.listed,
                        [](const Listed& a, const Listed& b) { return before(a.similarity, a.index, b); });
    count_others(rows, out);
    return out;
  }

 private:
  void compare_listed(std::vector<Ranking>& rankings) const {
    std::vector<double> values;
    for (const auto& ranking : rankings) {
      for (const auto& image : ranking.listed) {
        const bool here = image.index >= database_.first && image.index < database_.first + database_.rows();
        values.push_back(here ? dot(ranking.row, row(image.index - database_.first), d_) : 0);
      }
    }
    comm_.all_reduce(std::span(values));
    auto value = values.begin();
    for (auto& ranking : rankings)
      for (auto& image : ranking.listed) image.similarity = *value++;
  }

  /// Counts the unlisted images before each listed one. The matrix product only preselects: where its error could
  /// matter, the exact similarity decides.
  void count_others(const std::vector<float>& rows, std::vector<Ranking>& rankings) {
    std::vector<float> similarity;
    std::vector<std::vector<std::int64_t>> more(rankings.size());
    for (std::size_t q = 0; q < rankings.size(); ++q) more[q].resize(rankings[q].listed.size());
    for (std::uint64_t begin = 0; begin < database_.rows(); begin += kDatabase_block) {
      const auto count = std::min<std::uint64_t>(kDatabase_block, database_.rows() - begin);
      similarity.resize(rankings.size() * count);
      dnn_->gemm(queue_, static_cast<std::int64_t>(rankings.size()), static_cast<std::int64_t>(count),
                 static_cast<std::int64_t>(d_), rows.data(), dnn::Transpose::no, row(begin), dnn::Transpose::yes,
                 similarity.data());
      for (std::size_t q = 0; q < rankings.size(); ++q)
        for (std::uint64_t i = 0; i < count && !rankings[q].listed.empty(); ++i)
          count_one(rankings[q], begin + i, static_cast<double>(similarity[q * count + i]), more[q]);
    }
    std::vector<std::int64_t> all;
    for (const auto& of_query : more) all.insert(all.end(), of_query.begin(), of_query.end());
    comm_.all_reduce(std::span(all));
    auto next = all.begin();
    for (auto& ranking : rankings) {
      std::int64_t sum = 0;
      for (auto& image : ranking.listed) image.ahead = sum += *next++;
    }
  }

  void count_one(const Ranking& ranking, std::uint64_t at, double nearly, std::vector<std::int64_t>& more) const {
    const auto& listed = ranking.listed;
    if (database_.bad[at] != 0) return;
    if (nearly < listed.back().similarity - margin_) return;
    const auto index = database_.first + at;
    if (std::ranges::binary_search(ranking.known, index)) return;
    const auto first_behind = [&](double similarity) {
      return std::ranges::partition_point(listed,
                                          [&](const Listed& image) { return !before(similarity, index, image); });
    };
    auto place = first_behind(nearly + margin_);
    if (place != first_behind(nearly - margin_)) place = first_behind(dot(ranking.row, row(at), d_));
    if (place != listed.end()) ++more[static_cast<std::size_t>(place - listed.begin())];
  }

  const float* row(std::uint64_t of_slice) const { return database_.values.data() + of_slice * d_; }

  const comm::Communicator& comm_;
  const FeatureTable& database_;
  std::size_t d_;
  double margin_;
  std::unique_ptr<dnn::Backend> dnn_;
  device::Queue queue_;
};

/// Collective. The task without images that do not decode: they answer no query, and have no answers as queries.
RetrievalTask that_decodes(const comm::Communicator& comm, const FeatureTable& queries, const FeatureTable& database,
                           RetrievalTask task) {
  const auto bad_queries = gathered(comm, queries.bad), bad = gathered(comm, database.bad);
  std::map<const Answers*, std::shared_ptr<const Answers>> good;
  for (std::size_t q = 0; q < task.queries.size(); ++q) {
    auto& answers = task.queries[q].answers;
    auto& kept = good[bad_queries[q] != 0 ? nullptr : answers.get()];
    if (kept == nullptr) {
      auto copy = *answers;
      for (auto& group : copy.groups)
        std::erase_if(group, [&](std::uint64_t index) { return bad_queries[q] != 0 || bad[index] != 0; });
      kept = std::make_shared<const Answers>(std::move(copy));
    }
    answers = kept;
  }
  return task;
}

bool holds(const std::vector<std::size_t>& groups, std::size_t group) {
  return std::ranges::find(groups, group) != groups.end();
}

/// Adds the query to the sums of a judgement.
void judge(const Ranking& ranking, const RetrievalProtocol& judgement, RetrievalScore& score) {
  std::vector<std::int64_t> ranks;
  std::int64_t seen = 0;  // listed images that were not taken out
  for (const auto& image : ranking.listed) {
    if (holds(judgement.ignored, image.group)) continue;
    if (holds(judgement.right, image.group)) ranks.push_back(image.ahead + seen);
    ++seen;
  }
  if (ranks.empty()) return;
  ++score.queries;
  score.map += average_precision(ranks, static_cast<std::int64_t>(ranks.size()));
  for (std::size_t k = 0; k < kRetrievalDepths.size(); ++k) {
    const auto depth = std::min(kRetrievalDepths[k], ranks.back() + 1);
    const auto found = std::ranges::count_if(ranks, [&](std::int64_t rank) { return rank < depth; });
    score.precision[k] += static_cast<double>(found) / static_cast<double>(depth);
  }
}

}  // namespace

double average_precision(std::span<const std::int64_t> ranks, std::int64_t right) {
  double sum = 0;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const auto found = static_cast<double>(i), rank = static_cast<double>(ranks[i]);
    sum += (ranks[i] == 0 ? 1 : found / rank) + (found + 1) / (rank + 1);
  }
  return sum / 2 / static_cast<double>(right);
}

void want_answers(const RetrievalTask& task) {
  for (const auto& query : task.queries)
    for (const auto& judgement : task.judgements)
      for (const auto group : judgement.right)
        for (const auto index : query.answers->groups[group])
          if (static_cast<std::int64_t>(index) != query.self) return;
  throw Error(ExitCode::input, "retrieval: no query has a right answer in the database",
              "compare the names or labels of queries and database")
      .as_agreed();
}

std::vector<RetrievalScore> score_retrieval(const comm::Communicator& comm, const FeatureTable& queries,
                                            const FeatureTable& database, const RetrievalTask& task) {
  comm::agree(comm, "retrieval", [&] {
    ensure(task.queries.size() == queries.info.images, "there is a row for each query");
    if (queries.info.dimension != database.info.dimension)
      throw Error(ExitCode::input,
                  fmt::format("retrieval: queries have {} dimensions, the database {}", queries.info.dimension,
                              database.info.dimension),
                  "compute both with the same weights and features");
  });
  const auto decoded = that_decodes(comm, queries, database, task);
  want_answers(decoded);
  std::vector<RetrievalScore> scores;
  for (const auto& judgement : task.judgements) scores.push_back({.judgement = judgement.name});
  Search search(comm, queries, database);
  const auto d = static_cast<std::size_t>(database.info.dimension);
  std::vector<float> rows;
  for (int owner = 0; owner < comm.size(); ++owner) {
    const auto first = slice_begin(queries.info.images, owner, comm.size()),
               last = slice_begin(queries.info.images, owner + 1, comm.size());
    for (auto begin = first; begin < last; begin += kQueries_block) {
      const auto count = std::min(kQueries_block, last - begin);
      rows.resize(count * d);
      if (comm.rank() == owner)
        std::copy_n(queries.values.begin() + static_cast<std::ptrdiff_t>((begin - first) * d), rows.size(),
                    rows.begin());
      comm.broadcast(rows.data(), rows.size() * sizeof(float), owner);
      for (const auto& ranking : search.rank(rows, std::span(decoded.queries).subspan(begin, count)))
        for (std::size_t j = 0; j < scores.size(); ++j) judge(ranking, task.judgements[j], scores[j]);
    }
  }
  for (auto& score : scores) {
    const auto n = static_cast<double>(std::max<std::int64_t>(score.queries, 1));
    score.map /= n;
    for (auto& precision : score.precision) precision /= n;
  }
  return scores;
}

}  // namespace seer::eval
