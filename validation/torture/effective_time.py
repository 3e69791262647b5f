# SPDX-License-Identifier: Apache-2.0
"""A run with failures at random times, restarted by itself: what part of the time trained. See ../effective_time.sh."""
import argparse
import math
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

from expected import last_update, metrics
from job import Job
from trial import CONFIG

POLL_SECONDS = 0.02


def arguments():
    parser = argparse.ArgumentParser(prog="effective_time.sh")
    parser.add_argument("--minutes", type=float, default=30, help="length of the run (30)")
    parser.add_argument("--factor", type=float, default=100, help="failures come so much faster than on the machine (100)")
    parser.add_argument("--machine-hours", type=float, default=48,
                        help="between two failures of the machine (48: four in eight days on 64 nodes)")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=96, help="images of an update (96)")
    parser.add_argument("--seed", type=int, default=1, help="of the times of failures and their victims (1)")
    return parser.parse_args()


class Account:
    """Seconds by what they went to. `steps` holds, for each update, the seconds of its last execution."""

    def __init__(self):
        self.steps, self.seconds = {}, {"start-up": 0.0, "lost updates": 0.0, "failing": 0.0}
        self.first_of_start, self.after_save = [], []
        self.redone = 0

    def add_start(self, job, resumed, lines, first_seen, ended, interval):
        """One start: the lines it logged, when the first was seen, when it was killed or stopped."""
        mine = [line for line in lines if line["update"] > resumed]
        if not mine:
            self.seconds["start-up"] += ended - job.began
            return
        steps = [line["step_ms"] / 1000 for line in mine]
        self.seconds["start-up"] += first_seen - steps[0] - job.began
        # The update that the end interrupted is lost too.
        self.seconds["lost updates"] += max(0.0, ended - first_seen - sum(steps[1:]))
        for line, step in zip(mine, steps):
            update = line["update"]
            if update in self.steps:  # done before, and thrown away by the failure
                self.seconds["lost updates"] += self.steps[update]
                self.redone += 1
            self.steps[update] = step
        self.first_of_start += [line["update"] for line in mine[:3]]
        # An update's time begins where the one before ended, so the checkpoint between them is in it.
        self.after_save += [line["update"] for line in mine[1:] if (line["update"] - 1) % interval == 0]

    def drop_beyond(self, update):
        """Updates that were done but have no successor in a checkpoint when all ends."""
        for lost in [u for u in self.steps if u > update]:
            self.seconds["lost updates"] += self.steps.pop(lost)

    def table(self, wall, starts):
        plain = sorted(s for u, s in self.steps.items() if u not in self.after_save and u not in self.first_of_start)
        usual = plain[len(plain) // 2]
        excess = lambda updates: sum(max(0.0, self.steps[u] - usual) for u in set(updates) if u in self.steps)
        saving = excess(self.after_save)
        warming = excess(set(self.first_of_start) - set(self.after_save))
        useful = sum(self.steps.values()) - saving - warming
        rows = [("useful updates", useful), ("checkpoints", saving), ("start-up", self.seconds["start-up"]),
                ("lost updates, done again", self.seconds["lost updates"]),
                ("first three updates after a start, beyond the usual", warming),
                ("ending after a failure", self.seconds["failing"])]
        rows.append(("the rest", wall - sum(seconds for _, seconds in rows)))
        print("\n| time went to | s | % |\n| --- | --: | --: |")
        for name, seconds in rows:
            print(f"| {name} | {seconds:.1f} | {100 * seconds / wall:.2f} |")
        print(f"| all | {wall:.1f} | 100 |\n")
        print(f"{len(self.steps)} updates of {usual * 1000:.1f} ms, {starts} starts, {self.redone} updates done twice")
        return useful / wall


def main():
    options = arguments()
    rng = random.Random(options.seed)
    between = options.machine_hours * 3600 / options.factor
    root = tempfile.mkdtemp(prefix="seer-effective.")
    seer = os.path.abspath(os.environ["SEER"])
    subprocess.run([seer, "synth", "-o", os.path.join(root, "data"), "--classes", "4", "--images", "400", "--size", "40",
                    "--seed", "1"], check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    with open(os.path.join(root, "run.toml"), "w", encoding="utf-8") as file:
        file.write(CONFIG)
    launcher = [os.environ.get("MPIEXEC", "mpirun"), "--oversubscribe", "--bind-to", "none"]
    run, starts = os.path.join(root, "run"), 0

    def start(settings):
        nonlocal starts
        command = [seer, "pretrain", "run.toml"]
        for setting in settings:
            command += ["--set", setting]
        starts += 1
        return Job(launcher, options.ranks, command, root, f"{starts}.txt", {})

    # What an update and a checkpoint cost, in a short run of its own.
    common = [f"data.global_batch={options.batch}"]
    trial = start([*common, "log.run_dir=measure", "schedule.total_updates=41", "checkpoint.every_updates=5"])
    if trial.wait(300) != 0:
        raise SystemExit(f"the measuring run failed:\n{trial.printed()}")
    lines = metrics(os.path.join(root, "measure"))[3:]
    saving = sorted(line["step_ms"] for line in lines if line["update"] % 5 == 1)
    usual = sorted(line["step_ms"] for line in lines if line["update"] % 5 != 1)
    step, cost = usual[len(usual) // 2] / 1000, max(1e-3, (saving[len(saving) // 2] - usual[len(usual) // 2]) / 1000)
    # Young: the best interval is the square root of 2 x cost of a checkpoint x time between failures.
    interval = max(1, round(math.sqrt(2 * cost * between) / step))
    print(f"An update takes {step * 1000:.1f} ms, a checkpoint {cost * 1000:.1f} ms. Failures: one in {options.machine_hours:g} h on the "
          f"machine, {options.factor:g} times as often here: one in {between:.0f} s. Interval by Young: {interval} updates "
          f"({interval * step:.1f} s).", flush=True)

    account, failures, began = Account(), 0, time.monotonic()
    end, starts = began + 60 * options.minutes, 0
    next_failure = began + rng.expovariate(1 / between)
    settings = [*common, "schedule.total_updates=100000000", f"checkpoint.every_updates={interval}"]
    while True:
        job, first_seen, stopping = start(settings), None, False
        resumed = None
        while not job.over():
            if resumed is None:
                match = re.search(r"resumed from .* after (\d+) updates|( starting at 0)", job.printed())
                resumed = int(match[1] or 0) if match else None
            elif first_seen is None and last_update(run) > resumed:
                first_seen = time.monotonic() - POLL_SECONDS / 2
            now = time.monotonic()
            if now >= end and not stopping:
                stopping, ended = True, now
                job.send_to_rank(0, signal.SIGUSR1)
            elif now >= next_failure and not stopping:
                whole = rng.random() < 0.5
                victim, ended = rng.randrange(options.ranks), now
                for rank in range(options.ranks) if whole else [victim]:
                    job.send_to_rank(rank, signal.SIGKILL)
                failures += 1
                next_failure = now + rng.expovariate(1 / between)
                print(f"  at {now - began:.0f} s: kill -9 of {'all ranks' if whole else f'rank {victim}'}", flush=True)
                break
            time.sleep(POLL_SECONDS)
        code = job.wait(120)
        if code not in (137, 75):
            raise SystemExit(f"start {starts} ended with exit code {code}:\n{job.printed()}")
        if stopping:
            ended = time.monotonic()
        account.add_start(job, resumed or 0, metrics(run), first_seen or ended, ended, interval)
        if stopping:
            break
        account.seconds["failing"] += time.monotonic() - ended
    wall = time.monotonic() - began
    share = account.table(wall, starts)
    print(f"{failures} failures in {wall / 60:.1f} min. Effective training time: {100 * share:.2f} %")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
