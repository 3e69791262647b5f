#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One pack makes one set of shards. Tests what a folder holds after a pack was killed, or replaced or extended a set, or
# after a file was lost; and which commands then accept the folder.
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

# Two piles of photos that make two shards each.
mkdir -p old/ape old/cat new/ape new/owl
for name in rgb.jpg rgb.png; do
  for to in old/ape old/cat new/ape new/owl; do
    cp "$SEER_TEST_DATA/images/$name" "$to/" && echo "$to" >>"$to/$name"  # bytes behind the end belong to the file
  done
done
bytes=$(cat old/ape/* | wc -c)
pack() { seer pack "$1" -o "$2" --shard-bytes $((bytes + 100)) "${@:3}"; }
id_of() { seer inspect "$1/images-00000.h5" --json | sed -n 's/.*"id": "\(.*\)".*/\1/p'; }
pack old before >/dev/null && pack new after >/dev/null
[ "$(ls before)" = "$(printf '%s\n' images-00000.h5 images-00001.h5 images.manifest.json rejects.jsonl)" ] || fail "$(ls before)"
old=$(id_of before) new=$(id_of after)
[ -n "$old" ] && [ -n "$new" ] && [ "$old" != "$new" ] || fail "identities \"$old\" and \"$new\""

expect 2 '--append' pack new before
expect 2 'excludes' pack new before --replace --append

# Kill the pack before each rename, on each rank. The folder then holds the old set or the new one, or it is refused.
killed() {  # RANKS RANK NTH
  rm -rf set && cp -r before set
  local rc=0
  WRITE_FAULT_CALL=rename WRITE_FAULT_ERROR=KILL WRITE_FAULT_PATH=set/ WRITE_FAULT_AFTER=$3 WRITE_FAULT_RANK=$2 \
    "$mpiexec" --oversubscribe --bind-to none -n "$1" -x LD_PRELOAD="$SEER_WRITE_FAULTS" \
    "$SEER_EXECUTABLE" pack new -o set --shard-bytes $((bytes + 100)) --replace </dev/null >killed.txt 2>&1 || rc=$?
  [ "$rc" != 0 ]
}
sanitized=$(ldd "$SEER_EXECUTABLE" | grep -c asan || true)
for where in "1 0" "2 0" "2 1"; do
  [ "$sanitized" = 0 ] || continue  # sanitizers do not work with a preloaded library
  refused=0 kills=0
  # shellcheck disable=SC2086
  while killed $where "$kills"; do
    kills=$((kills + 1))
    if seer inspect set --verify --json >state.txt 2>&1; then
      sets=$(grep -c '"name": ' state.txt)
      grep -q -e "\"name\": \"$old\"" -e "\"name\": \"$new\"" state.txt && [ "$sets" = 1 ] && grep -q '2 of 2' state.txt ||
        { cat state.txt; fail "killed at $where, file $kills: neither the old nor the new set"; }
    else
      grep -q 'did not finish' state.txt || { cat state.txt; fail "killed at $where, file $kills: refused for another reason"; }
      refused=$((refused + 1))
    fi
  done
  [ "$(id_of set)" = "$new" ] || fail "not killed, and not replaced"
  # rank 0 names rejects.jsonl, the manifest, shards and the manifest again
  case $where in "1 0") wanted="5 3" ;; "2 0") wanted="4 2" ;; *) wanted="1 1" ;; esac
  [ "$kills $refused" = "$wanted" ] || fail "killed at $where: $kills kills, $refused states refused, wanted $wanted"
  echo "ok: killed $kills times on rank ${where#* } of ${where% *}"
done
rm -rf set && cp -r before set
sed -i 's/"complete": true/"complete": false/' set/images.manifest.json
expect 2 '--replace' pack new set
expect 3 'did not finish' seer inspect set
expect 0 'in 2 shards' pack new set --append  # the files it lists are those that were complete before
expect 0 '"images": 8' seer inspect set --verify --json

# Killed after the manifest was written and before the first old file was deleted: --append cannot know what to keep.
rm -rf halt && cp -r before halt
python3 -c 'import json; p = "halt/images.manifest.json"; m = json.load(open(p)); m.update(complete=False, files=[]); json.dump(m, open(p, "w"))'
expect 2 'may hold old and new images-*.h5' pack new halt --append
[ -e halt/images-00001.h5 ] || fail "--append removed what was there"
expect 0 'in 2 shards' pack new halt --replace

# Another process writes there: the second one is refused. A lock file that no process holds does not matter.
mkdir busy && : >busy/.images.lock
expect 0 'in 2 shards' pack old busy
[ "$(ls -A busy)" = "$(ls -A before)" ] || fail "the lock stays: $(ls -A busy)"
python3 - "$SEER_EXECUTABLE" <<'P' >locked.txt 2>&1 || { cat locked.txt; fail "two packs into one folder"; }
import fcntl, subprocess, sys
with open("busy/.images.lock", "w") as held:
    fcntl.lockf(held, fcntl.LOCK_EX)
    end = subprocess.run([sys.argv[1], "pack", "new", "-o", "busy", "--replace"], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True)
    print(end.returncode, end.stderr)
    sys.exit(end.returncode != 2 or "another process writes images-*.h5 there" not in end.stderr)
P
expect 0 'verified             true' seer inspect busy --verify
rm -r busy

# Two splits in one folder are two sets: reading the whole folder gives a warning.
mv old/ape old/train; mv old/cat old/val
seer pack old -o two --split train >/dev/null && seer pack old -o two --split val >/dev/null
expect 0 'two holds the splits train, val, and all of them are read; to read one, give' seer inspect two
mv old/train old/ape; mv old/val old/cat

# A set without one of its files, with a file of another pack, and copied without the manifest.
expect 0 'verified             true' seer inspect set --verify
cp before/images-00001.h5 set/images-00007.h5
expect 3 'images-00007.h5 is not among the 4 files' seer inspect set
rm set/images-0000[27].h5
expect 3 'the first missing file is images-00002.h5' seer inspect set
files=$(ls set)
expect 3 'images-00002.h5' pack new set --append
[ "$files" = "$(ls set)" ] || fail "--append to a set that lacks a file changed it: $(ls set)"
mkdir mixed && cp before/images-00000.h5 mixed/ && cp after/images-00001.h5 mixed/
expect 3 'are parts of different packs' seer inspect mixed
echo 'not HDF5' >after/text.h5
expect 3 'text.h5' seer inspect after --verify
expect 0 'train.manifest.json' ls "$(seer synth -o made --split train --classes 3 --images 20 --size 16 >/dev/null; ls made/*.json)"
expect 2 '--replace' seer synth -o made --split train --classes 3 --images 20 --size 16
expect 0 '20 images' seer synth -o made --split train --classes 3 --images 20 --size 16 --replace

# The set records its own limit on pixels. The image is grey, 7200 x 7200 pixels in 50 kB.
mkdir large
python3 - <<'P'
import struct, zlib
c = lambda k, b: struct.pack('>I', len(b)) + k + b + struct.pack('>I', zlib.crc32(k + b))
for name, n in (('big', 7200), ('small', 64)):
    open(f'large/{name}.png', 'wb').write(b'\x89PNG\r\n\x1a\n' + c(b'IHDR', struct.pack('>IIBBBBB', n, n, 8, 0, 0, 0, 0)) +
                                          c(b'IDAT', zlib.compress(bytes((n + 1) * n), 1)) + c(b'IEND', b''))
P
expect 0 'over the pixel limit' seer pack large -o usual --labels none
expect 0 'accepted   2 images' seer pack large -o wide --labels none --max-pixels 60000000
expect 0 'max_pixels           60000000' seer inspect wide/images-00000.h5

needs_kernels
seer synth -o train --classes 3 --images 40 --size 32 >/dev/null
seer synth -o 'com,ma' --classes 2 --images 20 --size 32 >/dev/null
write_config run.toml run 5
read_by() { seer pretrain run.toml --set log.run_dir="$1" --set data.shards="$2" "${@:3}"; }
expect 0 '64 images in the data set' read_by classes 'train,com\,ma,before'
expect 0 '20 images in the data set' read_by commas 'com,ma'
expect 3 'the first missing file is images-00002.h5' read_by lost set
expect 3 'are parts of different packs' read_by mixed mixed
expect 0 'the others are left out' read_by chosen 'before/images-00001.h5'
expect 0 'done' read_by pixels wide --set data.bad_image_policy=fail --set data.global_batch=2
grep -q 'bad image' out.txt && fail "an image that was packed counts as bad"
expect 2 'max_pixels' read_by pixels wide --set data.max_pixels=-1
weights=$(last_checkpoint classes)
features() { seer features "$weights" "$1" -o "$2" --resize 16 --crop 16 --device host; }
expect 0 '2 features of' features wide wide_features.h5
grep -q 'did not decode' out.txt && fail "an image that was packed does not decode"
expect 0 '64 features of' features 'train,com\,ma,before' f.h5
expect 0 'top-1' seer eval knn "$weights" --train train --test 'com,ma' --resize 16 --crop 16 --device host --k 3
expect 3 'are parts of different packs' features mixed none.h5
expect 3 'nothing to compare' seer inspect f.h5 --verify
expect 0 'safetensors' seer export "$weights" w.safetensors
expect 3 'nothing to compare' seer inspect w.safetensors --verify

# There are more shards than files that may be open. With the lowest limit under which MPI starts, the run works too, or
# its error names the limit.
mkdir many
for i in $(seq -w 200); do ln train/images-00000.h5 "many/s$i.h5"; done
limited() { (ulimit -n "$1" && shift && "$@"); }
soft() { (ulimit -Sn "$1" && shift && "$@"); }
expect 0 '8000 images in the data set' soft 60 read_by many many
expect 0 '8000 images in the data set' limited 60 read_by few many
fewest=16
until limited $fewest seer inspect many >low.txt 2>&1; do
  fewest=$((fewest + 4))
  [ $fewest -le 60 ] || { cat low.txt; fail "inspect wants more than 60 open files"; }
done
rc=0
limited $fewest read_by none many >low.txt 2>&1 || rc=$?
[ "$rc" = 0 ] || grep -q 'limit on open files' low.txt || { cat low.txt; fail "$fewest open files: another reason"; }
