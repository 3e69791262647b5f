#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 1, 2 and 4 ranks with one BatchNorm group: the same losses over 20 updates to 1e-4, from real files.
. "$(dirname "$0")/common.sh"

seer synth -o train --classes 4 --images 90 --size 48 --seed 1 >/dev/null
for n in 1 2 4; do
  write_config "$n.toml" "run$n" 20
  # A gentle rate: at a high one the network itself doubles every rounding difference from update to update.
  ranks "$n" pretrain "$n.toml" --set schedule.lr_start=0.02 --set schedule.lr_peak=0.1 >"$n.txt" 2>&1 || { cat "$n.txt"; fail "$n ranks"; }
  [ "$(losses "run$n" | wc -l)" = 20 ] || fail "$n ranks logged $(losses "run$n" | wc -l) updates"
done
for n in 2 4; do
  paste -d' ' <(losses run1) <(losses "run$n") | awk -v n="$n" '
    { d = ($2 - $4) / $2; if (d < 0) d = -d; if (d > worst) worst = d }
    END { printf "%d ranks against 1: worst relative difference of 20 losses %.2e\n", n, worst; exit worst > 1e-4 }' ||
    fail "$n ranks drift from 1"
done
