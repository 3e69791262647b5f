# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/resnet.h5: torchvision's ResNets without fc in float64, forward and backward.

    python3 validation/reference/resnet.py tests/data/resnet.h5

One group per network and side length. Parameters are filled by simclr.py's hash_init in torchvision's order, so they
are not stored. Of the gradients the file holds a few in full (grad/) and the sum and L2 norm of all (grad_sum_norm/);
running statistics after the one forward pass in train mode are in full (buffer/) or, for resnet18, sum and norm
(buffer_sum_norm/). output_eval is from after that pass. Needs PyTorch, torchvision, h5py.

The two deep networks are ill-conditioned with these parameters: PyTorch in float32 on a CPU is 1e-4 off in their
outputs, enough to flip a few ReLUs, and 3 to 8 % of the norm in their gradients (resnet18: below 1e-5).
"""
import sys

import h5py
import torch
from torch import nn
from torchvision import models

from simclr import SEED, hash_fill, hash_init, put

# group: (network, images, side, parameters whose gradient is stored in full)
CASES = {
    "resnet18_33": ("resnet18", 3, 33, ["conv1.weight", "layer2.0.conv1.weight", "layer2.0.bn1.weight",
                                        "layer2.0.bn1.bias", "layer2.0.bn2.weight", "layer2.0.bn2.bias",
                                        "layer2.0.downsample.0.weight", "layer2.0.downsample.1.weight",
                                        "layer2.0.downsample.1.bias"]),
    "resnet18_small_32": ("resnet18", 3, 32, ["conv1.weight"]),
    "resnet50_64": ("resnet50", 2, 64, ["conv1.weight"]),
    "resnext50_48": ("resnext50_32x4d", 2, 48, ["conv1.weight", "layer1.0.conv2.weight"]),
}


def network(group):
    model = getattr(models, CASES[group][0])(weights=None)
    model.fc = nn.Identity()
    if "small" in group:  # the usual stem for CIFAR: no reduction before layer1
        model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity()
    hash_init(model.named_parameters())
    return model


def sum_norm(x):
    return torch.stack([x.sum(), x.norm()])


def write(g, group):
    name, images, side, in_full = CASES[group]
    model = network(group)
    x = hash_fill((images, 3, side, side), 500, 1.0).requires_grad_()
    y = model.train()(x)
    upstream = hash_fill(tuple(y.shape), 501, 1.0)
    y.backward(upstream)
    for key, value in dict(input=x, output_train=y, upstream=upstream, input_grad=x.grad).items():
        put(g, key, value)
    for key, p in model.named_parameters():
        put(g, "grad_sum_norm/" + key, sum_norm(p.grad))
        if key in in_full:
            put(g, "grad/" + key, p.grad)
    for key, b in model.named_buffers():
        if "running" in key and name == "resnet18":
            put(g, "buffer_sum_norm/" + key, sum_norm(b))
        elif "running" in key:
            put(g, "buffer/" + key, b)
    put(g, "output_eval", model.eval()(x))
    g.attrs.update(network=name, small_stem=int("small" in group), images=images, side=side, seed=SEED)


def main():
    with h5py.File(sys.argv[1], "w") as f:
        for group in CASES:
            write(f.create_group(group), group)


if __name__ == "__main__":
    main()
