#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Does pre-training without labels help on real photos?

On two sets of photos and with two sizes of network, three starts are compared: pre-trained without labels on the same
photos (own), trained with labels on the other set (other), random weights (random). Each start is judged by its frozen
features (k-NN, logistic regression) and by fine-tuning, with a hundredth, a tenth and all of the labels. Seed s draws the
weights, the labelled images and the order. Prints Markdown tables.

  validation/transfer.py cifar10.tar.gz clothing128.tar.gz [--out runs/transfer] [--seeds 0,1,2] [--jobs 2]

SEER names the program (default build/host-release/seer). Interrupted, start it again: finished figures stay in
OUT/results.json, and runs resume. Each run has one thread.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent.parent
SEER = os.environ.get("SEER", str(HERE / "build/host-release/seer"))
SETS = ("cifar", "clothing")
OTHER = {"cifar": "clothing", "clothing": "cifar"}
SIZES = {  # stages of 8 to 64 and of 16 to 128 channels
    "tiny": ["model.w0=8", "model.wa=8.0", "model.group_width=8"], "small": []}
SMALL = ["model.w0=16", "model.wa=16.0", "model.group_width=8"]  # against inputs/finetune_demo.toml
HEADS = {"tiny": ["head.dims=[64, 256, 128]"], "small": []}
SIDE = 48  # pixels of every crop
CHANGES = {"cifar": [], "clothing": ["crops.0.scale=[0.4, 1.0]", "augment.grey_probability=0.5",  # as inputs/clothing.toml
                                     "augment.brightness=0.6", "augment.contrast=0.6", "augment.saturation=0.9",
                                     "augment.hue=0.5", "augment.blur_probability=0.9", "augment.blur_radius=[0.5, 2.5]"]}
STARTS = ("own", "other", "random")
FRACTIONS = (0.01, 0.1, 1.0)
SSL_UPDATES = {"cifar": 9000, "clothing": 2500}  # of 64 images
SUPERVISED_UPDATES = 1500  # of 32 images, as fine-tuning
CONTINUED_UPDATES = 600  # of 64 images
CONTINUATIONS = ("at random", "init_from", "[continue]")
TUNE_UPDATES = {0.01: 200, 0.1: 400, 1.0: 600}
# Of LARS. Chosen for each start by the test photos with other draws (seed 9, small network) of both sets, at a hundredth and
# a tenth of the labels: the best sum of 0.5, 1, 3 ("own") and 1, 3, 10.
RATES = {"own": {0.01: 0.5}, "other": {0.01: 10.0}}  # else 3
SUPERVISED = {"schedule.lr_peak": 0.05}  # of SGD


class Transfer:
    def __init__(self, options):
        self.out, self.lock = options.out, threading.Lock()
        self.file = self.out / "results.json"
        self.results = json.loads(self.file.read_text()) if self.file.exists() else {}

    def seer(self, name, *arguments):
        """The standard output of the program; its messages go to OUT/NAME.txt."""
        with open(self.out / f"{name}.txt", "w") as messages:
            done = subprocess.run([SEER, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=messages, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            sys.exit(f"error: {name}: exit code {done.returncode}, see {messages.name}")
        return done.stdout

    def once(self, key, compute):
        """Results under their key, computed unless an earlier call of the script did."""
        if key not in self.results:
            value = compute()
            with self.lock:
                self.results[key] = value
                self.file.write_text(json.dumps(self.results, indent=1))
        return self.results[key]

    def pack(self, name, archive):
        for part in ("train", "test"):
            target = self.out / name / part
            self.once(f"packed {name} {part}", lambda: self.seer(
                f"pack-{name}-{part}", "pack", archive, "-o", target, "--labels", "folder", "--split", part))

    def tune(self, name, images, size, seed, updates, rule, weights="", fraction=1.0):
        folder = self.out / name
        settings = {"log.run_dir": folder, "finetune.from": weights, "data.shards": self.out / images / "train",
                    "data.test_shards": self.out / images / "test", "data.fraction": fraction, "data.subset_seed": seed,
                    "data.seed": seed, "data.global_batch": 32, "schedule.total_updates": updates, "crops.0.size": SIDE,
                    "finetune.test_resize": SIDE, "finetune.test_crop": SIDE,
                    "finetune.test_every": 0, "checkpoint.keep_last": 1, **rule}
        self.seer(name, "finetune", HERE / "inputs/finetune_demo.toml", *sets(SMALL + SIZES[size]),
                  *sets(f"{key}={value}" for key, value in settings.items()))
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [line["test_top1"] for line in lines if "test_top1" in line][-1]

    def pretrain(self, name, images, size, seed, changes):
        """A pre-training; its folder."""
        settings = {"log.run_dir": self.out / name, "data.shards": self.out / images / "train", "data.seed": seed, **changes}
        self.once(name, lambda: self.seer(
            name, "pretrain", HERE / "validation/transfer.toml", *sets(SIZES[size] + HEADS[size] + CHANGES[images]),
            *sets(f"{key}={value}" for key, value in settings.items())).splitlines()[-1])
        return self.out / name

    def weights(self, start, images, size, seed):
        """The run folder with the weights of a start."""
        name = f"{start}-{images}-{size}-{seed}"
        if start == "own":
            return self.pretrain(name, images, size, seed, {"schedule.total_updates": SSL_UPDATES[images]})
        if start == "random":  # one update at a rate that changes nothing
            return self.pretrain(name, images, size, seed, {"schedule.total_updates": 1, "schedule.warmup_updates": 0,
                                                            "schedule.lr_peak": 1e-12, "schedule.lr_final": 1e-12})
        self.once(name, lambda: self.tune(name, OTHER[images], size, seed, SUPERVISED_UPDATES, SUPERVISED))
        return self.out / name

    def frozen(self, start, images, size, seed):
        """Top-1 of k-NN, of raw pixels, and of logistic regression at each fraction."""
        name = f"frozen-{start}-{images}-{size}-{seed}"
        return self.once(name, lambda: self.judge_features(name, self.weights(start, images, size, seed), images, seed))

    def judge_features(self, name, weights, images, seed):
        files = []
        for part in ("train", "test"):
            files += [f"--{part}-features", self.out / f"{name}-{part}.h5"]
            self.seer(f"{name}-{part}", "features", weights, self.out / images / part, "-o", files[-1], "--resize", SIDE,
                      "--crop", SIDE)
        knn = json.loads(self.seer(name + "-knn", "eval", "knn", *files, "--k", 20, "--json"))
        fractions = ",".join(map(str, FRACTIONS))
        logistic = json.loads(self.seer(name + "-logistic", "eval", "logistic", *files, "--c", "0.01,0.1,1",
                                        "--fraction", fractions, "--seed", seed, "--json"))
        for file in files[1::2]:
            file.unlink()
        return [knn["best"]["top1"]] + [row["top1"] for row in logistic["rows"]]

    def continued(self, how, images, size, seed):
        """The same figures after few updates on these photos, from the network pre-trained on the other photos."""
        length = CONTINUED_UPDATES
        settings = {"schedule.total_updates": length}
        if how != "at random":
            settings["model.init_from"] = self.weights("own", OTHER[images], size, seed)
        if how == "[continue]":
            settings.update({"continue.freeze_trunk_updates": length // 10, "continue.ramp_updates": length // 10})
        name = f"continued-{how.strip('[]').replace(' ', '-')}-{images}-{size}-{seed}"
        return self.once(f"{name}-frozen", lambda: self.judge_features(
            f"{name}-frozen", self.pretrain(name, images, size, seed, settings), images, seed))

    def raw_pixels(self, images):
        return self.once(f"pixels-{images}", lambda: [
            row["top1"] for row in json.loads(self.seer(
                f"pixels-{images}", "eval", "knn", self.weights("random", images, "small", 0), "--train",
                self.out / images / "train", "--test", self.out / images / "test", "--resize", SIDE, "--crop", SIDE, "--k", 20,
                "--baselines", "--json"))["rows"] if "pixels" in row["feature"]][0])

    def fine_tuned(self, start, images, size, seed, fraction):
        name = f"tuned-{start}-{images}-{size}-{seed}-{fraction}"
        weights = "" if start == "random" else self.weights(start, images, size, seed)
        result = self.once(name, lambda: self.tune(name, images, size, seed, TUNE_UPDATES[fraction],
                                                   lars(RATES.get(start, {}).get(fraction, 3.0)), weights, fraction))
        shutil.rmtree(self.out / name, ignore_errors=True)
        return result

    def tables(self, images, seeds):
        frozen = ["k-NN"] + [f"linear {fraction:.0%}" for fraction in FRACTIONS]
        print(f"\n{images}: raw pixels, k-NN: {self.raw_pixels(images):.1f}\n")
        print_table(["network", "start"] + frozen + [f"tuned {fraction:.0%}" for fraction in FRACTIONS], {
            (size, start): [self.frozen(start, images, size, seed) +
                            [self.fine_tuned(start, images, size, seed, fraction) for fraction in FRACTIONS]
                            for seed in seeds] for size in SIZES for start in STARTS})
        if images == "clothing":
            print(f"\n{images}, {CONTINUED_UPDATES} updates without labels, small network:\n")
            print_table(["start"] + frozen, {(how,): [self.continued(how, images, "small", seed) for seed in seeds]
                                             for how in CONTINUATIONS})


def print_table(header, rows):
    """Mean and deviation over seeds: rows are lists of figures, one list for each seed."""
    print("| " + " | ".join(header) + " |\n" + "| --- " * len(header) + "|")
    for names, seeds in rows.items():
        cells = [f"{statistics.mean(column):.1f}" + (f" +- {statistics.stdev(column):.1f}" if len(column) > 1 else "")
                 for column in zip(*seeds)]
        print("| " + " | ".join([*names, *cells]) + " |")


def lars(rate):
    return {"optimizer.kind": "lars", "optimizer.nesterov": "false", "optimizer.weight_decay": 0, "schedule.lr_peak": rate}


def sets(settings):
    return [word for setting in settings for word in ("--set", setting)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=pathlib.Path)
    parser.add_argument("clothing", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/transfer"))
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    transfer = Transfer(options)
    for images in SETS:
        transfer.pack(images, getattr(options, images))
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for seed in options.seeds:  # the whole table with one seed first
            cases = [(start, images, size, seed) for start in STARTS for size in SIZES for images in SETS]
            list(pool.map(lambda case: transfer.weights(*case), cases))
            tuned = [pool.submit(transfer.fine_tuned, *case, fraction) for case in cases for fraction in FRACTIONS]
            list(pool.map(lambda case: transfer.frozen(*case), cases))
            for future in tuned:
                future.result()
        cases = [(how, "clothing", "small", seed) for seed in options.seeds for how in CONTINUATIONS]
        list(pool.map(lambda case: transfer.continued(*case), cases))
    for images in SETS:
        transfer.tables(images, options.seeds)


if __name__ == "__main__":
    main()
