// SPDX-License-Identifier: Apache-2.0
// seer eval logistic: logistic regression on features.
#include "seer/eval/logistic.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "eval_probe.hpp"
#include "seer/app/command.hpp"

namespace seer::app {
namespace {

struct Options {
  ProbeChoices probe;
  std::string protocol = "dinov2", selection = "held-out";
  std::vector<double> grid;
  double tolerance = 0, held_out = 0.1;
  std::int64_t iterations = 0;
  std::vector<std::string> overridden;  ///< options that replace values of the protocol
};

int run(const Options& o, const comm::Communicator& world) {
  eval::LogisticOptions options{eval::logistic_protocol(o.protocol), o.selection == "test", o.held_out};
  auto& protocol = options.protocol;
  if (!o.grid.empty()) protocol.grid = o.grid;
  if (o.tolerance > 0) protocol.solver.tolerance = o.tolerance;
  if (o.iterations > 0) protocol.solver.most_iterations = o.iterations;
  ProbeText text;
  text.task = "logistic";
  text.protocol =
      fmt::format("{}{}{}: logistic regression{}, {} {}, tolerance {:g}, at most {} iterations", o.protocol,
                  o.overridden.empty() ? "" : " but ", fmt::join(o.overridden, " "),
                  protocol.standardised ? " on standardised features" : "", protocol.c_per_row ? "lambda = n / C" : "C",
                  grid_text(protocol.grid), protocol.solver.tolerance, protocol.solver.most_iterations);
  text.selection = "none: one value";
  text.parameter = protocol.c_per_row ? "lambda" : "c";
  if (options.best_on_test && protocol.grid.size() > 1) text.selection = "best on the test set (optimistic)";
  return run_probe(world, o.probe, text, [&](eval::ExamplePair& pair) {
    return eval::logistic_probe(world, pair.train, pair.test, options, o.probe.sizes);
  });
}

}  // namespace

Run add_eval_logistic(CLI::App& command) {
  auto options = std::make_shared<Options>();
  add_probe_choices(command, options->probe);
  command
      .add_option("--protocol", options->protocol,
                  "dinov2: 45 C from 1e-6 to 1e5; vissl: standardised features, C = n / lambda; sklearn: C = 1")
      ->check(CLI::IsMember({"dinov2", "vissl", "sklearn"}));
  command.add_option("--c", options->grid, "Other values of C (vissl: of lambda)")
      ->delimiter(',')
      ->check(CLI::Range(1e-12, 1e12))
      ->default_str("");
  command
      .add_option("--selection", options->selection,
                  "Of C: held-out (training rows) or test (the best on the test set, as VISSL reports)")
      ->check(CLI::IsMember({"held-out", "test"}));
  command.add_option("--held-out", options->held_out, "Share of the training rows that C is chosen on")
      ->check(CLI::Range(0.001, 0.9));
  command.add_option("--tolerance", options->tolerance, "Length of the gradient at which a fit ends")
      ->check(CLI::PositiveNumber)
      ->default_str("the protocol's");
  command.add_option("--iterations", options->iterations, "Most iterations of a fit")
      ->check(CLI::Range(1, 1000000))
      ->default_str("the protocol's");
  return [options, &command](const comm::Communicator& world) {
    for (const char* name : {"--c", "--tolerance", "--iterations"})
      if (command.get_option(name)->count() > 0) options->overridden.emplace_back(name);
    return run(*options, world);
  };
}

}  // namespace seer::app
