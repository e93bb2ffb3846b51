"""The process that hands out ranks: it imports torch once, a rank is a fork of it.

It has one thread, imports and nothing else, so that its forks are clean. It reads one
JSON line per order and writes one per event; the ranks write theirs beside it. When the
notebook ends, or is killed, it ends its ranks, removes what both left and ends too.
"""

import ctypes
import functools
import gc
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from importlib import import_module

from utils.ranks import left, worker

DIE_WITH_PARENT, ADOPT = 1, 36  # prctl: PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER


def serve(folder):
    """Obey until the notebook, the process that started this one, is gone.

    folder: where temporary folders lie, for what the notebook may leave there.
    """
    notebook = os.getppid()
    orders, events = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a rank's own handler comes late
    _prctl(ADOPT, 1)
    gc.disable()  # for good: imports leave no garbage, and forks turn it on again
    for name in ("torch", "torch.distributed", "numpy", "cloudpickle", "linecache"):
        import_module(name)
    server = _Server(events)
    try:
        server.obey(orders, notebook)
    finally:
        server.end()
        left.sweep(folder)


class _Server:
    def __init__(self, events):
        self.events, self.call, self.ranks = events, None, {}
        self.pid, self.dead, self.lines = os.getpid(), set(), []
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_write)
        _freeze()

    def obey(self, orders, notebook):
        "Read orders; notice dead ranks at once and a dead notebook within a second."
        rest = b""
        while os.getppid() == notebook:
            ready, _, _ = select.select([orders, self.wake_read], [], [], 1.0)
            if self.wake_read in ready:
                with suppress(BlockingIOError):
                    os.read(self.wake_read, 4096)
            self.reap()
            if orders in ready:
                read = os.read(orders, 65536)
                if not read:
                    return
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    self.do(**json.loads(line))

    def do(self, order, **details):
        if order == "start":
            self.start(**details)
        elif order == "stacks":
            for pid in set(self.ranks) - self.dead:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
        elif order == "moved":
            for line in self.lines:
                with suppress(OSError):
                    os.write(line, b"?")
        elif order == "end":
            self.end()
            _say(self.events, call=details["call"], ended=True)
        elif order == "import" and (new := set(details["names"]) - set(sys.modules)):
            for name in new:
                with suppress(Exception):
                    import_module(name)
            _freeze()

    def start(self, call, folder, n, environ):
        self.end()
        self.call = call
        for rank in range(n):
            line, ask = os.pipe()
            self.lines.append(ask)
            pid = os.fork()
            if pid == 0:
                self.become(rank, folder, environ, line)
            os.close(line)
            os.set_blocking(ask, False)
            with suppress(OSError):
                os.setpgid(pid, pid)
            self.ranks[pid] = rank
        _say(self.events, call=call, pids=list(self.ranks))

    def become(self, rank, folder, environ, line):
        "In the fork: be this rank until the end, then wait to be ended."
        try:
            with suppress(OSError):
                os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            gc.enable()
            self.hang_up()
            die_with_parent(self.pid)
            told = {"call": self.call, "rank": rank, "report": True}
            say = functools.partial(_say, self.events, **told)
            worker.be(folder, rank, environ, line, say)
            while True:  # the others may still want what this rank has sent
                time.sleep(3600)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def hang_up(self):
        "Close this process's end of the lines to ranks."
        for line in self.lines:
            os.close(line)
        self.lines = []

    def reap(self):
        "Tell which ranks have died; bury what they left behind."
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self.ranks:
                    self.dead.add(pid)
                    code = os.waitstatus_to_exitcode(status)
                    rank = self.ranks[pid]
                    _say(self.events, call=self.call, rank=rank, exit=code)

    def end(self):
        "End all ranks and whatever they started; what tidies up behind one has 0.3 s."
        for pid in set(self.ranks) - self.dead:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.left(0.3):
            for group in self.ranks:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
            for pid in _children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.left(1.0)
        self.ranks, self.dead = {}, set()
        self.hang_up()

    def left(self, seconds):
        "Bury the dead until nobody is left, or for so long: is anybody?"
        until = time.monotonic() + seconds
        while True:
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                if not any(map(_alive, self.ranks)):
                    return False
            if time.monotonic() > until:
                return True
            time.sleep(0.002)


def _children():
    "The processes that are this one's to bury: ranks, and orphans of ranks (Linux)."
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _alive(group):
    "Has this process group a member, living or unburied?"
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _say(events, **event):
    os.write(events, (json.dumps(event) + "\n").encode())  # short, so never torn


def _freeze():
    "Move all objects out of the collector's sight, so that forks share their memory."
    gc.collect()
    gc.freeze()


def _prctl(option, value):
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with_parent(parent):
    "End this process when the one that started it ends, however that happens."
    if sys.platform.startswith("linux"):
        _prctl(DIE_WITH_PARENT, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
