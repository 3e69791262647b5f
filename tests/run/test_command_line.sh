#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The command line itself: help with examples everywhere, version, and mistakes that end with one line and exit code 2.
source "$(dirname "$0")/common.sh"

expect 0 "seer 0." seer --version
expect 0 "[swav]" seer --help-config
expect 0 "pretrain" seer --help
for command in pack synth inspect pretrain "eval knn" "eval linear" features import export \
  "bench conv" "bench step" "bench data" "bench comm" "bench checkpoint" "bench probe"; do
  # shellcheck disable=SC2086
  expect 0 "seer $command" seer $command --help
  grep -qE "^ *(mpirun .*)?(OMP_NUM_THREADS=[0-9]+ )?seer $command" "$scratch/out.txt" ||
    { cat "$scratch/out.txt"; fail "no example in the help of: seer $command"; }
done

expect 2 "see seer --help" seer
expect 2 "see seer --help" seer --bogus
expect 2 "see seer pretrain --help" ranks 2 pretrain --bogus
expect 2 "see seer bench --help" seer bench
expect 2 "--seed" seer synth -o none --seed -1
expect 2 "--k" seer eval knn --train a --test b --baselines --k 0
expect 2 "--temperature" seer eval knn --train a --test b --baselines --temperature 1e-30
expect 2 "--plan needs --machine" seer bench conv --plan
expect 0 '"all_planned_ms"' seer bench conv --plan --machine "$SEER_TEST_DATA/../../inputs/machines/dgx_h100.toml" \
  --preset 256gf --precision bf16 --size 64,32 --batch 2,4 --json

# The list of all keys in the manual equals the output of the program.
awk '/^## All keys/ {found = 1} found && /^```/ {fence++; next} found && fence == 1' \
  "$SEER_TEST_DATA/../../docs/configuration.md" >manual.txt
seer --help-config >program.txt
diff manual.txt program.txt || fail "docs/configuration.md, \"All keys\", is not what seer --help-config says"

# Commands that compute.
needs_kernels
expect 2 "missing.toml: cannot read the configuration file" ranks 2 pretrain missing.toml
printf '[swav]\nepsilonn = 0.1\ntemperature = "warm"\n' >bad.toml
expect 2 'bad.toml:2: swav.epsilonn: found an unknown key' ranks 2 pretrain bad.toml --set log.every=0
grep -qF 'bad.toml:3: swav.temperature: found "warm", allowed a number > 0' out.txt || fail "second error is missing"
grep -qF -- '--set log.every: found 0' out.txt || fail "the override's error is missing"

expect 2 "--max-bytes 4096 is below --min-bytes 8192" ranks 2 bench comm --max-bytes 4096 --min-bytes 8192
expect 0 '"all_reduce"' ranks 2 bench comm --max-bytes 16384 --seconds 0.01 --json
[ -e /dev/nvidiactl ] || expect 5 "nothing was measured over NCCL" ranks 2 bench comm --device
[ -e /dev/nvidiactl ] || expect 5 "nothing was measured" seer bench conv --device
expect 2 "2 sizes and 1 batches" seer bench conv --size 64,32
expect 0 '"backward_data_gb_per_s"' seer bench conv --preset tiny --size 64,32 --batch 1,2 --repeat 1 --json
