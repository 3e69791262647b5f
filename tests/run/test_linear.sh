#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Linear classifiers on frozen features, as a user trains them: from images and from tables, killed, and used wrongly.
source "$(dirname "$0")/common.sh"

expect 2 "eval linear needs weights" seer eval linear --train train
expect 2 "must be given together" seer eval linear --train-features a.h5
expect 2 'known: grid, vissl' seer eval linear --train-features a.h5 --test-features b.h5 --protocol dinov22
expect 2 "--rates" seer eval linear --train-features a.h5 --test-features b.h5 --rates 0.1,-1
expect 2 "--schedule steps needs --milestones" seer eval linear --train-features a.h5 --test-features b.h5 --schedule steps
expect 2 "not .json" seer eval linear --train-features a.h5 --test-features b.h5 --save-head head.json

needs_kernels
seer synth -o train --classes 3 --images 60 --size 48 --seed 1 --split train >/dev/null
seer synth -o test --classes 3 --images 30 --size 48 --seed 2 --split test >/dev/null
seer synth -o strange --classes 4 --images 12 --size 48 --seed 2 >/dev/null
write_config config.toml run 5
seer pretrain config.toml >log.txt 2>&1 || { cat log.txt; fail "the run"; }
sides="--resize 32 --crop 32 --device host"

# From images: all ranks make crops, and the figures are those of one rank.
probe="eval linear run --train train --test test --features trunk,res3:2x1 --rates 0.01,0.1 --global-batch 8 --updates 6 $sides"
for n in 1 2; do
  ranks $n $probe --json --save-head head.h5 >json.$n 2>log.txt || { cat log.txt; fail "on $n ranks"; }
done
python3 - <<'PY'
import json
a, b = (json.load(open(f"json.{n}")) for n in (1, 2))
assert a["task"] == "linear" and a["protocol"] == "grid" and a["selection"].startswith("best on held-out"), a
assert a["overridden"] == ["--rates", "--global-batch", "--updates"] and a["heads"] == 8 and a["held_images"] == 6, a
assert [row["feature"] for row in a["rows"]] == ["trunk", "res3:2x1"] and a["best"]["feature"] in ("trunk", "res3:2x1")
for x, y in zip(a["rows"] + [a["best"]], b["rows"] + [b["best"]]):
    assert 0 <= x["top1"] <= x["top5"] <= 100 and abs(x["top1"] - y["top1"]) < 3.4, (x, y)
PY
expect 0 "best on the test set (optimistic)" seer $probe --selection test --no-augmentation
expect 0 "images: shorter side 32 pixels, crop 32 (of test and held-out images)" seer $probe
expect 0 "2 draws: mean and deviation" seer $probe --no-augmentation --per-class 6 --draws 2
expect 2 "--global-batch 8 cannot be divided among 3 ranks" ranks 3 $probe
expect 2 "--whole: classifiers would be trained on random crops" seer eval linear run --train train --test test --whole 32
expect 3 "are of classes without any image in" seer eval linear run --train train --test strange $sides
expect 2 "--fraction" seer $probe --fraction 0
expect 2 "no image can be held back" seer $probe --per-class 1

# From tables, killed after a checkpoint: the same command goes on and gives the same bits.
for set in train test; do seer features run $set -o $set.h5 $sides >/dev/null; done
probe="eval linear --train-features train.h5 --test-features test.h5 --updates 3000 --global-batch 32"
seer $probe --save-head whole.h5 >whole.txt
"$SEER_EXECUTABLE" $probe --save-head parts.h5 --checkpoint probe.h5 --checkpoint-every 50 </dev/null >killed.txt 2>&1 &
until_true test -e probe.h5 || { cat killed.txt; fail "no checkpoint"; }
kill -KILL $! 2>/dev/null || fail "it ended before it was killed"
wait $! 2>/dev/null || true
[ ! -e parts.h5 ] || fail "the killed command has a result"
expect 0 "goes on after update" seer $probe --save-head parts.h5 --checkpoint probe.h5 --checkpoint-every 50
cmp whole.h5 parts.h5 || fail "the classifiers differ"
[ ! -e probe.h5 ] || fail "the checkpoint stays"
expect 2 "was not written by this command" seer $probe --save-head train.h5
expect 3 "cannot write" seer $probe --checkpoint train.h5/probe.h5
