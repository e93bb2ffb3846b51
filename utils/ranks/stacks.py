"Where does each rank stand? Its stack, asked for by a signal, and what it says."

import itertools
import linecache
import os
import re
import signal
import time
from pathlib import Path

from utils.ranks import worker

FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.M)
PARTS = re.compile(r"[/\\]torch[/\\](distributed[/\\]|nn[/\\]parallel[/\\]|_ops\.py)")
LIBRARY = re.compile(r"[/\\](torch|site-packages)[/\\]")
OURS = {  # in which a rank waits for others
    ("meeting.py", "between"): "the meeting of all ranks",
    ("meeting.py", "members"): "members",
    ("meeting.py", "store"): "store",
}


def ask(crew, folder, ranks):
    "{rank: [(file, line, function), ...]}, innermost first, down to run's function."
    files = {rank: folder / f"stack.{rank}" for rank in ranks}
    if hasattr(signal, "SIGUSR1"):  # Windows: they are written when time is nearly up
        for file in files.values():
            if file.exists():
                os.truncate(file, 0)
        crew.ask_stacks()
    until, stacks = time.monotonic() + 1.0, {}
    while len(stacks) < len(files) and time.monotonic() < until:
        time.sleep(0.02)
        for rank, file in files.items():
            if rank not in stacks and (frames := _read(file)):
                stacks[rank] = frames
    return stacks


def _read(file):
    "The frames of the thread that runs fn; [] while they are not all written."
    for frames in _threads(file):
        names = [(Path(f).name, name) for f, _, name in frames]
        if ("worker.py", "_report") in names:
            return frames[: names.index(("worker.py", "_report"))]
    return []


def _threads(file):
    "The frames of each thread that faulthandler wrote of, innermost first."
    text = file.read_text(errors="replace") if file.exists() else ""
    found = (FRAME.findall(thread) for thread in text.split("\n\n"))
    return [[(f, int(line), name) for f, line, name in t] for t in found if t]


def has_other_thread(file):
    "Does a second thread of this rank run Python, and could so still send something?"
    threads = _threads(file)
    return any(all("ranks" not in Path(f).parts for f, _, _ in t) for t in threads)


def own(frames):
    "The innermost frame that is not a library's."
    return next((f for f in frames if not LIBRARY.search(f[0])), frames[0])


def waits_in(frames):
    "The communication call in which these frames wait, or None: something else."
    if not frames:
        return None
    inside = itertools.takewhile(lambda frame: PARTS.search(frame[0]), frames)
    inside = [name for _, _, name in inside if name != "wrapper"]
    file, line, name = frames[0]
    if inside and inside != ["__call__"]:
        return inside[-1]  # the outermost: what the function called
    for path, _, function in frames:
        if "ranks" in Path(path).parts and (Path(path).name, function) in OURS:
            return OURS[Path(path).name, function]
    if name == "_engine_run_backward":
        return "backward()"
    if ".wait(" in linecache.getline(file, line):
        return "wait()"
    return None


def joins(frames):
    "Do these frames stand before fn, where the ranks meet?"
    return any((Path(f).name, name) == ("worker.py", "join") for f, _, name in frames)


# ---- as a reader sees them ----


def stands(rank, stacks):
    "One line: where this rank is."
    frames = stacks.get(rank)
    if not frames:
        return f"  rank {rank} did not say where it is"
    file, line, name = own(frames)
    code = linecache.getline(file, line).strip()
    return f"  rank {rank} is at line {line} of {name}" + (f": {code}" if code else "")


def as_traceback(frames):
    "Frames as a traceback shows them; without the inside of a communication call."
    if waits_in(frames):
        frames = frames[frames.index(own(frames)) :]
    lines = []
    for file, line, name in reversed(frames):
        lines.append(f'  File "{file}", line {line}, in {name}')
        if code := linecache.getline(file, line).strip():
            lines.append(f"    {code}")
    return worker.cells("\n".join(lines))
