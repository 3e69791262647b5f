#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Continuing from weights on other images: frozen trunk, ramp, prototypes, momenta, resume in each phase, and exports.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 48 --size 32 --seed 1 >/dev/null
seer synth -o own --classes 4 --images 48 --size 32 --seed 5 >/dev/null
short() { write_config "$@" && sed -i 's/^warmup_updates = .*/warmup_updates = 0/' "$1"; }
short source.toml source 3
expect 0 'done: 3 updates' seer pretrain source.toml
config() {  # NAME UPDATES: continues from `source` on the own images
  short "$1.toml" "$1" "$2"
  sed -i -e "s|/train\"|/own\"|" -e 's|^preset = "tiny"|&\ninit_from = "source"|' "$1.toml"
}

expect 2 'source: its trunk is not that of [model]: model.preset is "tiny", here "400mf"' \
  seer pretrain source.toml --set log.run_dir=none --set model.init_from=source --set model.preset=400mf --set data.shards=no-such
grep -qF -- '--set model.preset=tiny' out.txt && [ ! -e none ] || { cat out.txt; fail "the remedy, or a run folder"; }
expect 2 'where model.init_from = ""' seer pretrain source.toml --set continue.ramp_updates=3

# Killed in the frozen phase and in the ramp: the same bits as without.
config whole 7
config parts 7
slowly=(--set continue.freeze_trunk_updates=3 --set continue.ramp_updates=3 --set continue.prototypes=kmeans)
expect 0 '20 prototypes by k-means of own embeddings' ranks 2 pretrain whole.toml "${slowly[@]}"
grep -q 'trunk kept, head kept, prototypes new (continue.prototypes = "kmeans"), momenta of' out.txt || fail "what was taken over"
for update in 2 4; do
  SEER_PAUSE_AFTER=$update start parts 2 "${slowly[@]}" --set checkpoint.every_updates=1
  paused parts
  kill -KILL $(pids parts)
  go_on parts
  ends parts
done
expect 0 'resumed from' ranks 2 pretrain parts.toml "${slowly[@]}" --set checkpoint.every_updates=1
same_tensors whole parts || fail "a resumed run has other tensors"

# The same losses on 1, 2 and 4 ranks.
for n in 1 4; do
  config "on$n" 7
  ranks "$n" pretrain "on$n.toml" "${slowly[@]}" >log.txt 2>&1 || { cat log.txt; fail "$n ranks"; }
  paste <(losses whole) <(losses "on$n") | awk '{ if (($2 - $4) ^ 2 > 1e-6) exit 1 }' || fail "other losses on $n ranks"
done

# What does not fit starts anew and is said.
config new 1
new() { seer pretrain new.toml --resume never "$@"; }
expect 0 'prototypes kept, momenta of' new
expect 0 'prototypes new (continue.prototypes = "random")' new --set continue.prototypes=random
expect 0 'prototypes new (prototypes.weight has shape [20, 32], wanted [30, 32])' new --set head.prototypes=30
expect 0 'head new (head.0.weight has shape [64, 64], wanted [48, 64]), prototypes new' new --set 'head.dims=[64,48,32]'
expect 0 'momenta new (they are of optimizer.kind = "lars")' new --set optimizer.kind=sgd
expect 0 'momenta new (continue.momenta = false)' new --set continue.momenta=false
expect 2 'head.prototypes = 60 with continue.prototypes = "kmeans": more than the 48 images' \
  new --set continue.prototypes=kmeans --set head.prototypes=60
! grep -q 'embeddings of' out.txt || fail "refused only after the features"
expect 2 'schedule.warmup_updates = 99' new --set continue.prototypes=kmeans --set schedule.warmup_updates=99
! grep -q 'embeddings of' out.txt || fail "the schedule is refused only after the features"
expect 2 'where method.kind = "simclr"' new --set method.kind=simclr --set continue.prototypes=kmeans

# All that a run has goes out and comes back.
expect 0 'momenta, 0 of the teacher' seer export source all.safetensors --all
expect 0 'all.h5: ' seer import all.safetensors all.h5
expect 0 'prototypes kept, momenta of' new --set model.init_from=all.h5
expect 0 'plain.safetensors: ' seer export source plain.safetensors
expect 0 'source.h5: ' seer import plain.safetensors source.h5
expect 0 'momenta new (there are none)' new --set model.init_from=source.h5
expect 2 'has no teacher' seer export source teacher.safetensors --teacher
sed -e '/^\[swav\]/,/^\[\[crops/{/^\[\[crops/!d}' -e '/^prototypes/d' source.toml >byol.toml
byol=(--set method.kind=byol --set log.run_dir=byol --set 'crops=[{count=2,size=16}]')
expect 0 'done: 3 updates' seer pretrain byol.toml "${byol[@]}"
expect 0 "tensors of the method's own heads" seer export byol byol.safetensors --all
expect 0 'byol.h5: ' seer import byol.safetensors byol.h5
byol+=(--set log.run_dir=more --set model.init_from=byol.h5 --set schedule.total_updates=1)
expect 0 'head kept, predictor kept, momenta of' seer pretrain byol.toml "${byol[@]}"
expect 0 'teacher.h5: ' seer import byol.safetensors teacher.h5 --prefix teacher
echo "continue: all as expected"
