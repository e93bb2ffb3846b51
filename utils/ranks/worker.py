"""One rank: a process that calls fn(rank, n) once and leaves a report.

All that it has to say lies in the call's folder, so nothing is lost when it dies:
out.R and err.R what it printed, report.R how it ended, result.R what fn returned,
stack.R where it stood and moved.R what its sockets had moved, when it was asked. The
environment, which may hold secrets, comes through a pipe and is in no file.
"""

import contextlib
import faulthandler
import io
import json
import linecache
import os
import pickle
import random
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

from utils.ranks import meeting, sockets, travel

LOUD = 16 * 2**20  # bytes of print that are kept of one rank
LATER = ("torch._dynamo", "torch.distributed.pipelining")  # slow, and not always needed
CELL = re.compile(r'(File )?"?[^"\s]*ipykernel_\d+[/\\]\d+\.py"?')


def be(folder, rank, environ, line, tell=lambda: None):
    """Be one rank of the call in `folder`: work, report, call `tell`. Never raises.

    line: a file descriptor that questions come through; the rank ends when it is closed.
    """
    folder = Path(folder)
    call = pickle.loads((folder / "call").read_bytes())
    call["environ"] = {**environ, **call["settings"]}
    _speak_into(folder, rank)
    _show_stacks(folder, rank, call["timeout"])
    meeting.here.update(folder=folder, rank=rank, may_die=call["may_die"])
    threading.Thread(target=_answer, args=(line, folder, rank), daemon=True).start()
    report = _report(call, folder, rank)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    report.update(when=time.monotonic(), later=[m for m in LATER if m in sys.modules])
    draft = folder / f"report.{rank}.draft"
    draft.write_bytes(pickle.dumps(report))
    os.replace(draft, folder / f"report.{rank}")
    tell()


def be_spawned(folder, rank):
    "The same in a Python of its own, which ends when the notebook's end of stdin does."
    be(folder, rank, dict(os.environ), os.dup(0))
    while True:
        time.sleep(3600)


def _answer(line, folder, rank):
    "In a thread: each byte on `line` asks how much this rank's sockets have moved."
    while os.read(line, 1):
        said = None
        if (counts := sockets.counts()) is not None:
            moved = sum(c.sent + c.received for c in counts.values())
            said = moved, sum(c.waiting for c in counts.values())
        draft = folder / f"moved.{rank}.draft"
        with contextlib.suppress(OSError):  # the call is over, and its folder gone
            draft.write_text(json.dumps(said), encoding="ascii")
            os.replace(draft, folder / f"moved.{rank}")
    os._exit(1)


def _report(call, folder, rank):
    "Call the function: {} when the result is written, else kind, what and traceback."
    pid = os.getpid()
    try:
        _settle(call, rank)
        fn, classes = travel.unpack(call["fn"])
        _be_main(fn, classes)
        try:
            join(call, folder, rank)
        except Exception as error:
            what = f"could not join the others: {type(error).__name__}: {error}"
            return _failure("join", what, error)
        value = fn(rank, call["n"])
    except SystemExit as error:
        return _failure("exited", f"left by sys.exit({error.code!r})", error)
    except BaseException as error:
        what = f"raised {type(error).__name__}: {error}".strip().rstrip(":")
        return _failure("raised", what, error)
    finally:
        if os.getpid() != pid:  # a copy that fn forked, and that came back
            os._exit(0)
    try:
        travel.send_home(value, classes, folder / f"result.{rank}")
    except BaseException as error:
        what = (
            f"returned a {type(value).__name__} that cannot be pickled: {error}. "
            "Return numbers, text, arrays or tensors"
        )
        return {"kind": "result", "what": what, "traceback": ""}
    return {}


def _failure(kind, what, error):
    step = error.__traceback__
    while step and step.tb_frame.f_code.co_filename == be.__code__.co_filename:
        step = step.tb_next  # begin where fn does
    lines = traceback.format_exception(type(error), error, step)
    return {"kind": kind, "what": what, "traceback": cells("".join(lines))}


def cells(text):
    "A cell has no file worth reading: its path becomes `cell`."
    return CELL.sub(lambda found: "Cell" if found[1] else "cell", text)


# ---- what a rank needs before it starts ----


def _settle(call, rank):
    "The notebook's environment, path, filters and sources; own seed; few threads."
    os.environ.clear()
    os.environ.update(call["environ"], RANK=str(rank), LOCAL_RANK=str(rank))
    sys.path[:], sys.argv[:] = call["path"], call["argv"]
    if os.path.isdir(call["cwd"]):
        os.chdir(call["cwd"])
    warnings.filters[:] = call["filters"]
    if hasattr(warnings, "_filters_mutated"):
        warnings._filters_mutated()
    linecache.cache.update(call["sources"])
    prepare(call["seed"] + rank, call["threads"])


def _be_main(fn, classes):
    "Let pickle find what came from the notebook: all_gather_object uses plain pickle."
    found = {c.__name__: c for c in classes if c.__module__ == "__main__"}
    found |= getattr(fn, "__globals__", {})  # of two versions of a class, today's
    main = vars(sys.modules["__main__"])
    main.update({k: v for k, v in found.items() if not k.startswith("__")})


def prepare(seed, threads):
    "Seed everything, and let torch use so many threads."
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def join(call, folder, rank):
    "Meet the other ranks through a file of this call: no port is taken where that works."
    import torch
    from torch import distributed as dist

    if "nccl" in call["backend"]:
        torch.cuda.set_device(rank)
    n, wait = (
        call["n"],
        timedelta(seconds=call["timeout"] + 5),
    )  # the notebook's is first
    dist.init_process_group(
        call["backend"], store=meeting.between(folder, "store", n, rank == 0),
        rank=rank, world_size=n, timeout=wait,
    )  # fmt: skip


# ---- what is heard from it ----


class _Kept(io.FileIO):
    "A file that takes the first LOUD bytes; a print in an endless loop fills no disk."

    def write(self, data):
        if self.tell() < LOUD:
            super().write(data)
        return len(data)


def _speak_into(folder, rank):
    "Send all prints, also those of C and of child processes, into the call's files."
    for fd, name in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{name}.{rank}", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(file, fd)
        os.close(file)
        stream = io.TextIOWrapper(
            _Kept(fd, "w", closefd=False), encoding="utf-8",
            errors="backslashreplace", newline="\n", write_through=True,
        )  # fmt: skip
        setattr(sys, "stdout" if fd == 1 else "stderr", stream)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115


def _show_stacks(folder, rank, timeout):
    "Write all stacks on SIGUSR1, on a crash, or (Windows) just before the time is up."
    stack = open(folder / f"stack.{rank}", "a", encoding="utf-8")  # noqa: SIM115
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, stack)
    else:
        faulthandler.dump_traceback_later(max(timeout - 1, timeout / 2), file=stack)
    crash = open(folder / f"crash.{rank}", "a", encoding="utf-8")  # noqa: SIM115
    faulthandler.enable(crash)  # and its file says that a signal would be answered
    _show_stacks.files = crash, stack  # open as long as the rank lives
