// SPDX-License-Identifier: Apache-2.0
// All commands, and the tasks of `eval` and `bench`, with their examples.
#pragma GCC diagnostic ignored "-Wnull-dereference"  // false alarm of g++ 12 where CLI11 moves a std::function
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/base/names.hpp"

namespace seer::app {
namespace {

struct Command {
  const char* name;
  const char* summary;
  Run (*add)(CLI::App&);
  const char* examples;
};

/// One of the commands must be given. The result runs the one that was.
Run add(CLI::App& to, std::span<const Command> commands) {
  to.require_subcommand(1);
  std::vector<std::pair<const CLI::App*, Run>> added;
  for (const auto& command : commands) {
    auto* sub = to.add_subcommand(command.name, command.summary);
    sub->footer(command.examples);
    added.emplace_back(sub, command.add(*sub));
  }
  return [added](const comm::Communicator& world) {
    for (const auto& [sub, run] : added)
      if (sub->parsed()) return run(world);
    throw Error(ExitCode::internal, "no command was given");
  };
}

constexpr Command kEvalTasks[] = {
    {"knn", "Weighted k-nearest-neighbour classification of labelled images", add_eval_knn,
     "  mpirun -n 2 seer eval knn runs/demo/run --train shards/train --test shards/test --baselines\n"
     "  seer eval knn weights.h5 --train cifar/train --test cifar/test --resize 32 --crop 32 --k 20\n"
     "  seer eval knn --train-features train.h5 --test-features test.h5 --protocol dinov3 --per-class-table"},
    {"linear", "Linear classifiers on frozen features: a whole grid at once", add_eval_linear,
     "  seer eval linear runs/demo/run --train shards/train --test shards/test --features trunk,res5:2x1,res4\n"
     "  mpirun -n 2 seer eval linear --train-features train.h5 --test-features test.h5 --protocol dinov2 --json\n"
     "  seer eval linear weights.h5 --train shards/train --test shards/test --per-class 10 --draws 5 "
     "--no-augmentation\n"
     "  seer eval linear --logistic --help"},
    {"retrieval", "Ranking of a database for each query: mean average precision", add_eval_retrieval,
     "  mpirun -n 2 seer eval retrieval runs/demo/run --database 'copies/copies*.h5,others' --queries "
     "'copies/originals*.h5' "
     "\\\n      --features res5:rmac3,res5:gem3 --whiten shards/train --whiten-dims 256\n"
     "  seer eval retrieval weights.h5 --database oxford --queries oxford_queries --query-file roxford5k.json \\\n"
     "      --whole 1024 --features res5:gem4 --whiten paris\n"},
    {"logistic", "Logistic regression on features, C chosen from a grid", add_eval_logistic,
     "  mpirun -n 2 seer eval logistic runs/demo/run --train shards/train --test shards/test\n"
     "  seer eval logistic --train-features train.h5 --test-features test.h5 --per-class 1,2,4,8 --draws 5"},
    {"svm", "Linear support vector machines on features, VOC07's protocol", add_eval_svm,
     "  mpirun -n 2 seer eval svm weights.h5 --train voc/trainval --test voc/test --squash\n"
     "  seer eval svm --train-features train.h5 --test-features test.h5 --per-class 1,2,4,8,16,32,64,96 --draws 5"},
    {"quality", "Figures without labels: RankMe, LiDAR, alpha-ReQ, uniformity, prototypes", add_eval_quality,
     "  mpirun -n 2 seer eval quality runs/demo/run --data shards/train --images 5000\n"
     "  seer eval quality runs/demo/run --data shards/train --features trunk,head --json\n"
     "  seer eval quality --features-file features.h5"},
};

constexpr Command kBenchTasks[] = {
    {"conv", "Convolutions of a model, one by one: forward and both backward passes", add_bench_conv,
     "Examples:\n  seer bench conv\n  OMP_NUM_THREADS=2 seer bench conv --json\n"},
    {"step", "Whole training steps on made-up crops, by phase", add_bench_step,
     "  mpirun -n 2 seer bench step inputs/bench_400mf.toml --updates 10"},
    {"data", "Reading, decoding and augmenting, without a model", add_bench_data,
     "Examples:\n  seer bench data --set data.shards=photos --set data.global_batch=64 --set data.reader_threads=1\n"
     "  mpirun -n 2 seer bench data run.toml --json\n"},
    {"comm", "Collectives over all ranks, beside memcpy", add_bench_comm,
     "Examples:\n  mpirun -n 4 seer bench comm\n  mpirun -n 4 seer bench comm --max-bytes 1048576 --json\n"},
    {"checkpoint", "Writing and reading checkpoints", add_bench_checkpoint,
     "Examples:\n  seer bench checkpoint\n  mpirun -n 2 seer bench checkpoint --json\n"},
    {"probe", "A grid of linear classifiers beside the forward passes that make its features", add_bench_probe,
     "Examples:\n  seer bench probe --set model.preset=400mf\n"},
    {"knn", "The search for nearest neighbours: time and memory", add_bench_knn,
     "  mpirun -n 4 seer bench knn --train 1000000 --test 2000\n"},
};

constexpr Command kCommands[] = {
    {"pack", "Folders, archives or lists of images -> HDF5 shards; all ranks share the work", add_pack,
     "Examples:\n  mpirun -n 4 seer pack photos/ -o shards\n"
     "  seer pack photos.tar.gz -o shards/train --labels folder --split train\n"},
    {"synth", "Procedural labelled images -> HDF5 shards (the embedded default data)", add_synth,
     "Examples:\n  seer synth -o shards/train --classes 10 --images 5000 --size 96 --seed 1\n"},
    {"copies", "Changed copies of images (crops, JPEG, strong changes) -> HDF5 shards, to test retrieval", add_copies,
     "Examples:\n  seer copies shards/test -o copies --images 200\n"},
    {"inspect", "What a shard, checkpoint or weights file holds", add_inspect,
     "Examples:\n  seer inspect shards/train-00000.h5\n"
     "  seer inspect runs/demo/run/checkpoints/update-00000600 --json\n"},
    {"pretrain", "Pre-training without labels; starts, or resumes by itself", add_pretrain,
     "Starts or goes on by itself: the newest complete checkpoint of log.run_dir is looked for first.\n"
     "  mpirun -n 2 seer pretrain inputs/demo.toml\n"
     "  mpirun -n 2 seer pretrain inputs/demo.toml --set schedule.total_updates=100 --set log.run_dir=runs/try\n"
     "Exit code 75: stopped by a signal (SIGTERM, SIGUSR1, SIGHUP, ...), log.walltime or a file STOP in the run\n"
     "folder, with a checkpoint written; start it again."},
    {"finetune", "Training with labels from pre-trained or random weights; starts, or resumes by itself", add_finetune,
     "As pretrain with method.kind = \"supervised\": the section [finetune], data.shards and data.test_shards.\n"
     "  mpirun -n 2 seer finetune inputs/finetune_seer.toml --set finetune.from=runs/demo/run\n"
     "  seer finetune inputs/finetune_seer.toml --set finetune.from=weights.h5 --set data.fraction=0.1\n"
     "The last line of metrics.jsonl with test_top1 is the result."},
    {"eval", "How good features are: knn, linear, logistic, svm, retrieval, quality",
     [](CLI::App& command) { return add(command, kEvalTasks); },
     "Examples:\n"
     "  seer eval knn runs/demo/run/checkpoints/update-00000600 --train shards/train --test 'shards/test/*.h5'\n"},
    {"features", "Checkpoint or weights + shards -> HDF5 table of features", add_features,
     "  mpirun -n 4 seer features weights.h5 shards/train -o features.h5\n"
     "  seer features runs/demo/run 'shards/*.h5' -o f.h5 --layer head --recalibrate-batchnorm 2000\n"
     "  seer features runs/demo/run shards/test -o t.h5 --recalibrate-batchnorm 2000 --recalibrate-from shards/train\n"
     "Rows are in the order of the data set. Images of other sizes than 224 need --resize and --crop: for 32-pixel\n"
     "images trained on whole, --resize 32 --crop 32."},
    {"import", "safetensors (names of torchvision, timm, transformers, VISSL ...) -> weights file", add_import,
     "Examples:\n  seer import regnet_y_400mf.safetensors weights.h5 --preset 400mf\n"},
    {"export", "Checkpoint or weights -> safetensors", add_export,
     "Examples:\n  seer export runs/demo/run/checkpoints/update-00000600 trunk.safetensors --names torchvision\n"},
    {"plan", "Memory and time of a job on a machine, before any node is booked", add_plan,
     "Examples:\n  seer plan inputs/seer_256gf.toml --machine inputs/machines/dgx_h100.toml --ranks 64\n"
     "  mpirun -n 2 seer plan --calibrate mine.toml\n"
     "  seer plan inputs/bench_8gf.toml --machine mine.toml --ranks 2 --set parallel.recompute=auto\n"},
    {"bench", "Speed of the parts: conv, step, data, comm, checkpoint, probe, knn",
     [](CLI::App& command) { return add(command, kBenchTasks); },
     "Examples:\n  seer bench conv --json\n"
     "  mpirun -n 4 seer bench comm\n"},
};

void expand_homes(CLI::App& command) {
  const auto expand = [](const std::string& value) {
    std::string whole;  // shards may be a comma-separated list
    for (std::size_t begin = 0; begin <= value.size();) {
      const auto end = std::min(value.find(',', begin), value.size());
      const auto part = expand_home(value.substr(begin, end - begin));
      if (!part) throw CLI::ValidationError("no such user: " + value);
      whole += *part + (end < value.size() ? "," : "");
      begin = end + 1;
    }
    if (names_variable(value) && !std::filesystem::exists(value))
      throw CLI::ValidationError("found \"" + value + "\": seer does not replace variables; let the shell do it");
    return whole;
  };
  for (auto* option : command.get_options())
    if (option->get_items_expected_max() > 0 && option->get_lnames() != std::vector<std::string>{"set"})
      option->transform(expand, "");
  for (auto* inner : command.get_subcommands({})) expand_homes(*inner);
}

}  // namespace

Run add_commands(CLI::App& program) {
  program.option_defaults()->always_capture_default();  // the help shows the defaults of options
  auto run = add(program, kCommands);
  expand_homes(program);
  return run;
}

}  // namespace seer::app
