#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# seer eval quality: the same figures on any number of ranks, from a network and from a file; and bad input.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o data --classes 3 --images 40 --size 32 --seed 1 >/dev/null
write_config run.toml run 5
seer pretrain run.toml --set data.shards=data >out.txt 2>&1 || { cat out.txt; fail "the run"; }
small=(--resize 32 --crop 32 --device host)
figures() { local n=$1; shift; ranks "$n" eval quality run --data data "${small[@]}" --views 3 --view-images 12 "$@"; }

expect 0 'RankMe' figures 1 --features trunk,head
for text in 'trunk of run/checkpoints/update-00000005' 'head of' 'LiDAR' '12 images x 3 views' 'crops of 32 pixels, 0.3 to 1' \
  'alignment' 'uniformity' 'deviation' '20 prototypes, 40 images' 'empty'; do
  grep -qF "$text" out.txt || { cat out.txt; fail "no \"$text\""; }
done
for n in 1 2 4; do figures "$n" --features trunk,head --json 2>warnings.txt >"$n.json" || { cat warnings.txt; fail "on $n ranks"; }; done
seer features run data -o f.h5 "${small[@]}" --features trunk,head >/dev/null 2>&1 || fail "the features file"
expect 0 RankMe seer eval quality --features-file f.h5
seer eval quality --features-file f.h5 --json >file.json
python3 - <<'PY' || fail "figures differ"
import json
one, two, four, file = (json.load(open(name + ".json")) for name in ("1", "2", "4", "file"))
assert one["task"] == "quality" and len(one["rows"]) == 2 and one["rows"][1]["feature"] == "head"
assert one["rankme"] > 1 and one["lidar"] > 1 and "uncentred" in one["rankme_variant"] and "lidar" not in file
for other in (two, four, file):
    for a, b in zip(one["rows"], other["rows"]):
        for key in set(a) & set(b):
            if isinstance(a[key], float):
                assert abs(a[key] - b[key]) <= 1e-4 * abs(a[key]), (key, a[key], b[key])  # features differ by rounding
assert one["prototypes"]["count"] == 20 and 0 <= one["prototypes"]["empty"] < 20 and one["prototypes"] == two["prototypes"]
PY

# All images equal: the features say nothing.
mkdir same
seer synth -o one --classes 1 --images 1 --size 32 --seed 1 >/dev/null
python3 - <<'PY'
import struct, zlib
row = b"\0" + bytes(range(96))
raw = zlib.compress(row * 32)
chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)) + chunk(b"IDAT", raw) + chunk(b"IEND", b"")
for i in range(6): open(f"same/{i}.png", "wb").write(png)
PY
seer pack same -o equal >/dev/null 2>&1 || fail "pack"
expect 4 'all 6 images have the same features' ranks 2 eval quality run --data equal "${small[@]}" --views 0
expect 2 '1 images for 2 ranks' ranks 2 eval quality run --data one "${small[@]}"
expect 2 '3 images for 4 ranks' ranks 4 eval quality run --data data --images 3 "${small[@]}"
expect 2 'eval quality needs the shards of --data' seer eval quality run
expect 2 'needs weights, a checkpoint or a run folder' seer eval quality --data data
expect 2 '--views 1: wanted at least 2' seer eval quality run --data data --views 1
expect 2 'have no effect on it' seer eval quality --features-file f.h5 --crop 32
expect 3 'no-such' seer eval quality run --data no-such "${small[@]}"
