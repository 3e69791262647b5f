// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/linear.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <numeric>
#include <utility>

#include "linear_problem.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/metrics.hpp"

namespace seer::eval {
namespace {

/// Collective. The figures of these heads on rows that the ranks share, in the order of `heads`; of the `counted`
/// images (ascending). All rows pass all ranks, block by block; scores of heads that were not finite are wrong.
std::vector<LinearFigures> judged(const comm::Communicator& comm, const Problem& problem, const LabelledImages& set,
                                  const Images& counted, const ImageRows& rows, ProbeTrainer& trainer,
                                  std::span<const std::size_t> heads) {
  constexpr std::size_t kRows = 512, kScores = std::size_t{1} << 28;  // rows sent at a time; scores kept at a time
  const auto alone = comm.split(comm.rank());
  const auto classes = static_cast<std::size_t>(problem.count);
  const auto dimension = rows.images.empty() ? 0 : rows.values.size() / rows.images.size();
  const auto d = static_cast<std::size_t>(comm.all_reduce(static_cast<std::int64_t>(dimension), comm::Op::max));
  std::vector<double> flat(5 * heads.size(), 0.0);
  const std::size_t at_once =
      problem.several ? std::max<std::size_t>(1, kScores / (std::max<std::size_t>(1, counted.size()) * classes))
                      : heads.size();
  for (std::size_t begin = 0; begin < heads.size(); begin += at_once) {
    const auto some = heads.subspan(begin, std::min(at_once, heads.size() - begin));
    std::map<std::size_t, AccuracyCounter> counters;
    std::map<std::size_t, std::vector<float>> scores;
    std::vector<std::int8_t> truth;
    for (int owner = 0; owner < comm.size(); ++owner) {
      std::uint64_t count = rows.images.size();
      comm.broadcast(&count, sizeof count, owner);
      for (std::uint64_t first = 0; first < count; first += kRows) {
        const auto n = std::min<std::uint64_t>(kRows, count - first);
        std::vector<float> values(n * d);
        Images images(n);
        if (comm.rank() == owner) {
          std::copy_n(rows.values.begin() + static_cast<std::ptrdiff_t>(first * d), n * d, values.begin());
          std::copy_n(rows.images.begin() + static_cast<std::ptrdiff_t>(first), n, images.begin());
        }
        comm.broadcast(values.data(), values.size() * sizeof(float), owner);
        comm.broadcast(images.data(), n * sizeof(std::uint64_t), owner);
        std::size_t kept = 0;
        for (std::size_t i = 0; i < n; ++i) {
          if (!std::ranges::binary_search(counted, images[i])) continue;
          images[kept] = images[i];
          std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(i * d), d,
                      values.begin() + static_cast<std::ptrdiff_t>(kept++ * d));
        }
        if (kept == 0) continue;
        values.resize(kept * d);
        images.resize(kept);
        const auto of_block = truth_of(problem, set, images);
        truth.insert(truth.end(), of_block.several.begin(), of_block.several.end());
        trainer.scores(values, some, [&](std::size_t head, std::span<const float> of_head) {
          if (problem.several)
            scores[head].insert(scores[head].end(), of_head.begin(), of_head.end());
          else
            counters.try_emplace(head, problem.count).first->second.add(of_head, of_block.labels);
        });
      }
    }
    for (std::size_t i = 0; i < some.size(); ++i) {
      double* const figures = flat.data() + 5 * (begin + i);
      if (const auto found = counters.find(some[i]); found != counters.end()) {
        const auto accuracy = found->second.result(alone);
        std::ranges::copy(std::array{accuracy.top1, accuracy.top5, accuracy.mean_per_class}, figures);
      }
      const auto found = scores.find(some[i]);
      if (found == scores.end() || !std::ranges::all_of(found->second, [](float x) { return std::isfinite(x); }))
        continue;
      const auto precision = mean_average_precision(alone, found->second, truth, problem.count);
      std::ranges::copy(std::array{precision.all_points, precision.eleven_points}, figures + 3);
    }
  }
  comm.all_reduce(std::span(flat));  // each head's figures come from one rank
  std::vector<LinearFigures> out;
  for (std::size_t i = 0; i < flat.size(); i += 5)
    out.push_back({flat[i], flat[i + 1], flat[i + 2], flat[i + 3], flat[i + 4]});
  return out;
}

double choice_of(const Problem& problem, const LinearFigures& figures) {
  return problem.several ? figures.all_points : figures.top1;
}

/// Everything that decides what a training gives.
std::string identity_of(const Problem& problem, const LinearSource& source, const LinearTask& task, const Parts& parts,
                        std::int64_t updates) {
  const auto& p = task.protocol;
  Checksum sum;
  for (const auto* images : {&parts.fit, &parts.held}) sum.add(images->data(), images->size() * sizeof(std::uint64_t));
  for (const auto* targets : {&problem.train.targets, &problem.train.ignored})
    sum.add(targets->values.data(), targets->values.size() * sizeof(std::int32_t));
  std::string columns;
  for (const auto& of : source.columns()) columns += fmt::format("{}:{} ", of.feature, of.width);
  const auto& recipe = source.info().recipe;
  return fmt::format(
      "{} {} rates {} decays {} batchnorm {} batch {} updates {} {} {} {} {} {} {} {} seed {} images "
      "{:016x} classes {} {} weights {} {} {} {}",
      p.name, p.optimizer, fmt::join(p.rates, " "), fmt::join(p.decays, " "), fmt::join(p.batchnorm, " "), p.batch,
      updates, p.schedule, p.epochs, fmt::join(p.milestones, " "), p.warmup, p.init, p.init_deviation, p.momentum,
      task.seed, sum.value(), problem.count, columns, recipe.weights, recipe.resize, recipe.crop, source.train().name);
}

/// Trains all heads. Returns how many diverged.
std::size_t train(const comm::Communicator& comm, LinearSource& source, const Problem& problem, const LinearTask& task,
                  const Parts& parts, std::int64_t updates, const std::string& checkpoint, ProbeTrainer& trainer) {
  const auto identity = identity_of(problem, source, task, parts, updates);
  auto done = checkpoint.empty() ? 0 : load_probe(comm, checkpoint, identity, trainer);
  if (done > 0) log::info(fmt::format("linear: {} goes on after update {} of {}", checkpoint, done, updates));
  std::vector<double> losses;
  std::size_t diverged = 0;
  if (done < updates) source.begin(parts.fit, task.protocol.batch, done, task.seed);
  const Clock clock;
  Eta eta(static_cast<double>(updates - done));
  ImageRows batch;
  while (done < updates) {
    source.next(batch);
    losses = trainer.update(batch.values, truth_of(problem, problem.train, batch.images), done,
                            config::rate_factor(task.protocol, done, updates));
    ++done;
    eta.done(1);
    if (clock.seconds() > 10) log::progress(fmt::format("linear: update {}/{}{}", done, updates, time_left(eta)));
    if (!checkpoint.empty() && (done % task.checkpoint_every == 0 || done == updates))
      save_probe(comm, checkpoint, identity, done, trainer);
    if (task.after_update) task.after_update(done);
  }
  log::finish_progress();
  for (const auto loss : losses) diverged += std::isfinite(loss) ? 0 : 1;
  return static_cast<std::size_t>(comm.all_reduce(static_cast<std::int64_t>(diverged), comm::Op::sum));
}

/// The head among these with the best figure; the first of equals.
std::size_t best_of(const Problem& problem, std::span<const LinearFigures> figures, std::size_t begin,
                    std::size_t end) {
  std::size_t best = begin;
  for (std::size_t i = begin; i < end; ++i)
    if (choice_of(problem, figures[i]) > choice_of(problem, figures[best])) best = i;
  return best;
}

/// Sends the head to rank 0, which writes it.
void save_best(const comm::Communicator& comm, ProbeTrainer& trainer, std::size_t head, const LinearSource& source,
               const Problem& problem, const LinearTask& task, const LinearResult& result) {
  int owner = 0;
  LinearHead chosen;
  if (trainer.holds(head)) {
    chosen = trainer.head(head);
    owner = comm.rank();
  }
  owner = static_cast<int>(comm.all_reduce(std::int64_t{owner}, comm::Op::max));
  chosen.weight.resize(static_cast<std::size_t>(problem.count * result.head.width));
  chosen.bias.resize(static_cast<std::size_t>(problem.count));
  for (auto* values : {&chosen.weight, &chosen.bias})
    comm.broadcast(values->data(), values->size() * sizeof(float), owner);
  comm::agree(comm, "write the classifier", [&] {
    if (comm.is_root()) write_head(task.save_head, chosen, source, problem.classes, task, result);
  });
}

}  // namespace

LinearSummary summary_of(const LinearRow& row) {
  LinearSummary out;
  for (const auto figure : {&LinearFigures::top1, &LinearFigures::top5, &LinearFigures::mean_per_class,
                            &LinearFigures::all_points, &LinearFigures::eleven_points}) {
    std::vector<double> values;
    for (const auto& draw : row.draws) values.push_back(draw.figures.*figure);
    const auto spread = spread_of(values);
    out.mean.*figure = spread.mean;
    out.deviation.*figure = spread.deviation;
  }
  return out;
}

LinearReport evaluate_linear(const comm::Communicator& comm, LinearSource& source, const LinearTask& task) {
  Problem problem;
  comm::agree(comm, "labels", [&] { problem = problem_of(source, task); });
  const auto& p = task.protocol;
  const auto heads = probe_heads(p, source.columns());
  const bool holds = heads.size() > 1 && !task.select_on_test;
  LinearReport out;
  out.several = problem.several;
  out.heads = heads.size();
  out.classes = problem.count;
  out.selection = heads.size() == 1     ? "none: one head"
                  : task.select_on_test ? "best on the test set (optimistic)"
                                        : "best on held-out tenth of the training set";
  for (const auto& columns : source.columns()) out.rows.push_back({columns.feature, {}});
  out.best.feature = "best of all";
  std::vector<std::string> checkpoints;
  for (std::int64_t draw = 0; draw < task.draws; ++draw) {
    Parts parts;
    comm::agree(comm, "choosing images", [&] { parts = parts_of(problem, task, draw, holds, comm.size()); });
    out.fit_images = parts.fit.size();
    out.held_images = parts.held.size();
    const auto length = p.updates > 0 ? static_cast<double>(p.updates)
                                      : p.epochs * static_cast<double>(parts.fit.size()) / static_cast<double>(p.batch);
    const auto updates = out.updates =
        std::max({std::int64_t{1}, p.updates > 0 ? 0 : p.least_updates, std::int64_t{std::llround(length)}});
    ProbeTrainer trainer(p, heads, first_head(heads, comm.rank(), comm.size()),
                         first_head(heads, comm.rank() + 1, comm.size()), source.columns(), problem.count, task.seed);
    std::string checkpoint = task.checkpoint;
    if (!checkpoint.empty() && task.draws > 1) checkpoint += fmt::format(".draw-{}", draw);
    checkpoints.push_back(checkpoint);
    out.diverged = train(comm, source, problem, task, parts, updates, checkpoint, trainer);

    // The heads of each feature follow one another.
    std::vector<std::size_t> all(heads.size()), chosen;
    std::iota(all.begin(), all.end(), 0);
    std::vector<LinearFigures> of_all(heads.size());
    if (holds)
      of_all = judged(comm, problem, problem.train, parts.held, source.rows_of(parts.held), trainer, all);
    else if (heads.size() > 1)
      of_all = judged(comm, problem, problem.test, problem.test_images, source.test_rows(), trainer, all);
    const auto per_feature = heads.size() / source.columns().size();
    std::size_t best = 0;
    for (std::size_t f = 0; f < source.columns().size(); ++f) {
      chosen.push_back(best_of(problem, of_all, f * per_feature, (f + 1) * per_feature));
      if (choice_of(problem, of_all[chosen[f]]) > choice_of(problem, of_all[chosen[best]])) best = f;
    }
    const auto figures = judged(comm, problem, problem.test, problem.test_images, source.test_rows(), trainer, chosen);
    for (std::size_t f = 0; f < chosen.size(); ++f)
      out.rows[f].draws.push_back({heads[chosen[f]], choice_of(problem, of_all[chosen[f]]), figures[f]});
    out.best.draws.push_back(out.rows[best].draws.back());
    if (out.diverged == heads.size())
      throw Error(ExitCode::numerics, fmt::format("all {} heads diverged", heads.size()),
                  "use lower rates (--rates), or features of smaller values")
          .as_agreed();
    if (!task.save_head.empty() && draw + 1 == task.draws)
      save_best(comm, trainer, chosen[best], source, problem, task, out.best.draws.back());
  }
  const auto judged_here = std::ranges::count_if(source.test_rows().images, [&](std::uint64_t image) {
    return std::ranges::binary_search(problem.test_images, image);
  });
  out.test_images = static_cast<std::uint64_t>(comm.all_reduce(std::int64_t{judged_here}, comm::Op::sum));
  for (const auto& path : checkpoints) {
    if (!comm.is_root() || path.empty()) continue;
    std::remove(path.c_str());
    std::remove((path + ".partial").c_str());
  }
  return out;
}

}  // namespace seer::eval
