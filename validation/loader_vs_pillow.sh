#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Images a second on one core: seer's loader against a Pillow/torchvision script doing the same SwAV augmentations
# (2 x 224 + 4 x 96) to the same images. The two alternate; the ratio is that of the medians.
#
#   validation/loader_vs_pillow.sh SHARDS_OR_PHOTOS [ROUNDS]
#
# SHARDS_OR_PHOTOS: a folder of shards, or anything `seer pack` takes. Environment: SEER (the executable), PYTHON,
# IMAGES (a round, default 512), CORE (the core both are bound to, default 0).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
seer=${SEER:-$here/../build/host-release/seer}
python=${PYTHON:-python3}
images=${IMAGES:-512}
source_path=${1:?"usage: loader_vs_pillow.sh SHARDS_OR_PHOTOS [ROUNDS]"}
rounds=${2:-5}
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

shards=$source_path
if ! compgen -G "$source_path/*.h5" > /dev/null; then
  shards=$scratch/shards
  "$seer" pack "$source_path" -o "$shards" --labels none > "$scratch/pack.log" || { cat "$scratch/pack.log"; exit 1; }
fi

core=()
if command -v taskset > /dev/null; then core=(taskset -c "${CORE:-0}"); fi
for ((round = 0; round < rounds; ++round)); do
  "${core[@]}" "$seer" bench data --json --updates $((images / 32)) --warmup 4 --set data.shards="$shards" \
    --set data.global_batch=32 --set data.reader_threads=1 > "$scratch/seer.$round"
  "${core[@]}" "$python" "$here/loader_vs_pillow.py" "$shards" --images "$images" > "$scratch/pillow.$round"
done

"$python" - "$scratch" "$rounds" <<'PY'
import json, statistics, sys
folder, rounds = sys.argv[1], int(sys.argv[2])
def load(name, r):
    text = open(f"{folder}/{name}.{r}").read()
    return json.loads(text[text.index("{"):])
ours = [load("seer", r) for r in range(rounds)]
theirs = [load("pillow", r) for r in range(rounds)]
median = lambda runs, key: statistics.median(run[key] for run in runs)
name = f"Pillow {theirs[0]['pillow']}, torchvision {theirs[0]['torchvision']}"
print(f"{'':44}{'images/s':>10}{'decode ms':>11}{'augment ms':>12}")
print(f"{'seer, one reader thread':44}{median(ours, 'images_per_s_per_core'):>10.1f}"
      f"{median(ours, 'decode_ms_per_image'):>11.3f}{median(ours, 'augment_ms_per_image'):>12.3f}")
print(f"{name:44}{median(theirs, 'images_per_s'):>10.1f}{median(theirs, 'decode_ms_per_image'):>11.3f}"
      f"{median(theirs, 'augment_ms_per_image'):>12.3f}")
ratios = sorted(o["images_per_s_per_core"] / t["images_per_s"] for o, t in zip(ours, theirs))
print(f"ratio of medians {median(ours, 'images_per_s_per_core') / median(theirs, 'images_per_s'):.2f}, "
      f"by round {ratios[0]:.2f} .. {ratios[-1]:.2f} ({rounds} rounds of {theirs[0]['images']} images, alternating)")
PY
