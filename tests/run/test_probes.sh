#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# seer eval logistic and seer eval svm: tables and figures on any number of ranks, and sets that cannot be learnt from.
source "$(dirname "$0")/common.sh"
needs_kernels
seer synth -o train --classes 3 --images 60 --size 32 --seed 1 --split train >/dev/null
seer synth -o test --classes 3 --images 30 --size 32 --seed 2 --split test >/dev/null
seer synth -o four --classes 4 --images 40 --size 32 --seed 3 --split test >/dev/null
seer synth -o one --classes 1 --images 20 --size 32 --seed 4 --split train >/dev/null
write_config config.toml run 5
seer pretrain config.toml >log.txt 2>&1 || { cat log.txt; fail "the run"; }
for set in train test four one; do
  seer features run "$set" -o "$set.h5" --resize 32 --crop 32 --device host >log.txt 2>&1 || { cat log.txt; fail "$set"; }
done

files() { local task=$1; shift; eval_on 1 "$task" --train-features train.h5 --test-features test.h5 "$@"; }
eval_on() { local n=$1; shift; ranks "$n" eval "$@"; }
expect 0 "selection: best on 10 % of the training rows, held out, then fitted on all" files logistic --iterations 50
expect 0 "protocol: vissl: logistic regression on standardised features, lambda = n / C 1 to 0.001" \
  files logistic --protocol vissl --selection test
expect 0 "selection: for each class by average precision in 3-fold cross-validation" files svm --c 0.1,1
expect 0 "+-: standard deviation of the population of draws" files svm --c 1 --per-class 1,4 --draws 2
expect 0 "selection: 1: none, as a class has one training image: the C nearest to 1; 4: best in 4-fold cross-validation" \
  files logistic --per-class 1,4 --draws 2 --c 0.1,1,10
grep -qF "+-: standard deviation of the sample of draws" "$scratch/out.txt" || fail "the deviation has no name"
expect 0 "images: shorter side 32 pixels, crop 32" files svm --c 1
expect 0 "protocol: dinov2 but --c: logistic regression" files logistic --c 1

# The same figures from shards, with any number of ranks.
figures() { python3 -c 'import json, sys; print([round(r[k], 4) for r in json.load(sys.stdin)["rows"] for k in sys.argv[1:]])' "$@"; }
shards="run --train train --test test --resize 32 --crop 32 --device host --json"
one=$(files logistic --protocol sklearn --json --per-class 5 --draws 2 | figures top1 mean_per_class top1_deviation)
several=$(eval_on 2 logistic $shards --protocol sklearn --per-class 5 --draws 2 | figures top1 mean_per_class top1_deviation)
[ "$one" = "$several" ] || fail "logistic: $one from files, $several from shards on two ranks"
one=$(files svm --c 0.1,1 --json | figures top1 map map_11_points choice c)
several=$(eval_on 4 svm $shards --c 0.1,1 | figures top1 map map_11_points choice c)
[ "$one" = "$several" ] || fail "svm: $one from files, $several from shards on four ranks"
expect 0 "trunk" eval_on 2 svm run --train train --test test --crop 32 --squash --device host --c 1

# Other names of the same tasks.
for task in logistic svm; do
  tables=(--train-features train.h5 --test-features test.h5 --json --c 1)
  seer eval $task "${tables[@]}" >own.json && seer eval linear "${tables[@]}" --$task >other.json && cmp own.json other.json || fail "--$task"
  expect 0 "Another name of \`seer eval $task\`" seer eval linear --help
  expect 0 "seer eval $task [OPTIONS]" seer eval linear --$task --help
done
expect 2 "seer eval logistic --help" seer eval linear --logistic --svm

# Decision values as a file.
expect 0 "3 classes" eval_on 2 logistic --train-features train.h5 --test-features test.h5 --protocol sklearn --scores scores.h5
seer inspect scores.h5 | grep -q features || fail "the scores are not a features file"

# What cannot be learnt from.
expect 3 "all 20 images are of one class" eval_on 2 logistic --train-features one.h5 --test-features one.h5
expect 3 "are of classes without any image in" eval_on 2 svm --train-features train.h5 --test-features four.h5
expect 2 "--c: Value 1e300, wanted FLOAT in" files svm --c 1e300
expect 2 "wanted 500 of each class" files logistic --per-class 500
expect 2 "--draws without --per-class or --fraction" files svm --draws 3
expect 2 "needs weights, --train and --test shards" seer eval svm run --train train
expect 2 "3 training images on 4 ranks" eval_on 4 svm --train-features train.h5 --test-features test.h5 --per-class 1 --c 1
if python3 -c 'import h5py' 2>/dev/null; then
  python3 - <<'PY'
import h5py, shutil
for name, value in (("constant.h5", 1.0), ("nan.h5", float("nan"))):
    shutil.copy("train.h5", name)
    with h5py.File(name, "r+") as f: f["features"][:] = value
PY
  expect 4 "the features of all 60 images are equal" eval_on 2 logistic --train-features constant.h5 --test-features test.h5
  expect 4 "are not finite" eval_on 2 svm --train-features nan.h5 --test-features test.h5
else
  echo "not run: constant and not finite features (needs h5py)"
fi
