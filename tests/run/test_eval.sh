#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Features and k-NN: tables that do not belong together, sets that overlap, and commands that do not exist.
source "$(dirname "$0")/common.sh"

# Unknown commands are errors that list the known ones.
expect 2 'unknown command "pretain", did you mean pretrain?; commands: pack' seer pretain x.toml
expect 2 'unknown command "frobnicate"; commands: pack synth' seer frobnicate
expect 2 'unknown task "linear" of seer eval; tasks: knn; see seer eval --help' seer eval linear
expect 2 'unknown task "stap" of seer bench, did you mean step?' ranks 2 bench stap x.toml
expect 2 'no task of seer eval is given; tasks: knn' seer eval
expect 2 'unknown option "--bogus" of seer bench; tasks: conv' seer bench --bogus

needs_kernels
seer synth -o train --classes 3 --images 30 --size 48 --seed 1 --split train >/dev/null
seer synth -o test --classes 3 --images 12 --size 48 --seed 2 --split test >/dev/null
write_config config.toml run 10
seer pretrain config.toml >log.txt 2>&1 || { cat log.txt; fail "the run"; }
old=run/checkpoints/update-00000005 new=run/checkpoints/update-00000010

features() {
  seer features "$1" "$2" -o "$3" --resize 32 --crop "${crop:-32}" --device host "${@:4}" >log.txt 2>&1 ||
    { cat log.txt; fail "features $*"; }
}
features $new train train.h5
grep -qF "of train/train-00000.h5 by $new" log.txt || { cat log.txt; fail "set and network are not named"; }
features $new test test.h5
features $old test old.h5
features $new test head.h5 --layer head
crop=40 features $new test large.h5
features $new test own.h5 --recalibrate-batchnorm 12
features $new test from.h5 --recalibrate-batchnorm 12 --recalibrate-from train
features $new train both.h5 --recalibrate-batchnorm 12

knn() { seer eval knn --train-features "$1" --test-features "$2" --k 5; }
expect 0 "$new (trunk)" knn train.h5 test.h5
grep -qF "training set: train.h5 (features of train/train-00000.h5), 30 images" out.txt || { cat out.txt; fail "the sets are not named"; }
grep -q warning out.txt && { cat out.txt; fail "a warning about tables that fit"; }
# Warnings leave the JSON alone.
seer eval knn --train-features test.h5 --test-features test.h5 --k 5 --json 2>warnings.txt | python3 -m json.tool >/dev/null ||
  fail "standard output is no JSON"
grep -q 'are the same 12 images' warnings.txt || { cat warnings.txt; fail "no warning of equal sets"; }
expect 2 "checksum of the weights" knn train.h5 old.h5
grep -qF "$new" out.txt && grep -qF "$old" out.txt || { cat out.txt; fail "the checkpoints are not named"; }
expect 2 "layer trunk against head" knn train.h5 head.h5
expect 2 "crop 32 against 40" knn train.h5 large.h5
expect 2 "images of the BatchNorm recalibration 0 against 12" knn train.h5 own.h5
expect 2 "data set of the BatchNorm recalibration" knn both.h5 own.h5
expect 0 "top-1" knn both.h5 from.h5
expect 0 "are the same 30 images" knn train.h5 train.h5
expect 3 "is being written by another process" flock held.h5.partial "$SEER_EXECUTABLE" features $new test -o held.h5 --device host

# Test sets whose images are all in the training set, partly, and not at all.
shards() { ranks 2 eval knn $new --train "$1" --test "$2" --k 5 --resize 32 --crop 32 --device host; }
expect 0 "training set train and test set train are the same 30 images" shards train train
expect 0 "30 of the 42 images of the test set" shards train "train/*.h5,test/*.h5"
expect 0 "test set: test, 12 images" shards train test
grep -q 'in the training set' out.txt && { cat out.txt; fail "images that are not in both sets"; }

# Features are computed with the normalisation of the run that made the weights, and the table records it.
seer pretrain config.toml --set log.run_dir=grey --set 'augment.mean=[0.1,0.2,0.3]' >log.txt 2>&1 || { cat log.txt; fail "grey"; }
features grey test grey.h5
expect 2 "normalisation's mean 0.485 0.456 0.406 against 0.1 0.2 0.3" knn train.h5 grey.h5

# Tables of older versions, and unfinished ones.
if python3 -c 'import h5py' 2>/dev/null; then
  python3 - <<'PY'
import h5py, shutil
for name, drop in (("old_train.h5", ("crop", "weights_xxh3")), ("half.h5", ("format",))):
    shutil.copy("train.h5", name)
    with h5py.File(name, "r+") as f:
        for attribute in drop: del f.attrs[attribute]
with h5py.File("train.h5") as f, h5py.File("test.h5") as g:
    assert f.attrs["update"] == 10 and f.attrs["resize"] == 32 and f.attrs["recalibration_images"] == 0
    assert len(f.attrs["data_xxh3"]) == 16 and f.attrs["data_xxh3"] != g.attrs["data_xxh3"]
    assert len(set(f["checksum"][:]) & set(g["checksum"][:])) == 0
PY
  expect 0 "lacks what must be compared: checksum of the weights, crop" knn old_train.h5 test.h5
  expect 3 "an unfinished features file" knn half.h5 test.h5
else
  echo "not run: older tables (needs h5py)"
fi

# Export and import keep the normalisation of the run.
seer pretrain config.toml --set log.run_dir=own --set schedule.total_updates=5 --set 'augment.mean=[0.1,0.2,0.3]' >log.txt 2>&1 ||
  { cat log.txt; fail "the run with another mean"; }
seer export own own.safetensors >/dev/null && seer import own.safetensors own.h5 >/dev/null
features own train own_run.h5
features own.h5 test own_weights.h5
expect 0 "top-1" knn own_run.h5 own_weights.h5
expect 0 '"mean": "0.1 0.2 0.3"' seer inspect own_weights.h5 --json
