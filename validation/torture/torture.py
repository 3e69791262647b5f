# SPDX-License-Identifier: Apache-2.0
"""Random faults at random instants, reproducible by seed. See ../torture.sh, which starts this."""
import argparse
import collections
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import files
import processes
import runs
from expected import Wrong
from trial import Setup, Trial

KINDS = {kind.__name__: kind for module in (processes, files, runs) for kind in module.KINDS}
OUTCOMES = ("finished", "resumed", "refused", "FAILED")


def arguments():
    parser = argparse.ArgumentParser(prog="torture.sh", description="Random faults at random instants against a tiny run.",
                                     epilog="Kinds: " + " ".join(KINDS))
    parser.add_argument("--trials", type=int, default=100, help="how many (100); kinds take turns")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same faults at the same instants (1)")
    parser.add_argument("--trial", type=int, help="only this one of them, its folder kept")
    parser.add_argument("--seconds", type=float, help="start no trial after this time")
    parser.add_argument("--kinds", default=",".join(KINDS), help="only these, separated by commas")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time (2)")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a start counts as hanging (60)")
    parser.add_argument("--keep", default="torture-failures", help="folder that failed trials are moved to")
    parser.add_argument("--list-kinds", action="store_true", help="their names, and nothing else")
    parser.add_argument("--verbose", action="store_true", help="the story of every trial")
    options = parser.parse_args()
    options.kinds = options.kinds.split(",")
    for kind in options.kinds:
        if kind not in KINDS:
            parser.error(f"unknown kind {kind}; there are {', '.join(KINDS)}")
    return options


def make_data(seer, folder):
    """Two small shards."""
    for seed in (1, 2):
        subprocess.run([seer, "synth", "-o", folder, "--classes", "4", "--images", "40", "--size", "40", "--seed",
                        str(seed), "--split", f"part{seed}"], check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


class Torture:
    def __init__(self, options, setup):
        self.options, self.setup = options, setup
        self.counts = collections.defaultdict(collections.Counter)
        self.lock = threading.Lock()
        self.next, self.began = 0, time.monotonic()
        self.starts, self.failures = 0, 0

    def take(self):
        with self.lock:
            late = self.options.seconds and time.monotonic() - self.began > self.options.seconds
            if self.next >= self.options.trials or late:
                return None
            self.next += 1
            return self.next - 1

    def work(self):
        number = self.take()
        while number is not None:
            self.one(number)
            number = self.take()

    def one(self, number):
        # The turn of kinds depends on the number alone, so that one trial can be repeated.
        kind = self.options.kinds[number % len(self.options.kinds)]
        trial = Trial(self.setup, self.options.seed, number, kind)
        began, problem = time.monotonic(), None
        try:
            KINDS[kind](trial)
        except Wrong as wrong:
            problem = str(wrong)
        except Exception:  # a defect of the torture itself must not pass for an outcome
            problem = traceback.format_exc()
        trial.clear()
        outcome = "FAILED" if problem else "refused" if trial.refused else "resumed" if len(trial.jobs) > 1 else "finished"
        with self.lock:
            self.counts[kind][outcome] += 1
            self.starts += len(trial.jobs)
            if problem:
                self.failures += 1
                self.report(trial, problem)
            elif self.options.verbose or self.options.trial is not None:
                print(f"trial {number} {kind}: {outcome} in {time.monotonic() - began:.1f} s\n    " + "\n    ".join(trial.story),
                      flush=True)
        if not problem and trial.folder and self.options.trial is None:
            shutil.rmtree(trial.folder, ignore_errors=True)

    def report(self, trial, problem):
        kept = "nothing"
        if trial.folder:
            os.makedirs(self.options.keep, exist_ok=True)
            kept = os.path.join(self.options.keep, f"seed{self.options.seed}-trial{trial.number}-{trial.kind}")
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(trial.folder, kept, symlinks=True)
        print(f"FAILED: trial {trial.number} {trial.kind}: {problem}\n    " + "\n    ".join(trial.story) +
              f"\n    kept: {kept}\n    again: validation/torture.sh --seed {self.options.seed} --trial {trial.number}"
              f" --kinds {','.join(self.options.kinds)}", flush=True)

    def table(self):
        print(f"\n| kind | {' | '.join(OUTCOMES)} |\n| --- |{' --: |' * len(OUTCOMES)}")
        rows = [(kind, self.counts[kind]) for kind in self.options.kinds if self.counts[kind]]
        total = collections.Counter()
        for kind, counts in rows:
            total.update(counts)
            print(f"| {kind} | " + " | ".join(str(counts[o]) for o in OUTCOMES) + " |")
        print("| all | " + " | ".join(str(total[o]) for o in OUTCOMES) + " |")
        seconds = time.monotonic() - self.began
        print(f"\n{sum(total.values())} trials, {self.starts} starts, seed {self.options.seed}, {seconds:.0f} s, "
              f"{len(self.setup.references)} undisturbed runs, {self.failures} failures")


def main():
    options = arguments()
    if options.list_kinds:
        print("\n".join(KINDS))
        return
    seer = os.path.abspath(os.environ["SEER"])
    launcher = [os.environ.get("MPIEXEC", "mpirun"), "--oversubscribe", "--bind-to", "none"]
    root = tempfile.mkdtemp(prefix="seer-torture.")
    try:
        make_data(seer, os.path.join(root, "data"))
        setup = Setup(seer, launcher, os.path.abspath(os.environ["SHIM"]), root, options.limit)
        absent = [kind for kind in options.kinds if not setup.has(getattr(KINDS[kind], "needs", "run_dir"))]
        if absent:
            print(f"not in this version: {' '.join(absent)}")
            options.kinds = [kind for kind in options.kinds if kind not in absent]
        torture = Torture(options, setup)
        if options.trial is not None:
            torture.one(options.trial)
        else:
            workers = [threading.Thread(target=torture.work) for _ in range(options.jobs)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        torture.table()
        if options.trial is not None:
            print(f"folder: {root}")
    finally:
        if options.trial is None:
            shutil.rmtree(root, ignore_errors=True)
    sys.exit(1 if torture.failures else 0)


if __name__ == "__main__":
    main()
