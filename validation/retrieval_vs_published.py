# SPDX-License-Identifier: Apache-2.0
"""Retrieval by seer and by the published evaluation of the revisited Oxford and Paris sets, in float64.

Makes copies of photos (`seer copies`) and a query file: weak crops and JPEGs are easy, strong changes hard, the smallest
crops junk. `seer features --map` gives the maps; numpy pools them (GeM, and R-MAC with the regions of the authors' code),
whitens them, ranks, and runs compute_map as published. Printed: for each feature and protocol the mAP in per cent of
both, which must agree to 0.01, and how far seer's pooled features are from numpy's.
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np


def compute_ap(ranks, nres):
    ap, recall_step = 0.0, 1.0 / nres
    for j, rank in enumerate(ranks):
        precision_0 = 1.0 if rank == 0 else float(j) / rank
        precision_1 = float(j + 1) / (rank + 1)
        ap += (precision_0 + precision_1) * recall_step / 2.0
    return ap


def compute_map(ranks, truth):
    total, empty = 0.0, 0
    for i, (ok, bad) in enumerate(truth):
        if len(ok) == 0:
            empty += 1
            continue
        pos = np.arange(ranks.shape[0])[np.isin(ranks[:, i], ok)]
        junk = np.arange(ranks.shape[0])[np.isin(ranks[:, i], bad)]
        k = ij = 0
        for ip in range(len(pos)):
            while ij < len(junk) and pos[ip] > junk[ij]:
                k += 1
                ij += 1
            pos[ip] -= k
        total += compute_ap(pos, len(ok))
    return 100 * total / (len(truth) - empty)


def regions(H, W, L):
    """get_rmac_region_coordinates of the R-MAC code: left, top, side."""
    steps = np.array((2, 3, 4, 5, 6, 7), dtype=np.float32)
    w = min(H, W)
    b = (max(H, W) - w) / (steps - 1)
    idx = np.argmin(np.abs(((w**2 - w * b) / w**2) - 0.4)) + 1
    Wd, Hd = (idx if H < W else 0), (idx if H > W else 0)
    out = []
    for l in range(1, L + 1):
        wl = np.floor(2 * w / (l + 1))
        wl2 = np.floor(wl / 2 - 1)
        b = (W - wl) / (l + Wd - 1) if l + Wd > 1 else 0
        cenW = np.floor(wl2 + b * np.arange(l + Wd)) - wl2
        b = (H - wl) / (l + Hd - 1) if l + Hd > 1 else 0
        cenH = np.floor(wl2 + b * np.arange(l + Hd)) - wl2
        out += [(int(x), int(y), int(wl)) for y in cenH for x in cenW if wl >= 1]
    return out


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def rmac(maps, levels):
    return sum(unit(maps[:, y : y + s, x : x + s].max((1, 2))) for x, y, s in regions(*maps.shape[1:3], levels))


def whitening(x, dims):
    mean = x.mean(0)
    values, vectors = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values = np.maximum(values, 1e-5 * values.max())[::-1][:dims]
    return lambda y: unit((y - mean) @ vectors[:, ::-1][:, :dims] / np.sqrt(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="weights file, checkpoint or run folder")
    parser.add_argument("--photos", required=True, help="shards whose images are copied")
    parser.add_argument("--distractors", required=True, help="other shards; whitening is learnt from them, too")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--tap", default="res4")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--dims", type=int, default=32)
    parser.add_argument("--seer", default="seer")
    a = parser.parse_args()
    run = lambda *words: subprocess.run([a.seer, *map(str, words)], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    size = ["--resize", a.crop + 8, "--crop", a.crop]
    with tempfile.TemporaryDirectory() as folder:
        at = lambda name: os.path.join(folder, name)
        run("copies", a.photos, "-o", at("copies"), "--images", a.images)
        sets = {"queries": at("copies/originals*.h5"), "database": at("copies/copies*.h5") + "," + a.distractors, "others": a.distractors}
        texts = {f"{a.tap}:gem3": lambda m: np.mean(np.maximum(m, 1e-6) ** 3, (1, 2)) ** (1 / 3), f"{a.tap}:rmac3": lambda m: rmac(m, 3)}
        maps, pooled = {}, {}
        for name, shards in sets.items():
            run("features", a.model, shards, "-o", at(name + ".h5"), "--map", a.tap, *size)
            run("features", a.model, shards, "-o", at(name + "2.h5"), "--features", ",".join(texts), *size)
            with h5py.File(at(name + ".h5")) as f, h5py.File(at(name + "2.h5")) as g:
                maps[name] = f["map"][:].astype(np.float64)
                begin = g["columns"][:]
                pooled[name] = [g["features"][:, begin[i] : begin[i + 1]] for i in range(len(texts))]

        def names(pattern):
            return [n.decode() for path in sorted(glob.glob(pattern)) for n in h5py.File(path)["images/name"][:]]

        originals, copies = names(at("copies/originals*.h5")), names(at("copies/copies*.h5"))
        place = {name: i for i, name in enumerate(copies)}
        lists = {"easy": ["crop-10", "crop-30", "jpeg-75", "jpeg-20"], "hard": [n.split("+")[1] for n in copies[:23] if "strong" in n], "junk": ["crop-70", "crop-80"]}
        queries = [{"image": o, **{k: [f"{o}+{kind}" for kind in kinds] for k, kinds in lists.items()}} for o in originals]
        json.dump({"queries": queries}, open(at("queries.json"), "w"))
        of = lambda q, *which: np.array([place[n] for k in which for n in q[k]])
        protocols = {"easy": (["easy"], ["junk", "hard"]), "medium": (["easy", "hard"], ["junk"]), "hard": (["hard"], ["junk", "easy"])}
        worst = 0.0
        for whiten in (False, True):
            extra = ["--whiten", a.distractors, "--whiten-dims", a.dims] if whiten else []
            found = json.loads(run("eval", "retrieval", a.model, "--queries", sets["queries"], "--database", sets["database"], "--query-file", at("queries.json"), "--features", ",".join(texts), "--json", *extra, *size))
            figures = {(r["feature"], r["judgement"]): r["map"] for r in found["rows"]}
            for i, (text, pool) in enumerate(texts.items()):
                own = {name: pool(m) for name, m in maps.items()}
                error = max(np.abs(pooled[n][i] - own[n]).max() / np.abs(own[n]).max() for n in own)
                own = {name: unit(x) for name, x in own.items()}
                if whiten:
                    apply = whitening(own["others"], a.dims)
                    own = {name: apply(x) for name, x in own.items()}
                ranks = np.argsort(-(own["database"] @ own["queries"].T), axis=0, kind="stable")
                for protocol, (ok, bad) in protocols.items():
                    wanted = compute_map(ranks, [(of(q, *ok), of(q, *bad)) for q in queries])
                    seen = figures[text, protocol]
                    worst = max(worst, abs(seen - wanted))
                    print(f"{text:12} {'whitened' if whiten else 'as it is':8} {protocol:6} seer {seen:7.3f} published {wanted:7.3f}   features differ by {error:.1e}")
        print(f"largest difference {worst:.4f} per cent")
        sys.exit(int(worst > 0.01))


if __name__ == "__main__":
    main()
