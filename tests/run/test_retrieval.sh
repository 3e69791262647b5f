#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Features of inner outputs, maps, copies of images, and retrieval: the same figures on any number of ranks, and one
# message for each bad call.
source "$(dirname "$0")/common.sh"
needs_kernels
seer synth -o train --classes 3 --images 40 --size 64 --seed 1 >/dev/null
seer synth -o others --classes 3 --images 30 --size 64 --seed 2 >/dev/null
write_config config.toml run 5
seer pretrain config.toml >log.txt 2>&1 || { cat log.txt; fail "the run"; }
size=(--resize 48 --crop 48 --device host)

# Several features and a map in one file, the same on two ranks.
features=(features run others --features "trunk,res3:2x1,res4+res2:gem2.5" --map res3 "${size[@]}")
expect 0 "(trunk,res3:2x1,res4+res2:gem2.5,res3:map)" seer "${features[@]}" -o one.h5
expect 0 "30 features" ranks 2 "${features[@]}" -o two.h5
expect 0 "(res3)" seer features run others -o layer.h5 --layer res3 "${size[@]}"
expect 0 "(res3:map)" seer features run others -o map.h5 --map res3 "${size[@]}"
expect 2 "wanted trunk, head, or an output of its trunk: stem, res2, res3, res4" ranks 2 features run others -o x.h5 --features res9
expect 2 'feature "res4:median": "median" is no pooling' ranks 2 features run others -o x.h5 --features res4:median
expect 2 "gem needs a power above 0" seer features run others -o x.h5 --features res4:gem0
expect 2 "only one map" seer features run others -o x.h5 --features res2:map,res3:map
expect 2 "leave out --whole" ranks 2 features run others -o x.h5 --map res3 --whole 48 --device host
expect 0 "(res3:gem3)" seer features run others -o whole.h5 --features res3:gem --whole 48 --device host
expect 2 "crop 48 against 0" seer eval knn --train-features layer.h5 --test-features whole.h5
expect 2 "layer trunk,res3:2x1,res4+res2:gem2.5,res3:map against res3" seer eval knn --train-features one.h5 --test-features layer.h5
expect 0 "(res3:2x1)" seer eval knn --train-features one.h5 --test-features two.h5 --k 5
if python3 -c 'import h5py' 2>/dev/null; then
  python3 - <<'PY'
import h5py, numpy
one, two, layer, maps = (h5py.File(name) for name in ("one.h5", "two.h5", "layer.h5", "map.h5"))
assert one.attrs["version"] == 2 and maps.attrs["version"] == 2 and layer.attrs["version"] == 1
assert "features" not in maps and maps["map"].shape == one["map"].shape and maps["map"].ndim == 4
for name in ("features", "map", "columns"): numpy.testing.assert_allclose(one[name][:], two[name][:], rtol=1e-5, atol=1e-6)
numpy.testing.assert_allclose(layer["features"][:], maps["map"][:].mean((1, 2)), rtol=1e-5, atol=1e-6)
begin, rows = one["columns"][:], maps["map"][:]
half = (rows.shape[1] + 1) // 2
top = rows[:, :half].mean((1, 2))
numpy.testing.assert_allclose(one["features"][:, begin[1] : begin[1] + rows.shape[3]], top, rtol=1e-5, atol=1e-6)
PY
else
  echo "not run: the arrays of the file (needs h5py)"
fi

# Copies: the same files on any number of ranks.
expect 0 "138 copies of 23 kinds of 6 originals" seer copies train -o copies --images 6 --seed 3
expect 0 "138 copies" ranks 3 copies train -o again --images 6 --seed 3
for file in copies/*.h5; do cmp "$file" "again/$(basename "$file")" || fail "$file depends on the ranks"; done
expect 2 "holds 1 shards originals-*.h5 already" ranks 2 copies train -o copies
expect 0 "copies of 23 kinds" seer copies train -o again --images 2 --replace

retrieval=(eval retrieval run --queries 'copies/originals*.h5' --database 'copies/copies*.h5,others'
           --features trunk,res3:rmac2,res4:gem3 --whiten train --whiten-dims 24 "${size[@]}")
for n in 1 2 4; do ranks $n "${retrieval[@]}" --json >ranks$n.json 2>log.txt || { cat log.txt; fail "retrieval on $n ranks"; }; done
python3 - <<'PY' || fail "figures of retrieval"
import json
one, two, four = (json.load(open(f"ranks{n}.json")) for n in (1, 2, 4))
rows = one["rows"]
assert one["task"] == "retrieval" and one["protocol"] == "copies" and len(rows) == 12
assert [r["judgement"] for r in rows[:4]] == ["all", "crop", "jpeg", "strong"] and all(r["queries"] == 6 for r in rows)
assert all(abs(a["map"] - b["map"]) < 0.01 for other in (two, four) for a, b in zip(rows, other["rows"])), (one, two, four)
assert min(r["map"] for r in rows if r["judgement"] == "jpeg") > 30, rows  # by chance about 10
assert one["best"]["map"] == max(r["map"] for r in rows if r["judgement"] == "all")
PY
expect 0 "copies by name" seer eval retrieval run --queries 'copies/originals*.h5' --database 'copies/copies*.h5' --copies-of '^(image \d+)' --scales 1,0.7 "${size[@]}"
expect 0 "copies by label" seer eval retrieval run --queries 'copies/originals*.h5' --database 'copies/*.h5' "${size[@]}"
grep -q "6 of the 6 queries of .* each finds itself first" out.txt || { cat out.txt; fail "no warning of common images"; }
seer synth -o one --classes 1 --images 5 --size 64 --seed 3 >/dev/null
expect 3 "all 5 images are of one class" ranks 2 eval retrieval run --database one "${size[@]}"
expect 0 "each left out of its own ranking" ranks 2 eval retrieval run --database others "${size[@]}"

# The revisited form: names with boxes, in three lists.
python3 - <<'PY'
import json
kinds = lambda i, *names: [f"image {i}+{name}" for name in names]
queries = [{"image": f"image {i}", "box": [0, 0, 60, 60.4], "easy": kinds(i, "crop-10", "jpeg-75"),
            "hard": kinds(i, "strong-text", "strong-blur"), "junk": kinds(i, "crop-80")} for i in range(6)]
json.dump({"queries": queries}, open("queries.json", "w"))
def broken(name, **change):
    json.dump({"queries": [queries[0] | change]}, open(name, "w"))
broken("missing.json", hard=["image 77+crop-10", "image 0+jpeg-3"])
broken("twice.json", junk=["image 0+crop-10"])
broken("outside.json", box=[100, 0, 120, 50])
PY
revisited() { ranks "$1" eval retrieval run --queries 'copies/originals*.h5' --database 'copies/copies*.h5' --query-file "$2" "${@:3}" "${size[@]}"; }
for n in 1 3; do revisited $n queries.json --json >revisited$n.json 2>log.txt || { cat log.txt; fail "revisited on $n ranks"; }; done
python3 - <<'PY' || fail "figures of the revisited protocols"
import json
one, three = (json.load(open(f"revisited{n}.json"))["rows"] for n in (1, 3))
assert [r["judgement"] for r in one] == ["easy", "medium", "hard"]
assert all(abs(a["map"] - b["map"]) < 0.01 for a, b in zip(one, three)), (one, three)
assert one[0]["map"] > 30 and one[0]["map"] > one[2]["map"], one
PY
# Images that do not decode are neither queries nor answers.
cp -r copies broken
python3 - <<'PY'
for name in ("originals", "copies"):  # one byte of the last image
    with open(f"broken/{name}-00000.h5", "r+b") as file:
        image = max(file.read().rfind(mark) for mark in (b"\xff\xd8\xff", b"\x89PNG"))
        file.seek(image + 60)
        byte = file.read(1)[0]
        file.seek(image + 60)
        file.write(bytes([byte ^ 255]))
PY
broken() { ranks 2 eval retrieval run --queries 'broken/originals*.h5' --database 'broken/copies*.h5' "$@" "${size[@]}"; }
for form in "" "--copies-of ^(image.\d+)" "--query-file queries.json"; do
  expect 0 "left out: 1 images of the database and 1 queries, which do not decode" broken $form
done
seer eval retrieval run --database 'broken/copies*.h5' "${size[@]}" --json >broken.json 2>log.txt || { cat log.txt; fail "classes"; }
python3 -c 'import json; r = json.load(open("broken.json")); assert r["undecodable_queries"] == 1 and r["best"]["queries"] == 137, r'
expect 3 "missing.json in the database: no image of these names: image 77+crop-10" revisited 2 missing.json
expect 3 "image 0+crop-10 is listed twice" revisited 2 twice.json
expect 3 "nothing of its box" revisited 2 outside.json
expect 3 "no-such.json: cannot be read" revisited 2 no-such.json
expect 3 "the shards hold no names" ranks 2 eval retrieval run --database others --query-file queries.json "${size[@]}"
expect 2 "both say which images answer" revisited 1 queries.json --copies-of x
expect 2 "not a regular expression" ranks 2 eval retrieval run --database copies --copies-of '(' "${size[@]}"
expect 2 "no query has a right answer" ranks 2 eval retrieval run --queries 'copies/originals*.h5' --database others "${size[@]}"
expect 2 "give a smaller --whiten-dims" ranks 2 eval retrieval run --database others --whiten train --whiten-dims 5000 "${size[@]}"
expect 2 "say which images to learn the whitening from" seer eval retrieval run --database others --whiten-dims 5
