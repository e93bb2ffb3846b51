"""The notebook's side: start the ranks of a call, hear of them, end them.

`Forked` asks a server (server.py) that has imported torch already. `Spawned` starts a
fresh Python per rank: slow, and the only way on Windows, which cannot fork.
Both have begin, pids {rank: pid}, exits {rank: exit code}, wait, ask_stacks, ask_moved
and end.
"""

import atexit
import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

from utils.files import ROOT
from utils.ranks import worker

PATIENCE = 120  # seconds for the server to import torch on a slow disk


class ServerLost(RuntimeError):
    "The process that hands out ranks ended by itself."


def _boot(call):
    "The command that runs `call` in a fresh Python which finds this course first."
    path = [str(ROOT), *(str(p) for p in sys.path if p)]
    code = f"import sys; sys.path[:] = {path!r}; from utils.ranks import server, worker"
    return [sys.executable, "-c", f"{code}; {call}"]


def _environ():
    "Few threads (a library that starts some cannot be forked) and quiet C++ logs."
    one = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
    )
    quiet = {
        "TORCH_CPP_LOG_LEVEL": "ERROR", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
    }  # fmt: skip
    return {**quiet, **os.environ, **one}


class Server:
    "One server process and the two pipes to it. It ends when this process does."

    def __init__(self):
        self.said = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            _boot(f"server.serve({tempfile.gettempdir()!r})"), env=_environ(), cwd=ROOT, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said,
            start_new_session=True,
        )  # fmt: skip
        self.owner, self.rest = os.getpid(), b""
        self.ears = selectors.DefaultSelector()
        self.ears.register(self.process.stdout, selectors.EVENT_READ)

    def order(self, order, **details):
        line = (json.dumps({"order": order, **details}) + "\n").encode()
        try:
            while line:  # an environment may be larger than a pipe
                line = line[self.process.stdin.write(line) :]
        except OSError:
            self.lost()
        except BaseException:  # an interrupt: half an order would spoil the next one
            self.close()
            raise

    def events(self, seconds):
        "What it says within `seconds`, or sooner once it has said anything."
        if not self.ears.select(max(seconds, 0)):
            return []
        read = os.read(self.process.stdout.fileno(), 65536)
        if not read:
            self.lost()
        *lines, self.rest = (self.rest + read).split(b"\n")
        return [event for event in map(_event, lines) if event]

    def lost(self):
        "Say how it ended."
        self.said.seek(0)
        last = self.said.read().decode(errors="replace").strip()[-2000:]
        code = self.close()
        raise ServerLost(
            f"the process that hands out ranks ended (exit code {code}); the next call "
            f"starts a new one. {last}".strip()
        )

    def close(self):
        "End it; its ranks end with it. Returns the exit code."
        global _server
        if _server is self:
            _server = None
        self.ears.close()
        self.process.stdin.close()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.said.close()
        return self.process.returncode


def _event(line):
    "One line of the server; {} when an interrupt tore it."
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


_server = None
_parents = []  # servers of the process that this one was forked from: left alone
_numbers = itertools.count(1)


def server():
    "The server of this process; a new one at first, and whenever the old one has died."
    global _server
    if _server is not None and _server.owner != os.getpid():
        _parents.append(_server)
        _server = None
    if _server is not None and _server.process.poll() is not None:
        _server.close()
    _server = _server or Server()
    return _server


@atexit.register
def _close():
    if _server is not None and _server.owner == os.getpid():
        _server.close()


class Forked:
    "The ranks of one call, forked by the server."

    def __init__(self):
        self.server, self.call = server(), next(_numbers)
        self.pids, self.exits, self.ended = {}, {}, False
        self.needed = set()  # slow modules that the ranks had to import

    def begin(self, folder, n):
        "Start `n` ranks; return when they run."
        try:
            self._begin(folder, n)
        except ServerLost:
            self.server = server()  # it was dying since the last call: once more
            self._begin(folder, n)

    def _begin(self, folder, n):
        if loaded := [name for name in worker.LATER if name in sys.modules]:
            self.server.order("import", names=loaded)  # once for all ranks, not in each
        details = {"folder": str(folder), "n": n, "environ": dict(os.environ)}
        self.server.order("start", call=self.call, **details)
        until = time.monotonic() + PATIENCE
        while not self.pids:
            self.wait(until - time.monotonic())
            if time.monotonic() > until:
                self.server.lost()

    def wait(self, seconds):
        "Return after `seconds`, or sooner when something happened to a rank."
        for event in self.server.events(seconds):
            if event.get("call") != self.call:
                continue  # of a call that was interrupted
            if "pids" in event:
                self.pids = dict(enumerate(event["pids"]))
            if "exit" in event:
                self.exits[event["rank"]] = event["exit"]
            self.ended = self.ended or "ended" in event

    def ask_stacks(self):
        self.server.order("stacks")

    def ask_moved(self):
        self.server.order("moved")

    def end(self):
        "End every rank and all that it started; return when they are gone."
        if self.server.process.returncode is not None:
            return  # lost, and its ranks with it
        try:
            self.server.order("end", call=self.call)
            until = time.monotonic() + 5
            while not self.ended and time.monotonic() < until:
                self.wait(until - time.monotonic())
            if self.needed:  # the next ranks will find them imported
                self.server.order("import", names=sorted(self.needed))
        finally:
            if not self.ended and self.server.process.returncode is None:
                self.server.close()


class Spawned:
    "The ranks of one call, each a fresh Python."

    folder = None

    def __init__(self):
        self.pids, self.exits, self.processes, self.needed = {}, {}, [], set()

    def begin(self, folder, n):
        self.folder = folder
        for rank in range(n):
            with open(folder / f"start.{rank}", "wb") as said:
                process = subprocess.Popen(
                    _boot(f"worker.be_spawned({str(folder)!r}, {rank})"),
                    env=_environ(), cwd=ROOT, stdin=subprocess.PIPE, stdout=said,
                    stderr=said,
                )  # fmt: skip
            self.processes.append(process)
        self.pids = {rank: p.pid for rank, p in enumerate(self.processes)}

    def wait(self, seconds):
        time.sleep(max(0, min(seconds, 0.02)))
        codes = {rank: p.poll() for rank, p in enumerate(self.processes)}
        self.exits = {rank: c for rank, c in codes.items() if c is not None}

    def ask_stacks(self):
        if hasattr(signal, "SIGUSR1"):
            for rank, process in enumerate(self.processes):
                if (self.folder / f"crash.{rank}").exists():  # its handler is there
                    process.send_signal(signal.SIGUSR1)

    def ask_moved(self):
        for process in self.processes:
            with suppress(OSError):
                process.stdin.write(b"?")
                process.stdin.flush()

    def end(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            with suppress(OSError):
                process.stdin.close()


def new():
    "A crew, of the best kind that this machine has."
    return Forked() if hasattr(os, "fork") else Spawned()


def warm_up(modules):
    "Begin to start the server, without waiting for it."
    if hasattr(os, "fork"):
        server().order("import", names=list(modules))
