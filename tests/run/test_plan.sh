#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Plans use the shards and this machine as far as they are here, and name what else they assume.
source "$(dirname "$0")/common.sh"

host=$SEER_TEST_DATA/../../inputs/machines/host_2core.toml
seer synth -o train --classes 4 --images 40 --size 64 --seed 1 >/dev/null
write_config config.toml run 20
plan() { seer plan config.toml --machine "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1" <out.txt; }

# A plan uses the mean size and the number of the images in the shards, not the mean image of the machine file.
expect 0 '40 images of "'"$scratch"'/train", on average 4096 pixels' plan "$host" --ranks 2
grep -qE '[0-9]e[+-]?[0-9]|[( ]0 node-hours' out.txt && { cat out.txt; fail "numbers that are not for people"; }
grep -qF "limited by: " out.txt || { cat out.txt; fail "the limit is not named"; }
grep -qF "speeds of decoding and cutting are the machine file's estimates" out.txt || { cat out.txt; fail "estimates"; }
expect 0 "16 updates of 16 images" plan "$host" --ranks 2 --set schedule.epochs=6.5
expect 0 "the shards cannot be read" plan "$host" --ranks 2 --set data.shards=elsewhere
expect 0 '"data_wait_ms": 0' plan "$host" --ranks 2 --json
small=$(field data_making_ms)
expect 0 '"data_wait_ms": 0' plan "$host" --ranks 2 --json --set data.shards=elsewhere
python3 -c "import sys; sys.exit(not 5 * $small < $(field data_making_ms))" || fail "small images take as long as large ones"

# A note names a machine file of another machine. For a file of this machine, the speed of the loader is measured.
{ echo 'processor = "another one"'; cat "$host"; } >other.toml
expect 0 'the machine file describes "another one"' plan other.toml --ranks 2
needs_kernels
processor=$(sed -n '/^model name/{s/^[^:]*: //p;q}' /proc/cpuinfo)
if [ -n "$processor" ]; then
  { echo "processor = \"$processor\""; cat "$host"; } >mine.toml
  expect 0 "note: data: 40 images" plan mine.toml --ranks 2
  grep -qE "estimates|the machine file describes" out.txt && { cat out.txt; fail "this machine was not measured"; }
else
  echo "not run: this machine's own file (the system does not name the processor)"
fi

# A note says when 16 bits are planned to take longer than fp32.
sed -E '/precision="bf16"/ s/(forward|backward_data|backward_weights)=[0-9.]+/\1=0.01/g' "$host" >slow.toml
if plan slow.toml --ranks 2 --set precision.compute=bf16 >out.txt 2>&1; then
  grep -qF "bf16 saves memory, but no time" out.txt || { cat out.txt; fail "bf16 that takes longer is not warned of"; }
else
  grep -qF "cannot train in it on this processor" out.txt || { cat out.txt; fail "bf16 is refused for another reason"; }
fi
