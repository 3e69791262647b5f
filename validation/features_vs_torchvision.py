# SPDX-License-Identifier: Apache-2.0
"""Features of photos by seer and by torchvision with the same weights.

For each size a randomly initialised torchvision RegNetY, ResNet or ResNeXt (BatchNorm's running statistics, scales and shifts are not those
of a fresh network either) is saved as safetensors and imported by `seer import`; `seer features`
then reads the photos from the shards, and torchvision reads the very same bytes through Pillow and its own Resize(256),
CenterCrop(224), Normalize. Printed: ||seer - torchvision|| / ||torchvision|| over all features, the worst single image
(target 1e-4), and for comparison how far the features of different photos lie apart on that scale; with --float64 also how far both
programs are from PyTorch in float64.
At last the weights are exported again: load_state_dict(strict=True) must take them, with every tensor unchanged.
"""
import argparse
import glob
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import models, transforms

SIZES = ["400mf", "800mf", "1.6gf", "3.2gf", "8gf", "16gf", "resnet18", "resnet50", "resnext50_32x4d", "resnext101_32x8d"]
TRANSFORM = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
CODES = {torch.float32: "F32", torch.int64: "I64"}


def save_safetensors(tensors, path):
    """The format is a JSON header and raw bytes: no package is needed for it (but used where there is one)."""
    try:
        from safetensors.torch import save_file
        return save_file(tensors, path)
    except ImportError:
        pass
    header, at = {}, 0
    for name, t in tensors.items():
        size = t.numel() * t.element_size()
        header[name] = dict(dtype=CODES[t.dtype], shape=list(t.shape), data_offsets=[at, at + size])
        at += size
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.contiguous().numpy().tobytes())


def load_safetensors(path):
    try:
        from safetensors.torch import load_file
        return load_file(path)
    except ImportError:
        pass
    with open(path, "rb") as f:
        data = f.read()
    (size,) = struct.unpack("<Q", data[:8])
    types = {code: t for t, code in CODES.items()}
    out = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            a, b = (8 + size + o for o in entry["data_offsets"])
            values = np.frombuffer(data[a:b], {"F32": "<f4", "I64": "<i8"}[entry["dtype"]]).copy()
            out[name] = torch.from_numpy(values).reshape(entry["shape"]).to(types[entry["dtype"]])
    return out


def photos(folder, limit):
    """Encoded images of the shards of a folder, in the order of the data set."""
    out = []
    for path in sorted(glob.glob(os.path.join(folder, "*.h5"))):
        with h5py.File(path, "r") as f:
            offset, data = f["images/offset"][()], f["images/bytes"][()]
        out += [data[a:b].tobytes() for a, b in zip(offset[:-1], offset[1:])]
    return out[:limit] if limit else out


def torchvision_model(size):
    if size == "resnext101_32x16d":  # torchvision has no function for it
        return models.resnet.ResNet(models.resnet.Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=16)
    return getattr(models, size if size.startswith("resne") else "regnet_y_" + size.replace(".", "_"))(weights=None)


def architecture(size):
    """The options of `seer import`."""
    if size.startswith("resne"):
        return ["--trunk", "resnet", "--preset", size.replace("resnext", "x").replace("resnet", "")]
    return ["--preset", size, "--width-rule", "torchvision"]


@torch.no_grad()
def random_model(size, seed, batch):
    """Random everything; running statistics are those of the photos, averaged over batches as training would, so that
    features depend on the photo as they do in a trained network. Statistics out of thin air either leave little but
    BatchNorm's shifts, or put channels so far off that float32 PyTorch itself is 1e-4 away from float64."""
    torch.manual_seed(seed)
    model = torchvision_model(size)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in norms:
        m.weight.uniform_(0.5, 1.5)
        m.bias.normal_(0, 0.1)
        m.momentum = None  # a cumulative average
    model.train()
    parts = max(1, len(batch) // 16)
    for i in range(parts):
        model(batch[i::parts])
    return model.eval()


@torch.no_grad()
def torch_features(model, batch):
    fc, model.fc = model.fc, nn.Identity()
    out = torch.cat([model(x) for x in batch.split(16)]).numpy()
    model.fc = fc
    return out


def seer(args, *command, ranks=1):
    start = args.mpirun.split() + ["-n", str(ranks)] if ranks > 1 else []
    done = subprocess.run(start + [args.seer, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"seer {' '.join(command)}: exit code {done.returncode}\n{done.stdout}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seer", default="build/host-release/seer", help="the executable")
    ap.add_argument("--mpirun", default="mpirun --oversubscribe --bind-to none")
    ap.add_argument("--ranks", type=int, default=1, help="of seer features")
    ap.add_argument("--shards", required=True, help="folder of shards with photos")
    ap.add_argument("--images", type=int, default=0, help="compare only the first so many (0: all)")
    ap.add_argument("--sizes", default=",".join(SIZES))
    ap.add_argument("--float64", action="store_true", help="also compare both with PyTorch in float64 (slow)")
    ap.add_argument("--target", type=float, default=1e-4)
    args = ap.parse_args()

    files = photos(args.shards, args.images)
    batch = torch.stack([TRANSFORM(Image.open(io.BytesIO(f)).convert("RGB")) for f in files])
    print(f"{len(files)} photos; torch {torch.__version__}; target {args.target:g}")
    print(f"{'trunk':16s} {'parameters':>11s} {'relative error':>15s} {'worst image':>12s} {'spread':>7s} "
          f"{'export':>8s} {'seconds':>8s}")
    failed = False
    with tempfile.TemporaryDirectory() as work:
        source, weights, features, back = (os.path.join(work, n)
                                           for n in ("in.safetensors", "w.h5", "f.h5", "out.safetensors"))
        for i, size in enumerate(args.sizes.split(",")):
            start = time.perf_counter()
            model = random_model(size, 100 + i, batch)
            state = model.state_dict()
            save_safetensors(state, source)
            seer(args, "import", source, weights, *architecture(size))
            seer(args, "features", weights, args.shards, "-o", features, ranks=args.ranks)
            with h5py.File(features, "r") as f:
                ours = f["features"][:len(files)]
            theirs = torch_features(model, batch)
            norm = np.linalg.norm(theirs.astype(np.float64), axis=1)
            difference = np.linalg.norm(ours.astype(np.float64) - theirs, axis=1)
            total, worst = np.linalg.norm(difference) / np.linalg.norm(norm), (difference / norm).max()
            spread = np.linalg.norm(theirs - theirs.mean(axis=0)) / np.linalg.norm(norm)
            note = ""
            if args.float64:
                exact = torch_features(model.double(), batch.double())
                error = [np.linalg.norm(f - exact) / np.linalg.norm(exact) for f in (ours, theirs)]
                note = f"  against float64: seer {error[0]:.1e}, PyTorch {error[1]:.1e}"
                model.float()
            seer(args, "export", weights, back)
            again = load_safetensors(back)
            fresh = torchvision_model(size)
            fresh.load_state_dict(again, strict=True)
            counters = "num_batches_tracked"  # of no use to inference, and not kept
            changed = [k for k in state if not k.endswith(counters) and not torch.equal(state[k], again[k])]
            bad = worst > args.target or not np.isfinite(worst) or changed
            failed = failed or bool(bad)
            count = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("fc."))
            print(f"{size:16s} {count:11d} {total:15.2e} {worst:12.2e} {spread:7.2f} {'CHANGED' if changed else 'equal':>8s} "
                  f"{time.perf_counter() - start:8.1f}{note}{'  FAILED' if bad else ''}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
