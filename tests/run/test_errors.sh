#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every wrong input gives one clear message, from one rank, and the right exit code.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 40 --size 32 --seed 1 >/dev/null
write_config good.toml good 6
with() { sed "$1" good.toml >"$2"; }

with 's/^epsilon = .*/epsilom = 0.03/' unknown.toml
expect 2 'did you mean "epsilon"' ranks 2 pretrain unknown.toml
with 's/^global_batch = .*/global_batch = "many"/' type.toml
expect 2 'data.global_batch' ranks 2 pretrain type.toml
with 's/^epsilon = .*/epsilon = -1/' range.toml
expect 2 'swav.epsilon' ranks 2 pretrain range.toml
expect 2 'optimizer.kind' ranks 2 pretrain good.toml --set optimizer.kind=adam
expect 2 'no-such.toml' ranks 2 pretrain no-such.toml
expect 2 '64 features' ranks 2 pretrain good.toml --set 'head.dims=[63,32]'
expect 2 'ranks' ranks 3 pretrain good.toml
expect 2 'bn_group_size' ranks 4 pretrain good.toml --set parallel.bn_group_size=3
expect 2 'parallel.shard_group: found 7, allowed 0 where' ranks 2 pretrain good.toml --set parallel.shard_group=7
expect 3 'nothing-here' ranks 2 pretrain good.toml --set data.shards=nothing-here

shard=$(ls train/*.h5 | head -n 1)
mkdir cut text other_format
head -c $(($(stat -c %s "$shard") / 2)) "$shard" >cut/a.h5
expect 3 'cut/a.h5' ranks 2 pretrain good.toml --set data.shards=cut
echo 'not HDF5' >text/a.h5
expect 3 'text/a.h5' ranks 2 pretrain good.toml --set data.shards=text
ranks 2 pretrain good.toml >good.txt 2>&1 || { cat good.txt; fail "the good run"; }
cp "$(last_checkpoint good)/state.h5" other_format/a.h5
expect 3 'seer-shard' ranks 2 pretrain good.toml --set data.shards=other_format

seer synth -o test --classes 4 --images 40 --size 32 --seed 2 >/dev/null
seer synth -o five --classes 5 --images 40 --size 32 --seed 2 >/dev/null
expect 0 'top-1' ranks 2 eval knn good --train train --test test --resize 32 --crop 32 --device host --k 5
expect 3 'are of classes without any image in' ranks 2 eval knn good --train train --test five --resize 32 --crop 32 --device host
mkdir photos && cp -r "$SEER_TEST_DATA/images/." photos/
seer pack photos -o plain --labels none >/dev/null
expect 3 'has no labels' ranks 2 eval knn good --train plain --test test --resize 32 --crop 32 --device host

# Two runs in one folder: the second is refused, and the first continues.
write_config first.toml first 100000
SEER_PAUSE_AFTER=3 start first 1
paused first
expect 2 'another run uses first: process' ranks 1 pretrain first.toml
kill -USR1 "$launcher"
go_on first
ends_with 75 first

# A start that is refused changes no checkpoint and no record, whatever it was to resume from.
before=$(ls -R good/checkpoints; cat good/metrics.jsonl)
first=good/checkpoints/$(ls good/checkpoints | head -n 1)
for resume in auto never "$first"; do
  expect 2 'schedule.warmup_updates' ranks 2 pretrain good.toml --set schedule.warmup_updates=1000 --resume "$resume"
  expect 3 'nosuch' ranks 2 pretrain good.toml --set data.shards=nosuch --resume "$resume"
  expect 3 'cannot make' ranks 2 pretrain good.toml --set checkpoint.local_dir=good.toml/nosuch --resume "$resume"
done
[ "$before" = "$(ls -R good/checkpoints; cat good/metrics.jsonl)" ] || fail "a refused start changed the run folder"
expect 2 'no such folder' ranks 2 pretrain good.toml --resume nosuch
expect 2 'guard.replay_every' ranks 2 pretrain good.toml --set faults.flip_update=3
expect 2 'checkpoint.local_dir' ranks 2 pretrain good.toml --set checkpoint.local_every_updates=3
expect 2 '%h and %n' ranks 2 pretrain good.toml --set 'checkpoint.local_dir=disk%q'

# Different shards with the same names; a run folder in place of a checkpoint; bytes that were damaged after packing.
seer synth -o other --classes 4 --images 48 --size 32 --seed 9 --split images >/dev/null
expect 0 'the data set is not that of the checkpoint' ranks 2 pretrain good.toml --set data.shards=other --set schedule.total_updates=7
expect 0 'safetensors' seer export good out.safetensors
expect 0 'checkpoint' seer inspect good --verify
expect 0 'resumed from good/checkpoints/update' ranks 2 pretrain good.toml --resume good --set log.run_dir=elsewhere --set schedule.total_updates=8
cp -r train rotten
printf 'rot' | dd of="$(ls rotten/*.h5 | head -n 1)" bs=1 seek=20000 conv=notrunc status=none
expect 0 'when packed' ranks 2 pretrain good.toml --set data.shards=rotten --set log.run_dir=rotten_run
expect 3 'when packed' ranks 2 pretrain good.toml --set data.shards=rotten --set log.run_dir=rotten_fails --set data.bad_image_policy=fail
expect 3 'checksum' seer inspect rotten --verify

# No space left: a file system of 2 MB, if this user may mount one.
mkdir small
if mount -t tmpfs -o size=2m none small 2>/dev/null; then
  head -c 1900000 /dev/zero >small/filler
  expect 3 'small' ranks 2 pretrain good.toml --set log.run_dir=small/run
  compgen -G 'small/run/checkpoints/update-????????' >/dev/null && fail "a checkpoint that cannot be complete is there"
else
  echo "not run: no space left (needs to mount a tmpfs; the checkpoint suite tests it by a file-size limit)"
fi

expect 2 'pretrain' seer pretrian good.toml
for command in pack synth pretrain eval features import export inspect bench; do
  expect 0 "$command" seer "$command" --help
done
