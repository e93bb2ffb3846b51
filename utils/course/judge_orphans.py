"""No process outlives its judge: neither an answer's own, nor what an answer has started.

An answer may start a process in a session of its own, where the end of the answer's group
does not reach it. Linux hands the children of a dead process to the nearest ancestor that
asks for them: while an answer is judged its judge asks, and ends what it is given. Other
systems know nothing of this; there only the answer's group is ended.
"""

import ctypes
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

DIE_WITH_PARENT, ADOPT, ADOPTS = 1, 36, 37  # prctl's numbers
SECONDS = 5  # to end what keeps starting more


@contextmanager
def adopted():
    "Whatever the processes of the block leave behind ends with the block."
    before, adopts = children(), ctypes.c_int(0)
    _prctl(ADOPTS, ctypes.byref(adopts))
    _prctl(ADOPT, 1)
    try:
        yield
    finally:
        until = time.monotonic() + SECONDS
        while (new := children() - before) and time.monotonic() < until:
            for pid in new:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)
        _prctl(ADOPT, adopts.value)


def children():
    "The processes that are this one's to bury; none where the system does not say."
    found = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found |= {int(pid) for pid in file.read_text().split()}
    return found


def die_with_judge():
    "End this process when the one that started it ends or is killed."
    _prctl(DIE_WITH_PARENT, signal.SIGKILL)


def _prctl(option, value):
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
