# SPDX-License-Identifier: Apache-2.0
"""Faults of files: a disk that is full or fails, checkpoints that rot or vanish, shards that do."""
import os
import shutil
import signal
import subprocess

from expected import checkpoints
from trial import INTERVAL, UPDATES

ERRORS = {"ENOSPC": "No space left", "EIO": "Input/output error", "EDQUOT": "[Qq]uota", "EROFS": "Read-only"}
GOES_ON = r"warning: .*(checkpoint|the run goes on)"  # the latter: of records that were lost


def write_error(trial):
    """Calls under checkpoints/ fail for a while. The run keeps the checkpoint before, warns and goes on."""
    call, most = trial.rng.choice((("write", 150), ("write", 600), ("sync", 16), ("rename", 6), ("open", 12)))
    error = trial.rng.choice([*ERRORS, "SHORT"] if call == "write" else [*ERRORS])
    after, count = trial.rng.randrange(most), trial.rng.choice((1, 1, 3, 30, 300))
    part = trial.rng.random()
    trial.prepare()
    rank = int(part * trial.ranks) if call in ("write", "sync") else 0
    trial.note(f"rank {rank}: {call} calls {after} to {after + count - 1} under checkpoints/ give {error}")
    job = trial.start(environment=trial.setup.fault(call, error, after=after, count=count, rank=rank,
                                                    path="run/checkpoints"))
    code = trial.wait(job)
    _after_failed_saves(trial, job, code, ERRORS.get(error, ""))


def _after_failed_saves(trial, job, code, reason):
    """What a run may say whose file system failed: nothing, where the failing call came too late or could be made
    again; a warning; or, where no checkpoint of the last update could be written, exit code 3."""
    trial.may_lose = UPDATES
    if code != 0:
        # MPI-IO does not hand on why a call failed.
        trial.require_refusal(job, code, 3, reason + "|MPI_File_" if reason else "")
    elif "warning: " in job.printed():
        trial.require(job, code, {0}, GOES_ON)
    if "metrics.jsonl cannot be written" in job.printed():
        trial.all_lines = False
    trial.finish()


def rehearsal_error(trial):
    """The file system fails before the first update: the run says so instead of computing for hours."""
    call = trial.rng.choice(("write", "sync", "rename", "open"))
    error, part = trial.rng.choice([*ERRORS]), trial.rng.random()
    trial.prepare()
    rank = int(part * trial.ranks) if call in ("write", "sync") else 0
    trial.note(f"rank {rank}: every {call} call of the rehearsal gives {error}")
    job = trial.start(environment=trial.setup.fault(call, error, count=10**6, rank=rank, path="run/.rehearsal"))
    trial.require_refusal(job, trial.wait(job), 3, "rehearsal of a checkpoint failed")
    trial.finish()


def disk_full(trial):
    """A small file system of its own, filled at an instant; at another one there is room again."""
    drawn, later = trial.any_instant(first=2), trial.rng.randrange(1, 2 * INTERVAL)
    trial.prepare()
    instant, free_at = trial.instant(drawn), min(drawn[0] + later, UPDATES)
    os.makedirs(trial.run)
    # Root's privilege; without it the shim's ENOSPC (write_error) is what there is.
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "seer-torture", trial.run],
                             stderr=subprocess.DEVNULL, check=False).returncode == 0
    if not mounted:
        trial.note("cannot mount a tmpfs: every write call gives ENOSPC instead")
        job = trial.start(environment=trial.setup.fault("write", "ENOSPC", after=10, count=200, path="run/checkpoints"))
        _after_failed_saves(trial, job, trial.wait(job), ERRORS["ENOSPC"])
        return
    try:
        filler = os.path.join(trial.run, "filler")
        trial.note(f"at {instant}: the disk is full; from update {free_at} on there is room")
        job = trial.start()
        if trial.reach(job, instant):
            _fill(filler)
            while trial.progress() < free_at and not job.over():
                if not trial.reach(job, trial.at(trial.progress() + 1)):
                    break
            os.unlink(filler)
        _after_failed_saves(trial, job, trial.wait(job), "space left|No space")
    finally:
        trial.clear()
        subprocess.run(["umount", trial.run], check=False)


def _fill(path):
    block = b"\0" * 65536
    with open(path, "wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(block[:size]) == size:
                    pass
            except OSError:
                continue


def _draw_damage(trial):
    return {"file": trial.rng.choice(("state.h5", "state.h5", "manifest.json")),
            "how": trial.rng.choice(("flip", "flip", "zeros", "cut", "empty", "gone", "longer")),
            "part": trial.rng.random(), "bit": trial.rng.randrange(8)}


def _damage(trial, folder, what):
    path = os.path.join(folder, what["file"])
    size = os.path.getsize(path)
    at = min(int(what["part"] * size), size - 1)
    trial.note(f"{os.path.basename(folder)}/{what['file']} of {size} bytes: {what['how']} at byte {at}")
    if what["how"] == "gone":
        os.unlink(path)
        return
    with open(path, "r+b") as file:
        if what["how"] in ("flip", "zeros"):
            file.seek(at)
            old = file.read(64 if what["how"] == "zeros" else 1)
            new = bytes(len(old)) if what["how"] == "zeros" and any(old) else bytes([old[0] ^ (1 << what["bit"])]) + old[1:]
            file.seek(at)
            file.write(new)
        elif what["how"] == "longer":
            file.seek(size)
            file.write(b"x" * 100)
        else:
            file.truncate(at if what["how"] == "cut" else 0)


def _stop_after_some(trial, drawn):
    """Ends the run by kill -9 at an instant by which it has a checkpoint."""
    job = trial.start()
    if trial.reach(job, trial.instant(drawn)):
        for rank in range(trial.ranks):
            job.send_to_rank(rank, signal.SIGKILL)
    trial.wait(job)


def rotten(trial):
    """Between two starts a checkpoint is damaged. If it is the newest, it is refused by name, and the one before it used."""
    drawn, damage = trial.any_instant(first=2 * INTERVAL + 1), _draw_damage(trial)
    newest = trial.rng.random() < 0.8
    trial.prepare()
    _stop_after_some(trial, drawn)
    found = sorted(checkpoints(trial.run))
    newest = newest or len(found) == 1
    update = found[-1] if newest else found[-2]
    folder = checkpoints(trial.run)[update]
    _damage(trial, folder, damage)
    trial.damaged.add(update)
    job = trial.start()
    code = trial.wait(job)
    trial.check_resumed(job)
    if newest:
        trial.require(job, code, {0}, os.path.basename(folder) + ".* is not used: ")
    trial.finish(first=job)


def all_rotten(trial):
    """No checkpoint is left that can be used: refused, and not begun anew over the ruins; --resume never does that."""
    drawn = trial.any_instant(first=2 * INTERVAL + 1)
    damages = [_draw_damage(trial) for _ in range(4)]
    trial.prepare()
    _stop_after_some(trial, drawn)
    whole = sorted(checkpoints(trial.run))
    for update, damage in zip(whole, damages):
        # A folder without a manifest was never complete: not one to refuse over.
        if damage["file"] == "manifest.json" and damage["how"] == "gone":
            damage["how"] = "empty"
        _damage(trial, checkpoints(trial.run)[update], damage)
        trial.damaged.add(update)
    job = trial.start()
    trial.require_refusal(job, trial.wait(job), 3, "no checkpoint in .* can be used", "--resume never")
    shutil.rmtree(os.path.join(trial.run, "checkpoints"))
    trial.damaged.clear()
    trial.finish()


def rotten_live(trial):
    """Damaged while the run goes on, which does not look at it; then the run is killed."""
    drawn, damage, later = trial.any_instant(first=2 * INTERVAL + 1), _draw_damage(trial), trial.any_instant(first=INTERVAL + 1)
    trial.prepare()
    job = trial.start()
    if trial.reach(job, trial.instant(drawn)):
        found = checkpoints(trial.run)
        try:
            _damage(trial, found[max(found)], damage)
            trial.damaged.add(max(found))
        except FileNotFoundError:
            trial.note("gone before it could be damaged")
    if later > drawn and trial.reach(job, trial.instant(later)):
        trial.note(f"killed at {trial.instant(later)}")
        job.send_to_rank(0, signal.SIGKILL)
    code = trial.wait(job)
    # None whole is left where it was the only one.
    if code != 0 and not trial.newest_good() and checkpoints(trial.run):
        job = trial.start()
        trial.require_refusal(job, trial.wait(job), 3, "no checkpoint in .* can be used")
        shutil.rmtree(os.path.join(trial.run, "checkpoints"))
        trial.damaged.clear()
    trial.finish()


def vanished(trial):
    """The folder of checkpoints is taken away while the run goes on. At its worst that meets ranks that are just opening a
    file in it together, in MPI-IO, which then waits for ever: the watchdog must end that."""
    drawn = trial.any_instant(first=2)
    trial.prepare()
    instant = trial.instant(drawn)
    trial.note(f"at {instant}: checkpoints/ taken away")
    job = trial.start(options=["log.hang_checkpoint_seconds=10"] if trial.setup.has("hang_checkpoint_seconds") else [])
    folder, gone = os.path.join(trial.run, "checkpoints"), trial.run + ".vanished"
    moved = trial.reach(job, instant) and os.path.isdir(folder)
    if moved:
        os.rename(folder, gone)
    code = trial.wait(job)
    if moved and not os.path.isdir(folder) and os.path.isdir(os.path.join(gone, f"update-{UPDATES:08}")):
        trial.note("the run had saved its last checkpoint before")
        os.rename(gone, folder)
    shutil.rmtree(gone, ignore_errors=True)
    if code == 5:
        trial.require(job, code, {5}, "checkpoint")
        trial.may_lose = UPDATES
        trial.finish()
    else:
        _after_failed_saves(trial, job, code, "")


def shard_lost(trial):
    """A shard is removed, cut or damaged while images are read from it. A run that reads none of it any more ends as if
    nothing had been; else it says which file, and finishes when the file is back."""
    drawn, how = trial.any_instant(first=2), trial.rng.choice(("gone", "cut", "flip"))
    part, which = trial.rng.random(), trial.rng.randrange(2)
    trial.prepare(copy_data=True)
    shards = sorted(os.listdir(os.path.join(trial.folder, "data")))
    path = os.path.join(trial.folder, "data", shards[which])
    whole = os.path.join(trial.setup.root, "data", shards[which])
    instant = trial.instant(drawn)
    trial.note(f"at {instant}: {shards[which]}: {how}")
    job = trial.start()
    if trial.reach(job, instant):
        if how == "gone":
            os.unlink(path)
        else:
            size = os.path.getsize(path)
            with open(path, "r+b") as file:
                if how == "cut":
                    file.truncate(int((0.2 + 0.6 * part) * size))
                else:
                    file.seek(int((0.1 + 0.5 * part) * size))
                    file.write(b"rot" * 3000)
    code = trial.wait(job)
    if code != 0:
        # Ranks that meet bad images in the same update each say so.
        trial.require_refusal(job, code, 3, shards[which], most_errors=trial.ranks)
    elif how == "gone":
        # The files were open. A start that has to open them again says that the data set is another one.
        trial.finish()
        job = trial.start(options=[f"schedule.total_updates={UPDATES + 2}"])
        trial.require(job, trial.wait(job), {0}, "the data set is not that of the checkpoint")
        return
    shutil.copyfile(whole, path)
    trial.finish()


KINDS = [write_error, rehearsal_error, disk_full, rotten, all_rotten, rotten_live, vanished, shard_lost]
