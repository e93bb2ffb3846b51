"""A process that has loaded a chapter's check and divides itself for each answer.

Loading PyTorch costs a second and more, an answer's own cells often less. Nothing of a
submission runs in the loaded process: each answer gets a copy of it (a fork), which the
fence keeps from the files that the next copy will read. Where there is no such fence, or
no fork, each answer's process loads everything anew (judge.py).
"""

import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from utils.course import judge_fence, judge_orphans
from utils.files import ROOT

LOADING = 120  # seconds
START = """
import sys
sys.path.insert(0, sys.argv[1])
from utils.course.judge_loaded import serve
serve(*sys.argv[2:])
"""


def possible():
    "Whether copies of one loaded process are kept apart here."
    return hasattr(os, "fork") and judge_fence.version() > 0


# ---- on the judge's side ----


class Loaded:
    "`with Loaded(slug, modules, environment) as loaded:` and loaded.run(job, desk, ...)."

    def __init__(self, slug, modules, environment):
        self.slug, self.modules, self.environment = slug, modules, environment
        self.ours = None

    def __enter__(self):
        self.desk = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.place = Path(os.path.realpath(self.desk.name))
        shutil.copytree(ROOT / "utils", self.place / "course" / "utils")
        return self

    def __exit__(self, *error):
        self._end()
        self.desk.cleanup()

    def run(self, job, desk, seconds):
        """Judge one answer in a copy of the process; what it has started ends with it.

        -> how it ended, what it said, its errors before it was ready.
        """
        new = tempfile.TemporaryFile
        with new() as told, new() as reply, new() as errors:
            error = self._start()
            if error:
                return "its process did not load", "", error
            job |= {"desk": str(desk), "environment": self.environment(desk)}
            told.write(json.dumps(job).encode())
            told.seek(0)
            with judge_orphans.adopted():
                ending = self._one([told, reply, errors], seconds)
            return ending, *map(read, (reply, errors))

    def _start(self):
        "Load, if nothing is loaded: -> '' or what went wrong."
        if self.ours is not None and self.process.poll() is None:
            return ""
        self._end()
        self.ours, theirs = socket.socketpair()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 -- until _end()
        self.process = subprocess.Popen(
            [
                sys.executable, "-I", "-B", "-c", START, str(self.place / "course"),
                str(theirs.fileno()), self.slug, *self.modules,
            ],
            stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors,
            cwd=self.place, env=self.environment(self.place), start_new_session=True,
            pass_fds=[theirs.fileno()],
        )  # fmt: skip
        theirs.close()
        if self._hear() == "loaded":
            return ""
        return self._end() or "It said nothing."

    def _one(self, files, seconds):
        "Hand an answer over, wait for its end: -> how it ended."
        with contextlib.suppress(OSError):
            socket.send_fds(self.ours, [b"."], [file.fileno() for file in files])
            if pid := self._hear():
                code = self._hear(seconds)
                with contextlib.suppress(OSError):
                    os.killpg(int(pid), signal.SIGKILL)
                if code or self._hear():
                    self.ours.sendall(b".")  # its number may be another's from now on
                    late = f"was still running after {seconds} s and was ended"
                    return f"its process {f'ended with code {code}' if code else late}"
        self._end()
        return "the process that had loaded the course was ended"

    def _hear(self, seconds=LOADING):
        "The next line; '' where none comes in this time, or nobody is there."
        line = b""
        self.ours.settimeout(seconds)
        with contextlib.suppress(OSError):
            while not line.endswith(b"\n"):
                if not (more := self.ours.recv(1)):
                    return ""
                line += more
            return line.decode().strip()
        return ""

    def _end(self):
        "End the process, if there is one: -> what it printed."
        if self.ours is None:
            return ""
        self.ours.close()
        self.ours = None
        end(self.process)
        with self.errors:
            return read(self.errors)


def end(process):
    "End a process and those of its session."
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def read(file):
    "What a file's beginning says."
    file.seek(0)
    return file.read(100_000).decode("utf-8", "replace")


# ---- in the loaded process ----


def serve(number, chapter, *modules):
    "Load, then divide for every answer that comes by the socket, until it is closed."
    judge_orphans.die_with_judge()
    channel = socket.socket(fileno=int(number))
    gc.disable()  # imports leave no garbage
    import torch

    from utils.course import judge_process

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a copy has no threads: none may be waited for in it
    judge_process.load(chapter)
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # copies share what is never looked at
    gc.enable()
    channel.sendall(b"loaded\n")
    while True:
        _, files, _, _ = socket.recv_fds(channel, 1, 3)
        if not files:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            try:
                channel.close()
                torch.set_num_threads(threads)
                _become(judge_process.main, *files)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)
        for file in files:
            os.close(file)
        channel.sendall(f"{pid}\n".encode())
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        by_itself = ended.si_code == os.CLD_EXITED
        code = ended.si_status if by_itself else -ended.si_status
        channel.sendall(f"{code}\n".encode())
        channel.recv(1)  # its group was ended
        os.waitpid(pid, 0)


def _become(main, told, reply, errors):
    "Be the process of one answer."
    os.setsid()
    os.dup2(errors, 2)
    with open(told) as file:
        job = json.load(file)
    os.environ.clear()
    os.environ.update(job.pop("environment"))
    os.chdir(Path(job.pop("desk")) / "work")
    tempfile.tempdir = None
    main(job, reply)
