#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Weights to and from other tools, and images with rarely used features of their formats.
. "$(dirname "$0")/common.sh"
needs_kernels

seer synth -o train --classes 4 --images 32 --size 32 --seed 1 >/dev/null
write_config tiny.toml run 5
seer pretrain tiny.toml >train.txt 2>&1 || { cat train.txt; fail "the tiny run"; }

# Endings that promise another format are refused before anything is written.
for name in photos.onnx photos.pth photos.h5 photos; do
  expect 2 'wanted .safetensors' seer export run "$name"
  [ ! -e "$name" ] || fail "$name was written"
done
expect 2 'name it photos.safetensors' seer export nothing-there photos.onnx
expect 2 'this command writes HDF5' ranks 2 features run train -o rows.csv --resize 32 --crop 32 --device host
expect 2 'this command writes HDF5' seer import photos.safetensors weights.pt --preset tiny
expect 2 'a folder of shards' seer pack train -o shards.tar

expect 0 'model = RegNet(BlockParams.from_init_params(depth=4, w_0=16, w_a=16, w_m=2, group_width=8, se_ratio=0.25))' \
  seer export run photos.safetensors
expect 0 'photos.h5: ' seer import photos.safetensors photos.h5
expect 3 'seer import photos.safetensors photos.h5' ranks 2 features photos.safetensors train -o f.h5 --device host
expect 3 'seer import photos.safetensors photos.h5' seer eval knn photos.safetensors --train train --test train --device host
expect 3 'seer import photos.safetensors photos.h5' \
  seer pretrain tiny.toml --set log.run_dir=other --set model.init_from=photos.safetensors

# Export leaves out heads that only the training needs, here a predictor.
sed -e '/^\[swav\]/,/^\[\[crops/{/^\[\[crops/!d}' -e '/^prototypes/d' tiny.toml >byol.toml
expect 0 'done: 5 updates' seer pretrain byol.toml --set method.kind=byol --set log.run_dir=byol --set 'crops=[{count=2,size=16}]'
expect 0 'model = RegNet' seer export byol byol.safetensors
expect 0 'head 64-64-32, 0 prototypes' seer import byol.safetensors byol.h5

# The error for a file without metadata names the options that fit it, and these options are enough.
expect 0 'done: 5 updates' seer pretrain tiny.toml --set log.run_dir=small \
  --set model.trunk=resnet --set model.preset=18 --set model.stem=small --set 'head.dims=[512,8]' --set checkpoint.keep_last=1
expect 0 'resnet' seer export small small.safetensors
python3 - <<'PY'
import json, struct
data = open("small.safetensors", "rb").read()
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8 : 8 + n])
del header["__metadata__"]
text = json.dumps(header).encode()
open("plain.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data[8 + n :])
PY
expect 3 'its shapes are those of --trunk resnet --preset 18 --stem small' \
  seer import plain.safetensors small.h5 --trunk resnet --preset 18
expect 2 '--width-rule has no effect with --trunk resnet' \
  seer import plain.safetensors small.h5 --trunk resnet --preset 18 --stem small --width-rule torchvision
expect 2 "not VISSL's" seer import plain.safetensors small.h5 --trunk resnet --preset 18 --stem small --names vissl
expect 0 'small.h5: ' seer import plain.safetensors small.h5 --trunk resnet --preset 18 --stem small

# The same weights under other tools' names come back equal, byte for byte.
cat >files.py <<'PY'
import json, re, struct, sys, zipfile, zlib

def read(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    about = header.pop("__metadata__", {})
    return {k: (v, data[8 + n + v["data_offsets"][0] : 8 + n + v["data_offsets"][1]]) for k, v in header.items()}, about

def write(path, tensors):
    header, body = {}, b""
    for name in sorted(tensors):
        entry, values = tensors[name]
        header[name] = dict(entry, data_offsets=[len(body), len(body) + len(values)])
        body += values
    text = json.dumps(header).encode()
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + body)

def block(name):  # "trunk_output.block1.block1-0.f.a.0.weight" -> 1, 0, "f.a.0.weight"
    found = re.match(r"trunk_output\.block(\d+)\.block\d+-(\d+)\.(.*)", name)
    return (int(found[1]), int(found[2]), found[3]) if found else None

def timm(name):
    parts = block(name)
    if not parts:
        return name.replace("stem.0", "stem.conv").replace("stem.1", "stem.bn")
    rest = parts[2].replace("proj.0", "downsample.conv").replace("proj.1", "downsample.bn").replace("f.se", "se")
    for ours, theirs in (("f.a", "conv1"), ("f.b", "conv2"), ("f.c", "conv3")):
        rest = rest.replace(ours + ".0", theirs + ".conv").replace(ours + ".1", theirs + ".bn")
    return f"s{parts[0]}.b{parts[1] + 1}.{rest}"

def transformers(name):
    parts = block(name)
    embedder = "regnet.embedder.embedder."
    if not parts:
        return name.replace("stem.0", embedder + "convolution").replace("stem.1", embedder + "normalization")
    rest = parts[2].replace("proj", "shortcut").replace("f.se.fc1", "layer.2.attention.0").replace("f.se.fc2", "layer.2.attention.2")
    rest = rest.replace("f.a", "layer.0").replace("f.b", "layer.1").replace("f.c", "layer.3")
    if "attention" not in rest:
        rest = re.sub(r"^(.*)\.0\.(\w+)$", r"\1.convolution.\2", rest)
        rest = re.sub(r"^(.*)\.1\.(\w+)$", r"\1.normalization.\2", rest)
    return f"regnet.encoder.stages.{parts[0] - 1}.layers.{parts[1]}.{rest}"

if sys.argv[1] == "rename":
    tensors, _ = read("trunk.safetensors")
    for library, rename in (("timm", timm), ("transformers", transformers)):
        write(library + ".safetensors", {"module._orig_mod.student." + rename(k): v for k, v in tensors.items()})
    # names that no library uses
    write("strange.safetensors", {"x." + k: v for k, v in tensors.items()})
    with zipfile.ZipFile("model.pth", "w") as z:
        z.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        z.writestr("archive/data/0", bytes(5000))
elif sys.argv[1] == "trunk":
    tensors, about = read("photos.safetensors")
    assert about["producer"] == "seer" and about["crop_sizes"] == "[32, 16]" and json.loads(about["classes"]), about
    assert json.loads(about["mean"]) == [0.485, 0.456, 0.406] and about["source"].startswith("run/checkpoints"), about
    write("trunk.safetensors", {k: v for k, v in tensors.items() if not k.startswith(("head.", "prototypes."))})
elif sys.argv[1] == "equal":
    a, b = read(sys.argv[2])[0], read(sys.argv[3])[0]
    assert a.keys() == b.keys() and all(a[k][1] == b[k][1] for k in a), "tensors differ"
elif sys.argv[1] == "pictures":  # a PNG of 40 x 30 with an orientation behind its pixels; and one without
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    rows = b"".join(b"\0" + bytes((7 * x + 13 * y + c) % 256 for x in range(40) for c in range(3)) for y in range(30))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0))
    pixels, end = chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    exif = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    open("photos/turned.png", "wb").write(start + pixels + chunk(b"eXIf", exif) + end)
    open("photos/second.png", "wb").write(start + chunk(b"eXIf", exif) + pixels + end)
PY
python3 files.py trunk
python3 files.py rename
for library in timm transformers; do
  expect 2 'its shapes are those of --preset tiny' seer import "$library.safetensors" w.h5
  expect 0 '"module._orig_mod.student.' seer import "$library.safetensors" w.h5 --preset tiny
  seer export w.h5 again.safetensors >/dev/null
  python3 files.py equal again.safetensors trunk.safetensors || fail "$library: other tensors"
done
python3 - <<'PY'
import json, struct
data = bytearray(open("trunk.safetensors", "rb").read())
n = struct.unpack("<Q", data[:8])[0]
at = 8 + n + json.loads(data[8 : 8 + n])["stem.0.weight"]["data_offsets"][0]
data[at : at + 4] = struct.pack("<f", float("nan"))
open("nan.safetensors", "wb").write(data)
PY
expect 0 'stem.0.weight: 1 of ' seer import nan.safetensors w.h5 --preset tiny
expect 3 'x.stem.0.weight (nearest: stem.0.weight)' seer import strange.safetensors w.h5 --preset tiny
expect 0 'w.h5: ' seer import strange.safetensors w.h5 --preset tiny --prefix x
expect 3 'its shapes are those of --preset tiny' seer import timm.safetensors w.h5 --preset 200mf
expect 3 'model.pth is a checkpoint of PyTorch (zip)' seer import model.pth w.h5 --preset tiny
grep -q 'torch.load("model.pth"' out.txt || fail "no lines that convert model.pth"
sed -n '/^import torch/,/^safetensors.torch.save/p' out.txt | python3 -c 'import ast, sys; ast.parse(sys.stdin.read())'
expect 3 'is a checkpoint of PyTorch (zip)' ranks 2 features model.pth train -o f.h5 --device host

# Orientations in PNG files apply, before and after the pixels. The reason names an animation.
mkdir photos && cp "$SEER_TEST_DATA/images/animated.webp" photos/
python3 files.py pictures
expect 0 'accepted   2 images' seer pack photos -o shards --labels none
grep -q 'not supported: animated WebP (2 frames)' shards/rejects.jsonl || fail "the animation's reason: $(cat shards/rejects.jsonl)"
seer inspect shards/images-00000.h5 --json --verify | python3 -c '
import json, sys
found = json.load(sys.stdin)
assert found["width_range"] == [30, 30] and found["height_range"] == [40, 40] and found["verified"], found'
echo "exchange: all as expected"
