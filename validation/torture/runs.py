# SPDX-License-Identifier: Apache-2.0
"""Faults of whoever starts runs: two at once, other ranks, other settings."""
import signal

from expected import Wrong
from trial import INTERVAL, SHARDINGS


def two_jobs(trial):
    """The same command twice on one folder: one runs, the other is refused and harms nothing."""
    together = trial.rng.random() < 0.5
    drawn = trial.any_instant()
    trial.prepare()
    trial.note("two jobs " + ("at once" if together else f"the second at {trial.instant(drawn)}"))
    first = trial.start()
    if not together:
        trial.reach(first, trial.instant(drawn))
    second = trial.start()
    codes = {job: trial.wait(job, 2 * trial.setup.limit) for job in (first, second)}
    refused = [job for job, code in codes.items() if code == 2]
    for job in refused:
        trial.require_refusal(job, 2, 2, "another run uses run")
    for job, code in codes.items():
        if job not in refused:
            trial.require(job, code, {0})
    # Neither refused: the second came when the first was done, and found nothing to do.
    trial.require(first, len(refused), {0, 1})
    trial.finish()


def _stopped(trial, drawn):
    job = trial.start()
    if trial.reach(job, trial.instant(drawn)):
        job.send_to_rank(0, signal.SIGKILL)
    trial.wait(job)


def other_ranks(trial):
    """Killed, and gone on with on other ranks with other sharding, twice: the same losses but for the order of sums."""
    drawn = [trial.any_instant(first=2 * INTERVAL + 1) for _ in range(2)]
    settings = [(trial.rng.choice((1, 2, 3, 4)), trial.rng.choice(SHARDINGS)) for _ in range(2)]
    trial.prepare()
    _stopped(trial, drawn[0])
    trial.same_bits = False
    (ranks, sharding), last = settings
    trial.note(f"goes on with {settings[0]}, then with {settings[1]}")
    job = trial.start(ranks=ranks, sharding=sharding)
    if trial.reach(job, trial.instant(max(drawn))):
        job.send_to_rank(ranks - 1, signal.SIGKILL)
    trial.wait(job)
    trial.check_resumed(job)
    trial.check_loss(trial.progress())
    trial.finish(ranks=last[0], sharding=last[1])


MISTAKES = [
    (2, "data.global_batch is 24, was", ["data.global_batch=24"]),
    (2, r"head.dims is \[64, 48, 16\], was", ["head.dims=[64,48,16]"]),
    (2, "head.prototypes is 24, was", ["head.prototypes=24"]),
    (2, "unknown key", ["swav.epsilom=0.03"]),
    (2, "ranks", ["data.global_batch=13"]),
    (3, "nowhere", ["data.shards=nowhere"]),
]


def other_settings(trial):
    """Started again with settings that do not fit the checkpoint: refused, and the run is as it was."""
    drawn = trial.any_instant(first=2 * INTERVAL + 1)
    code, piece, options = trial.rng.choice(MISTAKES)
    trial.prepare(at_least=2)
    _stopped(trial, drawn)
    trial.note(f"then with {options[0]}")
    job = trial.start(options=options)
    trial.require_refusal(job, trial.wait(job), code, piece)
    trial.finish()


def bad_number(trial):
    """A gradient of one rank is not finite in one update: all ranks leave it out, also when it is done again after a kill."""
    update, rank, drawn = trial.rng.choice((6, 13)), trial.rng.randrange(2), trial.any_instant(first=2)
    trial.prepare(options=[f"faults.nan_updates=[{update}]", f"faults.nan_rank={rank}"])
    skipped = [line["skipped"] for line in trial.reference.lines]
    if skipped[update - 2] != 0 or skipped[update - 1] != 1:
        raise Wrong(f"the undisturbed run left out {skipped[-1]} updates by its end, wanted update {update} alone")
    _stopped(trial, drawn)
    trial.finish()


bad_number.needs = "nan_updates"

KINDS = [two_jobs, other_ranks, other_settings, bad_number]
