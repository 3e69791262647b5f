# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/simclr.h5: SimCLR in float64 on one process, for the tests of the loss and of whole updates.

    python3 validation/reference/simclr.py tests/data/simclr.h5

loss/<case>                        the NT-Xent loss and its gradient for given embeddings
training_<head>/bn_groups_<g>      ten updates of the tiny RegNetY on fixed crops, images (ranks) in g BatchNorm groups;
                                   head "two" is 64-32-16, "three_bn" 64-32-24-16 with BatchNorm before each ReLU

Embeddings are crop-major: row = crop * images + image. Every random number comes from hash_fill, so tests may
regenerate inputs and starting values. Needs PyTorch, torchvision, h5py.

With BatchNorm after it, the bias of a linear layer has no effect: first_grad of head.0.bias and head.1.bias in three_bn
is rounding noise around zero, and LARS moves these biases by weight decay alone.
"""
import math
import sys
from collections import OrderedDict

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.regnet import BlockParams, RegNet

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

SEED, IMAGES, CROPS, SIDE, UPDATES, TEMPERATURE = 1, 8, 2, 32, 10, 0.2
MOMENTUM, WEIGHT_DECAY, TRUST = 0.9, 1e-5, 0.001
HEADS = {"two": ([64, 32, 16], False), "three_bn": ([64, 32, 24, 16], True)}


def hash_fill(shape, seed, scale):
    """Uniform in [-scale, scale): splitmix64 of (seed << 32) + flat index, of which the top 24 bits are used."""
    with np.errstate(over="ignore"):
        z = (np.uint64(seed) << np.uint64(32)) + np.arange(math.prod(shape), dtype=np.uint64)
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    fraction = (z >> np.uint64(40)).astype(np.float64) / 2.0**24
    return torch.from_numpy(((fraction - 0.5) * 2.0 * scale).reshape(shape))


def hash_init(parameters, seed=SEED):
    """Fills parameter number i of (name, parameter) pairs from hash_fill with seed + i."""
    with torch.no_grad():
        for i, (name, p) in enumerate(parameters):
            if p.dim() > 1:
                p.copy_(hash_fill(tuple(p.shape), seed + i, math.sqrt(3.0 / math.prod(p.shape[1:]))))
            elif name.endswith("weight"):  # BatchNorm's scale
                p.copy_(1.0 + hash_fill(tuple(p.shape), seed + i, 0.2))
            else:
                p.copy_(hash_fill(tuple(p.shape), seed + i, 0.1))


def put(group, name, value, dtype=np.float32):
    array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    group.create_dataset(name, data=array.astype(dtype))


def nt_xent(z, images, temperature):
    """Mean over all rows (anchors) of -log(P / (P + Q)): P sums exp(similarity / temperature) over the other crops of
    the anchor's image, Q over all rows of the other images. With two crops this is SimCLR's NT-Xent."""
    image = torch.arange(len(z)) % images
    itself = torch.eye(len(z), dtype=torch.bool)
    positive = (image[:, None] == image[None, :]) & ~itself
    logits = z @ z.t() / temperature
    over_all = logits.masked_fill(itself, -math.inf).logsumexp(dim=1)
    over_positives = logits.masked_fill(~positive, -math.inf).logsumexp(dim=1)
    return (over_all - over_positives).mean()


def losses(f):
    cases = {"v2": (2, 8, 16, 0.5), "v2_sharp": (2, 8, 5, 0.05), "v4": (4, 4, 7, 0.1), "same": (2, 4, 3, 0.5)}
    for i, (name, (crops, images, dim, temperature)) in enumerate(cases.items()):
        z = F.normalize(hash_fill((crops * images, dim), SEED + 20 + i, 1.0), dim=1)
        if name == "same":
            z = z[:1].repeat(len(z), 1)
        z.requires_grad_()  # the gradient is that of free rows, not through the normalisation
        loss = nt_xent(z, images, temperature)
        loss.backward()
        g = f.create_group("loss/" + name)
        put(g, "z", z, np.float64)
        put(g, "loss", [loss.item()], np.float64)
        put(g, "d_z", z.grad, np.float64)
        g.attrs.update(crops=crops, images=images, temperature=temperature)


class GroupedBatchNorm(nn.Module):
    """BatchNorm over [rows, c, ...] with separate statistics in each of `groups` equal consecutive slices of the rows.
    The running statistics are those of the first slice."""

    def __init__(self, channels, groups):
        super().__init__()
        self.groups, self.eps, self.momentum = groups, 1e-5, 0.1
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        out = []
        for i, part in enumerate(x.chunk(self.groups)):
            others = [d for d in range(x.dim()) if d != 1]
            mean, var = part.mean(others, keepdim=True), part.var(others, unbiased=False, keepdim=True)
            n = part.numel() // part.shape[1]
            if i == 0:
                with torch.no_grad():
                    self.running_mean.lerp_(mean.flatten(), self.momentum)
                    self.running_var.lerp_(var.flatten() * n / (n - 1), self.momentum)
            out.append((part - mean) / torch.sqrt(var + self.eps) * self.weight.view_as(mean) + self.bias.view_as(mean))
        return torch.cat(out)


def slices_first(x, crops, groups):
    """Rows from crop-major order to: every crop of the first slice of the images, every crop of the second, ..."""
    return x.unflatten(0, (crops, groups, -1)).transpose(0, 1).flatten(0, 2)


def crops_first(x, crops, groups):
    return x.unflatten(0, (groups, crops, -1)).transpose(0, 1).flatten(0, 2)


class Model(nn.Module):
    """The tiny RegNetY trunk, then linear layers with (BatchNorm and) ReLU between them, then rows of length one."""

    def __init__(self, dims, batchnorm, groups):
        super().__init__()
        self.groups = groups
        params = BlockParams(depths=[1, 1, 2], widths=[16, 32, 64], group_widths=[8, 8, 8],
                             bottleneck_multipliers=[1.0] * 3, strides=[2] * 3, se_ratio=0.25)
        self.trunk = RegNet(params, num_classes=1, norm_layer=lambda c: GroupedBatchNorm(c, groups))
        self.trunk.fc = nn.Identity()
        self.head = nn.ModuleList()
        for i, (before, after) in enumerate(zip(dims[:-1], dims[1:])):
            layer = nn.Linear(before, after)
            if batchnorm and i + 2 < len(dims):
                layer.norm = GroupedBatchNorm(after, groups)
            self.head.append(layer)

    def forward(self, crops):
        z = self.trunk(slices_first(torch.cat(crops), len(crops), self.groups))
        for i, layer in enumerate(self.head):
            z = layer(z)
            if hasattr(layer, "norm"):
                z = layer.norm(z)
            if i + 1 < len(self.head):
                z = F.relu(z)
        return F.normalize(crops_first(z, len(crops), self.groups), dim=1)

    def parameters_by_name(self):
        """In the order of the seeds: the trunk as torchvision has it, then each layer's weight, bias, norm.*."""
        head = [("head." + k, p) for k, p in self.head.named_parameters()]
        return OrderedDict(list(self.trunk.named_parameters()) + head)

    def running_statistics(self):
        head = [("head." + k, b) for k, b in self.head.named_buffers()]
        return OrderedDict(list(self.trunk.named_buffers()) + head)


def lars_step(p, g, momentum, lr):
    """LARS of one tensor; a tensor that is zero, or whose gradient is, takes a plain step without weight decay."""
    p_norm, g_norm = p.norm(), g.norm()
    if p_norm != 0 and g_norm != 0:
        g = (g + WEIGHT_DECAY * p) * (TRUST * p_norm / (g_norm + WEIGHT_DECAY * p_norm + 1e-8))
    momentum.mul_(MOMENTUM).add_(g)
    p.sub_(lr * momentum)


def batch(update):
    return [hash_fill((IMAGES, 3, SIDE, SIDE), SEED + 1000 + 10 * update + c, 1.7) for c in range(CROPS)]


def rate(update):
    return 0.3 + 0.3 * update


def training(g, dims, batchnorm, groups):
    model = Model(dims, batchnorm, groups)
    parameters = model.parameters_by_name()
    hash_init(parameters.items())
    momenta = {name: torch.zeros_like(p) for name, p in parameters.items()}
    history = []
    for update in range(UPDATES):
        loss = nt_xent(model(batch(update)), IMAGES, TEMPERATURE)
        grads = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()))))
        history.append(loss.item())
        if update == 0:
            for name, grad in grads.items():
                put(g, "first_grad/" + name, grad)
        with torch.no_grad():
            for name, p in parameters.items():
                lars_step(p, grads[name], momenta[name], rate(update))
    put(g, "loss", history, np.float64)
    put(g, "lr", [rate(u) for u in range(UPDATES)], np.float64)
    for name, p in parameters.items():
        put(g, "final/" + name, p)
    for name, b in model.running_statistics().items():
        put(g, "final_buffer/" + name, b)
    g.attrs.update(preset="tiny", head=dims, batchnorm=int(batchnorm), bn_groups=groups, images=IMAGES, crops=CROPS,
                   side=SIDE, seed=SEED, temperature=TEMPERATURE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY,
                   trust=TRUST)
    print(f"{g.name}: loss {history[0]:.12f} -> {history[-1]:.12f}")


def main():
    with h5py.File(sys.argv[1], "w") as f:
        losses(f)
        for head, (dims, batchnorm) in HEADS.items():
            for groups in (1, 2, 4):
                training(f.create_group(f"training_{head}/bn_groups_{groups}"), dims, batchnorm, groups)


if __name__ == "__main__":
    main()
