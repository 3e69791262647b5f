# SPDX-License-Identifier: Apache-2.0
"""One start of a run: mpirun and its ranks as processes. Knows signals and time, nothing of what is right."""
import os
import signal
import subprocess
import time

POLL_SECONDS = 0.004


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _children(pid):
    """Direct children of a process, whichever of its threads made them."""
    out = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return out
    for thread in threads:
        out += [int(child) for child in _read(f"/proc/{pid}/task/{thread}/children").split()]
    return out


def alive(pid):
    """A zombie counts as gone: it does nothing any more."""
    state = _read(f"/proc/{pid}/stat").rpartition(b") ")[2][:1]
    return state not in (b"", b"Z", b"X")


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Job:
    """A command on some ranks, started in its folder; everything it prints goes to a file there."""

    def __init__(self, launcher, ranks, command, folder, log, environment):
        self.log = os.path.join(folder, log)
        self.folder = folder
        arguments = [*launcher, "-n", str(ranks)]
        # Variables that only the ranks are to see (a preloaded library) go through the launcher's -x.
        for name, value in environment.items():
            arguments += ["-x", f"{name}={value}"]
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([*arguments, *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.STDOUT, start_new_session=True)
        self.ranks = ranks
        self.code = None
        self.began = time.monotonic()
        self.seen = {}

    def over(self):
        return self.process.poll() is not None

    def rank_pids(self):
        """rank -> process, of the ranks that have been started."""
        waiting = _children(self.process.pid)
        while waiting:
            pid = waiting.pop()
            for name in (b"OMPI_COMM_WORLD_RANK=", b"PMI_RANK="):
                for entry in _read(f"/proc/{pid}/environ").split(b"\0"):
                    if entry.startswith(name):
                        self.seen[int(entry[len(name):])] = pid
            waiting += _children(pid)
        return dict(self.seen)

    def all_started(self):
        return len(self.rank_pids()) == self.ranks

    def send_to_rank(self, rank, number):
        pid = self.rank_pids().get(rank)
        if pid is not None:
            send(pid, number)
        return pid is not None

    def send_to_launcher(self, number):
        send(self.process.pid, number)

    def wait(self, seconds):
        """The exit code as a shell shows it; None if the job or one of its ranks is still there after this time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.over() and not any(alive(pid) for pid in self.seen.values()):
                code = self.process.returncode
                return 128 - code if code < 0 else code
            time.sleep(POLL_SECONDS)
        return None

    def end(self):
        """Nothing of it is left afterwards."""
        self.rank_pids()
        for pid in [self.process.pid, *self.seen.values()]:
            send(pid, signal.SIGKILL)
        self.process.wait()

    def printed(self):
        return _read(self.log).decode(errors="replace")
