# SPDX-License-Identifier: Apache-2.0
"""What an undisturbed run gives, and whether a disturbed one gave the same: bits of tensors, losses, update numbers.

A checkpoint's tensors are read through its manifest, which tells where in state.h5 each one lies (docs/formats.md), so
no HDF5 is needed, and they are compared byte by byte and not only by checksums.
"""
import json
import os
import re


class Wrong(Exception):
    """The run did something that it must not do; the text says what."""


def checkpoints(run):
    """update -> folder of every checkpoint with a manifest, which is what makes it complete."""
    out = {}
    folder = os.path.join(run, "checkpoints")
    try:
        names = os.listdir(folder)
    except OSError:
        return out
    for name in names:
        match = re.fullmatch(r"update-(\d{8,})", name)
        if match and os.path.isfile(os.path.join(folder, name, "manifest.json")):
            out[int(match[1])] = os.path.join(folder, name)
    return out


def tensors(folder):
    """"group/name" -> bytes."""
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    with open(os.path.join(folder, "state.h5"), "rb") as file:
        data = file.read()
    out = {}
    for tensor in manifest["tensors"]:
        size = 4
        for extent in tensor["shape"]:
            size *= extent
        out[tensor["group"] + "/" + tensor["name"]] = data[tensor["offset"]:tensor["offset"] + size]
    return out


def metrics(run):
    """The lines of metrics.jsonl that are complete."""
    try:
        with open(os.path.join(run, "metrics.jsonl"), "rb") as file:
            text = file.read()
    except OSError:
        return []
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def last_update(run):
    """That of the last complete line of metrics.jsonl, 0 if there is none. Cheap: asked every few milliseconds."""
    try:
        with open(os.path.join(run, "metrics.jsonl"), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            found = re.findall(rb'"update":(\d+),[^\n]*\n', file.read())
    except OSError:
        return 0
    return int(found[-1]) if found else 0


class Reference:
    """An undisturbed run: its last checkpoint, its losses, and how long its parts took."""

    def __init__(self, run, updates, seconds, start_seconds):
        self.updates = updates
        self.tensors = tensors(checkpoints(run)[updates])
        self.lines = metrics(run)
        self.losses = [line["loss"] for line in self.lines]
        steps = sorted(line["step_ms"] for line in self.lines)
        self.update_seconds = steps[len(steps) // 2] / 1000
        self.seconds = seconds
        self.start_seconds = start_seconds

    def check(self, run, same_bits, all_lines=True):
        """Raises Wrong unless the run in this folder came to the same end. Bits are compared on the same ranks and
        sharding; elsewhere sums have another order, and losses may differ by 1e-4 of their value. all_lines: also
        metrics.jsonl must hold every update once, which a run cannot do whose folder was taken away."""
        found = checkpoints(run)
        if self.updates not in found:
            raise Wrong(f"no checkpoint of update {self.updates} at the end, only of {sorted(found)}")
        lines = metrics(run)
        if all_lines and [line["update"] for line in lines] != list(range(1, self.updates + 1)):
            raise Wrong(f"metrics.jsonl holds updates {[line['update'] for line in lines]}")
        for line in lines:
            wanted, got = self.losses[line["update"] - 1], line["loss"]
            if wanted == got:
                continue
            if same_bits or wanted is None or got is None or abs(wanted - got) > 1e-4 * abs(wanted):
                raise Wrong(f"loss of update {line['update']} is {got}, undisturbed {wanted}")
        mine = tensors(found[self.updates])
        if sorted(mine) != sorted(self.tensors):
            raise Wrong("the last checkpoint holds other tensors than the undisturbed one")
        if not same_bits:
            return
        other = [name for name, data in mine.items() if data != self.tensors[name]]
        if other:
            raise Wrong(f"{len(other)} of {len(mine)} tensors have other bits than undisturbed, the first {other[0]}")
