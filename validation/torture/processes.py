# SPDX-License-Identifier: Apache-2.0
"""Faults of processes: killed, paused, told to stop. Each function is a kind: it draws, does its harm to a run, checks what
that must give, and has the run finished."""
import os
import signal
import time

from trial import UPDATES

KILLED = 128 + signal.SIGKILL


def _killed(trial, instants, kill):
    """Starts, kills at an instant, looks at what is left; for each instant once."""
    for drawn in instants:
        instant = trial.instant(drawn)
        job = trial.start()
        trial.note(f"at {instant}: {trial.kind}")
        if trial.reach(job, instant):
            kill(job)
        code = trial.wait(job)
        trial.check_resumed(job)
        trial.check_loss(trial.progress())
        if code == 0:
            break
        if code != KILLED:
            trial.require(job, code, {2}, "another run uses")  # ranks of the launcher killed before are not gone yet
            time.sleep(0.2)
    trial.finish()


def _instants(trial):
    return [trial.any_instant() for _ in range(trial.rng.choice((1, 1, 2)))]


def kill_rank(trial):
    instants, part = _instants(trial), trial.rng.random()
    trial.prepare()
    victim = int(part * trial.ranks)
    trial.note(f"victim: rank {victim}")
    _killed(trial, instants, lambda job: job.send_to_rank(victim, signal.SIGKILL))


def kill_all(trial):
    instants = _instants(trial)
    trial.prepare()

    def kill(job):
        for rank in range(trial.ranks):
            job.send_to_rank(rank, signal.SIGKILL)

    _killed(trial, instants, kill)


def kill_launcher(trial):
    """Ranks without their mpirun must end by themselves; until they have, the next start finds the folder locked."""
    instants = _instants(trial)
    trial.prepare()
    _killed(trial, instants, lambda job: (job.rank_pids(), job.send_to_launcher(signal.SIGKILL)))


def kill_in_save(trial):
    """At the n-th call that writes into a checkpoint, syncs or renames one: exact, where an instant only comes near."""
    call = trial.rng.choice((("write", 150), ("write", 1200), ("sync", 16), ("rename", 6), ("open", 12)))
    part, victim = trial.rng.random(), trial.rng.random()
    trial.prepare()
    victim = int(victim * trial.ranks) if call[0] in ("write", "sync") else 0
    trial.note(f"rank {victim} kills itself instead of its {call[0]} call {int(part * call[1])} under checkpoints/")
    job = trial.start(environment=trial.setup.fault(call[0], "KILL", after=int(part * call[1]), rank=victim))
    code = trial.wait(job)
    trial.require(job, code, {0, KILLED})
    trial.check_loss(trial.progress())
    trial.finish()


def pause_rank(trial):
    """Stopped for less than counts as a hang, then continued: nobody may notice."""
    drawn, part, length = trial.any_instant(), trial.rng.random(), trial.rng.uniform(0.05, 0.6)
    trial.prepare()
    victim, instant = int(part * trial.ranks), trial.instant(drawn)
    trial.note(f"at {instant}: SIGSTOP to rank {victim}, SIGCONT after {length:.2f} s")
    job = trial.start()
    if trial.reach(job, instant):
        job.send_to_rank(victim, signal.SIGSTOP)
        time.sleep(length)
        job.send_to_rank(victim, signal.SIGCONT)
    trial.finish(first=job)


def stop_rank(trial):
    """Stopped for good: the others' watchdogs must find out, say which rank it is, and end the run with 5."""
    drawn, part = trial.any_instant(first=2), trial.rng.random()
    trial.prepare(at_least=2)
    victim, instant = int(part * trial.ranks), trial.instant(drawn)
    trial.note(f"at {instant}: SIGSTOP to rank {victim}")
    job = trial.start(options=["log.hang_seconds=5", "log.hang_checkpoint_seconds=5"])
    sent = trial.reach(job, instant) and job.send_to_rank(victim, signal.SIGSTOP)
    code = trial.wait(job)
    if code != 0 or not sent:
        trial.require(job, code, {5} if sent else {0}, rf"rank {victim}\b" if sent else "")
    trial.check_loss(trial.progress())
    trial.finish()


stop_rank.needs = "hang_checkpoint_seconds"


def _file_in_run(trial, name, wanted):
    drawn = trial.any_instant()
    trial.prepare()
    instant = trial.instant(drawn)
    trial.note(f"at {instant}: {name}")
    job = trial.start()
    if trial.reach(job, instant) and os.path.isdir(trial.run):
        with open(os.path.join(trial.run, name), "w", encoding="utf-8"):
            pass
    code = trial.wait(job)
    trial.require(job, code, wanted)
    _nothing_lost(trial, code)
    trial.finish()


def stop_file(trial):
    """STOP in the run folder: as a signal. A run that is over before anybody looks for it is over."""
    _file_in_run(trial, "STOP", {0, 75})


def checkpoint_file(trial):
    """CHECKPOINT in the run folder: one more checkpoint, and the run goes on."""
    _file_in_run(trial, "CHECKPOINT", {0})


stop_file.needs = checkpoint_file.needs = "hang_checkpoint_seconds"


def _set_up(drawn):
    return drawn[0] == 0


def signal_rank(trial):
    """A checkpoint and 75. Before the run watches for signals, a signal ends it as it ends any program."""
    drawn, part = trial.any_instant(), trial.rng.random()
    name = trial.rng.choice(("USR1", "TERM", "INT"))
    trial.prepare()
    number = getattr(signal, "SIG" + name)
    victim, instant = int(part * trial.ranks), trial.instant(drawn)
    trial.note(f"at {instant}: SIG{name} to rank {victim}")
    job = trial.start()
    sent = trial.reach(job, instant) and job.send_to_rank(victim, number)
    code = trial.wait(job)
    trial.require(job, code, {0, 75} | ({128 + number} if _set_up(drawn) else set()) if sent else {0})
    _nothing_lost(trial, code)
    trial.finish()


def _nothing_lost(trial, code):
    """75 says that a checkpoint is written: of everything that was done."""
    if code == 75:
        trial.may_lose = 0
    trial.check_loss(trial.progress())


def signal_launcher(trial):
    """mpirun passes USR1 on. On TERM and INT it kills the ranks itself a little later, whatever they are doing."""
    drawn = trial.any_instant()
    name = trial.rng.choice(("USR1", "USR1", "TERM", "INT"))
    trial.prepare()
    number, instant = getattr(signal, "SIG" + name), trial.instant(drawn)
    trial.note(f"at {instant}: SIG{name} to mpirun")
    job = trial.start()
    sent = trial.reach(job, instant)
    if sent:
        job.send_to_launcher(number)
    code = trial.wait(job)
    wanted = {0, 75}
    if name != "USR1":
        wanted |= {1, KILLED, 128 + number}
    if _set_up(drawn):
        wanted |= {128 + number}
    trial.require(job, code, wanted if sent else {0})
    if name == "USR1":
        _nothing_lost(trial, code)
    trial.finish()


def two_signals(trial):
    """The second ends the rank at once, perhaps in the middle of the checkpoint that the first asked for."""
    drawn, part, gap = trial.any_instant(first=2), trial.rng.random(), trial.rng.random()
    names = [trial.rng.choice(("USR1", "TERM", "INT")) for _ in range(2)]
    trial.prepare()
    victim, instant = int(part * trial.ranks), trial.instant(drawn)
    gap *= 2.5 * trial.reference.update_seconds
    trial.note(f"at {instant}: SIG{names[0]} to rank {victim}, SIG{names[1]} {gap * 1000:.0f} ms later")
    job = trial.start()
    if trial.reach(job, instant):
        job.send_to_rank(victim, getattr(signal, "SIG" + names[0]))
        time.sleep(gap)
        job.send_to_rank(victim, getattr(signal, "SIG" + names[1]))
    code = trial.wait(job)
    trial.require(job, code, {0, 75, KILLED})
    trial.check_loss(trial.progress())
    trial.finish()


def walltime(trial):
    """log.walltime on every start, so short that the run needs several."""
    seconds = trial.rng.choice((2, 3))
    trial.prepare()
    seconds += int(trial.reference.start_seconds)
    trial.note(f"log.walltime = {seconds} s")
    trial.finish(starts=UPDATES, options=[f"log.walltime=00:00:{seconds:02d}"])


KINDS = [kill_rank, kill_all, kill_launcher, kill_in_save, pause_rank, stop_rank, signal_rank, signal_launcher, two_signals,
         walltime, stop_file, checkpoint_file]
