#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Starts with other settings: all differences are listed, and those that make another run are refused unless
# --allow-change names them. Another length keeps the learning rate, or a warning gives the new one. Also: paths with ~,
# a folder of checkpoints on another file system, and what a start prints.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 64 --size 32 --seed 1 >/dev/null
write_config run.toml run 20
go() { seer pretrain run.toml "$@"; }
rates() { sed -E 's/.*"update":([0-9]+),.*"lr":([-0-9.e]+),.*/\1 \2/' "$1/metrics.jsonl"; }
all_of() { ls -R "$1/checkpoints"; cat "$1/metrics.jsonl" "$1/config.toml"; }

# A start prints the settings that differ from the defaults, and where the length comes from; --verbose prints all.
expect 0 'updates in all (schedule.total_updates = 20)' go
grep -q '^  head.prototypes *20$' out.txt || { cat out.txt; fail "a setting that differs is not printed"; }
grep -q 'augment.hue' out.txt && fail "defaults are printed"
grep -q 'hue' run/config.toml || fail "config.toml lacks defaults"
grep -q '"update":1,.*"eta_s":null' run/metrics.jsonl || fail "the first update tells how long the rest takes"
grep -q '"update":15,.*"eta_s":[0-9]' run/metrics.jsonl || fail "no eta_s"
expect 0 'follows from schedule.epochs' seer pretrain run.toml --verbose --set log.run_dir=epochs --set schedule.epochs=1.1
grep -q 'augment.hue' out.txt || fail "--verbose leaves keys out"
grep -q '4 updates in all (schedule.epochs = 1.1)' out.txt || fail "the length: $(grep 'in all' out.txt)"
grep -q 'checkpoint.every_updates = 5: .* the run has 4 updates' out.txt || fail "no doubt about the interval"

# Settings that make another run.
before=$(all_of run)
expect 2 'crops.0.size is 24, was 32; optimizer.kind is "sgd", was "lars"' go --set optimizer.kind=sgd --set crops.0.size=24
expect 2 'the tensors of a checkpoint usually do not fit' go --set head.prototypes=30
! grep -q 'allow-change' out.txt || { cat out.txt; fail 'what cannot work is recommended'; }
expect 2 'add --allow-change swav.epsilon' go --set swav.epsilon=0.05 --allow-change optimizer
expect 2 'did you mean "optimizer"' go --allow-change optimiser
expect 2 'has done 20 updates already' go --set schedule.total_updates=19
[ "$before" = "$(all_of run)" ] || fail "a refused start changed the run folder"
expect 0 'no such setting differs from the checkpoint' go --allow-change optimizer,head.dims
expect 0 'has no effect: the run goes on from its checkpoint' go --set model.init_from=other.h5

# Another length in the middle of a run: the rate goes on from its value, also after a restart, and ends at lr_final.
half=(--set log.run_dir=half --set checkpoint.keep_last=9 --resume run/checkpoints/update-00000010)
expect 0 'the learning rate goes on from 0.255 ' go "${half[@]}" --set schedule.total_updates=30
rates half >straight.txt
[ "$(head -n 1 straight.txt)" = "$(rates run | sed -n 11p)" ] || fail "the rate jumps: $(head -n 1 straight.txt)"
awk '{ if (NR > 1 && $2 >= last) exit 1; last = $2 } END { exit !(NR == 20 && last < 0.02) }' straight.txt || { cat straight.txt; fail "rates"; }
cp half/metrics.jsonl straight.jsonl
rm -r half/checkpoints/update-0000002[05] half/checkpoints/update-00000030
expect 0 'after 15 updates' go --set log.run_dir=half --set schedule.total_updates=30
diff straight.txt <(rates half) || fail "a restart changes the rates"
diff <(cut -d, -f 1-2 straight.jsonl) <(cut -d, -f 1-2 half/metrics.jsonl) || fail "a restart changes the losses"
# A run that has ended continues at its last rate or, with --allow-change, at the rate of a run that had this length
# from its start.
cp -r run jump
expect 0 'the learning rate goes on from 0.01 ' go --set schedule.total_updates=22
rates run | tail -n 1 | awk '{ exit !($2 > 0.0099 && $2 < 0.0101) }' || fail "not at the last rate: $(rates run | tail -n 1)"
expect 0 'the learning rate goes from 0.01 to 0.255 in one update' \
  go --set log.run_dir=jump --set schedule.total_updates=40 --allow-change schedule.total_updates
expect 0 'this is another run, as permitted on the command line: crops.0.size, optimizer.kind changed' go --set schedule.total_updates=23 \
  --set optimizer.kind=sgd --set crops.0.size=24 --allow-change optimizer,crops.0
grep -q '^  crops.0.size is 24, was 32$' out.txt || fail "the change is not listed"
grep -q '^  schedule.total_updates is 23, was 22$' out.txt || fail "the length is not listed"

# precision.compute = "auto": settled at the first start, kept afterwards, also where it would be another.
auto=(--set log.run_dir=chosen --set precision.compute=auto)
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 expect 0 'precision.compute = "auto": fp32, because rank 0: ' go "${auto[@]}"
grep -q '^compute = "fp32"' chosen/config.toml || fail "config.toml: $(grep compute chosen/config.toml)"
expect 0 'precision.compute = "auto": fp32, with which this run began' go "${auto[@]}" --set schedule.total_updates=21
expect 0 'precision.compute = "auto": ' go --set log.run_dir=other --set precision.compute=auto --resume chosen --set schedule.total_updates=21
grep -q 'fp32, with which this run began' out.txt || { cat out.txt; fail "--resume of another run's checkpoint"; }
if grep -qw amx_bf16 /proc/cpuinfo; then
  expect 0 'precision.compute = "auto": bf16, because every rank has matrix units' go --set log.run_dir=fresh --set precision.compute=auto
  expect 0 'precision.compute changed' go "${auto[@]}" --set schedule.total_updates=22 --allow-change precision.compute
fi

# "~" in a path means the home folder. Variables in a path are refused.
export HOME=$scratch/home
mkdir home
expect 0 'done: 2 updates' go --set 'log.run_dir=~/x' --set 'data.shards=~/../train' --set schedule.total_updates=2 \
  --set schedule.warmup_updates=1
[ ! -e '~' ] || fail "a folder named ~"
grep -q "^run_dir = \"$HOME/x\"" home/x/config.toml || fail "config.toml: $(grep run_dir home/x/config.toml)"
expect 0 'update' seer inspect '--verify' '~/x'
expect 2 'found "$SCRATCH/x"' go --set 'log.run_dir=$SCRATCH/x'
expect 2 'found "$SCRATCH/x"' seer synth -o '$SCRATCH/x'
expect 2 'no such user' seer inspect '~no-such-user/x'
rc=0
go --set log.run_dir=wall --set log.walltime=0-00:00:01 --set schedule.total_updates=1000000 >out.txt 2>&1 || rc=$?
[ "$rc" = 75 ] && grep -q 'stopped by walltime' out.txt || { cat out.txt; fail "log.walltime: exit code $rc, wanted 75"; }

# checkpoints/ is a link: to a folder on this file system and, if there is another one, to a folder on that.
mkdir near && places=(near)
for root in /dev/shm "${XDG_RUNTIME_DIR:-}" /var/tmp /tmp "$SEER_TEST_DATA"; do
  [ -d "$root" ] && [ -w "$root" ] && [ "$(stat -c %d "$root")" != "$(stat -c %d .)" ] || continue
  far=$(mktemp -d "$root/seer-test.XXXXXX")
  trap 'rm -rf "$far" "$scratch"' EXIT
  places+=("$far")
  break
done
[ ${#places[@]} = 2 ] || echo "not run: checkpoints on another file system (there is none to write to)"
for place in "${places[@]}"; do
  rm -rf linked && mkdir linked "$place/ck" && ln -s "$(realpath "$place/ck")" linked/checkpoints
  linked=(--set log.run_dir=linked)
  expect 0 'done: 20 updates' go "${linked[@]}"
  expect 0 'checkpoints of more than 10 updates are now in' go "${linked[@]}" --resume linked/checkpoints/update-00000010
  [ -L linked/checkpoints ] && [ -d "$place/ck/update-00000020" ] || fail "new checkpoints do not go where the link leads"
  [ -d linked/checkpoints.old-1/update-00000020 ] || fail "the newer ones are not put aside"
  expect 0 'the files of the run before are now in' go "${linked[@]}" --resume never --set schedule.total_updates=15
  [ -L linked/checkpoints ] && [ "$(ls "$place/ck")" = "$(printf '%s\n' checkpoints.old-1 checkpoints.old-2 update-000000{05,10,15})" ] ||
    { ls -R linked "$place"; fail "after --resume never"; }
  [ "$(wc -l <linked/checkpoints.old-2/metrics.jsonl) $(wc -l <linked/metrics.jsonl)" = '20 15' ] || fail "the records"
done
mkdir dangling && ln -s gone/ck dangling/checkpoints
expect 3 'dangling/checkpoints is a link to gone/ck, which does not exist' go --set log.run_dir=dangling
