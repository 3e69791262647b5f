# SPDX-License-Identifier: Apache-2.0
"""Classifiers on the same features by seer and by scikit-learn.

Reads two files of `seer features` of labelled images. For each C: `seer eval logistic --protocol sklearn` and vissl
(standardised features) against LogisticRegression, `seer eval svm` against LinearSVC (VOC07's weights, rows of length
one), all with a small tolerance. Printed: both top-1 accuracies, the largest difference of a decision value (target
1e-3; softmax scores without the mean over classes, which nothing fixes) and the largest value; for the machines also
seer's mean average precision (all points of the envelope) and the same from scikit-learn's precision_recall_curve, with
scikit-learn's step-wise average_precision_score beside it, which is another definition and smaller.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings

import h5py
import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, precision_recall_curve
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC


def read(path):
    with h5py.File(path) as f:
        good = (f["bad"][:] == 0) & (f["labels"][:] >= 0)
        return f["features"][:][good].astype("float64"), f["labels"][:][good]


def thin(source, target, every):
    """Some rows of a features file; classes often follow one another."""
    with h5py.File(source) as f, h5py.File(target, "w") as g:
        for name in f.attrs:
            g.attrs.create(name, f.attrs[name], dtype=f.attrs.get_id(name).dtype)
        for name in ("features", "labels", "index", "bad", "checksum"):
            g.create_dataset(name, data=f[name][::every])


def envelope_precision(truth, scores):
    precision, recall, _ = precision_recall_curve(truth, scores)  # recall descends; the last point is (1, 0)
    envelope = np.maximum.accumulate(precision[:-1])
    return np.sum((recall[:-1] - recall[1:]) * envelope)


def centred(scores):
    return scores - scores.mean(axis=1, keepdims=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("train")
    ap.add_argument("test")
    ap.add_argument("--seer", default="build/host-release/seer", help="the executable")
    ap.add_argument("--mpirun", default="mpirun --oversubscribe --bind-to none")
    ap.add_argument("--ranks", type=int, default=1)
    ap.add_argument("--every", type=int, default=1, help="only every so many rows of each file")
    ap.add_argument("--c", default="0.01,1", help="of logistic regression; lambda = n / C for vissl's")
    ap.add_argument("--svm-c", default="0.1,1,10")
    ap.add_argument("--target", type=float, default=1e-3)
    args = ap.parse_args()
    warnings.simplefilter("error", ConvergenceWarning)
    failed = False
    with tempfile.TemporaryDirectory() as work:
        paths = [os.path.join(work, n) for n in ("train.h5", "test.h5")]
        for source, target in zip((args.train, args.test), paths):
            thin(source, target, args.every)
        (x, y), (test, wanted) = (read(p) for p in paths)
        classes = np.unique(y)
        print(f"scikit-learn {sklearn.__version__}; {len(x)} training rows, {len(test)} test rows, {x.shape[1]} dims, "
              f"{len(classes)} classes; seer on {args.ranks} ranks")
        print(f"{'':22s} {'C':>8s} {'seer %':>8s} {'sklearn %':>10s} {'difference':>11s} {'largest':>8s} {'mAP %':>8s} "
              f"{'by curve %':>10s} {'steps %':>8s} {'seer s':>7s} {'sklearn s':>9s}")

        def seer(*options):
            start = time.perf_counter()
            scores = os.path.join(work, "scores.h5")
            begin = args.mpirun.split() + ["-n", str(args.ranks)] if args.ranks > 1 else []
            command = [args.seer, "eval", *options, "--train-features", paths[0], "--test-features", paths[1], "--json",
                       "--scores", scores]
            done = subprocess.run(begin + command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            if done.returncode != 0:
                sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
            with h5py.File(scores) as f:
                return json.loads(done.stdout)["rows"][0], f["features"][:], time.perf_counter() - start

        def line(name, c, row, ours, theirs, seconds, own, precision=None):
            nonlocal failed
            top1 = 100 * np.mean(classes[theirs.argmax(axis=1)] == wanted)
            difference = np.abs(ours - theirs).max()
            bad = difference > args.target or abs(row["top1"] - top1) > 1e-6
            text = ""
            if precision is not None:
                text = f" {row['map']:8.3f} {precision[0]:10.3f} {precision[1]:8.3f}"
                bad = bad or abs(row["map"] - precision[0]) > 1e-3
            failed = failed or bad
            print(f"{name:22s} {c:8g} {row['top1']:8.2f} {top1:10.2f} {difference:11.2e} {np.abs(theirs).max():8.2f}"
                  f"{text or ' ' * 29} {own:7.1f} {seconds:9.1f}{'  FAILED' if bad else ''}", flush=True)

        scaler = StandardScaler().fit(x)
        for protocol in ("sklearn", "vissl"):
            a, b = (x, test) if protocol == "sklearn" else (scaler.transform(x), scaler.transform(test))
            for c in map(float, args.c.split(",")):
                value = c if protocol == "sklearn" else len(x) / c
                row, ours, own = seer("logistic", "--protocol", protocol, "--c", repr(value), "--tolerance", "1e-9",
                                      "--iterations", "20000")
                start = time.perf_counter()
                model = LogisticRegression(C=c, tol=1e-8, max_iter=20000).fit(a, y)
                seconds = time.perf_counter() - start
                theirs = model.decision_function(b)
                if theirs.ndim == 1:
                    theirs = np.stack([-theirs, theirs], axis=1)
                line("logistic, " + protocol, c, row, centred(ours), centred(theirs), seconds, own)
        a, b = (v / (np.linalg.norm(v, axis=1, keepdims=True) + 1e-5) for v in (x, test))
        for c in map(float, args.svm_c.split(",")):
            row, ours, own = seer("svm", "--c", repr(c), "--tolerance", "1e-7")
            start = time.perf_counter()
            theirs = np.stack([LinearSVC(C=c, class_weight={1: 2, -1: 1}, intercept_scaling=1.0, dual=True, tol=1e-7,
                                         max_iter=1000000, random_state=0).fit(a, np.where(y == k, 1, -1))
                               .decision_function(b) for k in classes], axis=1)
            seconds = time.perf_counter() - start
            curve = 100 * np.mean([envelope_precision(wanted == k, theirs[:, i]) for i, k in enumerate(classes)])
            steps = 100 * np.mean([average_precision_score(wanted == k, theirs[:, i]) for i, k in enumerate(classes)])
            line("svm", c, row, ours, theirs, seconds, own, (curve, steps))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
