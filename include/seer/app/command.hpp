// SPDX-License-Identifier: Apache-2.0
// How a command plugs into the program: one file per command in src/app, listed in src/app/commands.cpp.
#pragma once

#include <functional>

#include "seer/comm/communicator.hpp"

namespace CLI {
class App;
}

namespace seer::app {

/// Runs after parsing, on every rank, with Kokkos and MPI up. Returns the exit code; throws Error.
using Run = std::function<int(const comm::Communicator& world)>;

/// Adds all commands to the program, one of which must be given. The result runs the one that was. Expands a leading ~
/// in the values of options: a shell does that only at the start of a word. Refuses a $NAME, unless a file of that name
/// exists, because the program would create a folder literally named so. (--set follows its key's rules.)
Run add_commands(CLI::App& program);

/// Declares options on `command` (a CLI11 sub-command) and returns the function to run. Called before anything else
/// runs, so it must do no work. The returned closure keeps the variables alive that options write to (shared_ptr).
Run add_pack(CLI::App& command);
Run add_synth(CLI::App& command);
Run add_copies(CLI::App& command);
Run add_inspect(CLI::App& command);
Run add_pretrain(CLI::App& command);
Run add_finetune(CLI::App& command);
Run add_features(CLI::App& command);
Run add_import(CLI::App& command);
Run add_export(CLI::App& command);
Run add_plan(CLI::App& command);
/// Tasks of `eval` and `bench`: src/app/<command>_<task>.cpp.
Run add_eval_knn(CLI::App& command);
Run add_eval_linear(CLI::App& command);
Run add_eval_retrieval(CLI::App& command);
Run add_eval_logistic(CLI::App& command);
Run add_eval_svm(CLI::App& command);
Run add_eval_quality(CLI::App& command);
Run add_bench_conv(CLI::App& command);
Run add_bench_step(CLI::App& command);
Run add_bench_data(CLI::App& command);
Run add_bench_comm(CLI::App& command);
Run add_bench_checkpoint(CLI::App& command);
Run add_bench_probe(CLI::App& command);
Run add_bench_knn(CLI::App& command);

}  // namespace seer::app
