// SPDX-License-Identifier: Apache-2.0
// seer eval svm: linear support vector machines on features.
#include "seer/eval/svm.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "eval_probe.hpp"
#include "seer/app/command.hpp"

namespace seer::app {
namespace {

struct Options {
  ProbeChoices probe;
  eval::SvmOptions svm;
  std::string selection = "cross-validated";
};

int run(const Options& o, const comm::Communicator& world) {
  auto svm = o.svm;
  svm.best_on_test = o.selection == "test";
  ProbeText text;
  text.task = "svm";
  text.protocol = fmt::format("vissl: squared hinge, rows of length one, positives weigh {:g}, C {}, tolerance {:g}",
                              svm.positive_weight, grid_text(svm.costs), svm.tolerance);
  text.selection = "none: one value";
  text.deviation = "of the population of draws (divided by their number), as VISSL";
  text.limit = "reached liblinear's limit of passes and were finished by Newton's method";
  if (svm.costs.size() > 1)
    text.selection = svm.best_on_test ? "one C, best on the test set by its mean over draws (VISSL's low-shot rule)"
                                      : fmt::format(
                                            "for each class by average precision in {}-fold cross-validation "
                                            "(fewer folds for a class with fewer images; C = 1 with one)",
                                            svm.folds);
  return run_probe(world, o.probe, text, [&](eval::ExamplePair& pair) {
    eval::normalise_rows(pair.train);
    eval::normalise_rows(pair.test);
    auto sizes = o.probe.sizes;
    sizes.population = true;  // as VISSL
    return eval::svm_probe(world, pair.train, pair.test, svm, sizes);
  });
}

}  // namespace

Run add_eval_svm(CLI::App& command) {
  auto options = std::make_shared<Options>();
  add_probe_choices(command, options->probe);
  command.add_option("--c", options->svm.costs, "Values of C to choose from")
      ->delimiter(',')
      ->check(CLI::Range(1e-12, 1e12));
  command.add_option("--folds", options->svm.folds, "Of the cross-validation")->check(CLI::Range(2, 100));
  command.add_option("--tolerance", options->svm.tolerance, "Of liblinear")->check(CLI::PositiveNumber);
  command.add_option("--positive-weight", options->svm.positive_weight, "Weight of the loss of a class's own images")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--selection", options->selection,
                  "Of C: cross-validated, or test (the best on the test set, as VISSL's low-shot figures)")
      ->check(CLI::IsMember({"cross-validated", "test"}));
  return [options](const comm::Communicator& world) { return run(*options, world); };
}

}  // namespace seer::app
