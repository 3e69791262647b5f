# SPDX-License-Identifier: Apache-2.0
"""One epoch of fine-tuning by seer and by PyTorch, from the same weights, on the same photos, without augmentation.

A torchvision RegNetY-400MF or ResNet with a classifier, trained for some updates by PyTorch, is saved as safetensors and
imported by `seer import`. `seer finetune` (data.source = "crops", finetune.classifier = "keep") and
torch.optim.SGD(nesterov=True) in float64 then train it on the photos of a folder of labelled shards: different rates and
weight decays for trunk and classifier, none for BatchNorm, label smoothing, a cosine. Printed: both losses of every update,
the largest difference, and the largest relative distance of a tensor at the end. Exit code 1 if a loss differs by more than
1e-4 (relative). With --first-updates 0 it starts from random weights: a RegNetY is so ill-conditioned there that every
float32 program is soon elsewhere, PyTorch's too.
"""
import argparse
import copy
import glob
import io
import json
import math
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import models, transforms

from features_vs_torchvision import load_safetensors, save_safetensors

TRUNK_DECAY, HEAD_DECAY, SMOOTHING = 1e-2, 1e-1, 0.1


def photos(folder, limit, side):
    transform = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side), transforms.ToTensor(),
                                    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    images, labels, names = [], [], []
    for path in sorted(glob.glob(os.path.join(folder, "*.h5"))):
        with h5py.File(path, "r") as f:
            offset, data, label = f["images/offset"][()], f["images/bytes"][()], f["images/label"][()]
            names = names or list(f.attrs["classes"])
        # Spread over the shard, which may be sorted by class.
        for i in range(0, len(label), max(1, len(label) // limit)):
            picture = Image.open(io.BytesIO(data[offset[i]:offset[i + 1]].tobytes())).convert("RGB")
            images.append(transform(picture))
            labels.append(int(label[i]))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))[:limit]
    return torch.stack(images)[order], torch.tensor(labels)[order], len(names)


def by_pytorch(net, images, labels, batch, rates, dtype):
    net = net.to(dtype).train()
    groups = {}
    for name, p in net.named_parameters():
        head = name.startswith("fc.")
        norm = p.dim() == 1 and (name.rsplit(".", 1)[0] + ".running_mean") in dict(net.named_buffers())
        groups.setdefault((head, norm), []).append(p)
    optimizer = torch.optim.SGD(
        [dict(params=ps, lr=rates[1] if head else rates[0],
              weight_decay=0.0 if norm else HEAD_DECAY if head else TRUNK_DECAY) for (head, norm), ps in groups.items()],
        momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: 0.5 * (1 + math.cos(math.pi * t / (len(labels) // batch))))
    losses = []
    for begin in range(0, len(labels), batch):
        loss = nn.functional.cross_entropy(net(images[begin:begin + batch].to(dtype)), labels[begin:begin + batch],
                                           label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def train_first(net, images, labels, batch, updates):
    """Trained weights to start from, by PyTorch in float32: those of a random RegNetY are ill-conditioned."""
    optimizer = torch.optim.SGD(net.train().parameters(), lr=0.02, momentum=0.9)
    for t in range(updates):
        rows = slice(t * batch % len(labels), t * batch % len(labels) + batch)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
        optimizer.step()


def by_seer(seer, folder, weights, images, labels, classes, batch, rates, preset, ranks):
    with h5py.File(folder + "/crops.h5", "w") as f:
        f["crops/0"] = images.numpy().astype("float32")
        f["labels"] = labels.numpy().astype("int32")
    trunk = ["--trunk", "resnet", "--preset", preset[6:]] if preset.startswith("resnet") else ["--preset", preset]
    subprocess.run([seer, "import", weights, folder + "/weights.h5", *trunk], check=True, capture_output=True)
    name = 'trunk = "resnet"\npreset = "%s"' % preset[6:] if preset.startswith("resnet") else 'preset = "%s"' % preset
    with open(folder + "/run.toml", "w") as f:
        f.write(f"""
[model]
{name}
[finetune]
from = "{folder}/weights.h5"
classifier = "keep"
classes = {classes}
lr_trunk = {rates[0]}
lr_head = {rates[1]}
decay_trunk = {TRUNK_DECAY}
decay_head = {HEAD_DECAY}
label_smoothing = {SMOOTHING}
[[crops]]
count = 1
size = {images.shape[-1]}
[data]
source = "crops"
shards = "{folder}/crops.h5"
global_batch = {batch}
[optimizer]
kind = "sgd"
nesterov = true
[schedule]
warmup_updates = 0
lr_peak = {rates[0]}
lr_final = 0.0
total_updates = {len(labels) // batch}
[log]
run_dir = "{folder}/run"
every = 1
""")
    launch = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []
    out = subprocess.run([*launch, seer, "finetune", folder + "/run.toml"], capture_output=True, text=True)
    if out.returncode:
        sys.exit(out.stdout + out.stderr)
    subprocess.run([seer, "export", folder + "/run", folder + "/tuned.safetensors"], check=True, capture_output=True)
    with open(folder + "/run/metrics.jsonl") as f:
        return [json.loads(line)["loss"] for line in f], load_safetensors(folder + "/tuned.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seer", required=True)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rates", type=float, nargs=2, default=[0.01, 0.1], help="of trunk and classifier")
    parser.add_argument("--first-updates", type=int, default=100, help="by PyTorch, to start from trained weights")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--preset", default="400mf", choices=["400mf", "resnet18", "resnet50"])
    options = parser.parse_args()
    torch.manual_seed(0)
    images, labels, classes = photos(options.shards, options.images // options.batch * options.batch, options.side)
    make = models.regnet_y_400mf if options.preset == "400mf" else getattr(models, options.preset)
    net = make(num_classes=classes)
    train_first(net, images, labels, options.batch, options.first_updates)
    with tempfile.TemporaryDirectory() as folder:
        save_safetensors({k: v for k, v in net.state_dict().items()}, folder + "/start.safetensors")
        found, tuned = by_seer(options.seer, folder, folder + "/start.safetensors", images, labels, classes, options.batch,
                               options.rates, options.preset, options.ranks)
    float32 = by_pytorch(copy.deepcopy(net), images, labels, options.batch, options.rates, torch.float32)
    wanted = by_pytorch(net, images, labels, options.batch, options.rates, torch.float64)
    worst, other = (max(abs(a - b) / b for a, b in zip(x, wanted, strict=True)) for x in (found, float32))
    for t, (a, b) in enumerate(zip(found, wanted), 1):
        print(f"update {t:3}  seer {a:.7f}  PyTorch {b:.7f}  difference {abs(a - b):.1e}")
    far = max(((tuned[k].double() - v.double()).norm() / v.double().norm()).item()
              for k, v in net.state_dict().items() if v.dtype.is_floating_point and v.norm() > 0)
    print(f"{len(found)} updates of {options.batch} photos, {options.preset}, {classes} classes, {options.ranks} ranks: "
          f"largest relative difference of a loss {worst:.1e} (wanted 1e-4; PyTorch in float32: {other:.1e}), "
          f"of a tensor at the end {far:.1e}")
    sys.exit(worst > 1e-4)


if __name__ == "__main__":
    main()
