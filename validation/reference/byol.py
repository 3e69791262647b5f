# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/byol.h5: training with BYOL in float64 on one process.

    python3 validation/reference/byol.py tests/data/byol.h5

bn_groups_<g>: ten updates of the tiny RegNetY on the crops of simclr.py, images (ranks) in g BatchNorm groups. Projector
64-32-16 and predictor 16-24-16, both with BatchNorm before the ReLU; the projector's output as it is, the predictor's of
length one. The teacher (trunk and projector) begins as the student and follows it with momentum 1 - 0.1 (cos(pi t / 20)
+ 1) / 2; it runs on batch statistics, and its running statistics are its own.
"""
import copy
import math
import sys
from collections import OrderedDict

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from simclr import (CROPS, IMAGES, UPDATES, GroupedBatchNorm, Model, batch, crops_first, hash_init, lars_step, put, rate,
                    slices_first)

DIMS, HIDDEN, BASE, LENGTH = [64, 32, 16], 24, 0.9, 20


def layers(dims, groups):
    out = nn.ModuleList()
    for i, (before, after) in enumerate(zip(dims[:-1], dims[1:])):
        layer = nn.Linear(before, after)
        if i + 2 < len(dims):
            layer.norm = GroupedBatchNorm(after, groups)
        out.append(layer)
    return out


def run(modules, z):
    for i, layer in enumerate(modules):
        z = layer(z)
        if hasattr(layer, "norm"):
            z = F.relu(layer.norm(z))
    return z


class Student(Model):
    def __init__(self, groups):
        super().__init__(DIMS, True, groups)
        self.predictor = layers([DIMS[-1], HIDDEN, DIMS[-1]], groups)

    def projections(self, crops):
        """Rows in the order of BatchNorm's groups."""
        return run(self.head, self.trunk(slices_first(torch.cat(crops), CROPS, self.groups)))

    def forward(self, crops):
        return F.normalize(crops_first(run(self.predictor, self.projections(crops)), CROPS, self.groups), dim=1)

    def parameters_by_name(self):
        predictor = [("predictor." + k, p) for k, p in self.predictor.named_parameters()]
        return OrderedDict(list(super().parameters_by_name().items()) + predictor)


def training(g, groups):
    student = Student(groups)
    parameters = student.parameters_by_name()
    hash_init(parameters.items())
    teacher = copy.deepcopy(student)
    followers = teacher.parameters_by_name()
    momenta = {name: torch.zeros_like(p) for name, p in parameters.items()}
    history = []
    for update in range(UPDATES):
        crops = batch(update)
        with torch.no_grad():
            targets = F.normalize(crops_first(teacher.projections(crops), CROPS, groups), dim=1)
        predictions = student(crops)
        first, second = targets[:IMAGES], targets[IMAGES:]
        loss = (2 - 2 * (predictions * torch.cat([second, first])).sum(dim=1)).mean()
        grads = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()))))
        history.append(loss.item())
        if update == 0:
            for name, grad in grads.items():
                put(g, "first_grad/" + name, grad)
        with torch.no_grad():
            for name, p in parameters.items():
                lars_step(p, grads[name], momenta[name], rate(update))
            m = 1 - (1 - BASE) * (math.cos(math.pi * update / LENGTH) + 1) / 2
            for name, p in followers.items():
                p.mul_(m).add_((1 - m) * parameters[name])
    put(g, "loss", history, np.float64)
    put(g, "lr", [rate(u) for u in range(UPDATES)], np.float64)
    for name in ("stem.0.weight", "trunk_output.block3.block3-1.f.c.0.weight", "head.1.weight", "predictor.1.weight"):
        put(g, "final_teacher/" + name, followers[name])
    print(f"{g.name}: loss {history[0]:.12f} -> {history[-1]:.12f}")


def main():
    with h5py.File(sys.argv[1], "w") as f:
        for groups in (1, 2, 4):
            training(f.create_group(f"bn_groups_{groups}"), groups)


if __name__ == "__main__":
    main()
