// SPDX-License-Identifier: Apache-2.0
// How a command plugs into the program: one file a command in src/app, listed in src/app/main.cpp.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace CLI {
class App;
}

namespace seer::app {

/// Runs after parsing, on every rank, with Kokkos and MPI up. Returns the exit code; throws Error.
using Run = std::function<int(const comm::Communicator& world)>;

/// Declares options on `command` (a CLI11 sub-command) and returns what to run. Called before anything else runs, so it
/// must do no work. Variables that options write to are kept alive by the returned closure (shared_ptr).
Run add_pack(CLI::App& command);
Run add_synth(CLI::App& command);
Run add_inspect(CLI::App& command);
Run add_pretrain(CLI::App& command);
Run add_eval(CLI::App& command);
Run add_features(CLI::App& command);
Run add_import(CLI::App& command);
Run add_export(CLI::App& command);
Run add_plan(CLI::App& command);
Run add_bench(CLI::App& command);

/// Values of options that begin with ~ are put in full: a shell does that only where they are words of their own. $NAME
/// in one is refused, for it would make a folder of that name. (--set has the rules of its key.)
void expand_homes(CLI::App& command);

/// `bench` tasks, one file each (src/app/bench_<task>.cpp), declared by add_bench.
Run add_bench_conv(CLI::App& command);
Run add_bench_step(CLI::App& command);
Run add_bench_data(CLI::App& command);
Run add_bench_comm(CLI::App& command);
Run add_bench_checkpoint(CLI::App& command);

}  // namespace seer::app
