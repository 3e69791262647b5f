# SPDX-License-Identifier: Apache-2.0
"""One trial: a tiny run, what a kind of fault does to it, and starting it again until it is done, as a job script would.

Every choice is drawn from a generator keyed by (seed, number of the trial) before anything is started, so the same
trial makes the same choices again; only the processes' timing differs.
"""
import os
import random
import re
import shutil
import subprocess
import threading
import time

from expected import Reference, Wrong, checkpoints, last_update
from job import POLL_SECONDS, Job

UPDATES = 24
INTERVAL = 4
SHARDINGS = ("none", "optimizer", "gradients", "parameters")

CONFIG = f"""
[model]
preset = "tiny"
[head]
dims = [64, 32, 16]
prototypes = 20
[swav]
epsilon = 0.03
freeze_prototypes_updates = 2
[[crops]]
count = 2
size = 32
scale = [0.3, 1.0]
[[crops]]
count = 2
size = 16
scale = [0.1, 0.3]
[data]
shards = "data"
global_batch = 12
bad_image_policy = "fail"
block_images = 8
window_blocks = 4
prefetch_batches = 1
reader_threads = 1
[schedule]
warmup_updates = 4
lr_start = 0.02
lr_peak = 0.1
lr_final = 0.01
total_updates = {UPDATES}
[parallel]
bn_group_size = 12
device = "host"
bucket_bytes = 65536
[checkpoint]
every_updates = {INTERVAL}
keep_last = 3
[log]
run_dir = "run"
every = 1
tensorboard = false
"""

# Printed by a process that ran into a defect, whatever was done to it from outside.
DEFECTS = re.compile(r"Segmentation fault|signal 11|signal 6\b|signal 8\b|terminate called|Assertion|AddressSanitizer")


class Instant:
    """A moment of a run: after an update was logged, or (update 0) after the start; and a time beyond that."""

    def __init__(self, update, seconds):
        self.update, self.seconds = update, seconds

    def __str__(self):
        return f"update {self.update} + {self.seconds * 1000:.0f} ms" if self.update else f"start + {self.seconds:.2f} s"


class Setup:
    """What all trials share: executable, launcher, data, time limits, and the undisturbed runs, made when first wanted."""

    def __init__(self, seer, launcher, shim, root, limit_seconds):
        self.seer, self.launcher, self.root, self.limit = seer, launcher, root, limit_seconds
        shutil.copy(shim, os.path.join(root, "write_faults.so"))  # a space in its own path would cut LD_PRELOAD in two
        self.references = {}
        self.lock = threading.Lock()
        self.keys = subprocess.run([seer, "--help-config"], check=True, capture_output=True, text=True).stdout

    def has(self, key):
        """Whether this version's configuration has such a key: kinds that need another are left out."""
        return f"\n  {key} = " in self.keys

    def fault(self, call, error, after=0, count=1, rank=-1, path="checkpoints/"):
        """Environment of ranks whose file system fails; see write_faults.cpp."""
        out = {"LD_PRELOAD": "../write_faults.so", "WRITE_FAULT_CALL": call, "WRITE_FAULT_ERROR": error,
               "WRITE_FAULT_AFTER": str(after), "WRITE_FAULT_COUNT": str(count), "WRITE_FAULT_PATH": path}
        return out if rank < 0 else {**out, "WRITE_FAULT_RANK": str(rank)}

    def new_folder(self, name, copy_data=False):
        folder = os.path.join(self.root, name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        data = os.path.join(self.root, "data")
        if copy_data:
            shutil.copytree(data, os.path.join(folder, "data"))
        else:
            os.symlink(data, os.path.join(folder, "data"))
        with open(os.path.join(folder, "run.toml"), "w", encoding="utf-8") as file:
            file.write(CONFIG)
        return folder

    def start(self, folder, ranks, options, log, environment):
        command = [self.seer, "pretrain", "run.toml"]
        for option in options:
            command += [option] if option.startswith("--") else ["--set", option]
        return Job(self.launcher, ranks, command, folder, log, environment)

    def reference(self, ranks, options):
        """The undisturbed run of these settings. Runs it when it is wanted for the first time."""
        key = (ranks, *options)
        with self.lock:
            if key not in self.references:
                self.references[key] = self.undisturbed(key)
            return self.references[key]

    def undisturbed(self, key):
        folder = self.new_folder(f"reference-{len(self.references)}")
        job = self.start(folder, key[0], key[1:], "0.txt", {})
        run = os.path.join(folder, "run")
        while not job.over() and not last_update(run):
            time.sleep(POLL_SECONDS)
        started = time.monotonic() - job.began
        code = job.wait(self.limit)
        seconds = time.monotonic() - job.began
        if code != 0:
            job.end()
            raise Wrong(f"the undisturbed run of {key} ended with {code}:\n{job.printed()}")
        reference = Reference(run, UPDATES, seconds, started)
        shutil.rmtree(folder)
        return reference


class Trial:
    """What a kind of fault works with. Kinds are in processes.py, files.py and runs.py."""

    def __init__(self, setup, seed, number, kind):
        self.setup, self.number, self.kind = setup, number, kind
        self.rng = random.Random(f"{seed}:{number}")
        self.ranks = self.rng.choice((2, 2, 2, 2, 1, 3, 4))
        self.sharding = self.rng.choice(SHARDINGS)
        # How checkpoints are written changes no bits, so it is no part of what the undisturbed run is made with.
        self.beside = self.rng.random() < 0.5 and setup.has("async")
        self.options = [f"parallel.shard={self.sharding}"]
        self.reference = None
        self.folder = None
        self.jobs = []
        self.story = []        # what was done and seen, for people
        self.damaged = set()   # checkpoints that the trial harmed itself
        self.may_lose = (2 if self.beside else 1) * INTERVAL  # beside the training one more may be under way
        self.refused = False
        self.same_bits = True
        self.all_lines = True

    # What a kind draws and says.

    def note(self, text):
        self.story.append(text)

    def prepare(self, copy_data=False, at_least=1, options=()):
        """After the draws that change the settings, before anything is started."""
        self.ranks = max(self.ranks, at_least)
        self.options += options
        self.folder = self.setup.new_folder(f"trial-{self.number}", copy_data)
        self.reference = self.setup.reference(self.ranks, self.options)
        self.note(f"{self.ranks} ranks, {' '.join(self.options)}" + (", checkpoints beside the training" if self.beside else ""))

    @property
    def run(self):
        return os.path.join(self.folder, "run")

    def any_instant(self, first=1):
        """Somewhere in the run; one in six before the first update, where first allows it."""
        early = self.rng.random() < 1 / 6
        update, part = self.rng.randrange(first, UPDATES - 1), self.rng.random()
        return (0, part) if early and first == 1 else (update, part)

    def instant(self, drawn):
        """Seconds from what was drawn as parts: of the time to the first update, or of one and a half updates, in which
        most of a checkpoint lies."""
        update, part = drawn
        unit = 1.5 * self.reference.update_seconds if update else 1.2 * self.reference.start_seconds
        return Instant(update, part * unit)

    def at(self, update):
        return Instant(update, 0)

    # Starting and watching.

    def start(self, ranks=None, options=(), environment=None, sharding=None):
        settings = [f"parallel.shard={sharding}" if sharding and o.startswith("parallel.shard=") else o
                    for o in self.options]
        if self.setup.has("async"):
            settings.append(f"checkpoint.async={str(self.beside).lower()}")
        job = self.setup.start(self.folder, ranks or self.ranks, [*settings, *options], f"{len(self.jobs)}.txt",
                               environment or {})
        job.good_before = self.newest_good()
        self.jobs.append(job)
        return job

    def newest_good(self):
        """The update a start must go on from: that of the newest complete checkpoint the trial did not harm."""
        return max((u for u in checkpoints(self.run) if u not in self.damaged), default=0)

    def progress(self):
        return last_update(self.run)

    def reach(self, job, instant):
        """Waits for a moment of the run. False: the job was over before."""
        while instant.update and self.progress() < instant.update:
            if job.over() or time.monotonic() - job.began > self.setup.limit:
                return False
            time.sleep(POLL_SECONDS)
        target = job.began if instant.update == 0 else time.monotonic()
        while time.monotonic() < target + instant.seconds:
            if job.over():
                return False
            time.sleep(POLL_SECONDS / 4)
        # Faults of a single rank want it there.
        while not job.all_started() and not job.over() and time.monotonic() - job.began < self.setup.limit:
            time.sleep(POLL_SECONDS)
        return not job.over()

    def wait(self, job, limit=None):
        """The exit code; a job that does not end is a failure."""
        job.rank_pids()
        code = job.wait(limit or self.setup.limit)
        if code is None:
            raise Wrong(f"start {self.jobs.index(job) + 1} hangs: still there after {limit or self.setup.limit} s")
        text = job.printed()
        if job.code != code:
            self.note(f"start {self.jobs.index(job) + 1}: exit code {code}")
        job.code = code
        if code == 6 or DEFECTS.search(text):
            raise Wrong("a defect shows in what was printed")
        return code

    def require(self, job, code, wanted, *pieces):
        """The exit code is one of those wanted and every piece (a regular expression) was printed."""
        if code not in wanted:
            raise Wrong(f"exit code {code}, wanted one of {sorted(wanted)}")
        text = job.printed()
        for piece in pieces:
            if not re.search(piece, text):
                raise Wrong(f"nothing like \"{piece}\" was printed")

    def require_refusal(self, job, code, wanted, *pieces, most_errors=1):
        self.require(job, code, {wanted}, *pieces)
        # mpirun may put it into the midst of a line of standard output.
        said = re.findall(r"(?:^error: |error: rank).*", job.printed(), re.MULTILINE)
        if not 1 <= len(said) <= most_errors:
            raise Wrong(f"{len(said)} error messages, wanted {'one' if most_errors == 1 else f'1 to {most_errors}'}")
        self.refused = True
        self.note("refused, rightly: " + said[0].removeprefix("error: ")[:160])

    def check_resumed(self, job):
        """It went on from the newest good checkpoint and lost no more than one interval."""
        match = re.search(r"resumed from .* after (\d+) updates", job.printed())
        resumed = int(match[1]) if match else 0
        if "starting at" not in job.printed():
            return  # ended before it had looked
        if resumed != job.good_before:
            raise Wrong(f"went on from update {resumed}, though the checkpoint of {job.good_before} is good")

    def check_loss(self, reached):
        """After a fault: what is lost is no more than may be lost."""
        lost = reached - self.newest_good()
        if lost > self.may_lose:
            raise Wrong(f"{lost} updates lost ({reached} done, the newest good checkpoint is of {self.newest_good()})")

    def finish(self, first=None, starts=4, **how):
        """Starts until the run is done, and holds it against the undisturbed one. first: a job that goes on still."""
        done = first is None and self.jobs and self.jobs[-1].code == 0
        for _ in range(0 if done else starts):
            job, first = first or self.start(**how), None
            code = self.wait(job)
            self.check_resumed(job)
            if code == 0:
                break
            if code == 2 and "another run uses" in job.printed():
                time.sleep(0.2)  # ranks of a launcher that was killed are on their way out
                continue
            if code != 75:
                raise Wrong(f"exit code {code} without a fault left")
        else:
            if not done:
                raise Wrong(f"not done after {starts} more starts")
        self.reference.check(self.run, self.same_bits, self.all_lines)

    def clear(self):
        for job in self.jobs:
            job.end()
