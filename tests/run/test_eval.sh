#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Features and k-NN: tables that do not belong together, sets that overlap, and commands that do not exist.
source "$(dirname "$0")/common.sh"

expect 2 "the name of the output is empty" seer features run train -o ""
# Unknown commands are errors that list the known ones.
expect 2 'unknown command "pretain", did you mean pretrain?; commands: pack' seer pretain x.toml
expect 2 'unknown command "frobnicate"; commands: pack synth' seer frobnicate
expect 2 'unknown task "frobnicate" of seer eval; tasks: knn' seer eval frobnicate
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
# What cannot be learnt from is refused as by the other tasks.
seer synth -o one --classes 1 --images 12 --size 48 --seed 2 --split test >/dev/null
seer synth -o four --classes 4 --images 12 --size 48 --seed 2 --split test >/dev/null
features $new one one.h5
expect 3 "one.h5 (features of one/test-00000.h5): all 12 images are of one class" knn one.h5 one.h5
expect 3 "3 images of four/test-00000.h5 are of classes without any image in train/train-00000.h5: " \
  ranks 2 eval knn $new --train train --test four --resize 32 --crop 32 --device host
# Warnings leave the JSON alone.
seer eval knn --train-features test.h5 --test-features test.h5 --k 5 --json 2>warnings.txt | python3 -m json.tool >/dev/null ||
  fail "standard output is no JSON"
grep -q 'are the same 12 images' warnings.txt || { cat warnings.txt; fail "no warning of equal sets"; }
# Protocols, grids, sets against themselves, few images of each class, and tables of classes.
tables() { seer eval knn --train-features train.h5 --test-features "$@"; }
expect 0 "protocol vissl: features trunk, rows as they are" tables test.h5 --protocol vissl
expect 0 "protocol custom: features trunk, rows of length one" tables test.h5 --k 3,5 --temperature 0.07,0.2
[ "$(grep -c "^$new" out.txt)" = 4 ] || { cat out.txt; fail "not one row for each pair of k and temperature"; }
grep -q '^best on the test set: ' out.txt || fail "the selection is not named"
expect 0 "best on the training set, leaving one out: " tables test.h5 --k 1,5 --select train
expect 0 "; images: shorter side 32 pixels, crop 32" tables test.h5 --k 1
for clash in "--resize 48" "--crop 48" "--squash"; do
  expect 2 "excludes" seer eval knn $new --train train --test test --whole 64 $clash
done
expect 2 '--k excludes --protocol' tables test.h5 --k 3 --protocol dino
expect 2 "--skip-first: 0 of the 12 images" tables test.h5 --skip-first
expect 0 "nearest neighbour does not vote" tables train.h5 --skip-first
expect 2 "images that are not drawn would lose a true neighbour" tables train.h5 --skip-first --per-class 2
expect 0 "an image does not vote for itself" ranks 2 eval knn --train-features train.h5 --test-features train.h5 --skip-same --k 1
grep -q 'are the same' out.txt && { cat out.txt; fail "a warning of equal sets although they are left out"; }
expect 0 "2 of each class of the training images, seeds 4 to 6" tables test.h5 --per-class 2 --draws 3 --subset-seed 4
expect 0 "most frequent errors" tables test.h5 --k 1 --confusion --per-class-table
expect 2 "choose fewer images of each class" tables test.h5 --per-class 20
expect 2 "all draws would be the same" tables test.h5 --draws 3
for n in 1 2; do
  ranks $n eval knn --train-features train.h5 --test-features test.h5 --fraction 0.5 --draws 2 --k 1,5 --temperature 0.07,1 \
    --confusion --per-class-table --json 2>/dev/null >few$n.json
done
cmp few1.json few2.json || fail "other figures on two ranks"
python3 - <<'PY'
import json
found = json.load(open("few1.json"))
assert found["task"] == "knn" and found["protocol"] == "custom" and found["selection"] == "best on the test set", found
assert [(r["k"], r["temperature"]) for r in found["rows"]] == [(1, 0.07), (1, 1.0), (5, 0.07), (5, 1.0)], found["rows"]
best = found["best"]
assert best in found["rows"] and best["top1"] == max(r["top1"] for r in found["rows"]) and best["feature"] == "trunk"
cells = found["confusion"]["cells"]
right = sum(n for truth, predicted, n in cells if truth == predicted)
assert sum(n for _, _, n in cells) == 24 and abs(100 * right / 24 - best["top1"]) < 1e-9 and best["train_images"] == 15
assert len(found["per_class"]) == 3 and abs(sum(c["top1"] for c in found["per_class"]) / 3 - best["mean_per_class"]) < 1e-9
PY
expect 2 "checksum of the weights" knn train.h5 old.h5
grep -qF "$new" out.txt && grep -qF "$old" out.txt || { cat out.txt; fail "the checkpoints are not named"; }
expect 2 "layer trunk against head" knn train.h5 head.h5
expect 2 "crop 32 against 40" knn train.h5 large.h5
expect 2 "images of the BatchNorm recalibration 0 against 12" knn train.h5 own.h5
expect 2 "data set of the BatchNorm recalibration" knn both.h5 own.h5
expect 0 "top-1" knn both.h5 from.h5
if python3 -c 'import h5py' 2>/dev/null; then  # the test set alone differs
  cp train.h5 constant.h5
  python3 -c 'import h5py; h5py.File("constant.h5", "r+")["features"][:] = 1.0'
  expect 4 "the features of all images are equal" knn constant.h5 test.h5
  expect 4 "constant.h5 (trunk): the features of all images are equal" \
    seer eval quality --features-file train.h5 --views-file constant.h5 --views 2
else
  echo "not run: constant features (needs h5py)"
fi
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
