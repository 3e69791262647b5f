// SPDX-License-Identifier: Apache-2.0
// Retrieval on any number of ranks against the published evaluation, written out for one rank that holds everything.
#include "seer/eval/retrieval.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "../support.hpp"
#include "seer/base/error.hpp"
#include "seer/eval/whitening.hpp"

namespace seer::eval {
namespace {

constexpr std::size_t kDimension = 19;

/// compute_ap and compute_map of the revisited Oxford and Paris evaluation (Radenovic et al. 2018) for one query:
/// `order` is the whole database, best first. Also the precisions.
struct Published {
  double ap = 0;
  std::array<double, 3> precision = {};
};
Published published(const std::vector<std::uint64_t>& order, const std::set<std::uint64_t>& right,
                    const std::set<std::uint64_t>& junk_images) {
  std::vector<std::int64_t> pos, junk;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (right.contains(order[i])) pos.push_back(static_cast<std::int64_t>(i));
    if (junk_images.contains(order[i])) junk.push_back(static_cast<std::int64_t>(i));
  }
  std::size_t ij = 0;
  for (std::int64_t k = 0; auto& p : pos) {
    for (; ij < junk.size() && p > junk[ij]; ++ij) ++k;
    p -= k;
  }
  Published out;
  const double recall_step = 1.0 / static_cast<double>(right.size());
  for (std::size_t j = 0; j < pos.size(); ++j) {
    const auto rank = static_cast<double>(pos[j]), before = static_cast<double>(j);
    const double precision_0 = pos[j] == 0 ? 1.0 : before / rank, precision_1 = (before + 1) / (rank + 1);
    out.ap += (precision_0 + precision_1) * recall_step / 2;
  }
  for (std::size_t k = 0; k < out.precision.size(); ++k) {
    const auto kq = std::min(*std::max_element(pos.begin(), pos.end()) + 1, kRetrievalDepths[k]);
    const auto found = std::count_if(pos.begin(), pos.end(), [&](std::int64_t p) { return p + 1 <= kq; });
    out.precision[k] = static_cast<double>(found) / static_cast<double>(kq);
  }
  return out;
}

/// Rows of length one, some of them equal.
std::vector<float> rows(std::size_t count, std::uint64_t seed) {
  auto out = test::hash_fill(count * kDimension, seed, 1.0);
  for (std::size_t i = 3; i < count; i += 5)
    std::copy_n(out.begin(), kDimension, out.begin() + static_cast<std::ptrdiff_t>(i * kDimension));
  return out;
}

FeatureTable unit_slice(const std::vector<float>& values, const comm::Communicator& comm) {
  auto table = test::slice(values, std::vector<std::int32_t>(values.size() / kDimension, -1), comm);
  make_unit(table);
  return table;
}

TEST(RetrievalMpi, EqualsThePublishedEvaluation) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  for (const auto& [images, asked] : {std::pair{300U, 41U}, {37U, 3U}, {2U, 1U}}) {
    const auto database = rows(images, 21), queries = rows(asked, 22);
    RetrievalTask task;
    task.judgements = {{"easy", {0}, {1, 2}}, {"medium", {0, 1}, {2}}, {"hard", {1}, {0, 2}}};
    for (std::size_t q = 0; q < asked; ++q) {
      Answers answers;
      answers.groups.resize(3);
      for (std::uint64_t i = 0; i < images; ++i)
        if (const auto at = (i * 7 + q * 3) % 23; at < 3 && q != 1) answers.groups[at].push_back(i);
      task.queries.push_back(
          {std::make_shared<const Answers>(answers), q % 4 == 2 ? static_cast<std::int64_t>(q) : -1});
    }
    const auto all_database = unit_slice(database, alone), all_queries = unit_slice(queries, alone);
    const auto scores = score_retrieval(world, unit_slice(queries, world), unit_slice(database, world), task);
    ASSERT_EQ(scores.size(), 3U);
    for (std::size_t j = 0; j < 3; ++j) {
      double map = 0;
      std::array<double, 3> precision = {};
      std::int64_t counted = 0;
      for (std::size_t q = 0; q < asked; ++q) {
        std::vector<double> similarity(images, 0.0);
        for (std::size_t i = 0; i < images; ++i)
          for (std::size_t k = 0; k < kDimension; ++k)
            similarity[i] += static_cast<double>(all_queries.values[q * kDimension + k]) *
                             static_cast<double>(all_database.values[i * kDimension + k]);
        std::vector<std::uint64_t> order(images);
        std::iota(order.begin(), order.end(), 0U);
        std::stable_sort(order.begin(), order.end(),
                         [&](std::uint64_t a, std::uint64_t b) { return similarity[a] > similarity[b]; });
        std::set<std::uint64_t> right, junk;
        const auto self = task.queries[q].self;
        if (self >= 0) std::erase(order, static_cast<std::uint64_t>(self));
        const auto& groups = task.queries[q].answers->groups;
        for (const auto g : task.judgements[j].right) right.insert(groups[g].begin(), groups[g].end());
        for (const auto g : task.judgements[j].ignored) junk.insert(groups[g].begin(), groups[g].end());
        if (self >= 0) right.erase(static_cast<std::uint64_t>(self));
        if (right.empty()) continue;
        const auto of_query = published(order, right, junk);
        map += of_query.ap;
        for (std::size_t k = 0; k < 3; ++k) precision[k] += of_query.precision[k];
        ++counted;
      }
      ASSERT_EQ(scores[j].queries, counted) << images << " " << scores[j].judgement;
      if (counted == 0) continue;
      EXPECT_NEAR(scores[j].map, map / static_cast<double>(counted), 1e-12) << images << " " << scores[j].judgement;
      for (std::size_t k = 0; k < 3; ++k)
        EXPECT_NEAR(scores[j].precision[k], precision[k] / static_cast<double>(counted), 1e-12);
    }
  }
}

TEST(RetrievalMpi, ImagesThatDoNotDecodeAreAsIfTheyWereNotThere) {
  const auto world = comm::Communicator::world();
  const auto whole = rows(30, 5);
  const auto is_bad = [](std::uint64_t i) { return i % 7 == 2; };
  std::vector<float> rest;
  std::vector<std::uint64_t> place(30);  // without the bad ones
  for (std::uint64_t i = 0; i < 30; ++i) {
    place[i] = rest.size() / kDimension;
    const auto row = whole.begin() + static_cast<std::ptrdiff_t>(i * kDimension);
    if (!is_bad(i)) rest.insert(rest.end(), row, row + static_cast<std::ptrdiff_t>(kDimension));
  }
  RetrievalTask with, without;  // each image searches for the others of its class
  with.judgements = without.judgements = {{"all", {0}, {}}};
  for (std::uint64_t q = 0; q < 30; ++q) {
    Answers all, good;
    all.groups.resize(1);
    good.groups.resize(1);
    for (std::uint64_t i = q % 3; i < 30; i += 3) {
      all.groups[0].push_back(i);
      if (!is_bad(i)) good.groups[0].push_back(place[i]);
    }
    with.queries.push_back({std::make_shared<const Answers>(all), static_cast<std::int64_t>(q)});
    if (!is_bad(q))
      without.queries.push_back({std::make_shared<const Answers>(good), static_cast<std::int64_t>(place[q])});
  }
  auto table = unit_slice(whole, world);
  for (std::size_t i = 0; i < table.rows(); ++i) table.bad[i] = is_bad(table.index[i]) ? 1 : 0;
  const auto small = unit_slice(rest, world);
  const auto found = score_retrieval(world, table, table, with), wanted = score_retrieval(world, small, small, without);
  EXPECT_EQ(found[0].queries, 26);
  EXPECT_EQ(found[0].queries, wanted[0].queries);
  EXPECT_NEAR(found[0].map, wanted[0].map, 1e-14);
  EXPECT_EQ(found[0].precision, wanted[0].precision);
  const auto learnt = learn_whitening(world, table, 5), other = learn_whitening(world, small, 5);
  EXPECT_LT(test::relative_error(learnt.mean, other.mean), 1e-6);
  std::ranges::fill(table.bad, std::uint8_t{1});
  EXPECT_THROW(score_retrieval(world, table, table, with), Error);
}

TEST(RetrievalMpi, NoAnswersAreAnError) {
  const auto world = comm::Communicator::world();
  RetrievalTask task;
  task.judgements = {{"all", {0}, {}}};
  Answers none;
  none.groups.resize(1);
  task.queries.assign(3, {std::make_shared<const Answers>(none), -1});
  EXPECT_THROW(score_retrieval(world, unit_slice(rows(3, 1), world), unit_slice(rows(9, 2), world), task), Error);
}

/// Whitened rows of the learning set, before they get length one, have mean 0 and covariance 1.
TEST(WhiteningMpi, DecorrelatesTheSetItWasLearntFrom) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  const std::size_t images = 150, d = 11;
  auto values = test::hash_fill(images * d, 31, 1.0);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = values[i] * static_cast<float>(1 + i % d) + 0.5F;
  for (std::size_t i = 0; i < images; ++i) values[i * d + 1] += 0.7F * values[i * d];
  const auto table_of = [&](const comm::Communicator& comm) {
    auto table = test::slice(values, std::vector<std::int32_t>(images, -1), comm);
    make_unit(table);
    return table;
  };
  const auto whole = table_of(alone);
  for (const std::int64_t outputs : {std::int64_t{11}, std::int64_t{4}, std::int64_t{0}}) {
    const auto w = learn_whitening(world, table_of(world), outputs);
    const auto to = static_cast<std::size_t>(w.outputs);
    ASSERT_EQ(w.outputs, outputs > 0 ? outputs : 11);
    std::vector<double> sums(to, 0.0), products(to * to, 0.0);
    auto found = whole;
    whiten(w, found);
    for (std::size_t r = 0; r < images; ++r) {
      std::vector<double> y(to, 0.0);
      double square = 0;
      for (std::size_t i = 0; i < to; ++i) {
        for (std::size_t j = 0; j < d; ++j)
          y[i] += static_cast<double>(w.projection[i * d + j]) *
                  (static_cast<double>(whole.values[r * d + j]) - static_cast<double>(w.mean[j]));
        sums[i] += y[i] / static_cast<double>(images);
        square += y[i] * y[i];
      }
      for (std::size_t i = 0; i < to; ++i) {
        for (std::size_t j = 0; j < to; ++j) products[i * to + j] += y[i] * y[j] / static_cast<double>(images);
        EXPECT_NEAR(static_cast<double>(found.values[r * to + i]), y[i] / std::sqrt(square), 1e-5);
      }
    }
    for (std::size_t i = 0; i < to; ++i) {
      EXPECT_NEAR(sums[i], 0, 1e-5);
      for (std::size_t j = 0; j < to; ++j) EXPECT_NEAR(products[i * to + j], i == j ? 1 : 0, 1e-3) << i << " " << j;
    }
  }
  EXPECT_THROW(learn_whitening(world, table_of(world), 12), Error);
  values.assign(values.size(), 0.25F);
  try {
    learn_whitening(world, table_of(world), 3);
    ADD_FAILURE() << "constant features were taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::numerics);
  }
}

}  // namespace
}  // namespace seer::eval
