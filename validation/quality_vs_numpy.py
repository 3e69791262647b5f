#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares `seer eval quality` with float64 formulas in numpy (docs/method.md, 8.3), on 1, 2 and 4 ranks.

    python3 validation/quality_vs_numpy.py build/host-release/seer [FEATURES.h5 ...]

Needs numpy and h5py. Made-up features, with views, are always compared; files of `seer features` if they are given.
Ends with exit code 1 if a figure differs by more than 1e-6 of its size (uniformity, from float products: 1e-5).
"""
import json
import subprocess
import sys
import tempfile

import h5py
import numpy as np

VIEWS, DELTA = 6, 1e-4


def effective(values):
    p = values[values > 0] / values.sum()
    return np.exp(-(p * np.log(p)).sum())


def rankme(x):
    sigma = np.linalg.svd(x, compute_uv=False)
    return effective(np.where(sigma > 1e-8 * sigma[0], sigma, 0))


def alpha(x, first=10, last=100):
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
    there = int((values > np.finfo(float).eps * max(x.shape) * values[0]).sum())
    last = min(last, there)
    first = min(first, max(1, last // 2))
    rank = np.arange(first, last + 1)
    slope, _ = np.polyfit(np.log(rank), np.log(values[first - 1:last]), 1, w=rank ** -0.5)  # squared: 1 / rank
    return -slope


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def figures(x):
    z = unit(x)
    n = len(z)
    square = ((z[:, None, :] - z[None, :, :]) ** 2).sum(-1) if n < 400 else 2 - 2 * z @ z.T
    return {"rankme": rankme(x), "rankme_centred": rankme(x - x.mean(0)), "alpha": alpha(x),
            "uniformity": np.log(np.exp(-2 * square)[~np.eye(n, dtype=bool)].mean()),
            "deviation": z.std(0).mean(), "deviation_expected": x.shape[1] ** -0.5}


def view_figures(x):
    n, q, d = x.shape
    means = x.mean(1)
    between = np.cov(means.T)
    offset = (x - means[:, None]).reshape(-1, d)
    within = offset.T @ offset / (n * (q - 1)) + DELTA * np.eye(d)
    values, vectors = np.linalg.eigh(within)
    root = vectors / np.sqrt(values) @ vectors.T
    lidar = effective(np.clip(np.linalg.eigvalsh(root @ between @ root), 0, None))
    z = unit(x)
    pairs = [((z[:, v] - z[:, w]) ** 2).sum(-1) for v in range(q) for w in range(v)]
    return {"lidar": lidar, "alignment": np.mean(pairs)}


def write(path, x):
    with h5py.File(path, "w") as f:
        for name, value in (("format", "seer-features"), ("source", "numpy"), ("layer", "made up")):
            f.attrs.create(name, value, dtype=h5py.string_dtype("utf-8", len(value)))
        f.attrs["version"] = np.int64(1)
        f["features"] = x.astype("<f4")
        f["labels"] = np.full(len(x), -1, "<i4")
        f["index"] = np.arange(len(x), dtype="<u8")
        f["bad"] = np.zeros(len(x), "u1")


def compare(seer, ranks, arguments, wanted):
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), seer, "eval", "quality", "--json"]
    run = subprocess.run(command + arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    found = json.loads(run.stdout)
    worst = 0
    for name, value in wanted.items():
        error = abs(found[name] - value) / abs(value)
        bound = 1e-5 if name == "uniformity" else 1e-6
        worst = max(worst, error / bound)
        print(f"  {ranks} ranks  {name:<19}{found[name]:>14.8g}{value:>14.8g}{error:>11.1e}")
    return worst <= 1


def main():
    seer, files = sys.argv[1], sys.argv[2:]
    rng = np.random.default_rng(1)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for n, d in ((500, 40), (37, 120)):
            x = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.6 @ rng.normal(size=(d, d)) + rng.normal(size=d)
            v = x[:, None] + 0.3 * rng.normal(size=(n, VIEWS, d))
            x, v = x.astype("f4").astype(float), v.astype("f4").astype(float)
            write(folder + "/x.h5", x)
            write(folder + "/v.h5", v.reshape(-1, d))
            print(f"{n} images, {d} dimensions, {VIEWS} views: seer, numpy, relative difference")
            for ranks in (1, 2, 4):
                good &= compare(seer, ranks, ["--features-file", folder + "/x.h5", "--views-file", folder + "/v.h5",
                                              "--views", str(VIEWS)], figures(x) | view_figures(v))
    for path in files:
        with h5py.File(path) as f:
            x = f["features"][:][f["bad"][:] == 0].astype(float)
        x = x[:2048]  # uniformity takes the pairs of all images up to here
        print(f"{path}: {len(x)} images, {x.shape[1]} dimensions")
        with tempfile.TemporaryDirectory() as folder:
            write(folder + "/x.h5", x)
            good &= all(compare(seer, ranks, ["--features-file", folder + "/x.h5"], figures(x)) for ranks in (1, 2, 4))
    print("equal" if good else "DIFFERENT")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
