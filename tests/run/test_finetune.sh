#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# seer finetune: it learns, from what it may start, resumes to the bit, and each kind of bad input.
source "$(dirname "$0")/common.sh"
needs_kernels
seer synth -o train --classes 4 --images 96 --size 40 --seed 1 --split train >/dev/null
seer synth -o test --classes 4 --images 64 --size 40 --seed 2 --split test >/dev/null
seer synth -o more --classes 5 --images 40 --size 40 --seed 3 --split test >/dev/null
seer synth -o one --classes 1 --images 16 --size 40 --seed 3 --split train >/dev/null

write_config pre.toml pre 5
seer pretrain pre.toml >log.txt 2>&1 || { cat log.txt; fail "pre-training"; }

write_tune() {  # NAME UPDATES LINE...
  local name=$1 updates=$2; shift 2
  cat >"$name.toml" <<TOML
[model]
preset = "tiny"
[finetune]
test_resize = 32
test_crop = 32
$(printf '%s\n' "$@")
[[crops]]
count = 1
size = 32
scale = [0.5, 1.0]
[augment]
jitter_probability = 0.0
grey_probability = 0.0
blur_probability = 0.0
[data]
shards = "$scratch/train"
test_shards = "$scratch/test"
global_batch = 16
[optimizer]
kind = "sgd"
nesterov = true
weight_decay = 1e-4
[schedule]
warmup_updates = 0
lr_peak = 0.05
lr_final = 0.0
total_updates = $updates
[parallel]
bn_group_size = 4
device = "host"
[checkpoint]
every_updates = 4
[log]
run_dir = "$name"
every = 1
TOML
}
tune() { seer finetune "$1.toml" "${@:2}" >"$1.txt" 2>&1 || { cat "$1.txt"; fail "finetune $*"; }; }
result() { grep test_top1 "$1/metrics.jsonl" | tail -n 1 | sed -E 's/.*"test_top1":([0-9.]+).*/\1/'; }
above() { awk -v found="$1" -v low="$2" 'BEGIN {exit !(found > low)}' || fail "$3: top-1 $1 %, wanted above $2 %"; }

# It learns: chance is 25 %. From random weights, on two ranks, with a test on the way.
write_tune scratch 60 "test_every = 25"
ranks 2 finetune scratch.toml >scratch.txt 2>&1 || { cat scratch.txt; fail "training"; }
above "$(result scratch)" 45 "from random weights"
[ "$(grep -c test_top1 scratch/metrics.jsonl)" = 3 ] || fail "tests at 25, 50 and 60"
grep -qF '"test_images":64.0' scratch/metrics.jsonl || fail "not all test images were used"
grep -qF "train_top1" scratch/metrics.jsonl || fail "no figure of the training"

# From pre-trained weights, with two layers of the head, averaged weights, mixing and a part frozen; then from the result.
write_tune kept 6 'from = "pre"' "head_layers = 1" "ema = 0.9" "mixup = 0.2" "label_smoothing = 0.1" 'freeze = "res2"'
tune kept
seer inspect kept/checkpoints/update-00000006 >inspect.txt 2>&1 || fail "inspect"
write_tune again 2 'from = "scratch"' 'classifier = "keep"'
tune again
above "$(result again)" 30 "from a fine-tuned run"
seer export again out.safetensors >log.txt 2>&1 || { cat log.txt; fail "export"; }
grep -qF "model.fc = torch.nn.Linear(64, 4)" log.txt || { cat log.txt; fail "the classifier is not exported"; }
seer eval knn kept --train train --test test --resize 32 --crop 32 --k 5 --device host >log.txt 2>&1 ||
  { cat log.txt; fail "k-NN of a fine-tuned run"; }

# Killed and started again: the same bits as without. Its tests are there once each.
write_tune whole 10 "test_every = 5" "ema = 0.9" 'freeze = "stem"' "freeze_updates = 6" "mixup = 0.3"
tune whole
sed 's/run_dir = "whole"/run_dir = "killed"/' whole.toml >killed.toml
sed -i '1i [method]\nkind = "supervised"' killed.toml  # the same as seer finetune
SEER_PAUSE_AFTER=6 start killed 1
paused killed
kill -KILL "$(rank_pid killed 0)"
ends killed
[ "$rc" != 0 ] || fail "the killed run ended well"
rm -f killed/PAUSED
tune killed
same_tensors whole killed || fail "a killed run ends with other bits"
[ "$(grep -c test_top1 killed/metrics.jsonl)" = 2 ] || { cat killed/metrics.jsonl; fail "tests at 5 and 10"; }
[ "$(result whole)" = "$(result killed)" ] || fail "another result"

# With several BatchNorm groups, a test is that of the saved network: a start of the complete run has the same figures,
# on any number of ranks, and does not record them again. Tests on the way change no bit.
write_tune groups 30 "test_every = 7" "ema = 0.5"
sed -i 's/bn_group_size = 4/bn_group_size = 1/; s/^every_updates = 4/every_updates = 10/' groups.toml
figures() { grep -oE 'test after 30 updates: .*' "$1"; }
ranks 2 finetune groups.toml >groups.txt 2>&1 || { cat groups.txt; fail "two groups"; }
records=$(lines groups)
for n in 2 1; do
  ranks "$n" finetune groups.toml >"complete$n.txt" 2>&1 || { cat "complete$n.txt"; fail "a complete run on $n ranks"; }
  diff <(figures groups.txt) <(figures "complete$n.txt") || fail "another result of the same network on $n ranks"
done
[ "$(lines groups)" = "$records" ] || { cat groups/metrics.jsonl; fail "a test is recorded twice"; }
ranks 2 finetune groups.toml --set log.run_dir=untested --set data.test_shards= --set finetune.test_every=0 \
  >untested.txt 2>&1 || { cat untested.txt; fail "a run without tests"; }
same_tensors groups untested || fail "tests change the training"

# What [watch] ends is tested, too.
write_tune watched 60
tune watched --set watch.every=1 --set watch.images=32 --set watch.patience=2
[ "$(result watched)" != "" ] || fail "no test of a run that ended early"

# Averaged weights leave, come back, and go on with their classifier.
write_tune averaged 4 'ema = 0.5'
tune averaged
seer export averaged averaged.safetensors --all >log.txt 2>&1 || { cat log.txt; fail "export"; }
seer import averaged.safetensors averaged.h5 >log.txt 2>&1 || { cat log.txt; fail "import"; }
write_tune on 2 'from = "averaged.h5"' 'classifier = "keep"'
tune on
! grep -q 'classifier kept (' on.txt || { cat on.txt; fail "the names of the classes are lost"; }
seer import averaged.safetensors teacher.h5 --prefix teacher >log.txt 2>&1 || { cat log.txt; fail "import of the teacher"; }
grep -q 'teacher.h5: .*, trunk and classifier' log.txt || { cat log.txt; fail "what was imported"; }
expect 0 'classifier kept, momenta' seer finetune on.toml --set finetune.from=teacher.h5 --set log.run_dir=from-teacher
expect 0 'finetune.from = "' seer finetune on.toml --set finetune.from=scratch
grep -q 'has no effect: the run goes on from its checkpoint' out.txt || fail "another finetune.from is taken silently"

# A classifier stays with its classes: the same names in the same order.
mkdir flat
for i in {1..8}; do { cat "$SEER_TEST_DATA/images/rgb.png"; echo "$i"; } >"flat/$i.png"; done
printf '%d.png,cat\n' {1..4} >labels.csv
printf '%d.png,dog\n' {5..8} >>labels.csv
for order in cat,dog dog,cat; do
  echo "$order" | tr , '\n' >classes.txt
  expect 0 'classes    2' seer pack flat -o "${order/,/}" --labels labels.csv --classes classes.txt
done
write_tune two 2
two() { seer finetune two.toml --set data.shards="$scratch/$1" --set data.test_shards= --set data.global_batch=8 "${@:2}"; }
expect 0 'done: 2 updates' two catdog
expect 2 'learns other classes: class 0 is "cat" there and "dog" in data.shards' two dogcat
keep=(--set log.run_dir=three --set finetune.classifier=keep --set finetune.from)
expect 2 'two: its classifier is for other classes: class 0 is "cat" there and "dog"' two dogcat "${keep[@]}=two"
[ ! -e three ] || fail "a refused start leaves a run folder"
expect 0 'classifier kept, momenta' two catdog "${keep[@]}=two"
expect 0 'two.safetensors: ' seer export two two.safetensors
python3 - <<'PY'
import json, struct
data = open("two.safetensors", "rb").read()
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8 : 8 + n])
assert json.loads(header["__metadata__"].pop("classes")) == ["cat", "dog"], header["__metadata__"]
text = json.dumps(header).encode()
open("unnamed.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data[8 + n :])
PY
expect 0 'unnamed.h5: ' seer import unnamed.safetensors unnamed.h5
expect 0 'warning: finetune.from' two dogcat "${keep[@]}=unnamed.h5" --set log.run_dir=unnamed
grep -q 'classifier kept (for which classes is not known' out.txt || fail "no word about unknown classes"

# Another trunk is refused before anything else is looked at.
expect 2 '--set model.preset=tiny' seer finetune two.toml --set finetune.from=pre --set model.preset=400mf \
  --set log.run_dir=none --set data.shards=no-such
[ ! -e none ] || fail "a refused trunk leaves a run folder"

# [watch] judges the averaged weights, as tests and readers of the checkpoint do.
write_tune judged 4 'ema = 0.9'
tune judged --set watch.every=4 --set watch.images=32
seer eval quality judged --data train --images 32 --resize 32 --crop 32 --views 0 --device host --json >quality.json 2>log.txt ||
  { cat log.txt; fail "quality of a fine-tuned run"; }
python3 - <<'PY' || fail "[watch] has judged other weights"
import json
found = [json.loads(line) for line in open("judged/metrics.jsonl") if "watch_rankme" in line][-1]["watch_rankme"]
wanted = json.load(open("quality.json"))["rankme"]
assert abs(found - wanted) < 1e-5 * wanted, (found, wanted)
PY

# Few labels, and several classes per image on labels that are single.
write_tune few 4 'targets = "multi"'
sed -i 's/^global_batch/per_class = 6\nglobal_batch/' few.toml
tune few
grep -qF '"test_map":' few/metrics.jsonl || fail "no average precision"

write_tune bad 4
refused() { expect 2 "$1" seer finetune bad.toml --set log.run_dir=refused "${@:2}"; }
refused 'data.test_shards has 1 classes that data.shards lack' --set data.test_shards="$scratch/more"
refused 'all images are of one class' --set data.shards="$scratch/one" --set data.test_shards=
refused 'name 4 classes' --set finetune.classes=7
refused 'finetune.freeze = "res9" is not known' --set finetune.freeze=res9
refused 'method.kind = "byol"' --set method.kind=byol
refused 'has 2 layers, finetune.head_layers is 3' --set finetune.head_layers=3 --set finetune.from=pre
refused 'it has no classifier' --set finetune.from=pre --set finetune.classifier=keep
refused 'its classifier is for other classes: class' --set finetune.from=scratch --set finetune.classifier=keep \
  --set data.shards="$scratch/more" --set data.test_shards=
refused 'optimizer.nesterov' --set optimizer.kind=lars
expect 2 'fewer' ranks 2 finetune bad.toml --set log.run_dir=refused --set data.shards="$scratch/one" --set data.fraction=0.01 --set data.test_shards=
expect 3 'train is a folder, but neither a run folder nor a checkpoint' \
  seer finetune bad.toml --set log.run_dir=refused --set finetune.from="$scratch/train"
expect 3 'set finetune.ema and method.kind as they were' seer finetune scratch.toml --set finetune.ema=0.5 --allow-change finetune.ema
expect 2 'only its default' seer pretrain pre.toml --set finetune.ema=0.5
mkdir photos && cp "$SEER_TEST_DATA/images/rgb.png" photos/
seer pack photos -o bare --labels none >log.txt 2>&1 || { cat log.txt; fail "pack"; }
expect 2 'no labels' seer finetune bad.toml --set data.shards="$scratch/bare" --set log.run_dir=refused

# The table of few labels: one line for each kind of start, and the same again when it is started again.
for time in first again; do
  SEER=$SEER_EXECUTABLE MPIEXEC=$mpiexec bash "$(dirname "$(realpath "$SEER_TEST_DATA")")/../scripts/low_shot.sh" bad.toml \
    --from pre --per-class 4 --draws 2 --out table >"$time.txt" 2>&1 || { cat "$time.txt"; fail "the table"; }
done
[ "$(grep -cE '^4 +(pre-trained|random) +[0-9.]+ +[0-9.]+' first.txt)" = 2 ] || { cat first.txt; fail "two lines"; }
diff first.txt again.txt || fail "another table"
